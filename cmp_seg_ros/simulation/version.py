"""Version of the simulator: cached scans are stored under it, so that scans of two versions never mix."""

import json
from functools import cache
from pathlib import Path

from cmp_seg_ros import label_space, resources
from cmp_seg_ros.digest import digest
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.simulation import lidar, models


def data_files() -> list[Path]:
    """Files of the sensors and label spaces."""
    folders = (lidar.FOLDER, label_space.FOLDER)
    return [
        resources.resource(f"{folder}/{name}.yaml") for folder in folders for name in resources.names(folder, ".yaml")
    ]


WRITERS = ("recorder.py", "preview.py")  # they write what was simulated, and decide no scan


@cache
def simulator_version() -> str:
    """8 hex digits that change with the simulator's code, sensors, model catalogues, classes and their mapping.

    Colours change nothing.
    """
    sensors = [path for path in data_files() if path.parent.name == Path(lidar.FOLDER).name]
    sizes = "".join(f"{path.name}{path.stat().st_size}" for path in models.catalogues())
    indoor = LabelSpace.load("indoor")
    classes = json.dumps([(c.name, c.id) for c in indoor.classes])
    mapped = LabelSpace.load("structural6").id_map(indoor).tobytes().hex()
    program = [path for path in Path(__file__).parent.rglob("*.py") if path.name not in WRITERS]
    return digest([*program, resources.resource(models.TABLE), *sensors], sizes, classes, mapped)

"""Version of the simulator: cached scans are stored under it, so that scans of two versions never mix."""

from functools import cache
from pathlib import Path

from cmp_seg_ros import label_space, resources
from cmp_seg_ros.digest import digest
from cmp_seg_ros.simulation import lidar, models


def data_files() -> list[Path]:
    """Files of the sensors and label spaces."""
    folders = (lidar.FOLDER, label_space.FOLDER)
    return [
        resources.resource(f"{folder}/{name}.yaml") for folder in folders for name in resources.names(folder, ".yaml")
    ]


@cache
def simulator_version() -> str:
    """8 hex digits that change with the simulator's code, sensors, model catalogues and label mappings."""
    sizes = "".join(f"{path.name}{path.stat().st_size}" for path in models.catalogues())
    program = [*Path(__file__).parent.rglob("*.py"), Path(label_space.__file__), resources.resource(models.TABLE)]
    return digest([*program, *data_files()], sizes)

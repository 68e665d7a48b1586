"""Fixed scans with truth and with the labels that each shipped bundle gives them: what a change of code must not move.

python test/golden.py            # after a bundle or the preprocessing was changed on purpose: renew the labels
python test/golden.py --scans    # simulate the scans anew, too
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Scan, UInt8
from cmp_seg_ros.segmenter import Segmenter

DATA = Path(__file__).parent / "data"
SCANS = DATA / "scans.npz"
BUNDLES = ("waffleiron24-128", "waffleiron24-128-distilled")
ENGINE = "cpu-fp32"  # int8 and bf16 round differently from processor to processor
FIRST_BUILDING = 60_000_000  # in no training and no suite
SENSORS = ("os1-16", "os1-64", "os0-128", "vlp-16", "vlp-32c", "xt-32")
POINTS = 9000  # a scan, at most: every second, third, ... column is kept
UNIT = 0.01  # metres: coordinates are kept as integers


class GoldenScan(NamedTuple):
    """A scan in its lidar's frame, the true structural6 id of each point, and how the lidar is mounted."""

    scan: Scan
    truth: UInt8
    T_base_lidar: np.ndarray


def scans() -> Iterator[GoldenScan]:
    with np.load(SCANS) as file:
        for i in range(len(SENSORS)):
            xyz = file[f"{i}.xyz"].astype(np.float32) * np.float32(UNIT)
            scan = Scan(xyz, file[f"{i}.intensity"].astype(np.float32))
            yield GoldenScan(scan, file[f"{i}.truth"], file[f"{i}.T_base_lidar"])


def labels_file(bundle: str) -> Path:
    return DATA / f"labels-{bundle}.npz"


def labels(bundle: str) -> list[UInt8]:
    with np.load(labels_file(bundle)) as file:
        return [file[str(i)] for i in range(len(SENSORS))]


def label(bundle: str | Path, engine: str = ENGINE) -> list[UInt8]:
    """(N,) labels of each scan by a bundle as it is now."""
    return [Segmenter.from_bundle(bundle, engine, T_base_lidar)(scan).label for scan, _, T_base_lidar in scans()]


def simulate() -> None:
    from cmp_seg_ros.simulation.building import make_building
    from cmp_seg_ros.simulation.generate import views_in

    to_truth = LabelSpace.load("structural6").id_map(LabelSpace.load("indoor"))
    arrays: dict[str, Any] = {}
    for i, sensor in enumerate(SENSORS):
        [(scan, truth, T_base_lidar)] = next(views_in(make_building(FIRST_BUILDING + i), 1, sensor, thinned=False))
        assert scan.intensity is not None
        rows, columns = scan.shape
        kept = np.arange(rows * columns).reshape(rows, columns)[:, :: -(-rows * columns // POINTS)].ravel()
        arrays[f"{i}.xyz"] = np.rint(np.where(np.isfinite(scan.xyz[kept]), scan.xyz[kept], 0) / UNIT).astype(np.int16)
        arrays[f"{i}.intensity"] = np.rint(scan.intensity[kept]).astype(np.uint16)
        arrays[f"{i}.truth"] = to_truth[truth[kept]]
        arrays[f"{i}.T_base_lidar"] = T_base_lidar
    np.savez_compressed(SCANS, **arrays)


if __name__ == "__main__":
    if "--scans" in sys.argv:
        simulate()
    for name in BUNDLES:
        new: dict[str, Any] = {str(i): ids for i, ids in enumerate(label(name))}
        np.savez_compressed(labels_file(name), **new)

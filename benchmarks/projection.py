"""Visibility and labels of projected points against the simulator's truth, with and without visibility and motion.

python benchmarks/projection.py [SCENES]     # SCENES: folder of small_house/ and hospital/; some ten minutes

Prints, by world: precision and recall of `visible`; the share of wrong labels among the points that get a pixel: by the
nearest pixel alone, visibility-checked, away from depth edges, and each without motion correction; milliseconds.
"""

import sys
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmp_seg_ros.geometry import motion
from cmp_seg_ros.geometry.projection import project_scan
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation.rig import Rig, RigConfig
from cmp_seg_ros.simulation.rig_camera import RigCamera, load_camera

CAMERAS = (
    RigCamera("front"),
    RigCamera("fish", load_camera("equidistant"), yaw=90.0),
    RigCamera("wide", load_camera("wide"), yaw=-90.0, pitch=15.0),
    RigCamera("side"),
)
SIDEWAYS = 0.3  # metres that the last camera is moved to the right
BUILDINGS = ("os1-16", "vlp-16", "xt-32", "os1-64", "os0-128", "os1-16", "rs-16", "xt-32")  # lidars, from seed 101 on
SCENES = [(1, "os1-16", "small_house"), (2, "vlp-16", "hospital"), (3, "xt-32", "small_house"),
          (4, "os1-64", "hospital"), (5, "os0-128", "small_house"), (6, "os1-16", "hospital")]  # fmt: skip
SIX = LabelSpace.load("structural6").id_map(LabelSpace.load("indoor"))


def measure(rig: Rig, index: int) -> dict[str, np.ndarray]:
    """Sums over the cameras of one moment, by what they count."""
    sweep, start = rig.scan(index), rig.scan_time(index)
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(2))
    scan = replace(sweep.scan, stamp=1 + round(start * 1e9))
    moved = motion.at(
        scan,
        round(rig.image_time(index) * 1e9),
        lambda stamp: rig.trajectory.pose(np.array([stamp * 1e-9]))[0] @ rig.T_base_lidar,
    )
    assert moved is not None
    for number, camera in enumerate(rig.config.cameras):
        truth, image = rig.visible(index, sweep, number), rig.image(index, number)
        T = np.linalg.inv(rig.T_base_cameras[number]) @ rig.T_base_lidar
        project_scan(moved, camera.camera, T)
        began = time.perf_counter()
        seen = project_scan(moved, camera.camera, T)
        sums["milliseconds"] += 1e3 * (time.perf_counter() - began), 1
        sums["precision"] += (seen.visible & truth).sum(), seen.visible.sum()
        sums["recall"] += (seen.visible & truth).sum(), truth.sum()
        for name, xyz in (("moved", moved), ("not moved", scan.xyz)):
            found = seen if xyz is moved else project_scan(xyz, camera.camera, T)
            uv, inside = np.nan_to_num(np.rint(found.uv)), np.isfinite(found.uv[:, 0])
            inside &= (uv >= 0).all(axis=1) & (uv < (camera.camera.width, camera.camera.height)).all(axis=1)
            inside &= scan.valid()
            column, row = np.where(inside[:, None], uv, 0).astype(int).T
            own, other = SIX[sweep.label], SIX[image.label[row, column]]
            known, wrong = (own != UNLABELLED) & (other != UNLABELLED), own != other
            kinds = {"nearest pixel": inside, "visible": found.visible, "visible, no edge": found.visible & ~found.edge}
            for kind, points in kinds.items():
                sums[f"wrong, {kind}, {name}"] += (points & known & wrong).sum(), (points & known).sum()
    return sums


def main() -> None:
    """Measure all worlds."""
    scenes = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    jobs: list[tuple[int, str, Path | None]] = [(seed, sensor, None) for seed, sensor in enumerate(BUILDINGS, 101)]
    jobs += [(seed, sensor, scenes / name) for seed, sensor, name in SCENES] if scenes else []
    totals: dict[str, dict[str, np.ndarray]] = defaultdict(lambda: defaultdict(lambda: np.zeros(2)))
    for seed, sensor, scene in jobs:
        rig = Rig(RigConfig(seed, sensor, seconds=3.0, cameras=CAMERAS, scene=scene))
        rig.T_base_cameras[-1][:2, 3] += SIDEWAYS * rig.T_base_cameras[-1][:2, 0]
        for what, (part, whole) in measure(rig, rig.frames - 3).items():
            for world in ("all", scene.name if scene else "buildings"):
                totals[world][what] += part, whole
        print(f"{scene.name if scene else 'building'} {seed}, {sensor}", file=sys.stderr)
    for world, sums in totals.items():
        for what, (part, whole) in sums.items():
            print(f"{world:12} {what:40} {part / whole:.4f}")


if __name__ == "__main__":
    main()

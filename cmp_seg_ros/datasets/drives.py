"""Simulated drives with lidar and cameras through random buildings or a scene; made when they are asked for."""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmp_seg_ros.datasets.frame import TRUTH, CameraImage, Frame, PointLabels
from cmp_seg_ros.datasets.seeded import Seeded
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.scan import UInt8

if TYPE_CHECKING:
    from cmp_seg_ros.simulation.rig import Rig

START = 1_700_000_000_000_000_000  # nanoseconds


class DataSet(Seeded):
    """Scans with images and poses, in the order of drives and time. Truth is in `indoor`.

    Args:
        seeds: of the buildings, or of the visits of the scene; a drive each.
        scans: of a drive.
        rate: scans and images a second.
        sensor: name of the lidar.
        cameras: as for `cmp-seg simulate`.
        scene: folder of a furnished scene instead of generated buildings.
    """

    def __init__(
        self,
        seeds: Iterable[int],
        scans: int,
        rate: float = 1.0,
        sensor: str = "os1-16",
        cameras: Iterable[str] = ("pinhole",),
        scene: Path | None = None,
    ) -> None:
        super().__init__(scene or Path("buildings"), seeds, scans)
        self.rate, self.sensor, self.cameras, self.scene = rate, sensor, tuple(cameras), scene

    def frames_of(self, seed: int) -> Iterator[Frame]:
        from cmp_seg_ros.simulation.rig import Rig, RigConfig
        from cmp_seg_ros.simulation.rig_camera import RigCamera

        cameras = tuple(RigCamera.parse(camera) for camera in self.cameras)
        seconds = self.scans / self.rate
        rig = Rig(RigConfig(seed, self.sensor, seconds, self.rate, cameras=cameras, scene=self.scene))
        calibrated = rig.calibration().cameras
        for index in range(self.scans):
            stamp, taken = (START + round(time * 1e9) for time in (rig.scan_time(index), rig.image_time(index)))
            swept = rig.scan(index, stamp)
            yield Frame(
                f"{seed}/{index:03d}",
                swept.scan,
                labels={TRUTH: PointLabels(self.label_spaces[TRUTH], swept.label)},
                images={
                    name: CameraImage(taken, partial(self.picture, rig, index, number), camera)
                    for number, (name, camera) in enumerate(calibrated.items())
                },
                T_base_lidar=rig.T_base_lidar,
                locate=partial(_pose, rig),
                sequence=str(seed),
                group=str(seed),
            )

    def picture(self, rig: "Rig", index: int, camera: int) -> UInt8:
        """(H, W, 3) of a camera at a scan."""
        return rig.image(index, camera).rgb


def _pose(rig: "Rig", stamp: int) -> Transform:
    """(4, 4) T_world_lidar."""
    return np.asarray(rig.trajectory.pose(np.array([(stamp - START) * 1e-9]))[0] @ rig.T_base_lidar)

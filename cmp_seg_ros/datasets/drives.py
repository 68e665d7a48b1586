"""Simulated drives with lidar and cameras through random buildings or a scene; made when they are asked for."""

from collections.abc import Iterable, Iterator
from copy import copy
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.frame import TRUTH, CameraImage, Frame, PointLabels
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UInt8

if TYPE_CHECKING:
    from cmp_seg_ros.simulation.rig import Rig
    from cmp_seg_ros.simulation.trajectory import Kind

START = 1_700_000_000_000_000_000  # nanoseconds


class DataSet(BaseDataSet):
    """Scans with images and poses, in the order of drives and time. Truth is in `indoor`.

    Args:
        seeds: of the buildings, or of the visits of the scene; a drive each.
        scans: of a drive.
        rate: scans and images a second.
        sensor: name of the lidar.
        cameras: as for `cmp-seg simulate`.
        motion: how the robot moves.
        scene: folder of a furnished scene instead of generated buildings.
    """

    def __init__(
        self,
        seeds: Iterable[int],
        scans: int,
        rate: float = 1.0,
        sensor: str = "os1-16",
        cameras: Iterable[str] = ("pinhole",),
        motion: "Kind" = "wheeled",
        scene: Path | None = None,
    ) -> None:
        super().__init__(scene or Path("buildings"))
        self.seeds, self.scans, self.rate, self.sensor = list(seeds), scans, rate, sensor
        self.cameras, self.motion, self.scene = tuple(cameras), motion, scene
        self.label_spaces = {TRUTH: LabelSpace.load("indoor")}
        self.count = len(self.seeds) * scans
        self._shown: dict[str, tuple[UInt8, UInt8]] = {}  # by camera: the last image, and its truth

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def __iter__(self) -> Iterator[Frame]:
        for drive in range(len(self.seeds)):
            yield from self._frames(drive)

    def __getitem__(self, number: int) -> Frame:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} scans of {self.path}, none of number {number}")
        drive, index = divmod(number, self.scans)
        return next(islice(self._frames(drive), index, None))

    def parts(self) -> Iterator["DataSet"]:
        """A drive each."""
        for seed in self.seeds:
            part = copy(self)
            part.seeds, part.count, part._shown = [seed], self.scans, {}
            yield part

    def truth_of(self, rgb: UInt8) -> UInt8:
        """(H, W) ids in `indoor` of the last image that a camera gave, for teachers that are simulated.

        Raises:
            LookupError: it is none of these.
        """
        for image, truth in self._shown.values():
            if image is rgb:
                return truth
        raise LookupError("only the truth of the last image of each camera is known; ask for no copies of it")

    def _frames(self, drive: int) -> Iterator[Frame]:
        from cmp_seg_ros.simulation.rig import Rig, RigConfig
        from cmp_seg_ros.simulation.rig_camera import RigCamera

        seed = self.seeds[drive]
        cameras = tuple(RigCamera.parse(camera) for camera in self.cameras)
        seconds = self.scans / self.rate
        rig = Rig(RigConfig(seed, self.sensor, seconds, self.rate, self.motion, cameras=cameras, scene=self.scene))
        calibrated = rig.calibration().cameras
        for index in range(self.scans):
            stamp = START + round(rig.scan_time(index) * 1e9)
            swept = rig.scan(index, stamp)
            yield Frame(
                f"{seed}/{index:03d}",
                swept.scan,
                drive * self.scans + index,
                labels={TRUTH: PointLabels(self.label_spaces[TRUTH], swept.label)},
                images={
                    name: CameraImage(
                        START + round(rig.image_time(index) * 1e9),
                        partial(self._show, rig, index, number, name),
                        camera,
                    )
                    for number, (name, camera) in enumerate(calibrated.items())
                },
                T_base_lidar=rig.T_base_lidar,
                locate=partial(_pose, rig),
                sequence=str(seed),
                group=str(seed),
            )

    def _show(self, rig: "Rig", index: int, camera: int, name: str) -> UInt8:
        image = rig.image(index, camera)
        self._shown[name] = image.rgb, image.label
        return image.rgb


def _pose(rig: "Rig", stamp: int) -> Transform:
    """(4, 4) T_world_lidar."""
    return np.asarray(rig.trajectory.pose(np.array([(stamp - START) * 1e-9]))[0] @ rig.T_base_lidar)

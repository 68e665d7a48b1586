"""PanoRadar (Lai et al., MobiCom 2024), processed part: range images of an Ouster OS0-64 with labels for every pixel.

    BUILDING_moving/expYYYYMMDD-NNN/lidar_npy/NNNNN.npy     (1, 64, 512) float32: range / 10 m; negative: no return
                                    seg_npy/NNNNN.npy       (64, 512) class ids; 255: none
                                    glass_npy/NNNNN.npy     (64, 512) bool: glass, through which the lidar looks

Rows go from +45 to -45 degrees; columns go clockwise from straight ahead (github.com/penn-waves-lab/PanoRadar:
panoradar_SP/visualization.py and process_raw_data.py, which averages four of the sensor's 2048 columns in each).
There is no camera, no intensity and no time. All frames are of the split `test`: the set is for evaluation.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.base import natural, read_npy
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Float32, Scan, UInt8

RANGES, CLASSES, GLASS = "lidar_npy", "seg_npy", "glass_npy"
SHAPE = (64, 512)
UNIT = 10.0  # metres
HALF_VIEW = np.pi / 4  # of the elevations
AVERAGED = 4  # columns of the sensor in one


class DataSet(BaseDataSet):
    """A trajectory, a building, or all of it. Keys are BUILDING/TRAJECTORY/NUMBER as far as the path does not say it.

    The truth is in `panoradar`; points behind glass have none, since it says what the glass is.
    """

    seeks = True

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        super().__init__(path, topic, sensors)
        self.label_spaces = {TRUTH: LabelSpace.load("panoradar")}
        self.files = [
            file
            for folder in sorted(_trajectories(path), key=str)
            for file in sorted((folder / RANGES).glob("*.npy"), key=natural)
        ]
        self.count = len(self.files)
        if not self.files:
            raise UserError(f"{path} has no range images ({RANGES}/*.npy); unpack PanoRadar's processed data there")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and any(True for _ in _trajectories(path))

    def frame_at(self, number: int) -> Frame:
        file = self.files[number]
        trajectory = file.parent.parent
        ranges = self._load(file).reshape(-1).astype(np.float32) * UNIT
        scan = Scan(self._directions * np.where(ranges > 0, ranges, np.nan)[:, None], shape=SHAPE)
        label = self._load(trajectory / CLASSES / file.name).reshape(-1).astype(np.int64)
        strange = (label != UNLABELLED) & ~np.isin(label, self.label_spaces[TRUTH].ids)
        if strange.any():
            raise UserError(f"{trajectory / CLASSES / file.name} has class {label[strange][0]}, not 0 to 10 or 255")
        glass = self._load(trajectory / GLASS / file.name).reshape(-1).astype(bool)
        truth: UInt8 = np.where(glass | ~scan.valid(), UNLABELLED, label).astype(np.uint8)
        name = trajectory.relative_to(self.path).as_posix()
        return Frame(
            file.stem if name == "." else f"{name}/{file.stem}",
            scan,
            number,
            labels={TRUTH: PointLabels(self.label_spaces[TRUTH], truth)},
            T_base_lidar=np.eye(4),
            sequence=str(trajectory),
            group=trajectory.parent.name.rpartition("_")[0],
            split="test",
        )

    @cached_property
    def _directions(self) -> Float32:
        """(64 * 512, 3) unit vectors, x ahead, z up."""
        elevation = np.linspace(HALF_VIEW, -HALF_VIEW, SHAPE[0])[:, None]
        columns = SHAPE[1] * AVERAGED
        fine = columns - 1 - (np.arange(SHAPE[1]) * AVERAGED + (AVERAGED - 1) / 2)  # anticlockwise
        azimuth = (2 * np.pi * fine / columns)[None]
        level = np.cos(elevation)
        parts = (level * np.cos(azimuth), level * np.sin(azimuth), np.sin(elevation) + 0 * azimuth)
        return np.stack(parts, axis=-1).reshape(-1, 3).astype(np.float32)

    def _load(self, file: Path) -> npt.NDArray[Any]:
        """(64, 512). Raises UserError."""
        image = np.squeeze(read_npy(file))
        if image.shape != SHAPE:
            raise UserError(f"{file} is {image.shape}, not {SHAPE}; unpack it again")
        return image


def _trajectories(path: Path) -> Iterator[Path]:
    for pattern in (RANGES, f"*/{RANGES}", f"*/*/{RANGES}"):
        yield from (folder.parent for folder in path.glob(pattern) if folder.is_dir())

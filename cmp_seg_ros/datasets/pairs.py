"""Folders of scans with pictures whose calibration lies beside them in a form of its own."""

from abc import ABC, abstractmethod
from dataclasses import replace
from pathlib import Path

from cmp_seg_ros.datasets import pcd
from cmp_seg_ros.datasets.base import DataSet, natural
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Calibration
from cmp_seg_ros.geometry.sensor_set import SensorSet


class PairsFolder(DataSet, ABC):
    """NAME.pcd with NAME.jpg, in natural order; keys are names. A calibration file goes before its own."""

    one_file_each = True
    seeks = True

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        if sensors is None or sensors.file is None:
            sensors = SensorSet.of(self.calibration(path))
        super().__init__(path, topic, sensors)
        self.files = sorted(path.glob("*.pcd"), key=natural)
        self.count = len(self.files)
        if not self.files:
            raise UserError(f"folder {path} holds a calibration but no .pcd; copy the scans and pictures beside it")

    @staticmethod
    @abstractmethod
    def calibration(path: Path) -> Calibration:
        """That of a folder. Raises UserError."""

    def frame_at(self, number: int) -> Frame:
        [frame] = pcd.DataSet(self.files[number], sensors=self.sensors)
        return replace(frame, number=number)

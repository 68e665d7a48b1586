"""Folders of scans with pictures whose calibration lies beside them in a form of its own."""

from abc import ABC, abstractmethod
from pathlib import Path

from cmp_seg_ros.datasets import Folder
from cmp_seg_ros.geometry.calibration import Calibration
from cmp_seg_ros.geometry.sensor_set import SensorSet


class PairsFolder(Folder, ABC):
    """NAME.pcd with NAME.jpg; a calibration file that is given goes before the folder's own."""

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        if sensors is None or sensors.file is None:
            sensors = SensorSet(calibration=self.calibration(path))
        super().__init__(path, topic, sensors)

    @staticmethod
    @abstractmethod
    def calibration(path: Path) -> Calibration:
        """That of a folder. Raises UserError."""

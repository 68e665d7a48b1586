"""The lidar and the cameras of one robot, from a calibration file."""

from pathlib import Path

import numpy as np

from cmp_seg_ros.geometry.calibration import Calibration, Transform

CALIBRATION = "calibration.yaml"


class SensorSet:
    """The calibration of a robot's sensors, with one lidar selected.

    Args:
        file: the calibration file, or None.
        lidar: name of the lidar; needed only if the calibration has several.
        calibration: without a file; None: no calibration.

    Attributes:
        name: of the lidar, as given.
        lidar: its calibration, or None.
        given: whether the user named the file.

    Raises:
        UserError: the file is not valid, or has no such lidar.
    """

    def __init__(self, file: Path | None = None, lidar: str = "", calibration: Calibration | None = None) -> None:
        self.file, self.name = file, lidar
        self.calibration = Calibration.load(file) if file is not None else calibration or Calibration()
        self.lidar = self.calibration.lidar(lidar) if lidar or self.calibration.lidars else None
        self.given = False

    @classmethod
    def around(cls, path: Path, file: Path | None = None, lidar: str = "") -> "SensorSet":
        """The sensors of an input; without a file, a calibration.yaml in the input or beside it is used."""
        found = (folder / CALIBRATION for folder in (path, path.resolve().parent))
        sensors = cls(file or next((candidate for candidate in found if candidate.is_file()), None), lidar)
        sensors.given = file is not None
        return sensors

    @property
    def T_base_lidar(self) -> Transform | None:
        """(4, 4), or None without a calibration."""
        return None if self.lidar is None else np.array(self.lidar.T_base_lidar)

    @property
    def intensity_statistics(self) -> tuple[float, float] | None:
        """Mean and standard deviation of the lidar's intensities, or None if they are to be learnt."""
        if self.lidar is None or self.lidar.intensity_mean is None or self.lidar.intensity_std is None:
            return None
        return self.lidar.intensity_mean, self.lidar.intensity_std

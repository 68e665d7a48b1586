"""The lidar and the cameras of one robot, as a calibration file says."""

from pathlib import Path

import numpy as np

from cmp_seg_ros.geometry.calibration import CalibratedCamera, Calibration, Transform

CALIBRATION = "calibration.yaml"


class SensorSet:
    """The calibration of a robot's sensors, and which of its lidars is meant.

    Args:
        file: the calibration file; None is a robot of which nothing is known.
        lidar: name of the lidar; needed only where the calibration has several.

    Attributes:
        lidar: what is known of it, or None.

    Raises:
        UserError: the file is not valid, or has no such lidar.
    """

    def __init__(self, file: Path | None = None, lidar: str = "") -> None:
        self.file = file
        self.calibration = Calibration() if file is None else Calibration.load(file)
        self.lidar = self.calibration.lidar(lidar) if lidar or self.calibration.lidars else None

    @classmethod
    def around(cls, path: Path, file: Path | None = None, lidar: str = "") -> "SensorSet":
        """The sensors of an input: a calibration.yaml in it or beside it is taken where no file is given."""
        found = (folder / CALIBRATION for folder in (path, path.resolve().parent))
        return cls(file or next((candidate for candidate in found if candidate.is_file()), None), lidar)

    @property
    def T_base_lidar(self) -> Transform | None:
        """(4, 4), or None where it is not known."""
        return None if self.lidar is None else np.array(self.lidar.T_base_lidar)

    @property
    def intensity_statistics(self) -> tuple[float, float] | None:
        """Mean and deviation of the lidar's intensities, or None where they are to be learnt."""
        if self.lidar is None or self.lidar.intensity_mean is None or self.lidar.intensity_std is None:
            return None
        return self.lidar.intensity_mean, self.lidar.intensity_std

    def camera(self) -> CalibratedCamera | None:
        """The only camera."""
        cameras = list(self.calibration.cameras.values())
        return cameras[0] if len(cameras) == 1 else None

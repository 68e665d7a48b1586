"""Pairs of acfr/cam_lidar_calibration: poseN.pcd, poseN.jpg, camera_info.yaml, and a table of calibrations.

Each row of the table is an estimate of T_lidar_camera: roll, pitch, yaw (R = Rz Ry Rx, radians) and x, y, z (metres).
"""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from cmp_seg_ros import configuration
from cmp_seg_ros.datasets.pairs import PairsFolder
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Calibration, Transform
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.geometry.track import rigid
from cmp_seg_ros.messages import camera_info

CAMERA, TABLE = "camera_info.yaml", "calibration*.csv"
COLUMNS = ("roll", "pitch", "yaw", "x", "y", "z")


class DataSet(PairsFolder):
    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir() and (path / CAMERA).is_file() and any(path.glob(TABLE))

    @staticmethod
    def calibration(path: Path) -> Calibration:
        camera = read_camera(path / CAMERA)
        tables = sorted(path.glob(TABLE))
        if len(tables) > 1:
            raise UserError(
                f"{path} has several tables of calibrations ({', '.join(t.name for t in tables)}); keep one"
            )
        T_camera_lidar = np.linalg.inv(read_T_lidar_camera(tables[0]))
        calibrated = CalibratedCamera(**camera.model_dump(), T_camera_lidar=T_camera_lidar.tolist())
        return Calibration(cameras={"camera": calibrated})


def read_camera(path: Path) -> Camera:
    """A CameraInfo as YAML. Raises UserError."""
    content = configuration.read_yaml("camera info", path)
    try:
        return camera_info.decode(SimpleNamespace(**content))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a camera info ({error}); copy it again") from error


def read_T_lidar_camera(path: Path) -> Transform:
    """(4, 4): the median of each column of the table. Raises UserError."""
    from scipy.spatial.transform import Rotation

    try:
        with path.open(newline="") as file:
            rows = [[float(row[name]) for name in COLUMNS] for row in csv.DictReader(file)]
        roll, pitch, yaw, *position = np.median(np.array(rows), axis=0)
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise UserError(f"{path} is not a table of {', '.join(COLUMNS)} ({error!r}); copy it again") from error
    return rigid(Rotation.from_euler("ZYX", [yaw, pitch, roll]), position)  # Rz Ry Rx

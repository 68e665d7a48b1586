"""Pairs of ram-lab/plycal: N.pcd, N.jpg and config.json, with K, D (plumb_bob) and tf, which is T_camera_lidar."""

import json
from pathlib import Path

from pydantic import ValidationError

from cmp_seg_ros.datasets.base import natural
from cmp_seg_ros.datasets.pairs import PairsFolder
from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Calibration

CONFIG = "config.json"


class DataSet(PairsFolder):
    @classmethod
    def recognises(cls, path: Path) -> bool:
        try:
            return path.is_dir() and json.loads((path / CONFIG).read_text()).keys() >= {"cam", "tf"}
        except (OSError, ValueError, AttributeError):
            return False

    @staticmethod
    def calibration(path: Path) -> Calibration:
        from PIL import Image

        config = json.loads((path / CONFIG).read_text())
        picture = next(iter(sorted(path.glob("*.jpg"), key=natural)), None)
        if picture is None:
            raise UserError(f"{path} has no .jpg, whose size is that of the camera; copy the pictures beside the scans")
        try:
            width, height = Image.open(picture).size
            K = config["cam"]["K"]
            camera = CalibratedCamera(
                model="pinhole",
                intrinsics=(K[0][0], K[1][1], K[0][2], K[1][2]),
                distortion=config["cam"]["D"],
                width=width,
                height=height,
                T_camera_lidar=config["tf"],
            )
        except ValidationError as error:
            raise UserError(f"{path / CONFIG} is not valid: {describe_invalid(error)}") from error
        except (OSError, LookupError, TypeError) as error:
            raise UserError(f"{path / CONFIG} or {picture} cannot be read: {error}; copy it again") from error
        return Calibration(cameras={"camera": camera})

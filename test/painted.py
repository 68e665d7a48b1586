"""A teacher whose answers are known, and a camera that looks where the lidar looks."""

from collections.abc import Callable

import numpy as np

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UInt8
from cmp_seg_ros.teachers.base import Features, Masks, Teacher


class Painted(Teacher):
    """Names the class that `label` gives each pixel of an image.

    Args:
        label: (H, W) ids for an (H, W, 3) image.
        space: of these ids.
        confidence: of all pixels, or something that broadcasts to (H, W).
    """

    name, dimension = "painted", 0

    def __init__(
        self, label: Callable[[UInt8], np.ndarray], space: str = "indoor", confidence: float | np.ndarray = 0.9
    ) -> None:
        self.label, self.label_space, self.confidence = label, LabelSpace.load(space), confidence

    def masks(self, rgb: UInt8) -> Masks:
        label = self.label(rgb).astype(np.uint8)
        return Masks(label, np.broadcast_to(self.confidence, label.shape).astype(np.float32))

    def features(self, rgb: UInt8) -> Features:
        raise UserError("no features")


def camera_ahead(width: int, height: int, focal: float) -> CalibratedCamera:
    """In the lidar's place, along its x axis."""
    T_camera_lidar: list[list[float]] = [[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]]
    return CalibratedCamera(
        model="pinhole",
        intrinsics=(focal, focal, (width - 1) / 2, (height - 1) / 2),
        width=width,
        height=height,
        T_camera_lidar=T_camera_lidar,
    )

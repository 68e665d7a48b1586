"""The robot's lidar and camera, as the calibration file or TF knows them."""

from typing import Any

import numpy as np
from rclpy.node import Node

from cmp_seg_ros.geometry.calibration import Calibration, Transform
from cmp_seg_ros.ros.camera_view import CameraView
from cmp_seg_ros.ros.parameters import Parameters
from cmp_seg_ros.ros.transforms import TfExtrinsics
from cmp_seg_ros.scan import Scan


class Sensors:
    """What the parameters say of the sensors. Raises UserError.

    Attributes:
        view: the camera.
        unknown: whether the lidar is taken as upright for want of better.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        p = parameters
        calibration = Calibration()
        if p["extrinsics"] == "file" and p["calibration_file"]:
            calibration = Calibration.load(p["calibration_file"])
        self._lidar = calibration.lidar(p["lidar_name"]) if calibration.lidars or p["lidar_name"] else None
        self._tf = TfExtrinsics(node) if p["extrinsics"] == "tf" else None
        self._base_frame: str = p["base_frame"]
        camera = calibration.camera(p["camera_name"]) if calibration.cameras or p["camera_name"] else None
        self.view = CameraView(camera, self._tf)
        self.unknown = self._lidar is None and self._tf is None

    def for_segmenter(self) -> dict[str, Any]:
        """The arguments of a Segmenter that go with the lidar."""
        if self._lidar is None:
            return {}
        return {
            "T_base_lidar": np.array(self._lidar.T_base_lidar),
            "intensity_mean": self._lidar.intensity_mean,
            "intensity_std": self._lidar.intensity_std,
        }

    @property
    def from_tf(self) -> bool:
        """Whether it is TF that knows how the lidar is mounted."""
        return self._tf is not None

    def T_base_lidar(self, frame: str) -> Transform | None:
        """(4, 4) from TF; None while it has none. Raises UserError."""
        return None if self._tf is None else self._tf.lookup(self._base_frame, frame)

    def camera_stamp(self, scan: Scan) -> int:
        """The scan's stamp in nanoseconds by the cameras' clock; 0 where it has none."""
        offset = round(self._lidar.time_offset * 1e9) if self._lidar else 0
        return scan.stamp + offset if scan.stamp else 0

"""The robot's lidar and camera: poses from the calibration file or TF, all else from the file."""

from typing import Any

import numpy as np
from rclpy.node import Node

from cmp_seg_ros.geometry.calibration import Calibration, Transform
from cmp_seg_ros.ros.camera import CameraInput
from cmp_seg_ros.ros.inputs import Inputs
from cmp_seg_ros.ros.parameters import Parameter, Parameters
from cmp_seg_ros.ros.transforms import TfExtrinsics
from cmp_seg_ros.scan import Scan

PARAMETERS = [
    Parameter("calibration_file", "", "Calibration of the robot's sensors; empty: the lidar is taken as upright"),
    Parameter("lidar_name", "", "The lidar's name in the calibration file; may be empty if it has only one"),
    Parameter("camera_name", "", "The camera's name in the calibration file; may be empty if it has only one"),
    Parameter(
        "extrinsics",
        "file",
        "Where the sensors' poses come from; none: the lidar is taken as upright, no overlay",
        ("file", "tf", "none"),
    ),
    Parameter("base_frame", "base_link", "Frame with z up, for extrinsics from tf"),
    Parameter(
        "wait_for_tf",
        False,
        "With extrinsics from tf: hold scans until the lidar's transform is there; else it is taken as upright",
        read_only=False,
    ),
]


class Sensors:
    """The sensors as the parameters describe them. Raises UserError.

    Attributes:
        unknown: whether the lidar is taken as upright, since no mounting is known.
    """

    def __init__(self, node: Node, parameters: Parameters) -> None:
        p = self._parameters = parameters
        calibration = Calibration.load(p["calibration_file"]) if p["calibration_file"] else Calibration()
        self._lidar = calibration.lidar(p["lidar_name"]) if calibration.lidars or p["lidar_name"] else None
        self._camera = calibration.camera(p["camera_name"]) if calibration.cameras or p["camera_name"] else None
        self._tf = TfExtrinsics(node) if p["extrinsics"] == "tf" else None
        self._mounted = self._lidar if p["extrinsics"] == "file" else None
        self.unknown = self._mounted is None and self._tf is None

    def camera_input(self, inputs: Inputs) -> CameraInput:
        """The topics of the camera, added to the inputs of a node."""
        camera = self._camera if self._parameters["extrinsics"] != "none" else None
        return CameraInput(inputs, self._parameters, camera, self._tf)

    def for_segmenter(self) -> dict[str, Any]:
        """The arguments of a Segmenter that go with the lidar."""
        if self._lidar is None:
            return {}
        return {
            "T_base_lidar": self.mounting,
            "intensity_mean": self._lidar.intensity_mean,
            "intensity_std": self._lidar.intensity_std,
        }

    @property
    def mounting(self) -> Transform | None:
        """(4, 4) T_base_lidar from the calibration file, or None."""
        return np.array(self._mounted.T_base_lidar) if self._mounted else None

    @property
    def from_tf(self) -> bool:
        """Whether the mounting of the lidar comes from TF."""
        return self._tf is not None

    def T_base_lidar(self, frame: str) -> Transform | None:
        """(4, 4) from TF; None while it has none. Raises UserError."""
        return None if self._tf is None else self._tf.lookup(self._parameters["base_frame"], frame)

    def camera_stamp(self, scan: Scan) -> int:
        """The scan's stamp in nanoseconds by the cameras' clock; 0 where it has none."""
        return self._lidar.camera_stamp(scan.stamp) if self._lidar else scan.stamp

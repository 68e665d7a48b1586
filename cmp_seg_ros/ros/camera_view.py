"""What is known of the camera whose images come: its intrinsics and where it sits."""

import numpy as np

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Transform
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.messages import camera_info, cdr
from cmp_seg_ros.ros.transforms import TfExtrinsics

UNKNOWN = "where the camera sits is not known; give a calibration_file with cameras, or extrinsics from tf"


class CameraView:
    """Pose from TF, else from the calibration; intrinsics from the calibration, else from the camera info.

    Args:
        calibrated: the camera in the calibration file, or None.
        tf: where to look for poses, or None where the file gives them.

    Attributes:
        camera_info: the last sensor_msgs/CameraInfo, serialised.
    """

    def __init__(self, calibrated: CalibratedCamera | None, tf: TfExtrinsics | None) -> None:
        self.calibrated = calibrated
        self.tf = tf
        self.camera_info: bytes | None = None

    def check(self) -> None:
        """Raise UserError if it can never be known where the camera sits."""
        if self.calibrated is None and self.tf is None:
            raise UserError(UNKNOWN)

    def T_camera_lidar(self, camera_frame: str, lidar_frame: str) -> Transform:
        """(4, 4). Raises UserError where it is not known."""
        self.check()
        if self.tf is None:
            assert self.calibrated is not None
            return np.array(self.calibrated.T_camera_lidar)
        found = self.tf.lookup(camera_frame, lidar_frame)
        if found is None:
            raise UserError(
                f"TF has no transform from {lidar_frame} to {camera_frame}; publish it, or take extrinsics from a file"
            )
        return found

    def camera(self, width: int, height: int) -> Camera:
        """The intrinsics for images of that size. Raises UserError where they are not known."""
        if self.calibrated is not None and (self.calibrated.width, self.calibrated.height) == (width, height):
            return self.calibrated
        if self.camera_info is None:
            raise UserError(
                f"there is no calibration for images of {width} x {height}; "
                "publish camera_info, or give the camera in the calibration file"
            )
        camera = camera_info.decode(cdr.deserialize(self.camera_info, cdr.CAMERA_INFO))
        if (camera.width, camera.height) != (width, height):
            raise UserError(
                f"the camera info is for {camera.width} x {camera.height} pixels, the image has {width} x {height}; "
                "both must come from the same camera"
            )
        return camera

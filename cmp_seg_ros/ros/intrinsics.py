"""Camera models for the images of a topic."""

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.messages import camera_info, cdr


class Intrinsics:
    """The calibrated camera, for images of its size; for others the camera of the camera info.

    Args:
        calibrated: the camera in the calibration file, or None.
    """

    def __init__(self, calibrated: Camera | None) -> None:
        self._calibrated = calibrated
        self._last: bytes | None = None

    def store(self, info: bytes) -> None:
        """Keep the newest camera info, serialised."""
        self._last = info

    @property
    def known(self) -> bool:
        """Whether there is a calibration or a camera info."""
        return self._calibrated is not None or self._last is not None

    def of(self, width: int, height: int, info: bytes | None = None) -> Camera:
        """The camera for images of that size; `info`: serialised, of the image itself; None: the newest.

        Raises:
            UserError: it is unknown, of another size, or of an unsupported model.
        """
        calibrated = self._calibrated
        if calibrated is not None and (calibrated.width, calibrated.height) == (width, height):
            return calibrated
        info = info or self._last
        if info is None:
            raise UserError(
                f"there is no calibration for images of {width} x {height}; "
                "publish camera_info, or give the camera in the calibration file"
            )
        camera = camera_info.decode(cdr.deserialize(info, cdr.CAMERA_INFO))
        if (camera.width, camera.height) != (width, height):
            raise UserError(
                f"the camera info is for {camera.width} x {camera.height} pixels, the image has {width} x {height}; "
                "both must come from the same camera"
            )
        return camera

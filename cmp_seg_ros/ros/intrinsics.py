"""Camera models for the images of a topic."""

from collections import deque

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.messages import camera_info, cdr

KEPT = 16  # camera infos
NEAR = 10_000_000  # ns between the stamps of an image and its own camera info, at most


class Intrinsics:
    """The calibrated camera, for images of its size; for others the camera of the image's own camera info, or the last.

    Args:
        calibrated: the camera in the calibration file, or None.
    """

    def __init__(self, calibrated: Camera | None) -> None:
        self._calibrated = calibrated
        self._infos: deque[bytes] = deque(maxlen=KEPT)

    def store(self, info: bytes) -> None:
        """Keep a camera info, serialised."""
        self._infos.append(info)

    @property
    def known(self) -> bool:
        """Whether there is a calibration or a camera info."""
        return self._calibrated is not None or bool(self._infos)

    def of(self, width: int, height: int, stamp: int) -> Camera:
        """The camera for an image of that size and stamp (nanoseconds).

        Raises:
            UserError: it is unknown, of another size, or of an unsupported model.
        """
        calibrated = self._calibrated
        if calibrated is not None and (calibrated.width, calibrated.height) == (width, height):
            return calibrated
        infos = tuple(self._infos)[::-1]  # newest first; others may come meanwhile
        if not infos:
            raise UserError(
                f"there is no calibration for images of {width} x {height}; "
                "publish camera_info, or give the camera in the calibration file"
            )
        nearest = min(infos, key=lambda info: abs(cdr.stamp_ns(info) - stamp))
        info = nearest if abs(cdr.stamp_ns(nearest) - stamp) < NEAR else infos[0]
        camera = camera_info.decode(cdr.deserialize(info, cdr.CAMERA_INFO))
        if (camera.width, camera.height) != (width, height):
            raise UserError(
                f"the camera info is for {camera.width} x {camera.height} pixels, the image has {width} x {height}; "
                "both must come from the same camera"
            )
        return camera

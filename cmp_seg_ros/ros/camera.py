"""A camera: where it sits, its intrinsics, its images joined with scans, and labels drawn over them."""

import time
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry import overlay
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Transform
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.geometry.projection import project_scan
from cmp_seg_ros.messages import camera_info, cdr, images
from cmp_seg_ros.ros.inputs import Inputs
from cmp_seg_ros.ros.parameters import Parameter, Parameters
from cmp_seg_ros.ros.synchroniser import Match, Synchroniser
from cmp_seg_ros.ros.transforms import TfExtrinsics
from cmp_seg_ros.scan import Scan, UInt8

try:
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter
except ImportError:
    from cmp_seg_ros.ros.message_filters import ApproximateTimeSynchronizer, SimpleFilter

PAIRS, SLOP = 16, 0.01  # images and camera infos that are remembered for each other; seconds between their stamps
UNKNOWN = "where the camera sits is not known; give a calibration_file with cameras, or extrinsics from tf"
PARAMETERS = [
    Parameter("image_transport", "raw", "compressed subscribes to image/compressed", ("raw", "compressed")),
    Parameter(
        "sync_deadline",
        0.1,
        "Seconds: the most that an image may be apart from a scan, and the longest that an overlay waits for it",
        (0.0, 5.0),
        read_only=False,
    ),
    Parameter("overlay_point_size", 4, "Side in pixels of a point in ~/overlay", (1, 50), read_only=False),
    Parameter("overlay_opacity", 0.8, "Opacity of the points in ~/overlay", (0.0, 1.0), read_only=False),
]


class Stamped:
    """A serialised message, of which message_filters sees the stamp; `info` is the camera info of an image."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.header = SimpleNamespace(stamp=Time(nanoseconds=max(0, cdr.stamp_ns(data))))
        self.info: bytes | None = None


class Seen(NamedTuple):
    """An image of a camera.

    header: of its message. rgb: (H, W, 3). camera: its intrinsics, and where the lidar is.
    """

    header: Any
    rgb: UInt8
    camera: CalibratedCamera


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


class CameraInput:
    """The topics image and camera_info, and where the camera sits.

    The pose is that of TF, else that of the calibration; intrinsics are those of the calibration where it has the
    image's size, else those of the camera info: of the image's own where message_filters pairs them, or of the last.

    Args:
        inputs: where the topics are added; its lock guards the images.
        calibrated: the camera in the calibration file, or None.
        tf: where to look for poses, or None where the file gives them.

    Attributes:
        topic, type: of the images, before remapping.
    """

    def __init__(
        self, inputs: Inputs, parameters: Parameters, calibrated: CalibratedCamera | None, tf: TfExtrinsics | None
    ) -> None:
        self._inputs, self._parameters = inputs, parameters
        self._calibrated, self._tf = calibrated, tf
        self.intrinsics = Intrinsics(calibrated)
        self._filters = SimpleFilter(), SimpleFilter()
        self._pairs = ApproximateTimeSynchronizer(list(self._filters), PAIRS, SLOP)
        self._pairs.registerCallback(self._pair)
        self._synchroniser: Synchroniser[Stamped] = Synchroniser(parameters["sync_deadline"])
        compressed = parameters["image_transport"] == "compressed"
        self.type = cdr.COMPRESSED_IMAGE if compressed else cdr.IMAGE
        self.topic = "image/compressed" if compressed else "image"
        self._images = inputs.add(CompressedImage if compressed else Image, self.topic, self._store)
        inputs.add(CameraInfo, "camera_info", self._store_info, 2)

    def _store(self, data: bytes) -> None:
        image = Stamped(data)
        self._synchroniser.add_image(cdr.stamp_ns(data), image, time.monotonic())
        self._filters[0].signalMessage(image)

    def _store_info(self, data: bytes) -> None:
        self.intrinsics.store(data)
        self._filters[1].signalMessage(Stamped(data))

    def _pair(self, image: Stamped, info: Stamped) -> None:
        image.info = info.data

    def add_scan(self, stamp: int) -> bool:
        """Note the stamp of a scan by the cameras' clock; true where time ran backwards."""
        with self._inputs.changed:
            self._synchroniser.deadline = self._parameters["sync_deadline"]
            return self._synchroniser.add_scan(stamp)

    def decided(self, stamp: int, waiting_since: float) -> bool:
        """Whether the image of a scan that came then (monotonic seconds) is there, or will not come in time."""
        return self._synchroniser.decided(stamp, waiting_since, time.monotonic())

    def match(self, stamp: int) -> Match[Stamped] | None:
        """The image of a scan."""
        with self._inputs.changed:
            return self._synchroniser.match(stamp)

    def T_camera_lidar(self, camera_frame: str, lidar_frame: str) -> Transform:
        """(4, 4). Raises UserError where it is not known."""
        if self._tf is not None:
            found = self._tf.lookup(camera_frame, lidar_frame)
        elif self._calibrated is not None:
            found = np.array(self._calibrated.T_camera_lidar)
        else:
            raise UserError(UNKNOWN)
        if found is None:
            raise UserError(
                f"TF has no transform from {lidar_frame} to {camera_frame}; publish it, or take extrinsics from a file"
            )
        return found

    def decode(self, image: Stamped, lidar_frame: str) -> Seen:
        """The image, its intrinsics, and where it was taken from. Raises UserError."""
        msg = cdr.deserialize(image.data, self.type)
        T_camera_lidar = self.T_camera_lidar(msg.header.frame_id, lidar_frame)
        pixels = images.to_rgb(msg)
        camera = self.intrinsics.of(pixels.shape[1], pixels.shape[0], image.info)
        model = {name: getattr(camera, name) for name in Camera.model_fields}
        return Seen(msg.header, pixels, CalibratedCamera(**model, T_camera_lidar=T_camera_lidar.tolist()))

    def draw(self, image: Stamped, scan: Scan, label: UInt8, palette: UInt8) -> bytes:
        """The image with the labels (N,) of the scan's points in it, as a serialised Image. Raises UserError."""
        seen = self.decode(image, scan.frame_id)
        size, opacity = self._parameters["overlay_point_size"], self._parameters["overlay_opacity"]
        projection = project_scan(scan.xyz, seen.camera, np.array(seen.camera.T_camera_lidar))
        drawn = overlay.draw(seen.rgb, projection, label, palette, size, opacity)
        return cdr.serialize(images.encode(drawn, "rgb8", seen.header, cdr.message_class(cdr.IMAGE)), cdr.IMAGE)

    def problem(self, wanted: bool) -> str:
        """Why no image comes, though one did once or somebody wants the overlay; empty while all is well."""
        return self._images.problem() if wanted or self._images.received else ""

    def values(self) -> dict[str, Any]:
        """For /diagnostics."""
        with self._inputs.changed:
            offset, match_rate = self._synchroniser.median_offset, self._synchroniser.match_rate
        return {"image.match_rate": match_rate, "image.median_offset_ms": None if offset is None else offset * 1e-6}

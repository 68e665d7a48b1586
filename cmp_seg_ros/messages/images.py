"""sensor_msgs/Image and CompressedImage in and out, for messages of rclpy and of rosbags alike.

`CvBridge` has the interface of cv_bridge's class of that name, as far as this package uses it, without OpenCV: where
cv_bridge is not installed, and where its build does not fit the NumPy at hand.
"""

import contextlib
import io
import sys
from array import array
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import UInt8

Array = npt.NDArray[Any]

QUALITY = 95  # of JPEGs: errors of 1 to 2 grey levels

# Encoding -> (type, channels), and which of the channels are red, green and blue.
LAYOUTS: dict[str, tuple[str, int]] = {
    "rgb8": ("u1", 3),
    "bgr8": ("u1", 3),
    "rgba8": ("u1", 4),
    "bgra8": ("u1", 4),
    "mono8": ("u1", 1),
    "mono16": ("u2", 1),
    "8UC1": ("u1", 1),
    "8UC3": ("u1", 3),
    "16UC1": ("u2", 1),
}
RGB: dict[str, tuple[int, ...]] = {"rgb8": (0, 1, 2), "bgr8": (2, 1, 0), "rgba8": (0, 1, 2), "bgra8": (2, 1, 0)}
RGB |= {"8UC3": RGB["bgr8"]}  # as OpenCV has it


def to_rgb(msg: Any) -> UInt8:
    """(H, W, 3) red, green, blue of an Image or a CompressedImage.

    cv_bridge converts it where that is installed, and does not fail at it; else `CvBridge`. Raises UserError.
    """
    full = _full_bridge()
    if full is not None and not _skewed(msg):
        with contextlib.suppress(Exception):  # an encoding that it does not convert, or a build that fits another NumPy
            return _rgb(msg, full)
    return _rgb(msg, CvBridge())


def is_jpeg(content: bytes) -> bool:
    """Whether these bytes are a whole JPEG."""
    return content.startswith(b"\xff\xd8") and content.rstrip(b"\0").endswith(b"\xff\xd9")


def to_jpeg(rgb: UInt8) -> bytes:
    """A JPEG of a (H, W, 3) image, with one channel where it is grey."""
    from PIL import Image

    grey = bool((rgb[..., :1] == rgb[..., 1:]).all())
    content = io.BytesIO()
    Image.fromarray(rgb[..., 0] if grey else rgb).save(content, "JPEG", quality=QUALITY)
    return content.getvalue()


def from_jpeg(content: bytes) -> UInt8:
    """(H, W, 3) of a JPEG. Raises UserError."""
    return to_rgb(SimpleNamespace(data=content, format="jpeg"))


def _rgb(msg: Any, bridge: Any) -> UInt8:
    rgb: UInt8
    if hasattr(msg, "encoding"):
        rgb = bridge.imgmsg_to_cv2(msg, "rgb8")
    else:
        rgb = bridge.compressed_imgmsg_to_cv2(msg, "rgb8")
    return rgb


@cache
def _full_bridge() -> Any | None:
    """That of cv_bridge, where it is installed and fits the NumPy at hand."""
    try:
        from cv_bridge import CvBridge as FullBridge

        return FullBridge()
    except (ImportError, AttributeError):
        return None


def _skewed(msg: Any) -> bool:
    """Whether rows end within a pixel, which cv_bridge does not heed."""
    kind, channels = LAYOUTS.get(getattr(msg, "encoding", ""), ("u1", 1))
    return bool(getattr(msg, "step", 0) % (channels * np.dtype(kind).itemsize))


def encode(pixels: Array, encoding: str, header: Any, image: type) -> Any:
    """An Image of the given class: that of `sensor_msgs.msg` or of a rosbags type store.

    Args:
        pixels: (H, W, C), or (H, W) with one channel, of the encoding's type. Raises UserError where it does not fit.
    """
    pixels = np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[:, :, None])
    if LAYOUTS.get(encoding) != (pixels.dtype.str[1:], pixels.shape[2]):
        raise UserError(f"an array {pixels.shape} of {pixels.dtype} is no image of encoding '{encoding}'")
    height, width, channels = pixels.shape
    data = pixels.reshape(-1).view(np.uint8)
    return image(
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=int(pixels.dtype.itemsize > 1 and sys.byteorder == "big"),
        step=width * channels * pixels.itemsize,
        data=array("B", data.tobytes()) if hasattr(image, "get_fields_and_field_types") else data,
    )


class CvBridge:
    """Images of messages as arrays (H, W, C), or (H, W) with one channel, and back."""

    def imgmsg_to_cv2(self, img_msg: Any, desired_encoding: str = "passthrough") -> Array:
        """The image in the encoding asked for (its own by default), in this machine's byte order. Raises UserError."""
        encoding = str(img_msg.encoding)
        if encoding not in LAYOUTS:
            raise UserError(
                f"the image has the encoding '{encoding}'; without cv_bridge only {', '.join(LAYOUTS)} are known. "
                "Install cv_bridge, or give a topic with one of these"
            )
        kind, channels = LAYOUTS[encoding]
        dtype = np.dtype((">" if img_msg.is_bigendian else "<") + kind)
        height, width, step = int(img_msg.height), int(img_msg.width), int(img_msg.step)
        row = width * channels * dtype.itemsize
        size = len(img_msg.data)
        if 0 in (height, width) or step < row or size < (height - 1) * step + row:
            raise UserError(
                f"the image says {width} x {height} pixels of {encoding} and {step} bytes a row, but has {size} bytes; "
                "the message is cut short or the driver describes it wrongly"
            )
        data = np.frombuffer(img_msg.data, np.uint8).data
        strides = (step, channels * dtype.itemsize, dtype.itemsize)
        image = np.ndarray((height, width, channels), dtype, data, 0, strides)
        image = image.astype(dtype.newbyteorder("="), copy=False)
        return _convert(image, encoding, desired_encoding)

    def compressed_imgmsg_to_cv2(self, cmprs_img_msg: Any, desired_encoding: str = "passthrough") -> Array:
        """The image of a CompressedImage; colours as bgr8 unless asked for otherwise. Raises UserError."""
        from PIL import Image, UnidentifiedImageError

        try:
            picture = Image.open(io.BytesIO(bytes(cmprs_img_msg.data)))
            grey = picture.mode in ("L", "1")
            pixels = np.asarray(picture.convert("L" if grey else "RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"the compressed image ('{cmprs_img_msg.format}') cannot be read: {error}") from error
        if desired_encoding == "passthrough":
            desired_encoding = "mono8" if grey else "bgr8"
        return _convert(pixels.reshape(*pixels.shape[:2], -1), "mono8" if grey else "rgb8", desired_encoding)

    def cv2_to_imgmsg(self, cvim: Array, encoding: str = "passthrough", header: Any = None) -> Any:
        """A sensor_msgs/Image of rclpy. Raises UserError where array and encoding do not fit each other."""
        from sensor_msgs.msg import Image
        from std_msgs.msg import Header

        if encoding == "passthrough":
            encoding = f"{8 * cvim.itemsize}UC{1 if cvim.ndim == 2 else cvim.shape[2]}"
        return encode(cvim, encoding, header or Header(), Image)


def _convert(image: Array, encoding: str, desired: str) -> Array:
    """(H, W, C) in one encoding to (H, W, C) or (H, W) in another. Raises UserError."""
    if desired in ("passthrough", encoding):
        return image if image.shape[2] > 1 else image[:, :, 0]
    if desired not in LAYOUTS or "8" not in desired:
        raise UserError(f"images are not converted from {encoding} to {desired}")
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    rgb = image[:, :, RGB[encoding]] if encoding in RGB else np.repeat(image, 3, axis=2)
    if LAYOUTS[desired][1] == 1:
        grey = image[:, :, 0] if encoding not in RGB else rgb @ np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
        return np.rint(grey).astype(np.uint8)
    out = np.full((*rgb.shape[:2], LAYOUTS[desired][1]), 255, np.uint8)
    out[:, :, RGB[desired]] = rgb
    return out

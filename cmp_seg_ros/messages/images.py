"""sensor_msgs/Image and CompressedImage in and out, for messages of rclpy and of rosbags alike.

Encodings beyond LAYOUTS (Bayer, YUV) are left to cv_bridge, where that is installed.
"""

import io
import sys
from array import array
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import UInt8

Array = npt.NDArray[Any]

QUALITY = 95  # of JPEGs: errors of 1 to 2 grey levels

# Encoding -> (type, channels), and which of the channels are red, green and blue; without these it is grey.
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
    """(H, W, 3) red, green, blue of an Image or a CompressedImage. Raises UserError."""
    if not hasattr(msg, "encoding"):
        return decompressed(bytes(msg.data), f"the compressed image ('{msg.format}')")
    encoding = str(msg.encoding)
    if encoding not in LAYOUTS:
        return _by_cv_bridge(msg)
    pixels = pixels_of(msg)
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return pixels if encoding == "rgb8" else pixels[:, :, RGB.get(encoding, (0, 0, 0))]


def pixels_of(msg: Any) -> Array:
    """(H, W, C) of an Image whose encoding is in LAYOUTS, in this machine's byte order. Raises UserError."""
    kind, channels = LAYOUTS[msg.encoding]
    dtype = np.dtype((">" if msg.is_bigendian else "<") + kind)
    height, width, step = int(msg.height), int(msg.width), int(msg.step)
    row = width * channels * dtype.itemsize
    size = len(msg.data)
    if 0 in (height, width) or step < row or size < (height - 1) * step + row:
        raise UserError(
            f"the image says {width} x {height} pixels of {msg.encoding} and {step} bytes a row, but has {size} bytes; "
            "the message is cut short or the driver describes it wrongly"
        )
    data = np.frombuffer(msg.data, np.uint8).data
    pixels = np.ndarray((height, width, channels), dtype, data, 0, (step, channels * dtype.itemsize, dtype.itemsize))
    return pixels.astype(dtype.newbyteorder("="), copy=False)


def _by_cv_bridge(msg: Any) -> UInt8:
    try:
        from cv_bridge import CvBridge

        rgb: UInt8 = CvBridge().imgmsg_to_cv2(msg, "rgb8")
    except Exception as error:  # it is missing, fits another NumPy, or does not know the encoding either
        raise UserError(
            f"the image has the encoding '{msg.encoding}'; without cv_bridge only {', '.join(LAYOUTS)} are known "
            f"({error}). Install cv_bridge, or give a topic with one of these"
        ) from error
    return rgb


def decompressed(content: bytes, what: str) -> UInt8:
    """(H, W, 3) red, green, blue of a JPEG, a PNG, ... Raises UserError, which calls it `what`."""
    from PIL import Image

    try:
        return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    except (OSError, SyntaxError) as error:  # SyntaxError: of a damaged PNG
        raise UserError(f"{what} cannot be read: damaged, or no known kind of image") from error


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

"""Labels of a scan drawn over a camera image."""

import numpy as np

from cmp_seg_ros.geometry.projection import Projection
from cmp_seg_ros.scan import UNLABELLED, UInt8


def draw(
    image: UInt8, projection: Projection, label: UInt8, palette: UInt8, size: int = 3, opacity: float = 0.8
) -> UInt8:
    """A copy of the image with the visible labelled points drawn as squares, near points over far ones.

    Args:
        image: (H, W, 3).
        projection: of the N points. label: (N,). palette: (256, 3).
        size: side of a square in pixels.
        opacity: 0..1.
    """
    drawn = np.flatnonzero(projection.visible & (label != UNLABELLED))
    drawn = drawn[np.argsort(-projection.depth[drawn])]  # NumPy keeps the last of several values for one pixel
    column, row = np.rint(projection.uv[drawn]).astype(np.int64).T
    colour = palette[label[drawn]]
    drawing, touched = image.copy(), np.zeros(image.shape[:2], np.bool_)
    height, width = image.shape[:2]
    reach = range(-((size - 1) // 2), size // 2 + 1)
    for down in reach:
        for right in reach:
            pixels = np.clip(row + down, 0, height - 1), np.clip(column + right, 0, width - 1)
            drawing[pixels] = colour
            touched[pixels] = True
    blended = drawing[touched] * np.float32(opacity) + image[touched] * np.float32(1 - opacity)
    drawing[touched] = np.rint(blended).astype(np.uint8)
    return drawing

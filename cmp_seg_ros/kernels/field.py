"""The inner loop of a feature field: bilinear samples of a map at many points."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.kernels.launch import kernel, launch, next_block

BLOCK = 256  # points per block of work

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


def hidden(features: Float32, corner: Int32, weight: Float32, base: Float32, rows: Int32, out: Float32) -> None:
    """out <- relu(base + bilinear sample), for some of N points.

    Args:
        features: (h, w, C) map.
        corner: (N,) flat index of the upper left of the four pixels around a point; all four are in the map.
        weight: (N, 2) fractions of the way to the right and to the lower pixel.
        base: (R, C) what is added to the samples of `rows`.
        rows: (R,) the points.
        out: (R, C)
    """
    height, width, channels = features.shape
    flat = features.reshape(height * width, channels)
    launch(_hidden, flat, width, corner, weight, base, rows, out, blocks=-(-len(rows) // BLOCK))


@kernel
def _hidden(
    features: Any, width: int, corner: Any, weight: Any, base: Any, rows: Any, out: Any, sync: Any, threads: int
) -> None:
    channels = features.shape[1]
    while True:
        first = next_block(sync, 0) * BLOCK
        if first >= len(rows):
            return
        for i in range(first, min(first + BLOCK, len(rows))):
            point = rows[i]
            pixel = corner[point]
            a, b = weight[point, 0], weight[point, 1]
            one = np.float32(1)
            w00, w01, w10, w11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
            f00, f01 = features[pixel], features[pixel + 1]
            f10, f11 = features[pixel + width], features[pixel + width + 1]
            add, to = base[i], out[i]
            for c in range(channels):
                value = add[c] + w00 * f00[c] + w01 * f01[c] + w10 * f10[c] + w11 * f11[c]
                to[c] = max(value, np.float32(0))

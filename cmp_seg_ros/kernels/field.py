"""The point MLP of a feature field at many points, from bilinear samples of a map and positional codes.

A block of points stays in the cache from its coordinates to its densities. Products have bfloat16 or float32 inputs.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.kernels.launch import inlined, kernel, launch, next_block, reduction
from cmp_seg_ros.kernels.network import Product, aligned, multiply
from cmp_seg_ros.kernels.vector import ROWS, widened

BLOCK = 16 * ROWS  # points per block of work

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


class Weights(NamedTuple):
    """The first layer of the point MLP, without its part for the features, and the density's row of the last.

    Args:
        code: (C codes) -> (H,), C padded to whole vectors and H to whole panels.
        factor, frequencies: of the positional code, see `scenedino.field.PositionalCode`.
        density: (H padded,) weights of the density, before its bias and softplus.
        low: empty array of the input type of `code`.
    """

    code: Product
    factor: np.float32
    frequencies: int
    density: Float32
    low: npt.NDArray[Any]


class Map(NamedTuple):
    """Features of pixels: that of row y and column x is pixels[rows[y] + columns[x]].

    Args:
        pixels: (P, H) float32, or bfloat16 as uint16.
        rows, columns: (h,), (w,)
    """

    pixels: npt.NDArray[Any]
    rows: Int32
    columns: Int32


class Places(NamedTuple):
    """N points.

    Args:
        coordinates: (N, 3 or 4) what the positional code sees.
        cell: (N, 2) column and row of the upper left of the four pixels around a point; all four are in the map.
        share: (N, 2) fractions of the way to the right and to the lower pixel.
    """

    coordinates: Float32
    cell: Int32
    share: Float32


class Workspace(NamedTuple):
    """Buffers of one thread: codes, the same in the type of products, its ranges (unused), hidden layer."""

    code: Float32
    low: npt.NDArray[Any]
    ranges: Float32
    high: Float32


def evaluate(weights: Weights, features: Map, places: Places, index: Int32, out: Float32) -> None:
    """The hidden layer, relu(code's part + bilinear sample), at the points `index` (R,).

    out (R, H) <- the hidden layer, or out (R,) <- its product with weights.density.
    """
    launch(_evaluate, weights, features, places, index, out, blocks=-(-len(index) // BLOCK))


@kernel
def _evaluate(weights: Weights, features: Map, places: Places, index: Any, out: Any, sync: Any, threads: int) -> None:
    workspace = _make_workspace(weights)
    while True:
        first = next_block(sync, 0) * BLOCK
        if first >= len(index):
            return
        some = index[first : first + BLOCK]
        _find_hidden(weights, features, places, some, workspace)
        for i in range(len(some)):
            high = workspace.high[i]
            if out.ndim == 1:  # known when it is compiled
                out[first + i] = _dot(high, weights.density)
            else:
                to = out[first + i]
                for c in range(len(to)):
                    to[c] = high[c]


@reduction
def _dot(a: Any, b: Any) -> Any:
    total = np.float32(0)
    for c in range(len(a)):
        total += a[c] * b[c]
    return total


@kernel
def _find_hidden(weights: Weights, features: Map, places: Places, index: Any, workspace: Workspace) -> None:
    """workspace.high <- hidden layer at the points `index`, at most BLOCK."""
    code = workspace.code
    for i in range(len(index)):
        _encode(places.coordinates[index[i]], weights.factor, weights.frequencies, code[i])
    multiply(workspace, code, len(index), code.shape[1], weights.code)
    pixels, channels, one = features.pixels, features.pixels.shape[1], np.float32(1)
    for i in range(len(index)):
        column, row = places.cell[index[i]]
        upper, lower = features.rows[row], features.rows[row + 1]
        left, right = features.columns[column], features.columns[column + 1]
        a, b = places.share[index[i]]
        w00, w01, w10, w11 = (one - a) * (one - b), a * (one - b), (one - a) * b, a * b
        f00, f01, f10, f11 = pixels[upper + left], pixels[upper + right], pixels[lower + left], pixels[lower + right]
        high = workspace.high[i]
        for c in range(channels):
            value = high[c] + w00 * widened(f00[c]) + w01 * widened(f01[c])
            high[c] = max(value + w10 * widened(f10[c]) + w11 * widened(f11[c]), np.float32(0))


@inlined
def _encode(coordinates: Any, factor: Any, frequencies: int, code: Any) -> None:
    """code <- [x, sin(f x), cos(f x), sin(2 f x), ...]; each frequency from the one before by the double angle."""
    inputs = len(coordinates)
    for d in range(inputs):
        code[d] = coordinates[d]
        angle = factor * coordinates[d]
        sine, cosine = np.sin(angle), np.cos(angle)
        for at in range(inputs, inputs * (1 + 2 * frequencies), 2 * inputs):
            code[at + d], code[at + inputs + d] = sine, cosine
            sine, cosine = np.float32(2) * sine * cosine, np.float32(1) - np.float32(2) * sine * sine


@kernel
def _make_workspace(weights: Weights) -> Workspace:
    inputs = weights.code.weight.shape[1] * 4 // weights.low.itemsize
    return Workspace(
        aligned(BLOCK, inputs, weights.density),
        aligned(BLOCK, inputs, weights.low),
        aligned(BLOCK, 2, weights.density),
        aligned(BLOCK, len(weights.density), weights.density),
    )

"""Backward pass of the neighbour branch of the embedding: only the neighbour that was the largest has a gradient."""

from typing import Any

import numpy as np

from cmp_seg_ros.kernels.launch import inlined, kernel, next_block

PARTS = 16  # sums of gradients, one per part of the tokens, so that results do not depend on the number of threads
LANES = 8


@kernel
def pool_backward(
    gradient: Any,
    chosen: Any,
    difference: Any,
    first: Any,
    shift: Any,
    second: Any,
    to_difference: Any,
    to_first: Any,
    to_shift: Any,
    to_second: Any,
    sync: Any,
    threads: int,
) -> None:
    """Gradients of `pooled[m, f] = max over k of second[f] @ relu(difference[m, k] @ first + shift)`.

    Args:
        gradient: (M, G) of pooled.
        chosen: (M, G) the k of each maximum.
        difference: (M, K, C).
        first, shift, second: (C, F), (F,), (G, F).
        to_difference: (M, K, C) its gradient.
        to_first, to_shift, to_second: (PARTS, ...) gradients of these, to be summed over the parts; zeros at first.
    """
    count, neighbours, channels = difference.shape
    outputs, width = second.shape
    hidden, back = np.empty((neighbours, width), second.dtype), np.empty((neighbours, width), second.dtype)
    size = -(-count // PARTS)
    while True:
        part = next_block(sync, 0)
        if part >= PARTS:
            return
        for m in range(part * size, min((part + 1) * size, count)):
            for k in range(neighbours):
                row = hidden[k]
                row[:] = shift
                for c in range(channels):
                    _add(row, difference[m, k, c], first[c])
                for f in range(width):
                    row[f] = max(row[f], 0)
            back[:] = 0
            for g in range(outputs):
                slope = gradient[m, g]
                if slope != 0:
                    k = chosen[m, g]
                    _add(back[k], slope, second[g])
                    _add(to_second[part, g], slope, hidden[k])
            for k in range(neighbours):
                row, active = back[k], hidden[k]
                for f in range(width):
                    row[f] = row[f] if active[f] > 0 else 0
                _add(to_shift[part], row.dtype.type(1), row)
                for c in range(channels):
                    _add(to_first[part, c], difference[m, k, c], row)
                    to_difference[m, k, c] = _dot(row, first[c])


@inlined
def _add(out: Any, factor: Any, values: Any) -> None:
    for i in range(len(out)):
        out[i] += factor * values[i]


@inlined
def _dot(a: Any, b: Any) -> Any:
    """Sum of products, in LANES sums that become one vector."""
    sums = np.zeros(LANES, a.dtype)
    whole = len(a) // LANES * LANES
    for i in range(0, whole, LANES):
        for lane in range(LANES):
            sums[lane] += a[i + lane] * b[i + lane]
    total = sums.sum()
    for i in range(whole, len(a)):
        total += a[i] * b[i]
    return total

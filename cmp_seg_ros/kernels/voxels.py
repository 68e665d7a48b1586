"""Voxelisation: the first point of a scan in each voxel."""

from typing import Any

import numpy as np

from cmp_seg_ros.kernels.launch import inlined, kernel

DIGIT = 11  # bits per pass of the radix sort


@kernel
def first_points(xyz: Any, voxel_size: Any, far: Any) -> Any:
    """(M,) int64: the first of (N, 3) float32 points in each voxel, voxels sorted by x, y, z.

    Voxels start at the minimum of the cloud; points beyond `far` along an axis are ignored. The bounding box must
    contain less than 2^63 voxels.
    """
    points = np.empty(len(xyz), np.int64)
    count = 0
    low, high = np.full(3, np.inf, np.float32), np.full(3, -np.inf, np.float32)
    for i in range(len(xyz)):
        if abs(xyz[i, 0]) < far and abs(xyz[i, 1]) < far and abs(xyz[i, 2]) < far:
            points[count] = i
            count += 1
            for axis in range(3):
                low[axis], high[axis] = min(low[axis], xyz[i, axis]), max(high[axis], xyz[i, axis])
    points = points[:count]
    if count == 0:
        return points
    keys = np.empty(count, np.int64)
    shape1, shape2 = _step(high, low, 1, voxel_size) + 1, _step(high, low, 2, voxel_size) + 1
    for k in range(count):
        point = xyz[points[k]]
        steps = _step(point, low, 0, voxel_size) * shape1 + _step(point, low, 1, voxel_size)
        keys[k] = steps * shape2 + _step(point, low, 2, voxel_size)
    _sort(keys, points, (_step(high, low, 0, voxel_size) + 1) * shape1 * shape2)
    first = 0
    for k in range(count):
        if k == 0 or keys[k] != keys[k - 1]:
            points[first] = points[k]
            first += 1
    return points[:first]


@inlined
def _step(point: Any, low: Any, axis: int, voxel_size: Any) -> Any:
    return np.int64((point[axis] - low[axis]) / voxel_size)


@kernel
def _sort(keys: Any, points: Any, end: int) -> None:
    """Sort keys, all below `end`, and the points with them; stable radix sort."""
    other_keys, other_points = np.empty_like(keys), np.empty_like(points)
    shift, swapped = 0, False
    while shift < 63 and end >> shift:
        place = np.zeros((1 << DIGIT) + 1, np.int64)
        for key in keys:
            place[(key >> shift & (1 << DIGIT) - 1) + 1] += 1
        for digit in range(1 << DIGIT):
            place[digit + 1] += place[digit]
        for k in range(len(keys)):
            digit = keys[k] >> shift & (1 << DIGIT) - 1
            other_keys[place[digit]], other_points[place[digit]] = keys[k], points[k]
            place[digit] += 1
        keys, other_keys = other_keys, keys
        points, other_points = other_points, points
        shift, swapped = shift + DIGIT, not swapped
    if swapped:
        other_keys[:], other_points[:] = keys, points

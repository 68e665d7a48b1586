"""Voxelisation: the first point of a scan in each voxel."""

from typing import Any

import numpy as np

from cmp_seg_ros.kernels.launch import inlined, kernel

DIGIT = 11  # bits per pass of the radix sort


@kernel
def first_points(xyz: Any, voxel_size: Any, far: Any, anchored: Any) -> Any:
    """(M,) int64: the first of (N, 3) float32 points in each voxel, voxels sorted by x, y, z.

    Points beyond `far` along an axis are ignored. Voxels start at the minimum of the cloud or, anchored, at the origin,
    so that no point changes the voxels of others. The bounding box must contain less than 2^63 voxels.
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
    shape0, shape1, shape2 = _steps(high, low, voxel_size, anchored)
    shape1, shape2 = shape1 + 1, shape2 + 1
    for k in range(count):
        step0, step1, step2 = _steps(xyz[points[k]], low, voxel_size, anchored)
        keys[k] = (step0 * shape1 + step1) * shape2 + step2
    _sort(keys, points, (shape0 + 1) * shape1 * shape2)
    first = 0
    for k in range(count):
        if k == 0 or keys[k] != keys[k - 1]:
            points[first] = points[k]
            first += 1
    return points[:first]


@inlined
def _steps(point: Any, low: Any, voxel_size: Any, anchored: Any) -> Any:
    """Voxels from that of `low` to that of `point` along each axis."""
    return (
        _step(point[0], low[0], voxel_size, anchored),
        _step(point[1], low[1], voxel_size, anchored),
        _step(point[2], low[2], voxel_size, anchored),
    )


@inlined
def _step(at: Any, low: Any, voxel_size: Any, anchored: Any) -> Any:
    if anchored:
        return np.int64(np.floor(at / voxel_size)) - np.int64(np.floor(low / voxel_size))
    return np.int64((at - low) / voxel_size)


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

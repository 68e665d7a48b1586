"""Which voxel each point of a scan is in."""

from typing import Any

import numpy as np

from cmp_seg_ros.kernels.launch import kernel


@kernel
def voxel_keys(xyz: Any, voxel_size: Any, far: Any) -> Any:
    """(N,) int64 keys that sort as the voxels of (N, 3) float32 points do, -1 for points beyond `far` along an axis,
    and the number of keys (a float: it may be more than fits an integer). Voxels start at the minimum of the others.
    """
    near = np.empty(len(xyz), np.bool_)
    low = np.full(3, np.inf, np.float32)
    high = np.full(3, -np.inf, np.float32)
    for i in range(len(xyz)):
        near[i] = abs(xyz[i, 0]) < far and abs(xyz[i, 1]) < far and abs(xyz[i, 2]) < far
        if near[i]:
            for axis in range(3):
                low[axis] = min(low[axis], xyz[i, axis])
                high[axis] = max(high[axis], xyz[i, axis])
    shape = np.ones(3, np.int64)
    for axis in range(3):
        if high[axis] >= low[axis]:
            shape[axis] = np.int64((high[axis] - low[axis]) / voxel_size) + 1
    keys = np.empty(len(xyz), np.int64)
    for i in range(len(xyz)):
        keys[i] = -1
        if near[i]:
            step0 = np.int64((xyz[i, 0] - low[0]) / voxel_size)
            step1 = np.int64((xyz[i, 1] - low[1]) / voxel_size)
            step2 = np.int64((xyz[i, 2] - low[2]) / voxel_size)
            keys[i] = (step0 * shape[1] + step1) * shape[2] + step2
    return keys, np.float64(shape[0]) * shape[1] * shape[2]

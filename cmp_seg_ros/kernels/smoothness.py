"""How values vary within the neighbourhoods of points."""

from typing import Any

import numpy as np

from cmp_seg_ros.kernels.launch import kernel


@kernel
def local_variation(xyz: Any, neighbours: Any, value: Any, chosen: Any, flat: Any) -> Any:
    """Variation of (M,) values among the K nearest others of S chosen ones of (M, 3) points.

    Returns:
        variance: (S,) of the neighbours' values.
        is_flat: (S,) whether the neighbours lie in a plane: the determinant of their covariance, the product of its
            eigenvalues, is below `flat` times its trace times its principal minors, the sum of their pairs' products.
        nearest: (S,) absolute difference of value to the first neighbour.
        steep, level: mean absolute difference to neighbours rather above or below than beside, and to others.
    """
    count, k = len(chosen), neighbours.shape[1]
    variance, nearest, is_flat = np.empty(count), np.empty(count), np.empty(count, np.bool_)
    steep, steeps, level, levels = 0.0, 0, 0.0, 0
    for i in range(count):
        here = chosen[i]
        total, squares = 0.0, 0.0
        x = y = z = xx = yy = zz = xy = xz = yz = 0.0
        for j in range(k):
            other = neighbours[here, j]
            difference = float(value[other] - value[here])
            total += difference
            squares += difference * difference
            dx, dy, dz = (
                float(xyz[other, 0] - xyz[here, 0]),
                float(xyz[other, 1] - xyz[here, 1]),
                float(xyz[other, 2] - xyz[here, 2]),
            )
            x, y, z = x + dx, y + dy, z + dz
            xx, yy, zz = xx + dx * dx, yy + dy * dy, zz + dz * dz
            xy, xz, yz = xy + dx * dy, xz + dx * dz, yz + dy * dz
            if dz * dz > dx * dx + dy * dy:
                steep, steeps = steep + abs(difference), steeps + 1
            else:
                level, levels = level + abs(difference), levels + 1
        variance[i] = max(squares / k - (total / k) ** 2, 0.0)
        nearest[i] = abs(float(value[neighbours[here, 0]] - value[here]))
        xx, yy, zz = xx - x * x / k, yy - y * y / k, zz - z * z / k
        xy, xz, yz = xy - x * y / k, xz - x * z / k, yz - y * z / k
        determinant = xx * (yy * zz - yz * yz) - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
        minors = xx * yy + xx * zz + yy * zz - xy * xy - xz * xz - yz * yz
        is_flat[i] = determinant < flat * (xx + yy + zz) * minors
    return variance, is_flat, nearest, steep / max(steeps, 1), level / max(levels, 1)

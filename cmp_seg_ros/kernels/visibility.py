"""The surfaces that a lidar has measured, drawn into a coarse depth image of a camera.

A lidar measures dense rings with gaps between them. Between a point and the next ring above it the surface is
interpolated if both are on one surface; else each is extended over its half of the gap.
"""

from typing import Any

import numpy as np

from cmp_seg_ros.kernels.launch import inlined, kernel

SAME_RING = np.float32(np.radians(0.12))  # points of a column closer than this are of one ring
WIDEST_GAP = np.float32(np.radians(6.0))  # between rings; beyond it nothing is known of the surface
STEEPEST = np.float32(4.0)  # change of range over distance across the beam: tan of 76 degrees of incidence


@kernel
def draw(
    order: Any, column: Any, elevation: Any, reach: Any, uv: Any, depth: Any, width: Any, cell: Any, surface: Any
) -> None:
    """Draw each point's surface up to the next ring above it into `surface`, keeping the nearest.

    Args:
        order: (M,) points sorted by column and elevation.
        column: (M,) column of azimuth of each point. elevation: (M,) radians. reach: (M,) range from the lidar.
        uv: (M, 2) place in the depth image, in its cells; NaN where the camera model does not hold.
        depth: (M,) from the camera's centre.
        width: (M,) half the width of a column at the point, in cells.
        cell: radians a cell at the principal point.
        surface: (rows, columns) depth of the nearest surface; infinite where there is none.
    """
    for place in range(len(order)):
        low = order[place]
        if np.isnan(uv[low, 0]):
            continue
        high = -1
        for above in range(place + 1, len(order)):
            other = order[above]
            gap = elevation[other] - elevation[low]
            if column[other] != column[low] or gap > WIDEST_GAP:
                break
            if gap > SAME_RING and not np.isnan(uv[other, 0]):
                high = other
                break
        if high < 0:
            _strip(uv, depth, low, low, np.float32(0), np.float32(0), width[low], surface)
            continue
        across = min(reach[low], reach[high]) * (elevation[high] - elevation[low])
        if abs(reach[high] - reach[low]) < STEEPEST * across:
            _strip(uv, depth, low, high, np.float32(0), np.float32(1), max(width[low], width[high]), surface)
        else:
            half = np.float32(0.5) * (elevation[high] - elevation[low]) / cell
            _flat(uv, depth[low], low, high, half * reach[low] / depth[low], width[low], surface)
            _flat(uv, depth[high], high, low, half * reach[high] / depth[high], width[high], surface)


@inlined
def _flat(uv: Any, depth: Any, start: int, end: int, length: Any, width: Any, surface: Any) -> None:
    """From a point towards another, at the point's own depth: half the way, but no further than `length`.

    As the camera sees them, the two sides of a depth edge may lie further apart than their rings.
    """
    du, dv = uv[end, 0] - uv[start, 0], uv[end, 1] - uv[start, 1]
    share = min(np.float32(0.5), length / max(np.float32(1e-6), np.sqrt(du * du + dv * dv)))
    du, dv = du * share, dv * share
    steps = int(max(abs(du), abs(dv))) + 1
    for step in range(steps + 1):
        share = np.float32(step) / np.float32(steps)
        _dot(uv[start, 0] + share * du, uv[start, 1] + share * dv, depth, width, surface)


@inlined
def _strip(uv: Any, depth: Any, start: int, end: int, first: Any, last: Any, width: Any, surface: Any) -> None:
    """The way from a point to another, at interpolated depth."""
    du, dv = uv[end, 0] - uv[start, 0], uv[end, 1] - uv[start, 1]
    near, far = np.float32(1) / depth[start], np.float32(1) / depth[end]
    steps = int(max(abs(du), abs(dv))) + 1 if last > first else 0
    for step in range(steps + 1):
        share = np.float32(step) / np.float32(max(steps, 1))
        inverse = near + share * (far - near)  # of a plane, it is linear in a pinhole image
        _dot(uv[start, 0] + share * du, uv[start, 1] + share * dv, np.float32(1) / inverse, width, surface)


@inlined
def _dot(u: Any, v: Any, depth: Any, width: Any, surface: Any) -> None:
    rows, columns = surface.shape
    row = int(np.floor(v))
    if row < 0 or row >= rows:
        return
    for place in range(max(0, int(np.floor(u - width))), min(columns - 1, int(np.floor(u + width))) + 1):
        surface[row, place] = min(surface[row, place], depth)


@kernel
def look(uv: Any, depth: Any, inside: Any, surface: Any, tolerance: Any, around: int) -> Any:
    """Compare points with the surface in front of them.

    Args:
        uv, depth, surface: as for `draw`.
        inside: (M,) points to compare.
        tolerance: metres, and share of the depth, that a point may lie behind the surface, and surfaces may differ
            without an edge between them: (2, 2).
        around: cells on each side in which an edge is looked for.

    Returns:
        (M,) whether the point is on the nearest surface, and (M,) whether there is an edge near it; false where it is
        not inside.
    """
    visible, edge = np.zeros(len(depth), np.bool_), np.zeros(len(depth), np.bool_)
    rows, columns = surface.shape
    for point in range(len(depth)):
        if not inside[point]:
            continue
        row, column = int(np.floor(uv[point, 1])), int(np.floor(uv[point, 0]))
        own = depth[point]
        visible[point] = own <= surface[row, column] * (1 + tolerance[0, 1]) + tolerance[0, 0]
        margin = tolerance[1, 0] + tolerance[1, 1] * own
        for r in range(max(0, row - around), min(rows - 1, row + around) + 1):
            for c in range(max(0, column - around), min(columns - 1, column + around) + 1):
                if surface[r, c] < np.inf and abs(surface[r, c] - own) > margin:
                    edge[point] = True
    return visible, edge

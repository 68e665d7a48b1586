"""Exact nearest neighbours among points of a scan, in a grid of cells.

Points lie sorted by cell, z fastest, so that the cells of a column between two heights are one run of points. A search
goes outwards, shell by shell, until the shells left are farther away than what it has.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.kernels.launch import inlined, kernel, launch, take

BLOCK = 128  # queries a thread takes at a time
MAX_CELLS = 1 << 19
OUTSIDE = 1e6  # cells; a query farther outside counts as no farther
SAFETY = 1e-4  # of a cell: rounding never makes a shell look farther than it is


class Grid(NamedTuple):
    """M points sorted by cell.

    Args:
        xyz: (M, 3) float64, sorted.
        order: (M,) int32, the points' own numbers.
        start: (cells + 1,) int32, first sorted point of each cell.
        origin: (3,) float64.
        shape: (3,) int64, cells along the axes.
        size: of a cell, metres.
    """

    xyz: npt.NDArray[np.float64]
    order: npt.NDArray[np.int32]
    start: npt.NDArray[np.int32]
    origin: npt.NDArray[np.float64]
    shape: npt.NDArray[np.int64]
    size: float


def build(xyz: npt.NDArray[np.float32], size: float) -> Grid:
    """The grid of (M, 3) points, M > 0. Cells are `size` wide, wider where that would be too many."""
    points = xyz.astype(np.float64)
    origin = points.min(axis=0)
    extent = points.max(axis=0) - origin
    while np.prod(np.floor(extent / size) + 1) > MAX_CELLS:
        size *= 1.25
    shape = (extent / size).astype(np.int64) + 1
    order, start = np.empty(len(xyz), np.int32), np.zeros(int(shape.prod()) + 1, np.int32)
    ordered = np.empty_like(points)
    _sort(points, origin, shape, size, order, start, ordered)
    return Grid(ordered, order, start, origin, shape, size)


def nearest_others(grid: Grid, count: int) -> npt.NDArray[np.int64]:
    """(M, count) nearest other points of each point of the grid, nearest first; itself where there are too few."""
    found = np.empty((len(grid.xyz), count), np.int64)
    launch(_nearest_others, grid, found, blocks=len(found) // BLOCK)
    return found


def nearest(grid: Grid, xyz: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(N,) the grid's point nearest to each of (N, 3) points."""
    found = np.empty(len(xyz), np.int64)
    launch(_nearest, grid, xyz, found, blocks=len(found) // BLOCK)
    return found


@kernel
def _sort(points: Any, origin: Any, shape: Any, size: float, order: Any, start: Any, ordered: Any) -> None:
    cell = np.empty(len(points), np.int32)
    for i in range(len(points)):
        ix = int((points[i, 0] - origin[0]) / size)
        iy = int((points[i, 1] - origin[1]) / size)
        iz = int((points[i, 2] - origin[2]) / size)
        cell[i] = (ix * shape[1] + iy) * shape[2] + iz
        start[cell[i] + 1] += 1
    for k in range(len(start) - 1):
        start[k + 1] += start[k]
    for i in range(len(points) - 1, -1, -1):  # backwards: leaves each start[k + 1] where cell k begins
        start[cell[i] + 1] -= 1
        place = start[cell[i] + 1]
        order[place] = i
        ordered[place] = points[i]
    for k in range(len(start) - 1):
        start[k] = start[k + 1]
    start[len(start) - 1] = len(points)


@kernel
def _nearest_others(grid: Grid, found: Any, sync: Any, threads: int) -> None:
    points, count = found.shape
    best = np.empty(count, np.float64)
    index = np.empty(count, np.int32)
    query = np.zeros(3, np.float64)
    best[:] = np.inf
    while True:
        first = take(sync, 0) * BLOCK
        if first >= points:
            return
        for i in range(first, min(first + BLOCK, points)):
            # The neighbours of the point before are not far: no other is farther than they are from here.
            reach = np.sqrt(best[count - 1]) + np.sqrt(_apart(grid, i, query))
            query[:] = grid.xyz[i]
            best[:] = _above(reach**2)
            index[:] = i
            _search(grid, query, i, best, index)
            for k in range(count):
                found[grid.order[i], k] = grid.order[index[k]]


@kernel
def _nearest(grid: Grid, xyz: Any, found: Any, sync: Any, threads: int) -> None:
    best = np.empty(1, np.float64)
    index = np.zeros(1, np.int32)
    query = np.empty(3, np.float64)
    while True:
        first = take(sync, 0) * BLOCK
        if first >= len(xyz):
            return
        for i in range(first, min(first + BLOCK, len(xyz))):
            query[:] = xyz[i]
            best[0] = _above(_apart(grid, index[0], query))  # the answer for the point before is not far
            _search(grid, query, -1, best, index)
            found[i] = grid.order[index[0]]


@inlined
def _apart(grid: Grid, j: int, query: Any) -> float:
    """Squared distance."""
    dx, dy, dz = grid.xyz[j, 0] - query[0], grid.xyz[j, 1] - query[1], grid.xyz[j, 2] - query[2]
    return dx * dx + dy * dy + dz * dz


@inlined
def _above(bound: float) -> float:
    """A little more, so that what is just as far is found again: among equals the first in the grid is the answer."""
    return bound * (1 + 1e-9) + 1e-30


@inlined
def _search(grid: Grid, query: Any, itself: int, best: Any, index: Any) -> None:
    """Fill `best` (squared distances, ascending) and `index` with the nearest points of the grid but `itself`."""
    nx, ny, nz = grid.shape[0], grid.shape[1], grid.shape[2]
    fx = min(max((query[0] - grid.origin[0]) / grid.size, -OUTSIDE), OUTSIDE)
    fy = min(max((query[1] - grid.origin[1]) / grid.size, -OUTSIDE), OUTSIDE)
    fz = min(max((query[2] - grid.origin[2]) / grid.size, -OUTSIDE), OUTSIDE)
    cx, cy, cz = int(np.floor(fx)), int(np.floor(fy)), int(np.floor(fz))
    # A query outside the grid starts with the shell that reaches it.
    shell = max(0, -cx, cx - nx + 1, -cy, cy - ny + 1, -cz, cz - nz + 1)
    last = max(cx, nx - 1 - cx, cy, ny - 1 - cy, cz, nz - 1 - cz)
    farthest = len(best) - 1
    while shell <= last:
        for ix in range(max(cx - shell, 0), min(cx + shell, nx - 1) + 1):
            gx = max(ix - fx, fx - ix - 1, 0.0) - SAFETY
            for iy in range(max(cy - shell, 0), min(cy + shell, ny - 1) + 1):
                gy = max(iy - fy, fy - iy - 1, 0.0) - SAFETY
                if (max(gx, 0.0) ** 2 + max(gy, 0.0) ** 2) * grid.size**2 > best[farthest]:
                    continue
                column = (ix * ny + iy) * nz
                hollow = max(abs(ix - cx), abs(iy - cy)) < shell  # its inner cells were in shells before
                for part in range(2 if hollow else 1):
                    low = cz + shell if part == 1 else cz - shell
                    high = cz - shell if hollow and part == 0 else cz + shell
                    low, high = max(low, 0), min(high, nz - 1)
                    if low <= high:
                        _scan(grid, query, itself, best, index, grid.start[column + low], grid.start[column + high + 1])
        inner = min(fx - cx, cx + 1 - fx, fy - cy, cy + 1 - fy, fz - cz, cz + 1 - fz) + shell - SAFETY
        if max(inner, 0.0) ** 2 * grid.size**2 >= best[farthest]:
            return
        shell += 1


@inlined
def _scan(grid: Grid, query: Any, itself: int, best: Any, index: Any, first: int, end: int) -> None:
    """Put the sorted points first..end that are near enough into their places."""
    for j in range(first, end):
        distance = _apart(grid, j, query)
        if distance < best[len(best) - 1] and j != itself:
            place = len(best) - 1
            while place > 0 and best[place - 1] > distance:
                best[place], index[place] = best[place - 1], index[place - 1]
                place -= 1
            best[place], index[place] = distance, j

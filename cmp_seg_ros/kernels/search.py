"""Exact nearest neighbours among the points of a scan, in a grid of cells.

Points are sorted by cell, z fastest, so that the cells of a column between two heights are contiguous. Of equally near
points the first in this order is returned, so that results do not depend on where a search began.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.kernels.launch import inlined, kernel, launch, next_block

BLOCK = 128  # queries per block of work
MAX_CELLS = 1 << 19
SAFETY = 1e-4  # of a cell: rounding never hides a point at the border of the searched cells
ROUNDING = 1e-9
LIKELY = 1.15  # the last neighbour of a point is rarely farther, squared, than that of the point before times this


class Grid(NamedTuple):
    """M points sorted by cell.

    Args:
        xyz: (M, 3) float64, sorted.
        order: (M,) int32, original index of each point.
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
    """The grid of (M, 3) points, M > 0. Cells are `size` wide, or wider if that gives too many cells."""
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
    """(M, count) nearest other points of each point of the grid, nearest first; itself if there are too few."""
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
    for i in range(len(points) - 1, -1, -1):  # backwards: afterwards start[k + 1] is the start of cell k
        start[cell[i] + 1] -= 1
        place = start[cell[i] + 1]
        order[place] = i
        ordered[place] = points[i]
    for k in range(len(start) - 1):
        start[k] = start[k + 1]
    start[len(start) - 1] = len(points)


class _Candidates(NamedTuple):
    """The points of the cells around a cell, by coordinate, for vectorised loops.

    Args:
        xyz: (3, M) float64.
        number: (M,) int32, ascending: their indices in the grid.
        distance: (M,) float64, squared, from the query.
    """

    xyz: npt.NDArray[np.float64]
    number: npt.NDArray[np.int32]
    distance: npt.NDArray[np.float64]


@kernel
def _nearest_others(grid: Grid, found: Any, sync: Any, threads: int) -> None:
    points, count = found.shape
    candidates = _Candidates(np.empty((3, points)), np.empty(points, np.int32), np.empty(points))
    best, index = np.empty(count), np.empty(count, np.int32)
    cell, shell, last, reach = np.zeros(3, np.int64), 1, 0, np.inf
    while True:
        i = next_block(sync, 0) * BLOCK
        if i >= points:
            return
        end = min(i + BLOCK, points)
        cell_end = i
        while i < end:
            if i == cell_end:
                for axis in range(3):
                    cell[axis] = int((grid.xyz[i, axis] - grid.origin[axis]) / grid.size)
                cell_end = min(end, grid.start[(cell[0] * grid.shape[1] + cell[1]) * grid.shape[2] + cell[2] + 1])
                shell = min(max(1, shell - 1), 2)  # as for the previous cell, but never enlarged by isolated points
                size = _gather(grid, cell, shell, candidates)
            x, y, z = grid.xyz[i, 0], grid.xyz[i, 1], grid.xyz[i, 2]
            surely = _inside(grid, cell, shell, i)  # any point outside the shell is farther
            likely = min(surely, LIKELY * reach)
            within = probable = 0
            for j in range(size):
                dx, dy, dz = candidates.xyz[0, j] - x, candidates.xyz[1, j] - y, candidates.xyz[2, j] - z
                distance = dx * dx + dy * dy + dz * dz
                candidates.distance[j] = distance
                within += distance <= surely
                probable += distance <= likely
            if within <= count and surely < np.inf:  # `within` includes the point itself
                shell += max(1, shell // 3)
                size = _gather(grid, cell, shell, candidates)
                continue
            if probable > count:
                limit = likely
            else:  # bound by the triangle inequality, from the neighbours of the previous point
                limit = min(surely, (math.sqrt(reach) + math.sqrt(_apart(grid, last, x, y, z))) ** 2 * (1 + ROUNDING))
            known = _select(candidates, size, i, limit, best, index)
            me = grid.order[i]
            for k in range(count):
                found[me, k] = grid.order[index[k]] if k < known else me
            last, reach = i, best[count - 1] if known == count else np.inf
            i += 1


@inlined
def _gather(grid: Grid, cell: Any, shell: int, candidates: _Candidates) -> int:
    """Copy the points of all cells up to `shell` cells away. Returns their number."""
    low_x, high_x = max(cell[0] - shell, 0), min(cell[0] + shell, grid.shape[0] - 1)
    low_y, high_y = max(cell[1] - shell, 0), min(cell[1] + shell, grid.shape[1] - 1)
    low_z, high_z = max(cell[2] - shell, 0), min(cell[2] + shell, grid.shape[2] - 1)
    size = 0
    for ix in range(low_x, high_x + 1):
        for iy in range(low_y, high_y + 1):
            column = (ix * grid.shape[1] + iy) * grid.shape[2]
            for j in range(grid.start[column + low_z], grid.start[column + high_z + 1]):
                for axis in range(3):
                    candidates.xyz[axis, size] = grid.xyz[j, axis]
                candidates.number[size] = j
                size += 1
    return size


@inlined
def _inside(grid: Grid, cell: Any, shell: int, i: int) -> float:
    """Squared distance from the point i, in the cell, to the outside of the shell; infinite if that is empty."""
    nearest = np.inf
    for axis in range(3):
        place = (grid.xyz[i, axis] - grid.origin[axis]) / grid.size - cell[axis]
        if cell[axis] - shell > 0:
            nearest = min(nearest, place + shell - SAFETY)
        if cell[axis] + shell < grid.shape[axis] - 1:
            nearest = min(nearest, 1 - place + shell - SAFETY)
    return (nearest * grid.size) ** 2


@inlined
def _select(candidates: _Candidates, size: int, itself: int, limit: float, best: Any, index: Any) -> int:
    """Fill `best` and `index` with the nearest points within the limit except `itself`. Returns their number."""
    known, count = 0, len(best)
    for j in range(size):
        distance = candidates.distance[j]
        if distance <= limit and candidates.number[j] != itself:
            if known < count:
                known += 1
            elif distance >= best[count - 1]:
                continue
            place = known - 1
            while place > 0 and best[place - 1] > distance:
                best[place], index[place] = best[place - 1], index[place - 1]
                place -= 1
            best[place], index[place] = distance, candidates.number[j]
    return known


@kernel
def _nearest(grid: Grid, xyz: Any, found: Any, sync: Any, threads: int) -> None:
    index = 0
    while True:
        first = next_block(sync, 0) * BLOCK
        if first >= len(xyz):
            return
        for i in range(first, min(first + BLOCK, len(xyz))):
            x, y, z = np.float64(xyz[i, 0]), np.float64(xyz[i, 1]), np.float64(xyz[i, 2])
            index = _closest(grid, x, y, z, index)
            found[i] = grid.order[index]


@inlined
def _closest(grid: Grid, x: float, y: float, z: float, index: int) -> int:
    """Index of the nearest point: searches the cells that touch a ball. `index`: a nearby point as first guess."""
    nx, ny, nz = grid.shape[0], grid.shape[1], grid.shape[2]
    scale = 1 / grid.size
    fx, fy, fz = (x - grid.origin[0]) * scale, (y - grid.origin[1]) * scale, (z - grid.origin[2]) * scale
    ox, oy, oz = max(-fx, fx - nx, 0.0) ** 2, max(-fy, fy - ny, 0.0) ** 2, max(-fz, fz - nz, 0.0) ** 2
    outside = math.sqrt(ox + oy + oz)  # distance to the grid, in cells
    best, further = _apart(grid, index, x, y, z), 1.0
    while True:
        best = best * (1 + ROUNDING) + 1e-30  # so that equally near points are found too, the first one first
        radius = min(math.sqrt(best) * scale, outside + further) + SAFETY
        # The part of the ball inside the grid is narrower if its centre is outside.
        rx = math.sqrt(max(radius**2 - oy - oz, 0.0))
        ry = math.sqrt(max(radius**2 - ox - oz, 0.0))
        rz = math.sqrt(max(radius**2 - ox - oy, 0.0))
        low_y, high_y = _clip(fy - ry, ny), _clip(fy + ry, ny)
        low_z, high_z = _clip(fz - rz, nz), _clip(fz + rz, nz)
        for ix in range(_clip(fx - rx, nx), _clip(fx + rx, nx) + 1):
            for iy in range(low_y, high_y + 1):
                column = (ix * ny + iy) * nz
                for j in range(grid.start[column + low_z], grid.start[column + high_z + 1]):
                    distance = _apart(grid, j, x, y, z)
                    if distance < best:
                        best, index = distance, j
        if math.sqrt(best) * scale <= radius:
            return index
        further *= 2


@inlined
def _clip(cell: float, cells: int) -> int:
    return int(min(max(cell, 0.0), cells - 1.0))


@inlined
def _apart(grid: Grid, j: int, x: float, y: float, z: float) -> float:
    """Squared distance."""
    dx, dy, dz = grid.xyz[j, 0] - x, grid.xyz[j, 1] - y, grid.xyz[j, 2] - z
    return dx * dx + dy * dy + dz * dz

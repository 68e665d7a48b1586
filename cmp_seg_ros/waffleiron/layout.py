"""Converts the voxels of a scan to the inputs of the exported graph: pooling into cells as a tree of gathers.

A cell's voxels are summed in groups of LEVELS[0]; if a cell has several groups, their sums are summed in groups of
LEVELS[1], and so on. Few cells need a second level and fewer a third, so little padding is gathered, and no level needs
a scatter. The grids are cropped to the occupied cells and a margin, which is exact at occupied cells.
"""

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Int64, VoxelInputs, occupied_box

LEVELS = (8, 8, 16, 64)  # group sizes: voxels at level 0, then groups
MAX_VOXELS = prod(LEVELS)  # in one cell; a scan with at most so many always fits

Shape = tuple[int, ...]
Feed = dict[str, npt.NDArray[Any]]


class DoesNotFit(UserError):
    """The scan is too large for the inputs."""


def arrange(voxels: VoxelInputs, preprocess: PreprocessConfig, shapes: Mapping[str, Shape] | None = None) -> Feed:
    """The inputs of `graph.build` by name, for M > 0 voxels. For plane p and level l:

    cell_p: (M,) int32, each voxel's cell in the cropped grid.
    members_p_l: (rows, LEVELS[l]) int32, the summands of each row: voxels at level 0, else rows of the previous level,
        counted from 1; 0 is empty. Row 0 of each level is empty, too.
    weight_p: (rows, 1) float32, 1 / (voxels in the cell + 1e-6) for the rows of level 0, as published.
    grid_p: (1, H, W) int32, index of the mean of each cell: 0 is empty, followed by the rows of all levels.

    Args:
        voxels: of one scan.
        preprocess: of the bundle.
        shapes: to which the inputs are padded, for runtimes that are faster when shapes repeat; see `bounds`. Outputs
            beyond M voxels are meaningless.

    Raises:
        DoesNotFit: a cell holds more than MAX_VOXELS, or `shapes` are too small for the scan.
    """
    shapes = shapes or {}
    feed: Feed = {
        "features": _padded(voxels.features.astype(np.float32, copy=False), shapes.get("features")),
        "neighbours": _padded(voxels.neighbours.astype(np.int32), shapes.get("neighbours")),
    }
    for plane, (index, grid) in enumerate(zip(voxels.cells, preprocess.grids, strict=True)):
        feed |= _plane(plane, index, grid, shapes)
    return feed


def _plane(plane: int, index: Int64, grid: tuple[int, int], shapes: Mapping[str, Shape]) -> Feed:
    top, left, height, width = _box(index, grid, shapes.get(f"grid_{plane}"))
    row, column = np.divmod(index, grid[1])
    cell = ((row - top) * width + column - left).astype(np.int32)  # (M,)
    count = np.bincount(cell, minlength=height * width)
    if count.max() > MAX_VOXELS:
        raise DoesNotFit(
            f"a cell of the scan holds {count.max()} voxels, but this engine supports at most {MAX_VOXELS}; use "
            "engine 'cpu'"
        )

    feed = {f"cell_{plane}": _padded(cell, shapes.get(f"cell_{plane}"))}
    means = np.zeros(height * width, np.int32)
    cells = np.flatnonzero(count)  # cells with items left to sum
    sizes = count[cells]  # number of items of each
    items = 1 + np.argsort(cell, kind="stable")  # sorted by cell
    before = 1  # rows of the previous levels, and the empty row
    for level, size in enumerate(LEVELS):
        rows = -(-sizes // size)
        first = 1 + np.cumsum(rows) - rows
        members = np.zeros((1 + rows.sum(), size), np.int32)
        place = np.arange(len(items)) - np.repeat(np.cumsum(sizes) - sizes, sizes)  # of an item within its cell
        members[np.repeat(first, sizes) + place // size, place % size] = items
        name = f"members_{plane}_{level}"
        feed[name] = _padded(members, shapes.get(name))
        if level == 0:
            weight = np.zeros((len(feed[name]), 1), np.float32)
            weight[1 : len(members), 0] = np.repeat(1 / (sizes + 1e-6), rows)
            feed[f"weight_{plane}"] = weight
        done = rows == 1
        means[cells[done]] = before + first[done]
        items = np.arange(1, len(members))[np.repeat(~done, rows)]
        cells, sizes = cells[~done], rows[~done]
        before += len(feed[name])
    feed[f"grid_{plane}"] = means.reshape(1, height, width)
    return feed


def _box(index: Int64, grid: tuple[int, int], shape: Shape | None) -> tuple[int, int, int, int]:
    """The box of occupied cells, or a box of `shape` around it within the full grid, which is as exact."""
    top, left, height, width = occupied_box(index, grid)
    if shape is None:
        return top, left, height, width
    if height > shape[1] or width > shape[2]:
        raise DoesNotFit(f"the occupied cells are {height} x {width}, the shape is {shape[1]} x {shape[2]}")
    return min(top, grid[0] - shape[1]), min(left, grid[1] - shape[2]), shape[1], shape[2]


def _padded(values: npt.NDArray[Any], shape: Shape | None) -> npt.NDArray[Any]:
    """The values padded with rows of zeros to the shape."""
    if shape is None or len(values) == shape[0]:
        return np.ascontiguousarray(values)
    if len(values) > shape[0]:
        raise DoesNotFit(f"the scan needs {len(values)} rows, the shape has {shape[0]}")
    padded = np.zeros((shape[0], *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded


def bounds(voxels: int, preprocess: PreprocessConfig) -> dict[str, Shape]:
    """The maximum shape of each input for scans of at most so many voxels; the minimum has 1 for dynamic sizes."""
    shapes: dict[str, Shape] = {
        "features": (voxels, preprocess.inputs),
        "neighbours": (voxels, preprocess.neighbours),
    }
    for plane, (height, width) in enumerate(preprocess.grids):
        less = 1  # cells with at most so many voxels have no row at this level
        for level, size in enumerate(LEVELS):
            if level == 0:  # all rows are full except the last of each cell
                rows = min(voxels, voxels // size + height * width)
            else:  # r > 1 rows of the previous level, of more than `less` voxels, become at most r / 2
                rows = voxels // (less + 1) + voxels // (less * size)
            shapes[f"members_{plane}_{level}"] = (1 + rows, size)
            less *= size
        shapes[f"weight_{plane}"] = (shapes[f"members_{plane}_0"][0], 1)
        shapes[f"cell_{plane}"] = (voxels,)
        shapes[f"grid_{plane}"] = (1, height, width)
    return shapes

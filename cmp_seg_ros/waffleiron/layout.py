"""The voxels of a scan as the inputs of the exported graph: what is pooled into which cell, as a tree of gathers.

A cell's voxels are summed in groups of LEVELS[0]; where a cell has several groups, their sums are summed in groups of
LEVELS[1], and so on. Few cells need a second level and fewer a third, so little is gathered in vain, and no level needs
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

LEVELS = (8, 8, 16, 64)  # voxels, then groups, that are summed at once
MAX_VOXELS = prod(LEVELS)  # that one cell may hold, so that as many in a scan are always right

Shape = tuple[int, ...]
Feed = dict[str, npt.NDArray[Any]]


class DoesNotFit(UserError):
    """The scan has more of something than the inputs hold."""


def arrange(voxels: VoxelInputs, preprocess: PreprocessConfig, shapes: Mapping[str, Shape] | None = None) -> Feed:
    """The inputs of `graph.build` by name, for M > 0 voxels. For plane p and level l:

    cell_p: (M,) int32, each voxel's cell in the cropped grid.
    members_p_l: (rows, LEVELS[l]) int32, what each row sums: at level 0 voxels, else rows of the level before, counted
        from 1; 0 is nothing. Row 0 of each level is nothing, too.
    weight_p: (rows, 1) float32, 1 / (voxels in the cell + 1e-6) of level 0's rows, as published.
    grid_p: (1, H, W) int32, where the mean of each cell is found: 0 is nothing, then come all levels' rows.

    Args:
        voxels: of one scan.
        preprocess: of the bundle.
        shapes: what to pad the inputs to, for runtimes that are faster when shapes repeat; as of `bounds`. Answers for
            voxels beyond M mean nothing.

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
            f"a cell of the scan holds {count.max()} voxels, of which this engine sums at most {MAX_VOXELS}; take "
            "engine 'cpu'"
        )

    feed = {f"cell_{plane}": _padded(cell, shapes.get(f"cell_{plane}"))}
    means = np.zeros(height * width, np.int32)
    cells = np.flatnonzero(count)  # those still at work, with ...
    sizes = count[cells]  # ... so many items each
    items = 1 + np.argsort(cell, kind="stable")  # sorted by cell
    before = 1  # rows of the levels before, and nothing
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
    """The box of occupied cells, or one of `shape` around it within the full grid, which is as exact."""
    top, left, height, width = occupied_box(index, grid)
    if shape is None:
        return top, left, height, width
    if height > shape[1] or width > shape[2]:
        raise DoesNotFit(f"the occupied cells are {height} x {width}, the shape is {shape[1]} x {shape[2]}")
    return min(top, grid[0] - shape[1]), min(left, grid[1] - shape[2]), shape[1], shape[2]


def _padded(values: npt.NDArray[Any], shape: Shape | None) -> npt.NDArray[Any]:
    """With rows of zeros up to the shape's."""
    if shape is None or len(values) == shape[0]:
        return np.ascontiguousarray(values)
    if len(values) > shape[0]:
        raise DoesNotFit(f"the scan needs {len(values)} rows, the shape has {shape[0]}")
    padded = np.zeros((shape[0], *values.shape[1:]), values.dtype)
    padded[: len(values)] = values
    return padded


def bounds(voxels: int, preprocess: PreprocessConfig) -> dict[str, Shape]:
    """The greatest shape of each input for scans of at most so many voxels; the least has 1 for every dynamic size."""
    shapes: dict[str, Shape] = {
        "features": (voxels, preprocess.inputs),
        "neighbours": (voxels, preprocess.neighbours),
    }
    for plane, (height, width) in enumerate(preprocess.grids):
        less = 1  # voxels up to which a cell has no row at this level
        for level, size in enumerate(LEVELS):
            if level == 0:  # each row full, but the last of its cell
                rows = min(voxels, voxels // size + height * width)
            else:  # r > 1 rows of the level before, of more than `less` voxels, become at most r / 2
                rows = voxels // (less + 1) + voxels // (less * size)
            shapes[f"members_{plane}_{level}"] = (1 + rows, size)
            less *= size
        shapes[f"weight_{plane}"] = (shapes[f"members_{plane}_0"][0], 1)
        shapes[f"cell_{plane}"] = (voxels,)
        shapes[f"grid_{plane}"] = (1, height, width)
    return shapes

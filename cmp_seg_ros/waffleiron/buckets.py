"""Shapes of the exported graph's inputs, rounded up so that many scans share a shape.

`layout.arrange` pads to these shapes without changing the result. They depend only on the scan itself, not on earlier
ones, so that labels do too. A simulated drive of 200 scans of an OS1-16 has 28 shapes; padding is 5 % of the voxels,
14 % of the rows and half of the grids' cells.
"""

import numpy as np

from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.layout import LEVELS, MAX_VOXELS, DoesNotFit, Shape, bounds
from cmp_seg_ros.waffleiron.preprocess import Int64, VoxelInputs, occupied_box

VOXELS, ROWS, CELLS = 512, 256, 32  # multiples to which voxels, rows and sides of grids are rounded up
TYPICAL_VOXELS, TYPICAL_ROWS, TYPICAL_SIDE = 6000, (1500, 250, 40, 1), 96  # of a room, with 16 to 32 beams


def shapes(voxels: VoxelInputs, preprocess: PreprocessConfig) -> dict[str, Shape]:
    """The shape of each input for M > 0 voxels. Raises DoesNotFit for more than MAX_VOXELS."""
    if (count := len(voxels.features)) > MAX_VOXELS:
        raise DoesNotFit(
            f"the scan has {count:,} voxels, more than the {MAX_VOXELS:,} that this engine supports; use a larger "
            "voxel_size, or engine 'cpu'"
        )
    boxes = [occupied_box(index, grid)[2:] for index, grid in zip(voxels.cells, preprocess.grids, strict=True)]
    return _rounded(count, [_rows(np.bincount(index)) for index in voxels.cells], boxes, preprocess)


def profile(preprocess: PreprocessConfig) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Minimum, typical and maximum shape of each input; all results of `shapes` are within these bounds."""
    planes = len(preprocess.planes)
    least = _rounded(1, [[1] * len(LEVELS)] * planes, [(1, 1)] * planes, preprocess)
    sides = [(TYPICAL_SIDE, TYPICAL_SIDE)] * planes
    typical = _rounded(TYPICAL_VOXELS, [list(TYPICAL_ROWS)] * planes, sides, preprocess)
    most = bounds(MAX_VOXELS, preprocess)
    return {name: (least[name], typical[name], most[name]) for name in most}


def _rows(count: Int64) -> list[int]:
    """Number of rows of each level of sums, from the number of voxels in each cell; see `layout.arrange`."""
    found, sizes = [], count[count > 0]
    for size in LEVELS:
        rows = -(-sizes // size)
        found.append(1 + int(rows.sum()))
        sizes = rows[rows > 1]
    return found


def _rounded(
    voxels: int, rows: list[list[int]], boxes: list[tuple[int, int]], preprocess: PreprocessConfig
) -> dict[str, Shape]:
    most = bounds(MAX_VOXELS, preprocess)
    count = _multiple(voxels, VOXELS)
    found: dict[str, Shape] = {"features": (count, preprocess.inputs), "neighbours": (count, preprocess.neighbours)}
    for plane, (grid, box) in enumerate(zip(preprocess.grids, boxes, strict=True)):
        height, width = (min(_multiple(side, CELLS), full) for side, full in zip(box, grid, strict=True))
        found[f"cell_{plane}"] = (count,)
        found[f"grid_{plane}"] = (1, height, width)
        for level, size in enumerate(LEVELS):
            name, wanted = f"members_{plane}_{level}", rows[plane][level]
            step = max(ROWS, (1 << wanted.bit_length()) >> 3)  # at most a quarter is padding
            found[name] = (min(_multiple(wanted, step), most[name][0]), size)
        found[f"weight_{plane}"] = (found[f"members_{plane}_0"][0], 1)
    return found


def _multiple(size: int, step: int) -> int:
    return -(-size // step) * step

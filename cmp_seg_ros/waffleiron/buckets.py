"""Shapes of the exported graph's inputs, rounded up so that what is prepared for a shape serves many scans.

`layout.arrange` pads to these shapes, which is exact. They are a function of the scan and of no scan before it, so that
its labels are. A simulated drive of 200 scans by an OS1-16 has 28 shapes; 5 % of the voxels and 14 % of the rows are
padding, and half of the grids' cells.
"""

import numpy as np

from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.layout import LEVELS, MAX_VOXELS, DoesNotFit, Shape, bounds
from cmp_seg_ros.waffleiron.preprocess import Int64, VoxelInputs, occupied_box

VOXELS, ROWS, CELLS = 512, 256, 32  # what numbers of voxels, of rows, and sides of grids are multiples of
TYPICAL_VOXELS, TYPICAL_ROWS, TYPICAL_SIDE = 6000, (1500, 250, 40, 1), 96  # of a room, by 16 to 32 beams


def shapes(voxels: VoxelInputs, preprocess: PreprocessConfig) -> dict[str, Shape]:
    """The shape of each input for M > 0 voxels. Raises DoesNotFit for more than MAX_VOXELS."""
    if (count := len(voxels.features)) > MAX_VOXELS:
        raise DoesNotFit(
            f"a scan of {count:,} voxels is more than the {MAX_VOXELS:,} that this engine is built for; take a greater "
            "voxel_size, or engine 'cpu'"
        )
    boxes = [occupied_box(index, grid)[2:] for index, grid in zip(voxels.cells, preprocess.grids, strict=True)]
    return _rounded(count, [_rows(np.bincount(index)) for index in voxels.cells], boxes, preprocess)


def profile(preprocess: PreprocessConfig) -> dict[str, tuple[Shape, Shape, Shape]]:
    """Least, typical and greatest shape of each input; within the bounds is every one that `shapes` gives."""
    planes = len(preprocess.planes)
    least = _rounded(1, [[1] * len(LEVELS)] * planes, [(1, 1)] * planes, preprocess)
    sides = [(TYPICAL_SIDE, TYPICAL_SIDE)] * planes
    typical = _rounded(TYPICAL_VOXELS, [list(TYPICAL_ROWS)] * planes, sides, preprocess)
    most = bounds(MAX_VOXELS, preprocess)
    return {name: (least[name], typical[name], most[name]) for name in most}


def _rows(count: Int64) -> list[int]:
    """Rows of each level of sums, for cells of so many voxels; see `layout.arrange`."""
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
            step = max(ROWS, (1 << wanted.bit_length()) >> 3)  # at most a quarter in vain
            found[name] = (min(_multiple(wanted, step), most[name][0]), size)
        found[f"weight_{plane}"] = (found[f"members_{plane}_0"][0], 1)
    return found


def _multiple(size: int, step: int) -> int:
    return -(-size // step) * step

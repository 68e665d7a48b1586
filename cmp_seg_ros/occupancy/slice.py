"""A slice of labelled voxels as a 2D occupancy grid."""

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.occupancy.grid import FREE, Grid
from cmp_seg_ros.scan import UInt8


def occupancy_slice(label: UInt8, grid: Grid, low: float, high: float) -> npt.NDArray[np.int8]:
    """(Y, X) int8: 100 where a column has an occupied voxel, 0 where it has only free ones, else -1.

    Args:
        label: (X, Y, Z) ids of classes, FREE or UNKNOWN.
        grid: of the labels; its z axis must point up.
        low, high: metres along z; voxels whose centre lies outside are ignored.
    """
    height = grid.origin[2] + grid.voxel * (np.arange(grid.shape[2]) + 0.5)
    layer = label[:, :, (height >= low) & (height <= high)]
    occupied = (layer < FREE).any(axis=2)
    free = (layer == FREE).any(axis=2) & ~occupied
    return np.select([occupied, free], [100, 0], -1).astype(np.int8).T

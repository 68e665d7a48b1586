"""The map from above: the class of each cell, and an occupancy grid for navigation.

Heights count from the floor at the place, so that a ramp or a step does not raise obstacles.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.fusion import Voxels
from cmp_seg_ros.mapping.roles import FLOOR, OBSTACLE, roles_of
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, UInt8

FREE, OCCUPIED, UNKNOWN = 0, 100, -1  # as nav_msgs/OccupancyGrid has them
LOW, HIGH = 0.15, 1.8  # metres above the floor: lower and higher things are passed over or under
RESOLUTION = 0.1  # metres
GAP = 3  # cells: smaller holes in the floor, between the rings of a lidar, are floor


@dataclass(frozen=True)
class Grid:
    """Cells of the plane, row 0 at the least y.

    Args:
        label: (height, width) uint8: the class of the obstacle in a cell, or else floor, or else UNLABELLED.
        occupancy: (height, width) int8: FREE, OCCUPIED or UNKNOWN.
        origin: x and y of the lower left corner of the first cell, metres.
        resolution: metres a cell.
    """

    label: UInt8
    occupancy: npt.NDArray[np.int8]
    origin: tuple[float, float]
    resolution: float


def grid_of(found: Voxels, space: LabelSpace, resolution: float = RESOLUTION) -> Grid:
    """The grid of a map's voxels; `resolution` in metres a cell."""
    roles = roles_of(space)
    role = roles[found.label]
    cells = np.floor(found.xyz[:, :2] / resolution).astype(np.int64)
    kept = (role == FLOOR) | (role == OBSTACLE)
    first = cells[kept].min(axis=0) if kept.any() else np.zeros(2, np.int64)
    width, height = (cells[kept].max(axis=0) - first + 1).tolist() if kept.any() else (1, 1)
    column, row = (cells - first).T
    floor = np.zeros((height, width), bool)
    is_floor = role == FLOOR
    floor[row[is_floor], column[is_floor]] = True
    level = _floor_level(found.xyz[is_floor], row[is_floor], column[is_floor], (height, width))
    obstacle = np.flatnonzero(role == OBSTACLE)
    above = found.xyz[obstacle, 2] - level[row[obstacle], column[obstacle]]
    obstacle = obstacle[(above >= LOW) & (above <= HIGH)]
    label = np.full((height, width), UNLABELLED, np.uint8)
    for c in space.ids[roles[space.ids] == FLOOR][:1]:
        label[_closed(floor)] = c
    count = np.zeros((len(space.classes), height, width), np.int32)
    np.add.at(count, (space.index_of_id[found.label[obstacle]], row[obstacle], column[obstacle]), 1)
    occupied = count.any(axis=0)
    label[occupied] = space.ids[count.argmax(axis=0)[occupied]]
    occupancy = np.where(occupied, OCCUPIED, np.where(label != UNLABELLED, FREE, UNKNOWN)).astype(np.int8)
    return Grid(label, occupancy, (float(first[0] * resolution), float(first[1] * resolution)), resolution)


def _floor_level(
    xyz: Float32, row: npt.NDArray[np.int64], column: npt.NDArray[np.int64], shape: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """(height, width) height of the floor, that of the nearest cell with floor where there is none."""
    from scipy.ndimage import distance_transform_edt

    level = np.full(shape, np.inf, np.float32)
    if not len(xyz):
        return np.zeros(shape, np.float32)
    np.minimum.at(level, (row, column), xyz[:, 2])
    rows, columns = distance_transform_edt(~np.isfinite(level), return_distances=False, return_indices=True)
    filled: npt.NDArray[np.float32] = level[rows, columns]
    return filled


def _closed(floor: Bool) -> Bool:
    """The floor without holes smaller than GAP cells."""
    from scipy.ndimage import binary_closing

    closed = binary_closing(np.pad(floor, GAP), np.ones((GAP, GAP), bool))
    return np.asarray(closed[GAP:-GAP, GAP:-GAP])

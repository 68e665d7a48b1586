"""Preprocessing of a scan to the network's input (voxels, features, neighbours, cells), and back to the points.

Follows the published validation pipeline (valeoai/WaffleIron): one point per voxel, crop to the field of view, cells of
each plane, nearest neighbours; every point gets the label of its nearest voxel.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.kernels import search
from cmp_seg_ros.kernels.voxels import first_points
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.config import PLANE_AXES, Feature, PreprocessConfig

Int64 = npt.NDArray[np.int64]

FAR = 1000.0  # metres along an axis; points beyond are not measurements, and would shift the voxels of all others
CELL = 2.5  # side of a cell of the search grid in voxels; the fastest measured
MARGIN = 2  # cells: two 3x3 convolutions reach two cells, and an empty cell inside gives relu(bias)
FOV_MARGIN = 1e-4  # metres; keeps points on the border inside the grid


class VoxelInputs(NamedTuple):
    """The network's inputs for M voxels; see `Voxels`."""

    features: Float32
    neighbours: Int64
    cells: Int64


@dataclass(frozen=True)
class Voxels:
    """The network's input for one scan of N points: M voxels, each represented by one of its points.

    Args:
        points: (M,) int64, index of the representative point of each voxel.
        xyz: (M, 3) float32, position of that point.
        features: (M, C) float32.
        neighbours: (M, K) int64, the K nearest other voxels; if there are fewer, the rest is the voxel itself.
        cells: (G, M) int64, flat cell index in the full grid of each plane.
    """

    points: Int64
    xyz: Float32
    features: Float32
    neighbours: Int64
    cells: Int64

    def __len__(self) -> int:
        return len(self.points)

    @property
    def inputs(self) -> VoxelInputs:
        return VoxelInputs(self.features, self.neighbours, self.cells)


def voxelise(xyz: Float32, voxel_size: float, anchored: bool = False) -> Int64:
    """(N, 3) points -> (M,) index of the first point of each occupied voxel, in the order of the voxels.

    Voxels start at the minimum of the cloud, or anchored at the lidar; points beyond FAR are ignored.
    """
    points: Int64 = first_points(xyz, np.float32(voxel_size), np.float32(FAR), anchored)
    return points


def inside_fov(xyz: Float32, config: PreprocessConfig) -> npt.NDArray[np.bool_]:
    """(N,) whether points are strictly inside the field of view."""
    inside = np.ones(len(xyz), dtype=bool)
    for axis, low, high in zip(xyz.T, config.fov_min, config.fov_max, strict=True):
        inside &= (axis > np.float32(low) + np.float32(FOV_MARGIN)) & (axis < np.float32(high) - np.float32(FOV_MARGIN))
    return inside


def features(xyz: Float32, intensity: Float32, names: list[Feature]) -> Float32:
    """(M, C) input channels in the order of `names`."""
    x, y, z = xyz.T
    columns: dict[Feature, list[Float32]] = {"intensity": [intensity], "xyz": [x, y, z], "height": [z]}
    if "radius" in names:
        columns["radius"] = [np.sqrt(x * x + y * y + z * z)]
    if "constant" in names:
        columns["constant"] = [np.ones(len(xyz), dtype=np.float32)]
    return np.stack([column for name in names for column in columns[name]], axis=1)


def column_of(name: Feature, names: list[Feature]) -> int:
    """The first of a feature's columns in `features`. Raises ValueError if it is none of the names."""
    return sum(3 if before == "xyz" else 1 for before in names[: names.index(name)])


def cells(xyz: Float32, config: PreprocessConfig) -> Int64:
    """(G, M) flat cell of each point in each plane, first axis slowest. Points must be inside the field of view."""
    indices = np.empty((len(config.planes), len(xyz)), dtype=np.int64)
    low, high = np.array(config.fov_min), np.array(config.fov_max)
    for index, plane, grid in zip(indices, config.planes, config.grids, strict=True):
        axes = list(PLANE_AXES[plane])
        resolution = ((high - low)[axes] / grid).astype(np.float32)
        step = ((xyz[:, axes] - low[axes].astype(np.float32)) / resolution).astype(np.int64)
        index[:] = step[:, 0] * grid[1] + step[:, 1]
    return indices


def occupied_box(index: Int64, grid: tuple[int, int]) -> tuple[int, int, int, int]:
    """Row, column, height and width of the box of occupied cells plus MARGIN, for (M,) flat cells of a grid; M > 0.

    The network's output at occupied cells is the same on this box as on the full grid. The box never exceeds the full
    grid.
    """
    row, column = np.divmod(index, grid[1])
    top, left = max(int(row.min()) - MARGIN, 0), max(int(column.min()) - MARGIN, 0)
    height = min(int(row.max()) + MARGIN, grid[0] - 1) - top + 1
    width = min(int(column.max()) + MARGIN, grid[1] - 1) - left + 1
    return top, left, height, width


def prepare(xyz: Float32, intensity: Float32, config: PreprocessConfig) -> tuple[Voxels, search.Grid | None]:
    """Voxels of (N, 3) finite points in the gravity-aligned frame, and their search grid (None without voxels)."""
    points = voxelise(xyz, config.voxel_size, config.voxel_origin == "lidar")
    points = points[inside_fov(xyz.take(points, axis=0), config)]
    position = xyz.take(points, axis=0)
    grid, neighbours = None, np.empty((0, config.neighbours), np.int64)
    if len(points):
        grid = search.build(position, CELL * config.voxel_size)
        neighbours = search.nearest_others(grid, config.neighbours)
    channels = features(position, intensity[points], config.features)
    return Voxels(points, position, channels, neighbours, cells(position, config)), grid


def nearest_voxel(xyz: Float32, grid: search.Grid) -> Int64:
    """(N,) index of the voxel whose representative is nearest to each of the (N, 3) points given to `prepare`."""
    return search.nearest(grid, xyz)

"""From the points of a scan to the network's input: voxels, features, neighbours, cells; and back to the points.

Follows the published validation pipeline (valeoai/WaffleIron): one point per voxel, crop to the field of view, cells of
each plane, nearest neighbours; labels go back to every point from its nearest voxel.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.config import PLANE_AXES, Feature, PreprocessConfig

Int64 = npt.NDArray[np.int64]

FAR = 1000.0  # metres along an axis; what is beyond is no measurement, and would spoil the voxels of all others
FOV_MARGIN = 1e-4  # metres; keeps points on the border out of a cell beyond the grid


@dataclass(frozen=True)
class Voxels:
    """The network's input for one scan of N points: M voxels, each represented by one of its points.

    Args:
        points: (M,) int64, the representative point of each voxel.
        xyz: (M, 3) float32, its position.
        features: (M, C) float32.
        neighbours: (M, K) int64, the K nearest other voxels; a voxel without so many has itself in the free places.
        cells: (G, M) int64, flat cell index in the full grid of each plane.
    """

    points: Int64
    xyz: Float32
    features: Float32
    neighbours: Int64
    cells: Int64

    def __len__(self) -> int:
        return len(self.points)


def voxelise(xyz: Float32, voxel_size: float) -> Int64:
    """(N, 3) points -> (M,) index of the first point of each occupied voxel, in the order of the voxels.

    Voxels start at the cloud's minimum. The three coordinates share one int64 key, which sorts as they do.
    """
    steps = ((xyz - xyz.min(axis=0)) / np.float32(voxel_size)).astype(np.int64)
    key = (steps[:, 0] << 42) | (steps[:, 1] << 21) | steps[:, 2]
    return np.unique(key, return_index=True)[1]


def inside_fov(xyz: Float32, config: PreprocessConfig) -> npt.NDArray[np.bool_]:
    """(N,) true strictly inside the field of view."""
    low = np.array(config.fov_min, dtype=np.float32) + FOV_MARGIN
    high = np.array(config.fov_max, dtype=np.float32) - FOV_MARGIN
    return np.logical_and.reduce((xyz > low) & (xyz < high), axis=1)


def features(xyz: Float32, intensity: Float32, names: list[Feature]) -> Float32:
    """(M, C) input channels in the order of `names`."""
    columns: dict[Feature, Float32] = {"intensity": intensity[:, None], "xyz": xyz, "height": xyz[:, 2:]}
    if "radius" in names:
        columns["radius"] = np.linalg.norm(xyz, axis=1, keepdims=True)
    if "constant" in names:
        columns["constant"] = np.ones((len(xyz), 1), dtype=np.float32)
    return np.concatenate([columns[name] for name in names], axis=1, dtype=np.float32)


def cells(xyz: Float32, config: PreprocessConfig) -> Int64:
    """(G, M) flat cell of each point in each plane, the plane's first axis slowest. Points must be inside the FOV."""
    indices = np.empty((len(config.planes), len(xyz)), dtype=np.int64)
    low, high = np.array(config.fov_min), np.array(config.fov_max)
    for index, plane, grid in zip(indices, config.planes, config.grids, strict=True):
        axes = list(PLANE_AXES[plane])
        resolution = ((high - low)[axes] / grid).astype(np.float32)
        step = ((xyz[:, axes] - low[axes].astype(np.float32)) / resolution).astype(np.int64)
        index[:] = step[:, 0] * grid[1] + step[:, 1]
    return indices


def nearest_neighbours(tree: cKDTree, count: int) -> Int64:
    """(M, count) nearest other points of each point of the tree; itself where there are too few."""
    points = tree.n
    found = tree.query(tree.data, k=range(2, min(count + 1, points) + 1), workers=-1)[1] if points > 1 else None
    neighbours = np.repeat(np.arange(points, dtype=np.int64)[:, None], count, axis=1)
    if found is not None:
        neighbours[:, : found.shape[1]] = found
    return neighbours


def prepare(xyz: Float32, intensity: Float32, config: PreprocessConfig) -> tuple[Voxels, cKDTree | None]:
    """Voxels of (N, 3) finite points in the gravity-aligned frame, and their search tree (None without voxels)."""
    points = np.flatnonzero((np.abs(xyz) < FAR).all(axis=1))
    if len(points):
        points = points[voxelise(xyz[points], config.voxel_size)]
    points = points[inside_fov(xyz[points], config)]
    position = xyz[points]
    tree = cKDTree(position) if len(points) else None
    voxels = Voxels(
        points=points,
        xyz=position,
        features=features(position, intensity[points], config.features),
        neighbours=np.empty((0, config.neighbours), np.int64)
        if tree is None
        else nearest_neighbours(tree, config.neighbours),
        cells=cells(position, config),
    )
    return voxels, tree


def nearest_voxel(xyz: Float32, voxels: Voxels, tree: cKDTree) -> Int64:
    """(N,) voxel whose representative is nearest to each of the (N, 3) points that were prepared."""
    nearest = np.empty(len(xyz), dtype=np.int64)
    nearest[voxels.points] = np.arange(len(voxels))
    others = np.ones(len(xyz), dtype=bool)
    others[voxels.points] = False
    nearest[others] = tree.query(xyz[others], workers=-1)[1]
    return nearest

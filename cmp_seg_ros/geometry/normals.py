"""Surface normals of a scan, and the vertical direction estimated from them."""

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

RADII = (0.25, 0.4, 0.64, 1.0, 1.6)  # of neighbourhoods; the largest spans two rings of 16 beams on a distant floor
NEIGHBOURS = 32  # at most; a disc of radius r holds some 28 voxels of r / 3
MIN_NEIGHBOURS = 6  # fewer neighbours give no normal
MIN_WIDTH_RATIO = 0.5  # width / length of a neighbourhood: less is a line, such as a single ring
MAX_THICKNESS_RATIO = 0.3  # thickness / width of a neighbourhood: more is not a surface
Z_WEIGHT = 0.01  # weight of z as the vertical, against the normals; decides if these are ambiguous


def thin(xyz: Float64, size: float) -> tuple[Float64, Int64]:
    """(M, 3) means of the (N, 3) points in each voxel of `size` metres, and (N,) the voxel of each point."""
    if not len(xyz):
        return xyz, np.zeros(0, dtype=np.int64)
    key = np.floor(xyz / size).astype(np.int64)
    key -= key.min(axis=0)
    _, high, wide = key.max(axis=0) + 1
    _, voxel_of, count = np.unique(
        (key[:, 0] * high + key[:, 1]) * wide + key[:, 2], return_inverse=True, return_counts=True
    )
    means = np.stack([np.bincount(voxel_of, weights=column) for column in xyz.T], axis=1) / count[:, None]
    return means, voxel_of


def surface_normals(points: Float64) -> Float64:
    """(M, 3) unit normals of either sign at (M, 3) thinned points; NaN where undetermined.

    Principal component analysis of each neighbourhood. A lidar's rings are dense along and sparse across, so that the
    nearest neighbours of a point lie on a line; neighbourhoods are thinned to a third of their radius, and the radius
    grows until they are wide as well as long, and flat (scale selection per point, as in Demantke et al.,
    Dimensionality based scale selection in 3D lidar point clouds, 2011).
    """
    from scipy.spatial import cKDTree

    normals = np.full(points.shape, np.nan)
    open_ = np.arange(len(points))
    for radius in RADII:
        if not len(open_):
            break
        around, _ = thin(points, radius / 3)
        _, index = cKDTree(around).query(points[open_], k=NEIGHBOURS, distance_upper_bound=radius)  # (K, 32)
        there = index < len(around)
        count = there.sum(axis=1)
        offset = np.where(there[..., None], around[np.minimum(index, len(around) - 1)] - points[open_, None], 0)
        mean = offset.sum(axis=1) / np.maximum(count, 1)[:, None]
        covariance = np.einsum("kni,knj->kij", offset, offset) / np.maximum(count, 1)[:, None, None]
        spread, axes = np.linalg.eigh(covariance - mean[:, :, None] * mean[:, None, :])  # ascending
        thick, across, along = np.sqrt(np.maximum(spread, 0)).T
        wide = (count >= MIN_NEIGHBOURS) & (across >= MIN_WIDTH_RATIO * along)
        flat = wide & (thick <= MAX_THICKNESS_RATIO * across)
        normals[open_[flat]] = axes[flat, :, 0]
        open_ = open_[~flat]
    return normals


def vertical(normals: Float64) -> Float64:
    """(3,) unit vector near z to which the (M, 3) normals are mostly parallel or perpendicular."""
    z = np.array([0.0, 0.0, 1.0])
    up = z
    for within in (35, 25, 15, 10, 10):
        cosine = np.abs(normals @ up)
        level = normals[cosine >= np.cos(np.radians(within))]
        upright = normals[cosine <= np.sin(np.radians(within))]
        prior = Z_WEIGHT * max(MIN_NEIGHBOURS, len(level) + len(upright)) * np.outer(z, z)
        _, axes = np.linalg.eigh(upright.T @ upright - level.T @ level - prior)
        up = axes[:, 0] * np.sign(axes[2, 0])
    return up

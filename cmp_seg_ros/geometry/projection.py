"""Projection of a scan into a camera image, with occlusion."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.scan import Bool, Float32

# A lidar and a camera in different places see past different edges. Each point covers its cell of the image and the
# eight around it, and hides points clearly behind it. Measured with lidars of 16, 32 and 64 beams in a furnished house:
# this removes 90 % of the hidden points and 4 % of the visible ones, mostly on floors seen at a grazing angle.
CELL = 0.0125  # radians (four pixels at a focal length of 320)
BEHIND = 0.2  # metres
BEHIND_RELATIVE = 0.1  # of the depth


class Projection(NamedTuple):
    """N points in an image.

    uv: (N, 2) pixels, NaN where the camera model does not hold. depth: (N,) metres from the camera's centre.
    visible: (N,) in the image, and not hidden by another point.
    """

    uv: Float32
    depth: Float32
    visible: Bool


def transform(T_target_source: Transform | npt.ArrayLike, xyz: Float32) -> Float32:
    """(N, 3) points in the source's frame -> the target's frame."""
    matrix = np.asarray(T_target_source, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # points without a return may be infinite
        return (xyz @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)


def project_scan(xyz: Float32, camera: Camera, T_camera_lidar: Transform | npt.ArrayLike) -> Projection:
    """Project the points of a scan into an image and find the visible ones.

    Args:
        xyz: (N, 3) in the lidar's frame; points without a return (not finite, or at the origin) are never visible.
        camera: intrinsics.
        T_camera_lidar: (4, 4).
    """
    returns = np.isfinite(xyz).all(axis=1) & xyz.any(axis=1)
    points = transform(T_camera_lidar, xyz)
    uv, inside = camera.project(points)
    depth = np.linalg.norm(points, axis=1)
    visible = inside & returns
    visible[visible] = nearest_surface(uv[visible], depth[visible], camera)
    return Projection(uv, depth, visible)


def nearest_surface(uv: Float32, depth: Float32, camera: Camera) -> Bool:
    """(M,) whether a point in the image, at pixel (M, 2) and depth (M,), is on the nearest surface of its cell."""
    from scipy.ndimage import minimum_filter

    cell = np.maximum(1.0, CELL * np.array(camera.intrinsics[:2]))
    column, row = (uv / cell).astype(np.int64).T
    nearest = np.full((int(camera.height / cell[1]) + 1, int(camera.width / cell[0]) + 1), np.inf)
    np.minimum.at(nearest, (row, column), depth)
    nearest = minimum_filter(nearest, size=3, mode="nearest")
    hidden: Bool = depth > nearest[row, column] * (1 + BEHIND_RELATIVE) + BEHIND
    return ~hidden

"""Projection of a scan into a camera image, with occlusion."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.scan import Bool, Float32, Scan

# A lidar and a camera in different places see past different edges. The measured surfaces are drawn into a depth image
# of the camera, and points clearly behind it are hidden. Constants are chosen on generated buildings with lidars of 16
# to 128 beams and three camera models; docs/pseudo-labels.md has the figures.
CELL = np.radians(0.25)  # of the depth image
COLUMN = np.radians(0.5)  # of azimuth around the lidar, in which each ring has a point
BEHIND = 0.1, 0.04  # metres, and share of the depth, behind the surface
STEP = 0.2, 0.08  # metres, and share of the depth, between the two sides of a depth edge
NEAR_EDGE = np.radians(0.75)


class Projection(NamedTuple):
    """N points in an image.

    uv: (N, 2) pixels, NaN where the camera model does not hold. depth: (N,) metres from the camera's centre.
    visible: (N,) in the image, and not hidden by a surface.
    edge: (N,) in the image, and near a depth edge as the camera sees it, on either side.
    """

    uv: Float32
    depth: Float32
    visible: Bool
    edge: Bool


def upright(xyz: Float32, T_base_lidar: Transform | None) -> Float32:
    """(N, 3) points rotated so that z is up."""
    return xyz if T_base_lidar is None else xyz @ np.asarray(T_base_lidar, np.float32)[:3, :3].T


def transform(T_target_source: Transform | npt.ArrayLike, xyz: Float32) -> Float32:
    """(N, 3) points in the source's frame -> the target's frame."""
    matrix = np.asarray(T_target_source, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # points without a return may be infinite
        return (xyz @ matrix[:3, :3].T + matrix[:3, 3]).astype(np.float32)


def project_scan(xyz: Float32, camera: Camera, T_camera_lidar: Transform | npt.ArrayLike) -> Projection:
    """Project the points of a scan into an image; find those that the camera sees, and those near a depth edge.

    Args:
        xyz: (N, 3) in the lidar's frame; points without a return (not finite, or at the origin) are never visible.
        camera: intrinsics.
        T_camera_lidar: (4, 4).
    """
    points = transform(T_camera_lidar, xyz)
    depth = np.sqrt(np.einsum("ni,ni->n", points, points))
    near = np.flatnonzero((points[:, 2] > depth * np.cos(camera.half_angle)) & Scan(xyz).valid())
    uv, inside = np.full((len(xyz), 2), np.nan, np.float32), np.zeros(len(xyz), np.bool_)
    visible, edge = inside.copy(), inside.copy()
    uv[near], inside[near] = camera.project(points[near])
    visible[near], edge[near] = _visible_and_edge(xyz[near], uv[near], depth[near], inside[near], camera)
    return Projection(uv, depth, visible, edge)


def _visible_and_edge(xyz: Float32, uv: Float32, depth: Float32, inside: Bool, camera: Camera) -> tuple[Bool, Bool]:
    """(M,) whether points in or close to the image are visible, and whether they are near a depth edge."""
    from cmp_seg_ros.kernels import visibility

    scale = camera.pixels_per_radian
    size = np.maximum(1.0, CELL * scale)  # of a cell, in pixels
    surface = np.full((int(camera.height / size[1]) + 1, int(camera.width / size[0]) + 1), np.inf, np.float32)
    cells, angle = (uv / size).astype(np.float32), np.float32(size[1] / scale[1])
    x, y, z = xyz.T
    across = np.hypot(x, y)
    column, elevation = np.floor(np.arctan2(y, x) / np.float32(COLUMN)), np.arctan2(z, across)
    order = np.argsort(column * 8 + elevation)  # elevations differ by less than 4
    width = (COLUMN / 2 * scale[0] / size[0] * across / depth).astype(np.float32)
    visibility.draw(order, column, elevation, np.hypot(across, z), cells, depth, width, angle, surface)
    tolerance, around = np.array([BEHIND, STEP], np.float32), round(float(NEAR_EDGE / angle))
    return visibility.look(cells, depth, inside, surface, tolerance, around)

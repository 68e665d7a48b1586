"""True occupancy of a simulated scene, as far as a robot could see it from where the camera stands and goes next.

A voxel is occupied if a surface that is seen from one of the viewpoints passes through it or lies right beside one that
is; free if a viewpoint sees its centre; unknown otherwise: inside walls and furniture, and in rooms that nobody enters.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid, Transform
from cmp_seg_ros.scan import Bool, Float32, UInt8
from cmp_seg_ros.simulation.mesh import Mesh, Rng
from cmp_seg_ros.simulation.raycast import Scene

SPACING = 0.05  # metres between samples of a surface, at most


def surface_points(mesh: Mesh, low: npt.ArrayLike, high: npt.ArrayLike) -> tuple[Float32, UInt8]:
    """Points that cover the triangles of a mesh between two corners of a box: (N, 3), and their classes, (N,).

    Rows of points run along the longest edge AB: A + b (C - A) + a (1 - b) (B - A) for a, b in 0..1.
    """
    corners = mesh.triangles
    near = ((corners.min(axis=1) <= high) & (corners.max(axis=1) >= low)).all(axis=1)
    corners, label = corners[near], mesh.label[near]
    lengths = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)  # (T, 3): AB, BC, CA
    order = (lengths.argmax(axis=1)[:, None] + np.arange(3)) % 3
    A, B, C = np.take_along_axis(corners, order[:, :, None], axis=1).transpose(1, 0, 2)
    longest = np.maximum(lengths.max(axis=1, initial=0), 1e-9)
    height = np.linalg.norm(np.cross(B - A, C - A), axis=1) / longest
    along, up = (np.ceil(length / SPACING).astype(np.int64).clip(1) for length in (longest, height))
    count = (along + 1) * (up + 1)
    row = np.arange(len(corners)).repeat(count)
    number = np.arange(len(row)) - (count.cumsum() - count)[row]
    a = (number % (along[row] + 1) / along[row]).astype(np.float32)[:, None]
    b = (number // (along[row] + 1) / up[row]).astype(np.float32)[:, None]
    points = A[row] + b * (C - A)[row] + a * (1 - b) * (B - A)[row]
    inside = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    cells = ((points[inside] - np.asarray(low)) / (0.5 * SPACING)).astype(np.int32)
    _, first = np.unique(
        np.ravel_multi_index(tuple(cells.T), tuple(cells.max(axis=0, initial=0) + 1)), return_index=True
    )
    return points[inside[first]], label[row[inside[first]]]


def viewpoints(scenes: list[Scene], T_world_camera: Transform, count: int, rng: Rng) -> Float32:
    """(count, 3) places in sight of a camera, itself the first: up to 6 m away and up to 50 degrees off its axis."""
    angles = np.radians(rng.uniform([-50, -15], [50, 8], (count - 1, 2)))
    x, y = np.sin(angles[:, 0]) * np.cos(angles[:, 1]), -np.sin(angles[:, 1])
    directions = np.stack([x, y, np.cos(angles[:, 0]) * np.cos(angles[:, 1])], axis=1) @ T_world_camera[:3, :3].T
    origin = T_world_camera[:3, 3].astype(np.float32)
    seen = distances(scenes, origin, directions.astype(np.float32))
    away = rng.uniform(0.2, 0.9, count - 1) * np.minimum(seen, 6.0)
    return np.concatenate([origin[None], (origin + away[:, None] * directions).astype(np.float32)])


def occupancy(
    scenes: list[Scene],
    surfaces: Sequence[tuple[Float32, UInt8]],
    grid: Grid,
    T_world_grid: Transform,
    places: Float32,
    within: Bool,
) -> UInt8:
    """The true occupancy of a grid.

    Args:
        scenes: that hide the space behind their surfaces.
        surfaces: points on all surfaces, in the world, and their classes.
        places: (P, 3) viewpoints in the world.
        within: (X Y Z,) voxels of interest; the others are unknown.

    Returns:
        (X, Y, Z) classes, FREE or UNKNOWN.
    """
    label = np.full(grid.size, UNKNOWN, np.uint8)
    T_grid_world = np.linalg.inv(T_world_grid).astype(np.float32)
    for points, classes in surfaces:
        index, inside = grid.index(points @ T_grid_world[:3, :3].T + T_grid_world[:3, 3])
        label[index[inside]] = classes[inside]
    surface = label != UNKNOWN
    hidden = np.flatnonzero(~surface & within)
    free = np.zeros(grid.size, bool)
    centres = (grid.centres() @ T_world_grid[:3, :3].T + T_world_grid[:3, 3]).astype(np.float32)
    for place in places:
        way = centres[hidden] - place
        away = np.linalg.norm(way, axis=1)
        seen = distances(scenes, place, way / np.maximum(away, 1e-6)[:, None]) > away
        free[hidden[seen]] = True
        hidden = hidden[~seen]
    beside = ndimage.binary_dilation(free.reshape(grid.shape), np.ones((3, 3, 3))).ravel()
    label[~(surface & beside & within)] = UNKNOWN
    label[free] = FREE
    return label.reshape(grid.shape)


def distances(scenes: list[Scene], place: Float32, directions: Float32) -> Float32:
    """(N,) metres from a place to the first surface in (N, 3) unit directions."""
    origins = np.ascontiguousarray(np.broadcast_to(place, directions.shape), dtype=np.float32)
    directions = np.ascontiguousarray(directions, dtype=np.float32)
    cast = [scene._embree.run(origins, directions, query="DISTANCE") for scene in scenes if len(scene.mesh)]
    return np.asarray(np.minimum.reduce(cast), dtype=np.float32)

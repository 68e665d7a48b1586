"""What occupancy is scored on: images with true occupancy, of simulated scenes and of posed RGB-D frames."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from cmp_seg_ros.datasets.base import read_picture
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid, Transform
from cmp_seg_ros.occupancy.views import View, views_in
from cmp_seg_ros.scan import Bool, Float32, UInt8

POSES = "poses.txt"
NEIGHBOURS = (-2, -1, 1, 2)  # frames whose depth is carried over
JUMP = 1.0  # metres between neighbours; beyond it they are of another place


class Case(NamedTuple):
    """An image with its truth.

    Args:
        rgb: (H, W, 3).
        depth: (H, W) metres along the axis, infinite or 0 where unknown.
        truth: (X, Y, Z) ids in `indoor`, FREE or UNKNOWN. An unlabelled surface has the id of clutter.
        visible: (X, Y, Z) whether the camera sees the voxel.
        labelled: whether the ids mean anything.
    """

    key: str
    rgb: UInt8
    camera: Camera
    T_base_camera: Transform
    depth: Float32
    truth: UInt8
    visible: Bool
    labelled: bool


def simulated(seeds: Sequence[int], count: int, camera: Camera, grid: Grid) -> Iterator[Case]:
    """`count` views of each building."""
    from cmp_seg_ros.simulation.building import make_building

    for seed in seeds:
        for number, view in enumerate(views_in(make_building(seed), count, camera, grid)):
            yield _of_view(f"building-{seed}-{number}", view, camera, grid)


def of_scene(folder: Path, count: int, camera: Camera, grid: Grid) -> Iterator[Case]:
    """`count` views of a furnished scene. Raises UserError."""
    from cmp_seg_ros.simulation.scene_folder import load_scene

    for number, view in enumerate(views_in(load_scene(folder, 0), count, camera, grid)):
        yield _of_view(f"{folder.name}-{number}", view, camera, grid)


def _of_view(key: str, view: View, camera: Camera, grid: Grid) -> Case:
    visible = in_front(grid, camera, view.T_base_camera, view.depth, grid.voxel)
    return Case(key, view.rgb, camera, view.T_base_camera, view.depth, view.occupancy, visible, True)


def rgbd(folder: Path, grid: Grid, every: int = 1) -> Iterator[tuple[Case, UInt8]]:
    """Posed RGB-D frames: images/*, depth/* (16-bit PNG, mm), poses.txt (camera to world), K.txt; y up in the world.

    The floor is where few points of all frames lie lower. Yields the case with the truth of its own depth, and the
    truth (X, Y, Z) of its depth and its neighbours'.

    Raises:
        UserError: a file is missing or broken.
    """
    frames = _Frames(folder)
    for number in range(0, len(frames), every):
        T_world_camera, depth = frames.poses[number], frames.depth(number)
        rgb = read_picture(frames.images[number])
        camera = frames.camera(rgb.shape[:2])
        T_world_base = level_base(T_world_camera, frames.floor)
        T_base_camera = np.linalg.inv(T_world_base) @ T_world_camera
        own = from_depth(grid, camera, T_base_camera, depth)
        both = own.copy()
        for other in frames.near(number):
            T = np.linalg.inv(T_world_base) @ frames.poses[other]
            more = from_depth(grid, camera, T, frames.depth(other))
            better = (more != UNKNOWN) & ((both == UNKNOWN) | (more < FREE))
            both[better] = more[better]
        _, _, inside = grid.seen_by(camera, T_base_camera)
        both[~inside.reshape(grid.shape)] = UNKNOWN
        visible = in_front(grid, camera, T_base_camera, np.where(depth > 0, depth, 0), grid.voxel)
        yield Case(frames.images[number].stem, rgb, camera, T_base_camera, depth, own, visible, False), both


class _Frames:
    def __init__(self, folder: Path) -> None:
        self.images = sorted((folder / "images").glob("*"))
        try:
            self.poses = np.loadtxt(folder / POSES).reshape(-1, 4, 4)
            self.k = np.loadtxt(folder / "K.txt")
        except (OSError, ValueError) as error:
            raise UserError(f"RGB-D folder {folder}: {error}") from error
        self._depths = [folder / "depth" / f"{image.stem}.png" for image in self.images]
        if not self.images or len(self.images) != len(self.poses):
            raise UserError(f"RGB-D folder {folder} has {len(self.images)} images and {len(self.poses)} poses")
        heights = [self._heights(number) for number in range(0, len(self), max(1, len(self) // 20))]
        self.floor = float(np.percentile(np.concatenate(heights), 2))

    def __len__(self) -> int:
        return len(self.images)

    def depth(self, number: int) -> Float32:
        """(H, W) metres, 0 where unknown."""
        from PIL import Image

        try:
            with Image.open(self._depths[number]) as image:
                return np.asarray(image).astype(np.float32) / np.float32(1000)
        except OSError as error:
            raise UserError(f"depth image {self._depths[number]} cannot be read: {error}") from error

    def camera(self, size: tuple[int, ...]) -> Camera:
        k = self.k
        return Camera(model="pinhole", intrinsics=(k[0, 0], k[1, 1], k[0, 2], k[1, 2]), width=size[1], height=size[0])

    def near(self, number: int) -> list[int]:
        """Neighbours that were taken close by."""
        others = [number + step for step in NEIGHBOURS if 0 <= number + step < len(self)]
        place = self.poses[number][:3, 3]
        return [other for other in others if np.linalg.norm(self.poses[other][:3, 3] - place) < JUMP]

    def _heights(self, number: int) -> Float32:
        depth = self.depth(number)
        points = _unprojected(self.camera(depth.shape), depth)[::20]
        return (points @ self.poses[number][:3, :3].T + self.poses[number][:3, 3])[:, 1].astype(np.float32)


def level_base(T_world_camera: Transform, floor: float) -> Transform:
    """T_world_base (4, 4) below a camera in a world whose y axis points up: level, on the floor, x ahead."""
    ahead = T_world_camera[:3, 2] * (1, 0, 1)
    ahead /= np.linalg.norm(ahead)
    up = np.array([0.0, 1, 0])
    T = np.eye(4)
    T[:3, :3] = np.stack([ahead, np.cross(up, ahead), up], axis=1)
    T[:3, 3] = T_world_camera[0, 3], floor, T_world_camera[2, 3]
    return T


def from_depth(grid: Grid, camera: Camera, T_grid_camera: Transform, depth: Float32) -> UInt8:
    """(X, Y, Z) what a depth image tells: occupied (the id of clutter) at its surfaces, FREE before them."""
    clutter = 19
    label = np.full(grid.size, UNKNOWN, np.uint8)
    xyz, uv, inside = grid.seen_by(camera, T_grid_camera)
    rows = np.flatnonzero(inside)
    column, row = np.round(uv[rows]).astype(np.int64).T
    known = depth[row, column] > 0
    # The nearest surface around the pixel, so that a voxel at an edge does not count as free.
    nearest = ndimage.minimum_filter(np.where(depth > 0, depth, np.inf), 5)[row, column]
    label[rows[known & (xyz[rows, 2] < nearest - grid.voxel)]] = FREE
    points = _unprojected(camera, depth) @ T_grid_camera[:3, :3].T + T_grid_camera[:3, 3]
    index, within = grid.index(points)
    label[np.unique(index[within])] = clutter
    return label.reshape(grid.shape)


def in_front(grid: Grid, camera: Camera, T_grid_camera: Transform, depth: Float32, margin: float) -> Bool:
    """(X, Y, Z) whether voxels lie in the image, and less than `margin` behind its surface."""
    xyz, uv, inside = grid.seen_by(camera, T_grid_camera)
    column, row = np.round(np.where(inside[:, None], uv, 0)).astype(np.int64).T
    return np.asarray(inside & (xyz[:, 2] < depth[row, column] + margin)).reshape(grid.shape)


def _unprojected(camera: Camera, depth: Float32) -> Float32:
    """(N, 3) points of the known pixels in the camera's frame."""
    row, column = np.nonzero((depth > 0) & np.isfinite(depth))
    rays = camera.unproject(np.stack([column, row], axis=1).astype(np.float32))
    return np.asarray(rays / rays[:, 2:] * depth[row, column][:, None], dtype=np.float32)

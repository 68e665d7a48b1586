"""Occupancy from an image: the camera's image in, labelled voxels, depth and pictures out.

occupier = Occupier.from_bundle("scenedino-indoor-small")
view = occupier.look(rgb, camera, T_base_camera)                # rgb (H, W, 3); the camera's model, and its pose
voxels = occupier.voxels(view, Grid.load("indoor"))
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cmp_seg_ros.bundle import Bundle, ImageNetwork
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.network_weights import load_state, read_safetensors
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid, Transform
from cmp_seg_ros.scan import Bool, Float32, Int64, UInt8
from cmp_seg_ros.scenedino.field import FeatureField, normalised_intrinsics, project
from cmp_seg_ros.scenedino.graph import OnnxRuntime
from cmp_seg_ros.scenedino.rendering import composite, distances, rays_of
from cmp_seg_ros.scenedino.voxels import Folded, Plain, Points

ENGINES: dict[str, Callable[[FeatureField], Plain]] = {
    "folded": Folded,
    "reference": Plain,
    "onnxruntime": OnnxRuntime,
}
RENDERED = (48, 80)  # pixels of rendered images
SAMPLES = 48  # along a ray


class Voxels(NamedTuple):
    """A labelled grid.

    Args:
        label: (X, Y, Z) ids of the bundle's classes; FREE: seen to be empty; UNKNOWN: outside the view, or empty by
            guess only, since hidden.
        density: (X, Y, Z) 1 / m, 0 outside the view.
    """

    label: UInt8
    density: Float32


class Rendered(NamedTuple):
    """Images of RENDERED pixels: (h, w) metres along the optical axis, (h, w) ids, (h, w, F) features."""

    depth: Float32
    label: UInt8
    features: Float32


@dataclass(frozen=True)
class View:
    """An image as the network has seen it.

    Args:
        features: the network's map.
        warp: to the virtual camera of the network's input.
        T_base_camera: (4, 4), or None where the camera's place on the robot is unknown.
    """

    features: Tensor
    warp: "Warp"
    T_base_camera: Transform | None

    @property
    def up(self) -> Tensor | None:
        """(4,) height above the floor of a point (x, y, z, 1) before the camera."""
        return None if self.T_base_camera is None else torch.from_numpy(self.T_base_camera[2].astype(np.float32))

    @property
    def place(self) -> tuple["Warp", list[float] | None]:
        """What plans of points depend on: the camera, and its height and lean to a millimetre."""
        return self.warp, None if self.up is None else np.round(self.up.numpy(), 3).tolist()


class Warp:
    """Maps images of a camera to the pinhole camera that the network expects: undistorted, scaled, cropped or padded.

    Args:
        camera: any model.
        size: (height, width) of the network's input.
        focal: of the network's camera in pixels; None: as the image, scaled to the width of the input.

    Raises:
        UserError: the two cameras see nothing in common.
    """

    def __init__(self, camera: Camera, size: tuple[int, int], focal: float | None) -> None:
        height, width = size
        self.source = camera
        if focal is None:
            focal = camera.intrinsics[0] * width / camera.width
        self.camera = Camera.centred(focal, size)
        uv, inside = camera.project(self.camera.rays())
        self.inside: Bool = inside.reshape(size)
        if not inside.any():
            raise UserError(
                "the camera sees nothing of the network's view; check intrinsics and size in its camera info"
            )
        # Averaged over so many pixels first: a network is not used to aliases.
        k = self.factor = max(1, int(camera.intrinsics[0] / focal))
        averaged = np.array([-(-camera.width // k) * k, -(-camera.height // k) * k])  # whole blocks of pixels
        place = (np.nan_to_num(uv) + 0.5) / averaged * 2 - 1
        self._grid = torch.from_numpy(place.reshape(1, height, width, 2).astype(np.float32))

    def __call__(self, rgb: UInt8) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, height, width) in [-1, 1], 0 where the camera does not see.

        Raises:
            UserError: the image has another size than the camera.
        """
        if rgb.shape != (self.source.height, self.source.width, 3):
            raise UserError(
                f"the image has {rgb.shape[1]} x {rgb.shape[0]} pixels, its camera info {self.source.width} x "
                f"{self.source.height}; publish the camera info of that image, or give a calibration of that size"
            )
        image = torch.from_numpy(np.array(rgb)).permute(2, 0, 1)[None].float() / 127.5 - 1
        if self.factor > 1:
            image = nn.functional.avg_pool2d(image, self.factor, ceil_mode=True, count_include_pad=False)
        warped = nn.functional.grid_sample(image, self._grid, padding_mode="border", align_corners=False)
        return warped * torch.from_numpy(self.inside)

    @cached_property
    def intrinsics(self) -> Tensor:
        """(3, 3) normalised, of the network's camera."""
        return normalised_intrinsics(self.camera)


class Occupier:
    """Occupancy from images. Not thread-safe.

    Args:
        bundle: the model, of kind `occupancy`.
        engine: `folded`; `reference`: the network as it is; `onnxruntime`: on a GPU, see `scenedino/graph.py`.

    Raises:
        UserError: the bundle is damaged or of another kind, or the engine is unknown.
    """

    def __init__(self, bundle: Bundle, engine: str = "folded") -> None:
        section = bundle.description.section
        if not isinstance(section, ImageNetwork):
            raise UserError(
                f"bundle {bundle.path} is of kind {bundle.description.kind}; give one of kind occupancy, such as "
                "scenedino-indoor-small"
            )
        if engine not in ENGINES:
            raise UserError(f"no engine '{engine}' for occupancy; known: {', '.join(ENGINES)}")
        field = FeatureField(section.network)
        load_state(field, read_safetensors(bundle.weights_path), str(bundle.weights_path))
        self.bundle, self.section, self.label_space = bundle, section, bundle.description.label_space
        self.evaluation = ENGINES[engine](field.eval().requires_grad_(False))
        self._warps: dict[str, Warp] = {}
        # Of the last grid and of the rays: what they depend on, the grid's voxels in the view, and the plan.
        self._grid: tuple[object, Int64, Points] | None = None
        self._rays: tuple[object, Points] | None = None
        self._marched: tuple[View, _March] | None = None

    @classmethod
    def from_bundle(cls, name: str | Path, engine: str = "folded") -> "Occupier":
        """An occupier of the bundle `name`: a folder, or a name in models/."""
        return cls(Bundle.find(name), engine)

    def look(self, rgb: UInt8, camera: Camera, T_base_camera: Transform | None = None) -> View:
        """Run the network on an image (H, W, 3) of a camera, whose pose helps where it is known.

        Raises:
            UserError: image and camera differ in size.
        """
        key = camera.model_dump_json(include=set(Camera.model_fields))
        if key not in self._warps:
            self._warps = {key: Warp(camera, self.section.network.image, self.section.focal)}
        warp = self._warps[key]
        pose = None if T_base_camera is None else np.asarray(T_base_camera, np.float64)
        return View(self.evaluation.look(warp(rgb)), warp, pose)

    def voxels(self, view: View, grid: Grid, T_grid_camera: Transform | None = None) -> Voxels:
        """Label a grid; `T_grid_camera` (4, 4) is the pose of the camera in its frame, by default that of the view.

        Density is found at all voxels in the view, classes at the occupied ones.
        """
        rows, points = self._grid_points(view, grid, T_grid_camera)
        density = np.zeros(grid.size, np.float32)
        found = self.evaluation.density(view.features, points)
        density[rows] = found
        solid = found > self.section.threshold
        label = np.full(grid.size, UNKNOWN, np.uint8)
        if solid.any():
            classes = self.evaluation.classes(view.features, points, np.flatnonzero(solid))
            label[rows[solid]] = self.label_space.ids[classes]
        label[rows[~solid & self._in_sight(view, points, grid.voxel)]] = FREE
        return Voxels(label.reshape(grid.shape), density.reshape(grid.shape))

    def render(self, view: View) -> Rendered:
        """Depth, classes and features as the camera sees them; the latter two are those of a ray's heaviest sample."""
        march = self._march(view)
        rows = np.arange(len(march.rays)) * SAMPLES + march.weights.argmax(dim=1).numpy()
        ids = self.label_space.ids[self.evaluation.classes(view.features, march.points, rows)]
        features = self.evaluation.point_features(view.features, march.points, rows)
        return Rendered(march.depth, ids.reshape(RENDERED), features.reshape(*RENDERED, -1))

    def _march(self, view: View) -> "_March":
        """Volume rendering of the depth; that of the last view is kept."""
        if self._marched is not None and self._marched[0] is view:
            return self._marched[1]
        rays = rays_of(view.warp.intrinsics[None], RENDERED)[0]  # (R, 3)
        at = distances(len(rays), SAMPLES, self.section.network.depth, False, rays)  # (R, S)
        if self._rays is None or self._rays[0] != view.place:
            xyz = (at[..., None] * rays[:, None]).flatten(0, 1)
            self._rays = view.place, self.evaluation.plan(xyz, view.warp.intrinsics, view.up)
        points = self._rays[1]
        density = torch.from_numpy(self.evaluation.density(view.features, points)).view(1, len(rays), SAMPLES)
        rendered = composite(density, density[..., None], at[None])
        depth = (rendered.distance[0] * rays[:, 2]).view(RENDERED).numpy()
        self._marched = view, _March(depth, rendered.weights[0], rays, points)
        return self._marched[1]

    def _grid_points(self, view: View, grid: Grid, T_grid_camera: Transform | None) -> tuple[Int64, Points]:
        """Flat indices of the voxels in the view, and their points."""
        if T_grid_camera is None and grid.frame == "base":
            T_grid_camera = view.T_base_camera
        if T_grid_camera is None:
            if grid.frame != "camera":
                raise UserError(
                    f"a grid in the frame '{grid.frame}' needs the camera's pose in it: give T_base_camera in the "
                    "calibration, or take a grid in the camera's frame (indoor-camera)"
                )
            T_grid_camera = np.eye(4)
        key = view.place, grid, np.round(T_grid_camera, 6).tolist()
        if self._grid is None or self._grid[0] != key:
            xyz, uv, inside = grid.seen_by(view.warp.camera, T_grid_camera)
            rows = np.flatnonzero(inside)
            column, row = np.round(uv[rows]).astype(np.int64).T
            rows = rows[view.warp.inside[row, column]]
            points = self.evaluation.plan(torch.from_numpy(xyz[rows]), view.warp.intrinsics, view.up)
            self._grid = key, rows, points
        return self._grid[1:]

    def _in_sight(self, view: View, points: Points, margin: float) -> Bool:
        """(N,) whether points lie before, or less than `margin` metres behind, the rendered surface."""
        depth = self._march(view).depth
        uv, _ = project(points.xyz, points.intrinsics)
        column, row = (
            ((uv[0, :, axis].numpy() + 1) / 2 * size).astype(np.int64) for axis, size in enumerate(RENDERED[::-1])
        )
        nearest = depth[row.clip(0, RENDERED[0] - 1), column.clip(0, RENDERED[1] - 1)]
        return np.asarray(points.xyz[0, :, 2].numpy() < nearest + margin)


class _March(NamedTuple):
    depth: Float32  # RENDERED
    weights: Tensor  # (R, S)
    rays: Tensor  # (R, 3)
    points: Points  # R S

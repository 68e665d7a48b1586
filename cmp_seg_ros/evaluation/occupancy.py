"""Scores an occupancy bundle, and baselines that know no completion, on images with truth."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.occupancy.cases import Case, from_depth
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid, Transform
from cmp_seg_ros.occupancy.scores import DepthScores, OccupancyScores, truth_ids
from cmp_seg_ros.occupier import RENDERED, Occupier, View
from cmp_seg_ros.scan import Float32, UInt8

MODEL, OWN_DEPTH, CONSTANT, FLOOR = "model", "own_depth", "constant_depth", "floor_plane"
FAR = 12.0  # metres; depths beyond it count nowhere


class OccupancyEvaluation:
    """Scores of the model and of three baselines.

    own_depth: the bundle's rendered depth, back-projected: occupied is what contains one of its points.
    constant_depth: a wall across the view at `constant`, the median of the true depths.
    floor_plane: the floor at its true height, and that wall above the horizon.
    """

    def __init__(self, occupier: Occupier, grid: Grid, constant: float) -> None:
        self.occupier, self.grid, self.constant = occupier, grid, constant
        names = (MODEL, OWN_DEPTH, CONSTANT, FLOOR)
        self.occupancy = {name: OccupancyScores(occupier.label_space) for name in names}
        self.depths = {name: DepthScores() for name in (MODEL, CONSTANT, FLOOR)}
        self._ids = truth_ids(occupier.label_space)
        self.cases = 0

    def add(self, case: Case, truth: UInt8 | None = None) -> tuple[View, UInt8]:
        """Score a case; `truth` (X, Y, Z) instead of its own. Returns the view and its labels."""
        view = self.occupier.look(case.rgb, case.camera, case.T_base_camera)
        voxels = self.occupier.voxels(view, self.grid)
        rendered = self.occupier.render(view)
        wanted = self._ids[case.truth if truth is None else truth]
        camera = view.warp.camera
        size = camera.height, camera.width
        planes = {CONSTANT: np.full(size, self.constant, np.float32), FLOOR: self._floor(camera, case.T_base_camera)}
        answers = {MODEL: np.where(voxels.label == UNKNOWN, FREE, voxels.label).astype(np.uint8)}
        for name, depth in {OWN_DEPTH: _enlarged(rendered.depth, size), **planes}.items():
            found = from_depth(self.grid, camera, case.T_base_camera, depth)
            answers[name] = np.where(found < FREE, self.occupier.label_space.ids[-1], FREE).astype(np.uint8)
        for name, answer in answers.items():
            self.occupancy[name].add(wanted.ravel(), answer.ravel(), case.visible.ravel())
        real, small = sampled_depth(case, camera), rendered_camera(camera)
        depths = {MODEL: rendered.depth, CONSTANT: np.full(RENDERED, self.constant, np.float32)}
        depths[FLOOR] = self._floor(small, case.T_base_camera)
        for name, depth in depths.items():
            self.depths[name].add(real, depth, farthest=FAR)
        self.cases += 1
        return view, voxels.label

    def _floor(self, camera: Camera, T_base_camera: Transform) -> Float32:
        floor = floor_depth(camera, T_base_camera)
        return np.where(floor < FAR, floor, np.float32(self.constant))

    def report(self, labelled: bool) -> dict[str, Any]:
        """By name of model and baseline: scores; those of classes only where the truth has them."""
        found: dict[str, Any] = {"cases": self.cases, "constant_depth_m": self.constant}
        for name, occupancy in self.occupancy.items():
            scores = occupancy.scores()
            if not labelled or name != MODEL:
                scores = {key: value for key, value in scores.items() if key.startswith(("occupancy", "prec", "rec"))}
            found[name] = scores | (self.depths[name].scores() if name in self.depths else {})
        return found


def median_depth(depths: Iterable[Float32]) -> float:
    """Of all known pixels within FAR."""
    known = [depth[(depth > 0.1) & (depth < FAR)][::97] for depth in depths]
    return float(np.median(np.concatenate(known)))


def rendered_camera(camera: Camera) -> Camera:
    """The pinhole camera of rendered images."""
    scale = RENDERED[1] / camera.width
    fx, fy, cx, cy = camera.intrinsics
    centre = (cx + 0.5) * scale - 0.5, (cy + 0.5) * scale - 0.5
    return Camera(model="pinhole", intrinsics=(fx * scale, fy * scale, *centre), width=RENDERED[1], height=RENDERED[0])


def floor_depth(camera: Camera, T_base_camera: Transform) -> Float32:
    """(H, W) metres along the axis to the floor; infinite above the horizon."""
    rays = camera.rays()
    down = (rays / rays[:, 2:]) @ T_base_camera[2, :3]
    with np.errstate(divide="ignore"):
        depth = np.where(down < -1e-6, -T_base_camera[2, 3] / np.minimum(down, -1e-6), np.inf)
    return depth.reshape(camera.height, camera.width).astype(np.float32)


def sampled_depth(case: Case, camera: Camera) -> Float32:
    """The true depth at the pixels of rendered images; 0 where unknown or out of the image."""
    small = rendered_camera(camera)
    uv, inside = case.camera.project(small.rays())
    column, row = np.round(np.where(inside[:, None], uv, 0)).astype(np.int64).T
    depth = np.where(inside, case.depth[row, column], 0)
    return depth.reshape(RENDERED).astype(np.float32)


def _enlarged(depth: Float32, size: tuple[int, int]) -> Float32:
    """(H, W) of an (h, w) depth image, linear in inverse depth, so that planes stay planes."""
    inverse = torch.from_numpy(1 / np.maximum(depth, 0.05))[None, None]
    full = torch.nn.functional.interpolate(inverse, size, mode="bilinear", align_corners=False)[0, 0].numpy()
    return np.asarray(1 / full, dtype=np.float32)

"""Occupancy from one image: learn density and classes of a feature field from simulated depth, classes and occupancy.

Unlike the published training, which learns from videos without labels, this one knows the truth of the simulator.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor
from torch.nn import functional

from cmp_seg_ros.bundle import Bundle, ImageNetwork
from cmp_seg_ros.configuration import Strict
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.network_weights import serialise
from cmp_seg_ros.occupancy import pictures
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid
from cmp_seg_ros.occupancy.scores import DepthScores, OccupancyScores, truth_ids
from cmp_seg_ros.occupancy.views import View, ViewCache
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, UInt8
from cmp_seg_ros.scenedino.config import FieldConfig
from cmp_seg_ros.scenedino.encoders.efficientnet_lite0 import Encoder
from cmp_seg_ros.scenedino.field import NO_HEIGHT, FeatureField, Samples, normalised_intrinsics
from cmp_seg_ros.scenedino.rendering import Rendered, rays_of, render
from cmp_seg_ros.training.config import TrainConfig
from cmp_seg_ros.training.tasks import base

Rng = np.random.Generator

DENSITY_START = 10.0  # factor on the initial weights of the density, so that surfaces form within few steps
RENDERED = (12, 20)  # pixels of the depth image that a validation renders
SAMPLES = 48  # along a ray of it


class ViewConfig(Strict):
    """Simulated views. Training uses as many seeds of the second world (simulation/building.py) as of the first."""

    first_building: int = Field(default=30_000_000, ge=0)
    first_of_second_world: int = Field(default=130_000_000, ge=0)
    buildings: int = Field(default=150, gt=0)  # of each world
    first_validation_building: int = Field(default=25_000_000, ge=0)
    validation_buildings: int = Field(default=10, gt=0)
    views_per_building: int = Field(default=6, gt=0)
    grid: str = "indoor"  # of the truth

    @property
    def seeds(self) -> list[int]:
        """Of the training buildings, both worlds in turn."""
        firsts = self.first_building, self.first_of_second_world
        return [first + number for number in range(self.buildings) for first in firsts]

    @property
    def validation_seeds(self) -> list[int]:
        return list(range(self.first_validation_building, self.first_validation_building + self.validation_buildings))


class Config(TrainConfig):
    """Configuration of an occupancy bundle and its training."""

    label_space: str = "image14"
    data: ViewConfig = ViewConfig()
    network: FieldConfig
    pretrained: bool = True  # start with ImageNet weights, if the encoder has some
    frozen: int = Field(default=0, ge=0)  # blocks of the encoder that keep their weights, from the first
    focal: PositiveFloat = 240.0  # pixels
    threshold: PositiveFloat = 7.0  # 1 / m; density of an occupied voxel
    batch: int = Field(default=4, gt=0)  # views
    voxels: int = Field(default=2048, gt=0)  # points in voxels, a view
    occupied: float = Field(default=0.35, ge=0, le=1)  # share of occupied voxels among them
    rays: int = Field(default=256, gt=0)  # pixels whose surface and space before it are sampled, a view
    before: int = Field(default=3, gt=0)  # points before each surface
    rendered: int = Field(default=96, ge=0)  # rays a view whose depth is rendered
    samples: int = Field(default=32, gt=1)  # along each
    no_height: float = Field(default=0.15, ge=0, le=1)  # probability that the height above the floor is not told
    hidden_weight: float = Field(default=0.2, ge=0)  # of points behind surfaces whose truth is unknown; they count free
    depth_weight: float = Field(default=0.5, ge=0)
    class_weight: float = Field(default=0.5, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        head, space = self.network.head, LabelSpace.load(self.label_space)
        if head.kind != "linear" or head.classes != len(space.classes):
            raise ValueError(f"network.head: give kind linear with {len(space.classes)} classes, those of {space.name}")
        return self

    @property
    def camera(self) -> Camera:
        """The camera of all views."""
        return Camera.centred(self.focal, self.network.image)


class Item(NamedTuple):
    """Views with N points and R rays each.

    Args:
        image: (B, 3, H, W) in [-1, 1].
        points: (B, N, 3) in the camera's frame.
        occupied: (B, N) 1 or 0.
        weight: (B, N) 0 for points that count nothing.
        target: (B, N) int64 class, UNLABELLED where unknown or free.
        directions: (B, R, 3) unit rays.
        distance: (B, R) to the surface, 0 where unknown.
        up: (B, 4) height above the floor of a point (x, y, z, 1).
    """

    image: Tensor
    points: Tensor
    occupied: Tensor
    weight: Tensor
    target: Tensor
    directions: Tensor
    distance: Tensor
    up: Tensor


class Check(NamedTuple):
    """A validation view: M known voxels in the image, and its depth at the rendered pixels."""

    image: Tensor  # (1, 3, H, W)
    points: Tensor  # (1, M, 3)
    rgb: UInt8
    truth: UInt8  # (M,) ids or FREE
    visible: Bool  # (M,)
    depth: Float32  # RENDERED
    up: Tensor  # (1, 4)


class Answer(NamedTuple):
    label: UInt8  # (M,) ids or FREE
    depth: Float32  # RENDERED, metres along the optical axis


class Task(base.Task[Config, Any, Answer]):
    """Trains on simulated views, cached in `folder`."""

    def __init__(self, config: Config, folder: Path) -> None:
        super().__init__(config, folder)
        self.network: FeatureField = FeatureField(config.network)
        self.space = LabelSpace.load(config.label_space)
        self.camera, self.grid = config.camera, Grid.load(config.data.grid)
        count = config.data.views_per_building
        self.views = ViewCache(folder, config.data.seeds, count, self.camera, self.grid)
        self.validation_views = ViewCache(folder, config.data.validation_seeds, count, self.camera, self.grid)
        if isinstance(self.network.encoder, Encoder) and config.frozen:
            self.network.encoder.freeze(config.frozen)
        self._ids = truth_ids(self.space)
        self.intrinsics = normalised_intrinsics(self.camera)[None]

    def fixed(self) -> list[str]:
        return self.space.names

    def start(self) -> None:
        if self.config.pretrained and isinstance(self.network.encoder, Encoder):
            self.network.encoder.load_pretrained()
        with torch.no_grad():
            self.network.mlp.lin_out.weight[0] *= DENSITY_START

    def parameters(self) -> list[dict[str, Any]]:
        """The pre-trained encoder learns at a quarter of the rate."""
        encoder = {id(parameter) for parameter in self.network.encoder.parameters()}
        learned = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in learned if id(p) not in encoder]},
            {"params": [p for p in learned if id(p) in encoder], "scale": 0.25 if self.config.pretrained else 1.0},
        ]

    def prepare(self) -> Iterator[base.Preparation]:
        for name, views in (("validation", self.validation_views), ("training", self.views)):
            yield base.Preparation(f"rendering {name} views", len(views.seeds), views.fill())

    def batch(self, item: int) -> Item:
        rng = np.random.default_rng([self.config.seed, item])
        views = [self._sampled(self.views[int(rng.integers(len(self.views)))], rng) for _ in range(self.config.batch)]
        return Item(*(torch.from_numpy(np.stack(arrays)) for arrays in zip(*views, strict=True)))

    def _sampled(self, view: View, rng: Rng) -> tuple[np.ndarray, ...]:
        """The fields of an Item for one view, at random."""
        config, camera = self.config, self.camera
        label = self._ids[view.label]
        # Points in voxels: anywhere in a free one, near the centre of an occupied one.
        voxels = self._ids[view.occupancy.ravel()]
        chosen = [
            rng.choice(rows, count) if len(rows) else np.zeros(0, np.int64)
            for rows, count in (
                (np.flatnonzero(voxels < FREE), round(config.voxels * config.occupied)),
                (np.flatnonzero(voxels == FREE), config.voxels - round(config.voxels * config.occupied)),
            )
        ]
        index = np.concatenate(chosen)
        index = np.resize(index, config.voxels) if len(index) else np.zeros(config.voxels, np.int64)
        inside = self._centres[index] + rng.uniform(-0.5, 0.5, (config.voxels, 3)) * self.grid.voxel
        T_camera_base = np.linalg.inv(view.T_base_camera)
        inside = inside @ T_camera_base[:3, :3].T + T_camera_base[:3, 3]
        # Points on rays: one right behind the surface, some before it, one farther behind.
        v, u = rng.integers(0, [[camera.height], [camera.width]], (2, config.rays))
        rays = self._rays[v * camera.width + u]  # z = 1
        depth = view.depth[v, u]
        seen = np.isfinite(depth) & (depth < config.network.depth[1])
        depth = np.where(seen, depth, 1.0)
        behind = depth + rng.uniform(0, 0.6, config.rays) * self.grid.voxel
        share = rng.uniform(0.05, 1, (config.before, config.rays)) ** 0.5
        front = np.maximum(depth - self.grid.voxel, 0.05) * share
        along = np.concatenate([behind[None], front])[..., None] * rays  # (1 + before, R, 3)
        beyond = (depth + rng.uniform(2 * self.grid.voxel, 3, config.rays))[:, None] * rays
        there, within = self.grid.index(beyond @ view.T_base_camera[:3, :3].T + view.T_base_camera[:3, 3])
        hidden = np.where(within, voxels[there], UNKNOWN)
        points = np.concatenate([inside, along.reshape(-1, 3), beyond]).astype(np.float32)
        on = np.tile(np.arange(1 + config.before) == 0, (config.rays, 1)).T.ravel()
        occupied = np.concatenate([voxels[index] < FREE, on, hidden < FREE]).astype(np.float32)
        guessed = np.where(hidden == UNKNOWN, config.hidden_weight, 1) * seen
        weight = np.concatenate([voxels[index] != UNKNOWN, np.tile(seen, 1 + config.before), guessed])
        weight = weight.astype(np.float32)
        ray_target = np.where(seen, label[v, u], UNLABELLED)
        on_target = np.where(on, np.tile(ray_target, 1 + config.before), UNLABELLED)
        target = np.concatenate([voxels[index], on_target, hidden])
        target = np.where((target == FREE) | (weight == 0), UNLABELLED, target).astype(np.int64)
        length = np.linalg.norm(rays[: config.rendered], axis=1, keepdims=True)
        directions = (rays[: config.rendered] / length).astype(np.float32)
        distance = (np.where(seen, depth, 0)[: config.rendered] * length[:, 0]).astype(np.float32)
        image, window = augmented(view.rgb, rng)
        left, top, right, bottom = window
        with np.errstate(divide="ignore", invalid="ignore"):
            fx, fy, cx, cy = camera.intrinsics
            pu, pv = points[:, 0] / points[:, 2] * fx + cx, points[:, 1] / points[:, 2] * fy + cy
            weight *= (pu >= left) & (pu < right) & (pv >= top) & (pv < bottom)
        target[weight == 0] = UNLABELLED
        distance *= ((u >= left) & (u < right) & (v >= top) & (v < bottom))[: config.rendered]
        up = view.T_base_camera[2].astype(np.float32)
        if rng.random() < 0.5:  # mirrored
            image = np.ascontiguousarray(image[:, :, ::-1])
            points[:, 0] *= -1
            directions[:, 0] *= -1
            up[0] *= -1
        if rng.random() < config.no_height:
            up = np.array(NO_HEIGHT, np.float32)
        return image, points, occupied, weight, target, directions, distance, up

    def loss(self, network: Any, batch: Item) -> Tensor:
        """Cross-entropy of occupancy + class_weight x that of classes + depth_weight x error of the log of depths."""
        config = self.config
        count, rays = batch.points.shape[1], batch.directions
        intrinsics = self.intrinsics.to(batch.image.device).expand(len(batch.image), -1, -1)
        features = network.encode(batch.image)
        density, point_features, _ = network.query(features, batch.points, intrinsics, batch.up)
        absorbed = density.float() * self.grid.voxel  # -log of the probability to be free
        occupied = -torch.log(-torch.expm1(-absorbed) + 1e-6)
        loss = (torch.where(batch.occupied > 0, occupied, absorbed) * batch.weight).sum() / batch.weight.sum().clamp(1)
        known = batch.target != UNLABELLED
        if known.any():
            logits = network.logits(point_features[known]).float()
            loss = loss + config.class_weight * functional.cross_entropy(logits, batch.target[known])
        seen = batch.distance > config.network.depth[0]
        if config.depth_weight and count and seen.any():
            rendered = self._render(network, features, batch, rays, config.samples, jitter=True)
            error = (rendered.distance.log() - batch.distance.clamp(min=1e-3).log()).abs()[seen]
            loss = loss + config.depth_weight * error.mean()
        return loss

    def _render(
        self, network: Any, features: Tensor, batch: Item | Check, rays: Tensor, samples: int, jitter: bool = False
    ) -> Rendered:
        """What a map of features shows along rays (B, R, 3)."""
        intrinsics = self.intrinsics.to(rays.device).expand(len(rays), -1, -1)

        def query(points: Tensor) -> tuple[Tensor, Tensor]:
            found: Samples = network.query(features, points, intrinsics, batch.up)
            return found.density, found.features

        return render(query, rays, self.config.network.depth, samples, jitter)

    @cached_property
    def validation(self) -> list[Check]:
        return [self._check(self.validation_views[number]) for number in range(len(self.validation_views))]

    def _check(self, view: View) -> Check:
        T_camera_base = np.linalg.inv(view.T_base_camera).astype(np.float32)
        known = np.flatnonzero(view.occupancy.ravel() != UNKNOWN)
        points = self._centres[known] @ T_camera_base[:3, :3].T + T_camera_base[:3, 3]
        uv, inside = self.camera.project(points)
        uv, points, known = uv[inside], points[inside], known[inside]
        column, row = np.round(uv).astype(int).T
        visible = points[:, 2] < view.depth[row, column] + self.grid.voxel
        truth = self._ids[view.occupancy.ravel()[known]]
        image = torch.from_numpy(as_input(view.rgb))[None]
        rows, columns = _rendered_pixels(view.depth.shape)
        depth = view.depth[rows[:, None], columns]
        up = torch.from_numpy(view.T_base_camera[2].astype(np.float32))[None]
        return Check(image, torch.from_numpy(points)[None], view.rgb, truth, visible, depth, up)

    def answer(self, network: Any, batch: Check) -> Answer:
        intrinsics = self.intrinsics.to(batch.image.device)
        features = network.encode(batch.image)
        density, point_features, _ = network.query(features, batch.points, intrinsics, batch.up)
        ids = self.space.ids[network.logits(point_features)[0].argmax(dim=1).cpu().numpy()]
        label = np.where(density[0].cpu().numpy() > self.config.threshold, ids, FREE).astype(np.uint8)
        height, width = self.config.network.image
        rows, columns = _rendered_pixels((height, width))
        rays = rays_of(intrinsics, (height, width)).view(1, height, width, 3)[:, rows[:, None], columns].flatten(1, 2)
        rendered = self._render(network, features, batch, rays, SAMPLES)
        depth = (rendered.distance * rays[..., 2]).view(RENDERED).cpu().numpy()
        return Answer(label, depth)

    def validate(self, answers: Sequence[Answer]) -> base.Validation:
        """Occupancy of known voxels in the image, classes, and rendered depth."""
        occupancy, depth = OccupancyScores(self.space), DepthScores()
        for check, answer in zip(self.validation, answers, strict=True):
            occupancy.add(check.truth, answer.label, check.visible)
            depth.add(check.depth, answer.depth)
        return base.Validation({**occupancy.scores(), **depth.scores()}, partial(self._draw, answers))

    def _draw(self, answers: Sequence[Answer], path: Path, title: str) -> None:
        pairs = list(zip(self.validation, answers, strict=True))[:: max(1, len(answers) // 4)][:4]
        rows = [
            pictures.CheckedView(c.rgb, c.points[0].numpy(), c.truth, answer.label, c.depth, answer.depth)
            for c, answer in pairs
        ]
        pictures.draw_checks(path, rows, self.space, title)

    def write(self, path: Path, training: dict[str, Any], scores: dict[str, float]) -> Bundle:
        config = self.config
        section = ImageNetwork(network=config.network, focal=config.focal, threshold=config.threshold)
        about: dict[str, Any] = {"kind": "occupancy", "label_space": self.space, "occupancy": section}
        return self._bundle(path, serialise(self.network), training, scores, **about)

    @cached_property
    def _centres(self) -> Float32:
        return self.grid.centres()

    @cached_property
    def _rays(self) -> Float32:
        """(H W, 3) directions through the pixels with z = 1."""
        rays = self.camera.rays()
        return rays / rays[:, 2:]


def as_input(rgb: UInt8) -> Float32:
    """(H, W, 3) uint8 -> (3, H, W) in [-1, 1]"""
    return np.ascontiguousarray(rgb.transpose(2, 0, 1), dtype=np.float32) / np.float32(127.5) - 1


def augmented(rgb: UInt8, rng: Rng) -> tuple[Float32, tuple[int, int, int, int]]:
    """Random colours, blur and noise; often grey bars as of a narrower camera.

    Returns (3, H, W) in [-1, 1], and the window (left, top, right, bottom) that is not barred.
    """
    image = as_input(rgb) * 0.5 + 0.5
    image = image * rng.uniform(0.6, 1.4) * rng.uniform(0.85, 1.15, (3, 1, 1)).astype(np.float32)
    grey = image.mean(axis=0, keepdims=True)
    image = grey + (image - grey) * (0 if rng.random() < 0.1 else rng.uniform(0.5, 1.6))
    mean = image.mean()
    image = np.clip(mean + (image - mean) * rng.uniform(0.6, 1.5), 0.001, 1) ** rng.uniform(0.7, 1.4)
    tensor = torch.from_numpy(image.astype(np.float32))[None]
    if rng.random() < 0.4:
        tensor = functional.avg_pool2d(functional.pad(tensor, (1, 1, 1, 1), mode="replicate"), 3, 1)
    array = tensor[0].numpy()
    array = array + rng.uniform(0, 0.04) * rng.standard_normal(array.shape, dtype=np.float32)
    array = (2 * np.clip(array, 0, 1) - 1).astype(np.float32)
    height, width = rgb.shape[:2]
    if rng.random() < 0.6:
        return array, (0, 0, width, height)
    across, down = int(rng.integers(0, width // 6 + 1)), int(rng.integers(0, height // 6 + 1))
    barred = np.zeros_like(array)
    barred[:, down : height - down, across : width - across] = array[:, down : height - down, across : width - across]
    return barred, (across, down, width - across, height - down)


def _rendered_pixels(size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels that a validation renders."""
    rows, columns = ((2 * np.arange(n) + 1) * s // (2 * n) for n, s in zip(RENDERED, size, strict=True))
    return rows, columns

"""Distillation (ScaLR, Puy et al., CVPR 2024): the network learns an image model's features at the points of a scan.

Each step takes scans with one camera each, at random, and only the points that this camera sees. The teacher's features
are sampled at the points, not upsampled to the image, once, and kept on disk.
"""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from cmp_seg_ros.bundle import Bundle, IntensityConfig, PointNetwork
from cmp_seg_ros.datasets.frame import Frame, Returns
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.pseudo_labels.labeller import project, read
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.teachers.base import open_teacher
from cmp_seg_ros.training import pictures, start
from cmp_seg_ros.training.augment import augmented_voxels, voxels_of
from cmp_seg_ros.training.config import AugmentConfig, OptimiserConfig
from cmp_seg_ros.training.losses import distillation_loss
from cmp_seg_ros.training.scans import Arrays, KeptScans, SetConfig, SetsConfig
from cmp_seg_ros.training.tasks import base
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.batch import Batch, collate
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.network import Segmenter
from cmp_seg_ros.waffleiron.preprocess import Voxels

FEWEST = 32  # points of a camera worth a training scan; the network needs 16 neighbours


class Config(SetsConfig):
    """Distillation; hyperparameters are those of ScaLR (batches of 8 scans, 25 epochs)."""

    task: str = "distill"
    teacher: str = "mosaic"  # of `cmp-seg teachers`, or a file or folder of weights
    start: str | None = None  # bundle whose weights but for the head initialise the network
    network: NetworkConfig = NetworkConfig(width=768, depth=48, norm="layernorm", outputs=1)  # outputs: the teacher's
    preprocess: PreprocessConfig = PreprocessConfig(
        fov_min=(-64, -64, -8), fov_max=(64, 64, 8), grids=[(256, 256), (256, 32), (256, 32)]
    )
    intensity: IntensityConfig = IntensityConfig()
    min_depth: float = Field(default=1.0, ge=0)  # metres from the camera
    augment: AugmentConfig = AugmentConfig(
        tilt=0.0,
        mirror=2 / 3,
        scale=0.1,
        jitter=0.0,
        drop_points=0.0,
        drop_rings=0.0,
        drop_intensity=0.0,
        coarse_voxels=0.0,
        max_voxels=20_000,
    )
    optimiser: OptimiserConfig = OptimiserConfig(learning_rate=2e-3, weight_decay=0.03, warmup=0.02, minimum=0.005)
    steps: int = Field(default=10_000_000, gt=0)


class Item(NamedTuple):
    """Scans with M voxels in all."""

    batch: Batch
    features: Tensor  # (M, D) of the teacher, float32
    xyz: Float32  # positions of the voxels of the first scan, upright


class Answer(NamedTuple):
    """Of a validation scan: mean distance and mean cosine over its voxels, and the student's features."""

    distance: float
    cosine: float
    features: Float32  # (M, D), of length 1


class Task(base.Task[Config, Item, Answer]):
    """Learns the teacher's features for the frames in `config.sets`, kept in `folder`."""

    network: Segmenter

    def __init__(self, config: Config, folder: Path) -> None:
        super().__init__(config, folder)
        self.teacher = open_teacher(config.teacher)
        if not self.teacher.dimension:
            raise UserError(f"teacher {config.teacher} gives no features; take another (`cmp-seg teachers`)")
        if not config.sets:
            raise UserError("there is no data to distil from; give a data set with images and a calibration")
        network = config.network.model_copy(update={"outputs": self.teacher.dimension})
        self.points = PointNetwork(network=network, preprocess=config.preprocess, intensity=config.intensity)
        self.network = Segmenter(network)
        key = [config.teacher, self.teacher.dimension, config.min_depth]
        self.scans, self.held_back = (
            KeptScans(folder, sets, self._seen, key, "images of calibrated cameras")
            for sets in (config.sets, config.held_back)
        )

    def start(self) -> None:
        if self.config.start:
            start.start_backbone(self.network, Bundle.find(self.config.start))

    def prepare(self) -> Iterator[base.Preparation]:
        yield base.Preparation("teacher on held-back images", None, self.held_back.fill())
        yield base.Preparation("teacher on images", None, self.scans.fill())

    def limited(self, processes: int) -> Config:
        self.config = self.config.limited(len(self.scans), processes)
        return self.config

    def _seen(self, frame: Frame, _: SetConfig) -> Iterator[Arrays]:
        """For each camera, the upright points that it sees, and the teacher's (N, D) float16 features there."""
        scan, T = frame.scan, frame.T_base_lidar
        ring = np.zeros(len(scan.xyz)) if frame.ring is None else frame.ring
        intensity = np.zeros(len(scan.xyz), np.float32) if scan.intensity is None else scan.intensity
        for name, image in frame.images.items():
            if image.camera is None:
                continue
            found = project(frame, image)
            seen = found.visible & (found.depth > self.config.min_depth)
            if seen.sum() < FEWEST:
                continue
            yield {
                "xyz": scan.xyz[seen] if T is None else scan.xyz[seen] @ T[:3, :3].T.astype(np.float32),
                "intensity": intensity[seen],
                "ring": ring[seen].astype(np.uint8),
                "features": self.teacher.features(read(frame, name, image)).at(found.uv[seen]).astype(np.float16),
            }

    def batch(self, item: int) -> Item:
        config, rng, scans = self.config, np.random.default_rng([self.config.seed, item]), []
        for _ in range(config.batch):
            scan, features = _taught(self.scans[int(rng.integers(len(self.scans)))])
            voxels, rows = augmented_voxels(scan, config.preprocess, config.intensity.limit, config.augment, rng)
            scans.append((voxels, features[rows]))
        return self._item(scans)

    def loss(self, network: nn.Module, batch: Item) -> Tensor:
        return distillation_loss(network(batch.batch), batch.features)

    @cached_property
    def validation(self) -> list[Item]:
        """One image per batch, not augmented."""
        config, items = self.config, []
        for number in pictures.some_of(range(len(self.held_back)), config.validation_scans):
            scan, features = _taught(self.held_back[number])
            voxels, rows = voxels_of(scan, config.preprocess, config.intensity.limit)
            items.append(self._item([(voxels, features[rows])]))
        return items

    def answer(self, network: nn.Module, batch: Item) -> Answer:
        student = functional.normalize(network(batch.batch).float(), dim=1)
        teacher = functional.normalize(batch.features, dim=1)
        cosine = (student * teacher).sum(dim=1).mean().item()
        return Answer(distillation_loss(student, teacher).item(), cosine, student.cpu().numpy())

    def validate(self, answers: Sequence[Answer]) -> base.Validation:
        """Mean over the images of the mean cosine between student and teacher, and of the loss."""
        cosine = float(np.mean([answer.cosine for answer in answers]))
        distance = float(np.mean([answer.distance for answer in answers]))
        return base.Validation({"cosine": cosine, "distance": distance}, partial(self._draw, answers))

    def _draw(self, answers: Sequence[Answer], path: Path, title: str) -> None:
        views = [
            pictures.FeatureView(number, item.xyz, item.features.cpu().numpy(), answer.features)
            for number, (item, answer) in enumerate(zip(self.validation, answers, strict=True))
        ]
        pictures.draw_features(path, pictures.some_of(views), title)

    def write(self, path: Path, training: dict[str, Any], scores: dict[str, float]) -> Bundle:
        points = base.without_drop_path(self.points)
        return self._bundle(path, weights.serialise(self.network), training, scores, kind="features", features=points)

    def _item(self, scans: Sequence[tuple[Voxels, npt.NDArray[Any]]]) -> Item:
        voxels, features = zip(*scans, strict=True)
        target = torch.from_numpy(np.concatenate(features).astype(np.float32))
        return Item(collate(voxels, self.points.preprocess.grids), target, voxels[0].xyz)


def _taught(arrays: Arrays) -> tuple[Returns, npt.NDArray[Any]]:
    """A scan without labels, and the teacher's features of its points."""
    none = np.zeros(len(arrays["xyz"]), np.uint8)
    return Returns(arrays["xyz"], arrays["intensity"], arrays["ring"], none), arrays["features"]

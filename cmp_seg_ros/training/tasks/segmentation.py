"""Supervised segmentation: learn the class of each voxel from frames with truth."""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from cmp_seg_ros.bundle import Bundle, BundleDescription, IntensityConfig, PointNetwork
from cmp_seg_ros.datasets import scan_cache
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame, Returns
from cmp_seg_ros.errors import describe_invalid
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.training.augment import augmented_voxels, voxels_of
from cmp_seg_ros.training.calibration import calibrate
from cmp_seg_ros.training.config import AugmentConfig, DataConfig, TrainConfig
from cmp_seg_ros.training.labelling import Item, LabellingTask
from cmp_seg_ros.training.losses import segmentation_loss
from cmp_seg_ros.training.start import start_with
from cmp_seg_ros.training.tasks import base
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig


class Config(TrainConfig):
    """Configuration of a segmentation bundle and its training data."""

    start: str | None = None  # bundle whose weights initialise the network, by name or path; may be narrower
    label_space: str = "structural6"
    data: DataConfig = DataConfig()
    network: NetworkConfig
    preprocess: PreprocessConfig
    intensity: IntensityConfig = IntensityConfig()
    augment: AugmentConfig = AugmentConfig()
    batch: int = Field(default=2, gt=0)  # scans
    lovasz: float = Field(default=1.0, ge=0)  # weight of the Lovasz-softmax loss beside cross-entropy

    @model_validator(mode="after")
    def _makes_a_bundle(self) -> "Config":
        space = LabelSpace.load(self.label_space)
        if space.ids.tolist() != list(range(len(space.classes))):  # they index the network's outputs
            raise ValueError(
                f"label_space {space.name} has other ids than 0, 1, 2 ...; number its classes so, in order"
            )
        if self.intensity.mode != "per_sensor":
            raise ValueError(
                f"intensity mode {self.intensity.mode}: training normalises the intensities of each scan, which is "
                "mode per_sensor; leave `mode` out"
            )
        try:
            points = PointNetwork(network=self.network, preprocess=self.preprocess, intensity=self.intensity)
            BundleDescription(name=self.name, segmentation=points, label_space=space, weights_sha256="")
        except ValidationError as error:
            raise ValueError(f"{describe_invalid(error)} (label_space {space.name}); make the two equal") from error
        return self


class Task(LabellingTask[Config]):
    """Trains on frames with truth; by default on simulated scans, cached in `folder`.

    Args:
        config, folder: as for every task.
        frames, validation_frames: training and validation data.
    """

    def __init__(
        self, config: Config, folder: Path, frames: DataSet | None = None, validation_frames: DataSet | None = None
    ) -> None:
        points = PointNetwork(network=config.network, preprocess=config.preprocess, intensity=config.intensity)
        super().__init__(config, folder, points, LabelSpace.load(config.label_space))
        self.frames = config.data.training(folder) if frames is None else frames
        self.validation_frames = config.data.validation(folder) if validation_frames is None else validation_frames
        self.calibration_frames: DataSet | None = None  # for `calibrate`, of simulated frames alone
        if frames is None and config.data.calibration_buildings:
            self.calibration_frames = config.data.calibration(folder)
        self._parts = list(self.frames.parts())
        sources = (self.frames, self.validation_frames, self.calibration_frames)
        spaces = [data.label_spaces[TRUTH] for data in sources if data is not None]
        self._tables = {space.name: self.space.id_map(space) for space in spaces}  # (256,) ids each

    def start(self) -> None:
        if self.config.start:
            start_with(self.network, Bundle.find(self.config.start), self.space)

    def prepare(self) -> Iterator[base.Preparation]:
        sources = {"validation": self.validation_frames, "calibration": self.calibration_frames}
        for name, frames in (sources | {"training": self.frames}).items():
            if isinstance(frames, scan_cache.DataSet):
                yield base.Preparation(f"simulating {name} buildings", len(frames.seeds), frames.fill())

    def batch(self, item: int) -> Item:
        config, scans = self.config, []
        rng = np.random.default_rng([config.seed, item])
        for _ in range(config.batch):
            part = self._parts[int(rng.integers(len(self._parts)))]
            scan = self._labelled(part[int(rng.integers(len(part)))])
            voxels, rows = augmented_voxels(scan, config.preprocess, config.intensity.limit, config.augment, rng)
            scans.append((voxels, scan.label[rows]))
        return self.item(scans)

    def loss(self, network: nn.Module, batch: Item) -> Tensor:
        return segmentation_loss(network(batch.batch), batch.target, lovasz=self.config.lovasz)

    @cached_property
    def validation(self) -> list[Item]:
        """One scan per batch, not augmented."""
        items = []
        for scan in map(self._labelled, self.validation_frames):
            voxels, rows = voxels_of(scan, self.config.preprocess, self.config.intensity.limit)
            items.append(self.item([(voxels, scan.label[rows])]))
        return items

    def write(self, path: Path, training: dict[str, Any], scores: dict[str, float], **about: Any) -> Bundle:
        bundle = super().write(path, training, scores, **about)
        if self.calibration_frames is None:
            return bundle
        return calibrate(bundle, (self._labelled(frame) for frame in self.calibration_frames), path)

    def _labelled(self, frame: Frame) -> Returns:
        """The returns of a frame, with truth in the label space of the run."""
        scan = frame.returns(TRUTH)
        return scan._replace(label=self._tables[frame.labels[TRUTH].space.name][scan.label])

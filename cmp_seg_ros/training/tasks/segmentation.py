"""Supervised segmentation: learn the class of each voxel from frames with truth."""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from cmp_seg_ros.bundle import Bundle, BundleDescription, IntensityConfig, PointNetwork
from cmp_seg_ros.datasets import scan_cache
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame, Returns
from cmp_seg_ros.errors import describe_invalid
from cmp_seg_ros.evaluation.metrics import Confusion
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.training import pictures
from cmp_seg_ros.training.augment import augment, standardised, voxels_and_targets
from cmp_seg_ros.training.calibration import calibrate
from cmp_seg_ros.training.config import AugmentConfig, DataConfig, TrainConfig
from cmp_seg_ros.training.losses import segmentation_loss
from cmp_seg_ros.training.start import start_with
from cmp_seg_ros.training.tasks import base
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.batch import Batch, collate
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.network import Segmenter
from cmp_seg_ros.waffleiron.preprocess import Voxels


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


class Item(NamedTuple):
    """Scans with M voxels in all."""

    batch: Batch
    target: Tensor  # (M,) int64, UNLABELLED without truth
    xyz: Float32  # positions of the voxels of the first scan, upright


class Task(base.Task[Config, Item, UInt8]):
    """Trains on frames with truth; by default on simulated scans, cached in `folder`.

    Args:
        config, folder: as for every task.
        frames, validation_frames: training and validation data.
        calibration_frames: data for `calibrate`; by default simulated as well, unless `frames` is given.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        frames: DataSet | None = None,
        validation_frames: DataSet | None = None,
        calibration_frames: DataSet | None = None,
    ) -> None:
        super().__init__(config, folder)
        self.network: Segmenter = Segmenter(config.network)
        self.space = LabelSpace.load(config.label_space)
        self.frames = config.data.training(folder) if frames is None else frames
        self.validation_frames = config.data.validation(folder) if validation_frames is None else validation_frames
        self.calibration_frames = calibration_frames
        if frames is None and calibration_frames is None and config.data.calibration_buildings:
            self.calibration_frames = config.data.calibration(folder)
        self._parts = list(self.frames.parts())
        sources = (self.frames, self.validation_frames, self.calibration_frames)
        spaces = [data.label_spaces[TRUTH] for data in sources if data is not None]
        self._tables = {space.name: self.space.id_map(space) for space in spaces}  # (256,) ids each

    def fixed(self) -> list[str]:
        return self.space.names  # the label space may be a file, which may change

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
            scan = augment(scan, config.augment, rng, config.intensity.limit)
            scans.append(voxels_and_targets(scan, config.preprocess, config.augment, rng))
        return self._item(scans)

    def loss(self, network: nn.Module, batch: Item) -> Tensor:
        return segmentation_loss(network(batch.batch), batch.target, lovasz=self.config.lovasz)

    @cached_property
    def validation(self) -> list[Item]:
        """One scan per batch, not augmented."""
        config, rng = self.config, np.random.default_rng(0)  # not used without augmentation
        scans = (standardised(self._labelled(frame), config.intensity.limit) for frame in self.validation_frames)
        return [self._item([voxels_and_targets(scan, config.preprocess, None, rng)]) for scan in scans]

    def answer(self, network: nn.Module, batch: Item) -> UInt8:
        """(M,) predicted ids."""
        return self.space.ids[network(batch.batch).argmax(dim=1).cpu().numpy()]

    def validate(self, answers: Sequence[UInt8]) -> base.Validation:
        """IoU of voxels by class and mIoU; in `structural6` the main score is the primary mIoU in `structural4`."""
        confusion = Confusion(self.space)
        for item, answer in zip(self.validation, answers, strict=True):
            confusion.add(item.target.numpy().astype(np.uint8), answer)
        scores = {"miou": confusion.miou(), **{f"iou_{name}": value for name, value in confusion.iou().items()}}
        if self.space.name == "structural6":
            scores = {"primary_miou": confusion.structural4("primary").miou(), **scores}
        return base.Validation(scores, partial(self._draw, answers))

    def _draw(self, answers: Sequence[UInt8], path: Path, title: str) -> None:
        scans = [
            pictures.ValidationScan(number, item.xyz, item.target.numpy().astype(np.uint8), answer)
            for number, (item, answer) in enumerate(zip(self.validation, answers, strict=True))
        ]
        title += f"; errors below count all {len(self.space.classes)} classes of {self.space.name}"
        pictures.draw(path, pictures.some_of(scans), self.space, title)

    def write(self, path: Path, training: dict[str, Any], scores: dict[str, float]) -> Bundle:
        config = self.config
        own = {"network", "preprocess", "intensity", "label_space", "name"}  # fields of the bundle itself
        bundle = Bundle.write(
            path,
            weights.serialise(self.network),
            name=config.name,
            network=config.network.model_copy(update={"drop_path": 0.0}),
            preprocess=config.preprocess,
            intensity=config.intensity,
            label_space=self.space,
            training={**training, "configuration": config.model_dump(mode="json", exclude=own)},
            measured={"validation": {name: round(value, 4) for name, value in scores.items()}},
        )
        if self.calibration_frames is None:
            return bundle
        return calibrate(bundle, (self._labelled(frame) for frame in self.calibration_frames), path)

    def _labelled(self, frame: Frame) -> Returns:
        """The returns of a frame, with truth in the label space of the run."""
        scan = frame.returns(TRUTH)
        return scan._replace(label=self._tables[frame.labels[TRUTH].space.name][scan.label])

    def _item(self, scans: Sequence[tuple[Voxels, UInt8]]) -> Item:
        voxels, targets = zip(*scans, strict=True)
        target = torch.from_numpy(np.concatenate(targets).astype(np.int64))
        return Item(collate(voxels, self.config.preprocess.grids), target, voxels[0].xyz)

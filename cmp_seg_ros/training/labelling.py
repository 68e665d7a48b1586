"""What the tasks that teach a network classes share: items, answers, scores, pictures and the bundle."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cmp_seg_ros.bundle import Bundle, PointNetwork
from cmp_seg_ros.evaluation.metrics import Confusion
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.training import pictures
from cmp_seg_ros.training.config import TrainConfig
from cmp_seg_ros.training.tasks import base
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.batch import Batch, collate
from cmp_seg_ros.waffleiron.network import Segmenter
from cmp_seg_ros.waffleiron.preprocess import Voxels

Config = TypeVar("Config", bound=TrainConfig)


class Item(NamedTuple):
    """Scans with M voxels in all."""

    batch: Batch
    target: Tensor  # (M,) int64, UNLABELLED without a label
    xyz: Float32  # positions of the voxels of the first scan, upright
    weight: Tensor | None = None  # (M,) float32, how much each voxel counts


class LabellingTask(base.Task[Config, Item, UInt8]):
    """A task whose network gives a class to each voxel.

    Args:
        config, folder: as for every task.
        points: of the bundle that is made.
        space: of its labels.
    """

    network: Segmenter

    def __init__(self, config: Config, folder: Path, points: PointNetwork, space: LabelSpace) -> None:
        super().__init__(config, folder)
        self.points, self.space = points, space
        self.network = Segmenter(points.network)

    def fixed(self) -> Any:
        return self.space.names  # the label space may be a file, which may change

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

    def write(self, path: Path, training: dict[str, Any], scores: dict[str, float], **about: Any) -> Bundle:
        points = base.without_drop_path(self.points)
        content = weights.serialise(self.network)
        return self._bundle(path, content, training, scores, segmentation=points, label_space=self.space, **about)

    def item(self, scans: Sequence[tuple[Voxels, UInt8]], weight: Sequence[Float32] = ()) -> Item:
        """Scans as voxels with (M,) targets, and their (M,) weights, if any."""
        voxels, targets = zip(*scans, strict=True)
        target = torch.from_numpy(np.concatenate(targets).astype(np.int64))
        weights_ = torch.from_numpy(np.concatenate(weight)) if weight else None
        return Item(collate(voxels, self.points.preprocess.grids), target, voxels[0].xyz, weights_)

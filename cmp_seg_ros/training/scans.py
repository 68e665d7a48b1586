"""Scans of any data set for training, each read once and kept in a file: upright, with labels and their weights.

A run needs them in any order, many times; bags and images give them once, in time's order.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from pydantic import Field

from cmp_seg_ros import outputs
from cmp_seg_ros.configuration import Strict
from cmp_seg_ros.datasets import open_input, unified
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import PSEUDO, Frame, PointLabels, Returns
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Arrays, Float32, UInt8
from cmp_seg_ros.training.config import TrainConfig

Settings = TypeVar("Settings", bound="SetsConfig")

INDEX = "index.json"  # written last: the folder is complete


class SetConfig(Strict):
    """Frames of a data set that a run uses.

    Args:
        path: of any input.
        labels: the label source: pseudo, truth, hand, ...
        splits: the frames of these; frames without a split belong to train. None: all frames.
        calibration: file; None: a calibration.yaml in or beside the input.
        topic: of a bag with several clouds.
    """

    path: str
    labels: str = PSEUDO
    splits: tuple[str, ...] | None = ("train",)
    calibration: str | None = None
    topic: str = ""
    first: int = Field(default=0, ge=0)  # frame
    last: int | None = Field(default=None, ge=0)  # frame, inclusive

    def open(self) -> DataSet:
        """Raises UserError."""
        path = Path(self.path)
        # A converted set keeps its own.
        file = None if self.calibration is None or unified.DataSet.recognises(path) else Path(self.calibration)
        return open_input(path, self.topic, SensorSet.around(path, file))

    def frames(self) -> Iterator[Frame]:
        """Raises UserError."""
        for frame in self.open():
            inside = self.first <= frame.number and (self.last is None or frame.number <= self.last)
            if inside and (self.splits is None or (frame.split or "train") in self.splits):
                yield frame


class SetsConfig(TrainConfig):
    """Settings of a run on data sets."""

    sets: tuple[SetConfig, ...] = ()
    validation: tuple[SetConfig, ...] = ()  # none: the frames of split val of `sets`
    validation_scans: int = Field(default=50, gt=0)  # at most, evenly chosen
    batch: int = Field(default=8, gt=0)  # scans
    epochs: float | None = Field(default=25, gt=0)  # passes over the training scans, if `steps` does not end it before

    @property
    def held_back(self) -> tuple[SetConfig, ...]:
        """The sets of the validation."""
        return self.validation or tuple(each.model_copy(update={"splits": ("val",)}) for each in self.sets)

    def limited(self: Settings, scans: int, processes: int, share: float = 1.0) -> Settings:
        """The settings with `steps` of the epochs; `scans` are that share of all that are drawn."""
        if self.epochs is None:
            return self
        steps = max(1, round(self.epochs * scans / share / (self.batch * self.accumulate * processes)))
        return self.model_copy(update={"steps": min(self.steps, steps)})


class KeptScans:
    """Arrays by name of each frame of some data sets, in one .npz each.

    Args:
        folder: several may share it; files of another `key` lie beside them.
        sets: where the frames come from.
        make: the arrays of a frame, any number of times; none where it gives nothing to learn.
        key: what the arrays depend on besides, as JSON values.
        what: the arrays hold, for messages.
    """

    def __init__(
        self,
        folder: Path,
        sets: Sequence[SetConfig],
        make: Callable[[Frame, SetConfig], Iterator[Arrays]],
        key: Any,
        what: str,
    ) -> None:
        self.sets, self.make, self.what = list(sets), make, what
        content = json.dumps([key, [each.model_dump() for each in self.sets]], sort_keys=True)
        self.folder = folder / f"{what.replace(' ', '-')}-{hashlib.sha256(content.encode()).hexdigest()[:10]}"

    def fill(self) -> Iterator[int]:
        """Read all frames and keep them, unless that is done; yields after each. Raises UserError without any."""
        if (self.folder / INDEX).is_file():
            return
        count = 0
        with outputs.writing(self.folder, "free some space, or give another --cache"):
            for source in self.sets:
                for frame in source.frames():
                    for arrays in self.make(frame, source):
                        content = BytesIO()
                        found: dict[str, Any] = dict(arrays)  # Any, since `savez` also has options by keyword
                        np.savez(content, **found)
                        outputs.write_whole(self.file(count), content.getbuffer())
                        count += 1
                    yield count
            if not count:
                wanted = ((each, "all" if each.splits is None else ", ".join(each.splits)) for each in self.sets)
                where = ", ".join(f"{each.path} (split {splits})" for each, splits in wanted) or "no data set"
                raise UserError(
                    f"no frame of {where} has {self.what}; splits are made by `cmp-seg convert DATA --out SET`, and "
                    "--labels names another label source"
                )
            outputs.write_whole(self.folder / INDEX, json.dumps({"count": count}).encode())

    def file(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"

    @cached_property
    def _count(self) -> int:
        return int(json.loads((self.folder / INDEX).read_text())["count"])

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> dict[str, npt.NDArray[Any]]:
        path = self.file(number)
        try:
            with np.load(path) as file:
                return {name: file[name] for name in file.files}
        except (OSError, EOFError, ValueError, LookupError, BadZipFile) as error:
            raise UserError(f"{path} cannot be read: {error}; remove its folder and run the command again") from error


class Labels:
    """The labels of a frame in the classes of a run, with weights; where the source says nothing, those of a model.

    Args:
        space: of the run.
        trusted: whether a label weighs as much as its confidence; else 1.
        own: gives labels of a frame in the classes of the run, for the other points; None: they have none.
        own_weight: of these, times their confidence.
    """

    def __init__(
        self,
        space: LabelSpace,
        trusted: bool = True,
        own: Callable[[Frame], PointLabels] | None = None,
        own_weight: float = 0.0,
    ) -> None:
        self.space, self.trusted, self.own, self.own_weight = space, trusted, own, own_weight

    def __call__(self, frame: Frame, source: SetConfig) -> Iterator[Arrays]:
        """The arrays of `Returns`, and (N,) float32 `weight`; none without labels. Raises UserError."""
        if source.labels not in frame.labels:
            return
        found = frame.labels[source.labels]
        label = self.space.id_map(found.space)[found.label]
        known = label != UNLABELLED
        weight = known.astype(np.float32)
        if self.trusted and found.confidence is not None:
            weight = np.where(known, found.confidence, 0).astype(np.float32)
        if not known.any():
            return
        if self.own is not None:
            said = self.own(frame)
            label = np.where(known, label, said.label)
            sure = np.ones(len(label), np.float32) if said.confidence is None else said.confidence
            weight = np.where(known, weight, self.own_weight * sure * (said.label != UNLABELLED)).astype(np.float32)
        returns = frame.returns(source.labels)
        kept = frame.scan.valid()
        yield {**returns._replace(label=label[kept])._asdict(), "weight": weight[kept]}


def labelled(arrays: Arrays) -> tuple[Returns, Float32]:
    """What `Labels` gave: a scan and the weights of its labels."""
    label: UInt8 = arrays["label"]
    return Returns(arrays["xyz"], arrays["intensity"], arrays["ring"], label), arrays["weight"]

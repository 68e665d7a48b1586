"""Your own bags with hand labels, such as the paper's ITC (Hesai XT-32, private): described by itc.yaml.

FOLDER/itc.yaml             topics, calibration and labels: see `Description`
FOLDER/*.bag, ...           the recordings
FOLDER/labels/STAMP.npy     (N,) uint8, by the scan's stamp in nanoseconds: ids of `space`; 255: none
"""

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from cmp_seg_ros import configuration
from cmp_seg_ros.datasets import bag
from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.base import natural, read_npy
from cmp_seg_ros.datasets.frame import HAND, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UInt8

FILE = "itc.yaml"


class Description(BaseModel):
    """What itc.yaml says. Cameras and their topics stand in the calibration file."""

    model_config = ConfigDict(extra="forbid")

    points: str = Field(default="/hesai/pandar", min_length=1)  # topic of the clouds
    calibration: str = "calibration.yaml"  # in the folder
    lidar: str = ""  # its name there, if it has several
    labels: str = "labels"  # folder of the hand labels
    space: str = "structural4"  # of their ids: a name, or a file in the folder


class DataSet(BaseDataSet):
    """The scans of all bags of the folder, one after the other; keys are BAG/NUMBER. Hand labels are `hand`."""

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        self.about = configuration.read(Description, "description", path / FILE)
        if sensors is None or sensors.file is None:
            sensors = SensorSet(path / self.about.calibration, self.about.lidar)
        super().__init__(path, topic, sensors)
        own = path / self.about.space
        self.label_spaces = {HAND: LabelSpace.load(own if own.is_file() else self.about.space)}
        files = sorted((file for file in path.iterdir() if bag.DataSet.recognises(file)), key=natural)
        if not files:
            raise UserError(f"{path} has {FILE}, but no bags; copy them beside it")
        self.bags = [bag.DataSet(file, self.about.points, sensors) for file in files]
        for one in self.bags:
            for note in one.notes:
                self.notes.add(note)
            one.problems = one.bag.problems = self.problems
            one.notes = one.bag.notes = self.notes
        *self._firsts, self.count = accumulate((len(one) for one in self.bags), initial=0)
        self.seeks = all(one.seeks for one in self.bags)

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / FILE).is_file()

    def stretch(self, start: int, stop: int | None = None) -> Iterator[Frame]:
        for one, first in zip(self.bags, self._firsts, strict=True):
            last = len(one) if stop is None else min(stop - first, len(one))
            if max(start - first, 0) < last:
                for frame in one.stretch(max(start - first, 0), last):
                    yield self._labelled(frame, one.path.stem, first)

    def frame_at(self, number: int) -> Frame:
        place = bisect_right(self._firsts, number) - 1
        one, first = self.bags[place], self._firsts[place]
        return self._labelled(one[number - first], one.path.stem, first)

    def _labelled(self, frame: Frame, name: str, first: int) -> Frame:
        """A frame of a bag as one of the set, with its hand labels; faulty labels are noted."""
        file = self.path / self.about.labels / f"{frame.scan.stamp}.npy"
        labels = {}
        try:
            if file.is_file():
                labels = {HAND: PointLabels(self.label_spaces[HAND], self._read(file, len(frame.scan)))}
        except UserError as error:
            self.problems.add(str(error))
        return replace(frame, number=frame.number + first, key=f"{name}/{frame.key}", labels=labels)

    @staticmethod
    def _read(file: Path, points: int) -> UInt8:
        """(N,) labels. Raises UserError."""
        label = read_npy(file)
        if label.shape != (points,) or label.dtype != np.uint8:
            raise UserError(f"{file} holds {label.dtype} {label.shape}, its scan {points} points; save uint8")
        return label

"""What simulated data sets share: so many scans for each seed, made when they are asked for."""

from collections.abc import Iterable, Iterator
from copy import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame
from cmp_seg_ros.label_space import LabelSpace

Part = TypeVar("Part", bound="Seeded")


class Seeded(BaseDataSet):
    """Frames in the order of seeds. Truth is in `indoor`.

    Args:
        path: of what is simulated, for messages.
        seeds: of the buildings, rooms or drives.
        scans: of each seed.
    """

    def __init__(self, path: Path, seeds: Iterable[int], scans: int) -> None:
        super().__init__(path)
        self.seeds, self.scans = list(seeds), scans
        self.count = len(self.seeds) * scans
        self.label_spaces = {TRUTH: LabelSpace.load("indoor")}

    def frames_of(self, seed: int) -> Iterator[Frame]:
        """The frames of a seed, in order; their numbers are set later. A data set overrides this or `frame_of`."""
        return (self.frame_of(seed, index) for index in range(self.scans))

    def frame_of(self, seed: int, index: int) -> Frame:
        """One of the frames of a seed."""
        return next(islice(self.frames_of(seed), index, None))

    def __iter__(self) -> Iterator[Frame]:
        frames = (frame for seed in self.seeds for frame in self.frames_of(seed))
        for number, frame in enumerate(frames):
            yield replace(frame, number=number)

    def __getitem__(self, number: int) -> Frame:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} scans of {self.path}, none of number {number}")
        place, index = divmod(number, self.scans)
        return replace(self.frame_of(self.seeds[place], index), number=number)

    def parts(self: Part) -> Iterator[Part]:
        """A seed each."""
        for seed in self.seeds:
            part = copy(self)
            part.seeds, part.count = [seed], self.scans
            yield part

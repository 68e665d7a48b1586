"""Holds back a stretch of each sequence of a unified set, which the adaptation never learns from."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.datasets.unified import DataSet as UnifiedSet
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.training.scans import SetConfig

GAP = 10 * 1_000_000_000  # ns between what is learnt and what is held back
FEWEST = 2  # scans held back, of all sequences
LEAST = 4  # scans learnt from
GROUPS = 4  # with fewer groups, each scan is one of its own in intervals


Range = tuple[int, int]  # first and last number of the scans of a stretch


class Stretches(NamedTuple):
    """Stretches to learn from, and those that are held back."""

    learnt: list[Range]
    held_back: list[Range]


def sets_of(folder: Path, source: str, ranges: Sequence[Range]) -> tuple[SetConfig, ...]:
    """Stretches of a set for a training, with the labels of this source."""
    return tuple(SetConfig(path=str(folder), labels=source, splits=None, first=a, last=b) for a, b in ranges)


def hold_back(data: UnifiedSet, share: float) -> Stretches:
    """Hold back the last `share` of each sequence; where stamps are known, ten seconds before it are left out.

    Raises:
        UserError: the recordings are too short.
    """
    learnt, held = [], []
    numbered = [(number, entry.sequence, entry.stamp) for number, entry in enumerate(data.entries)]
    for _, group in groupby(numbered, key=lambda scan: scan[1]):
        scans = list(group)
        count = math.ceil(share * len(scans) - 1e-9)
        if not count or count == len(scans):
            continue
        first = scans[-count]
        before = [number for number, _, stamp in scans[:-count] if not stamp or first[2] - stamp >= GAP]
        if before:
            learnt.append((before[0], before[-1]))
            held.append((first[0], scans[-1][0]))
    counts = [sum(last - first + 1 for first, last in ranges) for ranges in (learnt, held)]
    if counts[0] < LEAST or counts[1] < FEWEST:
        raise UserError(
            f"{_too_short(data, share)}: of {len(numbered)} scans, {counts[0]} are left to learn from ({LEAST} needed) "
            f"and {counts[1]} for the test ({FEWEST} needed); give longer recordings, best of several minutes, or more"
        )
    return Stretches(learnt, held)


def _too_short(data: UnifiedSet, share: float) -> str:
    """What there is and, where stamps are known, what is needed at least."""
    stamps = [[entry.stamp for entry in group] for _, group in groupby(data.entries, key=lambda entry: entry.sequence)]
    longest = max(stamps, key=lambda sequence: sequence[-1] - sequence[0])
    seconds, gap = (longest[-1] - longest[0]) * 1e-9, GAP * 1e-9
    if not seconds:
        return f"too few scans to hold back {share:.0%} of them"
    period = seconds / (len(longest) - 1)
    least = math.ceil(max((gap + LEAST * period) / (1 - share), FEWEST * period / share)) + 1
    return (
        f"too short to hold back {share:.0%} and leave out the {gap:.0f} s before: the longest recording lasts "
        f"{seconds:.0f} s, at least {least} s are needed"
    )


class HeldBack(DataSet):
    """The frames of some stretches of a set; where it has hardly any groups, each is a group of its own."""

    def __init__(self, data: UnifiedSet, ranges: Sequence[Range]) -> None:
        super().__init__(data.path, sensors=data.sensors)
        self.data = data
        self._numbers = [number for first, last in ranges for number in range(first, last + 1)]
        self.count, self.label_spaces = len(self._numbers), data.label_spaces
        self._alone = len({data[number].group for number in self._numbers}) < GROUPS

    def __iter__(self) -> Iterator[Frame]:
        return (self[number] for number in range(len(self._numbers)))

    def __getitem__(self, number: int) -> Frame:
        frame = replace(self.data[self._numbers[number]], number=number)
        return replace(frame, group=frame.key) if self._alone else frame

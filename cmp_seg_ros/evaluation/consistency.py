"""Temporal consistency: does the same place keep its label from one scan to the next?

Like the temporal consistency of video (Varghese et al. 2020, Unsupervised Temporal Consistency Metric for Video
Segmentation in Highly-Automated Driving, CVPR Workshops): the labels of the previous scan are warped to the current one
and compared with its labels. Known poses replace optical flow: both scans are transformed to the world frame, and
labels are compared in each voxel that has labelled points of both, called a place. No truth is needed.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from cmp_seg_ros.evaluation.metrics import iou_of, mean_of, number, ratio
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Bool, Scan, UInt8

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

VOXEL = 0.1  # metres
MOVING = ("person",)  # classes whose places may rightly have another label a moment later
BITS = 18  # of a voxel's index along an axis: with voxels of 0.1 m, 13 km to either side of the start of a sequence


class Moving(BaseModel):
    """Places left out because a person is there in either scan."""

    places: int
    agreement: float | None


class TemporalConsistency(BaseModel):
    """Agreement of labels of the same place between consecutive scans.

    `places` is the number of voxels labelled in both scans of a pair, without people. `groups` has, by group, the
    places by previous (row) and current class (column), in the order of `classes`, as written by `bootstrap.pack`.
    """

    voxel_size: float
    pairs: int  # of scans with common places
    places: int
    agreement: float | None  # share of the places with the same label in both scans
    miou: float | None  # mean of `iou`
    iou: dict[str, float | None]  # places with a class in both scans / in at least one
    truth: float | None  # `agreement` of the truth at the same places: voxels at edges contain two classes
    moving: Moving | None  # None if neither truth nor labels have people
    classes: list[str]
    groups: dict[str, str] = {}


class Places(NamedTuple):
    """M voxels of a scan: sorted indices in the world frame, with the majority class index of their points."""

    number: Int64
    label: UInt8
    truth: UInt8 | None


class Consistency:
    """Compares each scan with the previous one. Only that one is kept in memory.

    Args:
        space: of the labels.
        truth_space: of the truth, if there is one; people are then taken from the truth.
    """

    def __init__(self, space: LabelSpace, truth_space: LabelSpace | None = None) -> None:
        self.space = space
        self.truth_space = truth_space
        self.matrix = np.zeros((len(space.classes),) * 2, np.int64)  # (C, C) places by previous and current class
        self.moving = np.zeros_like(self.matrix)
        self.truth = np.zeros(2, np.int64)  # places with a truth in both scans, and those where it is the same
        self.pairs = 0
        self._sequence = ""
        self._origin = np.zeros(3)
        self._before: Places | None = None

    def add(
        self, sequence: str, scan: Scan, label: UInt8, T_world_lidar: Transform | None, truth: UInt8 | None = None
    ) -> Int64:
        """Compare a scan with the previous one, if that is of the same sequence; scans must be in temporal order.

        Args:
            sequence: scans of different sequences are not compared.
            label: (N,) ids of `space`.
            T_world_lidar: (4, 4); without it, the scan is not compared.
            truth: (N,) ids of `truth_space`.

        Returns:
            (C, C) counts added to `matrix`.
        """
        if T_world_lidar is None:
            self._before = None
            return np.zeros_like(self.matrix)
        T = np.asarray(T_world_lidar, np.float64)
        if T.shape != (4, 4) or not np.isfinite(T).all():
            raise ValueError(f"T_world_lidar must be (4, 4) numbers, not {T.tolist()}")
        if sequence != self._sequence or self._before is None:
            self._sequence, self._origin, self._before = sequence, T[:3, 3], None
        before, self._before = self._before, self._places(scan, label, T, truth)
        if before is None:
            return np.zeros_like(self.matrix)
        return self._compare(before, self._before)

    def _places(self, scan: Scan, label: UInt8, T: Float64, truth: UInt8 | None) -> Places:
        index = self.space.index_of_id[label]
        kept = np.flatnonzero(scan.valid() & (index != UNLABELLED))
        xyz = scan.xyz[kept].T.astype(np.float64)  # (3, M): numpy is slow along rows of three
        steps = (T[:3, :3] @ xyz + (T[:3, 3] - self._origin)[:, None]) / VOXEL
        steps = np.floor(steps, out=steps) + 2 ** (BITS - 1)
        near = ((steps >= 0) & (steps < 2**BITS)).all(axis=0)
        if not near.all():
            kept, steps = kept[near], steps[:, near]
        x, y, z = steps.astype(np.int64)
        voxel = (x << 2 * BITS) | (y << BITS) | z
        number, most = _majority(voxel, index[kept])
        if truth is None or self.truth_space is None:
            return Places(number, most, None)
        return Places(number, most, _majority(voxel, self.truth_space.index_of_id[truth[kept]])[1])

    def _compare(self, before: Places, now: Places) -> Int64:
        i = np.searchsorted(before.number, now.number)
        i[i == len(before.number)] = 0
        j = np.flatnonzero(before.number[i] == now.number) if len(before.number) else i[:0]
        i = i[j]
        self.pairs += int(len(i) > 0)
        labels = np.stack([before.label[i], now.label[j]])  # (2, M)
        people = _moving(self.space)[labels].any(axis=0)
        if self.truth_space is not None and before.truth is not None and now.truth is not None:
            truths = np.stack([before.truth[i], now.truth[j]])
            people = _moving(self.truth_space)[truths].any(axis=0)
            known = (truths != UNLABELLED).all(axis=0) & ~people
            self.truth += known.sum(), (known & (truths[0] == truths[1])).sum()
        self.moving += self._counted(labels[:, people])
        added = self._counted(labels[:, ~people])
        self.matrix += added
        return added

    def _counted(self, labels: UInt8) -> Int64:
        """(2, M) previous and current class indices -> (C, C) places."""
        count = len(self.space.classes)
        pairs = labels[0].astype(np.int64) * count + labels[1]
        return np.bincount(pairs, minlength=count * count).reshape(count, count)

    def result(self) -> TemporalConsistency | None:
        """The result so far; None if no two scans had a place in common."""
        if not self.pairs:
            return None
        iou = temporal_iou_of(self.matrix)
        people = any(_moving(space).any() for space in (self.space, self.truth_space) if space is not None)
        stay = stays(self.space.names)
        return TemporalConsistency(
            voxel_size=VOXEL,
            pairs=self.pairs,
            places=int(self.matrix.sum()),
            agreement=number(float(agreement_of(self.matrix))),
            miou=number(float(mean_of(iou[stay]))),
            iou={self.space.names[i]: number(iou[i]) for i in stay},
            truth=number(float(ratio(self.truth[1], self.truth[0]))),
            moving=Moving(places=int(self.moving.sum()), agreement=number(float(agreement_of(self.moving))))
            if people
            else None,
            classes=self.space.names,
        )


def agreement_of(matrix: npt.NDArray[np.float64] | Int64) -> Float64:
    """(..., C, C) places -> (...) share with the same class in both scans; NaN without places."""
    return ratio(np.trace(matrix, axis1=-2, axis2=-1), matrix.sum(axis=(-2, -1)))


def temporal_iou_of(matrix: npt.NDArray[np.float64] | Int64) -> Float64:
    """(..., C, C) places -> (..., C) IoU over time: places with a class in both scans / in at least one."""
    return iou_of(np.concatenate([matrix, np.zeros_like(matrix[..., :1])], axis=-1))


def stays(classes: list[str]) -> list[int]:
    """Indices of the classes that have an IoU over time: all but people, whose places are left out."""
    return [index for index, name in enumerate(classes) if name not in MOVING]


def _moving(space: LabelSpace) -> Bool:
    """(256,) whether a class index is of a class that moves."""
    moving = np.zeros(256, bool)
    moving[: len(space.names)] = [name in MOVING for name in space.names]
    return moving


def _majority(voxel: Int64, index: UInt8) -> tuple[Int64, UInt8]:
    """(M,) distinct indices of (N,) voxels, sorted, and the majority class index in each; the smaller one in a tie."""
    pairs, count = np.unique(voxel << 8 | index, return_counts=True)
    if not len(pairs):
        return pairs, pairs.astype(np.uint8)
    number = pairs >> 8
    first = np.flatnonzero(np.diff(number, prepend=-1))  # of each voxel
    most = np.maximum.reduceat(count << 8 | (255 - (pairs & 255)), first)
    return number[first], (255 - (most & 255)).astype(np.uint8)

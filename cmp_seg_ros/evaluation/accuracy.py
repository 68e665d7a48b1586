"""Accuracy of labels against the truth: all scores of a report's section `accuracy`.

scorer = Scorer(truth_space, label_space)
scorer.add("building 7", "000012", scan, truth, labels, ring, T_world_lidar)    # once a scan
scorer.result().readings["structural4_primary"].miou
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.bootstrap import Bootstrap, Interval, pack
from cmp_seg_ros.evaluation.consistency import Consistency, TemporalConsistency
from cmp_seg_ros.evaluation.metrics import PRIMARY, Confusion, Merge, iou_of, mean_of, merges, number
from cmp_seg_ros.evaluation.reliability import Reliability, ReliabilityCurve
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan, UInt8

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

RANGE_BINS = [0.0, 2.0, 5.0, 10.0, 20.0]  # lower edges in metres; the last bin is open
RINGS = 1024  # larger numbers are not rings


class RangeScore(BaseModel):
    """Points at least `near` and less than `far` metres from the lidar; the last bin is open."""

    near: float
    far: float | None
    miou: float | None  # over the classes in this bin
    points: int

    @property
    def name(self) -> str:
        return f"from {self.near:g} m" if self.far is None else f"{self.near:g}-{self.far:g} m"


class RingScore(BaseModel):
    """Points of one ring: one beam of the lidar, or one row of an organised cloud."""

    ring: int
    miou: float | None
    points: int


class Reading(BaseModel):
    """All scores with truth and labels mapped to one label space. Fractions 0..1; None if there is nothing to score.

    `confusion` has a row for each true class and a column for each predicted one, in the order of `classes`, and a last
    column for points without a label. `groups` has the confusion of each group, as written by `bootstrap.pack`.
    """

    classes: list[str]
    miou: float | None
    interval: Interval | None  # of `miou`, by resampling groups; None for a single group
    mean_accuracy: float | None
    overall_accuracy: float | None
    iou: dict[str, float | None]
    precision: dict[str, float | None]
    recall: dict[str, float | None]
    points: dict[str, int]
    confusion: list[list[int]]
    by_range: list[RangeScore]
    by_ring: list[RingScore] | None
    groups: dict[str, str]


class Accuracy(BaseModel):
    """Labels against the truth.

    `headline` is the main reading: the published primary one, or else the truth's own space. `by_frame` has its mIoU of
    each scan.
    """

    truth_space: str
    predicted_space: str
    scans: int
    headline: str
    readings: dict[str, Reading]
    reliability: ReliabilityCurve | None  # None if no label has a confidence
    consistency: TemporalConsistency | None  # None without poses, or if no two scans see the same place
    by_frame: dict[str, float | None]
    bootstrap: Bootstrap

    @property
    def main(self) -> Reading:
        return self.readings[self.headline]


@dataclass
class Sums:
    """The counts of one group."""

    points: Int64  # (C_truth, C_predicted + 1)
    places: Int64  # (C_predicted, C_predicted) before and now
    reliability: Reliability = field(default_factory=Reliability)


class Scorer:
    """Accumulates the scores of scans.

    Args:
        truth: label space of the truth.
        predicted: label space of the labels.
        bootstrap: settings of the intervals.

    Raises:
        UserError: labels and truth cannot be compared.
    """

    def __init__(self, truth: LabelSpace, predicted: LabelSpace, bootstrap: Bootstrap | None = None) -> None:
        self.truth = truth
        self.predicted = predicted
        self.bootstrap = bootstrap or Bootstrap()
        self.merges = merges(truth, predicted)
        self.headline = PRIMARY if PRIMARY in self.merges else next(iter(self.merges))
        self.confusion = Confusion(truth, predicted)
        self.right_in, self._true, self._said = _one_space(truth, predicted, self.merges)
        self.consistency = Consistency(predicted, truth)
        self.by_range = np.zeros((len(RANGE_BINS), *self.confusion.matrix.shape), np.int64)
        self.by_ring = np.zeros((0, *self.confusion.matrix.shape), np.int64)
        self.groups: dict[str, Sums] = {}
        self.by_frame: dict[str, float | None] = {}

    def add(
        self,
        group: str,
        key: str,
        scan: Scan,
        truth: UInt8,
        labels: Labels,
        ring: npt.NDArray[np.integer[Any]] | None = None,
        T_world_lidar: Transform | None = None,
    ) -> float | None:
        """Add a scan. Points without a return or without a truth are ignored; returns without a label are wrong.

        Args:
            group: unit of resampling: a building, or a stretch of a drive. Labels are compared from scan to scan only
                within a group; its scans must be added consecutively, in temporal order.
            key: unique name of the scan.
            truth: (N,) ids of the truth's label space.
            labels: of the N points.
            ring: (N,) ring of each point; negative: none.
            T_world_lidar: (4, 4).

        Returns:
            mIoU of this scan in the headline reading; None if there is nothing to score.
        """
        if key in self.by_frame:
            raise ValueError(f"two scans have the key {key}")
        valid = scan.valid()
        truth = np.where(valid, truth, UNLABELLED).astype(np.uint8)
        x, y, z = scan.xyz.T  # by columns: numpy is slow along rows of three
        bin_ = np.searchsorted(RANGE_BINS, np.sqrt(x * x + y * y + z * z), side="right")  # 0: nearer than all
        counts = self.confusion.count(truth, labels.label, bin_, len(self.by_range) + 1)
        points = counts.sum(axis=0)
        self.confusion.matrix += points
        self.by_range += counts[1:]
        if ring is not None:
            self._add_rings(truth, labels.label, ring)

        sums = self.groups.get(group)
        if sums is None:
            empty = np.zeros((len(self.predicted.classes),) * 2, np.int64)
            sums = self.groups[group] = Sums(np.zeros_like(points), empty, Reliability())
        sums.points += points
        true, said = self._true[truth], self._said[labels.label]
        scored = (true != UNLABELLED) & (said != UNLABELLED)
        sums.reliability.add(labels.confidence[scored], (true == said)[scored])
        sums.places += self.consistency.add(group, scan, labels.label, T_world_lidar, truth)

        score = number(float(mean_of(iou_of(self.merges[self.headline](points)))))
        self.by_frame[key] = score
        return score

    def _add_rings(self, truth: UInt8, label: UInt8, ring: npt.NDArray[np.integer[Any]]) -> None:
        ring = np.where((ring >= 0) & (ring < RINGS), ring, -1).astype(np.int64)
        count = max(len(self.by_ring), int(ring.max(initial=-1)) + 1)
        self.by_ring = np.pad(self.by_ring, ((0, count - len(self.by_ring)), (0, 0), (0, 0)))
        self.by_ring += self.confusion.count(truth, label, ring, count)

    def result(self) -> Accuracy:
        """The scores of all scans so far."""
        consistency = self.consistency.result()
        if consistency is not None:
            consistency.groups = {name: pack(sums.places) for name, sums in self.groups.items() if sums.places.any()}
        return Accuracy(
            truth_space=self.truth.name,
            predicted_space=self.predicted.name,
            scans=len(self.by_frame),
            headline=self.headline,
            readings={name: self._reading(merge) for name, merge in self.merges.items()},
            reliability=self._reliability(),
            consistency=consistency,
            by_frame=self.by_frame,
            bootstrap=self.bootstrap,
        )

    def _reading(self, merge: Merge) -> Reading:
        total = Confusion(merge.space)
        total.matrix = merge(self.confusion.matrix)
        groups = {name: merge(sums.points) for name, sums in self.groups.items()}
        counts = np.stack(list(groups.values())) if groups else np.zeros((0, *total.matrix.shape), np.int64)
        rings = merge(self.by_ring)
        return Reading(
            classes=merge.space.names,
            interval=self.bootstrap.interval(self.bootstrap.draw(counts, lambda matrix: mean_of(iou_of(matrix)))),
            **total.report(),
            confusion=total.matrix.tolist(),
            by_range=[
                RangeScore(near=near, far=far, miou=miou, points=points)
                for near, far, (miou, points) in zip(
                    RANGE_BINS, [*RANGE_BINS[1:], None], _scores(merge(self.by_range)), strict=True
                )
            ],
            by_ring=[
                RingScore(ring=ring, miou=miou, points=points)
                for ring, (miou, points) in enumerate(_scores(rings))
                if points
            ]
            if len(rings)
            else None,
            groups={name: pack(matrix) for name, matrix in groups.items()},
        )

    def _reliability(self) -> ReliabilityCurve | None:
        total = Reliability()
        for sums in self.groups.values():
            total += sums.reliability
        if not total.counts[1].any():
            return None
        curve = total.curve(self.right_in)
        curve.groups = {name: pack(sums.reliability.counts) for name, sums in self.groups.items()}
        return curve


def _scores(matrices: Int64) -> list[tuple[float | None, int]]:
    """mIoU and points of each of (P, C, C + 1) matrices."""
    miou = mean_of(iou_of(matrices))
    return [(number(value), int(n)) for value, n in zip(miou, matrices.sum(axis=(1, 2)), strict=True)]


def _one_space(truth: LabelSpace, predicted: LabelSpace, found: dict[str, Merge]) -> tuple[str, UInt8, UInt8]:
    """The space in which labels are right or wrong: its name, and (256,) tables from true and predicted ids to its ids.

    This is the labels' own space, to which their confidences refer, if the truth can be mapped to it.
    """
    try:
        return predicted.name, predicted.id_map(truth), predicted.id_map(predicted)
    except UserError:
        space = next(iter(found.values())).space
        return space.name, space.id_map(truth), space.id_map(predicted)

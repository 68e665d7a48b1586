"""Counts of every command that labels: frames by outcome, points, voxels, times, warnings."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmp_seg_ros.datasets.base import Problems
from cmp_seg_ros.datasets.frame import PREDICTIONS, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.metrics import percentiles, stage_percentiles
from cmp_seg_ros.evaluation.report import Hashes, Report
from cmp_seg_ros.geometry.plausibility import lean
from cmp_seg_ros.remarks import Remark, Unfamiliar, implausible, remarks
from cmp_seg_ros.scan import UNLABELLED, Labels

if TYPE_CHECKING:
    from cmp_seg_ros.evaluation.pipeline import Labeller, Result

MANY_STRANGE = 0.1  # share of the scans; half of that is so by chance (training/calibration.py)
LOOKS = 3  # scans at most that are searched for a floor, a ceiling and walls, to see whether the lidar is upright


class Tally:
    """Counts results for the report of a run on the input `path`."""

    def __init__(self, report: Report, labeller: "Labeller", path: Path) -> None:
        self.report, self.labeller, self.path = report, labeller, path
        self.space = labeller.label_space
        self.problems, self.warnings = Problems(), Problems()
        self.points: list[int] = []  # of each labelled scan
        self.voxels: list[int] = []
        self.sizes: list[float] = []
        self.stages_ms: list[dict[str, float]] = []
        self.ids = np.zeros(256, dtype=np.int64)
        self.skipped: Counter[str] = Counter()
        self.scans_hash, self.labels_hash = hashlib.sha256(), hashlib.sha256()
        self.unlikeness: list[float] = []
        self.strange_intensity: list[bool] = []
        self._unfamiliar = Unfamiliar()
        self._looks = LOOKS

    def add(self, result: "Result") -> None:
        """Count a frame, and add warnings about it."""
        frame, labels = result.frame, result.labels
        name = name_of(frame, self.path)
        if labels is None:
            kind = result.kind or result.skipped
            self.skipped[kind] += 1
            (self.problems if result.serious else self.warnings).add(f"{name}: {result.skipped}", kind)
            return
        self._remark(frame, labels, name)
        self._hash(frame, labels)
        self.points.append(len(labels.label))
        self.ids += np.bincount(labels.label, minlength=256)
        if labels.voxels:  # else the network has not run
            self.voxels.append(labels.voxels)
            self.sizes.append(labels.voxel_size)
            self.stages_ms.append(labels.stages_ms)
            self.unlikeness += [] if labels.unlikeness is None else [labels.unlikeness]
            self.strange_intensity += [] if labels.intensity_unlikeness is None else [labels.strange_intensity]
        if (labels.label == UNLABELLED).all():
            self.report.frames.without_labels.append(frame.key)

    def _hash(self, frame: Frame, labels: Labels) -> None:
        scan = frame.scan
        given = [frame.labels[source].label for source in sorted(frame.labels) if source != PREDICTIONS]
        for values in (scan.xyz, *([] if scan.intensity is None else [scan.intensity]), *given):
            self.scans_hash.update(np.ascontiguousarray(values).data)
        self.labels_hash.update(np.ascontiguousarray(labels.label).data)

    def _remark(self, frame: Frame, labels: Labels, name: str) -> None:
        if self.labeller.segmenter is None:
            return
        config = self.labeller.segmenter.preprocess
        found = list(remarks(frame.scan, labels, int(frame.scan.valid().sum()), name, config))
        found += implausible(frame.scan, labels, frame.T_base_lidar is not None, name)
        found += self._unfamiliar(labels, name)
        if frame.T_base_lidar is None and self._looks:
            told = lean(frame.scan.xyz)
            self._looks = 0 if told is not None else self._looks - 1
            found += [Remark(doubt.kind, f"{name}: {doubt.text}") for doubt in told or ()]
        for remark in found:
            (self.problems if remark.serious else self.warnings).add(remark.text, remark.kind)

    def finish(self, problems: Problems, notes: Problems) -> None:
        """Complete the report, with the data set's notes. Raises UserError if no frame could be labelled."""
        report, labelled = self.report, len(self.points)
        for problem in problems:
            self.problems.add(problem)
        for note in notes:
            self.warnings.add(note)
        if not labelled:
            raise UserError("; ".join([*self.problems, *self.warnings]))
        report.frames.read = labelled + self.skipped.total()
        report.frames.labelled, report.frames.skipped = labelled, dict(self.skipped)
        report.frames.hashes = Hashes(scans=self.scans_hash.hexdigest(), labels=self.labels_hash.hexdigest())
        report.points, report.points_per_scan = sum(self.points), float(np.median(self.points))
        report.voxels_per_scan = float(np.median(self.voxels)) if self.voxels else 0.0
        report.voxel_size = float(np.median(self.sizes)) if self.sizes else 0.0
        report.unlikeness = float(np.median(self.unlikeness)) if self.unlikeness else None
        report.strange_intensity = float(np.mean(self.strange_intensity)) if self.strange_intensity else None
        if (strange := sum(self.strange_intensity)) > MANY_STRANGE * len(self.strange_intensity):
            self.warnings.add(
                f"{strange} of {len(self.strange_intensity)} scans have intensities unlike those that the model was "
                "trained on: their labels are predicted from shape alone"
            )
        counts = self.ids[self.space.ids]
        report.share = dict(zip(self.space.names, (counts / max(1, counts.sum())).tolist(), strict=True))
        report.unlabelled = float(self.ids[UNLABELLED] / max(1, report.points))
        # The first scan includes one-time work, so it is left out of the latencies.
        steady = self.stages_ms[1:] or self.stages_ms
        report.latency_ms = percentiles(sum(stages.values()) for stages in steady)
        report.stages_ms = stage_percentiles(steady) if steady else {}
        report.latency_by_frame_ms = [round(sum(stages.values()), 3) for stages in self.stages_ms]
        report.label_space = self.space.name
        if (segmenter := self.labeller.segmenter) is not None:
            report.model, report.bundle = segmenter.bundle.description.name, segmenter.bundle.hash
            report.engine = segmenter.engine
        report.warnings += list(self.warnings)
        report.problems += list(self.problems)


def name_of(frame: Frame, path: Path) -> str:
    """Name of a frame for messages: its input, and its key if the input has several."""
    return str(path) if frame.key == path.stem else f"scan {frame.key} of {path}"

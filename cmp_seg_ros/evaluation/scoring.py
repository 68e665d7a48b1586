"""The consumer of `cmp-seg evaluate`: scores labels against the truth, with pictures of the best and worst scan."""

from pathlib import Path

import numpy as np

from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import TRUTH
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.accuracy import Scorer
from cmp_seg_ros.evaluation.metrics import PRIMARY
from cmp_seg_ros.evaluation.pipeline import Consumer, Result
from cmp_seg_ros.evaluation.report import Extreme, Report
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED

BEST, WORST = "best", "worst"


class Scores(Consumer):
    """Scores labels against the truth stored with the frames.

    Args:
        truth_space, space: label spaces of the truth and of the labels.
        out: folder for worst.png and best.png; None: no pictures.
        source: name of the truth among the labels of a frame.

    Raises:
        UserError: these label spaces cannot be compared.
    """

    def __init__(
        self, truth_space: LabelSpace, space: LabelSpace, out: Path | None = None, source: str = TRUTH
    ) -> None:
        self.truth_space, self.space, self.out, self.source = truth_space, space, out, source
        self.scorer = Scorer(truth_space, space)
        name = self.scorer.headline
        self.measure = "primary mIoU" if name == PRIMARY else f"mIoU in {name}"
        self.scored = 0
        self.extremes: dict[str, tuple[float, Result]] = {}

    def add(self, result: Result, report: Report) -> None:
        frame, labels = result.frame, result.labels
        if labels is None:
            return
        truth = frame.labels[self.source].label
        score = self.scorer.add(frame.group, frame.key, frame.scan, truth, labels, frame.ring, frame.T_world_lidar)
        if score is None:
            return
        self.scored += 1
        for which, better in ((WORST, -1), (BEST, 1)):
            if which not in self.extremes or better * score > better * self.extremes[which][0]:
                self.extremes[which] = score, result

    def finish(self, report: Report) -> None:
        report.accuracy, report.source = self.scorer.result(), self.source
        headline = report.accuracy.readings[report.accuracy.headline]
        report.miou, report.iou = headline.miou, headline.iou
        for which, (score, result) in self.extremes.items():
            setattr(report, which, Extreme(key=result.frame.key, miou=score))
            if self.out is not None:
                self._draw(self.out / f"{which}.png", which, score, result)
                report.files.append(f"{which}.png")

    def _draw(self, path: Path, which: str, score: float, result: Result) -> None:
        frame, labels = result.frame, result.labels
        assert labels is not None
        truth = frame.labels[self.source].label
        if self.space.names != self.truth_space.names:
            truth = self.space.id_map(self.truth_space)[truth]
        plots.comparison(
            path,
            frame.scan,
            labels,
            np.where(frame.scan.valid(), truth, UNLABELLED).astype(np.uint8),
            self.space,
            frame.T_base_lidar,
            title=f"{which.capitalize()} of {self.scored} scans: {frame.key}, {self.measure} {score:.1%}",
        )


def space_of(data: DataSet, source: str = TRUTH) -> LabelSpace:
    """The label space of a label source of a data set. Raises UserError if its frames have no such labels."""
    if source in data.label_spaces:
        return data.label_spaces[source]
    why = "; ".join(data.problems) or f"{data.path} has no {source} to compare labels with"
    raise UserError(f"{why}; evaluate a recording of `cmp-seg simulate`, or check any scans with --planes")

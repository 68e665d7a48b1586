"""What `cmp-seg evaluate` scores labels by: label sources, an image teacher among them, and agreement over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import HAND, PSEUDO, TRUTH, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.accuracy import Scorer
from cmp_seg_ros.evaluation.consistency import Consistency
from cmp_seg_ros.evaluation.metrics import PRIMARY
from cmp_seg_ros.evaluation.pipeline import Consumer, Result
from cmp_seg_ros.evaluation.plane_check import PlaneCheck
from cmp_seg_ros.evaluation.report import Extreme, Report
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller, Refinements
from cmp_seg_ros.scan import UNLABELLED, UInt8
from cmp_seg_ros.teachers.base import Teacher

BEST, WORST = "best", "worst"


class Scores(Consumer):
    """Scores labels against the truth stored with the frames.

    Args:
        truth_space, space: label spaces of the truth and of the labels.
        out: folder for worst.png and best.png; None: no pictures.
        source: name of the truth among the labels of a frame. The headline and the pictures are against it.
        others: further sources and their label spaces, each scored on the frames that have it.

    Raises:
        UserError: these label spaces cannot be compared.
    """

    replaces = (f"{WORST}.png", f"{BEST}.png")

    def __init__(
        self,
        truth_space: LabelSpace,
        space: LabelSpace,
        out: Path | None = None,
        source: str = TRUTH,
        others: Mapping[str, LabelSpace] | None = None,
    ) -> None:
        self.truth_space, self.space, self.out, self.source = truth_space, space, out, source
        spaces = {source: truth_space} | dict(others or {})
        self.scorers = {name: Scorer(truth, space) for name, truth in spaces.items()}
        name = self.scorers[source].headline
        self.measure = "primary mIoU" if name == PRIMARY else f"mIoU in {name}"
        self.scored = 0
        self.extremes: dict[str, tuple[float, Result]] = {}

    def begin(self) -> None:
        if self.out is not None:
            for name in self.replaces:  # of an earlier run
                (self.out / name).unlink(missing_ok=True)

    def add(self, result: Result, report: Report) -> None:
        if result.labels is None:
            return
        scores = {source: self._score(result, source) for source in self.scorers if source in result.frame.labels}
        score = scores.get(self.source)
        if score is None:
            return
        self.scored += 1
        for which, better in ((WORST, -1), (BEST, 1)):
            if which not in self.extremes or better * score > better * self.extremes[which][0]:
                self.extremes[which] = score, result

    def _score(self, result: Result, source: str) -> float | None:
        frame, labels = result.frame, result.labels
        assert labels is not None
        truth = frame.labels[source].label
        scorer = self.scorers[source]
        return scorer.add(frame.group, frame.key, frame.scan, truth, labels, frame.ring, frame.T_world_lidar)

    def finish(self, report: Report) -> None:
        report.source, report.accuracy = self.source, self.scorers[self.source].result()
        report.other_sources = {
            source: scorer.result() for source, scorer in self.scorers.items() if source != self.source
        }
        report.miou, report.iou = report.accuracy.main.miou, report.accuracy.main.iou
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


class OverTime(Consumer):
    """The agreement of labels over time, for inputs without a truth.

    Args:
        space: of the labels.
    """

    def __init__(self, space: LabelSpace) -> None:
        self.consistency = Consistency(space)

    def add(self, result: Result, report: Report) -> None:
        frame, labels = result.frame, result.labels
        if labels is not None:
            self.consistency.add(frame.group, frame.scan, labels.label, frame.T_world_lidar)

    def finish(self, report: Report) -> None:
        report.consistency = self.consistency.result()


class TeacherLabels:
    """A source for `hand.Labelled`: an image teacher's labels as they are, at the points that a camera sees."""

    def __init__(self, teacher: Teacher) -> None:
        self.space = LabelSpace.load("structural6")
        self._labeller = PseudoLabeller(teacher, self.space, "pseudo", Refinements.none())

    def labels_of(self, frame: Frame) -> UInt8 | None:
        """(N,) labels; None without an image of a calibrated camera. Raises UserError if it cannot be read."""
        if not any(image.camera is not None for image in frame.images.values()):
            return None
        return self._labeller.decide(self._labeller.look(frame)).label


def consumers_for(
    data: DataSet, space: LabelSpace, sources: Mapping[str, LabelSpace], out: Path | None = None
) -> list[Consumer]:
    """What evaluates labels of `space`: scores against the sources, the first for the headline; without a truth or hand
    labels among them also planes; without any also over time.

    Raises UserError if labels and sources cannot be compared.
    """
    consumers: list[Consumer] = []
    if sources:
        first, *others = sources
        consumers.append(Scores(sources[first], space, out, first, {name: sources[name] for name in others}))
    if not {TRUTH, HAND} & sources.keys():
        consumers.append(PlaneCheck(space, data.path, data.sensors.file, out))
    return consumers if sources else [*consumers, OverTime(space)]


def sources_of(data: DataSet, wanted: Sequence[str] = ()) -> dict[str, LabelSpace]:
    """The label sources to score against and their spaces: those that are wanted, or else the most trustworthy one.

    None if none is wanted, and there is none. Raises UserError if one that is wanted is not there.
    """
    if not wanted:
        wanted = [source for source in (TRUTH, HAND, PSEUDO) if source in data.label_spaces][:1]
    return {source: space_of(data, source) for source in wanted}


def space_of(data: DataSet, source: str = TRUTH) -> LabelSpace:
    """The label space of a label source of a data set. Raises UserError if its frames have no such labels."""
    if source in data.label_spaces:
        return data.label_spaces[source]
    known = ", ".join(data.label_spaces) or "none"
    why = "; ".join(data.problems) or f"{data.path} has no labels from {source} (it has: {known})"
    raise UserError(f"{why}; name others with --labels, or leave it out to check labels without a truth")

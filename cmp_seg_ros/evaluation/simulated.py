"""Labels against the truth of a simulated bag, scan by scan."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets.bag import REMEDY, Bag, bag_of, choose_topic, clouds_of, no_clouds
from cmp_seg_ros.datasets.bag import Reader as BagReader
from cmp_seg_ros.datasets.base import Problems, Sample
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots, session
from cmp_seg_ros.evaluation.metrics import Confusion, percentiles, readings, stage_percentiles
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.scan import UNLABELLED, Labels, UInt8
from cmp_seg_ros.segmenter import Segmenter

TRUTH_TOPIC = "/truth/points"
TRUTH_SPACE = "structural6"  # also the name of the truth's field


class Pair(NamedTuple):
    """A scan and the true id of each of its points (UNLABELLED where there is no return)."""

    sample: Sample
    truth: UInt8


class SimulatedBag:
    """The scans of a simulated bag with their truth, joined by stamp.

    Args:
        path: the bag, or the folder of `cmp-seg simulate` that holds it as `bag`.
        topic: of the scans; needed only where there are several.

    Raises:
        UserError: the bag cannot be read or holds no truth.
    """

    def __init__(self, path: Path, topic: str = "", truth_topic: str = TRUTH_TOPIC, space: str = TRUTH_SPACE) -> None:
        self.path = bag_of(path)
        if not self.path.exists():
            raise UserError(f"{path} does not exist; give a bag of `cmp-seg simulate`")
        if not BagReader.recognises(self.path):
            raise UserError(
                f"{path} is no bag, so it holds no truth to compare with; hold labels against its planes with "
                "--planes, or give a bag of `cmp-seg simulate`"
            )
        self.bag = Bag(self.path)
        self.problems = self.bag.problems
        self.space = LabelSpace.load(space)
        self.truth_topic = truth_topic
        if truth_topic not in self.bag.topics:
            if damage := self.bag.damage():
                raise UserError(f"{damage}, and so no truth on {truth_topic}; {REMEDY}")
            clouds = ", ".join(clouds_of(self.bag))
            if not clouds:
                raise no_clouds(self.bag)
            raise UserError(
                f"bag {self.path} has no truth on {truth_topic} (its clouds: {clouds}); "
                "evaluate a bag of `cmp-seg simulate`, or hold labels against the planes in it with --planes"
            )
        self.topic = choose_topic(self.bag, topic)
        self.count = self.bag.topics[self.topic].size

    def __iter__(self) -> Iterator[Pair]:
        scans: dict[int, Sample] = {}
        truths: dict[int, UInt8] = {}
        number = 0
        for topic, _, message in self.bag.messages([self.topic, self.truth_topic]):
            try:
                stamp = point_cloud2.stamp_ns(message.header)
                if topic == self.truth_topic:
                    truths[stamp] = point_cloud2.decode_labels(message, self.space.name).label
                else:
                    scans[stamp] = Sample(number, f"{number:06d}", point_cloud2.decode(message), message)
                    number += 1
            except UserError as error:
                self.problems.add(f"a cloud on {topic} of {self.path} is left out: {error}", topic)
                continue
            if stamp in scans and stamp in truths:
                sample, truth = scans.pop(stamp), truths.pop(stamp)
                if len(truth) == len(sample.scan):
                    yield Pair(sample, truth)
                else:
                    self.problems.add(
                        f"scan {sample.key} of {self.path} has {len(sample.scan)} points, its truth {len(truth)}; "
                        "simulate the bag again",
                        "size",
                    )
        if scans or truths:
            self.problems.add(
                f"{len(scans)} scans of {self.path} have no truth of their stamp, {len(truths)} truths no scan; "
                "they are left out: simulate the bag again"
            )


class BagEvaluation:
    """One run over a simulated bag; `run` leaves report.json, worst.png and best.png in `out`, where it is given."""

    def __init__(self, pairs: SimulatedBag, segmenter: Segmenter, rig: session.Rig, out: Path | None = None) -> None:
        self.pairs = pairs
        self.segmenter = segmenter
        self.rig = rig
        self.out = out
        self.count = pairs.count
        self.problems = Problems()
        self.warnings = Problems()
        self.confusion = Confusion(pairs.space, segmenter.label_space)
        self.measure = _headline(readings(self.confusion))[0]  # says at once if labels and truth do not fit
        self.points: list[int] = []
        self.voxels: list[int] = []
        self.stages_ms: list[dict[str, float]] = []
        self.scores: dict[str, float] = {}  # headline mIoU by scan
        self.extremes: dict[str, tuple[float, Pair, Labels]] = {}

    def run(self, progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
        """Evaluate all scans and return the report. Raises UserError if there is none."""
        for done, pair in enumerate(self.pairs):
            self._score(pair, self.segmenter(pair.sample.scan))
            progress(done + 1)
        for problem in self.pairs.problems:
            self.problems.add(problem)
        if not self.points:
            raise UserError("; ".join(self.problems) or f"{self.pairs.path} holds no scans; simulate it again")
        report = self._report()
        if self.out is not None:
            with outputs.writing(self.out):
                outputs.write_report(self.out, report)
                for which in self.extremes:
                    self._draw(self.out, which)
        return report

    def _score(self, pair: Pair, labels: Labels) -> None:
        for finding in session.check(pair.sample, labels, self.segmenter, self.rig, self.pairs.path):
            (self.problems if finding.serious else self.warnings).add(finding.text, finding.kind)
        scan = Confusion(self.confusion.space, self.confusion.predicted_space)
        scan.add(pair.truth, labels.label)
        self.confusion += scan
        self.points.append(len(labels.label))
        self.voxels.append(labels.voxels)
        self.stages_ms.append(labels.stages_ms)
        score = _headline(readings(scan))[1].miou()
        if not np.isfinite(score):
            return
        self.scores[pair.sample.key] = score
        for which, better in (("worst", score < self._extreme("worst")), ("best", score > self._extreme("best"))):
            if better or which not in self.extremes:
                self.extremes[which] = (score, pair, labels)

    def _extreme(self, which: str) -> float:
        return self.extremes[which][0] if which in self.extremes else float("nan")

    def _report(self) -> dict[str, Any]:
        found = readings(self.confusion)
        headline = _headline(found)[1]
        # The first scan also pays for what happens once: it has no place among latencies.
        steady = self.stages_ms[1:] or self.stages_ms
        return {
            "command": "evaluate",
            "input": str(self.pairs.path),
            "topic": self.pairs.topic,
            "scans": len(self.points),
            "points": sum(self.points),
            "points_per_scan": float(np.median(self.points)),
            "voxels_per_scan": float(np.median(self.voxels)),
            "voxel_size": self.segmenter.voxel_size,
            "miou": headline.report()["miou"],
            "iou": headline.report()["iou"],
            **{name: confusion.report() for name, confusion in found.items()},
            "latency_ms": percentiles(sum(stages.values()) for stages in steady),
            "stages_ms": stage_percentiles(steady),
            **{which: {"scan": extreme[1].sample.key, "miou": extreme[0]} for which, extreme in self.extremes.items()},
            "miou_by_scan": self.scores,
            "model": self.segmenter.bundle.description.name,
            "engine": self.segmenter.engine,
            "calibration": None if self.rig.file is None else str(self.rig.file),
            "warnings": list(self.warnings),
            "problems": list(self.problems),
        }

    def _draw(self, out: Path, which: str) -> None:
        score, pair, labels = self.extremes[which]
        space = self.segmenter.label_space
        truth = pair.truth
        if space.names != self.pairs.space.names:
            truth = space.id_map(self.pairs.space)[truth]
        plots.comparison(
            out / f"{which}.png",
            pair.sample.scan,
            labels,
            np.where(pair.sample.scan.valid(), truth, UNLABELLED).astype(np.uint8),
            space,
            self.rig.T_base_lidar,
            title=f"{which.capitalize()} of {len(self.scores)} scans: {pair.sample.key}, {self.measure} {score:.1%}",
        )


def _headline(found: dict[str, Confusion]) -> tuple[str, Confusion]:
    """The published primary score, or else the first; with the name of its mean."""
    if primary := found.get("structural4_primary"):
        return "primary mIoU", primary
    name, first = next(iter(found.items()))
    return f"mIoU in {name}", first

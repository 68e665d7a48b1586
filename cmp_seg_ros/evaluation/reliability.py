"""Calibration of confidences: are 80 % of the points with confidence 80 % labelled right?

Reliability diagram and expected calibration error: Guo et al. 2017, On Calibration of Modern Neural Networks (ICML),
equations 2 and 3, with 15 bins as there.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from cmp_seg_ros.evaluation.metrics import number, ratio
from cmp_seg_ros.evaluation.plots import faint_grid, new_figure, save
from cmp_seg_ros.scan import Bool, Float32

Float64 = npt.NDArray[np.float64]

BINS = 15


class ReliabilityBin(BaseModel):
    """Points whose confidence is above `low` and at most `high`."""

    low: float
    high: float
    points: int
    confidence: float | None  # mean
    accuracy: float | None  # share of the points that are right


class ReliabilityCurve(BaseModel):
    """Calibration of the confidences of all points with a label and a truth.

    Confidence above accuracy is overconfidence. `groups` has the counts of `Reliability` by group, as written by
    `bootstrap.pack`.
    """

    space: str  # in which a label is right or wrong
    points: int
    ece: float | None
    confidence: float | None
    accuracy: float | None
    bins: list[ReliabilityBin]
    groups: dict[str, str] = {}


class Reliability:
    """Counts by bins of confidence, all equally wide.

    `counts` is (3, B): number of points, sum of their confidences, number of right ones.
    """

    def __init__(self, bins: int = BINS) -> None:
        self.counts = np.zeros((3, bins))

    def add(self, confidence: Float32, right: Bool) -> None:
        """Add points: (N,) confidences, 0..1, and (N,) whether the labels are right."""
        bins = self.counts.shape[1]
        exact = confidence.astype(np.float64)
        bin_ = np.clip(np.ceil(exact * bins).astype(np.int64) - 1, 0, bins - 1)
        for row, weight in zip(self.counts, (None, exact, right), strict=True):
            row += np.bincount(bin_, weight, minlength=bins)

    def __iadd__(self, other: "Reliability") -> "Reliability":
        self.counts += other.counts
        return self

    def curve(self, space: str) -> ReliabilityCurve:
        """The result; `space` is the label space in which labels are right or wrong."""
        points, confidence, right = self.counts
        edges = np.linspace(0, 1, len(points) + 1).tolist()
        whole = self.counts.sum(axis=1)
        return ReliabilityCurve(
            space=space,
            points=int(whole[0]),
            ece=number(float(ece_of(self.counts))),
            confidence=_share(whole[1], whole[0]),
            accuracy=_share(whole[2], whole[0]),
            bins=[
                ReliabilityBin(low=low, high=high, points=int(n), confidence=_share(c, n), accuracy=_share(r, n))
                for low, high, n, c, r in zip(edges[:-1], edges[1:], points, confidence, right, strict=True)
            ],
        )


def ece_of(counts: Float64) -> Float64:
    """(...) expected calibration error of (..., 3, B) counts of `Reliability`; NaN without points.

    Mean absolute difference of accuracy and confidence of the bins, weighted by their points.
    """
    points, confidence, right = np.moveaxis(counts, -2, 0)
    return ratio(np.abs(right - confidence).sum(axis=-1), points.sum(axis=-1))


def _share(part: float, whole: float) -> float | None:
    return number(float(ratio(part, whole)))


def plot(path: Path, curves: dict[str, ReliabilityCurve], title: str) -> None:
    """Save the reliability diagram of one or several runs, by name: accuracy over confidence, and share of points."""
    figure = new_figure(7, 8, title)
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 1], [0, 1], color="0.6", linewidth=1, label="calibrated")
    for i, (name, curve) in enumerate(curves.items()):
        seen = [(b.confidence, b.accuracy) for b in curve.bins if b.points]
        error = "-" if curve.ece is None else f"{curve.ece:.1%}"
        axes.plot(*zip(*seen, strict=True), "o-", color=f"C{i}", label=f"{name}: ECE {error}")
        edges = [curve.bins[0].low, *(b.high for b in curve.bins)]
        below.stairs([b.points / max(1, curve.points) for b in curve.bins], edges, color=f"C{i}", fill=False)
    axes.set(ylabel="share of points that are right", xlim=(0, 1), ylim=(0, 1))
    axes.legend(loc="upper left", frameon=False)
    below.set(xlabel="confidence", ylabel="share of points")
    faint_grid(axes)
    faint_grid(below)
    figure.subplots_adjust(left=0.11, right=0.97, top=0.92, bottom=0.07, hspace=0.08)
    save(figure, path)

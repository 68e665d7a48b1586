"""Pictures of a run: its curves, and some validation scans with truth, prediction and errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Float32, UInt8
from cmp_seg_ros.training.log import read, title_of

SCANS = 3


class ValidationScan(NamedTuple):
    """The voxels of a validation scan with their true and predicted labels."""

    number: int
    xyz: Float32  # (M, 3), upright
    truth: UInt8  # (M,) ids
    predicted: UInt8  # (M,) ids


def some_of(scans: Sequence[ValidationScan], count: int = SCANS) -> list[ValidationScan]:
    """At most `count` scans, spread evenly."""
    chosen = np.linspace(0, len(scans) - 1, min(count, len(scans))).round().astype(int)
    return [scans[number] for number in chosen.tolist()]


def draw(path: Path, scans: Sequence[ValidationScan], space: LabelSpace, title: str = "") -> None:
    """Draw truth, prediction and errors of each scan, from above and from the side, to a .png."""
    height = 6.8 * len(scans) + 1.8  # inches
    figure = plots.new_figure(16, height, title)
    rows = figure.add_gridspec(
        len(scans), 1, left=0.05, right=0.985, top=1 - 1.0 / height, bottom=1.1 / height, hspace=0.14
    )
    for row, (number, xyz, truth, label) in enumerate(scans):
        compared = truth != UNLABELLED
        wrong = compared & (label != truth)
        shown = np.where(compared, label, UNLABELLED).astype(np.uint8)
        places = rows[row].subgridspec(2, 3, height_ratios=(3, 1), hspace=0.18, wspace=0.13)
        above, side = ([figure.add_subplot(places[line, column]) for column in range(3)] for line in range(2))
        plots.draw_bird(above[0], xyz, truth, space, f"Validation scan {number}: truth")
        plots.draw_bird(above[1], xyz, shown, space, "Prediction")
        plots.draw_wrong(above[2], xyz, compared, wrong)
        plots.draw_side(side[0], xyz[compared], space.palette[truth[compared]])
        plots.draw_side(side[1], xyz[compared], space.palette[label[compared]])
        order = np.concatenate([np.flatnonzero(compared & ~wrong), np.flatnonzero(wrong)])
        plots.draw_side(side[2], xyz[order], np.where(wrong[order, None], plots.WRONG, plots.RIGHT))
    everything = np.concatenate([scan.truth for scan in scans])
    legend = figure.add_axes((0.05, 0, 0.93, 0.6 / height))
    plots.draw_legend(legend, everything, space, "share of the truth above", columns=len(space.classes))
    plots.save(figure, path)


def curves(log: Path, picture: Path) -> None:
    """Draw loss and scores of a run's log.csv over steps."""
    series: dict[str, list[tuple[float, float]]] = {}
    for row in read(log):
        series.setdefault(row["name"], []).append((float(row["step"]), float(row["value"])))
    figure = plots.new_figure(12, 4.8, "")
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(left=0.06, right=0.985, top=0.92, bottom=0.11)
    if "loss" in series:
        steps, losses = np.array(series["loss"]).T
        window = max(1, len(losses) // 50)
        left.plot(steps, losses, color="0.8", lw=0.7, label="each logged step")
        smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
        left.plot(steps[window - 1 :], smooth, label=f"mean of {window}")
        left.legend()
    left.set(xlabel="step", ylabel="loss (cross-entropy + Lovasz)", title="Training")
    for name, values in series.items():
        if name != "loss":
            steps, scores = np.array(values).T
            right.plot(steps, scores, marker=".", lw=2.5 if "miou" in name else 1, label=title_of(name))
    right.set(xlabel="step", ylabel="IoU, 0..1", ylim=(0, 1), title="Validation buildings")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    plots.save(figure, picture)

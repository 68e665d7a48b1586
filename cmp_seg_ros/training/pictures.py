"""Pictures of a run: its curves, and some validation scans with truth, prediction and errors, or with features."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.occupancy.feature_colours import FeatureColours
from cmp_seg_ros.scan import UNLABELLED, Float32, UInt8
from cmp_seg_ros.training.log import read, title_of

Shown = TypeVar("Shown")

SCANS = 3


class ValidationScan(NamedTuple):
    """The voxels of a validation scan with their true and predicted labels."""

    number: int
    xyz: Float32  # (M, 3), upright
    truth: UInt8  # (M,) ids
    predicted: UInt8  # (M,) ids


class FeatureView(NamedTuple):
    """The points of a scan that a camera sees, with the features of its teacher and of the network."""

    number: int
    xyz: Float32  # (M, 3), upright
    teacher: Float32  # (M, D)
    student: Float32  # (M, D)


def some_of(scans: Sequence[Shown], count: int = SCANS) -> list[Shown]:
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


def draw_features(path: Path, views: Sequence[FeatureView], title: str = "") -> None:
    """Draw the features of teacher and student as the lidar sees them, to a .png.

    Colours are the first three principal components of the teacher's features over all views, the same for both.
    """
    unit = [view.teacher / np.linalg.norm(view.teacher, axis=1, keepdims=True).clip(1e-9) for view in views]
    colours = FeatureColours()
    colours(np.concatenate(unit)[None])
    figure = plots.new_figure(14, 3.6 * len(views) + 1.4, title)
    places = figure.subplots(len(views), 2, squeeze=False)
    for row, (view, teacher) in enumerate(zip(views, unit, strict=True)):
        azimuth = np.degrees(np.arctan2(view.xyz[:, 1], view.xyz[:, 0]))
        elevation = np.degrees(np.arctan2(view.xyz[:, 2], np.hypot(view.xyz[:, 0], view.xyz[:, 1])))
        student = view.student / np.linalg.norm(view.student, axis=1, keepdims=True).clip(1e-9)
        cosine = (student * teacher).sum(axis=1).mean()
        for axis, features, name in (
            (places[row, 0], teacher, f"image {view.number}: teacher"),
            (places[row, 1], student, f"student (mean cosine {cosine:.2f})"),
        ):
            axis.scatter(azimuth, elevation, s=6, c=colours(features[None])[0] / 255, linewidths=0)
            axis.invert_xaxis()
            axis.set(xlabel="azimuth, degrees", ylabel="elevation, degrees", title=name)
    note = "Colours: first three principal components of the teacher's features (red, green, blue), the same for both"
    figure.text(0.5, 0.01, note, ha="center", fontsize=9)
    figure.tight_layout(rect=(0, 0.03, 1, 0.96))
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
    left.set(xlabel="step", ylabel="loss", title="Training")
    for name, values in series.items():
        if name != "loss":
            steps, scores = np.array(values).T
            right.plot(steps, scores, marker=".", lw=2.5 if "miou" in name else 1, label=title_of(name))
    right.set(xlabel="step", ylabel="score, 0..1", ylim=(0, 1), title="Validation (mIoU, IoU of classes)")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    plots.save(figure, picture)

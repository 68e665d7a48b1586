"""A picture of a scan's pseudo-labels: the image with its mask, the image with its points, the scan from above."""

from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.frame import Frame, PointLabels
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.geometry.projection import upright
from cmp_seg_ros.pseudo_labels.labeller import Evidence, PseudoLabeller, View
from cmp_seg_ros.scan import UNLABELLED, UInt8

OPACITY = 0.55  # of the mask


def draw(
    path: Path, frame: Frame, evidence: Evidence, labels: PointLabels, labeller: PseudoLabeller, title: str
) -> None:
    """Save the picture, with a row for each camera."""
    seen = np.where(evidence.seen, labels.label, UNLABELLED).astype(np.uint8)
    figure, grid = _with_rows(frame, evidence, labeller, {"": seen}, title)
    xyz = upright(frame.scan.xyz, frame.T_base_lidar)
    plots.draw_bird(figure.add_subplot(grid[:-1, 2]), xyz, labels.label, labels.space)
    plots.draw_legend(figure.add_subplot(grid[-1, :]), labels.label, labels.space, columns=len(labels.space.classes))
    plots.save(figure, path)


def beside(path: Path, frame: Frame, network: UInt8, labeller: PseudoLabeller, title: str) -> None:
    """Save the teacher's mask, its labels, and the network's labels (N,) of the same points, a row for each camera."""
    evidence = labeller.look(frame)
    labels = labeller.confident(labeller.decide(evidence))
    points = {"pseudo-labels": labels.label, "network": network}
    figure, grid = _with_rows(frame, evidence, labeller, points, title)
    plots.draw_legend(figure.add_subplot(grid[-1, :]), network, labels.space, columns=len(labels.space.classes))
    plots.save(figure, path)


def _with_rows(
    frame: Frame, evidence: Evidence, labeller: PseudoLabeller, points: dict[str, UInt8], title: str
) -> tuple[Any, Any]:
    """A figure, and its grid: a row for each camera with the mask and points in up to two columns; the legend's row."""
    views = evidence.views
    figure = plots.new_figure(19, 1.2 + 5.2 * len(views), title)
    grid = figure.add_gridspec(
        len(views) + 1, 3, height_ratios=[*[1] * len(views), 0.12],
        left=0.01, right=0.985, top=0.89, bottom=0.02, wspace=0.06, hspace=0.12,
    )  # fmt: skip
    for row, (name, view) in enumerate(views.items()):
        _draw_mask(figure.add_subplot(grid[row, 0]), name, view, labeller)
        for column, (who, label) in enumerate(points.items(), start=1):
            axes, camera = figure.add_subplot(grid[row, column]), frame.images[name].camera
            assert camera is not None
            plots.draw_camera(axes, view.rgb, frame.scan, label, labeller.space, camera)
            if who:
                axes.set_title(f"{name}: {who}", fontsize=12)
    return figure, grid


def _draw_mask(axes: Any, name: str, view: View, labeller: PseudoLabeller) -> None:
    mask = labeller.mask(view)
    picture = view.rgb.astype(np.float32)
    there = mask != UNLABELLED
    picture[there] = OPACITY * labeller.space.palette[mask[there]] + (1 - OPACITY) * picture[there]
    axes.imshow(picture.astype(np.uint8))
    axes.set_title(f"{name}: mask of {labeller.teacher.name}; uncoloured: ignored", fontsize=12)
    axes.set_axis_off()

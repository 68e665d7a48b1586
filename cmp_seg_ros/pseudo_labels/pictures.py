"""A picture of a scan's pseudo-labels: the image with its mask, the image with its points, the scan from above."""

from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.frame import Frame, PointLabels
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.pseudo_labels.labeller import Evidence, PseudoLabeller, View, upright
from cmp_seg_ros.scan import UNLABELLED, UInt8

OPACITY = 0.55  # of the mask


def draw(
    path: Path, frame: Frame, evidence: Evidence, labels: PointLabels, labeller: PseudoLabeller, title: str
) -> None:
    """Save the picture, with a row for each camera."""
    space, views = labels.space, evidence.views
    figure = plots.new_figure(19, 1.2 + 5.2 * len(views), title)
    grid = figure.add_gridspec(
        len(views) + 1, 3, height_ratios=[*[1] * len(views), 0.12], width_ratios=(1, 1, 0.8),
        left=0.01, right=0.985, top=0.9, bottom=0.02, wspace=0.1, hspace=0.12,
    )  # fmt: skip
    for row, (name, view) in enumerate(views.items()):
        _draw_mask(figure.add_subplot(grid[row, 0]), name, view, labeller)
        points = np.where(evidence.seen, labels.label, UNLABELLED).astype(np.uint8)
        _draw_points(figure.add_subplot(grid[row, 1]), frame, name, view, points, space)
    plots.draw_bird(figure.add_subplot(grid[:-1, 2]), upright(frame), labels.label, space)
    plots.draw_legend(figure.add_subplot(grid[-1, :]), labels.label, space, columns=len(space.classes))
    plots.save(figure, path)


def beside(path: Path, frame: Frame, network: UInt8, labeller: PseudoLabeller, title: str) -> None:
    """Save the teacher's mask, its labels, and the network's labels (N,) of the same points, a row for each camera."""
    evidence = labeller.look(frame)
    labels = labeller.confident(labeller.decide(evidence))
    space, views = labels.space, evidence.views
    figure = plots.new_figure(19, 1.2 + 5.0 * len(views), title)
    grid = figure.add_gridspec(
        len(views) + 1, 3, height_ratios=[*[1] * len(views), 0.12],
        left=0.01, right=0.99, top=0.88, bottom=0.02, wspace=0.03, hspace=0.12,
    )  # fmt: skip
    for row, (name, view) in enumerate(views.items()):
        _draw_mask(figure.add_subplot(grid[row, 0]), name, view, labeller)
        for column, (who, label) in enumerate([("pseudo-labels", labels.label), ("network", network)], start=1):
            axes = figure.add_subplot(grid[row, column])
            _draw_points(axes, frame, name, view, label, space)
            axes.set_title(f"{name}: {who}", fontsize=12)
    plots.draw_legend(figure.add_subplot(grid[-1, :]), network, space, columns=len(space.classes))
    plots.save(figure, path)


def _draw_points(axes: Any, frame: Frame, name: str, view: View, label: UInt8, space: LabelSpace) -> None:
    camera = frame.images[name].camera
    assert camera is not None
    plots.draw_camera(axes, view.rgb, frame.scan, label, space, camera)


def _draw_mask(axes: Any, name: str, view: View, labeller: PseudoLabeller) -> None:
    mask = labeller.mask(view)
    picture = view.rgb.astype(np.float32)
    there = mask != UNLABELLED
    picture[there] = OPACITY * labeller.space.palette[mask[there]] + (1 - OPACITY) * picture[there]
    axes.imshow(picture.astype(np.uint8))
    axes.set_title(f"{name}: mask of {labeller.teacher.name}; uncoloured: ignored", fontsize=12)
    axes.set_axis_off()

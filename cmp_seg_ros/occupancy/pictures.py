"""Pictures of occupancy: validation views, and voxels seen obliquely."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.occupancy.grid import FREE
from cmp_seg_ros.scan import Float32, UInt8


class CheckedView(NamedTuple):
    """An image, M voxels in its camera's frame with true and predicted labels, true and predicted depth images."""

    rgb: UInt8
    points: Float32  # (M, 3)
    truth: UInt8
    predicted: UInt8
    depth: Float32
    rendered: Float32


def draw_checks(path: Path, views: Sequence[CheckedView], space: LabelSpace, title: str) -> None:
    """Draw image, depths and voxels from above of some views, truth beside prediction, to a .png."""
    height = 3.2 * len(views) + 1.6  # inches
    figure = plots.new_figure(18, height, title)
    rows = figure.add_gridspec(
        len(views), 5, left=0.03, right=0.985, top=1 - 0.9 / height, bottom=1.1 / height, hspace=0.3, wspace=0.15
    )
    for row, view in enumerate(views):
        axes = [figure.add_subplot(rows[row, column]) for column in range(5)]
        axes[0].imshow(view.rgb)
        axes[0].set_title("image")
        for ax, depth, name in zip(axes[1:3], (view.depth, view.rendered), ("true", "rendered"), strict=True):
            shown = ax.imshow(np.where(np.isfinite(depth), depth, np.nan), vmin=0, vmax=8, cmap="viridis")
            ax.set_title(f"{name} depth (m)")
            figure.colorbar(shown, ax=ax, fraction=0.03)
        for ax, label, name in zip(axes[3:], (view.truth, view.predicted), ("truth", "prediction"), strict=True):
            solid = np.flatnonzero((label < FREE) & (label != 2))
            order = solid[np.argsort(-view.points[solid, 1])]  # y points down: the highest last
            colours = space.palette[label[order]] / 255
            ax.scatter(view.points[order, 0], view.points[order, 2], s=3, c=colours, marker="s", linewidths=0)
            ax.set(xlim=(-5, 5), ylim=(0, 10), title=f"{name} from above, no ceiling (m)", aspect="equal")
        for ax in axes[:3]:
            ax.set_axis_off()
    legend = figure.add_axes((0.03, 0, 0.95, 0.6 / height))
    everything = np.concatenate([view.truth[view.truth < FREE] for view in views])
    plots.draw_legend(legend, everything, space, "share of the true voxels", columns=len(space.classes))
    plots.save(figure, path)

"""Pictures of occupancy: validation views, and voxels seen obliquely."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.occupancy.grid import FREE, Grid
from cmp_seg_ros.scan import Float32, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CEILING = "ceiling"  # left out of views from above


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
            solid = np.flatnonzero((label < FREE) & (label != ceiling_of(space)))
            order = solid[np.argsort(-view.points[solid, 1])]  # y points down: the highest last
            colours = space.palette[label[order]] / 255
            ax.scatter(view.points[order, 0], view.points[order, 2], s=6, c=colours, marker="s", linewidths=0)
            ax.set(xlim=(-5, 5), ylim=(0, 10), title=f"{name} from above, no ceiling (m)", aspect="equal")
        for ax in axes[:3]:
            ax.set_axis_off()
    legend = figure.add_axes((0.03, 0, 0.95, 0.6 / height))
    everything = np.concatenate([view.truth[view.truth < FREE] for view in views])
    plots.draw_legend(legend, everything, space, "share of the true voxels", columns=7)
    plots.save(figure, path)


def draw_result(
    path: Path,
    rgb: UInt8,
    depth: Float32,
    classes: UInt8,
    grid: Grid,
    label: UInt8,
    space: LabelSpace,
    title: str,
    truth: UInt8 | None = None,
) -> None:
    """Draw an image, its depth and classes as rendered, and its voxels seen obliquely, to a .png.

    Args:
        rgb: (H, W, 3).
        depth: (h, w) metres.
        classes: (h, w, 3) colours of the rendered classes.
        label: (X, Y, Z) ids, FREE or UNKNOWN.
        truth: as `label`; drawn beside it if given.
    """
    grids = [("occupancy", label)] + ([("truth", truth)] if truth is not None else [])
    figure = plots.new_figure(16, 12, title)
    rows = figure.add_gridspec(2, 6, left=0.03, right=0.97, top=0.92, bottom=0.1, hspace=0.12, height_ratios=(1, 1.6))
    top = [figure.add_subplot(rows[0, 2 * i : 2 * i + 2]) for i in range(3)]
    top[0].imshow(rgb)
    top[0].set_title("image")
    shown = top[1].imshow(depth, cmap="viridis", vmin=0)
    top[1].set_title("rendered depth (m)")
    figure.colorbar(shown, ax=top[1], fraction=0.03)
    top[2].imshow(classes)
    top[2].set_title("rendered classes")
    for ax in top:
        ax.set_axis_off()
    cubes = [_cubes(grid, labels, space) for _, labels in grids]
    everywhere = np.concatenate([each.xy for each in cubes])
    limits = (
        (everywhere.min(axis=0) - 0.3, everywhere.max(axis=0) + 0.3) if len(everywhere) else (np.zeros(2), np.ones(2))
    )
    for i, (name, _) in enumerate(grids):
        ax = figure.add_subplot(rows[1, 6 // len(grids) * i : 6 // len(grids) * (i + 1)])
        ax.set(title=f"{name} from behind the camera, without the ceiling")
        _draw_cubes(ax, cubes[i], grid.voxel, *limits)
    solid = label[label < FREE]
    plots.draw_legend(figure.add_axes((0.03, 0, 0.94, 0.09)), solid, space, "share of the occupied voxels", columns=7)
    plots.save(figure, path)


class _Cubes(NamedTuple):
    """Voxels in parallel projection, far ones first: (M, 2) metres in the picture, (M, 3) colours."""

    xy: npt.NDArray[np.floating]
    colours: npt.NDArray[np.floating]


def _cubes(grid: Grid, label: UInt8, space: LabelSpace) -> _Cubes:
    """The occupied voxels of an (X, Y, Z) grid that can be seen, without the ceiling."""
    from scipy.ndimage import binary_erosion

    solid = (label < FREE) & (label != ceiling_of(space))
    rows = np.flatnonzero(solid & ~binary_erosion(solid))  # what is inside is not seen
    ahead, left, up = _axes(grid, grid.centres(rows))
    order = np.lexsort((up, -ahead))
    ahead, left, up, ids = ahead[order], left[order], up[order], label.ravel()[rows][order]
    light = np.clip(0.72 + 0.12 * up, 0.55, 1.1)[:, None]
    xy = np.stack([-left + 0.25 * ahead, 0.55 * ahead + 0.85 * up], axis=1)
    return _Cubes(xy, np.clip(space.palette[ids] / 255 * light, 0, 1))


def _draw_cubes(ax: "Axes", cubes: _Cubes, voxel: float, low: npt.NDArray[Any], high: npt.NDArray[Any]) -> None:
    """Draw voxels one cube each, near ones over far ones, in a picture between two corners."""
    ax.set_aspect("equal")
    ax.set_axis_off()
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
    if not len(cubes.xy):
        ax.text(0.5, 0.5, "nothing is occupied", ha="center", transform=ax.transAxes)
        return
    ax.apply_aspect()
    pixels = ax.transData.transform([(voxel, 0)])[0, 0] - ax.transData.transform([(0, 0)])[0, 0]
    size = (1.25 * pixels * 72 / ax.figure.dpi) ** 2
    ax.scatter(cubes.xy[:, 0], cubes.xy[:, 1], s=size, c=cubes.colours, marker="h", linewidths=0.15, edgecolors="black")
    x, y = low + 0.15
    ax.plot([x, x + 1], [y, y], color="black", linewidth=2)
    ax.text(x + 1.05, y, "1 m", va="center")


def _axes(grid: Grid, xyz: Float32) -> tuple[npt.NDArray[np.floating], ...]:
    """Coordinates ahead, left and up of points in the grid's frame."""
    if grid.frame == "camera":
        return xyz[:, 2], -xyz[:, 0], -xyz[:, 1]
    return xyz[:, 0], xyz[:, 1], xyz[:, 2]


def ceiling_of(space: LabelSpace) -> int:
    """Its id; 255 if there is none."""
    return next((found.id for found in space.classes if found.name == CEILING), 255)

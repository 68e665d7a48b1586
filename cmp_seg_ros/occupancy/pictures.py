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
WIDTH, MOST_HEIGHT = 15.0, 9.0  # inches of a picture of a result, and of the voxels in it
COLUMNS = 7  # of a legend


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
    plots.draw_legend(
        legend, everything, space, "share of the true voxels", columns=COLUMNS, only=set(everything.tolist())
    )
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
    cubes = [_cubes(grid, labels, space) for _, labels in grids]
    low, high = _corners(np.concatenate([each.xy for each in cubes]))
    aspects = [picture.shape[1] / picture.shape[0] for picture in (rgb, depth, classes)]
    # In inches: pictures of one height side by side, and the voxels as wide as there is room.
    above = WIDTH / (sum(aspects) + 0.4)
    below = min(WIDTH / len(grids) * (high - low)[1] / (high - low)[0], MOST_HEIGHT)
    solid, painted = label[label < FREE], set(map(tuple, classes.reshape(-1, 3).tolist()))
    occurring = [c.id for c in space.classes if c.id in solid or tuple(space.palette[c.id].tolist()) in painted]
    legend = 0.4 + 0.22 * -(-len(occurring) // COLUMNS)
    total = above + below + legend + 1.6
    figure = plots.new_figure(WIDTH, total, title)
    rows = figure.add_gridspec(2, 1, left=0.01, right=0.99, top=1 - 1.0 / total, bottom=(legend + 0.1) / total,
                               hspace=0.8 / (above + below), height_ratios=(above, below))  # fmt: skip
    first, second = rows[0].subgridspec(1, 3, width_ratios=aspects, wspace=0.13), rows[1].subgridspec(1, len(grids))
    top = [figure.add_subplot(first[i]) for i in range(3)]
    top[0].imshow(rgb)
    top[0].set_title("image")
    shown = top[1].imshow(depth, cmap="viridis", vmin=0)
    top[1].set_title("rendered depth (m)")
    figure.colorbar(shown, cax=top[1].inset_axes((1.01, 0, 0.03, 1)))
    top[2].imshow(classes)
    top[2].set_title("rendered classes")
    for ax in top:
        ax.set_axis_off()
    for i, (name, _) in enumerate(grids):
        ax = figure.add_subplot(second[i])
        ax.set(title=f"{name} from behind the camera, without the ceiling")
        _draw_cubes(ax, cubes[i], grid.voxel, low, high)
    place = figure.add_axes((0.01, 0, 0.98, legend / total))
    plots.draw_legend(place, solid, space, "share of the occupied voxels", COLUMNS, occurring)
    plots.save(figure, path)


def _corners(xy: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """The corners (2,) of what (M, 2) voxels cover in a picture, with a margin."""
    return (xy.min(axis=0) - 0.3, xy.max(axis=0) + 0.3) if len(xy) else (np.zeros(2), np.array([2.0, 1.0]))


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

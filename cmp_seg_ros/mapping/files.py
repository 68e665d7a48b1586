"""The files of a map: coloured clouds (PLY, PCD), floor plan (PNG, SVG) and occupancy grid (PGM, YAML)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import pcd, ply
from cmp_seg_ros.datasets.base import Array
from cmp_seg_ros.evaluation.plots import patch
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.fusion import Float64, Voxels
from cmp_seg_ros.mapping.grid import FREE, OCCUPIED, UNKNOWN, Grid
from cmp_seg_ros.messages.point_cloud2 import packed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PLY, PCD, PGM, YAML, PNG, SVG = "map.ply", "map.pcd", "grid.pgm", "grid.yaml", "floor_plan.png", "floor_plan.svg"
FILES = (PLY, PCD, PGM, YAML, PNG, SVG)
SHADES = {OCCUPIED: 0, FREE: 254, UNKNOWN: 205}  # of the PGM, as map_saver writes them
INCHES = 9.0  # the longer side of a floor plan
DPI = 110


def write_map(folder: Path, found: Voxels, grid: Grid, space: LabelSpace, way: Float64, title: str) -> None:
    """Write all FILES of a map: `found` are its voxels, `way` the (K, 2) places of the lidar. Raises OSError."""
    columns = columns_of(found, space)
    ply.write(folder / PLY, columns, space)
    pcd.write(folder / PCD, with_rgb(columns))
    write_grid(folder, grid)
    draw_floor_plan(folder, grid, space, way, title)


def columns_of(found: Voxels, space: LabelSpace) -> dict[str, Array]:
    """The named columns of a map's cloud."""
    return ply.coloured(found.xyz, found.label, space) | {"confidence": found.confidence}


def with_rgb(columns: dict[str, Array]) -> dict[str, Array]:
    """The columns with one `rgb`, as PCL packs it, instead of three."""
    channels = ("red", "green", "blue")
    others = {name: values for name, values in columns.items() if name not in channels}
    return others | {"rgb": packed(np.stack([columns[name] for name in channels], axis=1))}


def write_grid(folder: Path, grid: Grid) -> None:
    """Write the occupancy grid as nav2's map_server and ROS 1's read it: grid.pgm and grid.yaml."""
    height, width = grid.occupancy.shape
    shades = np.select([grid.occupancy == value for value in SHADES], list(SHADES.values())).astype(np.uint8)
    pixels = shades[::-1]  # the first row of an image is its top
    outputs.write_whole(folder / PGM, f"P5\n{width} {height}\n255\n".encode() + pixels.tobytes())
    about = {
        "image": PGM,
        "mode": "trinary",
        "resolution": grid.resolution,
        "origin": [grid.origin[0], grid.origin[1], 0.0],
        "negate": 0,
        "occupied_thresh": 0.65,
        "free_thresh": 0.196,
    }
    outputs.write_whole(folder / YAML, yaml.safe_dump(about, sort_keys=False).encode())


def draw_floor_plan(folder: Path, grid: Grid, space: LabelSpace, way: Float64, title: str) -> None:
    """Draw the floor plan by class as floor_plan.png and, in metres and as vectors, floor_plan.svg.

    Args:
        way: (K, 2) where the lidar went.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PolyCollection
    from matplotlib.figure import Figure

    height, width = (length * grid.resolution for length in grid.label.shape)
    scale = INCHES / max(width, height)
    figure = Figure(figsize=(max(6.0, width * scale + 2.4), max(4.0, height * scale + 1.0)), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.04, 0.74, 0.88))
    shown = [c for c in space.classes if (grid.label == c.id).any()]
    for c in shown:
        colour = tuple(value / 255 for value in c.color)
        axes.add_collection(PolyCollection(list(_rectangles(grid, c.id)), facecolors=[colour], linewidths=0))
    axes.set_xlim(grid.origin[0], grid.origin[0] + width)
    axes.set_ylim(grid.origin[1], grid.origin[1] + height)
    axes.set_aspect("equal", anchor="C")
    axes.set_axis_off()
    area = grid.resolution**2
    patches: list[Any] = [patch(c.color, f"{c.name}  {(grid.label == c.id).sum() * area:.1f} m²") for c in shown]
    patches += axes.plot(*way.T, color="black", linewidth=0.8, alpha=0.6, label="way of the lidar")
    figure.legend(handles=patches, loc="center right", fontsize=9, frameon=False, title="Class, area of its cells")
    _draw_scale(axes, grid, width)
    figure.suptitle(title, fontsize=11)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / PNG, dpi=DPI)
    figure.savefig(folder / SVG)


def _rectangles(grid: Grid, label: int) -> "list[Float64]":
    """Corners of the horizontal runs of cells of a class, (4, 2) each."""
    inside = np.pad(grid.label == label, ((0, 0), (1, 1))).astype(np.int8)
    row, start = np.nonzero(np.diff(inside, axis=1) == 1)
    _, end = np.nonzero(np.diff(inside, axis=1) == -1)
    x0, x1 = grid.origin[0] + start * grid.resolution, grid.origin[0] + end * grid.resolution
    y0 = grid.origin[1] + row * grid.resolution
    y1 = y0 + grid.resolution
    return list(
        np.stack([np.stack([x0, y0], 1), np.stack([x1, y0], 1), np.stack([x1, y1], 1), np.stack([x0, y1], 1)], 1)
    )


def _draw_scale(axes: "Axes", grid: Grid, width: float) -> None:
    """A bar of a round length below the plan."""
    length = next(step for step in (50, 20, 10, 5, 2, 1, 0.5) if step <= width / 3 or step == 0.5)
    left, bottom = grid.origin[0], grid.origin[1] - 0.03 * max(width, 1.0)
    axes.plot([left, left + length], [bottom, bottom], color="black", linewidth=3, solid_capstyle="butt", clip_on=False)
    axes.text(left + length, bottom, f"  {length:g} m", va="center", fontsize=9)

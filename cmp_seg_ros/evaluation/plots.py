"""Pictures of labelled scans: bird's-eye view, range image, camera image, and errors against the truth."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry import overlay
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Transform
from cmp_seg_ros.geometry.projection import project_scan, upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, Labels, Scan, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

Float64 = npt.NDArray[np.float64]

DPI = 100
FAINT = 0.6  # opacity of the ceiling from above, which is drawn darker
DIM = 0.55  # of the camera image under its points
WRONG = (214, 30, 30)
RIGHT = (205, 205, 205)
AZIMUTH_STEP = 0.4  # degrees a column of a range image
ELEVATION_STEP = 0.25  # degrees a row
BULK = 97  # per cent of the points, nearest first, that a picture from the side or an animation must show
REACH = 99.7  # percentile of the points that a picture from above reaches to, on each side
EDGE = "#555555"


def overview(
    path: Path,
    scan: Scan,
    labels: Labels,
    label_space: LabelSpace,
    image: UInt8 | None = None,
    camera: CalibratedCamera | None = None,
    T_base_lidar: Transform | None = None,
    title: str = "",
) -> None:
    """Save a picture of a labelled scan: from above, as a range image and, with a camera, over its image.

    Args:
        path: of the .png.
        image: (H, W, 3) of `camera`; give both or none.
        T_base_lidar: its rotation makes the scan upright, as the network sees it.
    """
    xyz = upright(scan.xyz, T_base_lidar)
    with_camera = image is not None and camera is not None
    figure = new_figure(14 if with_camera else 11, 11, title)
    rows = figure.add_gridspec(
        2, 2, height_ratios=(2.3, 1), width_ratios=(1, 1.25 if with_camera else 0.28),
        left=0.055, right=0.985, top=0.91, bottom=0.06, hspace=0.17, wspace=0.08,
    )  # fmt: skip
    bird = figure.add_subplot(rows[0, 0])
    draw_bird(bird, xyz, labels.label, label_space)
    legend = rows[0, 1]
    if image is not None and camera is not None:
        side = rows[0, 1].subgridspec(2, 1, height_ratios=(2.4, 1), hspace=0.08)
        draw_camera(figure.add_subplot(side[0]), image, scan, labels.label, label_space, camera)
        legend = side[1]
    draw_legend(figure.add_subplot(legend), labels.label, label_space)
    draw_range(figure.add_subplot(rows[1, :]), scan.xyz, labels.label, label_space)
    save(figure, path)


def comparison(
    path: Path,
    scan: Scan,
    labels: Labels,
    truth: UInt8,
    label_space: LabelSpace,
    T_base_lidar: Transform | None = None,
    title: str = "",
) -> None:
    """Save a picture of a scan's labels next to its truth, both in `label_space`, and of the differing points."""
    xyz = upright(scan.xyz, T_base_lidar)
    figure = new_figure(16, 13, title)
    rows = figure.add_gridspec(
        4, 3, height_ratios=(2.1, 0.12, 1, 1), left=0.045, right=0.985, top=0.93, bottom=0.05, hspace=0.3, wspace=0.14
    )
    compared = (truth != UNLABELLED) & scan.valid()
    wrong = compared & (labels.label != truth)
    label = np.where(compared, labels.label, UNLABELLED).astype(np.uint8)
    draw_bird(figure.add_subplot(rows[0, 0]), xyz, label, label_space, "Labels from above")
    draw_bird(figure.add_subplot(rows[0, 1]), xyz, truth, label_space, "Truth from above")
    draw_wrong(figure.add_subplot(rows[0, 2]), xyz, compared, wrong, f"Wrong (red) in {label_space.name}")
    draw_legend(figure.add_subplot(rows[1, :]), truth, label_space, "share of truth", columns=len(label_space.classes))
    draw_range(figure.add_subplot(rows[2, :]), scan.xyz, label, label_space, "Labels")
    draw_range(figure.add_subplot(rows[3, :]), scan.xyz, truth, label_space, "Truth")
    save(figure, path)


def draw_bird(axes: "Axes", xyz: Float32, label: UInt8, space: LabelSpace, title: str = "From above") -> None:
    """Draw (N, 3) upright points and their (N,) labels from above, high points on top, the ceiling faint."""
    labelled = np.flatnonzero((label != UNLABELLED) & np.isfinite(xyz).all(axis=1))
    ceiling = np.isin(label, [c.id for c in space.classes if c.name == "ceiling"])
    order = labelled[np.lexsort((xyz[labelled, 2], ~ceiling[labelled]))]
    light, opacity = np.where(ceiling[order, None], (0.8, FAINT), (1, 0.85)).T
    _points_from_above(axes, xyz[order], light[:, None] * space.palette[label[order]], opacity)
    _frame(axes, xyz[labelled], title)


def draw_wrong(axes: "Axes", xyz: Float32, compared: Bool, wrong: Bool, title: str = "Wrong, in red") -> None:
    """Draw the compared ones of (N, 3) upright points from above, wrong ones in red and on top."""
    share = wrong.sum() / max(1, compared.sum())
    order = np.concatenate([np.flatnonzero(compared & ~wrong), np.flatnonzero(wrong)])
    _points_from_above(axes, xyz[order], np.where(wrong[order, None], WRONG, RIGHT), 0.7)
    _frame(axes, xyz[compared], f"{title}: {wrong.sum():,} of {compared.sum():,} ({share:.1%})")


def draw_side(axes: "Axes", xyz: Float32, colour: npt.NDArray[Any]) -> None:
    """Draw (N, 3) upright points in (N, 3) colours from the side, over the same extent as the view from above."""
    distance = np.linalg.norm(xyz[:, :2], axis=1)
    shown = distance <= np.percentile(distance, BULK) if len(xyz) else np.zeros(0, bool)
    size = float(np.clip(20_000 / max(1, len(xyz)), 0.5, 4.0))
    axes.scatter(xyz[shown, 0], xyz[shown, 2], s=size, c=colour[shown] / 255, linewidths=0, rasterized=True)
    axes.plot(0, 0, "o", color="white", markeredgecolor="black", markersize=6)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel("x (forward) in metres", fontsize=10)
    axes.set_ylabel("z in metres", fontsize=10, labelpad=1)
    axes.tick_params(labelsize=9)
    faint_grid(axes)


def draw_range(axes: "Axes", xyz: Float32, label: UInt8, space: LabelSpace, title: str = "Range image") -> None:
    """Draw the (N, 3) points as a panorama in the sensor's frame; near surfaces bright, far ones dark."""
    picture, extent = range_image(xyz, label, space)
    axes.imshow(picture, extent=extent, aspect="auto", interpolation="nearest")
    axes.set_title(f"{title}: near bright, far dark, no return black", fontsize=12)
    axes.set_xlabel("azimuth in degrees, left positive", fontsize=10)
    axes.set_ylabel("elevation in degrees", fontsize=10)
    axes.set_xticks(range(180, -181, -45))
    axes.tick_params(labelsize=9)
    axes.set_facecolor("black")


def draw_camera(
    axes: "Axes", image: UInt8, scan: Scan, label: UInt8, space: LabelSpace, camera: CalibratedCamera
) -> None:
    """Draw the camera image, dimmed, with the visible labelled points."""
    dimmed = (image * np.float32(DIM)).astype(np.uint8)
    size = max(3, camera.width // 220)
    projection = project_scan(scan.xyz, camera, np.array(camera.T_camera_lidar))
    picture = overlay.draw(dimmed, projection, label, space.palette, size, opacity=1.0)
    axes.imshow(picture)
    axes.set_title("Camera image with labelled points", fontsize=12)
    axes.set_axis_off()


def draw_legend(
    axes: "Axes",
    label: UInt8,
    space: LabelSpace,
    what: str = "share of points",
    columns: int | None = None,
    only: Collection[int] | None = None,
) -> None:
    """Draw a legend of the classes, or of those with an id in `only`, with their share of the labelled points."""
    count = np.bincount(label, minlength=256)
    total = max(1, count[space.ids].sum())
    shown = [c for c in space.classes if only is None or c.id in only]
    patches = [patch(c.color, f"{c.name}  {count[c.id] / total:.1%}") for c in shown]
    axes.set_axis_off()
    axes.legend(
        handles=patches,
        loc="center",
        fontsize=11,
        ncols=columns or 1 + len(patches) // 13,
        title=f"Class, {what}",
        title_fontsize=11,
        frameon=False,
    )


def patch(colour: Sequence[int], label: str, edge: str | None = EDGE) -> "Patch":
    """An entry of a legend in an RGB colour."""
    from matplotlib.patches import Patch

    red, green, blue = (value / 255 for value in colour)
    return Patch(facecolor=(red, green, blue), edgecolor=edge, label=label)


def range_image(xyz: Float32, label: UInt8, space: LabelSpace) -> tuple[UInt8, tuple[float, float, float, float]]:
    """The labels seen from the origin as an image: azimuth from 180 (left) to -180, elevation upwards.

    Gaps between rings and columns are filled from the nearest point; gaps of missing returns stay black.

    Returns:
        (H, W, 3) colours, black without a return, and (left, right, bottom, top) in degrees.
    """
    from scipy.ndimage import distance_transform_edt

    labelled = np.flatnonzero((label != UNLABELLED) & np.isfinite(xyz).all(axis=1) & (xyz != 0).any(axis=1))
    if not len(labelled):
        return np.zeros((2, 2, 3), np.uint8), (180.0, -180.0, -1.0, 1.0)
    points = xyz[labelled].astype(np.float64)
    distance = np.linalg.norm(points, axis=1)
    azimuth = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
    elevation = np.degrees(np.arcsin(points[:, 2] / distance))
    # A few outliers must not shrink the rest.
    bottom, top = np.percentile(elevation, [0.05, 99.95]) + np.array([-1.0, 1.0])
    height, width = int(np.ceil((top - bottom) / ELEVATION_STEP)), round(360 / AZIMUTH_STEP)
    row = ((top - elevation) / ELEVATION_STEP).astype(np.int64)
    column = np.minimum((180 - azimuth) / AZIMUTH_STEP, width - 1).astype(np.int64)
    inside = (row >= 0) & (row < height)
    far_first = np.flatnonzero(inside)[np.argsort(-distance[inside])]
    hit = np.full((height, width), -1)
    hit[row[far_first], column[far_first]] = far_first
    # Distances to the nearest hit, in units of the lidar's angular spacing.
    upwards, sideways = _spacing(elevation)
    sampling = (1 / max(upwards / ELEVATION_STEP, 2.0), 1 / max(sideways / AZIMUTH_STEP, 2.0))
    away, (rows, columns) = distance_transform_edt(hit < 0, sampling=sampling, return_indices=True)
    hit = np.where(away <= 0.75, hit[rows, columns], -1)
    near, far = np.log(np.maximum(np.percentile(distance, [2, 98]), 0.1))
    shade = 1.0 - 0.6 * np.clip((np.log(distance) - near) / max(far - near, 1e-3), 0, 1)  # (M,)
    colour = space.palette[label[labelled]] * shade[:, None]
    picture = np.where((hit >= 0)[..., None], colour[hit], 0).astype(np.uint8)
    return picture, (180.0, -180.0, top - height * ELEVATION_STEP, float(top))


def _spacing(elevation: Float64) -> tuple[float, float]:
    """Degrees between neighbouring rings and between neighbours in a ring, estimated from (M,) elevations."""
    bins = np.bincount(((elevation - elevation.min()) / 0.1).astype(np.int64))
    occupied = np.flatnonzero(bins > len(elevation) / 2000)
    if len(occupied) < 2:
        return 1.0, 0.5
    upwards = float(np.clip(np.percentile(np.diff(occupied), 95) * 0.1, 0.3, 3.0))
    rings = (occupied[-1] - occupied[0]) * 0.1 / upwards + 1
    return upwards, float(np.clip(360 * rings / len(elevation), 0.1, 1.0))


def _points_from_above(axes: "Axes", xyz: Float32, colour: npt.NDArray[Any], opacity: Any) -> None:
    if not len(xyz):
        return
    size = float(np.clip(40_000 / len(xyz), 0.8, 7.0))
    axes.scatter(
        xyz[:, 0], xyz[:, 1], s=size, c=np.atleast_2d(colour) / 255, alpha=opacity, linewidths=0, rasterized=True
    )


def _frame(axes: "Axes", xyz: Float32, title: str) -> None:
    """Set equal axes in metres around the bulk of the points; draw the sensor and a scale bar."""
    low, high = np.percentile(xyz[:, :2], [100 - REACH, REACH], axis=0) if len(xyz) else np.zeros((2, 2))
    low, high = np.minimum(low, 0), np.maximum(high, 0)  # the sensor is in the picture
    centre, half = (low + high) / 2, max(0.54 * float((high - low).max()), 1.0)
    axes.set_xlim(centre[0] - half, centre[0] + half)
    axes.set_ylim(centre[1] - half, centre[1] + half)
    axes.set_aspect("equal", adjustable="box")
    axes.set_title(title, fontsize=12)
    axes.set_xlabel("x (forward) in metres", fontsize=10)
    axes.set_ylabel("y (left) in metres", fontsize=10, labelpad=1)
    axes.tick_params(labelsize=9)
    faint_grid(axes)
    arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", xy=(0.16 * half, 0), xytext=(0, 0), arrowprops=arrow, zorder=5)
    sensor: dict[str, Any] = {"marker": "o", "color": "white", "markeredgecolor": "black", "markersize": 7}
    axes.plot(0, 0, **sensor, zorder=6, label="sensor, looking along x")
    axes.legend(loc="upper right", fontsize=9, handlelength=1, framealpha=0.85)
    length = round_length(half / 2)
    left, bottom = centre[0] - 0.93 * half, centre[1] - 0.92 * half
    axes.plot([left, left + length], [bottom, bottom], color="black", linewidth=3, solid_capstyle="butt", zorder=6)
    middle = left + length / 2, bottom
    axes.annotate(f"{length:g} m", middle, (0, 4), textcoords="offset points", ha="center", fontsize=10, zorder=6)


def round_length(length: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is at most `length`."""
    power = 10.0 ** np.floor(np.log10(length))
    return float(next(step * power for step in (5, 2, 1) if step * power <= length * (1 + 1e-9)))


def faint_grid(axes: "Axes", axis: Literal["both", "x", "y"] = "both") -> None:
    """A light grid behind what is drawn."""
    axes.grid(axis=axis, color="#e8e8e8", linewidth=0.6)
    axes.set_axisbelow(True)


def new_figure(width: float, height: float, title: str) -> "Figure":
    """A figure of `width` x `height` inches, without a window or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(figure)
    shown = title.encode(errors="replace").decode()  # names of files may be no UTF-8
    figure.suptitle(shown, fontsize=14, y=0.975)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as .png and free its memory."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    figure.clear()

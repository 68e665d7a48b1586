"""A picture of a recording: a scan from above, the camera images, and the range image in the colours of the truth."""

from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Float32
from cmp_seg_ros.simulation.lidar import Sweep
from cmp_seg_ros.simulation.mesh import indoor
from cmp_seg_ros.simulation.rig import Rig

NOTHING = 20  # grey value in the range image without a return or a truth
CEILING_CUT = 2.2  # metres above the floor; higher points would hide the room from above


def draw_preview(rig: Rig, path: Path) -> None:
    """Save a PNG of the scan in the middle of the recording and of the image of every camera."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    index = rig.frames // 2
    space = LabelSpace.load("structural6")
    result = rig.scan(index)
    truth = space.id_map(indoor())[result.label]
    figure = Figure(figsize=(15, 9.5), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[2.2, 1])
    _from_above(figure.add_subplot(grid[0, 0]), rig, result, (space.palette[truth] / 255).astype(np.float32))
    cameras = rig.config.cameras
    if cameras:
        across = int(np.ceil(np.sqrt(len(cameras))))
        views = grid[0, 1].subgridspec(-(-len(cameras) // across), across)
        for number, camera in enumerate(cameras):
            view = figure.add_subplot(views[divmod(number, across)])
            view.imshow(camera.pixels(rig.image(index, number).rgb), cmap="gray", vmin=0, vmax=255)
            view.set_title(f"{camera.name} ({camera.camera.model}), {rig.image_time(index):.2f} s")
            view.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    image = range_image(result, space.palette[truth])
    axes.imshow(image, aspect="auto", interpolation="nearest")
    axes.set(title=f"{rig.lidar.name}: range image, darker is farther", xlabel="column", ylabel="beam")
    classes = [Patch(color="#{:02x}{:02x}{:02x}".format(*c.color), label=c.name) for c in space.classes]
    if (image == NOTHING).all(axis=2).any():
        classes.append(Patch(color=(NOTHING / 255,) * 3, label="no return, or no truth"))
    figure.legend(handles=classes, loc="outside lower center", ncols=len(classes))
    figure.suptitle(f"{_where(rig)}, truth in structural6")
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=90)


def _where(rig: Rig) -> str:
    """The place, and the mounting of the lidar if it is not level."""
    kind, config = rig.building.plan.kind, rig.config
    place = f"Scene {kind}" if config.scene else f"Building {rig.building.seed} ({kind})"
    mount = [f"{what} {angle:g}°" for what, angle in (("roll", config.roll), ("pitch", config.pitch)) if angle]
    return f"{place}, lidar mounted with {' and '.join(mount)}" if mount else place


def _from_above(axes: Any, rig: Rig, result: Sweep, colors: Float32) -> None:
    index = rig.frames // 2
    T = rig.trajectory.pose(np.array([rig.scan_time(index)]))[0] @ rig.T_base_lidar
    points = result.scan.xyz @ T[:3, :3].T + T[:3, 3]
    shown = np.flatnonzero(result.scan.valid() & (points[:, 2] < CEILING_CUT))
    shown = shown[np.argsort(points[shown, 2])]
    axes.scatter(points[shown, 0], points[shown, 1], c=colors[shown], s=1.5, linewidths=0)
    way = rig.trajectory.pose(np.linspace(0, rig.config.seconds, 200))[:, :2, 3]
    axes.plot(way[:, 0], way[:, 1], color="0.4", linewidth=0.8, linestyle=":")
    axes.plot(T[0, 3], T[1, 3], "k^", markersize=7)
    middle, reach = T[:2, 3], np.percentile(np.abs(points[shown, :2] - T[:2, 3]).max(axis=1), 98) + 1
    axes.set(aspect="equal", xlim=middle[0] + np.array([-reach, reach]), ylim=middle[1] + np.array([-reach, reach]))
    axes.set(title=f"scan {index} from above, {CEILING_CUT} m and lower", xlabel="x (m)", ylabel="y (m)")
    axes.grid(alpha=0.3)


def range_image(result: Sweep, colors: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8: (N, 3) colours of the points as an image of beams by columns, top beam first."""
    shade = np.clip(1.15 - result.range / 14, 0.3, 1)[:, None]
    image = np.where((result.label != UNLABELLED)[:, None], colors * shade, NOTHING).astype(np.uint8)
    image = image.reshape(*result.scan.shape, 3)
    rings = result.scan.xyz.reshape(*result.scan.shape, 3)
    height = np.nanmedian(np.where(rings.any(axis=2), rings[..., 2], np.nan), axis=1)
    return image[::-1] if np.nan_to_num(height[0]) < np.nan_to_num(height[-1]) else image

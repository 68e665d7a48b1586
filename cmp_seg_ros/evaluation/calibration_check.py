"""Checks the extrinsics of the cameras of a recording: by which offset its scans and images lie best on each other.

found = check(Path("drive"), SensorSet.around(Path("drive")))["left"]
found.offset, found.T_camera_lidar
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry import alignment
from cmp_seg_ros.geometry.alignment import Alignment, View
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Transform
from cmp_seg_ros.geometry.projection import transform
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.pseudo_labels.labeller import read

Float64 = npt.NDArray[np.float64]

REFINED = "calibration-refined.yaml"
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
FEWEST = 4  # views: fewer say little
START = np.array([1, 1, -1, 1, -1, 1.0])  # units from the given extrinsics: where a search of half the views starts
BEYOND = 8.0, 80.0  # degrees and centimetres: twice what the search finds; farther off it has gone astray
OFF, AWAY = 2.0, 20.0  # degrees and centimetres beyond which a calibration is wrong; good ones are up to 1 degree away


@dataclass(frozen=True)
class Checked:
    """What was found of one camera.

    Args:
        camera: as given.
        T_camera_lidar: (4, 4) the extrinsics of the highest score.
        before, after: scores of the given extrinsics and of these.
        others: those that every other view, and the rest, give from other starts; none where there are too few views.
        views: that were looked at.
    """

    camera: CalibratedCamera
    T_camera_lidar: Transform
    before: float
    after: float
    others: tuple[Transform, ...]
    views: list[View]

    @property
    def offset(self) -> tuple[Float64, Float64]:
        """(3,) degrees about and (3,) centimetres along the camera's axes, from the given extrinsics to the best."""
        degrees, metres = alignment.difference(np.array(self.camera.T_camera_lidar), self.T_camera_lidar)
        return degrees, 100 * metres

    @property
    def degrees(self) -> float:
        return float(np.linalg.norm(self.offset[0]))

    @property
    def centimetres(self) -> float:
        return float(np.linalg.norm(self.offset[1]))

    @property
    def uncertainty(self) -> tuple[float, float] | None:
        """Largest degrees and centimetres between the ends of any two searches; None with too few views."""
        if not self.others:
            return None
        apart = [alignment.difference(*pair) for pair in combinations((self.T_camera_lidar, *self.others), 2)]
        degrees, metres = np.linalg.norm(np.array(apart), axis=2).max(axis=0)
        return float(degrees), 100 * float(metres)

    @property
    def doubt(self) -> str:
        """Why nothing can be said; empty if something can."""
        if _astray(self.degrees, self.centimetres):
            return (
                f"the best place is {self.degrees:.1f} degrees, {self.centimetres:.0f} cm away, farther than the "
                "search can be sure of: look at the picture, or give images of more places"
            )
        if self.uncertainty is None:
            return f"{len(self.views)} images are too few; give {2 * FEWEST} or more"
        apart = self.uncertainty
        if (apart[0] > OFF or apart[1] > AWAY) and not self.is_off:
            return (
                f"searches with half of the images end {apart[0]:.1f} degrees, {apart[1]:.0f} cm apart; "
                "give more images of places with edges near by"
            )
        return ""

    @property
    def is_off(self) -> bool:
        """Whether the given extrinsics are clearly wrong."""
        return is_off(self.degrees, self.centimetres, self.uncertainty)

    @property
    def is_refinable(self) -> bool:
        """Whether the best extrinsics may be written: nothing speaks against them, if only too few images for them."""
        return not self.doubt or not (self.others or _astray(self.degrees, self.centimetres))

    @property
    def verdict(self) -> str:
        """Whether the given extrinsics fit, in words."""
        if self.doubt:
            return f"cannot tell, because {self.doubt}"
        if self.is_off:
            return f"off by {self.degrees:.1f} degrees, {self.centimetres:.0f} cm"
        return f"fits, as far as this check can tell ({OFF:g} degrees, {AWAY:g} cm)"

    def summary(self) -> dict[str, Any]:
        """For report.json."""
        degrees, centimetres = self.offset
        return {
            "views": len(self.views),
            "degrees": degrees.round(3).tolist(),
            "centimetres": centimetres.round(2).tolist(),
            "between_halves": self.uncertainty and [round(value, 3) for value in self.uncertainty],
            "verdict": self.verdict,
            "score_before": round(self.before, 3),
            "score_after": round(self.after, 3),
            "T_camera_lidar": self.T_camera_lidar.round(9).tolist(),
        }

    def draw(self, path: Path) -> None:
        """The first view's points in its image: above by the given extrinsics, below by the best. Depth edges white."""
        from matplotlib.figure import Figure

        view = self.views[0]
        figure = Figure(figsize=(10, 13), dpi=110, layout="constrained")
        ring = alignment.rings(view.xyz) if view.ring is None else view.ring
        edge = alignment.depth_steps(view.xyz, ring) > alignment.STEP
        for part, (T, title) in enumerate(
            [(np.array(self.camera.T_camera_lidar), "as given"), (self.T_camera_lidar, "best score")]
        ):
            axes = figure.add_subplot(2, 1, part + 1)
            axes.imshow(view.grey, cmap="gray", vmin=0, vmax=255)
            points = transform(T, view.xyz)
            uv, inside = self.camera.project(points)
            u, v = uv.T
            plain, on_edge = inside & ~edge, inside & edge
            distance = np.linalg.norm(points, axis=1)
            shown = axes.scatter(u[plain], v[plain], c=distance[plain], s=1.5, cmap="turbo", vmax=12)
            axes.scatter(u[on_edge], v[on_edge], c="white", s=5, edgecolors="black", linewidths=0.4, label="depth edge")
            axes.set_title(title)
            axes.set_axis_off()
            axes.legend(loc="lower left")
            figure.colorbar(shown, ax=axes, label="distance from the camera, m")
        figure.savefig(path)


def is_off(degrees: float, centimetres: float, apart: tuple[float, float] | None) -> bool:
    """Whether extrinsics are clearly wrong: farther from the best ones than the searches end apart."""
    unsure = apart or (float("inf"), float("inf"))
    if _astray(degrees, centimetres):
        return False  # places without edges look alike from far off
    return (degrees > OFF and degrees > unsure[0]) or (centimetres > AWAY and centimetres > unsure[1])


def _astray(degrees: float, centimetres: float) -> bool:
    """Whether extrinsics are farther off than what the search finds reliably."""
    return degrees > BEYOND[0] or centimetres > BEYOND[1]


def check(
    input: Path,
    sensors: SensorSet,
    topic: str = "",
    camera: str = "",
    frames: int = 20,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[str, Checked]:
    """Look at up to `frames` scans with images, spread over the input, for each camera or the one that is named.

    Raises:
        UserError: the input cannot be read, has no such camera, no calibrated camera with images, or too few of them.
    """
    data = open_input(input, topic, sensors)
    if camera:
        data.sensors.calibration.camera(camera)
    views = _views(data, camera, frames)
    if not views:
        raise UserError(
            f"{input} has no images of a calibrated camera; give a calibration file (--calibration) that names the "
            f"cameras{f' ({data.uncalibrated})' if data.uncalibrated else ''}"
        )
    found = {}
    for number, (name, (calibrated, seen)) in enumerate(views.items()):
        if len(seen) < FEWEST:
            raise UserError(f"camera {name} of {input} has {len(seen)} images with a scan; {FEWEST} are needed")
        found[name] = _checked(calibrated, seen)
        progress(number + 1)
    return found


def _checked(camera: CalibratedCamera, views: list[View]) -> Checked:
    T = np.array(camera.T_camera_lidar)
    best = alignment.refine(Alignment(views, camera, T), T)
    halves = ((views[::2], START), (views[1::2], -START)) if len(views) >= 2 * FEWEST else ()
    others = [
        alignment.refine(Alignment(half, camera, T), alignment.offset_by(T, start)).T_camera_lidar
        for half, start in halves
    ]
    return Checked(camera, best.T_camera_lidar, best.before, best.after, tuple(others), views)


def _views(data: DataSet, camera: str, frames: int) -> dict[str, tuple[CalibratedCamera, list[View]]]:
    """Of each camera its calibration, and up to so many scans with an image."""
    count = len(data)
    chosen = np.unique(np.linspace(0, count - 1, min(frames, count)).round().astype(int)).tolist()
    found: dict[str, tuple[CalibratedCamera, list[View]]] = {}
    for number in chosen:
        for frame in data.stretch(number, number + 1):
            for name, image in frame.images.items():
                if image.camera is None or (camera and name != camera):
                    continue
                kept, intensity, ring = frame.scan.valid(), frame.scan.intensity, frame.ring
                view = View(
                    frame.at_time_of(image)[kept],
                    None if intensity is None else intensity[kept],
                    None if ring is None else ring[kept],
                    read(frame, name, image) @ LUMA,
                )
                found.setdefault(name, (image.camera, []))[1].append(view)
    return found


def write_refined(found: dict[str, Checked], sensors: SensorSet, input: Path, out: Path | None) -> Path:
    """Write a calibration file with the better extrinsics: into `out`, else beside the old file or the input.

    Raises UserError: there is such a file already.
    """
    calibration = sensors.calibration.model_copy(deep=True)
    for name, one in found.items():
        T = one.T_camera_lidar.round(9).tolist()
        camera = calibration.cameras.get(name, one.camera)
        calibration.cameras[name] = camera.model_copy(update={"T_camera_lidar": T})
    if out is not None:
        path = out / REFINED
    elif sensors.file is not None:
        path = sensors.file.with_name(f"{sensors.file.stem}-refined.yaml")
    else:
        path = (input if input.is_dir() else input.parent) / REFINED
    if out is None and path.exists():
        raise UserError(f"{path} exists already; move it away, or give a folder with --out")
    with outputs.writing(path.parent):
        calibration.save(path)
    return path

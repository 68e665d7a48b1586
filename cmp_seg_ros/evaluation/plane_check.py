"""The plane check: how well labels fit the floor, ceiling and walls found in a scan without truth.

score(find_planes(xyz), label, space).floor.recall    # of one scan
PlaneCheck(space, path)                               # the consumer of `cmp-seg evaluate --planes`
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.base import Problems
from cmp_seg_ros.datasets.frame import TRUTH, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.evaluation.pipeline import Consumer, Result
from cmp_seg_ros.evaluation.report import PlaneReport, PlaneScore, PlaneScores, Report, ScanPlanes, WallScore
from cmp_seg_ros.evaluation.tally import name_of
from cmp_seg_ros.geometry.planes import MAX_TILT, NEAR, Planes, find_planes
from cmp_seg_ros.geometry.projection import upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Bool, UInt8

DRAWN = 20  # scans, at most
BULK = 99  # per cent of the points, nearest first, that a picture shows
SURFACES = {"floor": ("floor",), "ceiling": ("ceiling",), "wall": ("wall", "flush")}  # and what is right on them


def score(planes: Planes, label: UInt8, space: LabelSpace) -> PlaneScores:
    """How well (N,) labels fit the planes.

    Recall: share of the points on the plane with its label (on walls: wall or flush). Precision: share of the points
    with the label that are on such a plane, or overhead (`Planes.along`). None without such a plane or label.
    """
    right = {name: named[label] for name, named in class_masks(space).items()}
    labelled, levels = label != UNLABELLED, {}
    for name, level, allowed in (("floor", planes.floor, planes.floor), ("ceiling", planes.ceiling, planes.overhead)):
        on = planes.on(level)
        precision = _share(planes.along(allowed), right[name] & labelled) if level else None
        levels[name] = PlaneScore(recall=_share(right[name], on), precision=precision, points=int(on.sum()))
    wall = WallScore(recall=_share(right["wall"], planes.on(planes.walls)), planes=len(planes.walls))
    return PlaneScores(**levels, wall=wall)


def class_masks(space: LabelSpace) -> dict[str, Bool]:
    """By surface, (256,) which ids of `space` are right on it. Raises UserError."""
    read_in = LabelSpace.load("structural6")
    try:
        ids = read_in.id_map(space)
    except UserError:
        read_in, ids = space, np.arange(256, dtype=np.uint8)
    masks = {}
    for surface, names in SURFACES.items():
        masks[surface] = np.isin(ids, [c.id for c in read_in.classes if c.name in names])
        if not masks[surface].any():
            raise UserError(f"label space '{space.name}' has no class {surface}; check planes with a model that has it")
    return masks


def medians(scores: Sequence[PlaneScores]) -> PlaneScores:
    """The median of each figure over the scans that have it; None if none has."""

    def median(surface: str, figure: str) -> float | None:
        values = [value for scan in scores if (value := getattr(getattr(scan, surface), figure)) is not None]
        return float(np.median(values)) if values else None

    level, wall = ("recall", "precision", "points"), ("recall", "planes")
    surfaces = {"floor": level, "ceiling": level, "wall": wall}
    return PlaneScores.model_validate(
        {name: {figure: median(name, figure) for figure in figures} for name, figures in surfaces.items()}
    )


def _share(part: Bool, whole: Bool) -> float | None:
    count = int(whole.sum())
    return int((part & whole).sum()) / count if count else None


class PlaneCheck(Consumer):
    """Compares labels with the planes of each scan.

    If a scan has a truth, the truth is scored too, as a perfect labeller: what it lacks to 100 % is the error of the
    check itself.

    Args:
        space: of the labels.
        path: the input, for messages.
        calibrated: the calibration file, for messages, or None.
        out: folder for planes-NNN.png; None: no pictures.

    Raises:
        UserError: the label space has no floor, ceiling or wall.
    """

    def __init__(self, space: LabelSpace, path: Path, calibrated: Path | None = None, out: Path | None = None) -> None:
        self.space, self.path, self.calibrated, self.out = space, path, calibrated, out
        class_masks(space)  # fail early if the model has no such classes
        self.scans: list[ScanPlanes] = []
        self.warnings = Problems()

    def add(self, result: Result, report: Report) -> None:
        frame, labels = result.frame, result.labels
        if labels is None:
            return
        found = find_planes(upright(frame.scan.xyz, frame.T_base_lidar))
        if frame.scan.valid().any():
            self._warn(frame, found)
        scores = score(found, labels.label, self.space)
        truth = frame.labels.get(TRUTH)
        perfect = None if truth is None else score(found, truth.label, truth.space)
        self.scans.append(
            ScanPlanes(key=frame.key, tilt=found.tilt(), way_up=found.way_up(), perfect=perfect, **dict(scores))
        )
        if self.out is not None and frame.number < DRAWN:
            name = f"planes-{frame.number:03d}.png"
            title = f"{name_of(frame, self.path)}\n{_sentence(scores)}"
            draw(self.out / name, found, labels.label, self.space, title)
            report.files.append(name)

    def finish(self, report: Report) -> None:
        if sum(scan.way_up for scan in self.scans) < 0:
            hanging = sum(scan.way_up < 0 for scan in self.scans)
            remedy = f"check {self.calibrated}" if self.calibrated else "if so, give its mounting with --calibration"
            self.warnings.add(
                f"{hanging} of {len(self.scans)} scans look as if the lidar hung upside down: the plane taken as "
                f"ceiling is nearer and fuller than the floor; {remedy}"
            )
        perfect = [scan.perfect for scan in self.scans if scan.perfect is not None]
        report.planes = PlaneReport(
            scans=self.scans, median=medians(self.scans), perfect_median=medians(perfect) if perfect else None
        )
        report.warnings += list(self.warnings)

    def _warn(self, frame: Frame, found: Planes) -> None:
        name = name_of(frame, self.path)
        remedy = "" if self.calibrated else "; give the lidar's mounting with --calibration"
        if found.tilt() > MAX_TILT:
            text = f"{name}: floor and walls are tilted by {found.tilt():.0f} degrees against z{remedy}"
            self.warnings.add(text, "tilt")
        if not found.floor and not found.ceiling and not found.walls:
            self.warnings.add(f"{name}: no floor, ceiling or wall found to check{remedy}", "none")


def draw(path: Path, found: Planes, label: UInt8, space: LabelSpace, title: str) -> None:
    """Save a plot of the planes of a scan from above and from the side; wrongly labelled points on them in red."""
    from matplotlib.lines import Line2D

    known = {c.name: c.color for c in LabelSpace.load("structural6").classes}
    colours = {surface: known[surface] for surface in SURFACES}
    colour = np.tile(np.array(plots.RIGHT, np.uint8), (len(label), 1))
    wrong = np.zeros(len(label), dtype=bool)
    named = class_masks(space)
    for name, surface in (("wall", found.walls), ("ceiling", found.ceiling), ("floor", found.floor)):
        on = found.on(surface)
        colour[on] = colours[name]
        wrong |= on & ~named[name][label]
    colour[wrong] = plots.WRONG
    distance = np.linalg.norm(found.xyz, axis=1)
    bulk = np.percentile(distance[np.isfinite(distance)], BULK) if np.isfinite(distance).any() else 1.0
    shown = np.flatnonzero(distance <= bulk)
    shown = shown[np.argsort(wrong[shown], kind="stable")]
    # Side view along the wall with most points, upright.
    wall = found.walls[0].along if found.walls else np.cross([0.0, 1.0, 0.0], found.up)
    sideways, height = found.xyz[shown] @ wall, found.xyz[shown] @ found.up
    figure = plots.new_figure(12, 15, title)
    above, side = figure.subplots(2, 1, height_ratios=(2.2, 1))
    size = float(np.clip(40_000 / max(1, len(shown)), 0.8, 7.0))
    ceiling = np.isin(shown, np.flatnonzero(found.on(found.ceiling)))
    paint = colour[shown] / 255
    above.scatter(*found.xyz[shown][~ceiling, :2].T, s=size, c=paint[~ceiling], linewidths=0)
    above.set(title="From above, without the ceiling", xlabel="x in metres", ylabel="y in metres", aspect="equal")
    side.scatter(sideways, height, s=size, c=paint, linewidths=0)
    side.set(title="From the side", xlabel="along a wall in metres", ylabel="height in metres", aspect="equal")
    sensor: dict[str, Any] = {"marker": "o", "linestyle": "none", "color": "white", "markeredgecolor": "black"}
    above.plot(0, 0, **sensor)
    side.plot(0, 0, **sensor)
    names = {**{f"on a {name}": value for name, value in colours.items()}, "on one, labelled differently": plots.WRONG}
    names[f"on none (within {100 * NEAR:.0f} cm)"] = plots.RIGHT
    marks: list[Any] = [plots.patch(colour, name, None) for name, colour in names.items()]
    marks.append(Line2D([], [], label="sensor", **sensor))
    figure.legend(handles=marks, loc="lower center", ncols=len(marks), frameon=False)
    plots.save(figure, path)


def _sentence(scores: PlaneScores) -> str:
    def percent(value: float | None) -> str:
        return "none" if value is None else f"{value:.1%}"

    floor, ceiling, wall = scores.floor, scores.ceiling, scores.wall
    return (
        f"floor recall {percent(floor.recall)}, precision {percent(floor.precision)}; "
        f"ceiling {percent(ceiling.recall)}, {percent(ceiling.precision)}; "
        f"{wall.planes:g} walls, recall {percent(wall.recall)}"
    )

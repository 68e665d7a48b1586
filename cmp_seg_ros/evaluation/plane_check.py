"""The plane check over an input: its scans are labelled and held against their own floor, ceiling and walls."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.datasets.bag import Bag, bag_of
from cmp_seg_ros.datasets.bag import Reader as BagReader
from cmp_seg_ros.datasets.base import Problems, Reader, Sample
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import planes, plots, session
from cmp_seg_ros.evaluation.simulated import TRUTH_TOPIC, SimulatedBag
from cmp_seg_ros.geometry.planes import MAX_TILT, NEAR, Planes, find_planes
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UInt8
from cmp_seg_ros.segmenter import Segmenter

DRAWN = 20  # scans, at most
BULK = 99  # per cent of the points, the nearest, that a picture shows


class PlaneCheck:
    """One run over an input; `run` leaves report.json and planes-NNN.png in `out`, where it is given.

    Args:
        path: anything that datasets/ reads, or the folder of `cmp-seg simulate`. In a bag that holds truth, a perfect
            labeller is scored beside the model: what it misses, the check itself gets wrong.
        segmenter, rig: the model, and the sensors it is used with.
        topic: PointCloud2 topic of a bag; needed only where there are several.

    Raises:
        UserError: the input is not known, or the model's label space has no floor, ceiling or wall.
    """

    def __init__(
        self, path: Path, segmenter: Segmenter, rig: session.Rig, out: Path | None = None, topic: str = ""
    ) -> None:
        self.path = bag_of(path)
        self.segmenter = segmenter
        self.rig = rig
        self.out = out
        planes.class_masks(segmenter.label_space)  # says at once if planes mean nothing to this model
        has_truth = self.path.exists() and BagReader.recognises(self.path) and TRUTH_TOPIC in Bag(self.path).topics
        self.truth = SimulatedBag(self.path, topic) if has_truth else None
        self.source: SimulatedBag | Reader = self.truth or open_input(self.path, topic)
        self.count = self.source.count
        self.problems = Problems()
        self.warnings = Problems()
        self.returns = 0

    def run(self, progress: Callable[[int], None] = lambda done: None) -> dict[str, Any]:
        """Check all scans and return the report. Raises UserError if none has a return."""
        scans = []
        for sample, truth in self._samples():
            scans.append(self._check(sample, truth))
            progress(len(scans))
        for problem in self.source.problems:
            self.problems.add(problem)
        if sum(scan["way_up"] for scan in scans) < 0:
            hanging = sum(scan["way_up"] < 0 for scan in scans)
            remedy = f"check {self.rig.file}" if self.rig.file else "if it does, say so with --calibration"
            self.warnings.add(
                f"{hanging} of {len(scans)} scans look as if the lidar hung upside down: what is taken as the ceiling "
                f"is nearer and fuller than the floor; {remedy}",
                "upside down",
            )
        if not self.returns:
            raise UserError("; ".join(self.problems) or f"{self.path} holds no scans; record it again")
        report = {
            "command": "evaluate",
            "input": str(self.path),
            "scans": scans,
            "median": planes.medians(scans),
            "model": self.segmenter.bundle.description.name,
            "engine": self.segmenter.engine,
            "calibration": None if self.rig.file is None else str(self.rig.file),
            "warnings": list(self.warnings),
            "problems": list(self.problems),
        }
        if self.truth:
            report["perfect_median"] = planes.medians([scan["perfect"] for scan in scans])
        if self.out is not None:
            with outputs.writing(self.out):
                outputs.write_report(self.out, report)
        return report

    def _samples(self) -> Iterator[tuple[Sample, UInt8 | None]]:
        if isinstance(self.source, SimulatedBag):
            yield from self.source
        else:
            yield from ((sample, None) for sample in self.source)

    def _check(self, sample: Sample, truth: UInt8 | None) -> dict[str, Any]:
        labels = self.segmenter(sample.scan)
        for finding in session.check(sample, labels, self.segmenter, self.rig, self.path):
            (self.problems if finding.serious else self.warnings).add(finding.text, finding.kind)
        found = find_planes(plots.upright(sample.scan.xyz, self.rig.T_base_lidar))
        returns = int(sample.scan.valid().sum())
        self.returns += returns
        if returns:
            self._warn(sample, found)
        name = str(self.path) if sample.key == self.path.stem else f"{self.path}/{sample.key}"
        scores = planes.score(found, labels.label, self.segmenter.label_space)
        result = {"file": name, **scores, "tilt": found.tilt(), "way_up": found.way_up()}
        if self.truth and truth is not None:
            result["perfect"] = planes.score(found, truth, self.truth.space)
        if self.out is not None and sample.number < DRAWN:
            with outputs.writing(self.out):
                picture = self.out / f"planes-{sample.number:03d}.png"
                draw(picture, found, labels.label, self.segmenter.label_space, f"{name}\n{_sentence(scores)}")
        return result

    def _warn(self, sample: Sample, found: Planes) -> None:
        name = session.name_of(sample, self.path)
        remedy = "" if self.rig.file else "; say how the lidar is mounted with --calibration"
        if found.tilt() > MAX_TILT:
            text = f"{name}: its floor or walls lean {found.tilt():.0f} degrees against z{remedy}"
            self.warnings.add(text, "tilt")
        if not found.floor and not found.ceiling and not found.walls:
            self.warnings.add(f"{name} shows neither floor nor ceiling nor walls that could be checked{remedy}", "none")


def draw(path: Path, found: Planes, label: UInt8, space: LabelSpace, title: str) -> None:
    """Save the planes of a scan from above and from the side, and in red the points on them that are labelled wrong."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    colours = dict(zip(("wall", "floor", "ceiling"), LabelSpace.load("structural6").palette[:3], strict=True))
    colour = np.tile(np.array(plots.RIGHT, np.uint8), (len(label), 1))
    wrong = np.zeros(len(label), dtype=bool)
    named = planes.class_masks(space)
    for name, surface in (("wall", found.walls), ("ceiling", found.ceiling), ("floor", found.floor)):
        on = found.on(surface)
        colour[on] = colours[name]
        wrong |= on & ~named[name][label]
    colour[wrong] = plots.WRONG
    distance = np.linalg.norm(found.xyz, axis=1)
    bulk = np.percentile(distance[np.isfinite(distance)], BULK) if np.isfinite(distance).any() else 1.0
    shown = np.flatnonzero(distance <= bulk)
    shown = shown[np.argsort(wrong[shown], kind="stable")]
    # From the side: along the wall with most points, upright.
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
    names = {**{f"on a {name}": value for name, value in colours.items()}, "on one, labelled otherwise": plots.WRONG}
    names[f"on none (within {100 * NEAR:.0f} cm)"] = plots.RIGHT
    marks: list[Patch | Line2D] = [
        Patch(facecolor=(r / 255, g / 255, b / 255), label=name) for name, (r, g, b) in names.items()
    ]
    marks.append(Line2D([], [], label="sensor", **sensor))
    figure.legend(handles=marks, loc="lower center", ncols=len(marks), frameon=False)
    plots.save(figure, path)


def _sentence(scores: dict[str, Any]) -> str:
    def percent(value: float | None) -> str:
        return "none" if value is None else f"{value:.1%}"

    floor, ceiling, wall = scores["floor"], scores["ceiling"], scores["wall"]
    return (
        f"floor recall {percent(floor['recall'])}, precision {percent(floor['precision'])}; "
        f"ceiling {percent(ceiling['recall'])}, {percent(ceiling['precision'])}; "
        f"{wall['planes']} walls, recall {percent(wall['recall'])}"
    )

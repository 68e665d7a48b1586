"""What a run of a benchmark suite says: scores with intervals, differences between rows, musts, as JSON takes them."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.evaluation.bootstrap import pack
from cmp_seg_ros.evaluation.metrics import PRIMARY, STRICT, Confusion, iou_of, mean_of, number, readings
from cmp_seg_ros.evaluation.reliability import Reliability
from cmp_seg_ros.evaluation.suites.run import Part, SuiteRun
from cmp_seg_ros.evaluation.suites.suite import Suite

Float64 = npt.NDArray[np.float64]
MEAN = "mean"


@dataclass(frozen=True)
class Scores:
    """The scores of one row: S sensors, B buildings, C classes, R draws of buildings with replacement.

    Args:
        parts: counts by sensor.
        confusion: an empty one of the truth and the labels.
        weights: (R, B) how often each draw has each building.
    """

    parts: dict[str, Part]
    confusion: Confusion
    weights: Float64

    def reading(self, name: str) -> Confusion:
        """Of `readings`, with a matrix of (B, S, bins, C, C + 1)."""
        found = Confusion(self.confusion.space, self.confusion.predicted_space)
        found.matrix = np.stack([part.points for part in self.parts.values()], axis=1)
        return readings(found)[name]

    @cached_property
    def primary(self) -> Confusion:
        return self.reading(PRIMARY)

    @cached_property
    def iou(self) -> Float64:
        """(S, C) primary IoU by class."""
        return iou_of(self.primary.matrix.sum(axis=(0, 2)))

    @cached_property
    def drawn(self) -> Float64:
        """(R, S, C) the same of each draw."""
        return iou_of(np.tensordot(self.weights, self.primary.matrix.sum(axis=2), 1))

    @cached_property
    def by_range(self) -> Float64:
        """(S, bins) primary mIoU by distance, over the classes that are there."""
        return mean_of(iou_of(self.primary.matrix.sum(axis=0)))

    @cached_property
    def false_person(self) -> Float64:
        """(S,) share of points that are no person and are called so; NaN where nothing can be."""
        space = self.confusion.space
        both = self.confusion.predicted_space.names
        if "person" not in both or "person" not in space.names:
            return np.full(len(self.parts), np.nan)
        matrix = np.stack([part.points.sum(axis=(0, 1)) for part in self.parts.values()])  # (S, C, C + 1)
        others = np.delete(matrix, space.names.index("person"), axis=1).sum(axis=1)  # (S, C + 1)
        return np.asarray(others[:, both.index("person")] / others.sum(axis=1).clip(1))

    def miou(self) -> Float64:
        """(S,) primary mIoU."""
        return mean_of(self.iou)

    def drawn_miou(self) -> Float64:
        """(R, S) of each draw."""
        return mean_of(self.drawn)


def compile_report(
    run: SuiteRun, parts: dict[str, dict[str, Part]], recordings: dict[str, dict[str, Any]] | None = None
) -> dict[str, Any]:
    """The report of a run, as JSON takes it: fractions 0..1, None where there is nothing to score.

    Args:
        parts: by row and sensor.
        recordings: figures of the rows on real scans.
    """
    suite, recordings, count = run.suite, recordings or {}, len(run.buildings)
    weights = suite.bootstrap.weights(count)
    empty = Confusion(run.counter.truth, run.segmenter.label_space)
    scores = {name: Scores(sensors, empty, weights) for name, sensors in parts.items()}
    rows = {name: _row(suite, run.buildings, scores, name) for name in scores}
    return {
        "command": "evaluate",
        "suite": suite.name,
        "description": suite.description,
        "model": run.segmenter.bundle.description.name,
        "bundle": run.segmenter.bundle.hash,
        "engine": run.segmenter.engine,
        "voxel_size": run.segmenter.voxel_size,
        "buildings": count,
        "first_building": suite.buildings.first,
        "scans_per_building": suite.scans,
        "whole": count == suite.buildings.count and {*rows, *recordings} == {*suite.rows, *suite.recordings},
        "bootstrap": suite.bootstrap.model_dump(),
        "range_bins": suite.range_bins,
        "rows": rows,
        "recordings": recordings,
        "skipped": run.skipped,
        "musts": [*_musts(suite, rows, run.skipped), *_musts_of_recordings(suite, recordings)],
    }


def _row(suite: Suite, seeds: Iterable[int], scores: dict[str, Scores], name: str) -> dict[str, Any]:
    found, row = scores[name], suite.rows[name]
    miou, drawn, interval = found.miou(), found.drawn_miou(), suite.bootstrap.interval
    strict = mean_of(iou_of(found.reading(STRICT).matrix.sum(axis=(0, 2))))
    space, classes = suite.truth, found.primary.space.names
    full = found.reading(space) if space in readings(found.confusion) else None
    by_building = found.primary.matrix.sum(axis=2)  # (B, S, C, C + 1)
    sensors: dict[str, dict[str, Any]] = {}
    for i, (sensor, part) in enumerate(found.parts.items()):
        points = found.primary.matrix.sum(axis=(0, 3, 4))[i]  # (bins,)
        scans = int(part.scans.sum())
        sensors[sensor] = {
            "primary": number(miou[i]),
            "interval": interval(drawn[:, i]),
            "strict": number(strict[i]),
            **_confidence(part.calibration.sum(axis=0), space),
            "false_person": number(found.false_person[i]),
            "iou": _named(classes, found.iou[i]),
            "iou_interval": {c: interval(found.drawn[:, i, k]) for k, c in enumerate(classes)},
            "by_range": [
                {"from": low, "primary": number(value), "points": int(n)}
                for low, value, n in zip(suite.range_bins, found.by_range[i], points, strict=True)
            ],
            "scans": scans,
            "points": int(part.points.sum()),
            "voxels_per_scan": round(int(part.voxels.sum()) / max(1, scans), 1),
            "scans_sha256": part.digest,
            # What `compare` draws from again: the primary confusion of each building.
            "groups": {str(seed): pack(matrix) for seed, matrix in zip(seeds, by_building[:, i], strict=True)},
        }
        if full is not None:
            iou = iou_of(full.matrix.sum(axis=(0, 2)))[i]
            sensors[sensor][space] = {"miou": number(float(mean_of(iou))), "iou": _named(full.space.names, iou)}
    result: dict[str, Any] = {
        **row.model_dump(exclude={"against"}),
        "sensors": sensors,
        MEAN: {
            "primary": number(miou.mean()),
            "interval": interval(drawn.mean(axis=1)),
            "strict": number(strict.mean()),
            **_confidence(np.sum([part.calibration.sum(axis=0) for part in found.parts.values()], axis=0), space),
            "false_person": number(float(mean_of(found.false_person))),
            "iou": _named(classes, mean_of(found.iou.T)),
        },
    }
    if row.against:
        base = scores[row.against]
        same = [list(base.parts).index(sensor) for sensor in found.parts]
        by_sensor, drawn_by_sensor = miou - base.miou()[same], drawn - base.drawn_miou()[:, same]
        result["against"] = row.against
        result["difference"] = {
            MEAN: number(by_sensor.mean()),
            "interval": interval(drawn_by_sensor.mean(axis=1)),
            "sensors": {
                sensor: {"difference": number(by_sensor[i]), "interval": interval(drawn_by_sensor[:, i])}
                for i, sensor in enumerate(found.parts)
            },
        }
    return result


def _confidence(counts: Float64, space: str) -> dict[str, Any]:
    """The expected calibration error of (3, BINS) counts, and the curve that it is made of."""
    found = Reliability()
    found.counts += counts
    curve = found.curve(space)
    return {"ece": curve.ece, "reliability": curve.model_dump(include={"bins"})["bins"]}


def _musts(suite: Suite, rows: dict[str, Any], skipped: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Each must of the chosen rows: the worst that it is about, what was measured there, and whether it is met."""
    for name, must in suite.musts.items():
        if name in skipped:
            yield _must(name, "", skipped[name], None, None)
        if name not in rows:
            continue
        sensors = rows[name]["sensors"]
        if must.primary is not None:
            worst, value = _worst({sensor: found["primary"] for sensor, found in sensors.items()})
            yield _must(name, "primary", f"primary mIoU of {worst}", must.primary, value)
        if must.mean is not None:
            yield _must(name, "mean", "primary mIoU, mean over sensors", must.mean, rows[name][MEAN]["primary"])
        for kind, what in (("false_person", "points wrongly called person"), ("ece", "calibration error")):
            if (limit := getattr(must, kind)) is not None:
                worst, value = _worst({sensor: found[kind] for sensor, found in sensors.items()}, -1)
                yield _must(name, kind, f"{what} of {worst}", limit, value, at_most=True)
        if must.each_class is not None:
            by_class = {f"{c} of {sensor}": iou for sensor, found in sensors.items() for c, iou in found["iou"].items()}
            worst, value = _worst(by_class)
            yield _must(name, "class", f"IoU of {worst}", must.each_class, value)
        if must.drop is not None:
            value = rows[name]["difference"][MEAN]
            yield _must(name, "drop", f"primary mIoU against {rows[name]['against']}", -must.drop, value)


def _musts_of_recordings(suite: Suite, recordings: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, found in recordings.items():
        if (limit := suite.recordings[name].false_person) is not None:
            measured = found["false_person"]
            yield _must(name, "false_person", "points wrongly called person", limit, measured, at_most=True)


def _must(
    row: str, kind: str, what: str, limit: float | None, value: float | None, at_most: bool = False
) -> dict[str, Any]:
    met = None if value is None or limit is None else (value <= limit if at_most else value >= limit)
    bound = "at most" if at_most else "at least"
    return {"row": row, "kind": kind, "what": what, "bound": bound, "limit": limit, "measured": value, "met": met}


def _worst(values: dict[str, float | None], sign: int = 1) -> tuple[str, float | None]:
    """The lowest value (the highest for sign -1) and its name; what could not be scored is left out."""
    known = {name: value for name, value in values.items() if value is not None}
    worst = min(known, key=lambda name: sign * known[name], default="any sensor")
    return worst, known.get(worst)


def _named(names: list[str], values: Float64) -> dict[str, float | None]:
    return {name: number(value) for name, value in zip(names, values, strict=True)}

"""Compares two reports: which differences are more than noise?

Reports of `cmp-seg evaluate` hold the counts of each group of scans (building, stretch of a drive), so that the
interval of a difference can be bootstrapped without the data. If both have the same groups, draws are paired: what
makes a building hard for one run makes it hard for the other, and cancels out.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ValidationError

from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.evaluation.accuracy import Accuracy, Reading
from cmp_seg_ros.evaluation.bootstrap import FEW, Bootstrap, Interval, unpack
from cmp_seg_ros.evaluation.consistency import TemporalConsistency, agreement_of, stays, temporal_iou_of
from cmp_seg_ros.evaluation.metrics import iou_of, mean_of, overall_accuracy_of, precision_of, recall_of
from cmp_seg_ros.evaluation.reliability import ReliabilityCurve, ece_of
from cmp_seg_ros.outputs import REPORT

Float64 = npt.NDArray[np.float64]
Groups = dict[str, str]

RUN_FIELDS = ("suite", "input", "source", "model", "bundle", "engine", "label_space", "voxel_size")  # settings of a run
Verdict = Literal["better", "worse", "noise", "equal", "unknown"]


class Figure(BaseModel):
    """One figure of both reports; the difference is B minus A.

    `verdict` is about B: `noise` if the interval of the difference contains 0, `unknown` without an interval.
    """

    name: str
    unit: Literal["fraction", "ms"] = "fraction"
    a: float | None
    b: float | None
    difference: float | None = None
    interval: Interval | None = None
    verdict: Verdict = "unknown"


class Section(BaseModel):
    """Figures with the same kind of intervals, named by `intervals`. Sections of detail are not printed."""

    title: str
    intervals: str
    figures: list[Figure]
    detail: bool = False


class Source(BaseModel):
    """Path of a report, and the settings of its run: see `RUN_FIELDS`."""

    path: str
    about: dict[str, str]


class Comparison(BaseModel):
    """The whole comparison, as reported by `cmp-seg compare`."""

    command: Literal["compare"] = "compare"
    a: Source
    b: Source
    bootstrap: Bootstrap
    sections: list[Section]
    summary: list[str]  # one sentence for each section that is not detail
    notes: list[str]


class SuiteColumn(BaseModel):
    """The fields read for one sensor in a report of a benchmark suite; `groups`: buildings, in the primary reading."""

    primary: float | None
    interval: Interval | None
    scans_sha256: str = ""
    groups: Groups = {}


class SuiteRow(BaseModel):
    """The fields read for one row."""

    sensors: dict[str, SuiteColumn]
    mean: SuiteColumn


class Loaded:
    """A loaded report.

    Args:
        path: report.json, or its folder.

    Raises:
        UserError: the report cannot be read, or has nothing to compare.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / REPORT if path.is_dir() else path
        report = self._read()
        self.about = {key: str(report[key]) for key in RUN_FIELDS if report.get(key) is not None}
        if isinstance(machine := report.get("machine"), dict) and "processor" in machine:
            self.about["processor"] = str(machine["processor"])
        if isinstance(frames := report.get("frames"), dict) and frames.get("hashes"):
            self.about["SHA-256 of the scans"] = str(frames["hashes"].get("scans"))
        latency = report.get("latency_ms") or {}
        self.latency = {name: float(value) for name, value in latency.items() if isinstance(value, int | float)}
        self.accuracy: Accuracy | None = None
        self.rows: dict[str, SuiteRow] = {}
        try:
            if report.get("accuracy") is not None:
                self.accuracy = Accuracy.model_validate(report["accuracy"])
            elif report.get("suite") and isinstance(report.get("rows"), dict):
                self.rows = {name: SuiteRow.model_validate(row) for name, row in report["rows"].items()}
        except ValidationError as error:
            raise UserError(
                f"{self.path} was written by another version of cmp-seg ({describe_invalid(error)}); evaluate again"
            ) from error
        if self.accuracy is None and not self.rows:
            raise UserError(
                f"{self.path} has neither a section `accuracy` nor rows of a benchmark suite: it is from cmp-seg "
                f"{report.get('command', '(unknown)')}; give reports of `cmp-seg evaluate INPUT --out DIR`, with an "
                "INPUT that has truth, or of `cmp-seg evaluate --suite NAME --out DIR`"
            )

    def _read(self) -> dict[str, Any]:
        try:
            report = json.loads(self.path.read_text())
        except OSError as error:
            remedy = f"give a {REPORT}, or the folder that `cmp-seg evaluate --out` wrote it to"
            raise UserError(f"{self.path} cannot be read: {error.strerror}; {remedy}") from error
        except ValueError as error:
            raise UserError(f"{self.path} is not JSON: {error}; give the {REPORT} of `cmp-seg evaluate`") from error
        if not isinstance(report, dict):
            raise UserError(f"{self.path} is not a report; give the {REPORT} of `cmp-seg evaluate`")
        if report.get("finished") is False:
            raise UserError(f"{self.path} is from a run that did not finish; run it again")
        return report

    def counts(self, groups: Groups, names: Sequence[str], shape: tuple[int, int]) -> Float64:
        """(G, *shape) counts of the named groups, in this order. Raises UserError."""
        try:
            return unpack(groups[name] for name in names).reshape(len(names), *shape)
        except ValueError as error:
            raise UserError(f"{self.path} has groups with invalid counts ({error}); evaluate again") from error


def compare(a: Loaded, b: Loaded) -> Comparison:
    """Compare two reports. Raises UserError if they have nothing in common."""
    return Comparer(a, b).comparison()


class Comparer:
    """Makes the sections, and collects `notes` about them."""

    def __init__(self, a: Loaded, b: Loaded) -> None:
        self.a, self.b, self.bootstrap = a, b, Bootstrap()
        self.notes: list[str] = []

    def comparison(self) -> Comparison:
        """The whole comparison."""
        a, b = self.a, self.b
        for key in {**a.about, **b.about}:
            if a.about.get(key) != b.about.get(key):
                self.notes.append(f"{key}: A {a.about.get(key, '-')}, B {b.about.get(key, '-')}")
        if a.accuracy is not None and b.accuracy is not None:
            sections = list(self._accuracy(a.accuracy, b.accuracy))
        elif a.rows and b.rows:
            sections = list(self._suite())
        else:
            suite, other = (a, b) if a.rows else (b, a)
            raise UserError(
                f"{suite.path} is from a benchmark suite and {other.path} is not; compare two reports of a suite, or "
                "two others"
            )
        if a.latency and b.latency:
            sections.append(self._latency())
        return Comparison(
            a=Source(path=str(a.path), about=a.about),
            b=Source(path=str(b.path), about=b.about),
            bootstrap=self.bootstrap,
            sections=sections,
            summary=[text for section in sections if not section.detail and (text := describe_section(section))],
            notes=list(dict.fromkeys(self.notes)),
        )

    # Reports with the section `accuracy`.

    def _accuracy(self, a: Accuracy, b: Accuracy) -> Iterator[Section]:
        common = [name for name in a.readings if name in b.readings]
        common = [name for name in common if a.readings[name].classes == b.readings[name].classes]
        if not common:
            raise UserError(
                f"{self.a.path} has the label spaces {', '.join(a.readings)}, {self.b.path} {', '.join(b.readings)}, "
                "none in common; evaluate both against truth of the same label space"
            )
        if left := [name for name in {**a.readings, **b.readings} if name not in common]:
            self.notes.append(f"not in both reports, or with different classes: {', '.join(left)}")
        for name in sorted(common, key=lambda name: name != a.headline):  # the headline first
            for section in self._reading(name, a.readings[name], b.readings[name]):
                detail = section.detail or (name != a.headline and section.title != name)
                yield section.model_copy(update={"detail": detail})
        yield from self._reliability(a.reliability, b.reliability)
        yield from self._consistency(a.consistency, b.consistency)

    def _reading(self, title: str, a: Reading, b: Reading) -> Iterator[Section]:
        classes = a.classes
        shape = (len(classes), len(classes) + 1)
        self._same_scans(title, a, b, shape)

        def of_all(matrix: Float64) -> Float64:
            iou, recall = iou_of(matrix), recall_of(matrix)
            means = [mean_of(iou), mean_of(recall), overall_accuracy_of(matrix)]
            return np.concatenate([np.stack(means, axis=-1), iou], axis=-1)

        def of_detail(matrix: Float64) -> Float64:
            return np.concatenate([precision_of(matrix), recall_of(matrix)], axis=-1)

        names = ["mIoU", "mean accuracy", "overall accuracy", *(f"IoU {name}" for name in classes)]
        values = [[r.miou, r.mean_accuracy, r.overall_accuracy, *map(r.iou.get, classes)] for r in (a, b)]
        yield self._drawn(title, names, values, (a.groups, b.groups), shape, of_all)
        names = [f"{what} {name}" for what in ("precision", "recall") for name in classes]
        values = [[*map(r.precision.get, classes), *map(r.recall.get, classes)] for r in (a, b)]
        by_class = self._drawn(f"{title}, by class", names, values, (a.groups, b.groups), shape, of_detail)
        yield by_class.model_copy(update={"detail": True})
        if [score.name for score in a.by_range] != [score.name for score in b.by_range]:
            self.notes.append("not compared by range: the bins differ")
            return
        figures = [
            _figure(f"mIoU {one.name}", one.miou, other.miou) for one, other in zip(a.by_range, b.by_range, strict=True)
        ]
        yield Section(title=f"{title}, by range", intervals="none: bins are not stored by group", figures=figures)

    def _same_scans(self, title: str, a: Reading, b: Reading, shape: tuple[int, int]) -> None:
        if a.groups.keys() != b.groups.keys():
            return
        truths = [side.counts(r.groups, list(a.groups), shape).sum(axis=2) for side, r in ((self.a, a), (self.b, b))]
        if (truths[0] != truths[1]).any():
            self.notes.append(
                f"{title}: groups of the same name have different points in A and B; are the inputs the same?"
            )

    def _reliability(self, a: ReliabilityCurve | None, b: ReliabilityCurve | None) -> Iterator[Section]:
        if a is None or b is None:
            return
        if a.space != b.space or len(a.bins) != len(b.bins):
            self.notes.append("calibration of confidences is not compared: label spaces or bins differ")
            return
        section = self._drawn(
            "calibration of confidences",
            ["ECE"],
            [[a.ece], [b.ece]],
            (a.groups, b.groups),
            (3, len(a.bins)),
            lambda counts: ece_of(counts)[..., None],
            less_is_better=True,
        )
        section.figures.append(_figure("mean confidence", a.confidence, b.confidence))
        yield section

    def _consistency(self, a: TemporalConsistency | None, b: TemporalConsistency | None) -> Iterator[Section]:
        if a is None or b is None:
            return
        if a.classes != b.classes or a.voxel_size != b.voxel_size:
            self.notes.append("temporal consistency is not compared: label spaces or voxel sizes differ")
            return
        stay = stays(a.classes)

        def statistic(matrix: Float64) -> Float64:
            return np.stack([agreement_of(matrix), mean_of(temporal_iou_of(matrix)[..., stay])], axis=-1)

        values = [[found.agreement, found.miou] for found in (a, b)]
        names, shape = ["agreement", "mIoU over time"], (len(a.classes), len(a.classes))
        yield self._drawn("temporal consistency", names, values, (a.groups, b.groups), shape, statistic)

    def _drawn(
        self,
        title: str,
        names: list[str],
        values: list[list[float | None]],
        groups: tuple[Groups, Groups],
        shape: tuple[int, int],
        statistic: Callable[[Float64], Float64],
        less_is_better: bool = False,
    ) -> Section:
        """Figures with bootstrap intervals of their differences; `statistic`: (..., *shape) -> (..., F)."""
        paired = groups[0].keys() == groups[1].keys()
        a = self.a.counts(groups[0], list(groups[0]), shape)
        b = self.b.counts(groups[1], list(groups[0] if paired else groups[1]), shape)
        drawn = self.bootstrap.difference(a, b, statistic, paired)  # (R, F)
        intervals = map(self.bootstrap.interval, drawn.T)
        return Section(
            title=title,
            intervals=self._how(paired, len(a), len(b)),
            figures=[
                _figure(name, one, other, interval, less_is_better)
                for name, one, other, interval in zip(names, *values, intervals, strict=True)
            ],
        )

    def _how(self, paired: bool, a: int, b: int) -> str:
        if min(a, b) < 2:
            self.notes.append(
                "no intervals with fewer than two groups of scans (buildings, stretches of a drive): these differences "
                "may be noise; evaluate more groups"
            )
            return "none: a single group"
        if min(a, b) < FEW:
            self.notes.append(
                f"intervals from fewer than {FEW} groups are too narrow; a difference just outside may be noise"
            )
        return f"paired, {a} groups" if paired else f"unpaired: {a} groups in A, {b} in B, not the same ones"

    # Reports of a benchmark suite.

    def _suite(self) -> Iterator[Section]:
        common = [name for name in self.a.rows if name in self.b.rows]
        if not common:
            raise UserError(
                f"{self.a.path} has rows {', '.join(self.a.rows)}, {self.b.path} {', '.join(self.b.rows)}; compare "
                "reports of the same benchmark suite"
            )
        for name in common:
            a, b = self.a.rows[name], self.b.rows[name]
            sensors = [sensor for sensor in a.sensors if sensor in b.sensors]
            if any(a.sensors[sensor].scans_sha256 != b.sensors[sensor].scans_sha256 for sensor in sensors):
                self.notes.append(f"{name}: A and B were measured on different scans")
            columns = [{sensor: row.sensors[sensor] for sensor in sensors} for row in (a, b)]
            if a.sensors.keys() == b.sensors.keys():
                columns = [{"mean": row.mean, **found} for row, found in zip((a, b), columns, strict=True)]
            yield self._row(f"primary mIoU, {name}", columns[0], columns[1])

    def _row(self, title: str, a: dict[str, SuiteColumn], b: dict[str, SuiteColumn]) -> Section:
        values = [[column.primary for column in row.values()] for row in (a, b)]
        sensors = [name for name in a if name != "mean"]
        joined = [_joined([row[name].groups for name in sensors]) for row in (a, b)]
        if joined[0] is None or joined[1] is None:
            figures = [_figure(name, a[name].primary, b[name].primary, _independent(a[name], b[name])) for name in a]
            how = "unpaired: from the reports' intervals, as if A and B were independent (Zou and Donner 2008)"
            return Section(title=title, intervals=how, figures=figures)
        classes = next(iter(a[sensors[0]].groups.values())).count(";") + 1

        def statistic(matrices: Float64) -> Float64:
            by_sensor = mean_of(iou_of(matrices.reshape(*matrices.shape[:-2], len(sensors), classes, classes + 1)))
            with_mean = np.concatenate([by_sensor.mean(axis=-1, keepdims=True), by_sensor], axis=-1)
            return with_mean if "mean" in a else by_sensor

        shape = (len(sensors) * classes, classes + 1)
        return self._drawn(title, list(a), values, (joined[0], joined[1]), shape, statistic)

    def _latency(self) -> Section:
        figures = [
            _figure(name, value, self.b.latency[name], unit="ms")
            for name, value in self.a.latency.items()
            if name in self.b.latency
        ]
        return Section(title="latency", intervals="none: reports only have percentiles", figures=figures)


WORDS: dict[Verdict, str] = {
    "better": "B better",
    "worse": "B worse",
    "noise": "noise",
    "equal": "equal",
    "unknown": "no interval",
}


def describe_section(section: Section) -> str:
    """One line on which figures of a section differ by more than noise; empty if none has an interval."""
    found: dict[Verdict, list[str]] = {verdict: [] for verdict in WORDS if verdict != "unknown"}
    for figure in section.figures:
        if figure.verdict in found:
            differs = figure.verdict in ("better", "worse")
            found[figure.verdict].append(f"{figure.name} ({format_difference(figure)})" if differs else figure.name)
    said = [f"{WORDS[verdict]}: {', '.join(names)}" for verdict, names in found.items() if names]
    return f"{section.title}: {'; '.join(said)}" if said else ""


def format_value(value: float | None, figure: Figure) -> str:
    """A value of a figure as text: per cent, or milliseconds; a dash for None."""
    if value is None:
        return "-"
    return f"{value:.1f} ms" if figure.unit == "ms" else f"{100 * value:.2f} %"


def format_difference(figure: Figure) -> str:
    """The signed difference as text: percentage points, or milliseconds."""
    if figure.difference is None:
        return "-"
    return f"{figure.difference:+.1f} ms" if figure.unit == "ms" else f"{100 * figure.difference:+.2f}"


def format_interval(figure: Figure) -> str:
    """The interval of the difference as text, in percentage points."""
    return "-" if figure.interval is None else " to ".join(f"{100 * end:+.2f}" for end in figure.interval)


def _figure(
    name: str,
    a: float | None,
    b: float | None,
    interval: Interval | None = None,
    less_is_better: bool = False,
    unit: Literal["fraction", "ms"] = "fraction",
) -> Figure:
    difference = None if a is None or b is None else b - a
    verdict: Verdict = "unknown"
    if difference is None:
        interval = None
    elif interval is not None:
        low, high = interval
        if low <= 0 <= high:
            verdict = "equal" if difference == low == high else "noise"
        else:
            verdict = "better" if (low > 0) != less_is_better else "worse"
    return Figure(name=name, unit=unit, a=a, b=b, difference=difference, interval=interval, verdict=verdict)


def _joined(by_sensor: list[Groups]) -> Groups | None:
    """The matrices of all sensors, stacked, by group; None if the groups of the sensors differ, or there are none."""
    names = list(by_sensor[0]) if by_sensor else []
    if not names or any(groups.keys() != by_sensor[0].keys() for groups in by_sensor):
        return None
    return {name: "; ".join(groups[name] for groups in by_sensor) for name in names}


def _independent(a: SuiteColumn, b: SuiteColumn) -> Interval | None:
    """Interval of the difference of two independent figures by their intervals (Zou and Donner 2008, Stat. Med. 27)."""
    if a.primary is None or b.primary is None or a.interval is None or b.interval is None:
        return None
    difference = b.primary - a.primary
    down = np.hypot(b.primary - b.interval[0], a.interval[1] - a.primary)
    up = np.hypot(b.interval[1] - b.primary, a.primary - a.interval[0])
    return float(difference - down), float(difference + up)

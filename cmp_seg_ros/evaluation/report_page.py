"""The page of a report: what was evaluated, accuracy, consistency and speed; made from the report and its pictures."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from cmp_seg_ros.datasets.frame import named
from cmp_seg_ros.evaluation import page, reliability
from cmp_seg_ros.evaluation.accuracy import Accuracy, Reading
from cmp_seg_ros.evaluation.bootstrap import FEW
from cmp_seg_ros.evaluation.consistency import TemporalConsistency
from cmp_seg_ros.evaluation.page import NONE, Block, Cell, Notes, Page, Picture, Row, Section, Table, facts, percent
from cmp_seg_ros.evaluation.pipeline import Consumer
from cmp_seg_ros.evaluation.plots import faint_grid, new_figure, save
from cmp_seg_ros.evaluation.report import Percentiles, PlaneReport, PlaneScores, Report

RELIABILITY, LATENCY = "reliability.png", "latency.png"
PICTURES = {
    "worst.png": "The scan with the lowest mIoU: labels, truth and errors from above, then as range images.",
    "best.png": "The scan with the highest mIoU.",
    "animation.webp": "The whole sequence: labels from above and as range images.",
    "overview.png": "A labelled scan.",
}
MANY = 16  # rows; longer tables of details are folded
RARE = 0.001  # share of the points below which a class is named beside the mean
PLANES_SHOWN = 5  # pictures of plane checks


class PageFiles(Consumer):
    """Writes page.html and report.md into the folder `out`; the last consumer, as it needs the complete report."""

    replaces = (page.HTML, page.MARKDOWN, RELIABILITY, LATENCY)

    def __init__(self, out: Path) -> None:
        self.out = out

    def begin(self) -> None:
        for name in self.replaces:  # of an earlier run
            (self.out / name).unlink(missing_ok=True)

    def finish(self, report: Report) -> None:
        curves = {source: a.reliability for source, a in sources_of(report).items() if a.reliability is not None}
        if curves:
            reliability.plot(self.out / RELIABILITY, curves, "Calibration of confidences")
            report.files.append(RELIABILITY)
        if report.latency_by_frame_ms:
            plot_latency(self.out / LATENCY, report.latency_by_frame_ms)
            report.files.append(LATENCY)
        report.files += [page.HTML, page.MARKDOWN]
        page_of(report, self.out).write(self.out)


def page_of(report: Report, folder: Path) -> Page:
    """The page of a report whose pictures, named by its `files`, are in `folder`."""
    accuracies = sources_of(report)
    sections = [about(report)]
    if len(accuracies) > 1:
        sections.append(Section("Side by side", [side_by_side(accuracies)]))
    sections += [accuracy_section(source, accuracy) for source, accuracy in accuracies.items()]
    sections += [
        Section("Pictures", pictures(report, folder)),
        Section("Confidence", confidence(accuracies, folder) if RELIABILITY in report.files else []),
        Section("Agreement over time", over_time(report)),
        Section("Floor, ceiling and walls", planes(report, folder)),
        Section("Speed", speed(report, folder)),
    ]
    partial = f"Partial: the run was interrupted after {report.frames.read:,} scans. Run it again for the whole input."
    notes = [Notes([*([] if report.finished else [partial]), *report.problems], serious=True), Notes(report.warnings)]
    name = "/".join(Path(report.input).parts[-2:]) if report.input else report.model
    return Page(f"Evaluation of {name}", sections, headline(report), notes)


def sources_of(report: Report) -> dict[str, Accuracy]:
    """The accuracies of a report by the source of their truth."""
    first = {} if report.accuracy is None else {report.source or "truth": report.accuracy}
    return first | report.other_sources


def headline(report: Report) -> list[tuple[str, str]]:
    """The figures at the top."""
    found: dict[str, float | None] = {}
    for source, accuracy in sources_of(report).items():
        name = f"mIoU, {accuracy.headline.replace('_', ' ')}, against {named(source)}"
        found[name] = accuracy.main.miou
    if report.planes is not None:
        median = report.planes.median
        found |= {"floor recall": median.floor.recall, "ceiling recall": median.ceiling.recall}
        found["wall recall"] = median.wall.recall
    over_time = _consistency(report)
    if over_time is not None:
        found["agreement over time"] = over_time.agreement
    shown = [(name, percent(value).text) for name, value in found.items()]
    return [*shown, ("scans", f"{report.frames.labelled:,}")]


def about(report: Report) -> Section:
    """What was evaluated, with hashes, and which classes were found."""
    frames, hashes = report.frames, report.frames.hashes
    skipped = [(f"skipped: {reason}", f"{count:,}") for reason, count in frames.skipped.items()]
    pairs: list[tuple[str, object]] = [
        ("input", report.input),
        ("topic", report.topic),
        ("calibration", report.calibration),
        ("scans", f"{frames.labelled:,} of {frames.read:,}, {report.points:,} points"),
        *skipped,
        ("SHA-256 of the scans", hashes and hashes.scans),
        ("SHA-256 of the labels", hashes and hashes.labels),
        ("model", report.model),
        ("bundle hash", report.bundle),
        ("engine", report.engine),
        ("label space", report.label_space),
        ("voxels", f"{report.voxels_per_scan:,.0f} a scan, of {report.voxel_size:g} m" if report.voxel_size else ""),
    ]
    share: list[Row] = [[name, percent(value, bar=True)] for name, value in report.share.items()]
    note = f"{report.unlabelled:.1%} of all points have no label: no return, or beyond the view." * (
        report.unlabelled > 0
    )
    return Section("What was evaluated", [facts(pairs), Table(["class", "share of labelled points"], share, note=note)])


def side_by_side(accuracies: Mapping[str, Accuracy]) -> Table:
    """The headline readings against several sources: IoU by class, mean, points."""
    readings = {source: accuracy.main for source, accuracy in accuracies.items()}
    rows = iou_rows(readings.values())
    rows.append(["points", *(f"{sum(reading.points.values()):,}" for reading in readings.values())])
    rows.append(["scans", *(f"{accuracy.scans:,}" for accuracy in accuracies.values())])
    names = [f"IoU against {named(source)} ({accuracy.headline})" for source, accuracy in accuracies.items()]
    return Table(["class", *names], rows)


def accuracy_section(source: str, accuracy: Accuracy) -> Section:
    """All scores against one source."""
    reading = accuracy.main
    blocks: list[Block] = [
        f"{accuracy.scans:,} scans, {sum(reading.points.values()):,} points of {named(source)} in "
        f"{accuracy.truth_space}. Tables without another name are in {accuracy.headline}, the headline.",
        iou_table(accuracy, "By class, in all readings"),
        by_class(reading),
        *(confusion(other, f"Confusion in {name}", other is not reading) for name, other in accuracy.readings.items()),
        by_range(reading),
    ]
    if reading.by_ring:
        blocks.append(by_ring(reading))
    return Section(f"Labels against {named(source)}", blocks)


def iou_rows(readings: Iterable[Reading]) -> list[Row]:
    """IoU of every class and mIoU, a column for each reading; empty where a reading has no such class."""
    readings = list(readings)
    rows: list[Row] = [
        [name, *(percent(r.iou[name], bar=True) if name in r.iou else "" for r in readings)]
        for name in dict.fromkeys(name for r in readings for name in r.classes)
    ]
    return [*rows, ["mIoU", *(percent(r.miou, bar=True) for r in readings)]]


def iou_table(accuracy: Accuracy, title: str) -> Table:
    """IoU by class, with a column for each reading of the truth; classes that are not in the truth have an asterisk."""
    readings = accuracy.readings.values()
    rows = iou_rows(readings)
    untrue = {name for r in readings for name, iou in r.iou.items() if iou is not None and not r.points[name]}
    rows = [[f"{row[0]} *", *row[1:]] if row[0] in untrue else row for row in rows]
    rows.insert(-1, [])
    notes = ["* not in the truth; points that are labelled so are errors: an IoU of 0 in the mean"] if untrue else []
    rare = {name for r in readings for name, count in r.points.items() if 0 < count < RARE * sum(r.points.values())}
    if rare:
        notes.append(f"{', '.join(sorted(rare))}: below {RARE:.1%} of the points, but of full weight in the mean")
    if any(r.interval for r in readings):
        ends = [NONE if r.interval is None else f"{r.interval[0]:.1%} to {r.interval[1]:.1%}" for r in readings]
        rows.append([f"{accuracy.bootstrap.level:.0%} interval", *ends])
        if len(accuracy.main.groups) < FEW:
            notes.append(f"intervals from fewer than {FEW} groups (buildings, stretches of a drive) are too narrow")
    rows.append(["overall accuracy", *(percent(r.overall_accuracy, bar=True) for r in readings)])
    rows.append(["points", *(f"{sum(r.points.values()):,}" for r in readings)])
    return Table(["IoU", *(name.replace("_", " ") for name in accuracy.readings)], rows, title, "; ".join(notes))


def by_class(reading: Reading) -> Table:
    rows: list[Row] = [
        [
            name,
            *(percent(scores[name], bar=True) for scores in (reading.iou, reading.precision, reading.recall)),
            f"{reading.points[name]:,}",
        ]
        for name in reading.classes
    ]
    return Table(["class", "IoU", "precision", "recall", "points"], rows, "By class")


def confusion(reading: Reading, title: str, folded: bool) -> Table:
    """A row per true class: the shares of its points that got each label."""
    rows: list[Row] = []
    for name, counts in zip(reading.classes, reading.confusion, strict=True):
        total = sum(counts)
        shares = [count / total if total else None for count in counts]
        cells = [Cell(NONE if share is None else f"{share:.1%}", shade=share or 0.0) for share in shares]
        rows.append([name, *cells, f"{total:,}"])
    note = "Rows: true classes; columns: labels. Share of the points of a row."
    return Table(["true", *reading.classes, "no label", "points"], rows, title, note, folded)


def by_range(reading: Reading) -> Table:
    rows: list[Row] = [[one.name, percent(one.miou, bar=True), f"{one.points:,}"] for one in reading.by_range]
    return Table(["range", "mIoU", "points"], rows, "By distance from the lidar", "Mean over the classes in the bin.")


def by_ring(reading: Reading) -> Table:
    rings = reading.by_ring or []
    rows: list[Row] = [[str(ring.ring), percent(ring.miou, bar=True), f"{ring.points:,}"] for ring in rings]
    return Table(["ring", "mIoU", "points"], rows, "By ring", folded=len(rows) > MANY)


def confidence(accuracies: Mapping[str, Accuracy], folder: Path) -> list[Block]:
    rows: list[Row] = [
        [source, curve.space, *map(percent, (curve.confidence, curve.accuracy, curve.ece))]
        for source, accuracy in accuracies.items()
        if (curve := accuracy.reliability) is not None
    ]
    caption = "Share of right points over confidence (above), and share of points (below), in 15 bins of confidence."
    return [
        Table(["against", "in", "mean confidence", "right", "calibration error (ECE)"], rows),
        Picture(folder / RELIABILITY, caption),
    ]


def over_time(report: Report) -> list[Block]:
    found = _consistency(report)
    if found is None:
        return []
    rows: list[Row] = [[name, percent(value, bar=True)] for name, value in found.iou.items()]
    rows.append(["mean", percent(found.miou, bar=True)])
    rows.append(["agreement", percent(found.agreement, bar=True)])
    if found.truth is not None:
        rows.append(["agreement of the truth", percent(found.truth, bar=True)])
    text = (
        f"Consecutive scans compared: {found.pairs:,}, with {found.places:,} places (voxels of {found.voxel_size:g} m "
        "that both see). Consistent labels can be wrong."
    )
    return [text, Table(["class", "IoU over time"], rows)]


def plane_tables(scores: PlaneReport) -> list[Table]:
    """Medians over the scans, and each scan."""

    def row(name: str, found: PlaneScores) -> Row:
        floor, ceiling, wall = found.floor, found.ceiling, found.wall
        shares = (floor.recall, floor.precision, ceiling.recall, ceiling.precision, wall.recall)
        return [name, *map(percent, shares), f"{wall.planes:g}"]

    header = ["scan", "floor recall", "precision", "ceiling recall", "precision", "wall recall", "walls"]
    medians = [row("median", scores.median)]
    if scores.perfect_median is not None:
        medians.append(row("perfect labeller", scores.perfect_median))
    scans = [row(scan.key, scan) for scan in scores.scans]
    return [
        Table(header, medians, "Labels against planes"),
        Table(header, scans, "Scan by scan", folded=len(scans) > MANY),
    ]


def planes(report: Report, folder: Path) -> list[Block]:
    if report.planes is None:
        return []
    drawn = [name for name in report.files if name.startswith("planes-")][:PLANES_SHOWN]
    return [
        "Labels compared with the planes found by geometry alone: share of the points of a plane with its label, and "
        "share of the points with a label that are on such a plane.",
        *plane_tables(report.planes),
        *(Picture(folder / name, "Planes from above and from the side; wrong labels in red.") for name in drawn),
    ]


def pictures(report: Report, folder: Path) -> list[Block]:
    return [Picture(folder / name, caption) for name, caption in PICTURES.items() if name in report.files]


def latency_table(latencies: Mapping[str, Percentiles], title: str = "ms per scan", note: str = "") -> Table:
    """Percentiles of milliseconds, by name of a stage."""
    rows = [
        [stage, *(f"{values[p]:.1f}" if p in values else NONE for p in ("p50", "p95", "p99"))]
        for stage, values in latencies.items()
    ]
    return Table([title, "p50", "p95", "p99"], rows, note=note)


def speed(report: Report, folder: Path) -> list[Block]:
    """Times and machine: the only section that differs between two runs on the same input."""
    blocks: list[Block] = []
    if report.stages_ms:
        blocks.append(latency_table(report.stages_ms, note="Without the first scan."))
    if LATENCY in report.files:
        blocks.append(Picture(folder / LATENCY, "Milliseconds of each scan in order, and their distribution."))
    machine, live = report.machine, report.scans
    if live is not None:
        dropped = ", ".join(f"{reason} {count:,}" for reason, count in live.dropped_by_reason.items() if count)
        age = ", ".join(f"{name} {value:.1f} ms" for name, value in report.latency_ms.items())
        blocks.append(
            facts(
                [
                    ("played", f"{live.played:,} scans at {report.played_at:g} times the recorded rate"),
                    ("labelled", f"{live.out:,} of {live.in_:,} that came in, {report.rate_hz:.2f} a second"),
                    ("dropped", f"{live.dropped:,}" + (f" ({dropped})" if dropped else "")),
                    ("age, scan stamp to labelled cloud", age),
                ],
                "Live, over ROS",
            )
        )
    blocks.append(
        facts(
            [
                ("processor", f"{machine.processor}, {machine.cores} cores"),
                ("Python", machine.python),
                *((f"memory, {name}", f"{value:.0f} MB") for name, value in report.memory_mb.items()),
            ]
        )
    )
    return blocks


def plot_latency(path: Path, latencies: list[float]) -> None:
    """Save a plot of milliseconds: of each scan in order, and the share of the scans that took at most so long."""
    figure = new_figure(11, 4, "Latency")
    by_scan, share = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    by_scan.plot(latencies, ".", markersize=3, color="C0")
    by_scan.set(xlabel="scan", ylabel="milliseconds", ylim=(0, None))
    share.plot(np.linspace(0, 100, len(latencies)), np.sort(latencies), color="C0")
    for percentile in (50, 95):
        value = float(np.percentile(latencies, percentile))
        share.plot(percentile, value, "o", color="C1")
        text = f"p{percentile} {value:.0f} ms"
        share.annotate(text, (percentile, value), (-6, 6), textcoords="offset points", ha="right")
    share.set(xlabel="per cent of the scans that took at most so long", xlim=(0, 100))
    faint_grid(by_scan)
    faint_grid(share)
    figure.subplots_adjust(left=0.07, right=0.98, top=0.88, bottom=0.15, wspace=0.06)
    save(figure, path)


def _consistency(report: Report) -> TemporalConsistency | None:
    return report.consistency if report.accuracy is None else report.accuracy.consistency

"""`cmp-seg evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from cmp_seg_ros.evaluation.suites.tables import Sheet

SUITE = "With --suite"
ROWS = 40  # of the table of planes, at most
READINGS = {"structural4_primary": "structural4, primary", "structural4_strict": "structural4, strict"}


def evaluate(
    input: Annotated[
        Path | None,
        typer.Argument(
            help="A simulated bag, or the folder of `cmp-seg simulate`. With --planes any bag, .pcd, .ply, .npy, .bin, "
            "Ouster .pcap or .osf, or a folder of such. Nothing with --suite.",
            show_default=False,
        ),
    ] = None,
    planes: Annotated[
        bool, typer.Option("--planes", help="Check labels against floor, ceiling and walls; needs no truth.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and pictures.")] = None,
    model: Annotated[str, typer.Option(help="A bundle: a folder, or a name in models/.")] = DEFAULT_BUNDLE,
    engine: Annotated[str, typer.Option(help="auto, or an engine by name; reference is the plain network.")] = "auto",
    topic: Annotated[str, typer.Option(help="PointCloud2 topic, where the bag has several.")] = "",
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration file; by default calibration.yaml beside the bag, if there is one.")
    ] = None,
    lidar: Annotated[str, typer.Option(help="Name of the lidar, where the calibration has several.")] = "",
    voxel_size: Annotated[
        float | None,
        typer.Option(help="Metres, instead of the model's; every point still gets a label.", min=0.01, max=2.0),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    suite: Annotated[
        str, typer.Option(help="Run this benchmark suite: a name in config/suites/, or a file.", rich_help_panel=SUITE)
    ] = "",
    only: Annotated[
        str,
        typer.Option(help="Rows of it, by commas; with those that they are compared with.", rich_help_panel=SUITE),
    ] = "",
    buildings: Annotated[
        int | None, typer.Option(help="Only its first so many buildings.", min=1, rich_help_panel=SUITE)
    ] = None,
    scenes: Annotated[
        Path | None,
        typer.Option(
            help="Folder of furnished scenes; by default scenes/ in $CMP_SEG_SHARED_DATA.", rich_help_panel=SUITE
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes; by default one a processor.", min=1, rich_help_panel=SUITE)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if a must of it is missed.", rich_help_panel=SUITE)
    ] = False,
) -> None:
    """Compare labels with the truth of a simulated bag, with the planes of any scans, or run a benchmark suite.

    Exits with 1 if a scan could not be read, after the others.
    """
    others: dict[str, Any]
    if suite:
        others = {"INPUT": input, "--planes": planes, "--topic": topic, "--calibration": calibration, "--lidar": lidar}
        if given := [name for name, value in others.items() if value]:
            raise UserError(f"a benchmark suite brings its own scans; leave out {', '.join(given)}, or --suite")
        rows = [name for name in only.split(",") if name]
        _suite(suite, model, engine, voxel_size, rows, buildings, scenes, out, workers, check, as_json)
        return
    others = {"--only": only, "--buildings": buildings, "--scenes": scenes, "--workers": workers, "--check": check}
    if given := [name for name, value in others.items() if value]:
        raise UserError(f"{', '.join(given)}: only with --suite NAME")
    if input is None:
        raise UserError("nothing to evaluate; give a simulated bag, any scans and --planes, or --suite NAME")
    _input(input, planes, out, model, engine, topic, calibration, lidar, voxel_size, as_json)


def _input(
    input: Path,
    planes: bool,
    out: Path | None,
    model: str,
    engine: str,
    topic: str,
    calibration: Path | None,
    lidar: str,
    voxel_size: float | None,
    as_json: bool,
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from cmp_seg_ros.datasets.bag import bag_of
    from cmp_seg_ros.evaluation.plane_check import PlaneCheck
    from cmp_seg_ros.evaluation.session import Rig, counted
    from cmp_seg_ros.evaluation.simulated import BagEvaluation, SimulatedBag
    from cmp_seg_ros.outputs import require_writable

    if out is not None:
        require_writable(out, "evaluate")
    evaluation: BagEvaluation | PlaneCheck
    if planes:
        rig = Rig(bag_of(input), calibration, lidar)
        evaluation = PlaneCheck(input, rig.segmenter(model, engine, voxel_size=voxel_size), rig, out, topic)
    else:
        pairs = SimulatedBag(input, topic)
        rig = Rig(pairs.path, calibration, lidar)
        evaluation = BagEvaluation(pairs, rig.segmenter(model, engine, voxel_size=voxel_size), rig, out)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("scans", total=evaluation.count)
        report = evaluation.run(lambda done: bar.update(task, completed=done))
    scans = counted(len(report["scans"]) if planes else report["scans"], "scan")
    if as_json:
        print(json.dumps(report))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for table in (plane_table,) if planes else (iou_table, latency_table):
            console.print(table(report))
        console.print(f"{scans}, {report['model']} with {report['engine']}", markup=False)
        for warning in report["warnings"]:
            Console(stderr=True, soft_wrap=True).print(f"warning: {warning}", markup=False, highlight=False)
    if report["problems"]:
        raise UserError(f"{scans} evaluated, but: {'; '.join(report['problems'])}")


def _suite(
    name: str,
    model: str,
    engine: str,
    voxel_size: float | None,
    only: list[str],
    buildings: int | None,
    scenes: Path | None,
    out: Path | None,
    workers: int | None,
    check: bool,
    as_json: bool,
) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from cmp_seg_ros.evaluation.suites import plot
    from cmp_seg_ros.evaluation.suites.run import SuiteRun
    from cmp_seg_ros.evaluation.suites.scores import compile_report
    from cmp_seg_ros.evaluation.suites.suite import Suite
    from cmp_seg_ros.evaluation.suites.tables import heading, markdown, sheets
    from cmp_seg_ros.outputs import require_writable, write_report, writing

    if out is not None:
        require_writable(out, "evaluate")
    run = SuiteRun(Suite.load(name), model, engine, voxel_size, only, buildings, scenes, out, workers)
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    for row, reason in run.skipped.items():
        errors.print(f"warning: row {row} is left out: {reason}", markup=False)
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True) as bar:
        task = bar.add_task("buildings by sensor and place", total=run.count)
        report = compile_report(run, run.run(lambda done: bar.update(task, completed=done)))
    if out is not None:
        with writing(out):
            write_report(out, report)
            (out / "table.md").write_text(markdown(report))
            plot.draw(out / "suite.png", report)
    if as_json:
        print(json.dumps(report))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for sheet in sheets(report):
            console.print(sheet_table(sheet))
        console.print(heading(report), markup=False)
    missed = [must for must in report["musts"] if not must["met"]]
    if check and missed:
        raise UserError("; ".join(must_sentence(must) for must in missed))


def must_sentence(must: dict[str, Any]) -> str:
    """A must that is not met, in words."""
    if must["measured"] is None:
        return f"{must['row']} was not measured ({must['what']}); leave it out with --only"
    return f"{must['row']}: {must['what']} is {must['measured']:.3f}, must be at least {must['limit']:.3f}"


def sheet_table(sheet: "Sheet") -> "Table":
    """A sheet of the suite's report; all columns but the first to the right."""
    from rich.table import Table

    table = Table(title=sheet.title, title_justify="left")
    for i, name in enumerate(sheet.header):
        table.add_column(name, justify="right" if i else "left")
    for row in sheet.rows:
        if row:
            table.add_row(*row)
        else:
            table.add_section()
    return table


def iou_table(report: dict[str, Any]) -> "Table":
    """IoU of each class, a column for each reading of the truth."""
    from rich.table import Table

    names = [name for name, value in report.items() if isinstance(value, dict) and "overall_accuracy" in value]
    table = Table("IoU", *(READINGS.get(name, name) for name in names), title="Labels against the truth")
    for label in dict.fromkeys(label for name in names for label in report[name]["iou"]):
        untrue = any(_is_untrue(report[name], label) for name in names)
        figures = (_percent(report[name]["iou"].get(label)) for name in names)
        table.add_row(f"{label} *" if untrue else label, *figures)
        if untrue:
            table.caption = (
                "* the truth has none of it; points that are labelled so all the same count as 0 in the mean"
            )
    table.add_section()
    table.add_row("mIoU", *(_percent(report[name]["miou"]) for name in names), style="bold")
    table.add_row("accuracy", *(_percent(report[name]["overall_accuracy"]) for name in names))
    table.add_row("points", *(f"{sum(report[name]['points'].values()):,}" for name in names))
    return table


def _is_untrue(reading: dict[str, Any], label: str) -> bool:
    """Whether a class is no point's truth, but some points got it."""
    return reading["iou"].get(label) is not None and not reading["points"][label]


def latency_table(report: dict[str, Any]) -> "Table":
    """Milliseconds by stage."""
    from rich.table import Table

    table = Table("ms a scan", "p50", "p95", "p99")
    for stage, values in report["stages_ms"].items():
        table.add_row(stage, *(f"{values[name]:.1f}" for name in ("p50", "p95", "p99") if name in values))
    return table


def plane_table(report: dict[str, Any]) -> "Table":
    """The plane check, a row for each scan, then the medians."""
    from rich import box
    from rich.table import Table

    columns = [("floor", "recall"), ("floor", "precision"), ("ceiling", "recall"), ("ceiling", "precision")]
    columns += [("wall", "recall")]
    table = Table("scan", title="Labels against the planes of each scan", box=box.SIMPLE_HEAD)
    for surface, figure in columns:
        table.add_column(f"{surface}\n{figure}", justify="right", min_width=len("precision"))
    table.add_column("walls", justify="right")

    def add(name: str, scores: dict[str, Any], style: str = "") -> None:
        found = (_percent(scores[surface][figure]) or "-" for surface, figure in columns)
        table.add_row(name, *found, f"{scores['wall']['planes']:g}", style=style)

    for scan in report["scans"][:ROWS]:
        add(Path(scan["file"]).name, scan)
    table.add_section()
    add("median", report["median"], "bold")
    if "perfect_median" in report:
        add("perfect labeller", report["perfect_median"])
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"

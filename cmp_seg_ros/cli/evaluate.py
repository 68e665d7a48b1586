"""`cmp-seg evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli.tables import counted, iou_table, latency_table, plane_table, print_warnings
from cmp_seg_ros.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from cmp_seg_ros.evaluation.pipeline import Consumer
    from cmp_seg_ros.evaluation.suites.tables import Sheet

SUITE = "With --suite"


def evaluate(
    input: Annotated[
        Path | None,
        typer.Argument(
            help="A simulated bag, or the folder of `cmp-seg simulate`. With --planes any bag, .pcd, .ply, .npy, .bin, "
            "Ouster .pcap or .osf, or a folder of such files. None with --suite.",
            show_default=False,
        ),
    ] = None,
    planes: Annotated[
        bool,
        typer.Option(
            "--planes", help="Check labels against floor, ceiling and walls found by geometry; needs no truth."
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json and pictures.")] = None,
    model: Annotated[str, typer.Option(help="A bundle: a folder, or a name in models/.")] = DEFAULT_BUNDLE,
    engine: Annotated[
        str, typer.Option(help="auto, or the name of an engine; reference is PyTorch in float32.")
    ] = "auto",
    topic: Annotated[str, typer.Option(help="PointCloud2 topic, if the bag has several.")] = "",
    columns: Annotated[
        str, typer.Option(help="Columns of a .bin or .npy other than x,y,z,i: e.g. x,y,z,i,r or x:f8,y:f8,z:f8.")
    ] = "",
    calibration: Annotated[
        Path | None, typer.Option(help="Calibration file; by default calibration.yaml beside the bag, if there is one.")
    ] = None,
    lidar: Annotated[str, typer.Option(help="Name of the lidar, if the calibration has several.")] = "",
    voxel_size: Annotated[
        float | None,
        typer.Option(
            help="Voxel size in metres instead of the model's; every point still gets a label.", min=0.01, max=2.0
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    suite: Annotated[
        str, typer.Option(help="Run this benchmark suite: a name in config/suites/, or a file.", rich_help_panel=SUITE)
    ] = "",
    only: Annotated[
        str,
        typer.Option(
            help="Rows to run, separated by commas; the rows that they are compared with are added.",
            rich_help_panel=SUITE,
        ),
    ] = "",
    buildings: Annotated[
        int | None, typer.Option(help="Run only the first so many buildings.", min=1, rich_help_panel=SUITE)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the third-party data that it needs; by default $CMP_SEG_SHARED_DATA.",
            rich_help_panel=SUITE,
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Number of processes; by default one per processor.", min=1, rich_help_panel=SUITE),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Exit with status 1 if a must of the suite is missed.", rich_help_panel=SUITE),
    ] = False,
) -> None:
    """Compare labels with the truth of a simulated bag or the planes of any scans, or run a benchmark suite.

    Exits with status 1 if any scan could not be read.
    """
    others: dict[str, Any]
    if suite:
        others = {
            "INPUT": input,
            "--planes": planes,
            "--topic": topic,
            "--columns": columns,
            "--calibration": calibration,
            "--lidar": lidar,
        }
        if given := [name for name, value in others.items() if value]:
            raise UserError(f"a benchmark suite has its own scans; leave out {', '.join(given)}, or --suite")
        rows = [name for name in only.split(",") if name]
        _suite(suite, model, engine, voxel_size, rows, buildings, data, out, workers, check, as_json)
        return
    others = {"--only": only, "--buildings": buildings, "--data": data, "--workers": workers, "--check": check}
    if given := [name for name, value in others.items() if value]:
        raise UserError(f"{', '.join(given)} only works with --suite NAME")
    if input is None:
        raise UserError("nothing to evaluate; give a simulated bag, any scans and --planes, or --suite NAME")
    _input(input, planes, out, model, engine, topic, columns, calibration, lidar, voxel_size, as_json)


def _input(
    input: Path,
    planes: bool,
    out: Path | None,
    model: str,
    engine: str,
    topic: str,
    columns: str,
    calibration: Path | None,
    lidar: str,
    voxel_size: float | None,
    as_json: bool,
) -> None:
    from rich.console import Console

    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.datasets import open_input
    from cmp_seg_ros.datasets.frame import TRUTH
    from cmp_seg_ros.evaluation.pipeline import Model, run
    from cmp_seg_ros.evaluation.plane_check import PlaneCheck
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.evaluation.scoring import Scores, space_of
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.outputs import require_writable

    if out is not None:
        require_writable(out, "evaluate")
    sensors = SensorSet.around(input, calibration, lidar)
    data = open_input(input, topic, sensors, columns)
    truth = None if planes else space_of(data)
    labeller = Model(model, engine, voxel_size=voxel_size)
    space = labeller.label_space
    consumer: Consumer = Scores(truth, space, out) if truth else PlaneCheck(space, data.path, sensors.file, out)
    report = Report.of("evaluate", data)
    with progress_bar("scans", data.count) as progress:
        run(data, labeller, [consumer], report, out, needs="" if planes else TRUTH, progress=progress)
    if report.unlabelled == 1:
        raise UserError(f"no point could be labelled: {'; '.join(report.problems)}")
    scans = counted(report.frames.labelled, "scan")
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        console = Console(highlight=False, soft_wrap=True)
        for table in (plane_table,) if planes else (iou_table, latency_table):
            console.print(table(report))
        console.print(f"{scans}, {report.model} with {report.engine}", markup=False)
        print_warnings(report.warnings)
    if report.problems:
        raise UserError(f"{scans} evaluated, but: {'; '.join(report.problems)}")


def _suite(
    name: str,
    model: str,
    engine: str,
    voxel_size: float | None,
    only: list[str],
    buildings: int | None,
    data: Path | None,
    out: Path | None,
    workers: int | None,
    check: bool,
    as_json: bool,
) -> None:
    from rich.console import Console

    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.evaluation.suites import plot
    from cmp_seg_ros.evaluation.suites.run import SuiteRun
    from cmp_seg_ros.evaluation.suites.scores import compile_report
    from cmp_seg_ros.evaluation.suites.suite import Suite
    from cmp_seg_ros.evaluation.suites.tables import heading, markdown, sheets
    from cmp_seg_ros.outputs import require_writable, write_report, writing

    if out is not None:
        require_writable(out, "evaluate")
    run = SuiteRun(Suite.load(name), model, engine, voxel_size, only, buildings, data, out, workers)
    print_warnings(f"row {row} is left out: {reason}" for row, reason in run.skipped.items())
    with progress_bar("buildings by sensor and place", run.count) as progress:
        parts = run.run(progress)
    report = compile_report(run, parts, dict(run.run_recordings()))
    if out is not None:
        with writing(out):
            write_report(out, report)
            (out / "table.md").write_text(markdown(report))
            if report["rows"]:
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
    """A missed must, as a sentence."""
    if must["measured"] is None:
        return f"{must['row']} was not measured ({must['what']}); leave it out with --only"
    return f"{must['row']}: {must['what']} is {must['measured']:.3f}, must be {must['bound']} {must['limit']:.3f}"


def sheet_table(sheet: "Sheet") -> "Table":
    """A sheet of the suite's report; all columns but the first are right-aligned."""
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

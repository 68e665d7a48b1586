"""`cmp-seg evaluate`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli.tables import counted, iou_table, latency_table, percent, plane_table, print_warnings
from cmp_seg_ros.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.datasets.base import DataSet
    from cmp_seg_ros.evaluation.pipeline import Consumer
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.evaluation.suites.tables import Sheet

SUITE = "With --suite"


def evaluate(
    input: Annotated[
        Path | None,
        typer.Argument(
            help="A bag, the folder of `cmp-seg simulate`, a unified data set, .pcd, .ply, .npy, .bin, Ouster .pcap or "
            ".osf, or a folder of such files. None with --suite.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        str,
        typer.Option(
            help="Label sources to compare with, separated by commas, such as hand,pseudo; by default the first that "
            "INPUT has of truth, hand, pseudo, or else --planes."
        ),
    ] = "",
    planes: Annotated[
        bool,
        typer.Option(
            "--planes",
            help="Compare with floor, ceiling and walls found by geometry, and from scan to scan; needs no truth.",
        ),
    ] = False,
    online: Annotated[
        bool,
        typer.Option(
            "--online", help="Play the bag through the real node over ROS, which drops scans that it is too slow for."
        ),
    ] = False,
    rate: Annotated[float, typer.Option(help="With --online: playback rate; 1 is real time.", min=0.01)] = 1.0,
    out: Annotated[Path | None, typer.Option(help="Folder for page.html, report.md, report.json and pictures.")] = None,
    animation: Annotated[bool, typer.Option("--animation", help="Add an animation of the scans to the page.")] = False,
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
    """Label the scans of any input and say how right the labels are, or run a benchmark suite.

    They are compared with a truth, hand labels or pseudo-labels; without any of these with planes and over time.
    Exits with status 1 if any scan could not be read.
    """
    others: dict[str, Any]
    if suite:
        others = {
            "INPUT": input,
            "--labels": labels,
            "--planes": planes,
            "--online": online,
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
        raise UserError("nothing to evaluate; give a bag, other scans, or --suite NAME")
    if labels and planes:
        raise UserError("--planes needs no labels to compare with; leave out --labels, or --planes")
    sources = [source.strip() for source in labels.split(",") if source.strip()]
    if online and (columns or voxel_size):
        raise UserError("--online plays a bag to the node; leave out --columns and --voxel-size")
    if animation and out is None:
        raise UserError("--animation needs a folder to write to; give --out")
    played_at = rate if online else None
    _input(
        input, sources, planes, played_at, out, animation, model, engine, topic, columns, calibration, lidar,
        voxel_size, as_json,
    )  # fmt: skip


def _input(
    input: Path,
    labels: list[str],
    planes: bool,
    played_at: float | None,
    out: Path | None,
    animation: bool,
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

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.datasets import open_input
    from cmp_seg_ros.evaluation.animation import Animation
    from cmp_seg_ros.evaluation.page import HTML
    from cmp_seg_ros.evaluation.pipeline import Model, run
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.evaluation.report_page import PageFiles
    from cmp_seg_ros.evaluation.scoring import consumers_for, sources_of
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.outputs import require_writable

    if out is not None:
        require_writable(out, "evaluate")
    sensors = SensorSet.around(input, calibration, lidar)
    data = open_input(input, topic, sensors, columns)
    sources = {} if planes else sources_of(data, labels)
    bundle = Bundle.find(model)
    consumers = consumers_for(data, bundle.description.label_space, sources, out)
    if out is not None:
        consumers += [Animation(bundle.description.label_space, out)] if animation else []
        consumers.append(PageFiles(out))
    report = Report.of("evaluate", data)
    if played_at is not None:
        report.played_at = played_at
        _online(data, bundle, engine, report, consumers, out, tuple(sources))
    else:
        labeller = Model(bundle.path, engine, voxel_size=voxel_size)
        with progress_bar("scans", data.count) as progress:
            run(data, labeller, consumers, report, out, needs=tuple(sources), progress=progress)
    if report.unlabelled == 1:
        raise UserError(f"no point could be labelled: {'; '.join(report.problems)}")
    scans = counted(report.frames.labelled, "scan")
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        console = Console(highlight=False, soft_wrap=True)
        tables = [iou_table] if report.accuracy is not None else [plane_table] if report.planes is not None else []
        for table in (*tables, latency_table):
            console.print(table(report))
        if report.accuracy is None and report.consistency is not None:
            console.print(f"agreement over time: {percent(report.consistency.agreement)}")
        where = "" if out is None else f"\n{out / HTML}"
        console.print(f"{scans}, {report.model} with {report.engine}{where}", markup=False)
        print_warnings(report.warnings)
    if report.problems:
        raise UserError(f"{scans} evaluated, but: {'; '.join(report.problems)}")


def _online(
    data: "DataSet",
    bundle: "Bundle",
    engine: str,
    report: "Report",
    consumers: list["Consumer"],
    out: Path | None,
    needs: tuple[str, ...],
) -> None:
    """Play the bag of a data set to a segmentation node, and evaluate what it publishes."""
    from rich.console import Console

    from cmp_seg_ros.datasets import bag
    from cmp_seg_ros.evaluation import live

    if not isinstance(data, bag.DataSet) or not data.has_clouds:
        raise UserError(f"--online needs a bag with a PointCloud2 topic, and {data.path} is none; leave out --online")
    from cmp_seg_ros.nodes.live_run import play_to_node

    # Without a target rate the voxels stay those of the bundle, so that labels are those of a run without --online.
    parameters = {"model": str(bundle.path), "engine": engine, "target_rate_hz": 0.0}
    if data.sensors.file is not None:
        name = data.sensors.name
        parameters |= {"calibration_file": str(data.sensors.file), "lidar_name": name}
    with Console(stderr=True).status("starting") as status:
        run = play_to_node(
            data.bag.path,
            {data.topic: "/points"},
            parameters,
            {"rate": report.played_at},
            lambda what, count: status.update(f"{what}: {count} labelled clouds"),
        )
    live.evaluate(run, data, bundle, report, consumers, out, needs)


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

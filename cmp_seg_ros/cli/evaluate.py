"""`cmp-seg evaluate`."""

import json
from dataclasses import dataclass
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
    from cmp_seg_ros.label_space import LabelSpace

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
            "there is of truth, hand, pseudo, and the teacher, or else --planes."
        ),
    ] = "",
    hand: Annotated[
        Path | None, typer.Option(help="Hand labels of `cmp-seg annotate import`, or alike, if not in INPUT.")
    ] = None,
    teacher: Annotated[str, typer.Option(help="Compare also with this image teacher where a camera sees.")] = "",
    predictions: Annotated[
        Path | None,
        typer.Option(
            help="Evaluate the labels of another network, in a folder with a file per scan (.label, .npy, .npz, .bin, "
            ".txt, .ply, .pcd), instead of the model's."
        ),
    ] = None,
    label_space: Annotated[
        str, typer.Option(help="What the ids of --predictions mean: a label space, or a file with `into` and `ids`.")
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
            "--hand": hand,
            "--teacher": teacher,
            "--predictions": predictions,
            "--animation": animation,
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
    sources = [source.strip() for source in labels.split(",") if source.strip()]
    _input(
        Request(
            input, sources, planes, hand, teacher, predictions, label_space, rate if online else None, out, animation,
            model, engine, topic, columns, calibration, lidar, voxel_size, as_json,
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Request:
    """The options of the command; see there. `played_at`: rate of an online run, None for others."""

    input: Path
    labels: list[str]
    planes: bool
    hand: Path | None
    teacher: str
    predictions: Path | None
    label_space: str
    played_at: float | None
    out: Path | None
    animation: bool
    model: str
    engine: str
    topic: str
    columns: str
    calibration: Path | None
    lidar: str
    voxel_size: float | None
    as_json: bool

    def check(self) -> None:
        """Raises UserError for options that do not go together."""
        if self.labels and self.planes:
            raise UserError("--planes needs no labels to compare with; leave out --labels, or --planes")
        if self.animation and self.out is None:
            raise UserError("--animation needs a folder to write to; give --out")
        if (self.predictions is None) == bool(self.label_space):
            raise UserError("--predictions and --label-space (what their ids mean) go together; give both, or neither")
        if self.played_at is not None and (self.columns or self.voxel_size or self.predictions):
            raise UserError(
                "--online plays a bag to the node; leave out --columns, --voxel-size and --predictions, or --online"
            )


def _input(asked: Request) -> None:
    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.datasets import open_input
    from cmp_seg_ros.datasets.frame import TEACHER
    from cmp_seg_ros.evaluation.animation import Animation
    from cmp_seg_ros.evaluation.pipeline import Labeller, Model, run
    from cmp_seg_ros.evaluation.predictions import Predictions, open_id_map
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.evaluation.report_page import PageFiles
    from cmp_seg_ros.evaluation.scoring import consumers_for
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.outputs import require_writable

    asked.check()
    out = asked.out
    if out is not None:
        require_writable(out, "evaluate")
    sensors = SensorSet.around(asked.input, asked.calibration, asked.lidar)
    recording = open_input(asked.input, asked.topic, sensors, asked.columns)
    data, sources = _compared(recording, asked)
    needs = tuple(source for source in sources if source != TEACHER)
    report = Report.of("evaluate", data)
    labeller: Labeller
    if asked.predictions is not None:
        labeller = Predictions(asked.predictions, open_id_map(asked.label_space), data.count)
        report.model = f"predictions in {asked.predictions}"
        space = labeller.label_space
    else:
        bundle = Bundle.find(asked.model)
        labeller = Model(bundle.path, asked.engine, voxel_size=asked.voxel_size)
        space = bundle.description.label_space
    consumers = consumers_for(data, space, sources, out)
    if out is not None:
        consumers += [Animation(space, out)] if asked.animation else []
        consumers.append(PageFiles(out))
    if asked.played_at is not None:
        _online(recording, data, bundle, asked, report, consumers, needs)
    else:
        try:
            with progress_bar("scans", data.count) as progress:
                run(data, labeller, consumers, report, out, needs=needs, progress=progress)
        except KeyboardInterrupt:
            if out is not None and report.files:
                print_warnings([f"interrupted; {out} has the report of the scans until then"])
            raise
    if report.unlabelled == 1:
        raise UserError(f"no point could be labelled: {'; '.join([*report.problems, *report.warnings])}")
    _show(report, asked)
    if report.problems:
        scans = counted(report.frames.labelled, "scan")
        raise UserError(f"{scans} evaluated, but: {'; '.join(report.problems)}")


def _compared(data: "DataSet", asked: Request) -> "tuple[DataSet, dict[str, LabelSpace]]":
    """The data set with all label sources, and those to compare with."""
    from cmp_seg_ros.datasets.frame import HAND, TEACHER
    from cmp_seg_ros.datasets.hand import Labelled, with_hand_labels
    from cmp_seg_ros.evaluation.scoring import sources_of
    from cmp_seg_ros.evaluation.teacher_agreement import TeacherLabels
    from cmp_seg_ros.teachers.base import open_teacher

    wanted = asked.labels
    if asked.hand is not None:
        data = with_hand_labels(data, asked.hand)
        wanted = wanted or [HAND]
    sources = {} if asked.planes else sources_of(data, wanted)
    if asked.teacher:
        data = Labelled(data, TeacherLabels(open_teacher(asked.teacher)), TEACHER)
        sources[TEACHER] = data.label_spaces[TEACHER]
    return data, sources


def _show(report: "Report", asked: Request) -> None:
    from rich.console import Console

    from cmp_seg_ros.evaluation.page import HTML

    if asked.as_json:
        print(json.dumps(report.to_json()))
        return
    console = Console(highlight=False, soft_wrap=True)
    if report.accuracy is not None:
        console.print(iou_table(report))
    if report.planes is not None:
        console.print(plane_table(report))
    if report.consistency is not None:
        console.print(f"agreement over time: {percent(report.consistency.agreement)}")
    if report.stages_ms:
        console.print(latency_table(report))
    engine = f" with {report.engine}" if report.engine else ""
    where = "" if asked.out is None else f"\n{asked.out / HTML}"
    console.print(f"{counted(report.frames.labelled, 'scan')}, {report.model}{engine}{where}", markup=False)
    print_warnings(report.warnings)


def _online(
    recording: "DataSet",
    data: "DataSet",
    bundle: "Bundle",
    asked: Request,
    report: "Report",
    consumers: list["Consumer"],
    needs: tuple[str, ...],
) -> None:
    """Play a recording to a segmentation node, and evaluate what it publishes; `data` has all its label sources."""
    from rich.console import Console

    from cmp_seg_ros.datasets import bag
    from cmp_seg_ros.evaluation import live

    if not isinstance(recording, bag.DataSet) or not recording.has_clouds:
        raise UserError(f"--online needs a bag with a PointCloud2 topic, and {data.path} is none; leave out --online")
    from cmp_seg_ros.nodes.live_run import play_to_node

    # Without a target rate the voxels stay those of the bundle, so that labels are those of a run without --online.
    parameters = {"model": str(bundle.path), "engine": asked.engine, "target_rate_hz": 0.0}
    if data.sensors.file is not None:
        name = data.sensors.name
        parameters |= {"calibration_file": str(data.sensors.file), "lidar_name": name}
    with Console(stderr=True).status("starting") as status:
        run = play_to_node(
            recording.bag.path,
            {recording.topic: "/points"},
            parameters,
            {"rate": asked.played_at},
            lambda what, count: status.update(f"{what}: {count} labelled clouds"),
        )
    live.evaluate(run, data, bundle, report, consumers, asked.out, needs)


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

"""`cmp-seg evaluate`."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmp_seg_ros import interrupts
from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import counted, percent, print_warnings, printed, show
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.outputs import require_writable

if TYPE_CHECKING:
    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.datasets.base import DataSet
    from cmp_seg_ros.evaluation.suites.run import SuiteRun
    from cmp_seg_ros.nodes.live_run import LiveRun

OWN_SCANS = (
    *("input", "labels", "planes", "online", "hand", "teacher", "predictions", "animation"),
    *("topic", "columns", "calibration", "lidar"),
)  # parameters that do not go with --suite
SUITE = "With --suite"
SHOWN = 40  # rows; longer tables of scans are on the page alone


def evaluate(
    context: typer.Context,
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
        Path | None, typer.Option(help="Hand labels of `cmp-seg annotate import`, or in such a form, if not in INPUT.")
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
    model: options.Model = DEFAULT_BUNDLE,
    engine: options.Engine = "auto",
    topic: options.Topic = "",
    columns: options.Columns = "",
    calibration: options.Calibration = None,
    lidar: options.Lidar = "",
    voxel_size: Annotated[
        float | None,
        typer.Option(
            help="Voxel size in metres instead of the model's; every point still gets a label.", min=0.01, max=2.0
        ),
    ] = None,
    as_json: options.Json = False,
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
        int | None, typer.Option(help="Run only the first N buildings.", min=1, rich_help_panel=SUITE)
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
    """Label the scans of any input and score the labels, or run a benchmark suite.

    Labels are compared with truth, hand labels or pseudo-labels; without any of these, with planes and over time.
    Exits with status 1 if any scan could not be read.
    """
    if suite:
        if given := _given(context, OWN_SCANS):
            raise UserError(f"a benchmark suite has its own scans; leave out {', '.join(given)}, or --suite")
        from cmp_seg_ros.evaluation.suites.run import SuiteRun
        from cmp_seg_ros.evaluation.suites.suite import Suite

        if out is not None:
            require_writable(out, "evaluate")
        rows = [name for name in only.split(",") if name]
        work = SuiteRun(Suite.load(suite), model, engine, voxel_size, rows, buildings, data, out, workers)
        _suite(work, check, as_json)
        return
    if given := _given(context, ("only", "buildings", "data", "workers", "check")):
        raise UserError(f"{', '.join(given)} only works with --suite NAME")
    if input is None:
        raise UserError("nothing to evaluate; give a bag, other scans, or --suite NAME")
    if labels and planes:
        raise UserError("--planes needs no labels to compare with; leave out --labels, or --planes")
    if animation and out is None:
        raise UserError("--animation needs a folder to write to; give --out")
    if (predictions is None) == bool(label_space):
        raise UserError("--predictions and --label-space (what their ids mean) go together; give both, or neither")
    if rate != 1 and not online:
        raise UserError("--rate only works with --online")
    if online and (columns or voxel_size or predictions):
        raise UserError(
            "--online plays a bag to the node; leave out --columns, --voxel-size and --predictions, or --online"
        )

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.datasets import open_input
    from cmp_seg_ros.datasets.frame import HAND, TEACHER, TRUTH, named
    from cmp_seg_ros.datasets.hand import Labelled, with_hand_labels
    from cmp_seg_ros.evaluation.animation import Animation
    from cmp_seg_ros.evaluation.page import HTML
    from cmp_seg_ros.evaluation.pipeline import Labeller, Model, run
    from cmp_seg_ros.evaluation.predictions import Predictions, open_id_map
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.evaluation.report_page import PageFiles, iou_table, latency_table, plane_tables
    from cmp_seg_ros.evaluation.scoring import TeacherLabels, consumers_for, sources_of
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.teachers.base import open_teacher

    if out is not None:
        require_writable(out, "evaluate")
    recording = frames = open_input(input, topic, SensorSet.around(input, calibration, lidar), columns)
    wanted = [source.strip() for source in labels.split(",") if source.strip()]
    if hand is not None:
        frames = with_hand_labels(frames, hand)
        wanted = wanted or [HAND]
    sources = {} if planes else sources_of(frames, wanted)
    needs = tuple(sources)
    if teacher:
        frames = Labelled(frames, TeacherLabels(open_teacher(teacher)), TEACHER)
        sources[TEACHER] = frames.label_spaces[TEACHER]
    report = Report.of("evaluate", frames)
    labeller: Labeller
    if predictions is not None:
        labeller = Predictions(predictions, open_id_map(label_space), frames.count)
        report.model = f"predictions in {predictions}"
        space = labeller.label_space
    else:
        bundle = Bundle.find(model)
        labeller = Model(bundle.path, engine, voxel_size=voxel_size)
        space = bundle.description.label_space
    consumers = consumers_for(frames, space, sources, out)
    if out is not None:
        consumers += [Animation(space, out)] if animation else []
        consumers.append(PageFiles(out))
    if online:
        from cmp_seg_ros.evaluation import live

        live.evaluate(_play(recording, bundle, engine, rate), frames, bundle, report, consumers, out, needs)
    else:
        try:
            with progress_bar("scans", frames.count) as progress:
                run(frames, labeller, consumers, report, out, needs=needs, progress=progress)
        except KeyboardInterrupt:
            if out is not None and report.files:
                print(f"stopped; {out} has the report of the scans so far", file=sys.stderr)
            raise
    if report.unlabelled == 1:
        raise UserError(f"no point could be labelled: {'; '.join([*report.problems, *report.warnings])}")
    scans = counted(report.frames.labelled, "scan")
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        if report.accuracy is not None:
            show(printed(iou_table(report.accuracy, f"Labels against {named(report.source or TRUTH)}")))
        if report.planes is not None:
            show(*(printed(table) for table in plane_tables(report.planes) if len(table.rows) <= SHOWN))
        if report.consistency is not None:
            show(f"agreement over time: {percent(report.consistency.agreement)}")
        if report.stages_ms:
            show(printed(latency_table(report.stages_ms)))
        with_engine = f" with {report.engine}" if report.engine else ""
        show(f"{scans}, {report.model}{with_engine}" + (f"\n{out / HTML}" if out else ""))
        print_warnings(report.warnings)
    if report.problems:
        raise UserError(f"{scans} evaluated, but: {'; '.join(report.problems)}")


def _given(context: typer.Context, names: Iterable[str]) -> list[str]:
    """The given ones of some parameters, as a user writes them."""
    options = {name: "INPUT" if name == "input" else f"--{name}" for name in names}
    return [option for name, option in options.items() if context.params[name]]


def _play(recording: "DataSet", bundle: "Bundle", engine: str, rate: float) -> "LiveRun":
    """Play a recording to a segmentation node."""
    from rich.console import Console

    from cmp_seg_ros.datasets import bag

    if not isinstance(recording, bag.DataSet) or not recording.has_clouds:
        raise UserError(
            f"--online needs a bag with a PointCloud2 topic, and {recording.path} is none; leave out --online"
        )
    from cmp_seg_ros.nodes.live_run import play_to_node

    # Without a target rate the voxels stay those of the bundle, so that labels are those of a run without --online.
    parameters = {"model": str(bundle.path), "engine": engine, "target_rate_hz": 0.0}
    sensors = recording.sensors
    if sensors.file is not None:
        parameters |= {"calibration_file": str(sensors.file), "lidar_name": sensors.name}
    with Console(stderr=True).status("starting") as status:
        return play_to_node(
            recording.bag.path,
            {recording.topic: "/points"},
            parameters,
            {"rate": rate},
            lambda what, count: status.update(f"{what}: {count} labelled clouds"),
        )


def _suite(run: "SuiteRun", check: bool, as_json: bool) -> None:
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.evaluation.suites import plot
    from cmp_seg_ros.evaluation.suites.scores import compile_report
    from cmp_seg_ros.evaluation.suites.tables import heading, markdown, sheets
    from cmp_seg_ros.outputs import write_report, writing

    print_warnings(f"row {row} is left out: {reason}" for row, reason in run.skipped.items())
    kept = interrupts.resumes(run.out) if run.out else "nothing is kept without --out"
    with interrupts.explained(kept), progress_bar("buildings by sensor and place", run.count) as progress:
        parts = run.run(progress)
    report = compile_report(run, parts, dict(run.run_recordings()))
    if (out := run.out) is not None:
        with writing(out):
            write_report(out, report)
            (out / "table.md").write_text(markdown(report))
            if report["rows"]:
                plot.draw(out / "suite.png", report)
    if as_json:
        print(json.dumps(report))
    else:
        show(*map(printed, sheets(report)), heading(report))
    missed = [must_sentence(must) for must in report["musts"] if not must["met"]]
    if check and missed:
        raise UserError("; ".join(missed))


def must_sentence(must: dict[str, Any]) -> str:
    """A missed must, as a sentence."""
    if must["measured"] is None:
        return f"{must['row']} was not measured ({must['what']}); leave it out with --only"
    return f"{must['row']}: {must['what']} is {must['measured']:.3f}, must be {must['bound']} {must['limit']:.3f}"

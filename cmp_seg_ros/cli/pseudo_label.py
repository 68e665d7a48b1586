"""`cmp-seg pseudo-label`."""

from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros import interrupts
from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.convert import Runner
from cmp_seg_ros.mapping.odometry_source import OdometrySource


def pseudo_label(
    input: Annotated[Path, typer.Argument(help="A bag, a folder of scans with pictures, or a converted set.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the converted set and its labels; by default a converted INPUT.")
    ] = None,
    teacher: Annotated[str, typer.Option(help="Name of a teacher (cmp-seg teachers), or its weights.")] = "mosaic",
    label_space: Annotated[str, typer.Option(help="Name of a label space, or a .yaml file.")] = "structural6",
    variant: Annotated[
        str, typer.Option(help="Of its mapping from the teacher's classes; hand maps all of them.")
    ] = "pseudo",
    source: Annotated[str, typer.Option(help="Name that the labels get in the set.")] = "pseudo",
    confidence: Annotated[float, typer.Option(help="Least probability of a label.", min=0, max=1)] = 0.4,
    keep: Annotated[
        float, typer.Option(help="Share of each class that is kept, the most probable first.", min=0.01, max=1)
    ] = 0.8,
    agreement: Annotated[bool, typer.Option(help="Ask the teacher about augmented copies of each image.")] = True,
    borders: Annotated[bool, typer.Option(help="Reject points near borders of the masks.")] = True,
    depth_edges: Annotated[bool, typer.Option(help="Reject points near edges in depth.")] = True,
    geometry: Annotated[bool, typer.Option(help="Weigh classes by floor, ceiling and walls of the scan.")] = True,
    time: Annotated[bool, typer.Option(help="Let the scans of a stretch vote, by voxel.")] = True,
    raw: Annotated[bool, typer.Option("--raw", help="None of these refinements.")] = False,
    odometry: Annotated[
        OdometrySource, typer.Option(help="Poses for --time: auto, recorded or kiss-icp.")
    ] = OdometrySource.auto,
    again: Annotated[
        bool, typer.Option("--again", help="Replace labels of this source that were made otherwise.")
    ] = False,
    topic: options.Topic = "",
    calibration: options.Calibration = None,
    lidar: options.Lidar = "",
    processes: Annotated[int, typer.Option(help="Number of processes that label; each opens the teacher.", min=1)] = 1,
    runner: Annotated[Runner, typer.Option(help="local, or ray: a Ray cluster ($RAY_ADDRESS).")] = Runner.local,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Label points by what an image teacher sees: masks, projected, refined, kept beside the scans. Resumes."""
    from rich.table import Table

    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.cli.tables import counted, percent, print_warnings, show
    from cmp_seg_ros.datasets import unified
    from cmp_seg_ros.datasets.shards import LABELS
    from cmp_seg_ros.label_space import LabelSpace
    from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller, Refinements
    from cmp_seg_ros.pseudo_labels.report import PseudoReport
    from cmp_seg_ros.pseudo_labels.run import label_set
    from cmp_seg_ros.teachers.base import open_teacher

    default = Refinements()
    refinements = Refinements.none() if raw else Refinements(
        confidence=confidence,
        keep=keep,
        agreement=default.agreement if agreement else 0,
        borders=default.borders if borders else 0,
        depth_edges=depth_edges,
        geometry=geometry,
        time=time,
    )  # fmt: skip
    labeller = PseudoLabeller(
        open_teacher(teacher), LabelSpace.load(label_space), "" if variant == "hand" else variant, refinements
    )
    folder = _converted(input, out, topic, calibration, lidar, runner)
    data = unified.DataSet(folder)
    report = PseudoReport(
        input=str(input),
        teacher=teacher,
        label_space=labeller.space.name,
        variant=variant,
        refinements=refinements,
        source=source,
    )
    with interrupts.explained(interrupts.resumes(folder)), progress_bar("scans", len(data)) as progress:
        report = label_set(data, labeller, report, odometry.value, again, progress, processes, runner.value)
    if as_json:
        print(report.to_json().decode(), end="")
        return
    table = Table(
        "class", "share of labelled points", title=f"{report.labelled:,} of {report.points:,} points labelled"
    )
    for name, count in report.classes.items():
        table.add_row(name, percent(count / report.labelled))
    show(table)
    print_warnings([f"{name} has less than 1 % of the labels" for name in report.rare()])
    print_warnings([f"{counted(count, 'scan')} without labels: {reason}" for reason, count in report.skipped.items()])
    print_warnings(report.problems)
    rejected = ", ".join(f"{name} {count:,}" for name, count in (report.rejected | {"unsure": report.unsure}).items())
    unseen = f", and {report.unseen:,} that only other scans see, by votes over time" if report.unseen else ""
    show(
        f"{teacher} labelled {counted(report.scans, 'scan')}: {report.labelled - report.unseen:,} of {report.seen:,} "
        f"points that a camera sees{unseen}\n"
        f"rejected, some for several reasons: {rejected}; changed by geometry: {report.corrected:,}\n"
        f"labels: {data.path / LABELS / source}, with pictures/ and report.json"
    )


def _converted(input: Path, out: Path | None, topic: str, calibration: Path | None, lidar: str, runner: Runner) -> Path:
    """The folder of the input in the unified form; converts it into `out` if it has another."""
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.cli.tables import print_warnings
    from cmp_seg_ros.datasets import conversion, unified
    from cmp_seg_ros.errors import UserError
    from cmp_seg_ros.geometry.sensor_set import SensorSet

    if unified.DataSet.recognises(input) and out in (None, input):
        unified.DataSet(input, topic, SensorSet.around(input, calibration, lidar))
        return input
    if out is None:
        raise UserError(f"{input} is not a converted set; give a folder for it with --out")
    work = conversion.Conversion(conversion.sources_of([input], topic, calibration, lidar), out)
    if not work.is_finished:
        with interrupts.explained(interrupts.resumes(out)), progress_bar("converting", work.total) as progress:
            for done in work.run(runner=runner.value):
                progress(done)
        report = work.finish()
        print_warnings([*report["problems"], *report["notes"]])
    return out

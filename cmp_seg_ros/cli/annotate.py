"""`cmp-seg annotate`: export for labelling by hand, and import."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import counted, print_warnings, show
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.mapping.odometry_source import OdometrySource

annotate = typer.Typer(
    help="Label scans, or the map of a drive, by hand in CloudCompare, starting from the model's labels.",
    no_args_is_help=True,
)


@annotate.command()
def export(
    input: Annotated[Path, typer.Argument(help="Any input of `cmp-seg label`; for --map a bag of one drive.")],
    out: Annotated[Path, typer.Option(help="New folder for the clouds.")],
    as_map: Annotated[
        bool, typer.Option("--map", help="One cloud of the fused drive instead of one per scan: label it once.")
    ] = False,
    every: Annotated[int, typer.Option(help="Export every Nth scan; not with --map.", min=1)] = 1,
    odometry: Annotated[
        OdometrySource, typer.Option(help="For --map: recorded, kiss-icp, or auto.")
    ] = OdometrySource.auto,
    voxel_size: Annotated[float, typer.Option(help="For --map, metres.", min=0.02, max=1.0)] = 0.05,
    model: options.Model = DEFAULT_BUNDLE,
    engine: options.Engine = "auto",
    label_space: options.LabelSpace = None,
    topic: options.Topic = "",
    calibration: options.Calibration = None,
    lidar: options.Lidar = "",
    max_scans: options.MaxScans = None,
    as_json: options.Json = False,
) -> None:
    """Write scans, or their fused map, as .ply for CloudCompare, with the model's labels in the field `label`."""
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.datasets import open_input
    from cmp_seg_ros.evaluation.pipeline import Model, run
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.mapping.annotate import MapExport, ScanExport

    if as_map and every > 1:
        raise UserError("--every is for scans; a map takes all of them: leave it out")
    if clouds := sorted(out.glob("*.ply")):
        raise UserError(f"{clouds[0]} exists, and may hold labels made by hand; give another --out")
    data = open_input(input, topic, SensorSet.around(input, calibration, lidar))
    labeller = Model(model, engine, label_space)
    labeller.segmenter.probabilities = as_map
    space = labeller.label_space
    export = MapExport(data, space, out, odometry.value, voxel_size) if as_map else ScanExport(data, space, out, every)
    report = Report.of("annotate", data)
    total = data.count if max_scans is None else min(max_scans, data.count or max_scans)
    with progress_bar("scans", total) as progress:
        run(data, labeller, [export], report, out, max_frames=max_scans, progress=progress)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        points = counted(sum(export.about.points.values()), "point")
        classes = ", ".join(f"{c.id} {c.name}" for c in space.classes)
        show(
            f"{counted(len(export.about.points), 'cloud')} of {points} of {counted(len(export.about.sha256), 'scan')}. "
            f"Correct the scalar field label ({classes}; 255 for none), save, then: cmp-seg annotate import {out}"
        )
        print_warnings(report.warnings)
    if report.problems:
        raise UserError(f"exported, but: {'; '.join(report.problems)}")


@annotate.command(name="import")
def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of `cmp-seg annotate export`, with corrected clouds.")],
    out: Annotated[Path, typer.Option(help="Folder for one .label file per scan (SemanticKITTI) and the label space.")],
    input: Annotated[Path | None, typer.Option(help="The exported recording, if it was moved.")] = None,
    field: Annotated[str, typer.Option(help="Scalar field with the labels, if it is not `label`.")] = "",
    calibration: options.Calibration = None,
    as_json: options.Json = False,
) -> None:
    """Check that only labels have changed, and write the labels of every scan; those of a map are carried back."""
    from cmp_seg_ros import outputs
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.datasets import open_input
    from cmp_seg_ros.datasets.hand import SPACE_FILE
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.mapping.annotate import Import, write_hand_labels

    source = Import(folder, field)
    if source.unused:
        names = ", ".join(source.unused[:5])
        print_warnings([f"{names} in {folder} are not used: a corrected cloud keeps its name, up to the suffix"])
    path = input or Path(source.about.input)
    data = open_input(path, source.about.topic, SensorSet.around(path, calibration))
    outputs.claim(out, "annotate", (outputs.REPORT, SPACE_FILE, *(path.name for path in out.glob("*.label"))), folder)
    with outputs.writing(out), progress_bar("scans", len(source.about.sha256)) as progress:
        result = write_hand_labels(source, data, out, progress)
        outputs.write_report(out, {"command": "annotate", "input": str(path), "labels": str(folder), **result})
    if as_json:
        print(json.dumps(result))
        return
    shares = ", ".join(f"{name} {count / max(1, result['points']):.1%}" for name, count in result["by_class"].items())
    show(
        f"labels of {counted(result['scans'], 'scan')}, {result['points']:,} points: {shares}, "
        f"{result['unlabelled'] / max(1, result['points']):.1%} without a label\n{out}"
    )

"""`cmp-seg label`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros import interrupts
from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli.tables import counted, print_warnings
from cmp_seg_ros.errors import UserError


def label(
    input: Annotated[
        Path, typer.Argument(help="A bag, .pcd, .ply, .npy, .bin, an Ouster .pcap or .osf, or a folder of such files.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for labels, labelled clouds, pictures and report.json.")],
    model: Annotated[str, typer.Option(help="A bundle: a folder, or a name in models/.")] = DEFAULT_BUNDLE,
    engine: Annotated[
        str, typer.Option(help="auto, or the name of an engine; reference is PyTorch in float32.")
    ] = "auto",
    topic: Annotated[str, typer.Option(help="PointCloud2 topic, if a bag has several.")] = "",
    columns: Annotated[
        str, typer.Option(help="Columns of a .bin or .npy other than x,y,z,i: e.g. x,y,z,i,r or x:f8,y:f8,z:f8.")
    ] = "",
    calibration: Annotated[
        Path | None,
        typer.Option(help="Calibration file; by default calibration.yaml in or beside INPUT, if there is one."),
    ] = None,
    lidar: Annotated[str, typer.Option(help="Name of the lidar, if the calibration has several.")] = "",
    label_space: Annotated[
        str | None, typer.Option(help="Output label space (such as structural4, or a file) instead of the model's.")
    ] = None,
    max_scans: Annotated[int | None, typer.Option(help="Stop after so many scans.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Label the scans of any input. Exits with status 1 if any scan could not be read or labelled."""
    from rich.console import Console
    from rich.table import Table

    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.datasets import open_input
    from cmp_seg_ros.evaluation.labelling import LabelFiles
    from cmp_seg_ros.evaluation.pipeline import Model, run
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.outputs import require_writable

    sensors = SensorSet.around(input, calibration, lidar)
    data = open_input(input, topic, sensors, columns)
    require_writable(out, "label")
    labeller = Model(model, engine, label_space)
    total = data.count if max_scans is None else min(max_scans, data.count or max_scans)
    files = LabelFiles(data, labeller.label_space, out, total)
    report = Report.of("label", data)
    kept = f"the scans labelled until then are in {out}; the same command begins again with the first"
    with interrupts.explained(kept), progress_bar("scans", total) as progress:
        run(data, labeller, [files], report, out, max_frames=max_scans, progress=progress)
    if report.unlabelled == 1:
        raise UserError(f"no point could be labelled: {'; '.join([*report.problems, *report.warnings])}")
    scans = counted(report.frames.labelled, "scan")
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        table = Table("class", "share of labelled points", title=f"{scans}, {report.points:,} points")
        for name, share in report.share.items():
            table.add_row(name, f"{share:.1%}")
        console = Console(highlight=False, soft_wrap=True)
        console.print(table)
        if report.unlabelled > 0:
            console.print(f"{report.unlabelled:.1%} of the points have no label: no return, or beyond the view")
        latency = report.latency_ms
        console.print(
            f"{report.model} with {report.engine}: {latency['p50']:.0f} ms a scan (p95 {latency['p95']:.0f} ms), "
            f"{report.voxels_per_scan:.0f} voxels of {report.voxel_size:g} m\n{out}",
            markup=False,
        )
        print_warnings(report.warnings)
    if report.problems:
        raise UserError(f"{scans} labelled, but: {'; '.join(report.problems)}")

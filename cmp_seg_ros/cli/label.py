"""`cmp-seg label`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros import interrupts
from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import counted, print_warnings, show
from cmp_seg_ros.errors import UserError


def label(
    input: Annotated[
        Path, typer.Argument(help="A bag, .pcd, .ply, .npy, .bin, an Ouster .pcap or .osf, or a folder of such files.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for labels, labelled clouds, pictures and report.json.")],
    model: options.Model = DEFAULT_BUNDLE,
    engine: options.Engine = "auto",
    topic: options.Topic = "",
    columns: options.Columns = "",
    calibration: options.Calibration = None,
    lidar: options.Lidar = "",
    label_space: options.LabelSpace = None,
    max_scans: options.MaxScans = None,
    as_json: options.Json = False,
) -> None:
    """Label the scans of any input. Exits with status 1 if any scan could not be read or labelled."""
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
        show(table)
        if report.unlabelled > 0:
            show(f"{report.unlabelled:.1%} of the points have no label: no return, or beyond the view")
        latency = report.latency_ms
        show(
            f"{report.model} with {report.engine}: {latency['p50']:.0f} ms a scan (p95 {latency['p95']:.0f} ms), "
            f"{report.voxels_per_scan:.0f} voxels of {report.voxel_size:g} m\n{out}"
        )
        print_warnings(report.warnings)
    if report.problems:
        raise UserError(f"{scans} labelled, but: {'; '.join(report.problems)}")

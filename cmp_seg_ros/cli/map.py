"""`cmp-seg map`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmp_seg_ros import interrupts
from cmp_seg_ros.bundle import DEFAULT_BUNDLE
from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import counted, percent, print_warnings, show
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.mapping.odometry_source import OdometrySource

if TYPE_CHECKING:
    from rich.table import Table

    from cmp_seg_ros.evaluation.report import MapReport


def map(
    input: Annotated[Path, typer.Argument(help="A bag of one drive, or the folder of `cmp-seg simulate`.")],
    out: Annotated[Path, typer.Option(help="Folder for the map, its floor plan and grid, and report.json.")],
    model: options.Model = DEFAULT_BUNDLE,
    labels: Annotated[
        str, typer.Option(help="Fuse stored labels of this source (truth, pseudo, ...) instead of the model's.")
    ] = "",
    hand: Annotated[
        Path | None, typer.Option(help="Fuse hand labels from this folder, file or bag instead of the model's.")
    ] = None,
    engine: options.Engine = "auto",
    odometry: Annotated[
        OdometrySource, typer.Option(help="recorded (in the bag), kiss-icp, or auto: recorded where there is one.")
    ] = OdometrySource.auto,
    voxel_size: Annotated[float, typer.Option(help="Voxel size of the map in metres.", min=0.02, max=1.0)] = 0.05,
    resolution: Annotated[float, typer.Option(help="Cells of floor plan and grid in metres.", min=0.02, max=1.0)] = 0.1,
    topic: options.Topic = "",
    calibration: options.Calibration = None,
    lidar: options.Lidar = "",
    max_scans: options.MaxScans = None,
    as_json: options.Json = False,
) -> None:
    """Fuse the labels of a drive into a semantic map, a floor plan and an occupancy grid.

    Where the recording has a truth, the report says how much fusion adds to the labels of single scans. Exits with
    status 1 if any scan could not be read or labelled, or the map ends early.
    """
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.datasets import open_input
    from cmp_seg_ros.datasets.base import DataSet
    from cmp_seg_ros.datasets.frame import HAND
    from cmp_seg_ros.datasets.hand import with_hand_labels
    from cmp_seg_ros.evaluation.pipeline import Labeller, Model, StoredLabels, run
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.evaluation.scoring import space_of
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.mapping.drive import DriveMap
    from cmp_seg_ros.outputs import require_writable

    data: DataSet = open_input(input, topic, SensorSet.around(input, calibration, lidar))
    require_writable(out, "map")
    if hand is not None:
        if labels:
            raise UserError("--hand and --labels exclude each other; leave one out")
        data, labels = with_hand_labels(data, hand), HAND
    labeller: Labeller
    if labels:
        labeller = StoredLabels(space_of(data, labels), labels)
    else:
        labeller = Model(model, engine)
        labeller.segmenter.probabilities = True
    drive = DriveMap(data, labeller.label_space, out, odometry.value, voxel_size, resolution)
    report = Report.of("map", data)
    total = data.count if max_scans is None else min(max_scans, data.count or max_scans)
    kept = f"the map of the scans until then is in {out}; the same command begins again with the first"
    with interrupts.explained(kept), progress_bar("scans", total) as progress:
        run(
            data,
            labeller,
            [drive],
            report,
            out,
            max_frames=max_scans,
            needs=(labels,) if labels else (),
            progress=progress,
        )
    assert report.map is not None
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        found = report.map
        if found.gain:
            show(gain_table(found))
        show(
            f"{counted(found.scans, 'scan')} over {found.metres:.1f} m by {found.odometry} odometry: "
            f"{counted(found.still, 'voxel')} of {found.voxel_size:g} m, {found.moving:,} left out that scans see "
            "through (moving things, or poses that drift)\n"
            f"{out}"
        )
        print_warnings(report.warnings)
    if report.problems:
        raise UserError(f"{counted(report.map.scans, 'scan')} mapped, but: {'; '.join(report.problems)}")


def gain_table(found: "MapReport") -> "Table":
    """Table of the mIoU of single scans and of the map."""
    from rich.table import Table

    table = Table("mIoU", "single scans", "map", "difference", "95 % interval", title="What fusion adds")
    for name, gain in (found.gain or {}).items():
        interval = "-" if gain.interval is None else f"{100 * gain.interval[0]:+.1f} to {100 * gain.interval[1]:+.1f}"
        difference = "-" if gain.difference is None else f"{100 * gain.difference:+.1f}"
        table.add_row(name.replace("_", " "), percent(gain.single), percent(gain.fused), difference, interval)
    return table

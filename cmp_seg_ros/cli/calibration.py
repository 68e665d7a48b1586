"""`cmp-seg calibration`."""

from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros.cli import options

calibration = typer.Typer(help="Check and refine the extrinsics of lidar and cameras.", no_args_is_help=True)


@calibration.command()
def check(
    input: Annotated[Path, typer.Argument(help="A bag, a folder of scans with pictures, or a converted set.")],
    calibration: options.Calibration = None,
    out: Annotated[Path | None, typer.Option(help="Folder for pictures and report.json.")] = None,
    refine: Annotated[
        bool, typer.Option("--refine", help="Write the better extrinsics into a new file, beside the old or in --out.")
    ] = False,
    topic: options.Topic = "",
    lidar: options.Lidar = "",
    camera: Annotated[str, typer.Option(help="Name of a camera; by default all of them.")] = "",
    frames: Annotated[int, typer.Option(help="Scans with an image that are looked at, spread over INPUT.", min=1)] = 20,
    as_json: options.Json = False,
) -> None:
    """Estimate by which offset (degrees, centimetres) scans and images would match better."""
    import json

    from rich.table import Table

    from cmp_seg_ros import outputs
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.cli.tables import show
    from cmp_seg_ros.errors import UserError
    from cmp_seg_ros.evaluation import calibration_check
    from cmp_seg_ros.geometry.sensor_set import SensorSet

    command = "calibration check"
    if out is not None:
        outputs.claim(out, command, (outputs.REPORT, calibration_check.REFINED), input)
    sensors = SensorSet.around(input, calibration, lidar)
    with progress_bar("cameras", None) as progress:
        found = calibration_check.check(input, sensors, topic, camera, frames, progress)
    report = {"command": command, "input": str(input), "cameras": {name: one.summary() for name, one in found.items()}}
    if out is not None:
        for name, one in found.items():
            one.draw(out / f"{name}.png")
    unsure = [name for name, one in found.items() if not one.is_refinable]
    if refine and unsure:
        raise UserError(f"nothing is written: camera {unsure[0]}: {found[unsure[0]].verdict}")
    if refine:
        report["refined"] = str(calibration_check.write_refined(found, sensors, input, out))
    if out is not None:
        outputs.write_report(out, report | {"finished": True})
    if as_json:
        print(json.dumps(report))
        return
    table = Table("camera", "offset", "about x, y, z (degrees)", "along x, y, z (cm)", "between halves", "score")
    for name, one in found.items():
        degrees, centimetres = (", ".join(f"{value:+.1f}" for value in part) for part in one.offset)
        apart = "too few images" if one.uncertainty is None else "{:.1f} degrees, {:.0f} cm".format(*one.uncertainty)
        table.add_row(
            name,
            f"{one.degrees:.1f} degrees, {one.centimetres:.0f} cm",
            degrees,
            centimetres,
            apart,
            f"{one.before:.1f} -> {one.after:.1f}",
        )
    show(table, "axes are the camera's: x right, y down, z forward; the score counts deviations over random offsets")
    show(*(f"camera '{name}': {one.verdict}" for name, one in found.items()))
    if refine:
        show(f"better extrinsics: {report['refined']}")
    elif any(one.is_off for one in found.values()):
        show("--refine writes better extrinsics into a new file")

"""`cmp-seg simulate`."""

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer


class Motion(str, Enum):
    """How the robot moves."""

    wheeled = "wheeled"
    handheld = "handheld"
    flying = "flying"


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for bag/, calibration.yaml, report.json and preview.png.")],
    sensor: Annotated[str, typer.Option(help="A lidar of config/sensors/, or a .yaml file.")] = "os1-16",
    seconds: Annotated[float, typer.Option(help="Length of the recording.", min=0.1)] = 20.0,
    seed: Annotated[int, typer.Option(help="Decides building, way and noise.", min=0)] = 0,
    rate: Annotated[
        float | None, typer.Option(help="Scans and images a second. [default: the lidar's]", min=0.1)
    ] = None,
    motion: Annotated[Motion, typer.Option(help="How the robot moves.")] = Motion.wheeled,
    roll: Annotated[
        float, typer.Option(help="Degrees by which the lidar is mounted off level; 180: upside down.")
    ] = 0.0,
    pitch: Annotated[float, typer.Option(help="The same, nose down.")] = 0.0,
    camera: Annotated[bool, typer.Option(help="Render camera images too.")] = True,
    processes: Annotated[
        int | None, typer.Option(help="Processes at work. [default: one a core, at most 4]", min=1)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Record a robot in a procedural building: ROS 2 bag, calibration and truth. The same seed gives the same bag."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from cmp_seg_ros.simulation.lidar import Lidar
    from cmp_seg_ros.simulation.recorder import record
    from cmp_seg_ros.simulation.rig import RigConfig

    config = RigConfig(seed, sensor, seconds, rate, motion.value, roll, pitch)
    scans = max(1, round(seconds * (rate or Lidar.load(sensor).rate)))
    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("scans", total=scans)
        for done in record(config, out, camera, processes):
            bar.update(task, completed=done)
    report = json.loads((out / "report.json").read_text())
    if as_json:
        print(json.dumps(report))
    else:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in report["class_shares"].items())
        Console().print(
            f"{report['scans']} scans of {report['points_per_scan']:.0f} points and {report['images']} images in a "
            f"{report['building']} of {report['rooms']} rooms, {report['metres']:.1f} m driven, "
            f"{report['wall_seconds']:.1f} s of work\n{shares}\n{out}",
            highlight=False,
        )

"""`cmp-seg simulate`."""

import json
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cmp_seg_ros import interrupts
from cmp_seg_ros.cli import options


class Motion(str, Enum):
    """How the robot moves."""

    wheeled = "wheeled"
    handheld = "handheld"
    flying = "flying"


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for bag/, calibration.yaml, report.json and preview.png.")],
    sensor: Annotated[str, typer.Option(help="A lidar of config/sensors/, or a .yaml file.")] = "os1-16",
    seconds: Annotated[float, typer.Option(help="Length of the recording.", min=0.1, max=86400)] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the building, the path and the noise.", min=0)] = 0,
    scene: Annotated[
        Path | None,
        typer.Option(help="Folder of a furnished scene (world.yaml, models/*.glb) instead of a generated building."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Scans and images per second; by default the lidar's rate.", min=0.1, max=1000)
    ] = None,
    motion: Annotated[Motion, typer.Option(help="How the robot moves.")] = Motion.wheeled,
    height: Annotated[
        float | None,
        typer.Option(help="Height of the lidar in metres, by default 0.9, handheld 1.1; not for flying.",
                     min=0.3, max=2.0),
    ] = None,
    roll: Annotated[
        float, typer.Option(help="Roll of the mounted lidar in degrees; 180: upside down.")
    ] = 0.0,
    pitch: Annotated[float, typer.Option(help="Pitch of the mounted lidar in degrees, nose down.")] = 0.0,
    camera: Annotated[
        list[str],
        typer.Option(help="[NAME=]KIND[,mono][,compressed][,yaw=DEG][,pitch=DEG], once per camera; KIND is "
                     "pinhole, equidistant or wide (config/cameras/), or a .yaml file; by default one pinhole."),
    ] = [],  # noqa: B006
    no_camera: Annotated[bool, typer.Option("--no-camera", help="No images: much faster.")] = False,
    processes: Annotated[
        int | None, typer.Option(help="Number of processes; by default one per core, at most 4.", min=1)
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Replace a recording in --out that was made with other arguments.")
    ] = False,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Record a robot in a simulated building: ROS 2 bag, calibration and truth. Equal seeds give equal bags."""
    from cmp_seg_ros.cli.progress import progress_bar
    from cmp_seg_ros.cli.tables import counted, show
    from cmp_seg_ros.errors import UserError
    from cmp_seg_ros.outputs import writing
    from cmp_seg_ros.simulation.lidar import Lidar
    from cmp_seg_ros.simulation.recorder import record
    from cmp_seg_ros.simulation.rig import RigConfig
    from cmp_seg_ros.simulation.rig_camera import RigCamera

    if no_camera and camera:
        raise UserError("--no-camera and --camera exclude each other; leave one out")
    cameras = () if no_camera else tuple(RigCamera.parse(spec) for spec in camera or ["pinhole"])
    config = RigConfig(seed, sensor, seconds, rate, motion.value, roll, pitch, cameras, scene, height)
    scans = max(1, round(seconds * (rate or Lidar.load(sensor).rate)))
    kept = f"the recording in {out} is incomplete; run the same command to make it again"
    with interrupts.explained(kept), writing(out), progress_bar("scans", scans) as progress:
        for done in record(config, out, processes, again):
            progress(done)
    report = json.loads((out / "report.json").read_text())
    if as_json:
        print(json.dumps(report))
        return
    shares = ", ".join(f"{name} {share:.1%}" for name, share in report["class_shares"].items())
    seen = "".join(f"{name} sees {one['points_seen']:.1%} of the points\n" for name, one in report["cameras"].items())
    show(
        f"{counted(report['scans'], 'scan')} of {report['points_per_scan']:.0f} points and "
        f"{counted(report['images'], 'image')} in "
        f"{report['building']}, {report['rooms']} rooms, a path of {report['metres']:.1f} m, "
        f"recorded in {report['wall_seconds']:.1f} s\n{shares}\n{seen}{out}"
    )

"""`cmp-seg demo`: simulates a drive, labels it with the node over ROS 2, and measures the result."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmp_seg_ros.cli import options
from cmp_seg_ros.cli.tables import print_warnings, printed, show

if TYPE_CHECKING:
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.simulation.rig import RigConfig

STAGES = ("wait", "decode", "preprocess", "network", "backfill", "encode", "publish", "total")
GRACE = 15.0  # seconds an interrupted subcommand has to end its workers
OCCUPANCY = "occupancy.png"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for bag, report.json, overview.png and the labelled bag.")],
    seconds: Annotated[float, typer.Option(help="Length of the drive.", min=1.0)] = 20.0,
    seed: Annotated[int, typer.Option(help="Seed of the building; not one used in training.", min=0)] = 3,
    sensor: Annotated[str, typer.Option(help="A lidar of config/sensors/.")] = "os1-16",
    model: options.Model = "waffleiron24-128",
    engine: options.Engine = "auto",
    rate: Annotated[float, typer.Option(help="Playback rate of the bag; 1 is real time.", min=0.01)] = 1.0,
    as_json: options.Json = False,
) -> None:
    """Simulate a drive, play it to the node over ROS 2, and compare the labelled clouds with the truth."""
    from rich.console import Console

    from cmp_seg_ros.bundle import Bundle
    from cmp_seg_ros.datasets.labelled_bag import BAG as LABELLED
    from cmp_seg_ros.engine import registry
    from cmp_seg_ros.evaluation import live
    from cmp_seg_ros.evaluation.metrics import PRIMARY, STRICT, Confusion, readings
    from cmp_seg_ros.label_space import LabelSpace
    from cmp_seg_ros.outputs import REPORT, require_writable
    from cmp_seg_ros.simulation.rig import RigConfig

    bundle = Bundle.find(model)  # fail before the simulation
    readings(Confusion(LabelSpace.load("structural6"), bundle.description.label_space), (PRIMARY, STRICT))
    registry.find_all(engine)
    drive = out / "drive"
    require_writable(out, "demo", (REPORT, LABELLED, OCCUPANCY))
    simulate(drive, "--seconds", seconds, "--seed", seed, "--sensor", sensor)

    from cmp_seg_ros.datasets.bag import DataSet
    from cmp_seg_ros.datasets.frame import TRUTH, named
    from cmp_seg_ros.errors import UserError
    from cmp_seg_ros.evaluation.report import Report
    from cmp_seg_ros.evaluation.report_page import PageFiles, iou_table, latency_table
    from cmp_seg_ros.evaluation.scoring import Scores, space_of
    from cmp_seg_ros.geometry.sensor_set import SensorSet
    from cmp_seg_ros.nodes.live_run import play_to_node
    from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller
    from cmp_seg_ros.teachers.base import open_teacher

    space = bundle.description.label_space
    try:
        teacher = PseudoLabeller(open_teacher("mosaic"), space, "pseudo")
    except UserError as error:
        print_warnings([f"no picture of pseudo-labels: {error}"])
        teacher = None
    sensors = SensorSet(drive / "calibration.yaml")
    assert sensors.file is not None
    with Console(stderr=True).status("starting") as status:
        run = play_to_node(
            drive / "bag",
            {live.POINTS: "/points", live.IMAGE: "/image", "/camera/camera_info": "/camera_info"},
            {"model": model, "engine": engine, "calibration_file": str(sensors.file)},
            {"rate": rate},
            lambda what, count: status.update(f"{what}: {count} labelled clouds"),
        )
        status.update("comparing with the truth")
        data = DataSet(drive / "bag", sensors=sensors)
        report = Report.of("demo", data)
        report.seed, report.sensor, report.seconds = seed, sensor, seconds
        frames = len(run.clouds)
        pictures = live.LivePictures(data, space, out, frames, teacher)
        consumers = [Scores(space_of(data), space), pictures, PageFiles(out)]
        live.evaluate(run, data, bundle, report, consumers, out, needs=(TRUTH,))
        status.update("an image to the occupancy node")
        draw_occupancy(RigConfig(seed, sensor, seconds), sensors.file, out / OCCUPANCY)
    if as_json:
        print(json.dumps(report.to_json()))
    else:
        latencies = {"scan stamp (start of sweep) to labelled cloud received": report.latency_ms}
        latencies |= {f"node: {name}": report.stages_ms[name] for name in STAGES if name in report.stages_ms}
        assert report.accuracy is not None
        table = iou_table(report.accuracy, f"Labels against {named(TRUTH)}")
        show(printed(latency_table(latencies, "milliseconds")), counts(report), printed(table))
        show(f"page.html, report.json, overview.png, {OCCUPANCY}, labelled/ and drive/ are in {out}")


def draw_occupancy(config: "RigConfig", calibration: Path, path: Path) -> None:
    """Show an image of the drive to the occupancy node, and draw its voxels beside the true ones."""
    import numpy as np

    from cmp_seg_ros.cli.scenedino import BUNDLE
    from cmp_seg_ros.evaluation.live import PICTURED
    from cmp_seg_ros.label_space import LabelSpace
    from cmp_seg_ros.nodes.occupancy_run import show_to_node
    from cmp_seg_ros.occupancy import pictures
    from cmp_seg_ros.occupancy.grid import Grid
    from cmp_seg_ros.occupancy.scores import truth_ids
    from cmp_seg_ros.occupancy.truth import surface_points
    from cmp_seg_ros.occupancy.views import truth_at
    from cmp_seg_ros.simulation.rig import Rig

    rig, grid = Rig(config), Grid.load("indoor")
    index = int(PICTURED * (rig.frames - 1))
    rgb, scenes = rig.image(index).rgb, rig.scenes(rig.image_time(index))
    shown = show_to_node(rgb, {"calibration_file": str(calibration)}, grid)
    place = rig.trajectory.pose(np.array([rig.image_time(index)]))[0]
    corners = place[:3, 3] - 10.0, place[:3, 3] + 10.0  # around the grid
    surfaces = [surface_points(scene.mesh, *corners) for scene in scenes]
    camera, T_base_camera = rig.config.cameras[0].camera, rig.T_base_cameras[0]
    truth = truth_at(scenes, surfaces, grid, camera, place, T_base_camera, np.random.default_rng(config.seed))
    space = LabelSpace.load("image14")
    title = f"{BUNDLE}, an image of the drive in building {config.seed}"
    pictures.draw_result(
        path, rgb, shown.depth, shown.classes, grid, shown.label, space, title, truth_ids(space)[truth]
    )


def simulate(drive: Path, *options: object) -> None:
    """Run `cmp-seg simulate` in its own process, whose memory is not counted for this one; its output is not shown.

    Raises typer.Exit where it fails, which it has explained.
    """
    command = [sys.executable, "-m", "cmp_seg_ros.cli.main", "simulate", "--again", "--out", drive, *options]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as process:
        try:
            status = process.wait()
        except KeyboardInterrupt:
            try:
                process.wait(timeout=GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    if status:
        raise typer.Exit(1)


def simulate_once(drive: Path, *options: object) -> None:
    """As `simulate`, unless the drive was recorded before."""
    report = drive / "report.json"
    if not report.exists() or not json.loads(report.read_text()).get("finished", True):
        simulate(drive, *options)


def counts(report: "Report") -> str:
    """Rates, counts of scans, sizes and memory of the run."""
    scans, memory = report.scans, report.memory_mb
    assert scans is not None
    return (
        f"{report.rate_hz:.2f} labelled clouds a second; {scans.in_} scans in = {scans.out} out + "
        f"{scans.dropped} dropped ({scans.played} played, {scans.received} received)\n"
        f"{report.points_per_scan:.0f} points and {report.voxels_per_scan:.0f} voxels of "
        f"{voxel_sizes(report.scans_by_voxel_size)} a scan; engine {report.engine}; "
        f"peak memory: node {memory['node']:.0f} MB, receiver {memory['receiver']:.0f} MB\n"
    )


def voxel_sizes(scans: dict[str, int]) -> str:
    """The voxel size; if it was changed to keep the rate, each size with its number of scans."""
    if len(scans) == 1:
        return f"{next(iter(scans))} m"
    return " and ".join(f"{size} m ({count} scans)" for size, count in scans.items())

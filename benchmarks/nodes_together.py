"""What the other nodes cost the segmentation node, and how fast they are beside it, on the same two cores.

    python benchmarks/nodes_together.py --out out/together          # 30 s of driving with images; simulated first

A drive is played at 10 Hz: to the segmentation node alone, then to it and one other node at a time. Goals: it loses
less than 10 % of its rate to the pseudo-label node, whose overlay comes at 2 Hz or more; occupancy comes at 2 Hz or
more, p95 of its age 700 ms; the map node fuses every labelled cloud.
"""

import os
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rich.console import Console
from rich.table import Table
from sensor_msgs.msg import Image, PointCloud2

from cmp_seg_ros.cli.demo import simulate_once
from cmp_seg_ros.evaluation.metrics import percentiles
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.nodes.live_run import NODE, PLAYER, START_TIMEOUT, Process, isolated_ros, wait_for
from cmp_seg_ros.outputs import write_report, writing
from cmp_seg_ros.ros import diagnostics, environment
from cmp_seg_ros.ros.own_context import own_node
from cmp_seg_ros.ros.receiver import Receiver
from cmp_seg_ros.simulation.version import simulator_version

SEED, RATE = 3, 10.0
TOPICS = {"/lidar/points": "/points", "/camera/image": "/image", "/camera/camera_info": "/camera_info"}
LABELLED = {name: f"/{NODE}/{name}" for name in ("labelled_points", "label_space")}


class Companion(NamedTuple):
    """Another node: a topic that it publishes and its type, its inputs, and what else it needs of the bag."""

    name: str
    output: str
    kind: Any
    remaps: dict[str, str] = {}  # noqa: RUF012
    topics: dict[str, str] = {}  # noqa: RUF012


COMPANIONS = [
    Companion("pseudo_label_node", "overlay", Image, LABELLED),
    Companion("occupancy_node", "occupied", PointCloud2),
    Companion("semantic_map_node", "fused_points", PointCloud2, LABELLED, {"/odom": "/odometry"}),
]


class Ages:
    """Ages of a node's messages when they come, milliseconds, and its last diagnostics."""

    def __init__(self, companion: Companion, node: Node, executor: SingleThreadedExecutor) -> None:
        self.ages: list[float] = []
        self.values: dict[str, str] = {}
        self._name, self._executor = companion.name, executor
        topic = f"/{companion.name}/{companion.output}"
        node.create_subscription(companion.kind, topic, self._on, QoSProfile(depth=50), raw=True)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def spin(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.02)

    def _on(self, data: bytes) -> None:
        self.ages.append(1e-6 * (time.time_ns() - cdr.stamp_ns(data)))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.lstrip("/").startswith(self._name):
                self.values = diagnostics.values(status)


def together(drive: Path, companion: Companion | None, logs: Path) -> dict[str, Any]:
    """Play the drive to the segmentation node and a companion."""
    calibration = {"calibration_file": str(drive / "calibration.yaml")}
    logs.mkdir(parents=True, exist_ok=True)
    with Receiver(NODE) as receiver, own_node("ages") as own, Process(NODE, calibration, {}, logs) as node:
        wait_for(lambda: bool(receiver.diagnostics.get("topic")), START_TIMEOUT, "the segmentation node", node)
        if companion is None:
            play(drive, TOPICS, None, logs)
            other = {}
        else:
            ages = Ages(companion, *own)
            with Process(companion.name, calibration, companion.remaps, logs) as second:
                wait_for(lambda: ages.spin(0.1) or bool(ages.values), START_TIMEOUT, companion.name, second)
                play(drive, TOPICS | companion.topics, ages, logs)
                other = {"messages": len(ages.ages), "age_ms": percentiles(ages.ages), "diagnostics": ages.values}
    arrivals = np.array([cloud.time for cloud in receiver.clouds]) * 1e-9
    return {
        "rate_hz": float((len(arrivals) - 1) / np.ptp(arrivals)),
        "counts": receiver.counts(),
        "age_ms": percentiles(1e-6 * (cloud.time - cloud.stamp) for cloud in receiver.clouds),
        "seconds": float(np.ptp(arrivals)),
        "companion": other,
    }


def play(drive: Path, topics: dict[str, str], ages: Ages | None, logs: Path) -> None:
    parameters = {"bag": str(drive / "bag"), "topics": ",".join(topics), "wait_for_subscribers": 60.0}
    with Process(PLAYER, parameters, topics, logs) as player:
        while player.poll() is None:
            ages.spin(0.2) if ages else time.sleep(0.2)
        player.check()
    ages.spin(2.0) if ages else time.sleep(2.0)


def main(
    out: Annotated[Path, typer.Option(help="Folder for report.json, and the drive of this simulator.")],
    seconds: Annotated[float, typer.Option(help="Length of the drive.", min=5.0)] = 30.0,
    only: Annotated[list[str], typer.Option(help="Companions; by default all.")] = [],  # noqa: B006
    cores: Annotated[int, typer.Option(help="Cores for all processes together.", min=1)] = 2,
) -> None:
    drive = out / f"drive-{simulator_version()}-{seconds:g}"
    simulate_once(drive, "--seconds", seconds, "--seed", SEED, "--rate", RATE)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    environment.prepare()
    chosen = [None, *(one for one in COMPANIONS if not only or one.name in only)]
    report: dict[str, Any] = {}
    table = Table("beside", "labelled, Hz", "p95 age", "dropped", "its messages a second", "p95 age")
    with isolated_ros():
        for companion in chosen:
            name = companion.name if companion else "nothing"
            found = report[name] = together(drive, companion, out / "logs")
            other = found["companion"]
            table.add_row(
                name,
                f"{found['rate_hz']:.2f}",
                f"{found['age_ms']['p95']:.0f} ms",
                str(found["counts"]["dropped"]),
                f"{other['messages'] / found['seconds']:.2f}" if other else "",
                f"{other['age_ms']['p95']:.0f} ms" if other and other["messages"] else "",
            )
    with writing(out):
        write_report(out, {"command": "nodes_together", "finished": True} | report)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    typer.run(main)

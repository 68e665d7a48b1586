"""A bag played to a segmentation node: two processes, and a receiver in this one, over DDS."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cmp_seg_ros import memory
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.nodes.bag_player import shifted
from cmp_seg_ros.ros import environment
from cmp_seg_ros.ros.receiver import Received, Receiver
from cmp_seg_ros.scan import Labels
from cmp_seg_ros.workers import changed_environment

NODE, PLAYER = "segmentation_node", "bag_player"
START_TIMEOUT = 300.0  # seconds for the node to compile its kernels, load its model and find the player
DRAIN_TIMEOUT = 30.0  # seconds for the last scans after the bag's end


@dataclass(frozen=True)
class LiveRun:
    """What a run gave.

    Args:
        clouds: labels in the order they came.
        scan_infos: the values of ~/scan_info by stamp.
        diagnostics: the node's last report.
        player: the player's report.
        rate: how many times as fast the bag was played.
        memory_mb: peak resident memory by process, and what the node holds at the end (`node_now`).
    """

    clouds: list[Received]
    scan_infos: dict[int, dict[str, str]]
    diagnostics: dict[str, str]
    player: dict[str, Any]
    rate: float
    memory_mb: dict[str, float]

    @cached_property
    def _labels(self) -> dict[int, Labels]:
        return {cloud.stamp: cloud.labels for cloud in self.clouds}

    def labels_of(self, stamp: int) -> Labels | None:
        """The labels of the scan with this stamp (nanoseconds) in the bag; None if none came."""
        first = self.player["first_ns"]
        return self._labels.get(shifted(stamp, first, first + self.player["offset_ns"], self.rate))


def play_to_node(
    bag: Path,
    remaps: dict[str, str],
    node_parameters: dict[str, Any],
    player_parameters: dict[str, Any],
    report: Callable[[str, int], None] = lambda _what, _count: None,
) -> LiveRun:
    """Play `bag` to a segmentation node and receive what it publishes.

    Args:
        remaps: topics of the bag -> topics of the node.
        report: is told what goes on, and how many labelled clouds have come.

    Raises:
        UserError: a process ended before its time; the message has its last words.
    """
    environment.prepare()
    with tempfile.TemporaryDirectory() as folder, isolated_ros(), Receiver(NODE) as receiver:
        logs = Path(folder)
        with Process(NODE, node_parameters, {}, logs) as node:
            report("node loads its model", 0)
            wait_for(lambda: bool(receiver.diagnostics.get("topic")), START_TIMEOUT, "the node to be ready", node)
            wanted = {"bag": str(bag), "topics": ",".join(remaps), "wait_for_subscribers": START_TIMEOUT}
            with Process(PLAYER, wanted | player_parameters, remaps, logs) as player:
                while player.poll() is None:
                    node.check()
                    report("bag plays", len(receiver.clouds))
                    time.sleep(0.1)
                player.check()
                played = json.loads(player.output().strip().splitlines()[-1])
            report("last scans", len(receiver.clouds))
            expected = played["messages"].get(next(iter(remaps.values())), 0)

            def drained() -> bool:
                counts = receiver.counts()
                complete = counts["in"] >= expected and counts["pending"] == 0
                return complete and len(receiver.clouds) >= counts["out"]

            wait_for(drained, DRAIN_TIMEOUT, "the last scans", node, give_up=True)
            memory_mb = {
                "node": memory.peak_mb(node.pid),
                "receiver": memory.peak_mb(),
                "node_now": memory.resident_mb(node.pid),
            }
        rate = player_parameters.get("rate", 1.0)
        return LiveRun(receiver.clouds, receiver.scan_infos, receiver.diagnostics, played, rate, memory_mb)


class Process:
    """A console script of ours as a process, which ends with the block; its output goes to files for error messages."""

    def __init__(self, name: str, parameters: dict[str, Any], remaps: dict[str, str], logs: Path) -> None:
        self.name = name
        self._stdout, self._stderr = logs / f"{name}.out", logs / f"{name}.err"
        arguments = [f for key, value in parameters.items() for f in ("-p", f"{key}:={json.dumps(value)}")]
        arguments += [f for source, target in remaps.items() for f in ("-r", f"{source}:={target}")]
        command = [sys.executable, "-m", f"cmp_seg_ros.nodes.{name}", "--ros-args", *arguments]
        with self._stdout.open("w") as out, self._stderr.open("w") as err:
            self._process = subprocess.Popen(command, stdout=out, stderr=err)

    def poll(self) -> int | None:
        return self._process.poll()

    def output(self) -> str:
        return self._stdout.read_text()

    def check(self) -> None:
        """Raise UserError if the process ended with an error."""
        if self.poll():
            words = (self._stderr.read_text() or self.output()).strip().splitlines()
            raise UserError(f"{self.name} ended with status {self.poll()}: {words[-1] if words else 'it said nothing'}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        if self.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()


@contextmanager
def isolated_ros() -> Iterator[None]:
    """This machine only, and a domain of our own, so that no robot nearby hears or disturbs a run."""
    domain = environment.Domain()
    variables = {"ROS_DOMAIN_ID": str(domain.number), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    try:
        with changed_environment(variables):
            yield
    finally:
        domain.release()


def wait_for(condition: Callable[[], bool], seconds: float, what: str, node: Process, give_up: bool = False) -> None:
    """Wait until the condition holds while the node lives. Raises UserError after `seconds`, unless `give_up`."""
    deadline = time.monotonic() + seconds
    while not condition():
        node.check()
        if time.monotonic() > deadline:
            if give_up:
                return
            raise UserError(
                f"waited {seconds:.0f} s for {what}; is the machine busy, or shared memory (/dev/shm) full?"
            )
        time.sleep(0.05)

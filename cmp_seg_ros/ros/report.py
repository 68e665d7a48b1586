"""What a node says about itself: counters, warnings, /diagnostics."""

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from cmp_seg_ros.ros import diagnostics, qos
from cmp_seg_ros.ros.diagnostics import ERROR, OK, WARN

RECENT = 3.0  # seconds that something odd counts as present
EXPECTED = ("superseded", "unsubscribed", "disabled", "shutdown")  # reasons for a drop that are no fault


@dataclass(frozen=True)
class Problem:
    """Something wrong at present, of level WARN or ERROR; where it is quiet no line is logged."""

    level: bytes
    message: str
    quiet: bool = False


class Report:
    """Counts and tells.

    Args:
        work: what the node does, as in "labelling".
        things: with what, as in "scans".

    Attributes:
        tally: what becomes of every message.
        frame: of the sensor; the hardware id in /diagnostics.
    """

    def __init__(self, node: Node, work: str, things: str) -> None:
        self.tally = diagnostics.Tally()
        self.frame = ""
        self._node, self._work, self._things = node, work, things
        self._throttle = diagnostics.Throttle()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.OUTPUT)
        self._dropped: Counter[str] = Counter()  # in the last report
        self._odd: dict[str, tuple[str, float]] = {}  # by kind: what is to be said of it, and until when
        self._told: set[str] = set()  # problems in the last report

    def note(self, what: str, message: str, harmless: bool = False, lasting: bool = False) -> None:
        """Count something odd about a message, and warn of it.

        Args:
            what: its kind.
            harmless: whether it leaves the health as it is.
            lasting: whether it stays so, though it is noted once.
        """
        self.tally.note(what)
        self.warn(message)
        if not harmless:
            self._odd[what] = message, time.monotonic() + RECENT if not lasting else float("inf")

    def warn(self, message: str) -> None:
        """Log a warning; the same one, whatever its numbers, only now and then."""
        if text := self._now_and_then(message):
            self._node.get_logger().warning(text)

    def inform(self, message: str) -> None:
        """Log a line of information, likewise."""
        if text := self._now_and_then(message):
            self._node.get_logger().info(text)

    def _now_and_then(self, message: str) -> str:
        held_back = self._throttle(_without_numbers(message))
        if held_back is None:
            return ""
        return message + (f" ({held_back} more like it)" if held_back else "")

    def publish(
        self, values: dict[str, Any], problems: list[Problem], least_rate_hz: float = 0.0, asleep: str = ""
    ) -> None:
        """Publish /diagnostics: the counters, the rate and the latencies, `values`, and the health.

        Args:
            problems: what the node itself knows of.
            least_rate_hz: messages a second of those that come that must be worked on, else the health is ERROR.
            asleep: why none is worked on though nothing is wrong; empty while they are.
        """
        self._log(problems)
        snapshot = self.tally.snapshot()
        found = sorted(
            [*problems, *self._counted(snapshot, 0.0 if asleep else least_rate_hz)], key=lambda p: -p.level[0]
        )
        rate, in_rate = snapshot["rate_hz"], snapshot["in_rate_hz"]
        fine = asleep or f"{self._work} {rate:.1f} of {in_rate:.1f} {self._things} a second"
        message = "; ".join(problem.message for problem in found) or fine
        name = f"{self._node.get_fully_qualified_name()}: {self._things}"
        level = found[0].level if found else OK
        status = diagnostics.status(name, level, message, self.frame, diagnostics.flat(snapshot) | values)
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _log(self, problems: list[Problem]) -> None:
        """A line where a problem begins."""
        before, self._told = self._told, {_without_numbers(problem.message) for problem in problems}
        for problem in problems:
            if not problem.quiet and _without_numbers(problem.message) not in before:
                self.warn(problem.message)

    def _counted(self, snapshot: dict[str, Any], least_rate_hz: float) -> list[Problem]:
        """What the counters say went wrong since the last report."""
        now = Counter(snapshot["dropped_by_reason"])
        fresh, self._dropped = now - self._dropped, now
        lost = {reason: count for reason, count in fresh.items() if reason not in EXPECTED}
        problems = []
        if lost:
            told = ", ".join(f"{count} {reason}" for reason, count in lost.items())
            problems.append(Problem(ERROR if "failed" in lost else WARN, f"{self._things} dropped: {told}"))
        rate, in_rate = snapshot["rate_hz"], snapshot["in_rate_hz"]
        if snapshot["steady"] and rate < min(least_rate_hz, in_rate / 2):
            told = f"{self._work} {rate:.1f} of {in_rate:.1f} {self._things} a second"
            problems.append(Problem(ERROR, f"{told}, fewer than error_rate_hz {least_rate_hz:g}"))
        odd = [message for message, until in list(self._odd.values()) if time.monotonic() < until]
        return problems + [Problem(WARN, message) for message in odd]


def _without_numbers(message: str) -> str:
    return re.sub(r"[\d.]+", "", message)

"""Log messages and /diagnostics of a node."""

import re
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from cmp_seg_ros.ros import diagnostics, qos
from cmp_seg_ros.ros.diagnostics import ERROR, OK, WARN

RECENT = 3.0  # seconds that a noted problem counts as current
EXPECTED = ("superseded", "unsubscribed", "disabled", "shutdown")  # reasons for dropping a message that are not faults


@dataclass(frozen=True)
class Problem:
    """A current problem of level WARN or ERROR. Quiet problems are not logged."""

    level: bytes
    message: str
    quiet: bool = False


class Report:
    """Counts messages and problems, and publishes them.

    Args:
        work: what the node does, such as "labelling".
        things: what it processes, such as "scans".

    Attributes:
        tally: counters of all messages.
        frame: frame of the sensor; the hardware id in /diagnostics.
    """

    def __init__(self, node: Node, work: str, things: str) -> None:
        self.tally = diagnostics.Tally()
        self.frame = ""
        self._node, self._work, self._things = node, work, things
        self._throttle = diagnostics.Throttle()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.OUTPUT)
        self._dropped: Counter[str] = Counter()  # in the last report
        self._odd: dict[str, tuple[str, float]] = {}  # message and expiry by kind
        self._logged: set[str] = set()  # problems in the last report

    def note(self, what: str, message: str, harmless: bool = False, lasting: bool = False) -> None:
        """Count a problem with a message, and log a warning.

        Args:
            what: kind of problem, for counting.
            message: the warning.
            harmless: do not change the health.
            lasting: keep the health at WARN from now on, instead of for RECENT seconds.
        """
        self.tally.note(what)
        self.warn(message)
        if not harmless:
            self._odd[what] = message, time.monotonic() + RECENT if not lasting else float("inf")

    def warn(self, message: str) -> None:
        """Log a warning. Repetitions, apart from their numbers, are throttled."""
        if text := self._throttled(message):
            self._node.get_logger().warning(text)

    def inform(self, message: str) -> None:
        """Log an information, throttled in the same way."""
        if text := self._throttled(message):
            self._node.get_logger().info(text)

    def _throttled(self, message: str) -> str:
        held_back = self._throttle(_without_numbers(message))
        if held_back is None:
            return ""
        return message + (f" ({held_back} more like it)" if held_back else "")

    def publish(
        self, values: dict[str, Any], problems: list[Problem], least_rate_hz: float = 0.0, asleep: str = ""
    ) -> None:
        """Publish /diagnostics: counters, rate, latencies, `values`, and the health.

        Args:
            values: additional values.
            problems: current problems that were not noted with `note`.
            least_rate_hz: minimum number of results per second; below it the health is ERROR.
            asleep: why the node is idle on purpose; empty if it is not.
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
        """Log each problem when it begins."""
        before, self._logged = self._logged, {_without_numbers(problem.message) for problem in problems}
        for problem in problems:
            if not problem.quiet and _without_numbers(problem.message) not in before:
                self.warn(problem.message)

    def _counted(self, snapshot: dict[str, Any], least_rate_hz: float) -> list[Problem]:
        """Problems since the last report, from the counters."""
        now = Counter(snapshot["dropped_by_reason"])
        fresh, self._dropped = now - self._dropped, now
        lost = {reason: count for reason, count in fresh.items() if reason not in EXPECTED}
        problems = []
        if lost:
            text = ", ".join(f"{count} {reason}" for reason, count in lost.items())
            problems.append(Problem(ERROR if "failed" in lost else WARN, f"{self._things} dropped: {text}"))
        rate, in_rate = snapshot["rate_hz"], snapshot["in_rate_hz"]
        if snapshot["steady"] and rate < min(least_rate_hz, in_rate / 2):
            text = f"{self._work} {rate:.1f} of {in_rate:.1f} {self._things} a second"
            problems.append(Problem(ERROR, f"{text}, fewer than error_rate_hz {least_rate_hz:g}"))
        odd = [message for message, until in list(self._odd.values()) if time.monotonic() < until]
        return problems + [Problem(WARN, message) for message in odd]


def _without_numbers(message: str) -> str:
    return re.sub(r"[\d.]+", "", message)

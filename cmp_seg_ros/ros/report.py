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
        held_back = self._throttle(_without_numbers(message))
        if held_back is not None:
            self._node.get_logger().warning(message + (f" ({held_back} more like it)" if held_back else ""))

    def inform(self, message: str) -> None:
        """Log an information."""
        self._node.get_logger().info(message)

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
        counted, dropped, is_steady = self.tally.snapshot()
        rate, in_rate = counted["rate_hz"], counted["in_rate_hz"]
        rates = f"{self._work} {rate:.1f} of {in_rate:.1f} {self._things} a second"
        found = problems + self._lost(dropped)
        if is_steady and not asleep and rate < min(least_rate_hz, in_rate / 2):
            found.append(Problem(ERROR, f"{rates}, fewer than error_rate_hz {least_rate_hz:g}"))
        found += [Problem(WARN, message) for message, until in list(self._odd.values()) if time.monotonic() < until]
        found.sort(key=lambda problem: -problem.level[0])
        message = "; ".join(problem.message for problem in found) or asleep or rates
        name = f"{self._node.get_fully_qualified_name()}: {self._things}"
        level = found[0].level if found else OK
        status = diagnostics.status(name, level, message, self.frame, counted | values)
        array = DiagnosticArray(status=[status])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _log(self, problems: list[Problem]) -> None:
        """Log each problem when it begins."""
        before, self._logged = self._logged, {_without_numbers(problem.message) for problem in problems}
        for problem in problems:
            if not problem.quiet and _without_numbers(problem.message) not in before:
                self.warn(problem.message)

    def _lost(self, dropped: Counter[str]) -> list[Problem]:
        """Messages dropped since the last report that should not have been."""
        fresh, self._dropped = dropped - self._dropped, dropped
        lost = {reason: count for reason, count in fresh.items() if reason not in EXPECTED}
        text = ", ".join(f"{count} {reason}" for reason, count in lost.items())
        return [Problem(ERROR if "failed" in lost else WARN, f"{self._things} dropped: {text}")] if lost else []


def _without_numbers(message: str) -> str:
    return re.sub(r"[\d.]+", "", message)

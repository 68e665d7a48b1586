"""What the node says about itself: counters, warnings, /diagnostics."""

import re
from collections import Counter
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from cmp_seg_ros.ros import diagnostics, qos


class Report:
    """Counts and tells. `tally` is what becomes of every message.

    Args:
        work: what the node does, as in "labelling"
        things: with what, as in "scans".
    """

    def __init__(self, node: Node, work: str, things: str) -> None:
        self.tally = diagnostics.Tally()
        self._node, self._work, self._things = node, work, things
        self._throttle = diagnostics.Throttle()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.OUTPUT)
        self._reported: Counter[str] = Counter()  # losses in the last diagnostics

    def note(self, what: str, message: str) -> None:
        """Count something odd about a message, and warn of it."""
        self.tally.note(what)
        self.warn(message)

    def warn(self, message: str) -> None:
        """Log a warning; the same one, whatever its numbers, only now and then."""
        if text := self._now_and_then(message):
            self._node.get_logger().warning(text)

    def inform(self, message: str) -> None:
        """Log a line of information, likewise."""
        if text := self._now_and_then(message):
            self._node.get_logger().info(text)

    def _now_and_then(self, message: str) -> str:
        held_back = self._throttle(re.sub(r"\d+", "", message))
        if held_back is None:
            return ""
        return message + (f" ({held_back} more like it)" if held_back else "")

    def publish(self, values: dict[str, Any], problem: str = "", shortcoming: str = "") -> None:
        """Publish /diagnostics: the counters, the rate and the latencies, `values`, and what is wrong at present.

        Args:
            problem: why nothing is worked on at present.
            shortcoming: what is not as it should be, though messages are worked on.
        """
        snapshot = self.tally.snapshot()
        level, message = self._health(snapshot, problem, shortcoming)
        name, values = f"{self._node.get_name()}: {self._things}", diagnostics.flat(snapshot) | values
        array = DiagnosticArray(status=[diagnostics.status(name, level, message, "", values)])
        array.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(array)

    def _health(self, snapshot: dict[str, Any], problem: str, shortcoming: str) -> tuple[bytes, str]:
        """Level and one line: what went wrong since the last report."""
        now = Counter(snapshot["dropped_by_reason"]) + Counter({"lost": snapshot["notes"].get("lost", 0)})
        fresh, self._reported = now - self._reported, now
        if problem:
            return diagnostics.WARN, problem
        lost = [f"{count} {reason}" for reason, count in fresh.items() if reason != "superseded"]
        if lost:
            return (
                diagnostics.ERROR if fresh["failed"] else diagnostics.WARN
            ), f"{self._things} lost: {', '.join(lost)}"
        if shortcoming:
            return diagnostics.WARN, shortcoming
        rate, in_rate = snapshot["rate_hz"], snapshot["in_rate_hz"]
        return diagnostics.OK, f"{self._work} {rate:.1f} of {in_rate:.1f} {self._things} a second"

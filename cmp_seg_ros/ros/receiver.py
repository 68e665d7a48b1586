"""Receives what a segmentation node publishes. Of clouds only the labels are kept: a long run must fit in memory."""

import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.ros import diagnostics
from cmp_seg_ros.ros.own_context import own_node
from cmp_seg_ros.scan import Labels

DEPTH = 100  # messages; nothing that is published may be lost here


@dataclass(frozen=True)
class Received:
    """The labels of a cloud, its stamp, and when it came (nanoseconds by the wall clock)."""

    stamp: int
    time: int
    labels: Labels


class Receiver:
    """Subscribes to the outputs of the node `name` and spins in a thread of its own until closed.

    Attributes:
        clouds: the labels of clouds in the order they came.
        scan_infos: the values of ~/scan_info by stamp.
        diagnostics: the values of the node's last report in /diagnostics.
    """

    def __init__(self, name: str) -> None:
        self.clouds: list[Received] = []
        self.scan_infos: dict[int, dict[str, str]] = {}
        self.diagnostics: dict[str, str] = {}
        self._name = name
        self._open = ExitStack()
        node, executor = self._open.enter_context(own_node("receiver"))
        qos = QoSProfile(depth=DEPTH)
        node.create_subscription(PointCloud2, f"/{name}/labelled_points", self._on_cloud, qos, raw=True)
        node.create_subscription(DiagnosticStatus, f"/{name}/scan_info", self._on_scan_info, qos)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos)
        self._thread = threading.Thread(target=executor.spin, name="receiver", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: Any) -> None:
        self._open.close()
        self._thread.join()

    def counts(self) -> dict[str, int]:
        """What the node last said of its scans: in, out, dropped, pending."""
        return {key: int(self.diagnostics.get(key) or 0) for key in ("in", "out", "dropped", "pending")}

    def _on_cloud(self, data: bytes) -> None:
        now = time.time_ns()
        labels = point_cloud2.decode_labels(cdr.deserialize(data, cdr.POINT_CLOUD2))
        # Copies, as the arrays are views of the whole cloud.
        kept = Labels(labels.label.copy(), labels.confidence.copy())
        self.clouds.append(Received(cdr.stamp_ns(data), now, kept))

    def _on_scan_info(self, message: DiagnosticStatus) -> None:
        values = diagnostics.values(message)
        self.scan_infos[int(values["stamp_ns"])] = values

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(f"/{self._name}: "):
                self.diagnostics = diagnostics.values(status)

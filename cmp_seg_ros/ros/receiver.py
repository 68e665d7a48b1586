"""Receives what a segmentation node publishes. Of clouds only the labels are kept: a long run must fit in memory."""

import threading
import time
from dataclasses import dataclass
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import PointCloud2

from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.ros import diagnostics
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
        self._context = Context()
        rclpy.init(context=self._context)
        self._node = Node("receiver", context=self._context)
        qos = QoSProfile(depth=DEPTH)
        self._node.create_subscription(PointCloud2, f"/{name}/labelled_points", self._on_cloud, qos, raw=True)
        self._node.create_subscription(DiagnosticStatus, f"/{name}/scan_info", self._on_scan_info, qos)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._executor.spin, name="receiver", daemon=True)
        self._thread.start()

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: Any) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()
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

"""Receives what a segmentation node publishes. The callbacks only store; messages are read when the run is over."""

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

from cmp_seg_ros.messages import cdr
from cmp_seg_ros.ros import diagnostics

DEPTH = 100  # messages; nothing that is published may be lost here


@dataclass(frozen=True)
class Received:
    """A serialised labelled cloud, its stamp, and when it came (nanoseconds by the wall clock)."""

    stamp: int
    time: int
    data: bytes


class Receiver:
    """Subscribes to the outputs of the node `name` and spins in a thread of its own until closed.

    Attributes:
        clouds: labelled clouds in the order they came.
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
        self.clouds.append(Received(cdr.stamp_ns(data), time.time_ns(), data))

    def _on_scan_info(self, message: DiagnosticStatus) -> None:
        values = diagnostics.values(message)
        self.scan_infos[int(values["stamp_ns"])] = values

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(f"/{self._name}: "):
                self.diagnostics = diagnostics.values(status)

"""What comes in: callbacks store it, the worker takes the newest scan and the image that goes with the last one."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from cmp_seg_ros.messages import cdr
from cmp_seg_ros.ros import qos
from cmp_seg_ros.ros.camera_view import CameraView
from cmp_seg_ros.ros.diagnostics import Tally
from cmp_seg_ros.ros.parameters import Parameters
from cmp_seg_ros.ros.synchroniser import Match, Synchroniser
from cmp_seg_ros.scan import Labels, Scan

SILENCE = 3.0  # seconds without a scan that are worth a warning


@dataclass(frozen=True)
class Arrival:
    """A scan as it came: serialised, with its number and the monotonic time in seconds."""

    data: bytes
    number: int
    time: float


@dataclass(frozen=True)
class Labelled:
    """A labelled and published scan, whose image may still be on its way. `stamp`: by the cameras' clock."""

    arrival: Arrival
    scan: Scan
    labels: Labels
    stages_ms: dict[str, float]
    stamp: int


class Inputs:
    """The subscriptions, from `subscribe` on.

    Args:
        image_wanted: whether it is worth waiting for images.
        tally: counts the scans that come.
        view: takes the camera info.

    Attributes:
        waited: seconds that the last `next_scan` had nothing to do.
    """

    def __init__(
        self, node: Node, parameters: Parameters, tally: Tally, view: CameraView, image_wanted: Callable[[], bool]
    ) -> None:
        self.waited = 0.0
        self.points: qos.Input | None = None
        self._node, self._parameters, self._tally, self._view = node, parameters, tally, view
        self._image_wanted = image_wanted
        self._others: list[qos.Input] = []
        self._changed = threading.Condition()  # guards the rest
        self._synchroniser: Synchroniser[bytes] = Synchroniser(parameters["sync_deadline"])
        self._newest: Arrival | None = None
        self._last_arrival = time.monotonic()
        self._closing = False

    def subscribe(self) -> None:
        """Listen from now on."""
        self._last_arrival = time.monotonic()  # silence counts from here
        reliability = self._parameters["input_reliability"]
        compressed = self._parameters["image_transport"] == "compressed"
        image_topic = self._node.resolve_topic_name("image") + "/compressed" if compressed else "image"

        def lost(count: int) -> None:
            self._tally.note("lost", count)

        self._others = [
            qos.Input(self._node, CameraInfo, "camera_info", self._on_camera_info, reliability, 2),
            qos.Input(self._node, CompressedImage if compressed else Image, image_topic, self._on_image, reliability),
        ]
        self.points = qos.Input(self._node, PointCloud2, "points", self._on_points, reliability, on_lost=lost)

    # The callbacks, in the executor's thread: they only store.

    def _on_points(self, data: bytes) -> None:
        with self._changed:
            number = self._tally.receive(superseded=self._newest is not None)
            self._last_arrival = time.monotonic()
            self._newest = Arrival(data, number, self._last_arrival)
            self._changed.notify()

    def _on_image(self, data: bytes) -> None:
        with self._changed:
            self._synchroniser.add_image(cdr.stamp_ns(data), data, time.monotonic())
            self._changed.notify()

    def _on_camera_info(self, data: bytes) -> None:
        self._view.camera_info = data

    # For the worker.

    def next_scan(
        self, last: Labelled | None, finish: Callable[[Labelled, Match[bytes] | None], None]
    ) -> Arrival | None:
        """Wait for the newest scan; None at the end. Meanwhile finish the last one, once its image is there or late."""
        self.waited = 0.0
        while True:
            with self._changed:
                over = self._closing or self._newest is not None
                if last is None or not (over or self._image_decided(last)):
                    if self._closing:
                        return None
                    if self._newest is not None:
                        arrival, self._newest = self._newest, None
                        return arrival
                    start = time.monotonic()
                    self._changed.wait(None if last is None else self._synchroniser.deadline)
                    self.waited += time.monotonic() - start
                    continue
                labelled, last = last, None
                match = self._synchroniser.match(labelled.stamp)
            finish(labelled, match)

    def _image_decided(self, labelled: Labelled) -> bool:
        if not self._image_wanted():
            return True
        return self._synchroniser.decided(labelled.stamp, labelled.arrival.time, time.monotonic())

    def add_scan(self, stamp: int) -> bool:
        """Note the stamp of a scan by the cameras' clock; true where time ran backwards."""
        with self._changed:
            self._synchroniser.deadline = self._parameters["sync_deadline"]
            return self._synchroniser.add_scan(stamp)

    def close(self) -> None:
        """Let the worker come to its end."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def drop_pending(self) -> None:
        """Account for the scan that waits, once the worker has ended."""
        if self._newest is not None:
            self._tally.drop("shutdown")
            self._newest = None

    # For the report.

    def values(self) -> dict[str, Any]:
        """What is to be known of topics and images."""
        if self.points is None:
            return {}
        with self._changed:
            offset, match_rate = self._synchroniser.median_offset, self._synchroniser.match_rate
        return {
            "topic": self.points.topic,
            "publishers": self.points.publishers,
            "reliability": self.points.reliability,
            "image.match_rate": match_rate,
            "image.median_offset_ms": None if offset is None else offset * 1e-6,
        }

    def silence(self, ours: str) -> str:
        """Why no scan comes, as far as can be told; empty while they come. `ours`: a topic with clouds of our own."""
        if self.points is None or time.monotonic() - self._last_arrival <= SILENCE:
            return ""
        topic = self.points.topic
        if self.points.publishers:
            return f"no cloud came on {topic} for {SILENCE:.0f} s, though it has a publisher"
        clouds = "sensor_msgs/msg/PointCloud2"
        others = [name for name, types in self._node.get_topic_names_and_types() if clouds in types]
        others = [name for name in others if name not in (topic, ours)]
        if not others:
            return f"nobody publishes {topic}; nor other clouds"
        return f"nobody publishes {topic}; clouds are on {', '.join(others)}: remap with -r points:={others[0]}"

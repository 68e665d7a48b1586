"""What comes in. Callbacks store it; a worker takes the newest message of the main topic when the last one is done."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from cmp_seg_ros.ros import qos
from cmp_seg_ros.ros.diagnostics import Tally

SILENCE = 3.0  # seconds without a message that are worth a warning
Store = Callable[[bytes], None]


@dataclass(frozen=True)
class Arrival:
    """A message as it came: serialised, with its number and the monotonic time in seconds."""

    data: bytes
    number: int
    time: float


class Inputs:
    """The subscriptions of a node: the main topic, whose newest message wins, and others that are only stored.

    Args:
        message: type of the main topic, such as PointCloud2.
        name: of the main topic, before remapping.
        tally: counts its messages.
        reliability: of all subscriptions.

    Attributes:
        changed: held while a message is stored, and notified of it.
        topic: name of the main topic, after remapping.
    """

    def __init__(self, node: Node, message: type, name: str, tally: Tally, reliability: qos.Reliability) -> None:
        self.changed = threading.Condition()
        self.topic = node.resolve_topic_name(name)
        self._node, self._message, self._name, self._tally = node, message, name, tally
        self._reliability = reliability
        self._others: list[tuple[type, str, Store, int]] = []
        self._subscriptions: list[qos.Input] = []  # the main one first; empty where none is wanted
        self._newest: Arrival | None = None
        self._last_time = 0.0
        self._closed = False

    def add(self, message: type, name: str, store: Store, depth: int = qos.INPUT_DEPTH) -> None:
        """One more topic, from the next `subscribe` on. `store` takes its serialised messages, `changed` being held."""

        def receive(data: bytes) -> None:
            with self.changed:
                store(data)
                self.changed.notify()

        self._others.append((message, name, receive, depth))

    def subscribe(self) -> None:
        """Listen from now on."""
        self._last_time = time.monotonic()  # silence counts from here
        main = qos.Input(self._node, self._message, self._name, self._receive, self._reliability, on_lost=self._lost)
        others = (qos.Input(self._node, *other[:3], self._reliability, other[3]) for other in self._others)
        self._subscriptions = [main, *others]

    def unsubscribe(self, reason: str) -> None:
        """Listen no more. A message that waits is dropped for that reason."""
        for subscription in self._subscriptions:
            subscription.destroy()
        self._subscriptions = []
        with self.changed:
            if self._newest is not None:
                self._newest = None
                self._tally.drop(reason)

    # The callbacks, in the executor's thread: they only store.

    def _receive(self, data: bytes) -> None:
        with self.changed:
            number = self._tally.receive(superseded=self._newest is not None)
            self._last_time = time.monotonic()
            self._newest = Arrival(data, number, self._last_time)
            self.changed.notify()

    def _lost(self, count: int) -> None:
        self._tally.note("lost", count)

    # For the worker.

    def wait(self, until: Callable[[], bool] | None = None, poll: float = 0.05) -> bool:
        """Wait for a message on the main topic, or until the condition holds. Returns false once closed.

        Args:
            until: asked after every message on any topic, and every `poll` seconds, `changed` being held.
        """
        with self.changed:
            while not (self._closed or self._newest is not None or (until is not None and until())):
                self.changed.wait(None if until is None else poll)
            return not self._closed

    def take(self) -> Arrival | None:
        """The message that waits."""
        with self.changed:
            arrival, self._newest = self._newest, None
            return arrival

    def close(self) -> None:
        """Let the worker come to its end."""
        with self.changed:
            self._closed = True
            self.changed.notify()

    # For the report.

    def values(self) -> dict[str, Any]:
        """What is to be known of the main topic."""
        if not self._subscriptions:
            return {}
        main = self._subscriptions[0]
        return {"topic": self.topic, "publishers": main.publishers, "reliability": main.reliability}

    def silence(self) -> str:
        """Why nothing comes on the main topic, as far as can be told; empty while something does."""
        if not self._subscriptions or time.monotonic() - self._last_time <= SILENCE:
            return ""
        if self._subscriptions[0].publishers:
            return f"nothing came on {self.topic} for {SILENCE:.0f} s, though it has a publisher"
        kind = self._message.__name__
        known = {self.topic, *(publisher.topic_name for publisher in self._node.publishers)}
        others = [
            topic
            for topic, types in self._node.get_topic_names_and_types()
            if topic not in known and any(name.endswith(f"/{kind}") for name in types)
        ]
        if not others:
            return f"nobody publishes {self.topic}, nor any other {kind}"
        there = ", ".join(others)
        return f"nobody publishes {self.topic}; {kind} is on {there}: remap with -r {self._name}:={others[0]}"

"""Subscriptions of a node. Callbacks store messages; a worker takes the newest message of the main topic."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from cmp_seg_ros import resources
from cmp_seg_ros.ros import environment, qos
from cmp_seg_ros.ros.diagnostics import Tally

SILENCE = 3.0  # seconds without a message before a warning


@dataclass(frozen=True)
class Arrival:
    """A serialised message, with its number and its monotonic arrival time in seconds."""

    data: bytes
    number: int
    time: float


class Topic:
    """One subscribed topic.

    Args:
        name: before remapping.
        store: called with each serialised message.

    Attributes:
        topic: name after remapping.
        received, lost: numbers of messages that arrived, and that the middleware lost.
    """

    def __init__(self, node: Node, message: type, name: str, store: Callable[[bytes], None], depth: int) -> None:
        self.topic = node.resolve_topic_name(name)
        self.received = self.lost = 0
        self._node, self._message, self._name, self._store, self._depth = node, message, name, store, depth
        self._subscription: qos.Input | None = None
        self._last_time = 0.0
        self._reported = 0

    def subscribe(self, reliability: qos.Reliability) -> None:
        """Subscribe, if not subscribed."""
        if self._subscription is not None:
            return
        self._last_time = time.monotonic()  # silence counts from here
        self._subscription = qos.Input(
            self._node, self._message, self._name, self._receive, reliability, self._depth, self._lose
        )

    def unsubscribe(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._subscription.destroy()
            self._subscription = None

    def _receive(self, data: bytes) -> None:
        self._last_time = time.monotonic()
        self.received += 1
        self._store(data)

    def _lose(self, count: int) -> None:
        self.lost += count

    def adapt(self) -> None:
        """Ask for what was published before, where publishers that have come meanwhile have kept it."""
        if self._subscription is not None:
            self._subscription.adapt()

    def values(self) -> dict[str, Any]:
        """Values for /diagnostics."""
        subscription = self._subscription
        return {
            "topic": self.topic,
            "publishers": self._node.count_publishers(self.topic),
            "reliability": subscription and subscription.reliability,
            "durability": subscription and subscription.durability,
            "lost": self.lost,
        }

    def problem(self) -> str:
        """Why messages are missing, with the remedy; empty if none is. Call it once per report."""
        if self._subscription is None:
            return ""
        lost, self._reported = self.lost - self._reported, self.lost
        silent = time.monotonic() - self._last_time > SILENCE
        if lost or (silent and self.lost and self._node.count_publishers(self.topic)):
            profile = f"export {environment.variable()}={resources.resource(environment.PROFILES)}"
            return (
                f"{self.lost} messages on {self.topic} were lost by the middleware, {self.received} of "
                f"{self.lost + self.received} arrived: set the profile where the driver starts, {profile}"
            )
        return self._silence() if silent else ""

    def _silence(self) -> str:
        if self._node.count_publishers(self.topic):
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
        listed = ", ".join(others)
        return f"nobody publishes {self.topic}; {kind} is on {listed}: remap with -r {self._name}:={others[0]}"


class Inputs:
    """All subscribed topics: the main one, of which only the newest message is kept, and others.

    Args:
        message: type of the main topic, such as PointCloud2.
        name: name of the main topic, before remapping.
        tally: counts the messages of the main topic.
        reliability: of all subscriptions.

    Attributes:
        changed: condition that is held while a message is stored, and then notified.
        main: the main topic.
    """

    def __init__(self, node: Node, message: type, name: str, tally: Tally, reliability: qos.Reliability) -> None:
        self.changed = threading.Condition()
        self._node, self._tally, self._reliability = node, tally, reliability
        self._newest: Arrival | None = None
        self._closed = False
        self._topics: list[Topic] = []
        self.main = self.add(message, name, self._store)

    def add(self, message: type, name: str, store: Callable[[bytes], None], depth: int = qos.INPUT_DEPTH) -> Topic:
        """Add a topic for the next `subscribe`. `store` gets its serialised messages while `changed` is held."""

        def receive(data: bytes) -> None:
            with self.changed:
                store(data)
                self.changed.notify()

        self._topics.append(Topic(self._node, message, name, receive, depth))
        return self._topics[-1]

    def subscribe(self) -> None:
        """Subscribe to all topics, if not subscribed."""
        for topic in self._topics:
            topic.subscribe(self._reliability)

    def adapt(self) -> None:
        """See `Topic.adapt`; to be called now and then."""
        for topic in self._topics:
            topic.adapt()

    def unsubscribe(self, reason: str) -> None:
        """Unsubscribe from all topics. A pending message is dropped with this reason."""
        for topic in self._topics:
            topic.unsubscribe()
        with self.changed:
            if self._newest is not None:
                self._newest = None
                self._tally.drop(reason)

    def _store(self, data: bytes) -> None:
        number = self._tally.receive(superseded=self._newest is not None)
        self._newest = Arrival(data, number, time.monotonic())

    # For the worker.

    def wait(self, until: Callable[[], bool] | None = None, poll: float = 0.05) -> bool:
        """Wait for a message on the main topic, or for a condition. Returns False once closed.

        Args:
            until: checked after every message of any topic, and every `poll` seconds, while `changed` is held.
        """
        with self.changed:
            while not (self._closed or self._newest is not None or (until is not None and until())):
                self.changed.wait(None if until is None else poll)
            return not self._closed

    def take(self) -> Arrival | None:
        """Remove and return the pending message, or None."""
        with self.changed:
            arrival, self._newest = self._newest, None
            return arrival

    def hold(self, arrival: Arrival, seconds: float) -> None:
        """Put a taken message back for some seconds, unless a newer one has arrived."""
        with self.changed:
            if self._newest is not None or self._closed:
                self._tally.drop("shutdown" if self._closed else "superseded")
                return
            self._newest = arrival
            self.changed.wait_for(lambda: self._closed or self._newest is not arrival, seconds)

    def close(self) -> None:
        """Make `wait` return False, so that the worker ends."""
        with self.changed:
            self._closed = True
            self.changed.notify()

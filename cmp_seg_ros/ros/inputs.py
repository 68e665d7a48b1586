"""Subscriptions of a node. Callbacks store messages; a worker takes the newest message of the main topic."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from cmp_seg_ros import resources
from cmp_seg_ros.ros import environment, qos
from cmp_seg_ros.ros.diagnostics import Tally

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

SILENCE = 3.0  # seconds without a message before a warning
POLL = 0.05  # seconds
LAST = ("occupancy_node", "pseudo_label_node", "semantic_map_node")  # no node of ours takes what these publish


@dataclass(frozen=True)
class Arrival:
    """A serialised message, with its number and its monotonic arrival time in seconds."""

    data: bytes
    number: int
    time: float


class Topic:
    """One topic, whose serialised messages are stored; it asks for the quality of service that its publishers offer.

    It begins reliable, so that large messages arrive; with `auto` it becomes best effort, for good, as soon as a
    publisher shows up that offers no more. (A reliable subscription gets nothing from such a publisher, a best-effort
    one loses large messages of all publishers.) It becomes transient local, and so gets what was published before,
    where all publishers are and nothing has come so far. What the parameters qos_overrides.TOPIC.subscription.* set
    (history, depth, reliability, durability) stays as it is.

    Args:
        name: before remapping.
        store: called with each serialised message.

    Attributes:
        topic: name after remapping.
        received, lost: numbers of messages that arrived, and that the middleware lost.
    """

    def __init__(
        self,
        node: Node,
        message: type,
        name: str,
        store: Callable[[bytes], None],
        depth: int = qos.INPUT_DEPTH,
        reliability: qos.Reliability = "auto",
    ) -> None:
        self.topic = node.resolve_topic_name(name)
        self.received = self.lost = 0
        self._node, self._message, self._name, self._store = node, message, name, store
        self._profile = QoSProfile(
            depth=depth,
            reliability=qos.BEST_EFFORT if reliability == "best_effort" else qos.RELIABLE,
            durability=qos.VOLATILE,
        )
        given = f"{qos.OVERRIDES}{self.topic}.subscription."
        self._overridden = [kind for kind in QoSPolicyKind if given + kind.name.lower() in node._parameter_overrides]
        adapts = [QoSPolicyKind.DURABILITY, *([QoSPolicyKind.RELIABILITY] if reliability == "auto" else [])]
        self._adapts = [kind for kind in adapts if kind not in self._overridden]
        self._subscription: Any = None
        self._last_time = 0.0
        self._reported = 0

    def subscribe(self) -> None:
        """Subscribe, if not subscribed."""
        if self._subscription is None:
            self._last_time = time.monotonic()  # silence counts from here
            self._subscribe()
            self.adapt()

    def unsubscribe(self) -> None:
        """Unsubscribe."""
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def adapt(self) -> None:
        """Ask for what was published before, where all publishers have kept it and nothing has come."""
        if self._subscription is None or self.received or self._profile.durability != qos.VOLATILE:
            return
        offers = self._node.get_publishers_info_by_topic(self.topic)
        if offers and all(offer.qos_profile.durability == qos.TRANSIENT_LOCAL for offer in offers):
            self._change("durability", qos.TRANSIENT_LOCAL)

    def _subscribe(self) -> None:
        self._subscription = self._node.create_subscription(
            self._message,
            self._name,
            self._receive,
            self._profile,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_incompatible, message_lost=self._on_lost
            ),
            qos_overriding_options=QoSOverridingOptions(self._overridden),
            raw=True,
        )

    def _receive(self, data: bytes) -> None:
        self._last_time = time.monotonic()
        self.received += 1
        self._store(data)

    def _on_lost(self, info: Any) -> None:
        self.lost += info.total_count_change

    def _on_incompatible(self, info: Any) -> None:
        """A publisher offers less than is asked for."""
        logger, policy = self._node.get_logger(), QoSPolicyKind(info.last_policy_kind)
        name = policy.name.lower()
        if policy not in self._adapts:
            logger.warning(
                f"a publisher of {self.topic} offers a quality of service that does not fit ({name}); nothing comes "
                f"from it. Set the parameter input_reliability to auto, and no {qos.OVERRIDES}{self.topic}"
            )
            return
        logger.info(f"a publisher of {self.topic} offers less {name} than is asked for; asking for less")
        if self._node.executor is not None:  # not from within an event of the subscription itself
            least = qos.BEST_EFFORT if policy == QoSPolicyKind.RELIABILITY else qos.VOLATILE
            self._node.executor.create_task(self._change, name, least)

    def _change(self, policy: str, to: Any) -> None:
        """Subscribe with another reliability or durability, unless unsubscribed meanwhile."""
        adapts = QoSPolicyKind[policy.upper()] in self._adapts
        if self._subscription is not None and adapts and getattr(self._profile, policy) != to:
            self.unsubscribe()
            setattr(self._profile, policy, to)
            self._subscribe()

    def values(self) -> dict[str, Any]:
        """Values for /diagnostics."""
        profile = None if self._subscription is None else self._profile
        return {
            "topic": self.topic,
            "publishers": self._node.count_publishers(self.topic),
            "reliability": profile and profile.reliability.name.lower(),
            "durability": profile and profile.durability.name.lower(),
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
            if topic not in known
            and any(name.endswith(f"/{kind}") for name in types)
            and not any(f"/{node}/" in topic for node in LAST)
            and self._node.count_publishers(topic)
        ]
        others.sort(key=lambda topic: not topic.endswith(f"/{self._name}"))  # one of that name first
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

        self._topics.append(Topic(self._node, message, name, receive, depth, self._reliability))
        return self._topics[-1]

    def subscribe(self) -> None:
        """Subscribe to all topics, if not subscribed."""
        for topic in self._topics:
            topic.subscribe()

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

    def wait(self, until: Callable[[], bool] | None = None) -> bool:
        """Wait for a message on the main topic, or for a condition. Returns False once closed.

        Args:
            until: checked after every message of any topic, and every POLL seconds, while `changed` is held.
        """
        with self.changed:
            while not (self._closed or self._newest is not None or (until is not None and until())):
                self.changed.wait(None if until is None else POLL)
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

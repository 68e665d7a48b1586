"""Quality of service of our topics, and subscriptions that adapt to what publishers offer."""

from collections.abc import Callable
from typing import Any, Literal

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

Reliability = Literal["auto", "reliable", "best_effort"]

# A subscription takes messages in a callback that only stores; the depth bridges the time until the callback runs.
INPUT_DEPTH = 20
OUTPUT = QoSProfile(depth=10)  # reliable, volatile: fits reliable and best-effort readers
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


class Input:
    """A subscription to serialised messages.

    Reliable, so that large messages arrive; with `auto` it becomes best effort, for good, as soon as a publisher shows
    up that offers no more. (A reliable subscription gets nothing from such a publisher, a best-effort one loses large
    messages of all publishers.)

    Args:
        callback: takes the serialised message (CDR) as bytes.
        on_lost: takes the number of messages that the middleware has just lost.

    Attributes:
        topic: the topic's full name, after remapping.
    """

    def __init__(
        self,
        node: Node,
        message: type,
        topic: str,
        callback: Callable[[bytes], None],
        reliability: Reliability = "auto",
        depth: int = INPUT_DEPTH,
        on_lost: Callable[[int], None] | None = None,
    ) -> None:
        self._node, self._message, self._topic, self._callback = node, message, topic, callback
        self._depth, self._on_lost, self._adapts = depth, on_lost, reliability == "auto"
        best_effort = reliability == "best_effort"
        self._subscribe(ReliabilityPolicy.BEST_EFFORT if best_effort else ReliabilityPolicy.RELIABLE)
        # Kept, since other threads ask for it while the subscription is exchanged for another.
        self.topic = str(self._subscription.topic_name)

    @property
    def publishers(self) -> int:
        """Number of publishers on the topic."""
        return int(self._node.count_publishers(self.topic))

    @property
    def reliability(self) -> str:
        """What is asked for at present."""
        return str(self._reliability.name.lower())

    def destroy(self) -> None:
        """Unsubscribe."""
        self._adapts = False  # where a change is under way
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self, reliability: ReliabilityPolicy) -> None:
        self._reliability = reliability
        events = SubscriptionEventCallbacks(
            incompatible_qos=self._incompatible,
            message_lost=lambda info: self._on_lost(info.total_count_change) if self._on_lost else None,
        )
        self._subscription = self._node.create_subscription(
            self._message,
            self._topic,
            self._callback,
            QoSProfile(depth=self._depth, reliability=reliability),
            event_callbacks=events,
            raw=True,
        )

    def _incompatible(self, info: Any) -> None:
        logger = self._node.get_logger()
        if not (self._adapts and self._reliability == ReliabilityPolicy.RELIABLE):
            logger.warning(
                f"a publisher of {self.topic} offers a quality of service that does not fit (policy "
                f"{info.last_policy_kind}); nothing comes from it. Set the parameter input_reliability to auto"
            )
            return
        logger.info(f"{self.topic} is published with best effort; subscribing likewise")
        if self._node.executor is not None:  # not from within an event of the subscription itself
            self._node.executor.create_task(self._weaken)

    def _weaken(self) -> None:
        if self._adapts and self._reliability == ReliabilityPolicy.RELIABLE:
            self._node.destroy_subscription(self._subscription)
            self._subscribe(ReliabilityPolicy.BEST_EFFORT)

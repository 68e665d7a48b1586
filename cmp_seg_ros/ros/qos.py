"""Quality of service of our topics, and subscriptions that adapt to what publishers offer."""

from collections.abc import Callable
from typing import Any, Literal

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSPolicyKind, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

Reliability = Literal["auto", "reliable", "best_effort"]

# A subscription takes messages in a callback that only stores; the depth bridges the time until the callback runs.
INPUT_DEPTH = 20
OUTPUT = QoSProfile(depth=10)  # reliable, volatile: fits reliable and best-effort readers
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
OVERRIDES = "qos_overrides."  # how parameters begin that set the quality of service of a topic


class Input:
    """A subscription to serialised messages that asks for what the publishers offer.

    It begins reliable, so that large messages arrive; with `auto` it becomes best effort, for good, as soon as a
    publisher shows up that offers no more. (A reliable subscription gets nothing from such a publisher, a best-effort
    one loses large messages of all publishers.) It becomes transient local, and so gets what was published before,
    where all publishers are and nothing has come so far. What the parameters qos_overrides.TOPIC.subscription.* set
    (history, depth, reliability, durability) stays as it is.

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
        on_lost: Callable[[int], None] = lambda _count: None,
    ) -> None:
        self._node, self._message, self._name, self._callback = node, message, topic, callback
        self._depth, self._on_lost = depth, on_lost
        self.topic = node.resolve_topic_name(topic)
        given = f"{OVERRIDES}{self.topic}.subscription."
        self._overridden = [kind for kind in QoSPolicyKind if given + kind.name.lower() in node._parameter_overrides]
        self._adapts = [QoSPolicyKind.DURABILITY, *([QoSPolicyKind.RELIABILITY] if reliability == "auto" else [])]
        self._adapts = [kind for kind in self._adapts if kind not in self._overridden]
        self._received = False
        self._subscribe(BEST_EFFORT if reliability == "best_effort" else RELIABLE, VOLATILE)
        self.adapt()

    @property
    def reliability(self) -> str:
        """What is asked for at present."""
        return str(self._profile.reliability.name.lower())

    @property
    def durability(self) -> str:
        """What is asked for at present."""
        return str(self._profile.durability.name.lower())

    def destroy(self) -> None:
        """Unsubscribe."""
        self._adapts = []  # where a change is under way
        self._node.destroy_subscription(self._subscription)

    def adapt(self) -> None:
        """Ask for the past where all publishers have kept it and nothing has come."""
        if self._received or self._profile.durability != VOLATILE:
            return
        offers = self._node.get_publishers_info_by_topic(self.topic)
        if offers and all(offer.qos_profile.durability == TRANSIENT_LOCAL for offer in offers):
            self._change(QoSPolicyKind.DURABILITY, TRANSIENT_LOCAL)

    def _subscribe(self, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> None:
        self._profile = QoSProfile(depth=self._depth, reliability=reliability, durability=durability)
        self._subscription = self._node.create_subscription(
            self._message,
            self._name,
            self._receive,
            self._profile,
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=self._on_incompatible,
                message_lost=lambda info: self._on_lost(info.total_count_change),
            ),
            qos_overriding_options=QoSOverridingOptions(self._overridden),
            raw=True,
        )

    def _receive(self, data: bytes) -> None:
        self._received = True
        self._callback(data)

    def _on_incompatible(self, info: Any) -> None:
        """A publisher offers less than is asked for."""
        logger, policy = self._node.get_logger(), QoSPolicyKind(info.last_policy_kind)
        name = policy.name.lower()
        if policy not in self._adapts:
            logger.warning(
                f"a publisher of {self.topic} offers a quality of service that does not fit ({name}); nothing comes "
                f"from it. Set the parameter input_reliability to auto, and no {OVERRIDES}{self.topic}"
            )
            return
        logger.info(f"a publisher of {self.topic} offers less {name} than is asked for; asking for less")
        if self._node.executor is not None:  # not from within an event of the subscription itself
            least = BEST_EFFORT if policy == QoSPolicyKind.RELIABILITY else VOLATILE
            self._node.executor.create_task(self._change, policy, least)

    def _change(self, policy: QoSPolicyKind, to: Any) -> None:
        """Subscribe with another reliability or durability."""
        asked = {"reliability": self._profile.reliability, "durability": self._profile.durability}
        if policy in self._adapts and asked[policy.name.lower()] != to:
            self._node.destroy_subscription(self._subscription)
            self._subscribe(**(asked | {policy.name.lower(): to}))

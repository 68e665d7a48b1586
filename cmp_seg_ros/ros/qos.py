"""Quality of service of our topics."""

from typing import Literal

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

Reliability = Literal["auto", "reliable", "best_effort"]

# A subscription takes messages in a callback that only stores; the depth bridges the time until the callback runs.
INPUT_DEPTH = 20
OUTPUT = QoSProfile(depth=10)  # reliable, volatile: fits reliable and best-effort readers
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
VOLATILE, TRANSIENT_LOCAL = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
OVERRIDES = "qos_overrides."  # how parameters begin that set the quality of service of a topic

"""Stands in for tf2_ros where that is not installed: its interface as far as the node and its tests use it.

Transforms go over DDS on the topics of TF, one a message, since the type of TF's own messages is missing there, too.
"""

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile

STATIC = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
TOPICS = {"/tf_static": STATIC, "/tf": QoSProfile(depth=100)}


class TransformException(Exception):
    pass


class Buffer:
    """Transforms between two frames, without a tree."""

    def __init__(self):
        self._transforms = {}

    def set_transform(self, transform, authority):
        self._transforms[transform.header.frame_id, transform.child_frame_id] = transform

    def lookup_transform(self, target_frame, source_frame, time):
        if (target_frame, source_frame) not in self._transforms:
            raise TransformException(f"{source_frame} and {target_frame} are not connected")
        return self._transforms[target_frame, source_frame]


class TransformListener:
    def __init__(self, buffer, node):
        for topic, profile in TOPICS.items():
            node.create_subscription(TransformStamped, topic, lambda t: buffer.set_transform(t, "default"), profile)


class StaticTransformBroadcaster:
    def __init__(self, node):
        self._publisher = node.create_publisher(TransformStamped, "/tf_static", STATIC)

    def sendTransform(self, transform):
        self._publisher.publish(transform)

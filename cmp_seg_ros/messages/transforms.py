"""Rigid transforms as messages: geometry_msgs/Transform and tf2_msgs/TFMessage."""

from collections.abc import Mapping
from typing import Any

from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.geometry.track import Pose, matrix_of, pose_of
from cmp_seg_ros.messages import cdr

TF, TF_STATIC = "/tf", "/tf_static"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"


def pose_in(message: Any) -> Pose:
    """x, y, z, qx, qy, qz, qw of a geometry_msgs/Pose."""
    p, q = message.position, message.orientation
    return (p.x, p.y, p.z, q.x, q.y, q.z, q.w)


def matrix(transform: Any) -> Transform:
    """(4, 4) of a geometry_msgs/Transform."""
    t, q = transform.translation, transform.rotation
    return matrix_of((t.x, t.y, t.z, q.x, q.y, q.z, q.w))


def tf_message(parent: str, children: Mapping[str, Transform], stamp: int) -> Any:
    """A tf2_msgs/TFMessage.

    Args:
        parent: the frame_id of every transform.
        children: T_parent_child (4, 4) by child_frame_id.
        stamp: nanoseconds.
    """
    types = cdr.typestore().types
    transforms = []
    for child, T in children.items():
        numbers = pose_of(T)
        translation = types["geometry_msgs/msg/Vector3"](*numbers[:3])
        rotation = types["geometry_msgs/msg/Quaternion"](*numbers[3:])
        transform = types["geometry_msgs/msg/Transform"](translation=translation, rotation=rotation)
        header = cdr.header(stamp, parent)
        stamped = types["geometry_msgs/msg/TransformStamped"](header=header, child_frame_id=child, transform=transform)
        transforms.append(stamped)
    return types[TF_MESSAGE](transforms=transforms)

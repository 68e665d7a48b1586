"""Rigid transforms as messages: geometry_msgs/Transform and tf2_msgs/TFMessage."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.messages import cdr

TF, TF_STATIC = "/tf", "/tf_static"
TF_MESSAGE = "tf2_msgs/msg/TFMessage"


def matrix(transform: Any) -> Transform:
    """(4, 4) of a geometry_msgs/Transform."""
    from scipy.spatial.transform import Rotation

    q, t = transform.rotation, transform.translation
    T = np.eye(4)
    T[:3, :3] = Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix()
    T[:3, 3] = [t.x, t.y, t.z]
    return T


def tf_message(parent: str, children: Mapping[str, Transform], stamp: int) -> Any:
    """A tf2_msgs/TFMessage.

    Args:
        parent: the frame_id of every transform.
        children: T_parent_child (4, 4) by child_frame_id.
        stamp: nanoseconds.
    """
    from scipy.spatial.transform import Rotation

    types = cdr.typestore().types
    transforms = []
    for child, T in children.items():
        translation = types["geometry_msgs/msg/Vector3"](*(float(v) for v in T[:3, 3]))
        rotation = types["geometry_msgs/msg/Quaternion"](*(float(v) for v in Rotation.from_matrix(T[:3, :3]).as_quat()))
        transform = types["geometry_msgs/msg/Transform"](translation=translation, rotation=rotation)
        header = cdr.header(stamp, parent)
        stamped = types["geometry_msgs/msg/TransformStamped"](header=header, child_frame_id=child, transform=transform)
        transforms.append(stamped)
    return types[TF_MESSAGE](transforms=transforms)

"""A scan to try the way from message to message with, before the first real one comes."""

from typing import Any

import numpy as np

from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.scan import Scan


def empty_room(points: int = 16384) -> Scan:
    """A scan of a bare room. It has no intensity, so that no statistics are learnt from it."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(points, 3)).astype(np.float32)
    half = np.array([4.0, 5.0, 1.5], np.float32)  # metres
    reach = (half / np.abs(directions)).min(axis=1, keepdims=True)
    return Scan(directions * reach)


def empty_room_message() -> Any:
    """The same as a PointCloud2."""
    room = empty_room()
    cloud = point_cloud2.encode({axis: room.xyz[:, i] for i, axis in enumerate("xyz")}, room.shape)
    return cdr.deserialize(cdr.serialize_cloud(cloud, cdr.header()), cdr.POINT_CLOUD2)

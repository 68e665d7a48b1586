"""A scan all the way before the first real one comes."""

from typing import TYPE_CHECKING

import numpy as np

from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.scan import Scan

if TYPE_CHECKING:
    from cmp_seg_ros.nodes.segmentation.outputs import Outputs
    from cmp_seg_ros.segmenter import Segmenter


def empty_room(points: int = 16384) -> Scan:
    """A scan of a bare room. It has no intensity, so that no statistics are learnt from it."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(points, 3)).astype(np.float32)
    half = np.array([4.0, 5.0, 1.5], np.float32)  # metres
    reach = (half / np.abs(directions)).min(axis=1, keepdims=True)
    return Scan(directions * reach)


def rehearse(segmenter: "Segmenter", outputs: "Outputs") -> None:
    """Take a scan all the way once, so that the first real one finds compiled, imported, allocated what it needs."""
    room = empty_room()
    cloud = point_cloud2.encode({axis: room.xyz[:, i] for i, axis in enumerate("xyz")}, room.shape)
    msg = cdr.deserialize(cdr.serialize_cloud(cloud, cdr.header()), cdr.POINT_CLOUD2)
    outputs.encode(msg, segmenter(point_cloud2.decode(msg)))

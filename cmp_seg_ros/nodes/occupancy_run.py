"""One image shown to an occupancy node over DDS, until its voxels and pictures come."""

import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sensor_msgs.msg import Image, PointCloud2

from cmp_seg_ros.messages import cdr, images, point_cloud2
from cmp_seg_ros.nodes.live_run import START_TIMEOUT, Process, isolated_ros, wait_for
from cmp_seg_ros.occupancy.grid import UNKNOWN, Grid
from cmp_seg_ros.ros import environment
from cmp_seg_ros.ros.own_context import own_node
from cmp_seg_ros.scan import Float32, UInt8

NODE = "occupancy_node"
EVERY = 0.3  # seconds between images


class Shown(NamedTuple):
    """What the node published for the image.

    Args:
        label: (X, Y, Z) ids of the occupied voxels; all others are UNKNOWN, since the cloud has none of them.
        depth: (h, w) metres along the optical axis.
        classes: (h, w, 3) colours of the rendered classes.
    """

    label: UInt8
    depth: Float32
    classes: UInt8


def show_to_node(rgb: UInt8, parameters: dict[str, Any], grid: Grid) -> Shown:
    """Publish an image again and again to an occupancy node that has these parameters, until all outputs came.

    Args:
        parameters: with a calibration file that has the camera and its pose.
        grid: the node's.

    Raises:
        UserError: the node ended before its time, or nothing came of it.
    """
    environment.prepare()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder, isolated_ros(), own_node("camera") as (node, executor):
        for name, kind in (("occupied", PointCloud2), ("depth_image", Image), ("semantic_image", Image)):
            node.create_subscription(kind, f"/{NODE}/{name}", lambda msg, name=name: found.update({name: msg}), 2)
        publisher = node.create_publisher(Image, "/image", 2)
        last = -np.inf

        def answered() -> bool:
            nonlocal last
            if time.monotonic() - last > EVERY:
                header = cdr.header(time.time_ns(), "camera")
                publisher.publish(images.encode(rgb, "rgb8", header, Image))
                last = time.monotonic()
            executor.spin_once(timeout_sec=0.05)
            return len(found) == 3

        with Process(NODE, parameters, {}, Path(folder)) as running:
            wait_for(answered, START_TIMEOUT, "voxels of the occupancy node", running)
    cloud = found["occupied"]
    index, inside = grid.index(point_cloud2.decode(cloud).xyz)
    label = np.full(grid.size, UNKNOWN, np.uint8)
    label[index[inside]] = point_cloud2.decode_labels(cloud).label[inside]
    metres = images.pixels_of(found["depth_image"])[:, :, 0].astype(np.float32) / np.float32(1000)
    return Shown(label.reshape(grid.shape), metres, images.to_rgb(found["semantic_image"]))

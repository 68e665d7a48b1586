"""Labelled clouds in a ROS 2 bag (mcap), with TF where poses are known."""

from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.messages.bag_writer import BagWriter
from cmp_seg_ros.messages.transforms import TF, TF_MESSAGE, TF_STATIC, tf_message
from cmp_seg_ros.scan import Labels

STRING = "std_msgs/msg/String"
CLOUDS, SPACE = "/segmentation_node/labelled_points", "/segmentation_node/label_space"  # as the node's topics
BAG = "labelled"  # its name in a folder of results
ODOM, BASE = "odom", "base_link"  # frames (REP 105)
PERIOD = 100_000_000  # nanoseconds between scans that have no stamp


class LabelledBagWriter(BagWriter):
    """Writes labelled clouds, and their label space as a latched String, to a new bag folder.

        with LabelledBagWriter(folder, label_space) as bag:
            bag.write_scan(message, labels)

    Args:
        path: folder of the bag, which is made.
        label_space: of the labels.

    Raises:
        UserError: `path` exists, or it cannot be written.
    """

    def __init__(self, path: Path, label_space: LabelSpace) -> None:
        self.label_space = label_space
        self.written = 0
        topics = {CLOUDS: cdr.POINT_CLOUD2, SPACE: STRING, TF: TF_MESSAGE, TF_STATIC: TF_MESSAGE}
        super().__init__(path, topics, latched=[SPACE, TF_STATIC])
        self._mounted: set[str] = set()  # frames that TF_STATIC has

    def write_scan(
        self,
        message: Any,
        labels: Labels,
        T_base_lidar: Transform | None = None,
        T_world_lidar: Transform | None = None,
    ) -> None:
        """Write the labelled cloud of a scan.

        Args:
            message: its PointCloud2 (of ROS 1 or 2, or a stand-in with the same attributes).
            labels: of its points.
            T_base_lidar: (4, 4); written once to /tf_static, as the lidar's place on `base_link`.
            T_world_lidar: (4, 4) at the scan's stamp; written to /tf, as the place of `base_link` in `odom`.
        """
        stamp = point_cloud2.stamp_ns(message.header)
        time = stamp if stamp > 0 else (self.written + 1) * PERIOD  # bags have no times before 1970
        if self.written == 0:
            self.write(SPACE, time, cdr.message_class(STRING)(data=self.label_space.to_yaml()))
        cloud = point_cloud2.encode_labelled(message, labels, self.label_space)
        frame_id = message.header.frame_id or "lidar"  # RViz shows nothing without a frame
        if T_base_lidar is not None:
            if frame_id not in self._mounted:
                self.write(TF_STATIC, time, tf_message(BASE, {frame_id: T_base_lidar}, stamp))
                self._mounted.add(frame_id)
            if T_world_lidar is not None:
                T_world_base = T_world_lidar @ np.linalg.inv(T_base_lidar)
                self.write(TF, time, tf_message(ODOM, {BASE: T_world_base}, stamp))
        self.write(CLOUDS, time, cdr.serialize_cloud(cloud, cdr.header(stamp, frame_id)))
        self.written += 1

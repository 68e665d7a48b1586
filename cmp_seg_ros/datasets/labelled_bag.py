"""Labelled clouds in a ROS 2 bag (mcap)."""

from pathlib import Path
from typing import Any

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.messages.bag_writer import BagWriter
from cmp_seg_ros.scan import Labels

STRING = "std_msgs/msg/String"
BAG = "labelled"  # its name in a folder of results
PERIOD = 100_000_000  # nanoseconds between scans that have no stamp


class LabelledBagWriter:
    """Writes labelled clouds, and their label space as a latched String, to a new bag folder.

        with LabelledBagWriter(folder, label_space) as bag:
            bag.write(message, labels)

    Args:
        path: folder of the bag, which is made.
        label_space: of the labels.
        topic: of the clouds. The label space goes to `<topic's namespace>/label_space`, as the node publishes it.

    Raises:
        UserError: `path` exists, or it cannot be written.
    """

    def __init__(self, path: Path, label_space: LabelSpace, topic: str = "/segmentation_node/labelled_points") -> None:
        self.label_space = label_space
        self.topic, self.space_topic = topic, f"{topic.rpartition('/')[0]}/label_space"
        self.written = 0
        self.bag = BagWriter(path, {topic: cdr.POINT_CLOUD2, self.space_topic: STRING}, latched=[self.space_topic])

    def write(self, message: Any, labels: Labels) -> None:
        """Write the labelled cloud of a scan: `message` is its PointCloud2 (of ROS 1 or 2, or alike)."""
        stamp = point_cloud2.stamp_ns(message.header)
        time = stamp or (self.written + 1) * PERIOD
        if self.written == 0:
            self.bag.write(self.space_topic, time, cdr.message_class(STRING)(data=self.label_space.to_yaml()))
        cloud = point_cloud2.encode_labelled(message, labels, self.label_space)
        frame_id = message.header.frame_id or "lidar"  # RViz shows nothing without a frame
        self.bag.write(self.topic, time, cdr.serialize_cloud(cloud, cdr.header(stamp, frame_id)))
        self.written += 1

    def close(self) -> None:
        """Finish the bag."""
        self.bag.close()

    def __enter__(self) -> "LabelledBagWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

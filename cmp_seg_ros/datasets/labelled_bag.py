"""Labelled clouds in a ROS 2 bag (mcap) that RViz, Foxglove and `ros2 bag play` open."""

from pathlib import Path
from types import TracebackType
from typing import Any

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.scan import Labels

CLOUD, HEADER, STRING, TIME = (
    "sensor_msgs/msg/PointCloud2",
    "std_msgs/msg/Header",
    "std_msgs/msg/String",
    "builtin_interfaces/msg/Time",
)
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
        from rosbags.rosbag2 import StoragePlugin, Writer
        from rosbags.typesys import Stores, get_typestore

        if path.exists():
            raise UserError(f"{path} exists; give another --out or remove it")
        self.label_space = label_space
        self.topic = topic
        self.store = get_typestore(Stores.ROS2_HUMBLE)
        self.written = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Version 8 of the metadata is the newest that all of Humble to Kilted read.
            self.writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)
            self.writer.open()
        except OSError as error:
            raise UserError(f"bag {path} cannot be written: {error.strerror}") from error
        self.clouds = self.writer.add_connection(topic, CLOUD, typestore=self.store)
        namespace = topic.rpartition("/")[0]
        self.spaces = self.writer.add_connection(
            f"{namespace}/label_space", STRING, typestore=self.store, offered_qos_profiles=[_latched()]
        )

    def write(self, message: Any, labels: Labels) -> None:
        """Write the labelled cloud of a scan: `message` is its PointCloud2 (of ROS 1 or 2, or alike)."""
        types = self.store.types
        stamp = point_cloud2.stamp_ns(message.header)
        time = stamp or (self.written + 1) * PERIOD
        if self.written == 0:
            text = types[STRING](data=self.label_space.to_yaml())
            self.writer.write(self.spaces, time, self.store.serialize_cdr(text, STRING))
        seconds, nanoseconds = divmod(stamp, 1_000_000_000)
        frame_id = message.header.frame_id or "lidar"  # RViz shows nothing without a frame
        header = types[HEADER](stamp=types[TIME](sec=seconds, nanosec=nanoseconds), frame_id=frame_id)
        cloud = point_cloud2.encode_labelled(message, labels, self.label_space)
        labelled = cloud.message(header, types[CLOUD], types["sensor_msgs/msg/PointField"])
        self.writer.write(self.clouds, time, self.store.serialize_cdr(labelled, CLOUD))
        self.written += 1

    def close(self) -> None:
        """Finish the bag."""
        self.writer.close()

    def __enter__(self) -> "LabelledBagWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _latched() -> Any:
    """QoS reliable, transient local, depth 1."""
    from rosbags import interfaces as qos

    forever = qos.QosTime(sec=9_223_372_036, nsec=854_775_807)
    return qos.Qos(
        history=qos.QosHistory.KEEP_LAST,
        depth=1,
        reliability=qos.QosReliability.RELIABLE,
        durability=qos.QosDurability.TRANSIENT_LOCAL,
        deadline=forever,
        lifespan=forever,
        liveliness=qos.QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=forever,
        avoid_ros_namespace_conventions=False,
    )

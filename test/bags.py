"""Bags of small clouds for tests, as recorders write them."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from PIL import Image as Picture
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_typestore

from cmp_seg_ros.messages import cdr, images, point_cloud2

CLOUD = "sensor_msgs/msg/PointCloud2"
SCANS = 20
STORAGES = ["ros1", "sqlite3", "mcap"]


def columns(number: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(number)
    xyz = rng.normal(size=(400, 3)).astype(np.float32)
    return {**dict(zip("xyz", xyz.T, strict=True)), "intensity": np.full(400, number, np.float32)}


def write_bag(
    path: Path, storage: str, topics: dict[str, list[dict[str, np.ndarray]]], stamps: list[int] | None = None, **options
) -> Path:
    """A bag of clouds as newer recorders write it, with packed chunks; scan i is recorded at 2000 + i seconds, and
    stamped 1000 + i seconds unless told otherwise."""
    with Recording(path, storage, version=9, **options) as bag:
        for i in range(max(map(len, topics.values()))):
            for topic, clouds in topics.items():
                if i < len(clouds):
                    bag.cloud(topic, stamps[i] if stamps else (1000 + i) * 10**9, clouds[i], time=(2000 + i) * 10**9)
    return path


def scans(count: int = SCANS) -> list[dict[str, np.ndarray]]:
    return [columns(i) for i in range(count)]


def bag_path(folder: Path, storage: str) -> Path:
    return folder / ("scans.bag" if storage == "ros1" else "scans")


def bag_file(path: Path) -> Path:
    """The only file with messages of a bag."""
    (file,) = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix != ".yaml"]
    return file


def jpeg(pixels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Picture.fromarray(pixels).save(content, "JPEG", quality=95)
    return content.getvalue()


def message(cloud: point_cloud2.Cloud, stamp: int = 10**12) -> bytes:
    """A cloud as ROS 2 serialises it."""
    return cdr.serialize_cloud(cloud, cdr.header(stamp, "lidar"))


def cloud(number: int = 0) -> point_cloud2.Cloud:
    """Cloud `number` of `scans`."""
    return point_cloud2.encode(columns(number), (1, 400))


def definition(name: str, ros1: bool = False) -> str:
    """The text of a message type."""
    store = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    return store.generate_msgdef(name, ros_version=1 if ros1 else 2)[0]


@contextmanager
def mcap(path: Path, profile: str = "ros2", **options) -> Iterator[Callable[..., None]]:
    """Writes an MCAP file as one likes, which need not be as ROS 2 does.

    with mcap(path, profile="") as add:
        add("/points", CLOUD, messages)
    """
    with path.open("wb") as stream:
        writer = McapWriter(stream, compression=CompressionType.ZSTD, **options)
        writer.start(profile=profile, library="test")

        def add(
            topic: str,
            type_: str,
            messages: list[bytes],
            encoding: str = "cdr",
            schema: tuple[str, bytes] | None = None,
        ) -> None:
            """A topic with messages recorded at 2000 s, 2001 s, ...; `schema`: encoding and text, by default ROS's."""
            form, text = schema or ("ros2msg", definition(type_).encode())
            channel = writer.register_channel(topic, encoding, writer.register_schema(type_, form, text) if form else 0)
            for i, data in enumerate(messages):
                time = (2000 + i) * 10**9
                writer.add_message(channel, time, data, time)

        yield add
        writer.finish()


class Recording:
    """Writes a bag of clouds, images and odometry, message by message; everything is recorded when it is stamped,
    unless told otherwise.

    with Recording(path, "ros1") as bag:
        bag.cloud("/points", stamp, columns(0))
        bag.image("/left/image_raw", stamp, pixels, "mono8")
    """

    def __init__(
        self, path: Path, storage: str = "mcap", version: int = 8, compression: CompressionMode | None = None
    ) -> None:
        self.is_ros1 = storage == "ros1"
        if self.is_ros1:
            self.store, self.writer = get_typestore(Stores.ROS1_NOETIC), Writer1(path)
            if version > 8:
                self.writer.set_compression(Writer1.CompressionFormat.LZ4)
        else:
            self.store = get_typestore(Stores.ROS2_HUMBLE if version == 8 else Stores.ROS2_JAZZY)
            self.writer = Writer2(path, version=version, storage_plugin=getattr(StoragePlugin, storage.upper()))
            if compression is not None:
                self.writer.set_compression(compression, CompressionFormat.ZSTD)
        self.connections: dict[str, Any] = {}

    def add(self, topic: str, kind: str, time: int, message: Any) -> None:
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        serialize = self.store.serialize_ros1 if self.is_ros1 else self.store.serialize_cdr
        self.writer.write(self.connections[topic], time, serialize(message, kind))

    def header(self, stamp: int, frame_id: str = "lidar") -> Any:
        time = self.store.types["builtin_interfaces/msg/Time"](sec=stamp // 10**9, nanosec=stamp % 10**9)
        sequence = {"seq": 0} if self.is_ros1 else {}
        return self.store.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id, **sequence)

    def cloud(
        self,
        topic: str,
        stamp: int,
        columns: dict[str, np.ndarray] | point_cloud2.Cloud,
        frame_id: str = "lidar",
        time: int = 0,
        shape: tuple[int, int] | None = None,
    ) -> None:
        if isinstance(columns, dict):
            columns = point_cloud2.encode(columns, shape or (1, len(next(iter(columns.values())))))
        field = self.store.types["sensor_msgs/msg/PointField"]
        message = columns.message(self.header(stamp, frame_id), self.store.types[CLOUD], field)
        self.add(topic, CLOUD, time or stamp, message)

    def image(self, topic: str, stamp: int, pixels: np.ndarray, encoding: str = "rgb8", time: int = 0) -> None:
        image = self.store.types["sensor_msgs/msg/Image"]
        message = images.encode(pixels, encoding, self.header(stamp, "camera"), image)
        self.add(topic, "sensor_msgs/msg/Image", time or stamp, message)

    def jpeg(self, topic: str, stamp: int, content: bytes, time: int = 0) -> None:
        kind = "sensor_msgs/msg/CompressedImage"
        data = np.frombuffer(content, np.uint8)
        message = self.store.types[kind](header=self.header(stamp, "camera"), format="jpeg", data=data)
        self.add(topic, kind, time or stamp, message)

    def odometry(self, topic: str, stamp: int, position: tuple[float, float, float]) -> None:
        def made(name: str, *fields: Any) -> Any:
            return self.store.types[f"geometry_msgs/msg/{name}"](*fields)

        kind, zero, still = "nav_msgs/msg/Odometry", np.zeros(36), made("Vector3", 0.0, 0.0, 0.0)
        pose = made("Pose", made("Point", *position), made("Quaternion", 0.0, 0.0, 0.0, 1.0))
        twist = made("TwistWithCovariance", made("Twist", still, still), zero)
        header = self.header(stamp, "odom")
        self.add(
            topic, kind, stamp, self.store.types[kind](header, "base", made("PoseWithCovariance", pose, zero), twist)
        )

    def __enter__(self) -> "Recording":
        self.writer.open()
        return self

    def __exit__(self, *_) -> None:
        self.writer.close()

"""Writes ROS 2 bags (mcap) that RViz, Foxglove and `ros2 bag play` open, from Humble to Kilted."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.messages import cdr

VERSION: Literal[8] = 8  # of the metadata: the newest that all these distributions read


class BagWriter:
    """A new bag.

    with BagWriter(folder, {"/points": cdr.POINT_CLOUD2}) as bag:
        bag.write("/points", time, message)

    Args:
        path: its folder, which is made.
        topics: their message types.
        latched: those whose last message a subscriber gets that comes late.

    Raises:
        UserError: the folder exists, or cannot be written.
    """

    def __init__(self, path: Path, topics: Mapping[str, str], latched: Collection[str] = ()) -> None:
        from rosbags.rosbag2 import StoragePlugin, Writer

        if path.exists():
            raise UserError(f"{path} exists; give another --out or remove it")
        self.topics = dict(topics)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = Writer(path, version=VERSION, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except OSError as error:
            raise UserError(f"bag {path} cannot be written: {error.strerror}") from error
        self._connections = {
            topic: self._writer.add_connection(
                topic, kind, typestore=cdr.typestore(), offered_qos_profiles=[_latched()] if topic in latched else ()
            )
            for topic, kind in self.topics.items()
        }

    def write(self, topic: str, time: int, message: Any) -> None:
        """Write a message, serialised or not, recorded at a time in nanoseconds."""
        data = message if isinstance(message, bytes) else cdr.serialize(message, self.topics[topic])
        self._writer.write(self._connections[topic], time, data)

    def close(self) -> None:
        """Finish the bag."""
        self._writer.close()

    def __enter__(self) -> "BagWriter":
        return self

    def __exit__(self, *_: object) -> None:
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

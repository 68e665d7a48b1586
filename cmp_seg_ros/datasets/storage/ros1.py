"""ROS 1 bags: whole ones by `rosbags`, the others record by record. Format: http://wiki.ros.org/Bags/Format/2.0"""

import bz2
import mmap
import struct
from collections.abc import Callable, Collection, Iterator
from typing import Any

import lz4.frame

from cmp_seg_ros.datasets.storage.base import ROS1, UNCLOSED, RawMessage, Storage, Topic, ros_type

DECOMPRESS: dict[str, Callable[[memoryview], Any]] = {
    "none": lambda data: data,
    "lz4": lz4.frame.decompress,
    "bz2": bz2.decompress,
}
MESSAGE, CHUNK, CONNECTION = b"\2", b"\5", b"\7"


class Ros1(Storage):
    magic = b"#ROSBAG V2.0"

    def _index(self) -> dict[str, Topic]:
        from rosbags.rosbag1 import Reader

        with Reader(self.path) as reader:
            definitions = {connection.topic: connection.msgdef.data for connection in reader.connections}
            return {
                name: Topic(info.msgtype or "", info.msgcount, ROS1, definitions[name])
                for name, info in sorted(reader.topics.items())
            }

    def _read(self, topics: Collection[str], start: int | None, stop: int | None) -> Iterator[RawMessage]:
        from rosbags.rosbag1 import Reader

        with Reader(self.path) as reader:
            connections = [connection for connection in reader.connections if connection.topic in topics]
            for connection, time, data in reader.messages(connections, start, stop) if connections else ():
                yield RawMessage(connection.topic, connection.msgtype, time, data)

    def _scan(self) -> Iterator[tuple[Topic, RawMessage]]:
        self.damage = self.damage or UNCLOSED
        with self.path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        connections: dict[bytes, tuple[str, Topic]] = {}
        for header, data in _records(content[len(self.magic) + 1 :]):
            code, number = header["op"][:1], header.get("conn", b"")
            if code == CONNECTION and "topic" in header:
                described = {name: _text(value) for name, value in _fields(data).items()}
                topic = Topic(ros_type(described.get("type", "")), 0, ROS1, described.get("message_definition", ""))
                connections[number] = (_text(header["topic"]), topic)
            elif code == MESSAGE and number in connections and len(header.get("time", b"")) == 8:
                seconds, nanoseconds = struct.unpack("<II", header["time"])
                name, topic = connections[number]
                yield topic, RawMessage(name, topic.type, seconds * 1_000_000_000 + nanoseconds, bytes(data))


def _records(content: memoryview) -> Iterator[tuple[dict[str, bytes], memoryview]]:
    """(header, data) of each record, those inside chunks included; ends where the data end."""
    position = 0
    while position + 4 <= len(content):
        (size,) = struct.unpack_from("<I", content, position)
        header = _fields(content[position + 4 : position + 4 + size])
        position += 4 + size
        if position + 4 > len(content) or "op" not in header:
            return
        (size,) = struct.unpack_from("<I", content, position)
        data = content[position + 4 : position + 4 + size]
        position += 4 + size
        if header["op"][:1] == CHUNK:
            compression = _text(header.get("compression", b"none"))
            if compression == "none" or len(data) == size:  # a part of an uncompressed chunk can be read
                try:
                    yield from _records(memoryview(DECOMPRESS[compression](data)))
                except Exception:  # the libraries raise anything for damaged bytes
                    continue
        elif len(data) == size:
            yield header, data


def _fields(content: memoryview) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    position = 0
    while position + 4 <= len(content):
        (size,) = struct.unpack_from("<I", content, position)
        name, _, value = bytes(content[position + 4 : position + 4 + size]).partition(b"=")
        fields[_text(name)] = value
        position += 4 + size
    return fields


def _text(value: bytes) -> str:
    return value.decode("utf-8", "replace")

"""Messages of bags that their own reader refuses: cut short, never closed, without an index.

Each function reads a file from its start and ends where the data end, without an error.
Formats: http://wiki.ros.org/Bags/Format/2.0, https://mcap.dev/spec, rosbag2_storage_sqlite3's tables.
"""

import bz2
import mmap
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROS1, MCAP, SQLITE = b"#ROSBAG V2.0", b"\x89MCAP0\r\n", b"SQLite format 3\0"

MCAP_SCHEMA, MCAP_CHANNEL, MCAP_MESSAGE, MCAP_CHUNK = 3, 4, 5, 6
ROS1_MESSAGE, ROS1_CHUNK, ROS1_CONNECTION = b"\2", b"\5", b"\7"
# What decompressing of damaged bytes may raise; MemoryError: of a size that is none.
UNPACKABLE = (KeyError, ValueError, RuntimeError, OSError, EOFError, ImportError, MemoryError)


class RawMessage(NamedTuple):
    """A message as it lies in the bag: topic, type (pkg/msg/Name), time of recording in nanoseconds, bytes."""

    topic: str
    type: str
    time: int
    data: bytes


def storage(path: Path) -> bytes:
    """ROS1, MCAP or SQLITE by the first bytes of a file; nothing for anything else."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return b""
    return next((magic for magic in (ROS1, MCAP, SQLITE) if start.startswith(magic)), b"")


def recover(path: Path) -> Iterator[RawMessage]:
    """All messages of a file that are whole, in the order of the file."""
    kind = storage(path)
    if kind == SQLITE:
        yield from _sqlite(path)
    elif kind:
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        yield from (_ros1 if kind == ROS1 else _mcap)(content)


def _sqlite(path: Path) -> Iterator[RawMessage]:
    # A log that was never merged is read too where the folder can be written; else the file alone.
    for mode in ("mode=ro", "immutable=1"):
        connection = sqlite3.connect(f"file:{path.resolve().as_posix()}?{mode}", uri=True)
        try:
            connection.execute("PRAGMA writable_schema=ON")  # else SQLite refuses a file that is shorter than it was
            topics = {row[0]: row[1:] for row in connection.execute("SELECT id, name, type FROM topics")}
        except sqlite3.Error:
            connection.close()
            continue
        try:
            for topic, time, data in connection.execute("SELECT topic_id, timestamp, data FROM messages ORDER BY id"):
                if topic in topics and isinstance(data, bytes):
                    yield RawMessage(topics[topic][0], topics[topic][1], time, data)
        except sqlite3.Error:
            pass
        finally:
            connection.close()
        return


def _mcap(content: memoryview) -> Iterator[RawMessage]:
    schemas: dict[int, str] = {}
    channels: dict[int, tuple[str, str]] = {}
    for code, record in _mcap_records(content[len(MCAP) :]):
        if code == MCAP_SCHEMA:
            schemas[struct.unpack_from("<H", record)[0]] = _text(record, 2)[0]
        elif code == MCAP_CHANNEL:
            channel, schema = struct.unpack_from("<HH", record)
            channels[channel] = (_text(record, 4)[0], schemas.get(schema, ""))
        elif code == MCAP_MESSAGE:
            channel, _, time, _ = struct.unpack_from("<HIQQ", record)
            if channel in channels:
                yield RawMessage(*channels[channel], time, bytes(record[22:]))


def _mcap_records(content: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(opcode, content) of each record, those inside chunks included."""
    position = 0
    while position + 9 <= len(content):
        code, size = struct.unpack_from("<BQ", content, position)
        record = content[position + 9 : position + 9 + size]
        position += 9 + size
        if code == MCAP_CHUNK and len(record) > 32:
            compression, start = _text(record, 28)
            inside = record[start + 8 :]
            if compression == "" or len(record) == size:  # a part of what is not compressed is of use
                try:
                    yield from _mcap_records(memoryview(_DECOMPRESS[compression](inside)))
                except UNPACKABLE:
                    continue
        elif len(record) == size:
            yield code, record


def _text(record: memoryview, start: int) -> tuple[str, int]:
    """A string with its length before it, and where it ends."""
    (size,) = struct.unpack_from("<I", record, start)
    return bytes(record[start + 4 : start + 4 + size]).decode("utf-8", "replace"), start + 4 + size


def _ros1(content: memoryview) -> Iterator[RawMessage]:
    connections: dict[bytes, tuple[str, str]] = {}
    for header, data in _ros1_records(content[len(ROS1) + 1 :]):
        code, number = header["op"][:1], header.get("conn", b"")
        if code == ROS1_CONNECTION and "topic" in header:
            package, _, name = _ros1_fields(data).get("type", b"").decode("utf-8", "replace").partition("/")
            topic = "/" + header["topic"].decode("utf-8", "replace").strip("/")
            connections[number] = (topic, f"{package}/msg/{name}")
        elif code == ROS1_MESSAGE and number in connections and len(header.get("time", b"")) == 8:
            seconds, nanoseconds = struct.unpack("<II", header["time"])
            yield RawMessage(*connections[number], seconds * 1_000_000_000 + nanoseconds, bytes(data))


def _ros1_records(content: memoryview) -> Iterator[tuple[dict[str, bytes], memoryview]]:
    """(header, data) of each record, those inside chunks included."""
    position = 0
    while position + 4 <= len(content):
        (size,) = struct.unpack_from("<I", content, position)
        header = _ros1_fields(content[position + 4 : position + 4 + size])
        position += 4 + size
        if position + 4 > len(content) or "op" not in header:
            return
        (size,) = struct.unpack_from("<I", content, position)
        data = content[position + 4 : position + 4 + size]
        position += 4 + size
        if header["op"][:1] == ROS1_CHUNK:
            compression = header.get("compression", b"none").decode("utf-8", "replace")
            if compression == "none" or len(data) == size:
                try:
                    yield from _ros1_records(memoryview(_DECOMPRESS[compression](data)))
                except UNPACKABLE:
                    continue
        elif len(data) == size:
            yield header, data


def _ros1_fields(content: memoryview) -> dict[str, bytes]:
    fields: dict[str, bytes] = {}
    position = 0
    while position + 4 <= len(content):
        (size,) = struct.unpack_from("<I", content, position)
        name, _, value = bytes(content[position + 4 : position + 4 + size]).partition(b"=")
        fields[name.decode("ascii", "replace")] = value
        position += 4 + size
    return fields


def _lz4(data: memoryview) -> bytes:
    from lz4.frame import decompress

    result: bytes = decompress(data)
    return result


def _zstd(data: memoryview) -> bytes:
    try:
        from compression import zstd
    except ImportError:  # before Python 3.14
        from backports import zstd
    result: bytes = zstd.decompress(data)
    return result


def _same(data: memoryview) -> memoryview:
    return data


_DECOMPRESS: dict[str, Callable[[memoryview], Any]] = {
    "": _same,
    "none": _same,
    "lz4": _lz4,
    "zstd": _zstd,
    "bz2": bz2.decompress,
}

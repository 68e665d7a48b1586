"""MCAP files, of ROS 2 and of ROS 1, by the `mcap` library. Format: https://mcap.dev/spec"""

import struct
from collections.abc import Collection, Iterator
from io import BytesIO
from typing import IO

from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Message, Schema
from mcap.stream_reader import get_chunk_data_stream

from cmp_seg_ros.datasets.storage.base import CDR, ROS1, UNCLOSED, RawMessage, Storage, Topic, joined, line, ros_type

READ = (Opcode.SCHEMA, Opcode.CHANNEL, Opcode.MESSAGE, Opcode.CHUNK, Opcode.FOOTER)
HEADER = struct.Struct("<BQ")  # of a record: opcode and size of the content
ENCODINGS = {"ros1msg": ROS1, "ros2msg": CDR, "ros2idl": CDR, "omgidl": CDR}  # of messages, by that of their schema


class Mcap(Storage):
    """A whole file is read in the order of recording, one without an index as it lies."""

    magic = b"\x89MCAP0\r\n"
    _is_cut = False  # whether the last record is not whole

    def _index(self) -> dict[str, Topic] | None:
        with self.path.open("rb") as file:
            try:
                summary = make_reader(file).get_summary()
            except Exception:  # the library raises anything for damaged bytes
                return None
        if summary is None or summary.statistics is None or not summary.chunk_indexes:
            return None
        counts, channels, schemas = summary.statistics.channel_message_counts, summary.channels, summary.schemas
        if counts.keys() - channels.keys() or {c.schema_id for c in channels.values()} - schemas.keys() - {0}:
            return None  # channels or schemas stand only beside the messages
        return joined(
            (channel.topic, _topic(channel, schemas.get(channel.schema_id))._replace(size=counts.get(number, 0)))
            for number, channel in sorted(channels.items(), key=lambda item: item[1].topic)
        )

    def _read(self, topics: Collection[str], start: int | None, stop: int | None) -> Iterator[RawMessage]:
        with self.path.open("rb") as file:
            found = make_reader(file, validate_crcs=True).iter_messages(topics, starting_at=start, ending_before=stop)
            for schema, channel, message in found:
                yield RawMessage(channel.topic, _topic(channel, schema).type, message.log_time, message.data)

    def _scan(self) -> Iterator[tuple[Topic, RawMessage]]:
        schemas: dict[int, Schema] = {}
        channels: dict[int, tuple[str, Topic]] = {}
        closed = False
        for code, content in self._records():
            stream = ReadDataStream(BytesIO(content))
            try:
                if code == Opcode.SCHEMA:
                    schema = Schema.read(stream)
                    schemas[schema.id] = schema
                elif code == Opcode.CHANNEL:
                    channel = Channel.read(stream)
                    channels[channel.id] = (channel.topic, _topic(channel, schemas.get(channel.schema_id)))
                elif code == Opcode.MESSAGE:
                    message = Message.read(stream, len(content))
                    if message.channel_id in channels:
                        name, topic = channels[message.channel_id]
                        yield topic, RawMessage(name, topic.type, message.log_time, message.data)
            except Exception as error:  # the library raises anything for damaged bytes
                self.damage = self.damage or line(error)
            closed = code == Opcode.FOOTER
        if not closed and self._is_cut:
            self.damage = self.damage or UNCLOSED
        elif not closed:
            self.note = "it was never closed, as by a recorder that was killed; all its records are whole"

    def _records(self) -> Iterator[tuple[int, bytes]]:
        """Opcode and content of all records that are whole, those inside chunks included.

        Not by `mcap`'s stream reader, which neither goes on behind a damaged record nor gives what there is of a chunk
        that was not written to its end.
        """
        with self.path.open("rb") as file:
            file.seek(len(self.magic))
            for code, content, is_whole in _split(file, self.path.stat().st_size):
                self._is_cut = not is_whole
                if code != Opcode.CHUNK:
                    if is_whole:
                        yield code, content
                    continue
                inside = self._unpacked(content, is_whole)
                yield from ((code, part) for code, part, is_whole in _split(BytesIO(inside), len(inside)) if is_whole)

    def _unpacked(self, content: bytes, is_whole: bool) -> bytes:
        """The records in a chunk; of one that is not whole those that are, where it is not compressed."""
        try:
            chunk = Chunk.read(ReadDataStream(BytesIO(content)))
            if is_whole or not chunk.compression:
                stream, size = get_chunk_data_stream(chunk)
                return stream.read(size)
        except Exception as error:  # the library raises anything for damaged bytes
            self.damage = self.damage or f"a chunk cannot be unpacked: {line(error)}"
        return b""


def _split(stream: IO[bytes], end: int) -> Iterator[tuple[int, bytes, bool]]:
    """Opcode, content, and whether it is whole, of the READ records up to byte `end` of a stream."""
    while stream.tell() < end:
        header = stream.read(HEADER.size)
        if not any(header):  # where no data were written
            yield 0, b"", True
            return
        if len(header) < HEADER.size:
            yield header[0], b"", False
            return
        code, size = HEADER.unpack(header)
        start = stream.tell()
        if code in READ:
            yield code, stream.read(min(size, end - start)), start + size <= end
        if start + size > end:
            return
        stream.seek(start + size)


def _topic(channel: Channel, schema: Schema | None) -> Topic:
    named = channel.message_encoding or (schema.encoding if schema else "")
    encoding = ENCODINGS.get(named, named)
    if schema is None or encoding not in (CDR, ROS1):
        return Topic(schema.name if schema else "", 0, encoding)
    is_idl = schema.encoding in ("ros2idl", "omgidl")
    return Topic(ros_type(schema.name), 0, encoding, schema.data.decode("utf-8", "replace"), is_idl)

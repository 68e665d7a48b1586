"""SQLite files of rosbag2, opened read-only and without locks, so that nothing is made beside them."""

import os
import shutil
import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from cmp_seg_ros.datasets.storage.base import CDR, RawMessage, Storage, Topic, joined, line, ros_type

MOST_FAILED = 1000  # ids in a row that have no message that can be read: the end
LOG = "-wal"  # ends the name of SQLite's write-ahead log


class Sqlite(Storage):
    """A file with a log beside it, which a recorder that was killed leaves, is read from a temporary copy of both."""

    magic = b"SQLite format 3\0"

    def __init__(self, path: Path, folder: "TemporaryDirectory[str] | None" = None) -> None:
        log = path.with_name(path.name + LOG)
        has_log = log.is_file() and log.stat().st_size > 0
        super().__init__(*_merged(path, log) if has_log else (path, folder))
        if has_log:
            self.note = "its write-ahead log was never merged; it was read with the log"

    def _index(self) -> dict[str, Topic]:
        with closing(self._connect()) as connection:
            counts = dict(connection.execute("SELECT topic_id, count(*) FROM messages GROUP BY topic_id"))
            definitions = {}
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'message_definitions'").fetchone():
                found = connection.execute(
                    "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
                )
                definitions = {ros_type(name): (text, encoding == "ros2idl") for name, encoding, text in found}
            topics = []
            for number, (name, topic) in _topics(connection).items():
                definition, is_idl = definitions.get(topic.type, ("", False))
                size = counts.get(number, 0)
                topics.append((name, topic._replace(size=size, definition=definition, is_idl=is_idl)))
            return joined(topics)

    def _read(self, topics: Collection[str], start: int | None, stop: int | None) -> Iterator[RawMessage]:
        with closing(self._connect()) as connection:
            names = {n: (name, topic.type) for n, (name, topic) in _topics(connection).items() if name in topics}
            limits = [f"topic_id IN ({', '.join('?' * len(names))})"]
            values = list(names)
            for limit, value in (("timestamp >= ?", start), ("timestamp < ?", stop)):
                if value is not None:
                    limits.append(limit)
                    values.append(value)
            query = f"SELECT topic_id, timestamp, data FROM messages WHERE {' AND '.join(limits)} ORDER BY timestamp"
            for number, time, data in connection.execute(query, values):
                yield RawMessage(*names[number], time, bytes(data))

    def _scan(self) -> Iterator[tuple[Topic, RawMessage]]:
        try:
            with closing(self._connect()) as connection:
                connection.execute("PRAGMA writable_schema=ON")  # else a file shorter than it was is refused
                topics = _topics(connection)
                for number, time, data in self._rows(connection):
                    if number in topics and isinstance(time, int) and isinstance(data, bytes):
                        name, topic = topics[number]
                        yield topic, RawMessage(name, topic.type, time, data)
        except Exception as error:  # the library raises anything for damaged bytes
            self.damage = self.damage or line(error)

    def _rows(self, connection: sqlite3.Connection) -> Iterator[tuple[Any, Any, Any]]:
        """Topic, time and data of the messages, each looked up by its id: a damaged page costs those in it alone."""
        failed = 0
        for number in count(1):
            row = None
            try:
                query = "SELECT topic_id, timestamp, data FROM messages WHERE id = ?"
                row = connection.execute(query, (number,)).fetchone()
            except sqlite3.DatabaseError as error:
                self.damage = self.damage or line(error)
            if row is not None:
                yield row
            failed = failed + 1 if row is None else 0
            if failed == MOST_FAILED:
                return

    def _connect(self) -> sqlite3.Connection:
        name = quote(os.fsencode(self.path.resolve()))
        connection = sqlite3.connect(f"file:{name}?mode=ro&immutable=1", uri=True)
        connection.text_factory = lambda text: text.decode("utf-8", "replace")
        return connection


def _topics(connection: sqlite3.Connection) -> dict[int, tuple[str, Topic]]:
    """Names and types by id, in the order of names."""
    found = connection.execute("SELECT id, name, type, serialization_format FROM topics ORDER BY name")
    return {number: (name, Topic(ros_type(kind), 0, encoding.lower() or CDR)) for number, name, kind, encoding in found}


def _merged(path: Path, log: Path) -> "tuple[Path, TemporaryDirectory[str]]":
    """A copy of a file with its log merged. Raises OSError where there is no room for it."""
    folder = TemporaryDirectory()
    copy = Path(folder.name, "bag")
    shutil.copyfile(path, copy)
    shutil.copyfile(log, f"{copy}{LOG}")
    try:
        with closing(sqlite3.connect(copy)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error:
        pass  # the file is damaged, and reading it will fail
    return copy, folder

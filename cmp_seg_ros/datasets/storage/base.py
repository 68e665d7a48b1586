"""What all kinds of bag files share: topics, and raw messages."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

CDR, ROS1 = "cdr", "ros1"  # the encodings of messages that can be read
UNCLOSED = "it was never closed, or its end is missing"  # damage that need not cost a message


class Topic(NamedTuple):
    """A topic of a bag.

    Args:
        type: of its messages, pkg/msg/Name.
        size: number of messages.
        encoding: CDR, ROS1, or another, which is not read.
        definition: text of the message type, as .msg, or as IDL where `is_idl`; empty where the bag has none.
    """

    type: str
    size: int
    encoding: str = CDR
    definition: str = ""
    is_idl: bool = False


class RawMessage(NamedTuple):
    """A raw message: topic, type (pkg/msg/Name), time of recording in nanoseconds, bytes."""

    topic: str
    type: str
    time: int
    data: bytes


class Storage(ABC):
    """One file of a bag, opened for reading alone.

    A file that is whole is read by its index. One that is cut short, was never closed, or holds damaged bytes is
    read from its start as far as it goes, and `damage` says what is wrong with it.

    Args:
        path: of the file.
        folder: temporary, holds what was unpacked for reading; it goes with this object.

    Attributes:
        topics: by name.
        damage: why the file is not whole; empty where it is.
        note: an oddity that loses no message.
    """

    magic: bytes  # that such files begin with

    def __init__(self, path: Path, folder: "TemporaryDirectory[str] | None" = None) -> None:
        self.path = path
        self.folder = folder
        self.damage = ""
        self.note = ""
        self._indexed = True
        self.topics = self._read_topics()

    def _read_topics(self) -> dict[str, Topic]:
        try:
            topics = self._index()
        except Exception as error:  # libraries raise anything for damaged bytes
            topics, self.damage = None, line(error)
        if topics is not None:
            return topics
        self._indexed = False
        return dict(sorted(joined((raw.topic, topic._replace(size=1)) for topic, raw in self._scan()).items()))

    def messages(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[RawMessage]:
        """The messages of some topics, of those recorded from `start` to before `stop` (ns), in the file's order."""
        given = Counter[str]()
        if self._indexed and not self.damage:
            try:
                for raw in self._read(topics, start, stop):
                    given[raw.topic] += 1
                    yield raw
                return
            except Exception as error:  # libraries raise anything for damaged bytes
                self.damage = line(error)
        for _, raw in self._scan():
            if raw.topic not in topics or (start is not None and raw.time < start):
                continue
            if stop is not None and raw.time >= stop:
                continue
            if given[raw.topic]:
                given[raw.topic] -= 1
                continue
            yield raw

    @abstractmethod
    def _index(self) -> dict[str, Topic] | None:
        """The topics by the file's index; None where it has none. May raise anything for a damaged file."""

    @abstractmethod
    def _read(self, topics: Collection[str], start: int | None, stop: int | None) -> Iterator[RawMessage]:
        """Messages by the file's index. May raise anything."""

    @abstractmethod
    def _scan(self) -> Iterator[tuple[Topic, RawMessage]]:
        """All messages that are whole, with their topic (`size` is of no use). Raises nothing, notes `damage`."""


def joined(parts: Iterable[tuple[str, Topic]]) -> dict[str, Topic]:
    """Topics by name, the first of each name with the messages of all."""
    topics: dict[str, Topic] = {}
    for name, part in parts:
        known = topics.get(name)
        topics[name] = part if known is None else known._replace(size=known.size + part.size)
    return topics


def ros_type(name: str) -> str:
    """pkg/msg/Name of what may also be written pkg/Name, pkg::msg::Name or pkg::msg::dds_::Name_."""
    if "::dds_::" in name:
        name = name.replace("::dds_::", "::").removesuffix("_")
    name = name.replace("::", "/")
    return name if name.count("/") != 1 else name.replace("/", "/msg/")


def line(error: Exception) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) or type(error).__name__

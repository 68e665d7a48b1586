"""What every reader of scans offers, whatever the file."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.scan import Scan

Array = npt.NDArray[Any]


class Sample(NamedTuple):
    """One scan of an input.

    number: its place in the input, from 0; gaps are scans that could not be read. key: its name, the same on every run.
    message: the scan as a PointCloud2 with all its fields (a ROS message, or anything with the same attributes).
    """

    number: int
    key: str
    scan: Scan
    message: Any


class Problems:
    """What was wrong with an input, in the order of discovery; alike problems are counted, not repeated."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}

    def add(self, text: str, kind: str = "") -> None:
        """Note a problem; of each `kind` the first text is kept."""
        first, count = self._found.get(kind or text, (text, 0))
        self._found[kind or text] = (first, count + 1)

    def __iter__(self) -> Iterator[str]:
        for text, count in self._found.values():
            yield text if count == 1 else f"{text} (and {count - 1} more like it)"

    def __len__(self) -> int:
        return len(self._found)


class Reader(ABC):
    """The scans of one input, in order.

    What of the input cannot be read is left out and noted in `problems`, complete when the iteration has ended.
    """

    count: int | None = None  # number of scans, where it is known beforehand
    one_file_each = False  # whether each scan is a file of its own
    has_topics = False

    def __init__(self, path: Path, topic: str = "") -> None:
        self.path = path
        self.topic = topic  # of a bag
        self.problems = Problems()

    @classmethod
    @abstractmethod
    def recognises(cls, path: Path) -> bool:
        """Whether `path` is of this kind, by a look at its content."""

    @abstractmethod
    def __iter__(self) -> Iterator[Sample]:
        """The scans. Raises UserError if none can be read."""


class FileReader(Reader):
    """A file that holds one scan."""

    count = 1
    one_file_each = True

    @abstractmethod
    def columns(self) -> tuple[Mapping[str, Array], tuple[int, int]]:
        """The named (N,) columns of the file and its (height, width). Raises UserError."""

    def __iter__(self) -> Iterator[Sample]:
        columns, shape = self.columns()
        try:
            yield sample(0, self.path.stem, columns, shape)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error


def sample(
    number: int, key: str, columns: Mapping[str, Array], shape: tuple[int, int], stamp: int = 0, frame_id: str = "lidar"
) -> Sample:
    """A sample from (N,) columns, among them x, y, z. Raises UserError."""
    if 0 in shape:
        raise UserError("it holds no points; record it again")
    fields = {
        name: values if values.dtype in point_cloud2.DATATYPES else values.astype(np.float64)
        for name, values in ((name, values.astype(values.dtype.newbyteorder("="))) for name, values in columns.items())
    }
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)
    message = point_cloud2.encode(fields, shape).message(header, SimpleNamespace, SimpleNamespace)
    return Sample(number, key, point_cloud2.decode(message), message)


def head(path: Path, size: int = 64) -> bytes:
    """The first bytes of a file; none for what is not a readable file."""
    try:
        with path.open("rb") as file:
            return file.read(size)
    except OSError:
        return b""


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises UserError if it cannot be read or is empty."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    if not content:
        raise UserError(f"{path} is empty (0 bytes); copy or record it again")
    return content


def ascii_records(body: bytes, dtype: np.dtype[Any], count: int, path: Path) -> bytes:
    """At most `count` lines of numbers as records of `dtype`. Raises UserError where a line does not fit it."""
    rows = [words for words in (line.split() for line in body.splitlines()) if words][:count]
    table = np.zeros(len(rows), dtype)
    position = 0
    try:
        for name in dtype.names or ():
            size = int(np.prod(dtype[name].shape))
            values = [row[position : position + size] if dtype[name].shape else row[position] for row in rows]
            with np.errstate(invalid="raise"):  # NaN, or a number too large, in a column of integers
                table[name] = np.array(values, np.float64)
            position += size
    except (ValueError, IndexError, FloatingPointError) as error:
        raise UserError(f"{path} has a line that does not fit its header ({error}); save it again") from error
    return table.tobytes()


def records(content: bytes, dtype: np.dtype[Any], count: int, path: Path) -> dict[str, Array]:
    """`count` records of `dtype` as columns; fields with several values become name_0, name_1, ... Raises UserError."""
    needed = count * dtype.itemsize
    if len(content) < needed:
        raise UserError(
            f"{path} is cut short: its header promises {count} points of {dtype.itemsize} bytes ({needed} bytes), "
            f"{len(content)} bytes follow; copy it again"
        )
    table = np.frombuffer(content, dtype, count)
    columns: dict[str, Array] = {}
    for name in dtype.names or ():
        values = table[name]
        if values.ndim == 1:
            columns[name] = values
        else:
            columns.update({f"{name}_{i}": values[:, i] for i in range(values.shape[1])})
    return columns

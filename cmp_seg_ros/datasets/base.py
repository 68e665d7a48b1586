"""What every data set offers, and what those that are files share."""

import io
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.frame import CameraImage, Frame
from cmp_seg_ros.errors import UserError, describe
from cmp_seg_ros.geometry.calibration import CalibratedCamera
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.messages.images import decompressed
from cmp_seg_ros.scan import UInt8

Array = npt.NDArray[Any]

PICTURES = (".jpg", ".jpeg", ".png")


class Problems:
    """What was wrong with an input, in the order of discovery; alike problems are counted, not repeated."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, int]] = {}

    def add(self, text: str, kind: str = "", times: int = 1) -> None:
        """Note a problem; of each `kind` the first text is kept."""
        first, count = self._found.get(kind or text, (text, 0))
        self._found[kind or text] = (first, count + times)

    def __iter__(self) -> Iterator[str]:
        for text, count in self.counts().items():
            yield text if count == 1 else f"{text} (and {count - 1} more like it)"

    def counts(self) -> dict[str, int]:
        """How often each kind of problem was noted, by the first text of it."""
        return dict(self._found.values())

    def __len__(self) -> int:
        return len(self._found)


class DataSet:
    """Frames in order, read when they are asked for. `data[i]` is the frame whose number is i.

    What cannot be read is left out and noted in `problems`, complete when an iteration has ended, as are `notes`.

    Attributes:
        notes: what is odd about the input and costs no frame.
        count: number of frames, where it is known without reading them; None where it is not.
        one_file_each: whether each frame is a file of its own.
        has_topics: whether `topic` chooses between several sources.
        has_columns: whether `columns` says what the numbers of a file are.
        is_general: whether a data set that knows more about such a path goes before this one.
        seeks: whether a frame is read without those before it; then `count` is known.
        label_spaces: of the label sources that frames may have, by name.
        uncalibrated: that there are images whose cameras are not calibrated, and the remedy; nothing where all are.
    """

    count: int | None = None
    one_file_each = False
    has_topics = False
    has_columns = False
    is_general = False
    seeks = False

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        self.path = path
        self.topic = topic  # of a bag
        self.columns_given = ""  # of a file without names
        self.sensors = sensors or SensorSet()
        self.problems = Problems()
        self.notes = Problems()
        self.label_spaces: dict[str, LabelSpace] = {}
        self.uncalibrated = ""

    @classmethod
    def recognises(cls, path: Path) -> bool:
        """Whether `path` is of this kind, by a look at its content; none is where frames come from elsewhere."""
        return False

    def __iter__(self) -> Iterator[Frame]:
        """The frames. Raises UserError if none can be read."""
        is_empty = True
        for frame in self.stretch(0):
            is_empty = False
            yield frame
        if is_empty:
            raise UserError("; ".join(self.problems) or f"{self.path} holds no scans")

    def __len__(self) -> int:
        """Number of places for frames; where `count` is None all are read to know it."""
        return self.count if self.count is not None else 1 + max((frame.number for frame in self), default=-1)

    def __getitem__(self, number: int) -> Frame:
        """The frame of that number. Raises IndexError beyond the last, UserError where it cannot be read."""
        if self.count is not None and not 0 <= number < self.count:
            raise IndexError(f"{self.path} has {self.count} scans, none of number {number}")
        if self.seeks:
            try:
                return self.frame_at(number)
            except (OSError, ValueError, KeyError, EOFError) as error:  # that a loader leaves to its base
                raise self._unreadable(number, describe(error)) from error
        for frame in self:
            if frame.number == number:
                return frame
            if frame.number > number >= 0:
                raise self._unreadable(number)
        raise IndexError(f"{self.path} has no frame {number}")

    def _unreadable(self, number: int, why: str = "") -> UserError:
        why = why or "; ".join([*self.problems, *self.notes])
        return UserError(f"frame {number} of {self.path} cannot be read: {why}")

    def frame_at(self, number: int) -> Frame:
        """A frame that there is, of a data set that `seeks`; others override `__iter__`. Raises UserError."""
        raise NotImplementedError

    def stretch(self, start: int, stop: int | None = None) -> Iterator[Frame]:
        """The frames numbered from `start` to before `stop`; of a data set that `seeks` without reading those before.

        What cannot be read is left out and noted.
        """
        if self.seeks:
            for number in range(start, len(self) if stop is None else min(stop, len(self))):
                try:
                    yield self[number]
                except UserError as error:  # noqa: PERF203
                    self.problems.add(str(error))
            return
        for frame in self:
            if stop is not None and frame.number >= stop:
                return
            if frame.number >= start:
                yield frame

    def parts(self) -> Iterable["DataSet"]:
        """Data sets that have the same frames in the same order, and can be read side by side."""
        return (self,)


class ScanFile(DataSet, ABC):
    """A file that holds one scan."""

    count = 1
    one_file_each = True

    @abstractmethod
    def columns(self) -> tuple[Mapping[str, Array], tuple[int, int]]:
        """The named (N,) columns of the file and its (height, width). Raises UserError."""

    def __iter__(self) -> Iterator[Frame]:
        columns, shape = self.columns()
        try:
            yield frame_of(
                0,
                self.path.stem,
                columns,
                shape,
                images=pictures_beside(self.path, self.sensors),
                T_base_lidar=self.sensors.T_base_lidar,
                intensity_statistics=self.sensors.intensity_statistics,
                sequence=str(self.path.parent),
            )
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from error


def pictures_beside(path: Path, sensors: SensorSet) -> dict[str, CameraImage]:
    """The pictures that belong to a scan's file NAME, by camera ("camera" without a calibration).

    Of the only camera NAME.jpg (or .jpeg, .png); of several NAME.CAMERA.jpg, or CAMERA/NAME.jpg.
    """
    cameras: Mapping[str, CalibratedCamera | None] = sensors.calibration.cameras or {"camera": None}
    found = {}
    for name, camera in cameras.items():
        stems = [path.parent / f"{path.stem}.{name}", path.parent / name / path.stem]
        if len(cameras) == 1:
            stems.insert(0, path.parent / path.stem)
        candidates = (stem.with_name(stem.name + suffix) for stem in stems for suffix in PICTURES)
        picture = next((candidate for candidate in candidates if candidate.is_file()), None)
        if picture is not None:
            found[name] = CameraImage(0, partial(read_picture, picture), camera, partial(read_bytes, picture))
    return found


def read_picture(path: Path) -> UInt8:
    """(H, W, 3) red, green, blue of a file. Raises UserError."""
    return decompressed(read_bytes(path), f"picture {path}")


def frame_of(
    number: int,
    key: str,
    columns: Mapping[str, Array],
    shape: tuple[int, int],
    stamp: int = 0,
    frame_id: str = "lidar",
    **known: Any,
) -> Frame:
    """A frame from (N,) columns, among them x, y, z; `known` are further fields of Frame. Raises UserError."""
    if missing := [axis for axis in "xyz" if axis not in {name.lower() for name in columns}]:
        raise UserError(
            f"it has no field {', '.join(missing)}; its fields are {', '.join(columns) or 'none'}. "
            "Give a cloud whose fields are named x, y and z"
        )
    message = message_of(columns, shape, stamp, frame_id)
    return Frame(key, point_cloud2.decode(message), number, message, **known)


def message_of(columns: Mapping[str, Array], shape: tuple[int, int], stamp: int = 0, frame_id: str = "lidar") -> Any:
    """(N,) columns as a PointCloud2. Raises UserError."""
    if 0 in shape:
        raise UserError("it holds no points; record it again")
    fields = {
        name: values if values.dtype in point_cloud2.DATATYPES else values.astype(np.float64)
        for name, values in ((name, values.astype(values.dtype.newbyteorder("="))) for name, values in columns.items())
    }
    seconds, nanoseconds = divmod(stamp, 1_000_000_000)
    header = SimpleNamespace(stamp=SimpleNamespace(sec=seconds, nanosec=nanoseconds), frame_id=frame_id)
    return point_cloud2.encode(fields, shape).message(header, SimpleNamespace, SimpleNamespace)


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts names with numbers in them: 2 before 10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def head(path: Path, size: int = 64) -> bytes:
    """The first bytes of a file; none for what is not a readable file."""
    try:
        if not path.is_file():  # a named pipe would be waited for
            return b""
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


def read_npy(path: Path) -> Array:
    """The array in a .npy. Raises UserError."""
    content = read_bytes(path)
    try:
        table: Array = np.load(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # numpy raises anything for damaged bytes
        raise UserError(f"{path} is not a whole .npy of numbers ({error}); save it again with numpy.save") from error
    return table


def ascii_records(body: bytes, dtype: np.dtype[Any], count: int, path: Path) -> bytes:
    """At most `count` lines of numbers as records of `dtype`. Raises UserError where a line does not fit it."""
    rows = [words for words in (line.split() for line in body.splitlines()) if words][:count]
    table = np.zeros(len(rows), dtype)
    position = 0
    try:
        for name in dtype.names or ():
            size = int(np.prod(dtype[name].shape))
            if any(len(row) < position + size for row in rows):
                raise ValueError(f"it has no number for {name}")
            values = np.array([row[position : position + size] for row in rows], np.float64)
            table[name] = _within(values, dtype[name].base, name).reshape(table[name].shape)
            position += size
    except ValueError as error:
        raise UserError(f"{path} has a line that does not fit its header ({error}); save it again") from error
    return table.tobytes()


def _within(values: Array, kind: np.dtype[Any], name: str) -> Array:
    """Numbers that a type can hold. NumPy takes NaN and large numbers for some other where the type is of integers."""
    if kind.kind in "iu" and not (fits := (values >= np.iinfo(kind).min) & (values < np.iinfo(kind).max + 1.0)).all():
        raise ValueError(f"{name} is {values[~fits][0]:g}, which no {kind.name} can be")
    return values


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

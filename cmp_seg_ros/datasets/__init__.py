"""Data sets, which give Frames. Each kind is a module with a class `DataSet`; new modules are found automatically."""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from cmp_seg_ros.datasets.bag import bag_of
from cmp_seg_ros.datasets.base import DataSet, natural
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.datasets.labelled_bag import BAG as LABELLED
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.outputs import made_by

KINDS = (
    "a bag (.bag, .mcap, .db3 or a rosbag2 folder), .pcd, .ply, .npy, .bin, an Ouster .pcap or .osf, "
    "or a folder of such"
)

SUFFIXES = (".bag", ".mcap", ".db3", ".zstd", ".pcd", ".ply", ".npy", ".bin", ".pcap", ".osf")


def kinds() -> list[type[DataSet]]:
    """All data sets that are recognised by their path: general ones last, else in the order of their modules."""
    modules = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__) if info.name != "base"]
    return sorted(
        (module.DataSet for module in modules if hasattr(module, "DataSet")), key=lambda kind: kind.is_general
    )


def open_input(path: str | Path, topic: str = "", sensors: SensorSet | None = None, columns: str = "") -> DataSet:
    """The data set at `path`, found by looking at it; of a folder of `cmp-seg simulate` its bag.

    Args:
        topic: PointCloud2 topic of a bag; needed only where there are several.
        sensors: what is known of lidar and cameras; None takes nothing as known.
        columns: of a .bin or .npy, as `bare.parse` takes them; needed only where they are not x, y, z, intensity.

    Raises:
        UserError: there is no such path, or it is no known kind of input; a topic was given for an input without
            topics, or columns for one that names its own.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give {KINDS}")
    for kind in kinds():
        if kind.recognises(path):
            if topic and not kind.has_topics:
                raise UserError(f"{path} is no bag, so it has no topic '{topic}'; leave out --topic")
            if columns and not kind.has_columns:
                raise UserError(f"{path} is neither .bin nor .npy, and names its own columns; leave out --columns")
            data = kind(path, topic, sensors)
            data.columns_given = columns
            return data
    if path.is_dir():
        folder = Folder(path, topic, sensors)
        folder.columns_given = columns
        return folder if set(folder.files) != {bag_of(path)} else open_input(bag_of(path), topic, sensors, columns)
    raise _unknown(path)


def _unknown(path: Path) -> UserError:
    """Why no reader recognises a file."""
    try:
        if path.stat().st_size == 0:
            return UserError(f"{path} is empty (0 bytes); copy or record it again")
        with path.open("rb"):
            pass
    except OSError as error:
        return UserError(f"{path} cannot be read: {error.strerror or error}; copy it again")
    if path.suffix in SUFFIXES:
        return UserError(f"{path} is not a {path.suffix} file, by its first bytes; copy or record it again")
    return UserError(f"{path} is not a known kind of input; give {KINDS}")


class Folder(DataSet):
    """The files of a folder, each an input by itself, in natural order (2 before 10). Keys are their names.

    A file with the suffix of an input that is none is a problem; other files, such as pictures, are ignored.
    """

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        super().__init__(path, topic, sensors)
        found = {
            file: next((kind for kind in kinds() if kind.recognises(file)), None)
            for file in sorted(path.iterdir(), key=natural)
            if file.name != LABELLED or made_by(path) != "label"  # its results are no part of its input
        }
        self.files = {
            file: kind
            for file, kind in found.items()
            if kind is not None or (file.suffix in SUFFIXES and not file.name.startswith(".") and not file.is_dir())
        }
        self.one_file_each = True
        if not self.files:
            raise UserError(f"folder {path} holds no known kind of input; give {KINDS}")
        if topic and not any(kind is not None and kind.has_topics for kind in self.files.values()):
            raise UserError(f"folder {path} holds no bag, so it has no topic '{topic}'; leave out --topic")
        if all(kind is None or kind.one_file_each for kind in self.files.values()):
            self.count = len(self.files)
            self.seeks = True

    def __iter__(self) -> Iterator[Frame]:
        number, is_empty = 0, True
        for file in self.files:
            first = number
            try:
                for frame in self._read(file):
                    yield replace(frame, number=number)
                    number, is_empty = number + 1, False
            except UserError as error:
                self.problems.add(str(error))
            number = max(number, first + 1)  # a gap for a file without a scan
        if is_empty:
            raise UserError("; ".join(self.problems))

    def frame_at(self, number: int) -> Frame:
        [frame] = self._read(list(self.files)[number])
        return replace(frame, number=number)

    def _read(self, file: Path) -> Iterator[Frame]:
        """The frames of a file; at its end what is wrong with it is noted. Raises UserError."""
        kind = self.files[file]
        if kind is None:
            raise _unknown(file)
        data = kind(file, self.topic if kind.has_topics else "", self.sensors)
        data.columns_given = self.columns_given if kind.has_columns else ""
        for frame in data:
            key = file.stem if data.one_file_each else f"{file.stem}/{frame.key}"
            yield replace(frame, key=key, sequence=str(self.path))
        for problem in data.problems:
            self.problems.add(problem)
        for note in data.notes:
            self.notes.add(note)

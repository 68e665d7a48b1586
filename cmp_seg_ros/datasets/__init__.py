"""Scans from bags and files. One kind of input is one module with a `Reader`; a new module is found by itself."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from cmp_seg_ros.datasets.base import Reader, Sample
from cmp_seg_ros.datasets.labelled_bag import BAG as LABELLED
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.outputs import made_by

KINDS = (
    "a bag (.bag, .mcap, .db3 or a rosbag2 folder), .pcd, .ply, .npy, .bin, an Ouster .pcap or .osf, "
    "or a folder of such"
)

SUFFIXES = (".bag", ".mcap", ".db3", ".pcd", ".ply", ".npy", ".bin", ".pcap", ".osf")


def readers() -> list[type[Reader]]:
    """All readers, in the order of their modules' names."""
    modules = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__) if info.name != "base"]
    return [module.Reader for module in modules if hasattr(module, "Reader")]


def open_input(path: str | Path, topic: str = "") -> Reader:
    """The reader for `path`, found by looking at it.

    Args:
        topic: PointCloud2 topic of a bag; needed only where there are several.

    Raises:
        UserError: there is no such path, or it is no input that is known; or it has no topics and one was given.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist; give {KINDS}")
    for reader in readers():
        if reader.recognises(path):
            if topic and not reader.has_topics:
                raise UserError(f"{path} is no bag, so it has no topic '{topic}'; leave out --topic")
            return reader(path, topic)
    if path.is_dir():
        return Folder(path, topic)
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
        return UserError(f"{path} does not begin as {path.suffix} files do; copy or record it again")
    return UserError(f"{path} is not an input that is known; give {KINDS}")


class Folder(Reader):
    """The files of a folder, each an input by itself, in natural order (2 before 10). Keys are their names.

    What is named like an input and is none is a problem; all else, pictures beside the scans say, is passed over.
    """

    def __init__(self, path: Path, topic: str = "") -> None:
        super().__init__(path, topic)
        found = {
            file: next((kind for kind in readers() if kind.recognises(file)), None)
            for file in sorted(path.iterdir(), key=_natural)
            if file.name != LABELLED or made_by(path) != "label"  # its results are no part of its input
        }
        self.files = {file: kind for file, kind in found.items() if kind is not None or _is_named_like_one(file)}
        self.count = len(self.files)
        self.one_file_each = True
        if not self.files:
            raise UserError(f"folder {path} holds no input that is known; give {KINDS}")
        if topic and not any(kind is not None and kind.has_topics for kind in self.files.values()):
            raise UserError(f"folder {path} holds no bag, so it has no topic '{topic}'; leave out --topic")

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return path.is_dir()

    def __iter__(self) -> Iterator[Sample]:
        number = found = 0
        for file, kind in self.files.items():
            try:
                if kind is None:
                    raise _unknown(file)
                reader = kind(file, self.topic if kind.has_topics else "")
                for sample in reader:
                    key = file.stem if reader.one_file_each else f"{file.stem}/{sample.key}"
                    yield sample._replace(number=number, key=key)
                    number += 1
                    found += 1
                problems = list(reader.problems)
            except UserError as error:
                problems = [str(error)]
                number += 1
            for problem in problems:
                self.problems.add(problem)
        if not found:
            raise UserError("; ".join(self.problems))


def _is_named_like_one(path: Path) -> bool:
    return path.suffix in SUFFIXES and not path.name.startswith(".") and not path.is_dir()


def _natural(path: Path) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]

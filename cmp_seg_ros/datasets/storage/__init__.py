"""The files of a bag: their kind, which of them belong together, and their raw messages."""

import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory, gettempdir

import yaml
import zstandard

from cmp_seg_ros.datasets.storage.base import UNCLOSED, Storage, Topic, line
from cmp_seg_ros.datasets.storage.mcap import Mcap
from cmp_seg_ros.datasets.storage.ros1 import Ros1
from cmp_seg_ros.datasets.storage.sqlite import Sqlite
from cmp_seg_ros.errors import UserError

KINDS: tuple[type[Storage], ...] = (Ros1, Mcap, Sqlite)
METADATA = "metadata.yaml"
ZSTD = b"\x28\xb5\x2f\xfd"
ZSTD_SUFFIXES = (".zstd", ".zst")
LONGEST_MAGIC = 16


@dataclass
class BagFiles:
    """The files of a bag, in their order.

    Args:
        storages: those that can be read.
        broken: why others cannot.
        promised: the topics according to the metadata; empty where there is none.
        notes: oddities that lose no message.
    """

    storages: list[Storage] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    promised: dict[str, Topic] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_closed(self) -> bool:
        """Whether no file is damaged, though some may never have been closed."""
        return all(storage.damage in ("", UNCLOSED) for storage in self.storages)

    @property
    def damage(self) -> str:
        """Why the bag is not whole; empty where it is."""
        found = self.broken + [storage.damage for storage in self.storages if storage.damage]
        return "; ".join(dict.fromkeys(found))


def kind_of(path: Path) -> type[Storage] | None:
    """The kind of a bag file by its first bytes, compressed with zstd or not; None for other files."""
    try:
        if not path.is_file():  # a named pipe would be waited for
            return None
        with path.open("rb") as file:
            start = file.read(LONGEST_MAGIC)
            if start.startswith(ZSTD):
                file.seek(0)
                start = zstandard.ZstdDecompressor().stream_reader(file).read(LONGEST_MAGIC)
    except (OSError, zstandard.ZstdError):
        return None
    return next((kind for kind in KINDS if start.startswith(kind.magic)), None)


def open_files(path: Path) -> BagFiles:
    """The files of a bag: the one at `path`, or those of a rosbag2 folder, with or without its metadata.

    The metadata give the order of the files and the topics; nothing else in them is used.

    Raises:
        UserError: there is no room to unpack a file.
    """
    files = BagFiles()
    if not path.is_dir():
        files.storages = [_open(path, kind)] if (kind := kind_of(path)) else []
        files.notes = [storage.note for storage in files.storages if storage.note]
        return files
    listed: dict[str, Path | None] = {}
    if (path / METADATA).is_file():
        try:
            names, files.promised = _read_metadata(path / METADATA)
            listed = {name: _find(path, name) for name in names}
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
            files.notes.append(f"its {METADATA} cannot be read and was ignored: {line(error)}")
    kinds = {file: kind_of(file) for file in listed.values() if file is not None}
    there = _files_in(path)
    if not any(kinds.values()):
        kinds |= {file: kind_of(file) for file in there}
    if listed:
        bare = {_unpacked_name(file.name) for file in kinds}
        others = [file for file in there if _unpacked_name(file.name) not in bare and kind_of(file)]
        files.notes += [f"it has {file.name}, which its {METADATA} does not list: read it by itself" for file in others]
    files.broken = [f"{name} is not there" for name, file in listed.items() if file is None and any(kinds.values())]
    files.broken += [f"{file.name} is not a bag file" for file in listed.values() if file and not kinds[file]]
    for name, file in listed.items():
        if file is not None and file.name != name:
            files.notes.append(f"it has {file.name} where its {METADATA} says {name}")
    files.storages = [_open(file, kind) for file, kind in kinds.items() if kind]
    files.notes += [f"{storage.path.name}: {storage.note}" for storage in files.storages if storage.note]
    return files


def _unpacked_name(name: str) -> str:
    return name.removesuffix(next((end for end in ZSTD_SUFFIXES if name.endswith(end)), ""))


def _read_metadata(path: Path) -> tuple[list[str], dict[str, Topic]]:
    """Names of the files, and the topics. Malformed metadata raise many kinds of errors."""
    content = yaml.safe_load(path.read_text())["rosbag2_bagfile_information"]
    topics = {
        str(entry["topic_metadata"]["name"]): Topic(str(entry["topic_metadata"]["type"]), int(entry["message_count"]))
        for entry in content.get("topics_with_message_count") or ()
    }
    return [PurePath(name).name for name in content.get("relative_file_paths") or ()], topics


def _find(folder: Path, name: str) -> Path | None:
    """A file that the metadata list, which may have been packed or unpacked since."""
    names = (name, *(name.removesuffix(end) for end in ZSTD_SUFFIXES), *(name + end for end in ZSTD_SUFFIXES))
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _files_in(folder: Path) -> list[Path]:
    """The files of a folder in the order of their numbers; compressed copies of files that are there are left out."""

    def number(file: Path) -> int:
        stem = (Path(file.stem) if file.suffix in ZSTD_SUFFIXES else file).stem
        found = re.search(r"(\d+)\D*$", stem)
        return int(found[1]) if found else 0

    names = {file.name for file in folder.iterdir()}
    files = [file for file in folder.iterdir() if file.suffix not in ZSTD_SUFFIXES or file.stem not in names]
    return sorted(files, key=lambda file: (number(file), file.name))


def _open(path: Path, kind: type[Storage]) -> Storage:
    try:
        with path.open("rb") as packed:
            if packed.read(len(ZSTD)) != ZSTD:
                return kind(path)
            packed.seek(0)
            folder = TemporaryDirectory()
            whole = Path(folder.name, path.name.removesuffix(path.suffix))
            damage = ""
            with whole.open("wb") as unpacked:
                try:
                    shutil.copyfileobj(
                        zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True), unpacked
                    )
                except zstandard.ZstdError as error:
                    damage = line(error)
        storage = kind(whole, folder)
        storage.damage = storage.damage or damage
        return storage
    except OSError as error:
        raise UserError(
            f"{path} cannot be unpacked or copied for reading: {error.strerror or error}; make room in "
            f"{gettempdir()}, or set TMPDIR to a folder with more"
        ) from error

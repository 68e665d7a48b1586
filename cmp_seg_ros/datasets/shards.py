"""Files of the unified form (see `unified`): the index, tar shards, and what lies in them."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets.frame import PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.track import Pose
from cmp_seg_ros.label_space import LabelSpace

INDEX, SHARDS, SPACES, LABELS = "index.jsonl", "shards", "label_spaces", "labels"
PARTS = "parts"  # folder of the manifests, while a conversion is under way
POINTS, ABOUT, LABEL_FILE = "points.npy", "json", "labels.npz"  # what follows KEY. in the names of files
FIELDS = ("x", "y", "z", "intensity", "t")  # columns of KEY.points.npy
LARGEST = 256 * 2**20  # bytes of a shard
END = bytes(2 * tarfile.BLOCKSIZE)  # of a tar
AGAIN = "run cmp-seg convert again, into a new folder"


class Entry(NamedTuple):
    """A line of the index.

    Args:
        key: SEQUENCE/NAME.
        shard: name of the tar in shards/.
        offset, size, sha256: of the scan's bytes in it, headers included.
        files: offset in the shard and size of each of the scan's files, by what follows KEY. in their names.
        stamp: nanoseconds; 0 if it has none.
        points: N.
        pose: x, y, z, qx, qy, qz, qw of T_world_lidar at the stamp, or None.
        split: train, val, test, or nothing where the scan is left out between two.
    """

    key: str
    shard: str
    offset: int
    size: int
    sha256: str
    files: dict[str, tuple[int, int]]
    stamp: int
    points: int
    pose: Pose | None = None
    split: str = ""

    @property
    def sequence(self) -> str:
        return self.key.partition("/")[0]


def read_index(folder: Path) -> list[Entry]:
    """The scans of a unified set, in order. Raises UserError."""
    path = folder / INDEX
    if (folder / PARTS).exists():
        raise UserError(f"{folder} is not converted to its end; run the same cmp-seg convert again")
    try:
        return [Entry(**json.loads(line)) for line in path.read_text().splitlines()]
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {AGAIN}") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); {AGAIN}") from error


def write_index(folder: Path, entries: list[Entry]) -> None:
    """Raises OSError."""
    lines = (json.dumps(entry._asdict(), separators=(",", ":")) + "\n" for entry in entries)
    outputs.write_whole(folder / INDEX, "".join(lines).encode())


def tar_part(key: str, files: Mapping[str, bytes]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """A stretch of a tar that holds KEY.NAME for each of `files`, and the offset and size of each in it.

    There are no owners and no dates, so that equal content gives equal bytes. A tar is such stretches and END.
    """
    parts: list[bytes] = []
    places: dict[str, tuple[int, int]] = {}
    end = 0
    for name, content in files.items():
        info = tarfile.TarInfo(f"{key}.{name}")
        info.size = len(content)
        header = info.tobuf(tarfile.USTAR_FORMAT)
        parts += [header, content, bytes(-len(content) % tarfile.BLOCKSIZE)]
        places[name] = (end + len(header), len(content))
        end += sum(map(len, parts[-3:]))
    return b"".join(parts), places


class ShardWriter:
    """Writes scans to FOLDER/NAME-00.tar, NAME-01.tar, ..., each at most LARGEST bytes.

    A shard gets its name when it is whole. Those of a run that was broken off are replaced: they count once a manifest
    names them.

    with ShardWriter(folder, name) as shards:
        entry = shards.add(entry, files)
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._shards = 0
        self._stream: IO[bytes] | None = None

    def add(self, entry: Entry, files: Mapping[str, bytes]) -> Entry:
        """Write the files of a scan; its entry with the place and the checksum. Raises OSError."""
        content, places = tar_part(entry.key, files)
        if self._stream is None or self._stream.tell() + len(content) + len(END) > LARGEST:
            self._close()
            self._shards += 1
            self._stream = self._path.with_suffix(f".{os.getpid()}.tmp").open("wb")  # another process may write it, too
        start = self._stream.tell()
        self._stream.write(content)
        moved = {name: (start + offset, size) for name, (offset, size) in places.items()}
        shard, size = self._path.name, len(content)
        return entry._replace(shard=shard, offset=start, size=size, sha256=sha256(content), files=moved)

    @property
    def _path(self) -> Path:
        return self._folder / f"{self._name}-{self._shards - 1:02d}.tar"

    def _close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with stream:
                stream.write(END)
            Path(stream.name).replace(self._path)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._close()
        elif self._stream is not None:
            Path(self._stream.name).unlink()
            self._stream.close()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def read_part(path: Path, offset: int, size: int) -> bytes:
    """Some bytes of a file. Raises UserError."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; {AGAIN}") from error
    if len(content) < size:
        raise UserError(f"{path} is cut short; {AGAIN}")
    return content


def pack_labels(labels: Mapping[str, PointLabels]) -> bytes:
    """KEY.labels.npz: of each source SOURCE.label, SOURCE.space (its name) and, if it has one, SOURCE.confidence."""
    arrays: dict[str, Any] = {}
    for source, one in labels.items():
        arrays |= {f"{source}.label": one.label, f"{source}.space": np.array(one.space.name)}
        if one.confidence is not None:
            arrays[f"{source}.confidence"] = one.confidence.astype(np.float16)
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def unpack_labels(content: bytes, spaces: Mapping[str, LabelSpace]) -> dict[str, PointLabels]:
    """The opposite of `pack_labels`. Raises UserError for an unknown space."""
    with np.load(io.BytesIO(content)) as file:
        return {
            source: PointLabels(
                space_named(spaces, str(file[f"{source}.space"])),
                file[f"{source}.label"],
                file[f"{source}.confidence"].astype(np.float32) if f"{source}.confidence" in file else None,
            )
            for source in (name.removesuffix(".label") for name in file if name.endswith(".label"))
        }


def keep_space(folder: Path, space: LabelSpace) -> None:
    """Put a label space into a set. Raises UserError if it holds another one of that name, OSError."""
    path = folder / SPACES / f"{space.name}.yaml"
    if path.is_file():
        kept = LabelSpace.load(path)
        if [(c.name, c.id) for c in kept.classes] != [(c.name, c.id) for c in space.classes]:
            raise UserError(f"{folder} holds another label space '{space.name}' ({path}); rename one of them")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    outputs.write_whole(path, space.to_yaml().encode())


def read_spaces(folder: Path) -> dict[str, LabelSpace]:
    """The label spaces of a set, by name. Raises UserError."""
    return {path.stem: LabelSpace.load(path) for path in sorted((folder / SPACES).glob("*.yaml"))}


def space_named(spaces: Mapping[str, LabelSpace], name: str) -> LabelSpace:
    """Raises UserError."""
    if name not in spaces:
        raise UserError(f"label space '{name}' is not in {SPACES}/ of the set (it has: {', '.join(spaces) or 'none'})")
    return spaces[name]

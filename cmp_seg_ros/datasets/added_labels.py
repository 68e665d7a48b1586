"""Label sources that are added to a unified set after its conversion; its shards stay as they are.

DIR/labels/SOURCE/source.json       its label space, and what made it
DIR/labels/SOURCE/NNNNNN.tar        KEY.labels.npz of up to BLOCK scans, from number NNNNNN of the index on
"""

import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import shards
from cmp_seg_ros.datasets.frame import PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace

SOURCE = "source.json"
BLOCK = 64  # scans in one file


def write_labels(
    folder: Path, source: str, space: LabelSpace, made_by: Mapping[str, Any] | None = None, again: bool = False
) -> "LabelWriter":
    """Add a label source to the unified set in `folder`, or go on where an earlier run was broken off.

        with write_labels(folder, "pseudo", space, {"teacher": "mosaic"}) as writer:
            for frame in open_input(folder):
                if frame.number not in writer.done:
                    writer.add(frame.number, PointLabels(space, label, confidence))

    Several processes may write at the same time, each its own blocks.

    Args:
        source: its name. It hides a source of that name in the shards.
        made_by: whatever decides the labels, kept in source.json.
        again: replace labels that were made by something else.

    Raises:
        UserError: there is no such set; the name cannot be that of a folder; `source` was made by something else.
    """
    if not source.replace("-", "").replace("_", "").isalnum():
        raise UserError(f"'{source}' cannot be the name of a label source; use letters, digits, - and _")
    folder = Path(folder)
    keys = [entry.key for entry in shards.read_index(folder)]
    target = folder / shards.LABELS / source
    about = {"space": space.name, "made_by": json.loads(json.dumps(made_by or {}))}
    known = read_source(target) if (target / SOURCE).is_file() else about
    if known != about and not again:
        changed = ", ".join(sorted(_differing(known, about)))
        raise UserError(
            f"{target} has labels made with other settings ({changed}); replace them with --again, or give these "
            "another --source"
        )
    with outputs.writing(target):
        for path in target.glob("[0-9]*") if known != about else ():
            path.unlink()
        shards.keep_space(folder, space)
        outputs.write_whole(target / SOURCE, (json.dumps(about, indent=2) + "\n").encode())
    return LabelWriter(target, keys, space)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    """Names of the innermost values that differ."""
    for name in {*one, *other}:
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from _differing(a, b)
        elif a != b:
            yield name


class LabelWriter:
    """Made by `write_labels`. A block is written when a scan of another one comes, and at the end.

    Attributes:
        done: numbers of the scans whose block is written. A run that was broken off repeats the block that it was in.
    """

    def __init__(self, folder: Path, keys: list[str], space: LabelSpace) -> None:
        self.folder, self.space, self._keys = folder, space, keys
        self._waiting: dict[int, PointLabels] = {}
        self.done: set[int] = set()
        for path in folder.glob("[0-9]*.tar"):
            self._note_done(int(path.stem))

    def add(self, number: int, labels: PointLabels) -> None:
        """Give the scan of that number in the set its labels, in the source's space. Raises UserError.

        Scans may come in any order, those of a block together.
        """
        if labels.space.name != self.space.name:
            raise ValueError(f"labels are in {labels.space.name}, the source is in {self.space.name}")
        if number in self.done:
            raise ValueError(f"the block of scan {number} is written; pass over the numbers in `done`")
        if self._waiting and next(iter(self._waiting)) // BLOCK != number // BLOCK:
            self.flush()
        self._waiting[number] = labels

    def flush(self, block: int | None = None) -> None:
        """Write the block that is being filled; scans of it without labels stay so.

        Args:
            block: number of a scan in the block, which is then written though no scan of it has labels.
        """
        if not self._waiting and block is None:
            return
        first = min(self._waiting, default=block or 0) // BLOCK * BLOCK
        parts = [
            shards.tar_part(self._keys[number], {shards.LABEL_FILE: shards.pack_labels({self.folder.name: labels})})[0]
            for number, labels in sorted(self._waiting.items())
        ]
        with outputs.writing(self.folder):
            outputs.write_whole(self.folder / f"{first:06d}.tar", b"".join([*parts, shards.END]))
        self._note_done(first)
        self._waiting.clear()

    def _note_done(self, first: int) -> None:
        self.done.update(range(first, min(first + BLOCK, len(self._keys))))

    def __enter__(self) -> "LabelWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.flush()


class AddedLabels:
    """A label source in labels/, read by scan."""

    def __init__(self, folder: Path, spaces: Mapping[str, LabelSpace]) -> None:
        self.folder, self._spaces = folder, spaces
        self.space = shards.space_named(spaces, read_source(folder)["space"])
        self._blocks: dict[int, dict[str, tuple[int, int]]] = {}

    def of(self, number: int, key: str) -> PointLabels | None:
        """The labels of a scan, or None where it has none (yet). Raises UserError."""
        first = number // BLOCK * BLOCK
        path = self.folder / f"{first:06d}.tar"
        if first not in self._blocks and path.is_file():
            try:
                with tarfile.open(path) as tar:
                    self._blocks[first] = {file.name: (file.offset_data, file.size) for file in tar}
            except tarfile.TarError as error:
                raise UserError(f"{path} is damaged ({error}); remove it and make its labels again") from error
        place = self._blocks.get(first, {}).get(f"{key}.{shards.LABEL_FILE}")
        return place and shards.unpack_labels(shards.read_part(path, *place), self._spaces)[self.folder.name]


def sources(folder: Path, spaces: Mapping[str, LabelSpace]) -> dict[str, AddedLabels]:
    """The sources that were added to a set, by name."""
    found = sorted(path.parent for path in (folder / shards.LABELS).glob(f"*/{SOURCE}"))
    return {path.name: AddedLabels(path, spaces) for path in found}


def read_source(folder: Path) -> dict[str, Any]:
    """What source.json says. Raises UserError."""
    path = folder / SOURCE
    try:
        about = json.loads(path.read_text())
        return {"space": about["space"], "made_by": about["made_by"]}
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path} cannot be read ({error}); remove {folder} and make the labels again") from error

"""Simulated arrays cached on disk: one .npz file for each seed, made once on all processors."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np
import numpy.typing as npt

from cmp_seg_ros import outputs
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.workers import process_map

Array = npt.NDArray[Any]


class SeedFiles(ABC):
    """The files of some seeds, each with the arrays of several items.

    Attributes:
        what: they are of, for messages.
        compressed: smaller files, which take longer to read.
    """

    what: str
    compressed = False
    seeds: list[int]
    folder: Path

    @abstractmethod
    def make(self, seed: int) -> Iterable[Mapping[str, Array]]:
        """The arrays by name of each item of a seed."""

    def file(self, seed: int) -> Path:
        """Path of the file of a seed."""
        return self.folder / f"{seed}.npz"

    def read(self, seed: int, index: int, names: Iterable[str]) -> dict[str, Array]:
        """The arrays of an item. Raises UserError."""
        path = self.file(seed)
        try:
            with np.load(path) as file:
                return {name: file[f"{index}.{name}"] for name in names}
        except (OSError, EOFError, ValueError, LookupError, BadZipFile) as error:
            raise UserError(
                f"{self.what} {path} cannot be read: {error}; remove the file and run the command again"
            ) from error

    def fill(self, processes: int | None = None) -> Iterator[int]:
        """Make the files that are missing or cut short; yields each seed when its file exists.

        Raises:
            UserError: the disk is full, or cannot be written.
        """
        missing = [seed for seed in self.seeds if not is_zipfile(self.file(seed))]
        yield from (seed for seed in self.seeds if seed not in set(missing))
        if not missing:
            return
        with outputs.writing(self.folder, "free some space, or give another --cache"):
            yield from process_map(self.make_file, missing, processes)

    def make_file(self, seed: int) -> int:
        """Make the file of a seed; returns the seed."""
        self.keep(seed, self.make(seed))
        return seed

    def keep(self, seed: int, items: Iterable[Mapping[str, Array]]) -> None:
        """Write the items of a seed. Raises OSError."""
        arrays: dict[str, Any] = {}  # Any, since `savez` also has options by keyword
        for index, item in enumerate(items):
            arrays |= {f"{index}.{name}": values for name, values in item.items()}
        content = BytesIO()
        (np.savez_compressed if self.compressed else np.savez)(content, **arrays)
        outputs.write_whole(self.file(seed), content.getbuffer())

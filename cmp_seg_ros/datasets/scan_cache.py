"""Simulated scans of random buildings, cached on disk: one file per building, simulated once on all processors."""

import hashlib
from collections.abc import Iterable, Iterator
from copy import copy
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import buildings
from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels, Returns
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Scan
from cmp_seg_ros.simulation.lidar import Lidar
from cmp_seg_ros.simulation.version import simulator_version
from cmp_seg_ros.workers import process_map

FORMAT = "1"  # of the files; change it to simulate all scans again


class DataSet(BaseDataSet):
    """The scans of `buildings.DataSet`, upright and without missing returns, read from files that `fill` writes.

    Truth is in `indoor`. Each version of the simulator has its own files; mapping or colours of classes do not matter.

    Args:
        folder: of the files; several data sets may share it.
        seeds, scans, sensor: as for `buildings.DataSet`.
    """

    def __init__(self, folder: Path, seeds: Iterable[int], scans: int, sensor: str | None = None) -> None:
        super().__init__(folder)
        self.source = buildings.DataSet(seeds, scans, sensor)
        self.seeds, self.scans, self.sensor = self.source.seeds, scans, sensor
        self.label_spaces, self.count = self.source.label_spaces, self.source.count

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return False

    def __iter__(self) -> Iterator[Frame]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Frame:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} scans, none of number {number}")
        place, index = divmod(number, self.scans)
        seed = self.seeds[place]
        path = self.file(seed)
        try:
            with np.load(path) as file:
                found = Returns(*(file[f"{index}.{name}"] for name in Returns._fields))
        except (OSError, EOFError, ValueError, LookupError, BadZipFile) as error:
            raise UserError(
                f"simulated scans {path} cannot be read: {error}; remove the file and run the command again"
            ) from error
        return Frame(
            f"{seed}/{index}",
            Scan(found.xyz, found.intensity),
            number,
            labels={TRUTH: PointLabels(self.label_spaces[TRUTH], found.label)},
            ring=found.ring,
            sequence=f"{seed}/{index}",
            group=str(seed),
        )

    def parts(self) -> Iterator["DataSet"]:
        """One data set per building."""
        for seed in self.seeds:
            part = copy(self)
            part.seeds, part.count = [seed], self.scans
            yield part

    def file(self, seed: int) -> Path:
        """Path of a building's scans."""
        return self._files / f"{seed}.npz"

    @cached_property
    def _files(self) -> Path:
        version = hashlib.sha256(f"{FORMAT} {simulator_version()}".encode()).hexdigest()[:8]
        return self.path / f"{self.sensor or 'any'}-{self.scans}-{version}"

    def fill(self, processes: int | None = None) -> Iterator[int]:
        """Simulate the buildings whose file is missing or cut short; yields each seed when its file exists.

        Raises:
            UserError: unknown sensor, or the disk is full.
        """
        if self.sensor:
            Lidar.load(self.sensor)
        missing = []
        for seed in self.seeds:
            if is_zipfile(self.file(seed)):
                yield seed
            else:
                missing.append(seed)
        if not missing:
            return
        try:
            self._files.mkdir(parents=True, exist_ok=True)
            yield from process_map(self._simulate, missing, processes)
        except OSError as error:
            if not outputs.is_about(self.path, error):
                raise
            raise UserError(
                f"simulated scans cannot be written to {self.path}: {error.strerror or error}; free some space, or "
                "give another --cache"
            ) from error

    def _simulate(self, seed: int) -> int:
        """Simulate a building and write its file; returns the seed."""
        self.keep(seed, (frame.returns() for frame in buildings.DataSet([seed], self.scans, self.sensor)))
        return seed

    def keep(self, seed: int, scans: Iterable[Returns]) -> None:
        """Write the scans of a building. Raises OSError."""
        arrays: dict[str, Any] = {}  # Any, since `savez` also has options by keyword
        for index, scan in enumerate(scans):
            arrays |= {f"{index}.{name}": value for name, value in scan._asdict().items()}
        content = BytesIO()
        np.savez(content, **arrays)
        outputs.write_whole(self.file(seed), content.getbuffer())

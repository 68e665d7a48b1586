"""Simulated scans for training, one file a building, made once on all cores; another simulator makes its own."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, is_zipfile

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.digest import digest
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.simulation.lidar import Lidar
from cmp_seg_ros.simulation.version import simulator_version
from cmp_seg_ros.workers import process_map


class TrainingScan(NamedTuple):
    """The returns of one scan, upright (z up), with truth; `ring` is the row of an organised cloud."""

    xyz: Float32  # (N, 3)
    intensity: Float32  # (N,)
    ring: UInt8  # (N,)
    label: UInt8  # (N,)


@dataclass(frozen=True)
class ScanCache:
    """Scans of simulated buildings in `folder`; labels are ids of `label_space`."""

    folder: Path
    label_space: str
    scans_per_building: int
    sensor: str | None = None  # None: any sensor, at random

    def path(self, building: int) -> Path:
        return self._scans / f"{building}.npz"

    @cached_property
    def _scans(self) -> Path:
        space = LabelSpace.load(self.label_space)
        # Of the spaces in config/, the simulator's version knows the content.
        own = "" if self.label_space == space.name else f"_{hashlib.sha256(space.to_yaml().encode()).hexdigest()[:8]}"
        kind = f"{space.name}{own}-{self.sensor or 'any'}-{self.scans_per_building}"
        return self.folder / f"{kind}-{digest([Path(__file__)], simulator_version())}"

    def load(self, building: int, index: int) -> TrainingScan:
        """One scan. Raises UserError where its file is damaged."""
        path = self.path(building)
        try:
            with np.load(path) as file:
                return TrainingScan(*(file[f"{index}.{name}"] for name in TrainingScan._fields))
        except (OSError, EOFError, ValueError, LookupError, BadZipFile) as error:
            raise UserError(
                f"simulated scans {path} cannot be read: {error}; remove the file, and the same command simulates it "
                "again"
            ) from error

    def fill(self, buildings: Iterable[int], processes: int | None = None) -> Iterable[int]:
        """Simulate the buildings that are not there yet, or cut off; yields each building when its file is there.

        Raises:
            UserError: unknown sensor, a label space that says nothing of simulated classes, or a full disk.
        """
        self._table()
        if self.sensor:
            Lidar.load(self.sensor)
        missing = []
        for building in buildings:
            if is_zipfile(self.path(building)):
                yield building
            else:
                missing.append(building)
        if not missing:
            return
        try:
            self._scans.mkdir(parents=True, exist_ok=True)
            yield from process_map(self._simulate, missing, processes)
        except OSError as error:
            if not outputs.is_about(self.folder, error):
                raise
            raise UserError(
                f"simulated scans cannot be written to {self.folder}: {error.strerror or error}; make room there, or "
                "give another --cache"
            ) from error

    def _table(self) -> UInt8:
        """(256,) from the simulator's classes to those of the label space."""
        return LabelSpace.load(self.label_space).id_map(LabelSpace.load("indoor"))

    def _simulate(self, building: int) -> int:
        """Write the file of a building; returns the building."""
        from cmp_seg_ros.simulation.building import make_building
        from cmp_seg_ros.simulation.generate import scans_in

        table = self._table()
        arrays: dict[str, Any] = {}  # `savez` has other options by keyword, of other types
        for index, (scan, label, T_base_lidar) in enumerate(
            scans_in(make_building(building), self.scans_per_building, self.sensor)
        ):
            returns = scan.valid()
            upright = scan.xyz[returns] @ T_base_lidar[:3, :3].T.astype(np.float32)
            intensity = scan.intensity if scan.intensity is not None else np.zeros(len(scan), np.float32)
            ring = np.repeat(np.arange(scan.shape[0], dtype=np.uint8), scan.shape[1])
            values = TrainingScan(upright, intensity[returns], ring[returns], table[label[returns]])
            arrays |= {f"{index}.{name}": value for name, value in values._asdict().items()}
        path = self.path(building)
        temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
        np.savez(temporary, **arrays)
        temporary.replace(path)
        return building

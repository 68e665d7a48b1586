"""Simulated scans of random buildings, cached on disk: one file per building, simulated once on all processors."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from cmp_seg_ros.datasets import buildings
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels, Returns
from cmp_seg_ros.datasets.seed_files import SeedFiles
from cmp_seg_ros.datasets.seeded import Seeded
from cmp_seg_ros.scan import Scan
from cmp_seg_ros.simulation.lidar import Lidar
from cmp_seg_ros.simulation.version import simulator_version

FORMAT = "1"  # of the files; change it to simulate all scans again


class DataSet(Seeded, SeedFiles):
    """The scans of `buildings.DataSet`, upright and without missing returns, read from files that `fill` writes.

    Truth is in `indoor`. Each version of the simulator has its own files; mapping or colours of classes do not matter.

    Args:
        folder: of the files; several data sets may share it.
        seeds, scans, sensor: as for `buildings.DataSet`.
    """

    what = "simulated scans"

    def __init__(self, folder: Path, seeds: Iterable[int], scans: int, sensor: str | None = None) -> None:
        super().__init__(folder, seeds, scans)
        self.sensor = sensor

    @cached_property
    def folder(self) -> Path:  # type: ignore[override]
        """Of the files of this version of the simulator."""
        version = hashlib.sha256(f"{FORMAT} {simulator_version()}".encode()).hexdigest()[:8]
        return self.path / f"{self.sensor or 'any'}-{self.scans}-{version}"

    def frame_of(self, seed: int, index: int) -> Frame:
        found = Returns(**self.read(seed, index, Returns._fields))
        return Frame(
            f"{seed}/{index}",
            Scan(found.xyz, found.intensity),
            labels={TRUTH: PointLabels(self.label_spaces[TRUTH], found.label)},
            ring=found.ring,
            sequence=f"{seed}/{index}",
            group=str(seed),
        )

    def fill(self, processes: int | None = None) -> Iterator[int]:
        """As `SeedFiles.fill`. Raises UserError for an unknown sensor, too."""
        if self.sensor:
            Lidar.load(self.sensor)
        return super().fill(processes)

    def make(self, seed: int) -> Iterator[dict[str, Any]]:
        return (frame.returns()._asdict() for frame in buildings.DataSet([seed], self.scans, self.sensor))

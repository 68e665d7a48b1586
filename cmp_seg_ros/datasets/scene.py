"""Simulated scans of a third-party furnished scene: each seed is a visit, with other places, people and lidars."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cmp_seg_ros.datasets import buildings
from cmp_seg_ros.geometry.calibration import Transform

if TYPE_CHECKING:
    from cmp_seg_ros.simulation.building import Building


class DataSet(buildings.DataSet):
    """As `buildings.DataSet`, of the folder of a scene (see docs/simulation.md)."""

    def __init__(
        self,
        path: Path,
        seeds: Iterable[int],
        scans: int,
        sensor: str | None = None,
        mounts: Sequence[Transform | None] = (None,),
        thinned: bool = True,
    ) -> None:
        super().__init__(seeds, scans, sensor, mounts, thinned)
        self.path = path

    def building(self, seed: int) -> "Building":
        from cmp_seg_ros.simulation.scene_folder import load_scene

        return load_scene(self.path, seed)

    def _of(self, seeds: list[int]) -> "DataSet":
        return DataSet(self.path, seeds, self.scans, self.sensor, self.mounts, self.thinned)

"""Simulated views cached on disk: one file per building, rendered once."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.seed_files import SeedFiles
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.occupancy.grid import Grid
from cmp_seg_ros.occupancy.views import View, views_in
from cmp_seg_ros.simulation.building import make_building

FORMAT = "1"  # of the files, and of what `views_in` renders; change it to render all views again


class ViewCache(SeedFiles):
    """The views of many buildings by number, read from files that `fill` writes.

    Args:
        folder: of the files; several caches may share it.
        seeds: of the buildings.
        count: views per building.
        camera, grid: of the views.
    """

    what, compressed = "simulated views", True

    def __init__(self, folder: Path, seeds: Sequence[int], count: int, camera: Camera, grid: Grid) -> None:
        settings = f"{FORMAT} {count} {camera.model_dump_json()} {grid.model_dump_json()}"
        self.folder = folder / f"views-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
        self.seeds, self.count, self.camera, self.grid = list(seeds), count, camera, grid

    def __len__(self) -> int:
        return len(self.seeds) * self.count

    def __getitem__(self, number: int) -> View:
        place, index = divmod(number, self.count)
        fields = self.read(self.seeds[place], index, View.__dataclass_fields__)
        return View(**fields | {"depth": fields["depth"].astype(np.float32)})

    def make(self, seed: int) -> Iterator[dict[str, Any]]:
        for view in views_in(make_building(seed), self.count, self.camera, self.grid):
            yield vars(view) | {"depth": view.depth.astype(np.float16)}  # 5 mm at 10 m

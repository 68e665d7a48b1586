"""Simulated views cached on disk: one file per building, rendered once."""

import hashlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, is_zipfile

import numpy as np

from cmp_seg_ros import outputs
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.occupancy.grid import Grid
from cmp_seg_ros.occupancy.views import View, views_in
from cmp_seg_ros.simulation.building import make_building
from cmp_seg_ros.workers import process_map

FORMAT = "1"  # of the files, and of what `views_in` renders; change it to render all views again


class ViewCache:
    """The views of many buildings by number, read from files that `fill` writes.

    Args:
        folder: of the files; several caches may share it.
        seeds: of the buildings.
        count: views per building.
        camera, grid: of the views.
    """

    def __init__(self, folder: Path, seeds: Sequence[int], count: int, camera: Camera, grid: Grid) -> None:
        settings = f"{FORMAT} {count} {camera.model_dump_json()} {grid.model_dump_json()}"
        self.folder = folder / f"views-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
        self.seeds, self.count, self.camera, self.grid = seeds, count, camera, grid

    def __len__(self) -> int:
        return len(self.seeds) * self.count

    def __getitem__(self, number: int) -> View:
        if not 0 <= number < len(self):
            raise IndexError(f"there are {len(self)} views, none of number {number}")
        place, index = divmod(number, self.count)
        path = self.file(self.seeds[place])
        try:
            with np.load(path) as file:
                fields = {name: file[f"{index}.{name}"] for name in View.__dataclass_fields__}
        except (OSError, EOFError, ValueError, LookupError, BadZipFile) as error:
            raise UserError(
                f"simulated views {path} cannot be read: {error}; remove the file and run the command again"
            ) from error
        return View(**fields | {"depth": fields["depth"].astype(np.float32)})

    def file(self, seed: int) -> Path:
        """Path of a building's views."""
        return self.folder / f"{seed}.npz"

    def fill(self, processes: int | None = None) -> Iterator[int]:
        """Render the buildings whose file is missing or cut short; yields each seed when its file exists."""
        missing = [seed for seed in self.seeds if not is_zipfile(self.file(seed))]
        yield from (seed for seed in self.seeds if seed not in set(missing))
        if missing:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield from process_map(self._render, missing, processes)

    def _render(self, seed: int) -> int:
        arrays: dict[str, Any] = {}
        for index, view in enumerate(views_in(make_building(seed), self.count, self.camera, self.grid)):
            fields = vars(view) | {"depth": view.depth.astype(np.float16)}  # 5 mm at 10 m
            arrays |= {f"{index}.{name}": value for name, value in fields.items()}
        content = BytesIO()
        np.savez_compressed(content, **arrays)
        outputs.write_whole(self.file(seed), content.getbuffer())
        return seed

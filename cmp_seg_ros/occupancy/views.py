"""Simulated views: an image from a random place of a building, with true depth, classes and occupancy; cached."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.seed_files import SeedFiles
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.occupancy.grid import Grid, Transform
from cmp_seg_ros.occupancy.truth import occupancy, surface_points, viewpoints
from cmp_seg_ros.scan import Float32, UInt8
from cmp_seg_ros.simulation.building import Building, make_building
from cmp_seg_ros.simulation.camera import Renderer
from cmp_seg_ros.simulation.generate import rotation
from cmp_seg_ros.simulation.mesh import Rng
from cmp_seg_ros.simulation.people import people_mesh
from cmp_seg_ros.simulation.raycast import Scene
from cmp_seg_ros.simulation.rig_camera import OPTICAL

FORMAT = "1"  # of cached views, and of what `views_in` renders; change it to render all views again
VIEWPOINTS = 8  # for the truth of what the image does not show
TOO_NEAR = 0.7  # metres; a view with a nearer median depth shows nothing but one surface


@dataclass(frozen=True)
class View:
    """An image with its truth.

    Args:
        rgb: (H, W, 3) uint8.
        label: (H, W) uint8 in `indoor`; 255 without a surface.
        depth: (H, W) float32, metres along the optical axis; infinite without a surface.
        occupancy: (X, Y, Z) uint8 in `indoor`, FREE or UNKNOWN; the grid stands in the base frame.
        T_base_camera: (4, 4); the base is level, on the floor below the camera, its x axis ahead.
    """

    rgb: UInt8
    label: UInt8
    depth: Float32
    occupancy: UInt8
    T_base_camera: Transform


def views_in(building: Building, count: int, camera: Camera, grid: Grid) -> Iterator[View]:
    """`count` views at random places of a building; the same arguments give the same views."""
    rng = np.random.default_rng([building.seed, 8])
    renderer, still = Renderer(camera, building), Scene(building.mesh)
    cells = np.array([room.cell for room in building.plan.rooms])
    low, high = (*cells[:, :2].min(axis=0), -0.5), (*cells[:, 2:].max(axis=0), 8.0)
    fabric = surface_points(building.mesh, low, high)
    ahead = camera.rays()[:, 2].reshape(camera.height, camera.width)
    made = 0
    for attempt in range(4 * count):
        T_world_base, T_base_camera = _stand(rng, building)
        T_world_camera = T_world_base @ T_base_camera
        people = people_mesh(building.people, rng.uniform(0, 600))
        scenes = [still, Scene(people)]
        image = renderer.render(scenes, T_world_camera, rng)
        depth = image.depth * ahead
        if np.median(depth) < TOO_NEAR and attempt < 3 * count:
            continue
        surfaces = [fabric, surface_points(people, low, high)]
        truth = truth_at(scenes, surfaces, grid, camera, T_world_base, T_base_camera, rng)
        yield View(image.rgb, image.label, depth, truth, T_base_camera)
        made += 1
        if made == count:
            return


def truth_at(
    scenes: list[Scene],
    surfaces: list[tuple[Float32, UInt8]],
    grid: Grid,
    camera: Camera,
    T_world_base: Transform,
    T_base_camera: Transform,
    rng: Rng,
) -> UInt8:
    """(X, Y, Z) true occupancy in the view of a camera.

    Args:
        scenes, surfaces: as for `occupancy`.
        grid: in the base frame.
    """
    places = viewpoints(scenes, T_world_base @ T_base_camera, VIEWPOINTS, rng)
    _, _, within = grid.seen_by(camera, T_base_camera)
    return occupancy(scenes, surfaces, grid, T_world_base, places, within)


def _stand(rng: Rng, building: Building) -> tuple[Transform, Transform]:
    """T_world_base and T_base_camera: half on robots, half in a hand; wider angles than either usually has."""
    carried = rng.random() < 0.5
    height = float(rng.uniform(1.0, 1.8) if carried else rng.uniform(0.25, 1.3))
    x, y = building.free_places(rng, 1, 0.25)[0]
    room = building.room_at(float(x), float(y))
    T_world_base = rotation(0.0, 0.0, rng.uniform(-np.pi, np.pi))
    T_world_base[:2, 3] = x, y
    pitch = rng.uniform(-12, 40) if carried else rng.uniform(-10, 22)  # degrees downwards
    roll = rng.normal(0, 5.0 if carried else 1.0)
    T_base_camera = rotation(float(np.radians(roll)), float(np.radians(pitch)), 0.0)
    T_base_camera[:3, :3] = T_base_camera[:3, :3] @ OPTICAL
    T_base_camera[2, 3] = min(height, (room.height if room else 2.3) - 0.25)
    return T_world_base, T_base_camera


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

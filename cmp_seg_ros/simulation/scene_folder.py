"""Loads furnished scenes from a folder of textured models, as buildings for simulated lidars, cameras and robots.

The folder has `world.yaml` (`items`: name, model, `T_world_model`) and `models/*.glb` in metres, z up, floor at 0. The
class of each model is listed in `config/scene_models.yaml`. Rooms are the areas enclosed by a horizontal section
through the walls, above doors and windows; each gets a ceiling at the top of its walls. Parts of the walls that hang in
a room are beams, and count as ceiling, as in generated buildings.
"""

import re
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from cmp_seg_ros import configuration, resources
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, Float64, UInt8
from cmp_seg_ros.simulation.building import Building
from cmp_seg_ros.simulation.furnishing import Top
from cmp_seg_ros.simulation.layout import Plan, Room
from cmp_seg_ros.simulation.materials import GLASS
from cmp_seg_ros.simulation.mesh import Material, Rng, class_id, indoor
from cmp_seg_ros.simulation.people import Person
from cmp_seg_ros.simulation.raycast import Scene
from cmp_seg_ros.simulation.texture import TexturedMesh
from cmp_seg_ros.simulation.trajectory import HEIGHT, FreeSpace, sections

TABLE = "config/scene_models.yaml"
WORLD = "world.yaml"
CELL = 0.1  # metres; grid in which rooms are found
SECTION = 2.4  # metres: above doors and windows, below beams
NARROWEST = 0.3  # metres; narrower areas are the inside of walls
CLOSED = 0.85  # share of a room's edge with walls at the height of its ceiling, at least
WALL = 0.25  # metres from a room's face into its walls that still belong to the room's cell
OVERHEAD = ("ceiling", "lamp", "wall", "door", "window", "curtain")  # classes under which a robot can stand
PEOPLE = 3


def load_scene(folder: Path, seed: int = 0) -> "FurnishedScene":
    """The scene in `folder`; the seed determines its people and everything random.

    Raises:
        UserError: world.yaml or a model cannot be read, a model's class is not in the table, or no room is found.
    """
    empty = replace(_empty(Path(folder).resolve()), seed=seed)
    return replace(empty, people=_people(empty))


@dataclass(frozen=True)
class FurnishedScene(Building):
    """A building without a floor plan: walls are known only as a mesh, obstacles as grid cells."""

    def clear(self, xy: Float64, margin: float) -> Bool:
        return np.asarray(self._space.clear(np.asarray(xy)) > margin)

    def free_places(self, rng: Rng, count: int, margin: float = 0.35) -> Float64:
        space = self._space
        for tolerance in (margin, 0.1, 0.0):
            cells = np.argwhere(space.clearance > tolerance)
            if len(cells):
                break
        picks = cells[rng.integers(len(cells), size=count)]
        return np.asarray(space.centre(picks) + rng.uniform(-0.5, 0.5, (count, 2)) * CELL)

    @cached_property
    def _space(self) -> FreeSpace:
        return FreeSpace(self)


def _people(scene: FurnishedScene) -> list[Person]:
    """A few people who stand, or walk back and forth where the way is free."""
    rng = np.random.default_rng([scene.seed, 8])
    people = []
    for _ in range(PEOPLE):
        start, end = scene.free_places(rng, 2, 0.4)
        way = start + np.linspace(0, 1, 41)[:, None] * (end - start)
        pose = "walk" if scene.clear(way, 0.3).all() else "stand"
        places = (float(start[0]), float(start[1])), (float(end[0]), float(end[1]))
        people.append(Person(int(rng.integers(1 << 30)), pose, *places, rng.uniform(0, 2 * np.pi), 0.9, rng.random()))
    return people


# -- the table


class ModelTable(configuration.KnownFields):
    """`config/scene_models.yaml`."""

    models: dict[str, str]
    panes: dict[str, float]
    reflectivity: dict[str, float]

    @classmethod
    def load(cls) -> "ModelTable":
        path = resources.resource(TABLE)
        table = configuration.read(cls, "table of models", path)
        unknown = {*table.models.values(), *table.reflectivity} - {*indoor().names, "default"}
        if unknown:
            raise UserError(f"{path}: {', '.join(sorted(unknown))} are not classes of the label space indoor")
        return table

    def name_of(self, model: str) -> str:
        """The name of a model in the table. Raises UserError."""
        word = re.sub(r"(_\d+)+$", "", model).rpartition("_")[2]
        for name in (word, re.sub(r"(?<=[a-z])[A-Z]$", "", word)):
            if name in self.models:
                return name
        raise UserError(f"model {model} has no class: add '{word}: CLASS' to `models` in {resources.resource(TABLE)}")

    def material(self, label: str) -> Material:
        """Material of the surfaces of a class; the colour comes from the model's texture."""
        return Material((1.0, 1.0, 1.0), self.reflectivity.get(label, self.reflectivity["default"]))


# -- models in the world


@dataclass(frozen=True)
class _Part:
    """One piece of geometry of an item, in the world frame: (T, 3, 3) corners, (T, 3, 2) texture coordinates."""

    name: str
    triangles: Float32
    uv: Float32
    image: UInt8


@cache
def _empty(folder: Path) -> FurnishedScene:
    """The scene without people; all else does not depend on the seed."""
    table = ModelTable.load()
    items = _items(folder)
    parts = [part for item in items for part in _parts(folder, item, table)]
    labels = [np.full(len(p.triangles), class_id(table.models[p.name]), np.uint8) for p in parts]
    triangles, label = np.concatenate([p.triangles for p in parts]), np.concatenate(labels)
    floorplan = _Floorplan(triangles, triangles[label == class_id("wall")], folder)
    label[floorplan.beams(triangles, label == class_id("wall"))] = class_id("ceiling")

    ceiling = floorplan.ceiling()
    triangles = np.concatenate([triangles, ceiling]).astype(np.float32)
    label = np.append(label, np.full(len(ceiling), class_id("ceiling"), np.uint8))
    uv = np.concatenate([*(p.uv for p in parts), np.zeros((len(ceiling), 3, 2), np.float32)])
    images: dict[int, UInt8] = {id(p.image): p.image for p in parts}
    numbers = {key: number for number, key in enumerate(images)}
    image = np.concatenate([np.full(len(p.triangles), numbers[id(p.image)], np.int32) for p in parts])
    image = np.append(image, np.full(len(ceiling), len(images), np.int32))
    plaster = np.full((1, 1, 3), 235, np.uint8)

    materials = tuple(table.material(name) for name in indoor().names)
    glass = [_panes(p, table.panes.get(p.name)) for p in parts] + [np.zeros(len(ceiling), bool)]
    material = np.where(np.concatenate(glass), len(materials), indoor().index_of_id[label]).astype(np.int32)
    mesh = TexturedMesh(
        np.ascontiguousarray(triangles), label, material, (*materials, GLASS), uv, image, (*images.values(), plaster)
    )
    plan = Plan(folder.name, floorplan.rooms, 2 * WALL, [])
    return FurnishedScene(0, plan, mesh, [], floorplan.obstacles(Scene(mesh)), _tops(parts, table))


def _items(folder: Path) -> list[dict[str, Any]]:
    path = folder / WORLD
    try:
        world = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}; a scene is a folder with {WORLD} and models/"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    items = world.get("items") if isinstance(world, dict) else None
    if not isinstance(items, list) or not items:
        raise UserError(f"{path} has no `items`, each with name, model and T_world_model")
    for number, item in enumerate(items):
        if not isinstance(item, dict) or "model" not in item or np.shape(item.get("T_world_model", ())) != (4, 4):
            raise UserError(f"{path}: item {number} needs `model`, and `T_world_model` with 4 rows of 4 numbers")
    return items


def _parts(folder: Path, item: dict[str, Any], table: ModelTable) -> list[_Part]:
    T = np.asarray(item["T_world_model"], dtype=np.float64)
    name = table.name_of(item["model"])
    return [
        _Part(name, (part.triangles @ T[:3, :3].T + T[:3, 3]).astype(np.float32), part.uv, part.image)
        for part in _model(folder / "models" / f"{item['model']}.glb", name)
    ]


@cache
def _model(path: Path, name: str) -> list[_Part]:
    """The pieces of a model in its own frame."""
    try:
        import trimesh
    except ImportError as error:
        raise UserError(f"scenes need trimesh ({error}); run pip install cmp_seg_ros[simulation]") from error
    if not path.is_file():
        raise UserError(f"{path} is missing; {WORLD} names it")
    try:
        scene = trimesh.load_scene(path)
    except Exception as error:  # trimesh passes on any exception of its parsers
        raise UserError(f"{path} cannot be read as glTF: {' '.join(str(error).split())}") from error
    parts = []
    for node in scene.graph.nodes_geometry:
        T, key = scene.graph[node]
        piece = scene.geometry[key]
        corners = piece.triangles @ T[:3, :3].T + T[:3, 3]
        uv = getattr(piece.visual, "uv", None)
        uv = np.zeros((len(piece.vertices), 2)) if uv is None else uv
        parts.append(_Part(name, corners.astype(np.float32), uv[piece.faces].astype(np.float32), _picture(piece)))
    return parts


def _picture(piece: Any) -> UInt8:
    """(H, W, 3) texture of a piece's material; (1, 1, 3) for a single colour."""
    material = getattr(piece.visual, "material", None)
    texture = getattr(material, "baseColorTexture", None)
    if texture is not None:
        return np.asarray(texture.convert("RGB"), dtype=np.uint8)
    color = getattr(material, "main_color", None)
    return np.asarray((200, 200, 200) if color is None else color[:3], dtype=np.uint8).reshape(1, 1, 3)


def _panes(part: _Part, least: float | None) -> Bool:
    """(T,) which triangles are glass: those with at least `least` square metres; none for None."""
    if least is None:
        return np.zeros(len(part.triangles), bool)
    a, b, c = part.triangles.transpose(1, 0, 2)
    return np.asarray(np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2 >= least)


def _tops(parts: list[_Part], table: ModelTable) -> list[Top]:
    """Table tops on which a sensor may stand."""
    tops = []
    for part in parts:
        if table.models[part.name] == "table":
            low, high = part.triangles.reshape(-1, 3).min(axis=0), part.triangles.reshape(-1, 3).max(axis=0)
            x, y = (low[:2] + high[:2]) / 2
            along, across = 0.35 * (high - low)[:2]
            tops.append(Top(float(x), float(y), float(high[2]), 0.0, (float(along), float(across))))
    return tops


# -- rooms


class _Floorplan:
    """Rooms of a scene: cells of a horizontal grid that the walls enclose.

    Args:
        triangles: (T, 3, 3) of the whole scene.
        walls: (W, 3, 3) of the walls.
        folder: of the scene, for messages.
    """

    def __init__(self, triangles: Float32, walls: Float32, folder: Path) -> None:
        from scipy.ndimage import binary_dilation, distance_transform_edt, label

        corners = triangles.reshape(-1, 3)
        self.origin = corners[:, :2].min(axis=0).astype(np.float64) - 5 * CELL
        self.shape = tuple(np.ceil((corners[:, :2].max(axis=0) - self.origin) / CELL).astype(int) + 5)
        self._walls = walls
        taken = binary_dilation(self._section(SECTION))
        parts, count = label(~taken)
        wide = distance_transform_edt(~taken) * CELL > NARROWEST
        outside = {int(parts[0, 0]), 0}
        self.masks: list[Bool] = []
        for number in range(1, count + 1):
            mask = parts == number
            if number not in outside and (mask & wide).any():
                self.masks.append(np.asarray(binary_dilation(mask)))
        if not self.masks:
            raise UserError(f"no room found in {folder}: its walls must enclose one at {SECTION} m above the floor")
        self.heights = [self._height(mask) for mask in self.masks]
        self.rooms = [self._room(mask, height) for mask, height in zip(self.masks, self.heights, strict=True)]

    def _section(self, z: float) -> Bool:
        """(X, Y) cells that the walls touch at height `z`."""
        touched = np.zeros(self.shape, bool)
        for points in sections(self._walls, np.array([z])):
            touched[tuple(np.floor((points - self.origin) / CELL).astype(int).T)] = True
        return touched

    def _height(self, mask: Bool) -> float:
        """Height at which the walls around a room end."""
        from scipy.ndimage import binary_dilation

        edge = binary_dilation(mask, iterations=2) & ~mask
        tops = np.unique(self._walls[:, :, 2].round(2))
        for height in sorted((float(z) for z in tops if z > SECTION), reverse=True):
            near = binary_dilation(self._section(height - 0.02), iterations=2)
            if (near & edge).sum() > CLOSED * edge.sum():
                return height
        return SECTION

    def _room(self, mask: Bool, height: float) -> Room:
        cells = np.argwhere(mask)
        low, high = self.origin + cells.min(axis=0) * CELL, self.origin + (cells.max(axis=0) + 1) * CELL
        inner = float(low[0]), float(low[1]), float(high[0]), float(high[1])
        cell = inner[0] - WALL, inner[1] - WALL, inner[2] + WALL, inner[3] + WALL
        return Room(cell, "room", inner, height)

    def beams(self, triangles: Float32, wall: Bool) -> Bool:
        """(T,) which wall triangles belong to a piece that hangs in a room, away from its edges."""
        from scipy.ndimage import binary_erosion
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        rows = np.flatnonzero(wall)
        _, corner = np.unique(triangles[rows].reshape(-1, 3).round(3), axis=0, return_inverse=True)
        corner = corner.reshape(-1, 3)
        links = np.concatenate([corner[:, :2], corner[:, 1:]])
        size = int(corner.max()) + 1
        graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), (size, size))
        piece = connected_components(graph, directed=False)[1][corner[:, 0]]
        inside = np.any([binary_erosion(mask, iterations=4) for mask in self.masks], axis=0)
        found = np.zeros(len(triangles), bool)
        for number in range(piece.max() + 1):
            mine = rows[piece == number]
            middle = np.floor((triangles[mine].mean(axis=1)[:, :2] - self.origin) / CELL).astype(int)
            hangs = triangles[mine, :, 2].min() > 2.0
            found[mine] = hangs and inside[tuple(middle.T)].mean() > 0.5
        return found

    def ceiling(self) -> Float32:
        """(T, 3, 3) triangles over the cells of every room and of its walls, at the height of its walls."""
        from scipy.ndimage import binary_dilation

        found = []
        for mask, height in zip(self.masks, self.heights, strict=True):
            for rect in rectangles(binary_dilation(mask)):
                (x0, y0), (x1, y1) = self.origin + np.reshape(rect, (2, 2)) * CELL
                a, b, c, d = ((x, y, height) for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))
                found += [(a, b, c), (a, c, d)]
        return np.array(found, dtype=np.float32)

    def obstacles(self, scene: Scene) -> Float64:
        """(K, 4) rectangles of cells with an obstacle on the floor, or above it up to a robot's height.

        Seen from a robot's height, the floor below is hidden, or the top of a tall object is above.
        """
        cells = np.argwhere(np.any(self.masks, axis=0))
        origins = np.full((len(cells), 3), HEIGHT, dtype=np.float32)
        origins[:, :2] = self.origin + (cells + 0.5) * CELL
        way = np.zeros_like(origins)
        way[:, 2] = 1
        below, above = scene.cast(origins, -way).label, scene.cast(origins, way).label
        overhead = [class_id(name) for name in OVERHEAD]
        taken = np.zeros(self.shape, bool)
        taken[tuple(cells[(below != class_id("floor")) | ~np.isin(above, [*overhead, UNLABELLED])].T)] = True
        rects = np.array(rectangles(taken), dtype=np.float64).reshape(-1, 2, 2)
        return (self.origin + rects * CELL).reshape(-1, 4)


def rectangles(mask: Bool) -> list[tuple[int, int, int, int]]:
    """Split a mask into rectangles x0 y0 x1 y1 of cells (ends excluded): runs of its columns, joined while equal."""
    done: list[tuple[int, int, int, int]] = []
    open_: dict[tuple[int, int], int] = {}  # run (y0, y1) -> x of its start
    for x in range(mask.shape[0] + 1):
        column = mask[x] if x < mask.shape[0] else np.zeros(mask.shape[1], bool)
        steps = np.flatnonzero(np.diff(np.concatenate([[0], column.astype(np.int8), [0]])))
        runs = {(int(a), int(b)) for a, b in steps.reshape(-1, 2)}
        done += [(open_.pop(run), run[0], x, run[1]) for run in [r for r in open_ if r not in runs]]
        for run in runs:
            open_.setdefault(run, x)
    return done

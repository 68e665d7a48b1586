"""Procedural buildings: floor plan, walls, furniture and people, all from one seed."""

from dataclasses import dataclass

import numpy as np

from cmp_seg_ros.scan import Bool, Float64
from cmp_seg_ros.simulation import goods as g
from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation.furnishing import Furnisher, Top
from cmp_seg_ros.simulation.layout import Plan, Room, make_plan
from cmp_seg_ros.simulation.mesh import Mesh, Rng, Shape
from cmp_seg_ros.simulation.people import Person
from cmp_seg_ros.simulation.walls import Floorspace, RoomFabric, Style, touch

# Seeds from here on belong to the second world: models of real shape, goods, machines, high halls, open windows, trees,
# more lidars and mounts. For lower seeds, buildings and their scans stay bit for bit the same.
SECOND_WORLD = 100_000_000


@dataclass(frozen=True)
class Building:
    """Truth and geometry of one building.

    Args:
        seed: of the random generator.
        plan: floor plan with the rooms.
        mesh: all static geometry; z = 0 is the floor.
        people: all dynamic objects.
        obstacles: (K, 4) rectangles x0 y0 x1 y1 of objects on the floor.
        tops: surfaces of tables and similar, on which a sensor may stand.
    """

    seed: int
    plan: Plan
    mesh: Mesh
    people: list[Person]
    obstacles: Float64
    tops: list[Top]

    @property
    def second(self) -> bool:
        """Whether it belongs to the second world."""
        return self.seed >= SECOND_WORLD

    def room_at(self, x: float, y: float) -> Room | None:
        """The room that contains a place, without its walls; None outside."""
        for room in self.plan.rooms:
            x0, y0, x1, y1 = room.inner
            if x0 <= x <= x1 and y0 <= y <= y1:
                return room
        return None

    def clear(self, xy: Float64, margin: float) -> Bool:
        """(N, 2) places -> (N,) whether no obstacle is nearer than `margin` metres."""
        low, high = self.obstacles[:, :2], self.obstacles[:, 2:]
        gap = np.maximum(np.maximum(low - xy[:, None], xy[:, None] - high), 0)
        return np.asarray(np.all(np.hypot(gap[..., 0], gap[..., 1]) > margin, axis=1))

    def free_places(self, rng: Rng, count: int, margin: float = 0.35) -> Float64:
        """(count, 2) random places with space for a robot, more often in large rooms."""
        rooms = [room for room in self.plan.rooms if min(room.size) > 2 * margin + 0.1] or self.plan.rooms
        weight = np.sqrt([room.area for room in rooms])
        found = np.zeros((0, 2))
        for attempt in range(60):
            picks = rng.choice(len(rooms), 4 * count, p=weight / weight.sum())
            edge = min(margin, 0.5 * min(min(room.size) for room in rooms) - 0.01)
            low = np.array([rooms[i].inner[:2] for i in picks]) + edge
            high = np.array([rooms[i].inner[2:] for i in picks]) - edge
            places = rng.uniform(low, high)
            tolerance = margin if attempt < 30 else 0.1 if attempt < 50 else -1.0
            found = np.concatenate([found, places[self.clear(places, tolerance)]])
            if len(found) >= count:
                break
        return found[:count]


def make_building(seed: int) -> Building:
    """Generate the building of `seed`; deterministic."""
    rng = np.random.default_rng([seed, 1])
    second = seed >= SECOND_WORLD
    plan = make_plan(rng, second)
    shape, style = Shape(), Style(rng, second)
    spaces, tops = [], []
    for room in plan.rooms:
        space = Floorspace(room)
        RoomFabric(rng, shape, room, space, style).build()
        furnisher = Furnisher(rng, shape, room, space, style)
        furnisher.build()
        spaces.append(space)
        tops += furnisher.tops
    _outdoors(rng, shape, plan)
    people = _people(rng, spaces, second)
    obstacles = np.array([r for space in spaces for r in space.obstacles], dtype=np.float64).reshape(-1, 4)
    return Building(seed, plan, shape.finish(), people, obstacles, tops)


def _outdoors(rng: Rng, shape: Shape, plan: Plan) -> None:
    """Add the view from the windows: ground, sometimes a facade and shrubs; nothing for upper storeys."""
    if rng.random() < (0.2 if plan.second else 0.5):
        return
    low = np.min([room.cell[:2] for room in plan.rooms], axis=0)
    high = np.max([room.cell[2:] for room in plan.rooms], axis=0)
    far, z = 25.0, rng.uniform(-1.0, -0.05)
    (x0, y0), (x1, y1) = low - far, high + far
    ground = m.ASPHALT if rng.random() < 0.5 else m.GRASS
    shape.quad((x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z), "floor", ground)
    if rng.random() < 0.5:
        y = float(low[1]) - rng.uniform(3, 15)
        shape.quad((x0, y, z), (x1, y, z), (x1, y, 8), (x0, y, 8), "wall", m.paint(rng))
    for _ in range(int(rng.integers(0, 12))):
        beyond = rng.uniform(1.8, 8)
        y = float(rng.choice([low[1] - beyond, high[1] + beyond]))
        r = rng.uniform(0.4, 1.5, 3)
        shape.ellipsoid((rng.uniform(low[0] - 8, high[0] + 8), y, z + r[2]), r, "plant", m.LEAF, sides=7)
    if plan.second:
        for _ in range(int(rng.integers(0, 14))):
            beyond = rng.uniform(1.0, 12)
            x, y = rng.uniform(low - beyond, high + beyond)
            if rng.random() < 0.7:
                y = float(rng.choice([low[1] - beyond, high[1] + beyond]))
            if low[0] - 1 < x < high[0] + 1 and low[1] - 1 < y < high[1] + 1:
                continue
            shape.put((g.tree if rng.random() < 0.8 else g.car)(rng), (float(x), float(y), z), rng.uniform(0, 6))


def _people(rng: Rng, spaces: list[Floorspace], second: bool) -> list[Person]:
    """A few people in the free space of some rooms."""
    people = []
    crowd = float(rng.choice([0.0, 0.5, 1.2, 2.5], p=[0.1, 0.35, 0.4, 0.15]))
    for space in spaces:
        for _ in range(min(int(rng.poisson(crowd * (0.25 + space.room.area / 40))), 10)):
            person = _person(rng, space, second)
            if person:
                people.append(person)
    return people


def _person(rng: Rng, space: Floorspace, second: bool) -> Person | None:
    pose = str(rng.choice(["stand", "walk", "sit"], p=[0.4, 0.45, 0.15]))
    x0, y0, x1, y1 = space.room.inner
    if min(space.room.size) < 0.9:
        return None
    for _ in range(8):
        start, end = rng.uniform([x0 + 0.35, y0 + 0.35], [x1 - 0.35, y1 - 0.35], (2, 2))
        path = start + np.linspace(0, 1, 9)[:, None] * (end - start if pose == "walk" else 0)
        bodies = [(x - 0.3, y - 0.3, x + 0.3, y + 0.3) for x, y in path]
        if not any(touch(body, obstacle) for body in bodies for obstacle in space.obstacles):
            yaw, speed, phase = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.5), rng.uniform(0, 10)
            ends = (float(start[0]), float(start[1])), (float(end[0]), float(end[1]))
            person = Person(int(rng.integers(1 << 30)), pose, *ends, yaw, speed, phase)
            return person.varied(rng) if second else person
    return None

"""Floor plans: rectangular rooms that share walls, and the openings between them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from cmp_seg_ros.simulation.mesh import Rng

Span = tuple[float, float]
Point = tuple[float, float, float]
Rect = tuple[float, float, float, float]  # x0, y0, x1, y1

SIDES = ("south", "north", "west", "east")
HIGH = {"storehouse": (5.0, 12.0), "workshop": (3.0, 7.0), "shop": (2.6, 5.0), "garage": (2.4, 4.5)}  # metres


@dataclass
class Opening:
    """A hole in one side of a room.

    Args:
        low, high: interval along the wall (global x for south and north, global y for west and east).
        bottom, top: heights above the floor.
        kind: door, passage, window or glass (a window into another room).
        depth: metres of wall to go through.
        owner: whether this side carries the leaf, the frame and the pane (the other side has only the hole).
        outer: whether it leads outside.
    """

    low: float
    high: float
    bottom: float
    top: float
    kind: str
    depth: float
    owner: bool = True
    outer: bool = False


@dataclass(eq=False)
class Room:
    """A room: its cell of the plan reaches to the middle of its walls, `inner` to their faces."""

    cell: Rect
    kind: str
    inner: Rect = (0, 0, 0, 0)
    height: float = 2.6
    openings: dict[str, list[Opening]] = field(default_factory=lambda: {side: [] for side in SIDES})

    @property
    def size(self) -> tuple[float, float]:
        return self.inner[2] - self.inner[0], self.inner[3] - self.inner[1]

    @property
    def area(self) -> float:
        return self.size[0] * self.size[1]

    @property
    def lengthwise(self) -> bool:
        """Whether the longer axis is x."""
        return self.size[0] > self.size[1]

    def axes(self, along_x: bool) -> tuple[Span, Span, Callable[[float, float, float], Point]]:
        """Intervals of the room along x and y, or y and x; and (x, y, z) by such coordinates."""
        x0, y0, x1, y1 = self.inner
        if along_x:
            return (x0, x1), (y0, y1), lambda a, b, z: (a, b, z)
        return (y0, y1), (x0, x1), lambda a, b, z: (b, a, z)

    def side_span(self, side: str) -> tuple[float, float]:
        """Interval of the inner face along the wall."""
        x0, y0, x1, y1 = self.inner
        return (x0, x1) if side in ("south", "north") else (y0, y1)

    def free_span(self, side: str, low: float, high: float, margin: float = 0.1) -> bool:
        """Whether no opening of that side touches the interval."""
        return all(o.high + margin <= low or o.low - margin >= high for o in self.openings[side])


@dataclass
class Plan:
    """Rooms, the thickness of walls, and which stretches of each side face outside."""

    kind: str
    rooms: list[Room]
    thickness: float
    outside: list[tuple[int, str, float, float]]  # room, side, low, high
    second: bool = False  # of the second world, see building.py


def _cut(rng: Rng, low: float, high: float, smallest: float, largest: float) -> list[float]:
    """Random cuts of an interval into stretches between `smallest` and `largest`, as far as that is possible."""
    cuts = [low]
    while high - cuts[-1] > largest:
        step = rng.uniform(smallest, largest)
        if high - (cuts[-1] + step) < smallest:
            break
        cuts.append(cuts[-1] + step)
    return [*cuts, high]


def _split(rng: Rng, rect: Rect, smallest: float, area: float) -> list[Rect]:
    """Binary partition into rooms of about `area`."""
    x0, y0, x1, y1 = rect
    w, d = x1 - x0, y1 - y0
    if max(w, d) < 2 * smallest or (w * d < area * rng.uniform(0.8, 2.0) and max(w, d) < 3.5 * min(w, d)):
        return [rect]
    share = rng.uniform(0.35, 0.65)
    if w > d:
        x = min(max(x0 + share * w, x0 + smallest), x1 - smallest)
        halves = [(x0, y0, x, y1), (x, y0, x1, y1)]
    else:
        y = min(max(y0 + share * d, y0 + smallest), y1 - smallest)
        halves = [(x0, y0, x1, y), (x0, y, x1, y1)]
    return [room for half in halves for room in _split(rng, half, smallest, area)]


def _kind_of(rng: Rng, building: str, rect: Rect) -> str:
    area = (rect[2] - rect[0]) * (rect[3] - rect[1])
    if building == "apartment":
        if area < 5:
            return str(rng.choice(["bathroom", "storage", "corridor"]))
        return str(rng.choice(["living", "bedroom", "kitchen", "office", "living", "bedroom"]))
    if area < 6:
        return str(rng.choice(["storage", "bathroom", "office"]))
    if area > 45:
        return str(rng.choice(["lab", "classroom", "office", "meeting", "lobby"]))
    return str(rng.choice(["office", "office", "office", "meeting", "lab", "lab", "storage", "kitchen", "living"]))


def _corridor_plan(rng: Rng, length: float, depth: float) -> list[tuple[Rect, str]]:
    """A corridor along x with rooms on one or both sides; sometimes a second corridor crosses it."""
    width = rng.uniform(1.3, 3.2)
    below = rng.uniform(0.3, 0.6) * (depth - width) if rng.random() < 0.85 else 0.0
    above = depth - width - below
    cells: list[tuple[Rect, str]] = [((0, below, length, below + width), "corridor")]
    cross = rng.uniform(0.25, 0.75) * length if rng.random() < 0.35 and length > 14 else None
    wide = rng.uniform(1.4, 2.6)
    for low, high in ((0.0, below), (below + width, below + width + above)):
        if high - low < 2.0:
            continue
        stretches = [(0.0, length)]
        if cross is not None and rng.random() < 0.7:
            cells.append(((cross, low, cross + wide, high), "corridor"))
            stretches = [(0.0, cross), (cross + wide, length)]
        largest = rng.uniform(4, 11)
        for start, end in stretches:
            cuts = _cut(rng, start, end, 2.3, largest)
            cells += [((a, low, b, high), "") for a, b in pairwise(cuts)]
    return cells


def _second_world_cells(rng: Rng, kind: str) -> list[tuple[Rect, str]]:
    """A large room, sometimes divided, with small ones along one side."""
    w, d = (float(v) for v in rng.uniform(*{"works": ((9, 7), (35, 20)), "flat": ((7, 5), (16, 11))}[kind]))
    if kind == "flat":
        return [(rect, "") for rect in _split(rng, (0, 0, w, d), 2.0, rng.uniform(12, 40))]
    use = str(rng.choice(["shop", "storehouse", "workshop", "garage", "lab"], p=[0.25, 0.3, 0.2, 0.1, 0.15]))
    cells: list[tuple[Rect, str]] = [((0, 0, w, d), use)]
    if w > 16 and rng.random() < 0.4:
        cut, other = rng.uniform(0.35, 0.65) * w, str(rng.choice([use, "workshop", "shop", "lab"]))
        cells = [((0, 0, cut, d), use), ((cut, 0, w, d), other)]
    if rng.random() < 0.6:
        deep, cuts = rng.uniform(2.5, 6), _cut(rng, 0, w, 2.5, 8)
        cells += [((a, d, b, d + deep), "") for a, b in pairwise(cuts)]
    return cells


def _cells(rng: Rng, kind: str) -> list[tuple[Rect, str]]:
    if kind == "corridor":
        return _corridor_plan(rng, rng.uniform(12, 42), rng.uniform(6, 17))
    if kind == "apartment":
        w, d = rng.uniform(5.5, 14), rng.uniform(4.5, 11)
        return [(rect, "") for rect in _split(rng, (0, 0, w, d), 1.8, rng.uniform(9, 24))]
    if kind == "lab":
        w, d = rng.uniform(7, 22), rng.uniform(5, 14)
        return [(rect, "") for rect in _split(rng, (0, 0, w, d), 3.0, rng.uniform(30, 110))]
    w, d = rng.uniform(9, 28), rng.uniform(7, 18)  # hall or lobby with rooms beside it
    cells: list[tuple[Rect, str]] = [((0, 0, w, d), kind)]
    if rng.random() < 0.8:
        deep = rng.uniform(2.5, 7)
        if rng.random() < 0.5:
            cells += [((x, y + d, a, b + d), k) for (x, y, a, b), k in _corridor_plan(rng, w, deep + 2.5)]
        else:
            cuts = _cut(rng, 0, w, 2.5, 8)
            cells += [((a, d, b, d + deep), "") for a, b in pairwise(cuts)]
    if rng.random() < 0.5:
        wide = rng.uniform(2.0, 6)
        cuts = _cut(rng, 0, d, 2.5, 8)
        cells += [((-wide, a, 0, b), str(rng.choice(["", "corridor"]))) for a, b in pairwise(cuts)]
    return cells


def _heights(rng: Rng, kind: str, rooms: list[Room]) -> None:
    usual = {
        "apartment": rng.uniform(2.3, 3.0),
        "corridor": rng.uniform(2.4, 3.6),
        "lab": rng.uniform(2.5, 4.2),
        "hall": rng.uniform(2.6, 3.6),
        "lobby": rng.uniform(2.6, 3.6),
        **({"works": rng.uniform(2.4, 3.5), "flat": rng.uniform(2.3, 3.2)} if kind in ("works", "flat") else {}),
    }[kind]
    for room in rooms:
        room.height = float(usual)
        if rng.random() < 0.3:
            room.height = float(np.clip(usual + rng.uniform(-0.4, 0.5), 2.25, 6))
        if room.kind in HIGH:
            room.height = rng.uniform(*HIGH[room.kind])
        elif room.kind in ("hall", "lobby"):
            room.height = rng.uniform(3.0, 6.0)
        elif room.area > 60 and rng.random() < 0.4:
            room.height = rng.uniform(2.8, 5.0)


class _Wall(NamedTuple):
    """Where the cells of two rooms touch: a side of each, and the interval along the wall."""

    rooms: tuple[Room, Room]
    sides: tuple[str, str]
    low: float
    high: float

    @property
    def ceiling(self) -> float:
        """Height of the lower room."""
        return min(room.height for room in self.rooms)


def _shared(first: Room, second: Room) -> _Wall | None:
    a, b = first.cell, second.cell
    for side_a, side_b, touch, axis in (
        ("east", "west", abs(a[2] - b[0]), 1),
        ("west", "east", abs(a[0] - b[2]), 1),
        ("north", "south", abs(a[3] - b[1]), 0),
        ("south", "north", abs(a[1] - b[3]), 0),
    ):
        low, high = max(a[axis], b[axis]), min(a[axis + 2], b[axis + 2])
        if touch < 1e-6 and high - low > 1e-6:
            return _Wall((first, second), (side_a, side_b), low, high)
    return None


def _connect(rng: Rng, plan: Plan) -> None:
    """Doors, passages and inner windows, so that every room can be reached."""
    shared = [wall for a, b in combinations(plan.rooms, 2) if (wall := _shared(a, b))]
    walls = [wall for wall in shared if wall.high - wall.low > plan.thickness + 1.0]
    rng.shuffle(walls)
    walls.sort(key=lambda wall: "corridor" not in [room.kind for room in wall.rooms])
    group = {room: number for number, room in enumerate(plan.rooms)}  # rooms that are connected have one number
    glassy = rng.random() < 0.25
    for wall in walls:
        a, b = wall.rooms
        corridor = "corridor" in (a.kind, b.kind)
        if group[a] != group[b] or rng.random() <= (0.5 if corridor else 0.2):
            for _ in range(1 + (rng.random() < 0.12) + 3 * (wall.high - wall.low > 15 and corridor)):
                _hole(rng, plan, wall)
            group = {room: group[b] if number == group[a] else number for room, number in group.items()}
        if glassy and corridor and rng.random() < 0.6:
            _inner_window(rng, plan.thickness, wall)


def _put(wall: _Wall, opening: Opening) -> bool:
    sides = list(zip(wall.rooms, wall.sides, strict=True))
    for room, side in sides:
        span = room.side_span(side)
        outside = opening.low < span[0] - 1e-6 or opening.high > span[1] + 1e-6
        if outside or not room.free_span(side, opening.low, opening.high, 0.25):
            return False
    for (room, side), owner in zip(sides, (True, False), strict=True):
        room.openings[side].append(replace(opening, owner=owner))
    return True


def _hole(rng: Rng, plan: Plan, wall: _Wall) -> None:
    t, ceiling = plan.thickness, wall.ceiling
    low, high = wall.low + t / 2, wall.high - t / 2
    both_corridors = all(room.kind == "corridor" for room in wall.rooms)
    wide_open = both_corridors or rng.random() < {"apartment": 0.25, "lobby": 0.3, "hall": 0.15}.get(plan.kind, 0.07)
    if wide_open and high - low > 1.1:
        whole = both_corridors or rng.random() < 0.4
        width = (high - low) - 0.02 if whole else rng.uniform(1.0, min(3.5, high - low))
        top = ceiling - 0.02 if rng.random() < 0.4 else rng.uniform(2.0, max(2.05, ceiling - 0.1))
        kind = "passage"
    else:
        widths = [rng.uniform(0.75, 1.05), rng.uniform(0.75, 1.05), rng.uniform(1.3, 2.0)]
        width = min(float(rng.choice(widths, p=[0.45, 0.4, 0.15])), high - low - 0.1)
        top, kind = rng.uniform(1.95, 2.25), "door"
        if rng.random() < 0.08:
            top = ceiling - 0.05
    top = min(top, ceiling - 0.02)
    for _ in range(6):
        where = rng.uniform(low, max(low + 1e-6, high - width))
        if rng.random() < 0.4:  # doors like corners
            where = low + 0.1 if rng.random() < 0.5 else high - width - 0.1
        if _put(wall, Opening(where, where + width, 0.0, top, kind, t)):
            return


def _inner_window(rng: Rng, t: float, wall: _Wall) -> None:
    low, high = wall.low, wall.high
    width = rng.uniform(0.6, max(0.7, min(4.0, high - low - 2 * t - 0.3)))
    bottom = float(rng.choice([0.03, 0.9, 1.2]))
    top = min(wall.ceiling - 0.05, rng.uniform(2.0, 2.6))
    for _ in range(4):
        where = rng.uniform(low + t, max(low + t + 1e-6, high - t - width))
        if where + width < high - t and _put(wall, Opening(where, where + width, bottom, top, "glass", t)):
            return


def _outside_stretches(plan: Plan) -> list[tuple[int, str, float, float]]:
    """What of each side touches no other room."""
    found = []
    for i, room in enumerate(plan.rooms):
        for side in SIDES:
            walls = [wall for other in plan.rooms if other is not room and (wall := _shared(room, other))]
            taken = sorted((wall.low, wall.high) for wall in walls if wall.sides[0] == side)
            low, high = room.side_span(side)
            at = low
            for a, b in [*taken, (high, high)]:
                if a - at > 0.6:
                    found.append((i, side, at, min(a, high)))
                at = max(at, b)
    return found


def _windows(rng: Rng, plan: Plan) -> None:
    """Windows in outer walls, in one style for the building; glass fronts in lobbies."""
    bottom, height = float(rng.choice([0.05, rng.uniform(0.4, 0.7), rng.uniform(0.8, 1.1)], p=[0.1, 0.25, 0.65])), 0.0
    share, ribbon = rng.uniform(0.2, 1.0), rng.random() < 0.25
    for i, side, low, high in plan.outside:
        room = plan.rooms[i]
        if rng.random() > share or room.kind in ("storage",):
            continue
        front = room.kind == "lobby" and rng.random() < 0.6
        sill = 0.03 if front else bottom
        height = rng.uniform(0.9, 1.7) if not front else 10.0
        top = min(sill + height, room.height - 0.08)
        if top - sill < 0.4:
            continue
        at = low + rng.uniform(0.15, 0.8)
        while at < high - 0.6:
            width = rng.uniform(1.2, 2.4) if ribbon or front else rng.uniform(0.6, 1.8)
            width = min(width, high - 0.15 - at)
            if width > 0.4 and room.free_span(side, at, at + width):
                room.openings[side].append(Opening(at, at + width, sill, top, "window", plan.thickness, outer=True))
            at += width + (rng.uniform(0.08, 0.2) if ribbon or front else rng.uniform(0.3, 2.5))
    if rng.random() < 0.5:  # an entrance
        i, side, low, high = plan.outside[int(rng.integers(len(plan.outside)))]
        width = rng.uniform(0.9, 1.8)
        if high - low > width + 0.3:
            at = rng.uniform(low + 0.1, high - width - 0.1)
            if plan.rooms[i].free_span(side, at, at + width):
                top = min(2.15, plan.rooms[i].height - 0.1)
                entrance = Opening(at, at + width, 0.0, top, "door", plan.thickness, outer=True)
                plan.rooms[i].openings[side].append(entrance)


def make_plan(rng: Rng, second: bool = False) -> Plan:
    """A random floor plan; in the second world sometimes with shops, storehouses, workshops and garages."""
    kind = str(rng.choice(["corridor", "apartment", "lab", "hall", "lobby"], p=[0.32, 0.24, 0.2, 0.1, 0.14]))
    if second:
        kind = str(rng.choice([kind, "works", "flat"], p=[0.35, 0.45, 0.2]))
    thickness = rng.uniform(0.08, 0.3)
    rooms = []
    for rect, name in (_second_world_cells if kind in ("works", "flat") else _cells)(rng, kind):
        x0, y0, x1, y1 = rect
        h = thickness / 2
        inner = (x0 + h, y0 + h, x1 - h, y1 - h)
        rooms.append(Room(rect, name or _kind_of(rng, "apartment" if kind == "flat" else kind, rect), inner))
    _heights(rng, kind, rooms)
    plan = Plan(kind, rooms, thickness, [], second)
    _connect(rng, plan)
    plan.outside = _outside_stretches(plan)
    _windows(rng, plan)
    return plan

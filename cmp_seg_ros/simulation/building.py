"""Procedural buildings: a floor plan made solid, furnished and peopled, all from one seed."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.simulation import furniture as f
from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation.layout import SIDES, Opening, Plan, Rect, Room, make_plan
from cmp_seg_ros.simulation.mesh import Material, Mesh, Shape
from cmp_seg_ros.simulation.people import Person

Rng = np.random.Generator

INWARD = {"south": (0, 1), "north": (0, -1), "west": (1, 0), "east": (-1, 0)}
# A wall item's back faces the wall: its +y looks inward.
YAW = {"south": 0.0, "north": np.pi, "west": -np.pi / 2, "east": np.pi / 2}


@dataclass
class Occupied:
    """What stands on the floor of one room: rectangles that nothing else may touch, with the height each reaches."""

    rects: list[Rect] = field(default_factory=list)

    def free(self, rect: Rect) -> bool:
        return all(rect[2] <= r[0] or rect[0] >= r[2] or rect[3] <= r[1] or rect[1] >= r[3] for r in self.rects)


@dataclass(frozen=True)
class Building:
    """Truth and geometry of one building.

    Args:
        seed: where it came from.
        plan: its rooms.
        mesh: all that stands still; z = 0 is the floor.
        people: all that moves.
        obstacles: (K, 4) rectangles x0 y0 x1 y1 of what stands on the floor.
    """

    seed: int
    plan: Plan
    mesh: Mesh
    people: list[Person]
    obstacles: npt.NDArray[np.float64]

    def clear(self, xy: npt.NDArray[np.floating], margin: float) -> npt.NDArray[np.bool_]:
        """(N, 2) places -> (N,) whether no furniture is nearer than `margin`."""
        if not len(self.obstacles):
            return np.ones(len(xy), dtype=bool)
        low, high = self.obstacles[:, :2], self.obstacles[:, 2:]
        gap = np.maximum(np.maximum(low - xy[:, None], xy[:, None] - high), 0)
        return (np.hypot(gap[..., 0], gap[..., 1]) > margin).all(axis=1)

    def free_places(self, rng: Rng, count: int, margin: float = 0.35) -> npt.NDArray[np.float64]:
        """(count, 2) random places with room for a robot, in big rooms more often than in small ones."""
        rooms = [room for room in self.plan.rooms if min(room.size) > 2 * margin + 0.1]
        weight = np.sqrt([room.area for room in rooms])
        found: list[npt.NDArray[np.float64]] = []
        for attempt in range(60):
            picks = rng.choice(len(rooms), 4 * count, p=weight / weight.sum())
            low = np.array([rooms[i].inner[:2] for i in picks]) + margin
            high = np.array([rooms[i].inner[2:] for i in picks]) - margin
            places = rng.uniform(low, high)
            found += list(places[self.clear(places, margin if attempt < 30 else 0.1)])
            if len(found) >= count:
                break
        else:
            found += list(rng.uniform(low, high))
        return np.array(found[:count])


def make_building(seed: int) -> Building:
    """The building of `seed`, always the same one."""
    rng = np.random.default_rng([seed, 1])
    plan = make_plan(rng)
    shape = Shape()
    occupied = [Occupied() for _ in plan.rooms]
    style = Style(rng)
    for room, taken in zip(plan.rooms, occupied, strict=True):
        RoomBuilder(rng, shape, plan, room, taken, style).build()
    _outdoors(rng, shape, plan)
    people = _people(rng, plan, occupied)
    rects = np.array([r for taken in occupied for r in taken.rects], dtype=np.float64).reshape(-1, 4)
    return Building(seed, plan, shape.finish(), people, rects)


class Style:
    """What the rooms of a building have in common."""

    def __init__(self, rng: Rng) -> None:
        self.wall, self.floor, self.ceiling = m.paint(rng), m.floor(rng), m.ceiling_paint(rng)
        self.door, self.door_frame = m.furniture(rng), m.one_of(rng, m.wood, m.lacquer, m.metal)
        self.window_frame = m.one_of(rng, m.lacquer, m.wood, m.metal)
        self.skirting = rng.random() < 0.6
        self.recess = float(rng.choice([0.0, rng.uniform(0, 0.12)]))
        self.architrave = float(rng.choice([0.0, rng.uniform(0.04, 0.1)]))
        self.glass_return = float(rng.uniform(0.0, 0.25))
        self.density = float(rng.uniform(0.5, 1.6))
        self.curtains = float(rng.choice([0.0, 0.5, 0.9]))
        self.blinds = float(rng.choice([0.0, 0.0, 0.6]))
        self.columns = rng.random() < 0.3
        self.pictures = float(rng.uniform(0, 1.2))
        self.radiators = rng.random() < 0.6
        self.glass = Material(m.GLASS.color, m.GLASS.reflectivity, 0.5, 1 - self.glass_return, "glass")


class Side:
    """One wall of a room as a plane of its own: s along the wall, z up, n into the room."""

    def __init__(self, room: Room, side: str) -> None:
        x0, y0, x1, y1 = room.inner
        self.along = 0 if side in ("south", "north") else 1
        self.at = {"south": y0, "north": y1, "west": x0, "east": x1}[side]
        self.low, self.high = room.side_span(side)
        self.inward = INWARD[side][1 - self.along]
        self.yaw = YAW[side]

    def point(self, s: float, n: float, z: float) -> tuple[float, float, float]:
        across = self.at + self.inward * n
        return (s, across, z) if self.along == 0 else (across, s, z)

    def quad(
        self,
        shape: Shape,
        s: tuple[float, float],
        z: tuple[float, float],
        label: str,
        material: Material,
        n: float = 0.0,
    ) -> None:
        if s[1] - s[0] > 1e-4 and z[1] - z[0] > 1e-4:
            corners = [
                self.point(s[0], n, z[0]),
                self.point(s[1], n, z[0]),
                self.point(s[1], n, z[1]),
                self.point(s[0], n, z[1]),
            ]
            shape.quad(*corners, label, material)

    def slab(
        self,
        shape: Shape,
        s: tuple[float, float],
        n: tuple[float, float],
        z: tuple[float, float],
        label: str,
        material: Material,
    ) -> None:
        a, b = np.array(self.point(s[0], n[0], z[0])), np.array(self.point(s[1], n[1], z[1]))
        shape.slab(np.minimum(a, b), np.maximum(a, b), label, material)

    def put(self, shape: Shape, item: Shape, s: float, n: float, z: float, turn: float = 0.0) -> None:
        """An item whose back is `n` from the wall's plane (its own y = 0 there)."""
        shape.put(item, self.point(s, n, z), self.yaw + turn)


class RoomBuilder:
    """Makes one room solid."""

    def __init__(self, rng: Rng, shape: Shape, plan: Plan, room: Room, taken: Occupied, style: Style) -> None:
        self.rng, self.shape, self.plan, self.room, self.taken, self.style = rng, shape, plan, room, taken, style
        own = rng.random() < 0.35
        self.wall = m.paint(rng) if own else style.wall
        self.floor = m.floor(rng) if own else style.floor
        self.ceiling = style.ceiling
        self.hung: dict[str, list[tuple[float, float]]] = {
            side: [] for side in SIDES
        }  # taken stretches above furniture

    def build(self) -> None:
        self._shell()
        for side in SIDES:
            wall = Side(self.room, side)
            for opening in self.room.openings[side]:
                self._reveal(wall, opening)
                if opening.kind == "door":
                    self._keep_clear(wall, opening)
                    if opening.owner:
                        self._door(wall, opening)
                elif opening.kind == "passage":
                    self._keep_clear(wall, opening)
                else:
                    if opening.owner:
                        self._window(wall, opening)
                    self._window_side(wall, opening)
        self._ceiling_things()
        self._columns()
        self._furnish()
        self._on_walls()
        self._rugs()

    def _shell(self) -> None:
        x0, y0, x1, y1 = self.room.inner
        h = self.room.height
        self.shape.quad((x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0), "floor", self.floor)
        self.shape.quad((x0, y0, h), (x1, y0, h), (x1, y1, h), (x0, y1, h), "ceiling", self.ceiling)
        for name in SIDES:
            side, wall = Side(self.room, name), self.wall
            if self.rng.random() < 0.08:
                wall = m.paint(self.rng)
            at = side.low
            for o in sorted(self.room.openings[name], key=lambda o: o.low):
                side.quad(self.shape, (at, o.low), (0, h), "wall", wall)
                side.quad(self.shape, (o.low, o.high), (0, o.bottom), "wall", wall)
                side.quad(self.shape, (o.low, o.high), (o.top, h), "wall", wall)
                if self.style.skirting and o.low - at > 0.05:
                    side.slab(self.shape, (at, o.low), (0, 0.015), (0, 0.08), "wall", wall)
                at = o.high
            side.quad(self.shape, (at, side.high), (0, h), "wall", wall)

    def _reveal(self, side: Side, o: Opening) -> None:
        """The inside of a hole, half of the wall's depth from each of its rooms (all of it in an outer wall)."""
        depth = o.depth if o.kind == "window" or (o.kind == "door" and self._outer(side, o)) else o.depth / 2
        label = "door" if o.kind == "door" else "wall"
        material = self.style.door_frame if o.kind == "door" else self.wall
        p = side.point
        for s in (o.low, o.high):
            self.shape.quad(
                p(s, 0, o.bottom), p(s, -depth, o.bottom), p(s, -depth, o.top), p(s, 0, o.top), label, material
            )
        top = (p(o.low, 0, o.top), p(o.high, 0, o.top), p(o.high, -depth, o.top), p(o.low, -depth, o.top))
        self.shape.quad(*top, label, material)
        sill = (p(o.low, 0, o.bottom), p(o.high, 0, o.bottom), p(o.high, -depth, o.bottom), p(o.low, -depth, o.bottom))
        self.shape.quad(*sill, "floor" if o.bottom < 0.02 else "window", self.floor if o.bottom < 0.02 else material)
        if o.kind == "door" and self.style.architrave:
            a, t = self.style.architrave, 0.015
            self._slab(side, (o.low - a, o.low), (0, t), (0, o.top + a), "door", material)
            self._slab(side, (o.high, o.high + a), (0, t), (0, o.top + a), "door", material)
            self._slab(side, (o.low, o.high), (0, t), (o.top, o.top + a), "door", material)

    def _slab(
        self,
        side: Side,
        s: tuple[float, float],
        n: tuple[float, float],
        z: tuple[float, float],
        label: str,
        material: Material,
    ) -> None:
        s = (max(s[0], side.low), min(s[1], side.high))
        z = (z[0], min(z[1], self.room.height - 0.005))
        if s[1] - s[0] > 0.01 and z[1] - z[0] > 0.01:
            side.slab(self.shape, s, n, z, label, material)

    def _outer(self, side: Side, o: Opening) -> bool:
        return o.owner and not any(
            room is not self.room
            and any(
                p is not o and p.kind == o.kind and p.low == o.low and p.high == o.high for p in room.openings[name]
            )
            for room in self.plan.rooms
            for name in SIDES
        )

    def _door(self, side: Side, o: Opening) -> None:
        """One or two leaves: shut, ajar or open, into this room."""
        rng, width = self.rng, o.high - o.low
        outer = self._outer(side, o)
        state = "shut" if outer or rng.random() < 0.35 else str(rng.choice(["open", "open", "ajar", "none"]))
        if state == "none":
            return
        leaves = [(o.low, 1, width / 2), (o.high, -1, width / 2)] if width > 1.25 else [
            [(o.low, 1, width), (o.high, -1, width)][int(rng.integers(2))]
        ]  # fmt: skip
        glass = rng.random() < 0.12
        material = self.style.glass if glass else (self.style.door if rng.random() < 0.8 else m.furniture(rng))
        for hinge, direction, leaf in leaves:
            angle = {"shut": 0.0, "ajar": rng.uniform(0.08, 0.7), "open": rng.uniform(1.1, 1.65)}[state]
            item, h = Shape(), o.top - 0.01
            item.slab((0.005, -0.04, 0.008), (leaf - 0.005, 0.0, h), "door", material)
            if glass:
                for z in (0.06, h - 0.06):
                    item.slab((0.005, -0.045, z - 0.05), (leaf - 0.005, 0.005, z + 0.05), "door", self.style.door_frame)
            elif rng.random() < 0.4:
                for z0, z1 in ((0.15, 0.95), (1.1, h - 0.15)):
                    item.slab((0.12, -0.045, z0), (leaf - 0.12, 0.006, z1), "door", material)
            for y in (-0.08, 0.04):
                item.box((leaf - 0.08, y, 1.02), (0.13, 0.02, 0.025), "door", m.CHROME)
                item.box((leaf - 0.03, y / 2, 1.02), (0.025, abs(y), 0.025), "door", m.CHROME)
            # in the wall's frame the leaf runs along +s from a left hinge, along -s from a right one
            recess = self.style.recess if state == "shut" and not outer else 0.0
            yaw = side.yaw if side.along == 0 else side.yaw + np.pi
            forward = np.cos(side.yaw) > 0.5 if side.along == 0 else np.sin(side.yaw) > 0.5
            self._put_leaf(side, item, hinge, direction, angle, -recess)
            del yaw, forward

    def _put_leaf(self, side: Side, item: Shape, hinge: float, direction: int, angle: float, n: float) -> None:
        """Set a leaf at its hinge; it runs along the wall and swings by `angle` into the room."""
        along = np.array([1.0, 0.0]) if side.along == 0 else np.array([0.0, 1.0])
        inward = np.array([0.0, side.inward]) if side.along == 0 else np.array([side.inward, 0.0])
        heading = direction * np.cos(angle) * along + np.sin(angle) * inward
        self.shape.put(item, side.point(hinge, n, 0.0), float(np.arctan2(heading[1], heading[0])))

    def _keep_clear(self, side: Side, o: Opening) -> None:
        reach = 1.0 if o.kind == "door" else 0.7
        a, b = side.point(o.low - 0.15, 0, 0), side.point(o.high + 0.15, reach, 0)
        self._reserve((min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1])), ghost=True)

    def _reserve(self, rect: Rect, ghost: bool = False) -> None:
        """Nothing else may stand there. A ghost is free for the robot."""
        (self._ghosts if ghost else self.taken.rects).append(rect)

    @property
    def _ghosts(self) -> list[Rect]:
        if not hasattr(self, "_ghost_list"):
            self._ghost_list: list[Rect] = []
        return self._ghost_list

    def _window(self, side: Side, o: Opening) -> None:
        """Frame, mullions and pane in the middle of the wall."""
        rng, frame = self.rng, self.style.window_frame
        deep = -min(0.08, o.depth / 2) if o.kind == "window" else -o.depth / 2
        w, t = float(rng.uniform(0.04, 0.08)), 0.03
        cuts = [
            o.low,
            *(np.linspace(o.low, o.high, max(1, round((o.high - o.low) / rng.uniform(0.7, 1.6))) + 1)[1:-1]),
            o.high,
        ]
        for s in cuts:
            side.slab(
                self.shape,
                (max(o.low, s - w / 2), min(o.high, s + w / 2)),
                (deep - t, deep + t),
                (o.bottom, o.top),
                "window",
                frame,
            )
        rows = (
            [o.bottom, o.top]
            if o.top - o.bottom < 1.8
            else [o.bottom, o.bottom + (o.top - o.bottom) * float(rng.uniform(0.25, 0.75)), o.top]
        )
        for z in rows:
            side.slab(
                self.shape,
                (o.low, o.high),
                (deep - t, deep + t),
                (max(o.bottom, z - w / 2), min(o.top, z + w / 2)),
                "window",
                frame,
            )
        side.quad(self.shape, (o.low, o.high), (o.bottom, o.top), "window", self.style.glass, deep)

    def _window_side(self, side: Side, o: Opening) -> None:
        """Sill, radiator, curtains and blinds."""
        rng = self.rng
        if o.kind != "window":
            return
        if o.bottom > 0.3 and rng.random() < 0.6:
            self._slab(
                side,
                (o.low - 0.05, o.high + 0.05),
                (-0.02, float(rng.uniform(0.03, 0.2))),
                (o.bottom - 0.03, o.bottom),
                "window",
                self.style.window_frame,
            )
        if o.bottom > 0.6 and self.style.radiators and rng.random() < 0.7:
            self._slab(
                side, (o.low + 0.05, o.high - 0.05), (0.03, 0.12), (0.12, o.bottom - 0.12), "appliance", m.WHITE_ENAMEL
            )
        if rng.random() < self.style.curtains:
            material = m.fabric(rng)
            rail = min(o.top + 0.15, self.room.height - 0.02)
            bottom = 0.02 if rng.random() < 0.6 else max(0.02, o.bottom - 0.15)
            width = o.high - o.low
            share = float(rng.choice([0.18, 0.3, 0.55]))
            for s0, s1 in ((o.low - 0.15, o.low + share * width), (o.high - share * width, o.high + 0.15)):
                self._curtain(side, max(s0, side.low + 0.01), min(s1, side.high - 0.01), bottom, rail, material)
        elif rng.random() < self.style.blinds:
            drop = float(rng.uniform(0.1, 1.0)) * (o.top - o.bottom)
            self._slab(side, (o.low, o.high), (0.01, 0.04), (o.top - drop, o.top + 0.05), "curtain", m.fabric(rng))

    def _curtain(self, side: Side, s0: float, s1: float, z0: float, z1: float, material: Material) -> None:
        if s1 - s0 < 0.1:
            return
        s = np.linspace(s0, s1, max(6, int((s1 - s0) / 0.04)))
        n = 0.08 + 0.03 * np.sin(s * float(self.rng.uniform(35, 70)))
        rows = [[side.point(float(a), float(b), z) for a, b in zip(s, n, strict=True)] for z in (z0, z1)]
        from cmp_seg_ros.simulation.mesh import grid_triangles

        self.shape.add(grid_triangles(np.array(rows)), "curtain", material)

    def _ceiling_things(self) -> None:
        """Lamps, beams, ducts."""
        rng, room, h = self.rng, self.room, self.room.height
        x0, y0, x1, y1 = room.inner
        w, d = room.size
        style = rng.random()
        step = float(rng.uniform(1.6, 3.2))
        xs = np.arange(x0 + step / 2, x1, step) if w > step else np.array([(x0 + x1) / 2])
        ys = np.arange(y0 + step / 2, y1, step) if d > step else np.array([(y0 + y1) / 2])
        if style < 0.55:  # flush panels or tubes
            size = (0.6, 0.6) if rng.random() < 0.5 else (1.2, 0.2)
            low = float(rng.uniform(0.005, 0.09))
            for x in xs:
                for y in ys:
                    sx, sy = min(size[0], w * 0.8) / 2, min(size[1], d * 0.8) / 2
                    self.shape.slab((x - sx, y - sy, h - low), (x + sx, y + sy, h - 0.001), "ceiling", m.LAMP_SHADE)
        elif style < 0.85 and h > 2.5:  # hanging
            drop = float(rng.uniform(0.3, min(1.2, h - 1.9)))
            long = rng.random() < 0.5
            for x in xs[:: max(1, len(xs) // 3)]:
                for y in ys[:: max(1, len(ys) // 2)]:
                    self.shape.tube((x, y, h - drop), (x, y, h), 0.01, "lamp", m.BLACK_PLASTIC, sides=4)
                    if long:
                        self.shape.box((x, y, h - drop), (min(1.2, w * 0.5), 0.1, 0.07), "lamp", m.LAMP_SHADE)
                    else:
                        self.shape.tube(
                            (x, y, h - drop - 0.2), (x, y, h - drop), 0.2, "lamp", m.LAMP_SHADE, end=0.05, sides=10
                        )
        beams = rng.random()
        if beams < 0.18 and h > 2.5:
            deep, thick = float(rng.uniform(0.12, min(0.5, h - 2.2))), float(rng.uniform(0.1, 0.35))
            material = m.wood(rng) if rng.random() < 0.3 else self.wall
            if w > d:
                for x in np.arange(x0 + 1, x1 - 0.3, float(rng.uniform(1.2, 4))):
                    self.shape.slab((x, y0, h - deep), (x + thick, y1, h), "ceiling", material)
            else:
                for y in np.arange(y0 + 1, y1 - 0.3, float(rng.uniform(1.2, 4))):
                    self.shape.slab((x0, y, h - deep), (x1, y + thick, h), "ceiling", material)
        elif beams < 0.3 and h > 2.7:
            self._ducts()

    def _ducts(self) -> None:
        rng, h = self.rng, self.room.height
        x0, y0, x1, y1 = self.room.inner
        for _ in range(int(rng.integers(1, 4))):
            r = float(rng.uniform(0.05, 0.25))
            z = h - r - float(rng.uniform(0.02, 0.3))
            material = m.one_of(rng, m.metal, m.lacquer)
            if self.room.size[0] > self.room.size[1]:
                y = float(rng.uniform(y0 + 0.3, y1 - 0.3))
                ends = (x0, y, z), (x1, y, z)
            else:
                x = float(rng.uniform(x0 + 0.3, x1 - 0.3))
                ends = (x, y0, z), (x, y1, z)
            self.shape.tube(*ends, r, "clutter", material, sides=10)

    def _columns(self) -> None:
        rng, room = self.rng, self.room
        x0, y0, x1, y1 = room.inner
        if not (room.kind in ("hall", "lobby") or (self.style.columns and room.area > 25)) or rng.random() < 0.4:
            return
        step, half, around = float(rng.uniform(3, 7)), float(rng.uniform(0.12, 0.4)), rng.random() < 0.4
        material = self.wall if rng.random() < 0.6 else m.paint(rng)
        for x in np.arange(x0 + step / 2, x1 - 0.5, step):
            for y in np.arange(y0 + step / 2, y1 - 0.5, step) if room.size[1] > step else [y0 + half]:
                rect = (x - half, y - half, x + half, y + half)
                if not self._free(rect):
                    continue
                if around:
                    self.shape.tube((x, y, 0), (x, y, room.height), half, "column", material, sides=14)
                else:
                    self.shape.slab((rect[0], rect[1], 0), (rect[2], rect[3], room.height), "column", material)
                self._reserve(rect)

    def _free(self, rect: Rect) -> bool:
        return self.taken.free(rect) and Occupied(self._ghosts).free(rect)

    def _furnish(self) -> None:
        rng, room = self.rng, self.room
        if rng.random() < 0.06:
            return  # an empty room
        density = self.style.density * float(rng.uniform(0.6, 1.4)) * (0.5 if room.area > 60 else 1.0)
        for maker, place, rate in f.FURNISHING[room.kind]:
            for _ in range(min(int(rng.poisson(rate * density * room.area / 10)), 30)):
                if place == "wall":
                    self._against_wall(maker)
                elif place == "corner":
                    self._in_corner(maker)
                elif place == "group":
                    self._group(maker)
                elif place == "rows":
                    self._rows(maker)
                    break
                else:
                    self._in_the_open(maker)

    def _against_wall(self, maker: f.Maker) -> None:
        rng = self.rng
        item = maker(rng)
        low, high = item.bounds()
        w, d, tall = float(high[0] - low[0]), float(high[1] - low[1]), float(high[2])
        if tall > self.room.height - 0.05:
            return
        for _ in range(8):
            side_name = SIDES[int(rng.integers(4))]
            side = Side(self.room, side_name)
            if side.high - side.low < w + 0.05:
                continue
            s = float(rng.uniform(side.low + w / 2 + 0.02, side.high - w / 2 - 0.02))
            if rng.random() < 0.35:
                s = side.low + w / 2 + 0.03 if rng.random() < 0.5 else side.high - w / 2 - 0.03
            blocked = [o for o in self.room.openings[side_name] if o.low < s + w / 2 and o.high > s - w / 2]
            if any(o.bottom < 0.3 or (tall > o.bottom + 0.2 and rng.random() < 0.85) for o in blocked):
                continue
            gap = float(rng.choice([0.01, rng.uniform(0.01, 0.12)]))
            a, b = side.point(s - w / 2, gap, 0), side.point(s + w / 2, gap + d, 0)
            rect = (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1]))
            if not self._inside(rect) or not self._free(rect):
                continue
            turn = float(rng.normal(0, 0.02))
            middle = float(low[0] + high[0]) / 2
            offset = -middle if side_name in ("south", "east") else middle
            del offset
            self._put_centred(item, side, s, gap - float(low[1]), middle, turn)
            self._reserve(rect)
            if tall > 0.9:
                self.hung[side_name].append((s - w / 2, s + w / 2))
            return

    def _put_centred(self, item: Shape, side: Side, s: float, n: float, middle: float, turn: float) -> None:
        """Like Side.put, with the item's own middle (along x) at s."""
        c, sn = np.cos(side.yaw), np.sin(side.yaw)
        x, y, z = side.point(s, n, 0.0)
        self.shape.put(item, (x - c * middle, y - sn * middle, z), side.yaw + turn)

    def _inside(self, rect: Rect, margin: float = 0.0) -> bool:
        x0, y0, x1, y1 = self.room.inner
        return rect[0] >= x0 + margin and rect[1] >= y0 + margin and rect[2] <= x1 - margin and rect[3] <= y1 - margin

    def _in_corner(self, maker: f.Maker) -> None:
        rng = self.rng
        item = maker(rng)
        low, high = item.bounds()
        r = float(max(-low[:2].min(), high[:2].max()))
        x0, y0, x1, y1 = self.room.inner
        if float(high[2]) > self.room.height - 0.05 or min(self.room.size) < 2 * r + 0.1:
            return
        for _ in range(4):
            x = x0 + r + 0.02 if rng.random() < 0.5 else x1 - r - 0.02
            y = y0 + r + 0.02 if rng.random() < 0.5 else y1 - r - 0.02
            if rng.random() < 0.4:
                x, y = (
                    (float(rng.uniform(x0 + r, x1 - r)), y)
                    if rng.random() < 0.5
                    else (x, float(rng.uniform(y0 + r, y1 - r)))
                )
            rect = (x - r, y - r, x + r, y + r)
            if self._free(rect) and self._inside(rect):
                self.shape.put(item, (x, y, 0), float(rng.uniform(0, 2 * np.pi)))
                self._reserve(rect)
                return

    def _in_the_open(self, maker: f.Maker) -> None:
        rng = self.rng
        item = maker(rng)
        quarter = float(rng.integers(4)) * np.pi / 2
        yaw = quarter + float(rng.normal(0, 0.1)) if rng.random() < 0.7 else float(rng.uniform(0, 2 * np.pi))
        self._place(item, yaw)

    def _place(self, item: Shape, yaw: float, center: tuple[float, float] | None = None, keep: float = 0.0) -> bool:
        rng = self.rng
        low, high = item.bounds()
        if float(high[2]) > self.room.height - 0.05:
            return False
        corners = np.array([[a, b] for a in (low[0], high[0]) for b in (low[1], high[1])])
        turn = np.array([[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]])
        box = corners @ turn.T
        a, b = box.min(axis=0), box.max(axis=0)
        x0, y0, x1, y1 = self.room.inner
        for _ in range(6):
            if center is not None:
                x, y = center
            elif x1 - x0 < b[0] - a[0] + 0.1 or y1 - y0 < b[1] - a[1] + 0.1:
                return False
            else:
                x, y = float(rng.uniform(x0 - a[0], x1 - b[0])), float(rng.uniform(y0 - a[1], y1 - b[1]))
            rect = (x + float(a[0]) - keep, y + float(a[1]) - keep, x + float(b[0]) + keep, y + float(b[1]) + keep)
            if self._inside(rect) and self._free(rect):
                self.shape.put(item, (x, y, 0), yaw)
                self._reserve((rect[0] + keep, rect[1] + keep, rect[2] - keep, rect[3] - keep))
                return True
            if center is not None:
                return False
        return False

    def _group(self, maker: f.Maker) -> None:
        """A table with chairs around it."""
        rng = self.rng
        group = maker(rng)
        low, high = group.bounds()
        if float(high[2]) > 0.6:
            count = int(rng.integers(2, 9))
            seat_seed = int(rng.integers(1 << 30))
            w, d = float(high[0]), float(high[1])
            for i in range(count):
                seat = f.chair(np.random.default_rng(seat_seed))
                along = (
                    float(rng.uniform(-w * 0.8, w * 0.8)) if count < 5 else (i // 2 + 0.5) * 4 * w / max(count, 2) - w
                )
                out = float(rng.uniform(0.05, 0.4))
                sign = 1 if i % 2 else -1
                yaw = (np.pi if sign > 0 else 0.0) + float(rng.normal(0, 0.35))
                group.put(seat, (along, sign * (d + out), 0), yaw)
        self._place(group, float(rng.choice([0, np.pi / 2])) + float(rng.normal(0, 0.03)))

    def _rows(self, maker: f.Maker) -> None:
        """Rows of equal tables with chairs, as in a classroom."""
        rng, seed = self.rng, int(self.rng.integers(1 << 30))
        x0, y0, x1, y1 = self.room.inner
        pitch, step, yaw = float(rng.uniform(1.3, 1.8)), float(rng.uniform(1.5, 2.4)), float(rng.choice([0, np.pi / 2]))
        if yaw:
            pitch, step = step, pitch
        for x in np.arange(x0 + 1.2, x1 - 0.9, step):
            for y in np.arange(y0 + 1.2, y1 - 0.9, pitch):
                item = Shape()
                w, h = 1.2, 0.74
                material = m.wood(np.random.default_rng(seed))
                item.box((0, 0, h), (w, 0.6, 0.03), "table", material)
                for sx in (-1, 1):
                    for sy in (-1, 1):
                        item.tube((sx * 0.55, sy * 0.25, 0), (sx * 0.55, sy * 0.25, h), 0.02, "table", m.STEEL, sides=5)
                for sx in (-0.3, 0.3):
                    if rng.random() < 0.85:
                        item.put(
                            f.chair(np.random.default_rng(seed + 1)),
                            (sx, 0.45 + float(rng.uniform(0, 0.25)), 0),
                            np.pi + float(rng.normal(0, 0.2)),
                        )
                self._place(item, yaw, (float(x), float(y)))

    def _on_walls(self) -> None:
        """Boards, pictures, screens, shelves, switches, pipes, pilasters."""
        rng, h = self.rng, self.room.height
        rate = {"classroom": 1.5, "meeting": 1.3, "office": 1.0, "living": 1.2, "corridor": 0.8}.get(
            self.room.kind, 0.5
        )
        for name in SIDES:
            side = Side(self.room, name)
            length = side.high - side.low
            for _ in range(int(rng.poisson(self.style.pictures * rate * length / 4))):
                kind = rng.random()
                if kind < 0.35:
                    w, tall, z, deep, label = (
                        rng.uniform(1.0, 3.5),
                        rng.uniform(0.8, 1.3),
                        0.9,
                        rng.uniform(0.01, 0.04),
                        "board",
                    )
                    material = m.WHITE_ENAMEL if rng.random() < 0.7 else m.lacquer(rng)
                elif kind < 0.75:
                    w, tall, z, deep, label = (
                        rng.uniform(0.2, 1.2),
                        rng.uniform(0.25, 0.9),
                        rng.uniform(1.1, 1.5),
                        rng.uniform(0.005, 0.04),
                        "board",
                    )
                    material = m.lacquer(rng) if rng.random() < 0.8 else m.SCREEN
                elif kind < 0.85:
                    w, tall, z, deep, label = (
                        rng.uniform(0.7, 1.6),
                        rng.uniform(0.45, 0.9),
                        rng.uniform(1.0, 1.4),
                        rng.uniform(0.04, 0.12),
                        "appliance",
                    )
                    material = m.SCREEN
                elif kind < 0.95:
                    w, tall, z, deep, label = (
                        rng.uniform(0.3, 1.2),
                        rng.uniform(0.3, 0.7),
                        rng.uniform(1.2, 1.6),
                        rng.uniform(0.15, 0.35),
                        "cabinet",
                    )
                    material = m.furniture(rng)
                else:
                    w, tall, z, deep, label = (
                        rng.uniform(0.25, 0.5),
                        rng.uniform(0.5, 0.9),
                        rng.uniform(0.6, 1.2),
                        rng.uniform(0.1, 0.25),
                        "appliance",
                    )
                    material = Material((0.8, 0.1, 0.1), 0.5) if rng.random() < 0.5 else m.WHITE_PLASTIC
                w, tall, z, deep = float(w), float(tall), float(z), float(deep)
                if length < w + 0.2 or z + tall > h - 0.1:
                    continue
                s = float(rng.uniform(side.low + 0.05, side.high - w - 0.05))
                clash = any(a < s + w and b > s for a, b in self.hung[name])
                if clash or not self.room.free_span(name, s, s + w, 0.12):
                    continue
                self._slab(side, (s, s + w), (0, deep), (z, z + tall), label, material)
                self.hung[name].append((s, s + w))
            if rng.random() < 0.12:
                s = float(rng.uniform(side.low + 0.1, side.high - 0.3)) if length > 0.6 else side.low
                if self.room.free_span(name, s, s + 0.2, 0.1):
                    point = side.point(s + 0.1, 0.07, 0)
                    self.shape.tube(
                        point, (point[0], point[1], h), 0.04, "clutter", m.one_of(rng, m.metal, m.lacquer), sides=8
                    )
            if self.style.columns and rng.random() < 0.3 and length > 4:
                wide, deep = float(rng.uniform(0.3, 0.6)), float(rng.uniform(0.08, 0.35))
                for s in np.arange(side.low + float(rng.uniform(1, 2)), side.high - 1, float(rng.uniform(2.5, 5))):
                    a, b = side.point(s, 0, 0), side.point(s + wide, deep, 0)
                    rect = (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1]))
                    clash = any(p < s + wide and q > s for p, q in self.hung[name])
                    if not clash and self.room.free_span(name, s, s + wide, 0.1) and self._free(rect):
                        self._slab(
                            side, (s, s + wide), (0, deep), (0, h), "column" if deep > 0.15 else "wall", self.wall
                        )
                        self._reserve(rect)

    def _rugs(self) -> None:
        rng = self.rng
        x0, y0, x1, y1 = self.room.inner
        if self.room.kind not in ("living", "bedroom", "lobby", "office") or rng.random() < 0.6:
            return
        w, d = min(float(rng.uniform(1, 3)), x1 - x0), min(float(rng.uniform(0.8, 2.5)), y1 - y0)
        x, y = float(rng.uniform(x0, x1 - w)), float(rng.uniform(y0, y1 - d))
        self.shape.slab((x, y, 0.001), (x + w, y + d, 0.012), "floor", m.fabric(rng))


def _outdoors(rng: Rng, shape: Shape, plan: Plan) -> None:
    """What is seen through the windows: ground, at times a facade and shrubs; nothing from an upper storey."""
    x0, y0 = min(r.cell[0] for r in plan.rooms), min(r.cell[1] for r in plan.rooms)
    x1, y1 = max(r.cell[2] for r in plan.rooms), max(r.cell[3] for r in plan.rooms)
    if rng.random() < 0.5:
        return
    far, z = 25.0, float(rng.uniform(-1.0, -0.05))
    ground = m.ASPHALT if rng.random() < 0.5 else m.GRASS
    shape.quad(
        (x0 - far, y0 - far, z),
        (x1 + far, y0 - far, z),
        (x1 + far, y1 + far, z),
        (x0 - far, y1 + far, z),
        "floor",
        ground,
    )
    if rng.random() < 0.5:
        gap = float(rng.uniform(3, 15))
        facade = m.paint(rng)
        shape.quad(
            (x0 - far, y0 - gap, z),
            (x1 + far, y0 - gap, z),
            (x1 + far, y0 - gap, 8),
            (x0 - far, y0 - gap, 8),
            "wall",
            facade,
        )
    for _ in range(int(rng.integers(0, 12))):
        x, y = (
            float(rng.uniform(x0 - 8, x1 + 8)),
            float(rng.choice([y0 - rng.uniform(1.5, 8), y1 + rng.uniform(1.5, 8)])),
        )
        r = rng.uniform(0.4, 1.5, 3)
        shape.ellipsoid((x, y, z + r[2]), r, "plant", m.LEAF, sides=7)


def _people(rng: Rng, plan: Plan, occupied: list[Occupied]) -> list[Person]:
    """A few people in the free space of some rooms."""
    people = []
    crowd = float(rng.choice([0.0, 0.4, 1.0, 2.0], p=[0.15, 0.35, 0.35, 0.15]))
    for room, taken in zip(plan.rooms, occupied, strict=True):
        for _ in range(min(int(rng.poisson(crowd * (0.25 + room.area / 40))), 10)):
            pose = str(rng.choice(["stand", "walk", "sit"], p=[0.4, 0.45, 0.15]))
            x0, y0, x1, y1 = room.inner
            if min(room.size) < 0.9:
                continue
            for _ in range(8):
                start, end = rng.uniform([x0 + 0.35, y0 + 0.35], [x1 - 0.35, y1 - 0.35], (2, 2))
                path = start + np.linspace(0, 1, 9)[:, None] * (end - start if pose == "walk" else 0)
                if all(taken.free((x - 0.3, y - 0.3, x + 0.3, y + 0.3)) for x, y in path):
                    person = Person(
                        int(rng.integers(1 << 30)), pose, (float(start[0]), float(start[1])), (float(end[0]), float(end[1])),
                        float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.5, 1.5)), float(rng.uniform(0, 10)),
                    )  # fmt: skip
                    people.append(person)
                    break
    return people

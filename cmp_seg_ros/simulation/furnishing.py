"""Places furniture: against walls, in corners, rows, islands and groups, without collisions or blocked doors."""

from dataclasses import dataclass
from itertools import product

import numpy as np

from cmp_seg_ros.simulation import furniture as f
from cmp_seg_ros.simulation import goods as g
from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation.layout import SIDES, Rect, Room
from cmp_seg_ros.simulation.mesh import Material, Rng, Shape
from cmp_seg_ros.simulation.walls import Floorspace, Side, Style

# Furniture of each kind of room: a maker of furniture.py, a placement (a method of Furnisher), the expected number per
# 10 m2 of floor.
FURNISHING = {
    "office": (
        "desk wall 1.4, desk island 0.25, cabinet wall 0.7, cabinet run 0.2, shelf wall 0.6, shelf run 0.15, "
        "plant corner 0.3, bin corner 0.4, clutter corner 0.4, appliance wall 0.15, chair free 0.4, "
        "tripod corner 0.2, assembly corner 0.2, divider free 0.15, assembly free 0.1"
    ),
    "meeting": (
        "table group 0.6, cabinet wall 0.3, plant corner 0.2, chair wall 0.6, bin corner 0.2, "
        "tripod corner 0.25, assembly corner 0.1"
    ),
    "living": (
        "sofa wall 0.8, sofa free 0.2, table free 0.3, table group 0.3, shelf wall 0.5, shelf run 0.1, "
        "cabinet wall 0.7, plant corner 0.4, tripod corner 0.4, clutter corner 0.3, assembly wall 0.2, "
        "chair free 0.2"
    ),
    "bedroom": (
        "bed wall 0.9, cabinet wall 1, cabinet run 0.3, desk wall 0.4, chair free 0.3, clutter corner 0.4, "
        "shelf wall 0.4, tripod corner 0.3, divider wall 0.1, assembly corner 0.2"
    ),
    "kitchen": (
        "kitchen wall 1.2, appliance wall 1, table group 0.6, bin corner 0.4, cabinet wall 0.4, "
        "clutter corner 0.2, assembly corner 0.2"
    ),
    "bathroom": ("bath wall 4, cabinet wall 0.8, bin corner 0.8, appliance wall 0.5"),
    "storage": (
        "rack wall 1, shelf wall 0.8, shelf run 0.4, clutter free 1.2, clutter corner 1, cabinet wall 0.6, "
        "trolley free 0.4, ladder wall 0.4, assembly free 0.6, assembly wall 0.6"
    ),
    "classroom": (
        "table rows 2.5, cabinet wall 0.3, shelf wall 0.2, bin corner 0.1, desk free 0.1, assembly corner 0.1"
    ),
    "lab": (
        "table wall 0.8, desk wall 0.6, desk island 0.12, machine free 0.3, machine wall 0.3, rack wall 0.3, "
        "shelf wall 0.3, cabinet run 0.1, tripod free 0.3, clutter free 0.3, chair free 0.6, "
        "cabinet wall 0.4, clutter corner 0.4, table free 0.2, trolley free 0.25, ladder wall 0.1, "
        "assembly free 0.4, assembly wall 0.3, divider free 0.1"
    ),
    "lobby": (
        "sofa free 0.15, sofa wall 0.15, table group 0.1, plant free 0.12, plant corner 0.1, "
        "tripod free 0.1, bin wall 0.1, cabinet wall 0.1, chair free 0.2, appliance wall 0.08, "
        "counter free 0.06, stairs wall 0.06, assembly free 0.06"
    ),
    "hall": (
        "rack free 0.1, rack run 0.05, machine free 0.12, clutter free 0.15, table free 0.08, "
        "clutter wall 0.15, cabinet wall 0.1, tripod free 0.05, trolley free 0.1, ladder wall 0.04, "
        "stairs wall 0.05, assembly free 0.12, assembly wall 0.1"
    ),
    "corridor": (
        "cabinet wall 0.2, cabinet run 0.06, plant wall 0.12, bin wall 0.2, chair wall 0.25, "
        "clutter wall 0.15, appliance wall 0.06, shelf wall 0.08, trolley wall 0.08, stairs wall 0.05, "
        "assembly wall 0.08, ladder wall 0.03"
    ),
}

# Added in rooms of the second world.
SECOND_WORLD = {
    "shop": "gondola aisles 1, tall_shelf wall 0.5, tall_shelf run 0.2, bar free 0.15, bar wall 0.1, model free 0.2",
    "storehouse": "pallet_rack aisles 1, pallet_rack run 0.1, tall_shelf wall 0.2, trolley free 0.1, clutter free 0.15",
    "workshop": (
        "workbench wall 0.5, workbench free 0.2, big_machine free 0.4, big_machine wall 0.3, tall_shelf wall 0.3"
    ),
    "garage": "car free 0.35, workbench wall 0.3, tall_shelf wall 0.3, clutter corner 0.3, trolley free 0.1",
    "lab": (
        "desk wall 0.6, workbench wall 0.4, workbench free 0.2, big_machine free 0.2, tall_shelf wall 0.3, bar wall 0.1"
    ),
    "office": "desk wall 0.8, tall_shelf wall 0.4, bar wall 0.1",
    "living": "seat wall 0.8, bar wall 0.1, tall_shelf wall 0.2",
    "kitchen": "bar wall 0.6, bar free 0.2, seat free 0.5",
    "storage": "tall_shelf wall 1, tall_shelf aisles 0.3, pallet_rack wall 0.2",
    "lobby": "seat free 0.2, bar free 0.1, seat wall 0.1",
    "hall": "pallet_rack aisles 0.2, gondola aisles 0.2, bar free 0.05",
    "corridor": "tall_shelf wall 0.1, seat wall 0.1",
}
ANYWHERE = "model wall 0.5, model free 0.25, model corner 0.3, thin free 0.35, thin corner 0.2, dummy free 0.15"


@dataclass(frozen=True)
class Top:
    """A free surface on furniture: centre (x, y, z), yaw, and half sizes."""

    x: float
    y: float
    z: float
    yaw: float
    half: tuple[float, float]


class Furnisher:
    """Furnishes one room."""

    def __init__(self, rng: Rng, shape: Shape, room: Room, space: Floorspace, style: Style) -> None:
        self.rng, self.shape, self.room, self.space, self.style = rng, shape, room, space, style
        self.tops: list[Top] = []

    def build(self) -> None:
        rng, room = self.rng, self.room
        if rng.random() > 0.05:  # few rooms are empty
            density = self.style.density * rng.uniform(0.5, 1.5) * (0.5 if room.area > 60 else 1.0)
            for entry in filter(None, FURNISHING.get(room.kind, "").split(",")):
                maker, place, rate = entry.split()
                for _ in range(min(int(rng.poisson(float(rate) * density * room.area / 10)), 30)):
                    getattr(self, f"_{place}")(getattr(f, maker))
                    if place == "rows":
                        break
        if self.style.second:
            self._second_world()
        self._on_walls()
        self._rug()

    def _second_world(self) -> None:
        rng, room = self.rng, self.room
        density = rng.uniform(0.3, 1.6) * (0.5 if room.area > 60 else 1.0)
        entries = f"{SECOND_WORLD[room.kind]}, {ANYWHERE}" if room.kind in SECOND_WORLD else ANYWHERE
        for entry in entries.split(","):
            maker, place, rate = entry.split()
            made = getattr(g, maker, None) or getattr(f, maker)
            if place == "aisles":
                if rng.random() < float(rate):
                    self._aisles(made)
                continue
            for _ in range(min(int(rng.poisson(float(rate) * density * room.area / 10)), 20)):
                getattr(self, f"_{place}")(made)
        for _ in range(int(rng.poisson(0.04 * room.area))):
            item = g.hung(rng)
            side = Side(room, SIDES[int(rng.integers(4))])
            if item is not None:
                self._hang_up(item, side)

    def _hang_up(self, item: Shape, side: Side) -> None:
        """Hang an item on a free stretch of wall, if it is not too high."""
        low, high = item.bounds()
        w = float(high[0] - low[0])
        if side.length < w + 0.2 or high[2] > self.room.height - 0.05:
            return
        s = self.rng.uniform(side.low + 0.05 + w / 2, side.high - w / 2 - 0.05)
        if self.space.wall_free(side.name, (s - w / 2, s + w / 2)):
            self.shape.put(item, side.point(s, 0.01 - float(low[1]), 0.0), side.yaw)
            self.space.hung[side.name].append((s - w / 2, s + w / 2))

    # -- places

    def _aisles(self, maker: f.Maker) -> None:
        """Rows of equal pieces, end to end, with aisles between the rows."""
        rng, seed = self.rng, int(self.rng.integers(1 << 30))
        low, high = maker(np.random.default_rng(seed)).bounds()
        w, d, tall = (float(v) for v in high - low)
        if tall > self.room.height - 0.05:
            return
        along_x = rng.random() < (0.75 if self.room.lengthwise else 0.25)
        (a0, a1), (b0, b1), at = self.room.axes(along_x)
        aisle, ends = rng.uniform(0.9, 3.0), rng.uniform(0.8, 2.5)
        same = rng.random() < 0.5
        for b in np.arange(b0 + rng.uniform(0.05, aisle) + d / 2, b1 - d / 2, d + aisle):
            if rng.random() < 0.1:
                continue
            for i, a in enumerate(np.arange(a0 + ends + w / 2, a1 - ends - w / 2 + 0.01, w + 0.005)):
                item = maker(np.random.default_rng(seed if same else [seed, i]))
                if same or np.allclose(item.bounds()[1][:2], high[:2], rtol=0.3):
                    self._set(item, 0.0 if along_x else np.pi / 2, at(float(a), float(b), 0)[:2])

    def _wall(self, maker: f.Maker) -> None:
        """At a random place along a wall, its back to the wall."""
        rng = self.rng
        item = maker(rng)
        for _ in range(8):
            side = Side(self.room, SIDES[int(rng.integers(4))])
            low, high = item.bounds()
            w = float(high[0] - low[0])
            if side.length < w + 0.1:
                continue
            s = rng.uniform(side.low + w / 2 + 0.02, side.high - w / 2 - 0.02)
            if rng.random() < 0.35:
                s = side.low + w / 2 + 0.03 if rng.random() < 0.5 else side.high - w / 2 - 0.03
            gap = float(rng.choice([0.01, rng.uniform(0.01, 0.12)]))
            if self._set_against(item, side, s, gap, rng.normal(0, 0.015)):
                return

    def _run(self, maker: f.Maker) -> None:
        """The same piece several times side by side along a wall."""
        rng, seed = self.rng, int(self.rng.integers(1 << 30))
        side = Side(self.room, SIDES[int(rng.integers(4))])
        low, high = maker(np.random.default_rng(seed)).bounds()
        w = float(high[0] - low[0]) + 0.01
        s = rng.uniform(side.low + w / 2, max(side.low + w / 2 + 1e-3, side.high - w / 2))
        if rng.random() < 0.5:
            s = side.low + w / 2 + 0.02
        for i in range(int(rng.integers(2, 9))):
            if s + i * w + w / 2 > side.high or not self._set_against(
                maker(np.random.default_rng(seed)), side, s + i * w, 0.02, 0.0
            ):
                break

    def _corner(self, maker: f.Maker) -> None:
        """In a corner or near a wall, with a random yaw."""
        rng = self.rng
        item = maker(rng)
        low, high = item.bounds()
        r = float(max(-low[:2].min(), high[:2].max()))
        x0, y0, x1, y1 = self.room.inner
        if min(self.room.size) < 2 * r + 0.1:
            return
        for _ in range(4):
            x = x0 + r + 0.02 if rng.random() < 0.5 else x1 - r - 0.02
            y = y0 + r + 0.02 if rng.random() < 0.5 else y1 - r - 0.02
            if rng.random() < 0.4:
                along_x = rng.random() < 0.5
                x, y = (rng.uniform(x0 + r, x1 - r), y) if along_x else (x, rng.uniform(y0 + r, y1 - r))
            if self._set(item, rng.uniform(0, 2 * np.pi), (x, y)):
                return

    def _free(self, maker: f.Maker) -> None:
        """Anywhere on the floor."""
        rng = self.rng
        quarter = float(rng.integers(4)) * np.pi / 2
        yaw = quarter + rng.normal(0, 0.1) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
        self._set_anywhere(maker(rng), yaw)

    def _group(self, maker: f.Maker) -> None:
        """A table with chairs around it."""
        rng = self.rng
        group = maker(rng)
        _, high = group.bounds()
        w, d, tall = (float(v) for v in high)
        if tall > 0.6:
            count, seed = int(rng.integers(2, 9)), int(rng.integers(1 << 30))
            for i in range(count):
                seat = f.chair(np.random.default_rng(seed))
                along = rng.uniform(-w * 0.8, w * 0.8) if count < 5 else (i // 2 + 0.5) * 4 * w / count - w
                sign = 1 if i % 2 else -1
                yaw = (np.pi if sign > 0 else 0.0) + rng.normal(0, 0.35)
                group.put(seat, (along, sign * (d + rng.uniform(0.05, 0.4)), 0), yaw)
        self._set_anywhere(group, float(rng.choice([0, np.pi / 2])) + rng.normal(0, 0.03))

    def _island(self, maker: f.Maker) -> None:
        """Desks back to back, sometimes with a screen between them."""
        rng, seed = self.rng, int(self.rng.integers(1 << 30))
        w = float(maker(np.random.default_rng(seed)).bounds()[1][0])
        island, columns = Shape(), int(rng.integers(1, 4))
        for i in range(columns):
            x = (i - (columns - 1) / 2) * (2 * min(w, 0.95) + 0.02)
            for back, yaw in ((0.45, 0.0), (-0.45, np.pi)):
                if rng.random() < 0.92:
                    island.put(maker(np.random.default_rng([seed, int(rng.integers(3))])), (x, back, 0), yaw)
        if rng.random() < 0.5:
            length = columns * 2 * min(w, 0.95)
            island.box((0, 0, 0.95), (length, 0.03, 0.5), "clutter", m.fabric(rng))
        if island.filled():  # it may have no desk: once in about a hundred buildings
            self._set_anywhere(island, float(rng.choice([0, np.pi / 2])))

    def _rows(self, maker: f.Maker) -> None:
        """Rows of equal tables with chairs, as in a classroom."""
        rng, seed = self.rng, int(self.rng.integers(1 << 30))
        x0, y0, x1, y1 = self.room.inner
        pitch, step = rng.uniform(1.3, 1.8), rng.uniform(1.5, 2.4)
        yaw = float(rng.choice([0, np.pi / 2]))
        if yaw:
            pitch, step = step, pitch
        top = m.wood(np.random.default_rng(seed))
        for x in np.arange(x0 + 1.2, x1 - 0.9, step):
            for y in np.arange(y0 + 1.2, y1 - 0.9, pitch):
                item = Shape()
                item.box((0, 0, 0.74), (1.2, 0.6, 0.03), "table", top)
                item.surface = (0.8, 0.3, 0.76)
                for leg in product((-0.55, 0.55), (-0.25, 0.25)):
                    item.tube((*leg, 0), (*leg, 0.74), 0.02, "table", m.STEEL, sides=5)
                for sx in (-0.3, 0.3):
                    if rng.random() < 0.85:
                        seat = f.chair(np.random.default_rng(seed + 1))
                        turn = np.pi + rng.normal(0, 0.2)
                        item.put(seat, (sx, 0.45 + rng.uniform(0, 0.25), 0), turn)
                self._set(item, yaw, (float(x), float(y)))

    # -- setting down

    def _set_against(self, item: Shape, side: Side, s: float, gap: float, turn: float) -> bool:
        """Place an item with its back to a wall, centred at s. False if it does not fit."""
        low, high = item.bounds()
        w, d, tall = (float(v) for v in high - low)
        if tall > self.room.height - 0.05:
            return False
        span = (s - w / 2, s + w / 2)
        for o in self.room.openings[side.name]:
            if o.low < span[1] and o.high > span[0]:
                blocks = o.bottom < 0.3 or (tall > o.bottom + 0.2 and self.rng.random() < 0.85)
                if blocks:
                    return False
        rect = side.footprint(span, (gap, gap + d))
        if not self.space.free(rect):
            return False
        middle = float(low[0] + high[0]) / 2
        x, y, _ = side.point(s, gap - float(low[1]), 0.0)
        self._drop(item, x - np.cos(side.yaw) * middle, y - np.sin(side.yaw) * middle, side.yaw + turn, rect)
        if tall > 0.9:
            self.space.hung[side.name].append(span)
        return True

    def _set(self, item: Shape, yaw: float, at: tuple[float, float]) -> bool:
        """Place an item at a given place. False if it does not fit."""
        low, high = _turned_bounds(item, yaw)
        rect = (at[0] + low[0], at[1] + low[1], at[0] + high[0], at[1] + high[1])
        if item.bounds()[1][2] > self.room.height - 0.05 or not self.space.free(rect):
            return False
        self._drop(item, at[0], at[1], yaw, rect)
        return True

    def _set_anywhere(self, item: Shape, yaw: float) -> bool:
        low, high = _turned_bounds(item, yaw)
        x0, y0, x1, y1 = self.room.inner
        if x1 - x0 < high[0] - low[0] + 0.1 or y1 - y0 < high[1] - low[1] + 0.1:
            return False
        places = self.rng.uniform([x0 - low[0], y0 - low[1]], [x1 - high[0], y1 - high[1]], (6, 2))
        return any(self._set(item, yaw, (float(x), float(y))) for x, y in places)

    def _drop(self, item: Shape, x: float, y: float, yaw: float, rect: Rect) -> None:
        self.shape.put(item, (x, y, 0), yaw)
        self.space.obstacles.append(rect)
        if item.surface:
            w, d, h = item.surface
            self.tops.append(Top(x, y, h, yaw, (w / 2, d / 2)))

    # -- walls and floor

    def _on_walls(self) -> None:
        """Add boards, pictures, screens, cupboards, boxes, pipes and pilasters to the walls."""
        rng, h = self.rng, self.room.height
        busy = {"classroom": 1.5, "meeting": 1.3, "office": 1.0, "living": 1.2, "corridor": 0.8}
        rate = self.style.pictures * busy.get(self.room.kind, 0.5)
        for name in SIDES:
            side = Side(self.room, name)
            for _ in range(int(rng.poisson(rate * side.length / 4))):
                self._hang(side)
            if rng.random() < 0.12 and side.length > 0.6:
                s = rng.uniform(side.low + 0.1, side.high - 0.3)
                if self.space.wall_free(name, (s, s + 0.2)):
                    x, y, _ = side.point(s + 0.1, 0.07, 0)
                    self.shape.tube((x, y, 0), (x, y, h), 0.04, "clutter", m.one_of(rng, m.metal, m.lacquer))
            if self.style.columns and rng.random() < 0.3 and side.length > 4:
                self._pilasters(side)

    def _hang(self, side: Side) -> None:
        """Hang one thing on a wall. Flat things are boards (flush), protruding ones are furniture."""
        rng = self.rng
        kinds = ["board", "picture", "screen", "mirror", "cupboard", "box"]
        kind = str(rng.choice(kinds, p=[0.3, 0.38, 0.1, 0.04, 0.12, 0.06]))
        low, high, material = {
            "board": ((1.0, 0.8, 0.85, 0.01), (3.5, 1.3, 0.95, 0.04), m.WHITE_ENAMEL),
            "picture": ((0.2, 0.25, 1.0, 0.004), (1.3, 1.0, 1.5, 0.04), m.lacquer(rng)),
            "screen": ((0.7, 0.45, 1.0, 0.03), (1.8, 1.0, 1.4, 0.09), m.SCREEN),
            "mirror": ((0.4, 0.6, 0.3, 0.01), (1.5, 1.5, 1.0, 0.02), m.MIRROR),
            "cupboard": ((0.3, 0.3, 1.2, 0.15), (1.6, 0.8, 1.6, 0.4), m.furniture(rng)),
            "box": ((0.2, 0.3, 0.5, 0.1), (0.6, 0.9, 1.3, 0.3), m.lacquer(rng)),
        }[kind]
        label = {"cupboard": "cabinet", "box": "appliance"}.get(kind, "board")
        w, tall, z, deep = (float(v) for v in rng.uniform(low, high))
        if kind == "board" and rng.random() < 0.3:
            material = m.lacquer(rng)
        tall = min(tall, self.room.height - 0.1 - z)
        if side.length < w + 0.2 or tall < 0.2:
            return
        s = rng.uniform(side.low + 0.05, side.high - w - 0.05)
        if self.space.wall_free(side.name, (s, s + w), 0.12):
            side.slab(self.shape, (s, s + w), (0, deep), (z, z + tall), label, material)
            self.space.hung[side.name].append((s, s + w))

    def _pilasters(self, side: Side) -> None:
        rng = self.rng
        wide, deep = rng.uniform(0.3, 0.6), rng.uniform(0.08, 0.35)
        material = m.paint(rng) if rng.random() < 0.3 else self.style.wall
        for s in np.arange(side.low + rng.uniform(1, 2), side.high - 1, rng.uniform(2.5, 5)):
            span = (float(s), float(s) + wide)
            rect = side.footprint(span, (0, deep))
            if self.space.wall_free(side.name, span) and self.space.free(rect):
                label = "column" if deep > 0.15 else "wall"
                side.slab(self.shape, span, (0, deep), (0, self.room.height), label, material)
                self.space.obstacles.append(rect)

    def _rug(self) -> None:
        rng = self.rng
        x0, y0, x1, y1 = self.room.inner
        if self.room.kind not in ("living", "bedroom", "lobby", "office") or rng.random() < 0.6:
            return
        w = min(rng.uniform(1, 3), 0.95 * (x1 - x0))
        d = min(rng.uniform(0.8, 2.5), 0.95 * (y1 - y0))
        x, y = rng.uniform(x0, x1 - w), rng.uniform(y0, y1 - d)
        material: Material = m.fabric(rng)
        self.shape.slab((x, y, 0.001), (x + w, y + d, 0.012), "floor", material)


def _turned_bounds(item: Shape, yaw: float) -> tuple[list[float], list[float]]:
    """Minimum and maximum (x, y) of the item's bounding box after rotation."""
    low, high = item.bounds()
    corners = np.array([[a, b] for a in (low[0], high[0]) for b in (low[1], high[1])], dtype=np.float64)
    c, s = np.cos(yaw), np.sin(yaw)
    box = corners @ np.array([[c, s], [-s, c]])
    return box.min(axis=0).tolist(), box.max(axis=0).tolist()

"""The shell of a room: floor, walls with doors and windows, ceiling with lamps and beams, columns."""

from itertools import pairwise

import numpy as np

from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation.layout import SIDES, Opening, Rect, Room, Span
from cmp_seg_ros.simulation.mesh import Material, Rng, Shape, grid_triangles

INWARD = {"south": 1, "north": -1, "west": 1, "east": -1}
YAW = {"south": 0.0, "north": np.pi, "west": -np.pi / 2, "east": np.pi / 2}  # turns +y to look into the room


class Style:
    """Properties shared by the rooms of a building."""

    def __init__(self, rng: Rng, second: bool = False) -> None:
        self.wall, self.floor, self.ceiling = m.paint(rng), m.floor(rng), m.ceiling_paint(rng)
        self.door, self.door_frame = m.furniture(rng), m.one_of(rng, m.wood, m.lacquer, m.metal)
        self.window_frame = m.one_of(rng, m.lacquer, m.wood, m.metal)
        self.skirting = rng.random() < 0.6
        self.recess = float(rng.choice([0.0, rng.uniform(0, 0.12)]))
        self.architrave = float(rng.choice([0.0, rng.uniform(0.04, 0.1)]))
        self.density = rng.uniform(0.4, 1.7)
        self.curtains = float(rng.choice([0.0, 0.4, 0.8]))
        self.blinds = float(rng.choice([0.0, 0.0, 0.6]))
        self.columns = rng.random() < 0.3
        self.pictures = rng.uniform(0, 1.4)
        self.radiators = rng.random() < 0.6
        self.raw_ceiling = rng.random() < 0.15
        self.irregular = float(rng.choice([0.0, 0.15, 0.5]))
        self.glass = m.glass(rng)
        self.second = second
        self.open = float(rng.choice([0.0, 0.2, 0.6])) if second else 0.0  # share of windows that stand open


class Side:
    """One wall of a room with its own frame: s along the wall (a global coordinate), n into the room, z up."""

    def __init__(self, room: Room, name: str) -> None:
        x0, y0, x1, y1 = room.inner
        self.name = name
        self.along = 0 if name in ("south", "north") else 1
        self.at = {"south": y0, "north": y1, "west": x0, "east": x1}[name]
        self.low, self.high = room.side_span(name)
        self.inward = INWARD[name]
        self.yaw = YAW[name]
        self.top = room.height

    @property
    def length(self) -> float:
        return self.high - self.low

    def point(self, s: float, n: float, z: float) -> tuple[float, float, float]:
        across = self.at + self.inward * n
        return (s, across, z) if self.along == 0 else (across, s, z)

    def footprint(self, s: Span, n: Span) -> Rect:
        a, b = self.point(s[0], n[0], 0), self.point(s[1], n[1], 0)
        return (min(a[0], b[0]), min(a[1], b[1]), max(a[0], b[0]), max(a[1], b[1]))

    def quad(self, shape: Shape, s: Span, z: Span, label: str, material: Material, n: float = 0.0) -> None:
        """Add a face parallel to the wall."""
        if s[1] - s[0] > 1e-4 and z[1] - z[0] > 1e-4:
            a, b = self.point(s[0], n, z[0]), self.point(s[1], n, z[0])
            shape.quad(a, b, self.point(s[1], n, z[1]), self.point(s[0], n, z[1]), label, material)

    def slab(self, shape: Shape, s: Span, n: Span, z: Span, label: str, material: Material) -> None:
        """Add a box on the wall, clipped to the room's corners and ceiling."""
        s, z = (max(s[0], self.low), min(s[1], self.high)), (z[0], min(z[1], self.top - 0.004))
        if s[1] - s[0] > 0.01 and z[1] - z[0] > 0.01:
            a, b = np.array(self.point(s[0], n[0], z[0])), np.array(self.point(s[1], n[1], z[1]))
            shape.slab(np.minimum(a, b), np.maximum(a, b), label, material)


class Floorspace:
    """Occupied parts of a room's floor: `obstacles`, and `kept_clear`, which stays free for robots and people."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self.obstacles: list[Rect] = []
        self.kept_clear: list[Rect] = []
        self.hung: dict[str, list[Span]] = {side: [] for side in SIDES}  # stretches of wall behind tall things

    def free(self, rect: Rect) -> bool:
        """Whether the rectangle is in the room, unoccupied, and not kept clear."""
        x0, y0, x1, y1 = self.room.inner
        inside = rect[0] >= x0 and rect[1] >= y0 and rect[2] <= x1 and rect[3] <= y1
        return inside and not any(touch(rect, other) for other in (*self.obstacles, *self.kept_clear))

    def wall_free(self, side: str, s: Span, margin: float = 0.1) -> bool:
        """Whether a stretch of wall has no opening and no furniture."""
        clash = any(a < s[1] and b > s[0] for a, b in self.hung[side])
        return not clash and self.room.free_span(side, s[0], s[1], margin)


def touch(a: Rect, b: Rect) -> bool:
    return a[2] > b[0] and a[0] < b[2] and a[3] > b[1] and a[1] < b[3]


class RoomFabric:
    """Builds the shell of one room into a shape."""

    def __init__(self, rng: Rng, shape: Shape, room: Room, space: Floorspace, style: Style) -> None:
        self.rng, self.shape, self.room, self.space, self.style = rng, shape, room, space, style
        own = rng.random() < 0.35
        self.wall = m.paint(rng) if own else style.wall
        self.floor = m.floor(rng) if own else style.floor

    def build(self) -> None:
        self._shell()
        for name in SIDES:
            side = Side(self.room, name)
            for opening in self.room.openings[name]:
                self._opening(side, opening)
        if self.rng.random() < self.style.irregular:
            self._irregular()
        self._ceiling()
        self._columns()

    def _shell(self) -> None:
        x0, y0, x1, y1 = self.room.inner
        h = self.room.height
        self.shape.quad((x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0), "floor", self.floor)
        for name in SIDES:
            side = Side(self.room, name)
            wall = m.paint(self.rng) if self.rng.random() < 0.08 else self.wall
            at = side.low
            for o in sorted(self.room.openings[name], key=lambda o: o.low):
                side.quad(self.shape, (at, o.low), (0, h), "wall", wall)
                side.quad(self.shape, (o.low, o.high), (0, o.bottom), "wall", wall)
                side.quad(self.shape, (o.low, o.high), (o.top, h), "wall", wall)
                if self.style.skirting:
                    side.slab(self.shape, (at, o.low), (0, 0.015), (0, 0.08), "wall", wall)
                at = o.high
            side.quad(self.shape, (at, side.high), (0, h), "wall", wall)

    # -- openings

    def _opening(self, side: Side, o: Opening) -> None:
        self._reveal(side, o)
        if o.kind in ("door", "passage"):
            reach = 1.0 if o.kind == "door" else 0.7
            self.space.kept_clear.append(side.footprint((o.low - 0.15, o.high + 0.15), (0, reach)))
        if o.kind == "door" and o.owner:
            self._door(side, o)
        if o.kind in ("window", "glass") and o.owner:
            self._window(side, o)
        if o.kind == "window":
            self._window_side(side, o)

    def _reveal(self, side: Side, o: Opening) -> None:
        """The reveal of an opening: half of the wall's depth from each room, all of it in an outer wall."""
        depth = o.depth if o.outer else o.depth / 2
        label, material = ("door", self.style.door_frame) if o.kind == "door" else ("wall", self.wall)
        p = side.point
        for s in (o.low, o.high):
            jamb = p(s, 0, o.bottom), p(s, -depth, o.bottom), p(s, -depth, o.top), p(s, 0, o.top)
            self.shape.quad(*jamb, label=label, material=material)
        for z in (o.bottom, o.top):
            face = p(o.low, 0, z), p(o.high, 0, z), p(o.high, -depth, z), p(o.low, -depth, z)
            if z == o.top:
                self.shape.quad(*face, label=label, material=material)
            elif z < 0.02:
                self.shape.quad(*face, label="floor", material=self.floor)
            else:
                self.shape.quad(*face, label="window", material=material)
        if o.kind == "door" and self.style.architrave:
            a, t = self.style.architrave, 0.015
            side.slab(self.shape, (o.low - a, o.low), (0, t), (0, o.top + a), "door", material)
            side.slab(self.shape, (o.high, o.high + a), (0, t), (0, o.top + a), "door", material)
            side.slab(self.shape, (o.low, o.high), (0, t), (o.top, o.top + a), "door", material)

    def _door(self, side: Side, o: Opening) -> None:
        """One or two leaves: shut, ajar or open into this room; or a lift door or sliding door."""
        rng, width, h = self.rng, o.high - o.low, o.top - 0.01
        state = "shut" if o.outer or rng.random() < 0.35 else str(rng.choice(["open", "open", "ajar", "none"]))
        if state == "none":
            return
        glass = rng.random() < 0.12
        material = self.style.glass if glass else (self.style.door if rng.random() < 0.8 else m.furniture(rng))
        if rng.random() < 0.06:  # sliding, along the wall's face
            shift = {"shut": 0.0, "ajar": 0.5 * width, "open": 0.95 * width}[state] * float(rng.choice([-1, 1]))
            side.slab(self.shape, (o.low + shift, o.high + shift), (0.01, 0.05), (0.01, h), "door", material)
            return
        recess = self.style.recess if state == "shut" and not o.outer else 0.0
        hinges = [(o.low, 1), (o.high, -1)]
        if width < 1.25:
            hinges = [hinges[int(rng.integers(2))]]
        for hinge, direction in hinges:
            angle = {"shut": 0.0, "ajar": rng.uniform(0.08, 0.7), "open": rng.uniform(1.1, 2.6)}[state]
            along = np.array([1.0, 0.0]) if side.along == 0 else np.array([0.0, 1.0])
            inward = along[::-1] * side.inward
            heading = direction * np.cos(angle) * along + np.sin(angle) * inward
            leaf = self._leaf(width / len(hinges), h, material, glass)
            self.shape.put(leaf, side.point(hinge, -recess, 0.0), float(np.arctan2(heading[1], heading[0])))

    def _leaf(self, width: float, height: float, material: Material, glass: bool) -> Shape:
        """A door's leaf from its hinge along +x, with panels and handles."""
        rng, leaf = self.rng, Shape()
        leaf.slab((0.005, -0.04, 0.008), (width - 0.005, 0.0, height), "door", material)
        if glass:
            for z in (0.06, height - 0.06):
                leaf.slab((0.005, -0.045, z - 0.05), (width - 0.005, 0.005, z + 0.05), "door", self.style.door_frame)
        elif rng.random() < 0.4:
            for z0, z1 in ((0.15, 0.95), (1.1, height - 0.15)):
                leaf.slab((0.12, -0.045, z0), (width - 0.12, 0.006, z1), "door", material)
        for y in (-0.08, 0.04):
            leaf.box((width - 0.08, y, 1.02), (0.13, 0.02, 0.025), "door", m.CHROME)
            leaf.box((width - 0.03, y / 2, 1.02), (0.025, abs(y), 0.025), "door", m.CHROME)
        return leaf

    def _window(self, side: Side, o: Opening) -> None:
        """Frame, mullions, transom and pane in the wall's depth."""
        rng, frame = self.rng, self.style.window_frame
        n = -min(0.08, o.depth / 2) if o.outer else -o.depth / 2
        w, t = rng.uniform(0.04, 0.08), 0.03
        panes = max(1, round((o.high - o.low) / rng.uniform(0.7, 1.6)))
        for s in np.linspace(o.low, o.high, panes + 1):
            span = (max(o.low, float(s) - w / 2), min(o.high, float(s) + w / 2))
            side.slab(self.shape, span, (n - t, n + t), (o.bottom, o.top), "window", frame)
        rows = [o.bottom, o.top]
        if o.top - o.bottom > 1.8:
            rows.append(o.bottom + (o.top - o.bottom) * rng.uniform(0.25, 0.75))
        for z in rows:
            span = (max(o.bottom, z - w / 2), min(o.top, z + w / 2))
            side.slab(self.shape, (o.low, o.high), (n - t, n + t), span, "window", frame)
        if not (self.style.open and rng.random() < self.style.open):
            side.quad(self.shape, (o.low, o.high), (o.bottom, o.top), "window", self.style.glass, n)

    def _window_side(self, side: Side, o: Opening) -> None:
        """Sill, radiator, curtains or blinds."""
        rng = self.rng
        if o.bottom > 0.3 and rng.random() < 0.6:
            n, z = (-0.02, rng.uniform(0.03, 0.2)), (o.bottom - 0.03, o.bottom)
            side.slab(self.shape, (o.low - 0.05, o.high + 0.05), n, z, "window", self.style.window_frame)
        if o.bottom > 0.6 and self.style.radiators and rng.random() < 0.7:
            z = (0.12, o.bottom - 0.12)
            side.slab(self.shape, (o.low + 0.05, o.high - 0.05), (0.03, 0.12), z, "appliance", m.WHITE_ENAMEL)
        if rng.random() < self.style.curtains:
            material, width = m.fabric(rng), o.high - o.low
            rail = min(o.top + 0.15, self.room.height - 0.02)
            bottom = 0.02 if rng.random() < 0.6 else max(0.02, o.bottom - 0.15)
            share = float(rng.choice([0.18, 0.3, 0.55], p=[0.5, 0.3, 0.2])) * width
            for span in ((o.low - 0.15, o.low + share), (o.high - share, o.high + 0.15)):
                inside = max(span[0], side.low + 0.01), min(span[1], side.high - 0.01)
                self._curtain(side, inside, (bottom, rail), material)
        elif rng.random() < self.style.blinds:
            drop = rng.uniform(0.1, 1.0) * (o.top - o.bottom)
            side.slab(self.shape, (o.low, o.high), (0.01, 0.04), (o.top - drop, o.top + 0.05), "curtain", m.fabric(rng))

    def _curtain(self, side: Side, s: Span, z: Span, material: Material) -> None:
        """A hanging sheet with folds."""
        if s[1] - s[0] < 0.1:
            return
        along = np.linspace(*s, max(6, int((s[1] - s[0]) / 0.04)))
        away = 0.08 + 0.03 * np.sin(along * self.rng.uniform(35, 70))
        rows = [[side.point(float(a), float(b), h) for a, b in zip(along, away, strict=True)] for h in z]
        self.shape.add(grid_triangles(np.array(rows)), "curtain", material)

    # -- deviations from a box

    def _irregular(self) -> None:
        """Cut and round corners, alcoves, short partition walls."""
        rng, h = self.rng, self.room.height
        x0, y0, x1, y1 = self.room.inner
        for _ in range(int(rng.integers(1, 4))):
            kind = rng.random()
            if kind < 0.5:
                a, b = (float(v) for v in rng.uniform(0.3, max(0.35, min(2.5, 0.35 * min(self.room.size))), 2))
                east, north = rng.random() < 0.5, rng.random() < 0.5
                cx, cy = (x1 if east else x0), (y1 if north else y0)
                dx, dy = (-a if east else a), (-b if north else b)
                s_ns = (min(cx, cx + dx), max(cx, cx + dx))
                s_we = (min(cy, cy + dy), max(cy, cy + dy))
                rect = (s_ns[0], s_we[0], s_ns[1], s_we[1])
                ns, we = ("north" if north else "south"), ("east" if east else "west")
                if not (self.space.free(rect) and self.space.wall_free(ns, s_ns) and self.space.wall_free(we, s_we)):
                    continue
                angle = np.linspace(0, np.pi / 2, 8 if rng.random() < 0.4 else 2)
                line = np.stack([cx + dx * (1 - np.sin(angle)), cy + dy * (1 - np.cos(angle))], axis=1)
                rows = np.stack([np.c_[line, np.zeros(len(line))], np.c_[line, np.full(len(line), h)]])
                self.shape.add(grid_triangles(rows), "wall", self.wall)
                self.space.hung[ns].append(s_ns)
                self.space.hung[we].append(s_we)
            else:
                side = Side(self.room, SIDES[int(rng.integers(4))])
                wide, deep = rng.uniform(0.4, 2.5), rng.uniform(0.15, 0.8)
                if kind > 0.8:  # a partition that divides the room
                    wide, deep = rng.uniform(0.08, 0.2), rng.uniform(0.5, 2.5)
                if side.length < wide + 1 or deep > 0.45 * min(self.room.size):
                    continue
                s0 = rng.uniform(side.low, side.high - wide)
                rect = side.footprint((s0, s0 + wide), (0, deep))
                if not (self.space.free(rect) and self.space.wall_free(side.name, (s0, s0 + wide), 0.15)):
                    continue
                side.slab(self.shape, (s0, s0 + wide), (0, deep), (0, h), "wall", self.wall)
                self.space.hung[side.name].append((s0, s0 + wide))
            self.space.obstacles.append(rect)

    # -- overhead

    def _ceiling(self) -> None:
        rng, room, h = self.rng, self.room, self.room.height
        x0, y0, x1, y1 = room.inner
        material = self.style.ceiling
        form = rng.random()
        if room.kind in ("hall", "storehouse") and form < 0.35:
            self._gable(material)
        else:
            self.shape.quad((x0, y0, h), (x1, y0, h), (x1, y1, h), (x0, y1, h), "ceiling", material)
            if form > 0.93 and h > 2.3:
                self._slope(material)
            elif form > 0.8 and h > 2.45:
                self._soffit(material)
        if self.style.raw_ceiling and h > 2.7:
            self._beams()
            for _ in range(int(rng.integers(1, 4))):
                self._ducts()
        elif rng.random() < 0.18 and h > 2.5:
            self._beams()
        elif rng.random() < 0.12 and h > 2.7:
            self._ducts()
        if room.kind in ("storehouse", "workshop") and h > 4 and rng.random() < 0.7:
            self._trusses()
        self._lamps()
        for _ in range(int(rng.poisson(room.area / 60))):  # projectors, ventilation, loudspeakers
            x, y = rng.uniform(x0 + 0.4, x1 - 0.4), rng.uniform(y0 + 0.4, y1 - 0.4)
            drop = float(rng.choice([0.03, 0.1, 0.35]))
            flush = drop < 0.05
            size = (rng.uniform(0.3, 0.9), rng.uniform(0.3, 0.9), 0.12 if not flush else drop)
            if min(room.size) > 1.5 and h - drop - 0.1 > 1.9:
                center = (x, y, h - (drop / 2 if flush else drop))
                self.shape.box(center, size, "ceiling" if flush else "appliance", m.WHITE_PLASTIC)

    def _gable(self, material: Material) -> None:
        """Two slopes that meet above the longer axis, with walls closing the ends."""
        along, across, at = self.room.axes(self.room.lengthwise)
        h, ridge = self.room.height, self.room.height + self.rng.uniform(0.5, 2.0)
        (a0, a1), middle = along, sum(across) / 2
        for far in across:
            self.shape.quad(at(a0, far, h), at(a1, far, h), at(a1, middle, ridge), at(a0, middle, ridge),
                            "ceiling", material)  # fmt: skip
        for a in along:
            end = [at(a, b, h) for b in across] + [at(a, middle, ridge)]
            self.shape.add(np.array([end], dtype=np.float32), "wall", self.wall)

    def _slope(self, material: Material) -> None:
        """A sloping ceiling along one side, as under a roof."""
        side = Side(self.room, SIDES[int(self.rng.integers(4))])
        if any(o.top > 1.5 for o in self.room.openings[side.name]):
            return
        knee, run, h = self.rng.uniform(1.0, 1.8), self.rng.uniform(0.6, 1.8), self.room.height
        run = min(run, 0.4 * min(self.room.size))
        across = {"south": ("west", "east"), "north": ("west", "east")}.get(side.name, ("south", "north"))
        corner = [side.point(s, n, 0) for s in (side.low, side.high) for n in (0.0, run)]
        for other in across:  # no door may end in the slope
            i = 1 if other in ("west", "east") else 0
            low, high = min(c[i] for c in corner), max(c[i] for c in corner)
            if not self.room.free_span(other, low, high):
                return
        p = side.point
        face = p(side.low, 0, knee), p(side.high, 0, knee), p(side.high, run, h), p(side.low, run, h)
        self.shape.quad(*face, label="ceiling", material=material)
        self.space.hung[side.name].append((side.low, side.high))

    def _soffit(self, material: Material) -> None:
        """A lowered strip of ceiling along one or more walls."""
        h, drop = self.room.height, self.rng.uniform(0.08, min(0.5, self.room.height - 2.2))
        for name in SIDES:
            if self.rng.random() < 0.4 and all(o.top < h - drop - 0.02 for o in self.room.openings[name]):
                side = Side(self.room, name)
                deep = self.rng.uniform(0.2, max(0.25, min(1.2, 0.35 * min(self.room.size))))
                side.slab(self.shape, (side.low, side.high), (0, deep), (h - drop, h), "ceiling", material)

    def _lamps(self) -> None:
        rng, room, h = self.rng, self.room, self.room.height
        x0, y0, x1, y1 = room.inner
        w, d = room.size
        step, style = rng.uniform(1.6, 3.2), rng.random()
        xs = np.arange(x0 + step / 2, x1, step) if w > step else np.array([(x0 + x1) / 2])
        ys = np.arange(y0 + step / 2, y1, step) if d > step else np.array([(y0 + y1) / 2])
        if style < 0.55:  # flush panels or tubes
            size = (0.6, 0.6) if rng.random() < 0.5 else (1.2, 0.2)
            thick = rng.uniform(0.005, 0.09)
            sx, sy = min(size[0], w * 0.8), min(size[1], d * 0.8)
            for x in xs:
                for y in ys:
                    self.shape.box((x, y, h - thick / 2), (sx, sy, thick), "ceiling", m.LAMP_SHADE)
        elif style < 0.85 and h > 2.5:  # hanging
            drop, long = rng.uniform(0.3, min(1.2, h - 1.9)), rng.random() < 0.5
            for x in xs[:: max(1, len(xs) // 3)]:
                for y in ys[:: max(1, len(ys) // 2)]:
                    self.shape.tube((x, y, h - drop), (x, y, h), 0.01, "lamp", m.BLACK_PLASTIC, sides=4)
                    if long:
                        self.shape.box((x, y, h - drop), (min(1.2, w * 0.5), 0.1, 0.07), "lamp", m.LAMP_SHADE)
                    else:
                        low = (x, y, h - drop - 0.2)
                        self.shape.tube(low, (x, y, h - drop), 0.2, "lamp", m.LAMP_SHADE, end=0.05, sides=10)

    def _beams(self) -> None:
        """Beams across the room, sometimes in both directions."""
        rng, h = self.rng, self.room.height
        deep, thick = rng.uniform(0.1, min(0.5, h - 2.2)), rng.uniform(0.08, 0.35)
        material = m.one_of(rng, m.wood, m.metal) if rng.random() < 0.3 else self.wall
        both, step = rng.random() < 0.2, rng.uniform(1.0, 4)
        for lengthwise in (True, False):
            if both or lengthwise == self.room.lengthwise:
                (a0, a1), (b0, b1), at = self.room.axes(lengthwise)
                for a in np.arange(a0 + step / 2, a1 - thick, step):
                    self.shape.slab(at(a, b0, h - deep), at(a + thick, b1, h), "ceiling", material)

    def _trusses(self) -> None:
        """Trusses of a roof: two chords, posts and diagonals, across the room."""
        rng, h = self.rng, self.room.height
        deep, r, material = rng.uniform(0.4, min(1.8, h - 3)), rng.uniform(0.03, 0.09), m.metal(rng)
        (a0, a1), (b0, b1), at = self.room.axes(self.room.lengthwise)
        nodes = np.linspace(b0, b1, max(3, int((b1 - b0) / rng.uniform(0.8, 2.5))))
        for a in np.arange(a0 + rng.uniform(0.5, 2), a1, rng.uniform(2.5, 6)).tolist():
            for z in (h - r, h - deep):
                self.shape.tube(at(a, b0, z), at(a, b1, z), r, "ceiling", material, sides=5)
            for i, (p, q) in enumerate(pairwise(nodes.tolist())):
                ends = (h - deep, h - r) if i % 2 else (h - r, h - deep)
                self.shape.tube(at(a, p, ends[0]), at(a, q, ends[1]), 0.7 * r, "ceiling", material, sides=4)

    def _ducts(self) -> None:
        """Pipes, ducts and cable trays under the ceiling, along the room."""
        rng, h = self.rng, self.room.height
        (a0, a1), (b0, b1), at = self.room.axes(self.room.lengthwise)
        for _ in range(int(rng.integers(1, 4))):
            r = rng.uniform(0.03, 0.25)
            z = h - r - rng.uniform(0.02, max(0.03, min(0.4, h - 2.4)))
            material, round_ = m.one_of(rng, m.metal, m.lacquer), rng.random() < 0.6
            b = rng.uniform(b0 + 0.3, max(b1 - 0.3, 0.31))
            start, end = at(a0, b, z), at(a1, b, z)
            if round_:
                self.shape.tube(start, end, r, "clutter", material, sides=10)
            else:
                spread = np.array(at(0, r, r * 0.6))
                self.shape.slab(np.array(start) - spread, np.array(end) + spread, "clutter", material)

    def _columns(self) -> None:
        rng, room = self.rng, self.room
        x0, y0, x1, y1 = room.inner
        if not (room.kind in ("hall", "lobby") or (self.style.columns and room.area > 25)) or rng.random() < 0.4:
            return
        step, half, round_ = rng.uniform(3, 7), rng.uniform(0.12, 0.4), rng.random() < 0.4
        material = self.wall if rng.random() < 0.6 else m.paint(rng)
        for x in np.arange(x0 + step / 2, x1 - 0.5, step):
            for y in np.arange(y0 + step / 2, y1 - 0.5, step) if room.size[1] > step else [y0 + half]:
                rect = (x - half, y - half, x + half, y + half)
                if not self.space.free(rect):
                    continue
                if round_:
                    self.shape.tube((x, y, 0), (x, y, room.height), half, "column", material, sides=14)
                else:
                    self.shape.slab((rect[0], rect[1], 0), (rect[2], rect[3], room.height), "column", material)
                self.space.obstacles.append(rect)

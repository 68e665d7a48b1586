"""Furniture: each maker returns a random shape that stands on z = 0, centred in x and y, its back towards -y."""

from collections.abc import Callable
from itertools import product

import numpy as np

from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation.mesh import Material, Rng, Shape

Maker = Callable[[Rng], Shape]

CORNERS = tuple(product((-1, 1), repeat=2))


def _legs(shape: Shape, rng: Rng, w: float, d: float, h: float, label: str, material: Material) -> None:
    """Four legs (round or square) or two side panels under a top of w x d at height h."""
    style = rng.random()
    if style < 0.2:
        for side in (-1, 1):
            shape.box((side * (w / 2 - 0.04), 0, h / 2), (0.03, d * 0.9, h), label, material)
        return
    inset, r = rng.uniform(0.02, 0.12), rng.uniform(0.012, 0.035)
    splay = rng.uniform(0, 0.06) if rng.random() < 0.3 else 0.0
    for sx, sy in CORNERS:
        x, y = sx * (w / 2 - inset), sy * (d / 2 - inset)
        if style < 0.6:
            shape.box((x, y, h / 2), (2 * r, 2 * r, h), label, material)
        else:
            shape.tube((x + sx * splay, y + sy * splay, 0), (x, y, h), r, label, material, sides=6)


def table(rng: Rng) -> Shape:
    """Rectangular or round, from coffee table to meeting table."""
    shape = Shape()
    top = m.GLASS if rng.random() < 0.05 else m.furniture(rng)
    heights = ((0.35, 0.5), (0.7, 0.78), (0.7, 0.78), (0.9, 1.1))
    h = float(rng.choice([rng.uniform(*span) for span in heights]))
    thick = rng.uniform(0.018, 0.05)
    if rng.random() < 0.25:
        radius = rng.uniform(0.3, 0.75)
        shape.tube((0, 0, h - thick), (0, 0, h), radius, "table", top, sides=14)
        leg = m.one_of(rng, m.wood, m.metal)
        shape.tube((0, 0, 0.02), (0, 0, h - thick), 0.04, "table", leg)
        shape.tube((0, 0, 0), (0, 0, 0.03), radius * 0.5, "table", leg, sides=10)
    else:
        w, d = rng.uniform(0.6, 2.2), rng.uniform(0.5, 1.0)
        shape.box((0, 0, h - thick / 2), (w, d, thick), "table", top)
        _legs(shape, rng, w, d, h - thick, "table", m.one_of(rng, m.wood, m.metal, m.lacquer))
        if rng.random() < 0.3:
            shape.box((0, -d / 2 + 0.08, h - 0.2), (w * 0.85, 0.02, 0.3), "table", top)
    if rng.random() < 0.5:
        _things_on(shape, rng, 0.5, 0.35, h)
    shape.surface = (0.4, 0.3, h)
    return shape


def _things_on(shape: Shape, rng: Rng, w: float, d: float, h: float) -> None:
    """Add books, cups, boxes, laptops on a surface of w x d, centred at the origin, at height h."""
    for _ in range(int(rng.integers(1, 6))):
        x, y = rng.uniform(-w / 2, w / 2), rng.uniform(-d / 2, d / 2)
        kind = rng.random()
        if kind < 0.35:
            size = rng.uniform([0.08, 0.08, 0.02], [0.32, 0.25, 0.25])
            shape.box((x, y, h + size[2] / 2), size, "clutter", m.one_of(rng, m.lacquer, m.fabric), rng.uniform(0, 3))
        elif kind < 0.6:
            r, tall = rng.uniform(0.03, 0.06), rng.uniform(0.08, 0.3)
            shape.tube((x, y, h), (x, y, h + tall), r, "clutter", m.lacquer(rng), sides=6)
        else:
            yaw = rng.uniform(-0.5, 0.5)
            shape.box((x, y, h + 0.01), (0.33, 0.23, 0.02), "clutter", m.BLACK_PLASTIC, yaw)
            shape.box((x, y - 0.12, h + 0.12), (0.33, 0.015, 0.22), "clutter", m.SCREEN, yaw, tilt=0.2)


def chair(rng: Rng) -> Shape:
    """Kitchen chair, swivel chair, stool or armchair."""
    shape, kind = Shape(), rng.random()
    seat_h = rng.uniform(0.42, 0.5)
    w, d = rng.uniform(0.4, 0.5), rng.uniform(0.4, 0.5)
    cover = m.one_of(rng, m.fabric, m.wood, m.lacquer)
    back_h = rng.uniform(0.75, 1.15)
    if kind < 0.45:
        leg = m.one_of(rng, m.wood, m.metal)
        shape.box((0, 0, seat_h - 0.02), (w, d, rng.uniform(0.02, 0.06)), "chair", cover)
        _legs(shape, rng, w, d, seat_h - 0.03, "chair", leg)
        if rng.random() < 0.9:
            low = seat_h if rng.random() < 0.4 else (seat_h + back_h) / 2
            y = -d / 2 + 0.02
            shape.box((0, y, (low + back_h) / 2), (w * 0.95, 0.03, back_h - low), "chair", cover, tilt=-0.12)
            for side in (-1, 1):
                place, size = (side * (w / 2 - 0.02), y, (seat_h + back_h) / 2), (0.03, 0.03, back_h - seat_h)
                shape.box(place, size, "chair", leg)
    elif kind < 0.85:  # swivel
        shape.box((0, 0, seat_h), (w, d, 0.08), "chair", cover)
        shape.tube((0, 0, 0.08), (0, 0, seat_h - 0.03), 0.03, "chair", m.BLACK_PLASTIC, sides=6)
        for angle in np.arange(5) * 2 * np.pi / 5:
            tip = (0.3 * np.cos(angle), 0.3 * np.sin(angle))
            shape.tube((0, 0, 0.1), (*tip, 0.06), 0.02, "chair", m.BLACK_PLASTIC, sides=4)
            shape.ellipsoid((*tip, 0.03), (0.03, 0.03, 0.03), "chair", m.BLACK_PLASTIC, sides=5)
        back = (w * 0.9, 0.06, back_h - seat_h - 0.1)
        shape.box((0, -d / 2, (seat_h + 0.12 + back_h) / 2), back, "chair", cover, tilt=-0.15)
        if rng.random() < 0.6:
            for side in (-1, 1):
                shape.box((side * (w / 2 + 0.03), 0, seat_h + 0.2), (0.05, 0.25, 0.03), "chair", m.BLACK_PLASTIC)
                shape.box((side * (w / 2 + 0.03), 0, seat_h + 0.1), (0.03, 0.04, 0.2), "chair", m.BLACK_PLASTIC)
    else:  # stool
        tall = rng.uniform(0.42, 0.8)
        shape.tube((0, 0, tall - 0.04), (0, 0, tall), 0.18, "chair", cover, sides=10)
        _legs(shape, rng, 0.34, 0.34, tall - 0.04, "chair", m.one_of(rng, m.wood, m.metal))
    return shape


def sofa(rng: Rng) -> Shape:
    """Armchair to corner sofa."""
    shape, cover = Shape(), m.fabric(rng)
    w = float(rng.choice([rng.uniform(0.75, 1.0), rng.uniform(1.4, 2.5)]))
    d, seat, back, arm = rng.uniform(0.75, 1.0), rng.uniform(0.38, 0.48), rng.uniform(0.7, 0.95), 0.18
    base = rng.uniform(0.02, 0.15)
    shape.slab((-w / 2, -d / 2, base), (w / 2, d / 2, seat), "sofa", cover)
    shape.slab((-w / 2, -d / 2, seat), (w / 2, -d / 2 + 0.22, back), "sofa", cover)
    for side in (-1, 1):
        x = side * (w / 2 - arm / 2)
        shape.box((x, 0, (base + seat + 0.2) / 2), (arm, d, seat + 0.2 - base), "sofa", cover)
        for sy in (-1, 1):
            shape.box((x, sy * (d / 2 - 0.06), base / 2), (0.05, 0.05, base), "sofa", m.BLACK_PLASTIC)
    for _ in range(int(rng.integers(0, 4))):
        x = rng.uniform(-w / 2 + 0.3, w / 2 - 0.3) if w > 0.7 else 0.0
        shape.ellipsoid((x, -d / 2 + 0.32, seat + 0.18), (0.22, 0.09, 0.2), "sofa", m.fabric(rng))
    return shape


def bed(rng: Rng) -> Shape:
    shape, frame, cover = Shape(), m.furniture(rng), m.fabric(rng)
    w, d, h = float(rng.choice([0.9, 1.0, 1.4, 1.6, 1.8])), rng.uniform(1.95, 2.15), rng.uniform(0.35, 0.65)
    low = float(rng.choice([0.0, 0.12, 0.2]))
    shape.slab((-w / 2, -d / 2, low), (w / 2, d / 2, h - 0.2), "bed", frame)
    shape.slab((-w / 2 + 0.02, -d / 2 + 0.05, h - 0.2), (w / 2 - 0.02, d / 2 - 0.02, h), "bed", cover)
    if rng.random() < 0.8:
        shape.slab((-w / 2, -d / 2 - 0.05, 0), (w / 2, -d / 2, rng.uniform(0.7, 1.2)), "bed", frame)
    for x in (-w / 4, w / 4) if w > 1.2 else (0.0,):
        shape.ellipsoid((x, -d / 2 + 0.3, h + 0.05), (0.3, 0.2, 0.1), "bed", m.fabric(rng))
    if rng.random() < 0.6:
        shape.ellipsoid((0, d * 0.1, h), (w / 2, d * 0.35, 0.08), "bed", cover)
    if low:
        _legs(shape, rng, w, d, low, "bed", frame)
    return shape


def cabinet(rng: Rng) -> Shape:
    """Chest, sideboard, wardrobe or locker: a closed front with doors or drawers."""
    shape, body = Shape(), m.one_of(rng, m.furniture, m.furniture, m.metal)
    w, d = rng.uniform(0.4, 2.0), rng.uniform(0.3, 0.65)
    h = float(rng.choice([rng.uniform(0.5, 0.95), rng.uniform(1.0, 1.5), rng.uniform(1.7, 2.3)]))
    foot = float(rng.choice([0.0, 0.05, 0.12]))
    shape.slab((-w / 2, -d / 2, foot), (w / 2, d / 2 - 0.02, h), "cabinet", body)
    if foot:
        shape.slab((-w / 2 + 0.04, -d / 2 + 0.04, 0), (w / 2 - 0.04, d / 2 - 0.06, foot), "cabinet", body)
    columns, rows = max(1, round(w / 0.5)), int(rng.integers(1, 5)) if h < 1.5 else 1
    front = body if rng.random() < 0.6 else m.furniture(rng)
    for i in range(columns):
        for j in range(rows):
            x0, z0 = -w / 2 + i * w / columns, foot + j * (h - foot) / rows
            end = (x0 + w / columns - 0.006, d / 2, z0 + (h - foot) / rows - 0.006)
            shape.slab((x0 + 0.006, d / 2 - 0.02, z0 + 0.006), end, "cabinet", front)
            handle = (x0 + w / columns * 0.85, d / 2 + 0.015, z0 + (h - foot) / rows / 2)
            shape.box(handle, (0.015, 0.03, 0.1), "cabinet", m.CHROME)
    if h < 1.5:
        shape.surface = (w * 0.6, d * 0.3, h)
    if h < 1.5 and rng.random() < 0.6:
        _things_on(shape, rng, w * 0.7, d * 0.6, h)
    elif h < 2.1 and rng.random() < 0.4:
        size = rng.uniform([0.25, 0.2, 0.15], [0.6, 0.4, 0.35])
        shape.box((rng.uniform(-0.1, 0.1), -0.02, h + size[2] / 2), size, "clutter", m.CARDBOARD)
    return shape


def shelf(rng: Rng) -> Shape:
    """Open shelves with books, binders and boxes."""
    shape, body = Shape(), m.one_of(rng, m.furniture, m.metal)
    w, d, h = rng.uniform(0.5, 2.0), rng.uniform(0.22, 0.5), rng.uniform(0.7, 2.4)
    boards = max(2, int(h / rng.uniform(0.3, 0.45)))
    posts = rng.random() < 0.3
    for side in (-1, 1):
        if posts:
            for sy in (-1, 1):
                shape.box((side * (w / 2 - 0.02), sy * (d / 2 - 0.02), h / 2), (0.04, 0.04, h), "shelf", body)
        else:
            shape.box((side * (w / 2 - 0.01), 0, h / 2), (0.02, d, h), "shelf", body)
    if not posts and rng.random() < 0.6:
        shape.box((0, -d / 2 + 0.005, h / 2), (w, 0.01, h), "shelf", body)
    fill = rng.uniform(0.2, 1.0)
    for i in range(boards):
        z = 0.05 + i * (h - 0.07) / (boards - 1)
        shape.box((0, 0, z), (w - 0.02, d, 0.02), "shelf", body)
        gap = (h - 0.07) / (boards - 1)
        x = -w / 2 + 0.04
        while i < boards - 1 and x < w / 2 - 0.1:
            length = rng.uniform(0.05, 0.4)
            if rng.random() < fill and x + length < w / 2 - 0.02:
                tall, deep = rng.uniform(0.4, 0.9) * gap, rng.uniform(0.5, 0.95) * d
                center = (x + length / 2, (deep - d) / 2 + 0.02, z + 0.01 + tall / 2)
                shape.box(center, (length, deep, tall), "shelf", m.one_of(rng, m.fabric, m.lacquer))
            x += length + float(rng.choice([0.005, 0.1]))
    return shape


def desk(rng: Rng) -> Shape:
    """A desk against the wall with monitors, drawers and things, and a chair in front."""
    shape, top = Shape(), m.furniture(rng)
    w, d, h = rng.uniform(1.1, 1.9), rng.uniform(0.6, 0.85), rng.uniform(0.7, 0.78)
    shape.box((0, 0, h - 0.015), (w, d, 0.03), "table", top)
    _legs(shape, rng, w, d, h - 0.03, "table", m.one_of(rng, m.metal, m.furniture))
    if rng.random() < 0.4:
        side = float(rng.choice([-1, 1]))
        shape.box((side * (w / 2 - 0.25), 0, 0.3), (0.42, 0.55, 0.56), "cabinet", m.furniture(rng))
    screens = int(rng.integers(0, 4))
    for i in range(screens):
        x = (i - (screens - 1) / 2) * 0.58
        size = (rng.uniform(0.45, 0.6), 0.03, rng.uniform(0.28, 0.36))
        z = h + 0.1 + size[2] / 2
        yaw = rng.normal(0, 0.15)
        shape.box((x, -d / 2 + 0.2, z), size, "appliance", m.SCREEN, yaw)
        shape.box((x, -d / 2 + 0.17, h + 0.08), (0.05, 0.03, 0.16), "appliance", m.BLACK_PLASTIC)
        shape.box((x, -d / 2 + 0.2, h + 0.01), (0.25, 0.2, 0.02), "appliance", m.BLACK_PLASTIC)
    if screens:
        shape.box((0, 0.05, h + 0.01), (0.44, 0.14, 0.02), "clutter", m.BLACK_PLASTIC)
    if rng.random() < 0.5:
        x = float(rng.choice([-1, 1])) * (w / 2 - 0.2)
        shape.box((x, -0.1, 0.25), (0.2, 0.45, 0.45), "appliance", m.BLACK_PLASTIC)
    if rng.random() < 0.7:
        _things_on(shape, rng, w * 0.8, d * 0.7, h)
    if rng.random() < 0.25:
        shape.box((0, -d / 2 - 0.02, rng.uniform(0.5, 0.7)), (w, 0.03, rng.uniform(0.9, 1.3)), "clutter", m.fabric(rng))
    shape.surface = (w * 0.7, d * 0.4, h)
    seat = chair(rng)
    shape.put(seat, (rng.normal(0, 0.2), d / 2 + rng.uniform(0.0, 0.45), 0), np.pi + rng.normal(0, 0.5))
    return shape


def appliance(rng: Rng) -> Shape:
    """Fridge, washing machine, printer, rack, vending machine, water dispenser."""
    shape = Shape()
    kind = rng.integers(5)
    w, d, h = [(0.6, 0.65, 1.8), (0.6, 0.6, 0.86), (0.6, 0.6, 1.1), (0.7, 0.9, 2.0), (0.34, 0.34, 1.1)][kind]
    scale = rng.uniform(0.85, 1.15, 3)
    w, d, h = float(w * scale[0]), float(d * scale[1]), float(h * scale[2])
    body = [m.WHITE_ENAMEL, m.WHITE_ENAMEL, m.WHITE_PLASTIC, m.lacquer(rng), m.WHITE_PLASTIC][kind]
    if rng.random() < 0.3:
        body = m.metal(rng)
    shape.slab((-w / 2, -d / 2, 0.02), (w / 2, d / 2, h), "appliance", body)
    if kind == 0:
        shape.box((w * 0.38, d / 2 + 0.02, h * 0.6), (0.02, 0.04, 0.4), "appliance", m.CHROME)
    elif kind == 1:
        shape.tube((0, d / 2, h * 0.5), (0, d / 2 + 0.03, h * 0.5), 0.2, "appliance", m.BLACK_PLASTIC, sides=12)
    elif kind == 2:
        shape.box((0, 0.05, h + 0.06), (w * 0.8, d * 0.7, 0.12), "appliance", m.BLACK_PLASTIC)
        shape.box((0, d / 2 + 0.1, h * 0.75), (w * 0.7, 0.2, 0.03), "appliance", m.WHITE_PLASTIC)
    elif kind == 4:
        shape.tube((0, 0, h), (0, 0, h + 0.35), 0.13, "appliance", m.GLASS, sides=10)
    return shape


def kitchen(rng: Rng) -> Shape:
    """A counter with sink and cupboards above."""
    shape, body, top = Shape(), m.furniture(rng), m.one_of(rng, m.wood, m.lacquer, m.metal)
    w, d = rng.uniform(1.5, 3.5), 0.62
    shape.slab((-w / 2, -d / 2, 0.1), (w / 2, d / 2 - 0.03, 0.88), "cabinet", body)
    shape.slab((-w / 2, -d / 2, 0.88), (w / 2, d / 2, 0.92), "cabinet", top)
    for x in np.arange(-w / 2 + 0.6, w / 2, 0.6):
        shape.box((x - 0.08, d / 2 - 0.01, 0.75), (0.12, 0.03, 0.015), "cabinet", m.CHROME)
    if rng.random() < 0.8:
        shape.slab((-w / 2, -d / 2, 1.4), (w / 2, -d / 2 + 0.34, rng.uniform(1.95, 2.2)), "cabinet", body)
    shape.tube((0, -0.2, 0.92), (0, -0.2, 1.2), 0.015, "appliance", m.CHROME, sides=6)
    shape.tube((0, -0.2, 1.2), (0, 0.02, 1.17), 0.012, "appliance", m.CHROME, sides=6)
    _things_on(shape, rng, w * 0.8, 0.3, 0.92)
    return shape


def plant(rng: Rng) -> Shape:
    shape = Shape()
    r, pot, h = rng.uniform(0.1, 0.25), rng.uniform(0.2, 0.5), rng.uniform(0.6, 2.0)
    shape.tube((0, 0, 0), (0, 0, pot), r * 0.75, "plant", m.lacquer(rng), end=r, sides=10)
    shape.tube((0, 0, pot), (0, 0, h * 0.7), 0.02, "plant", m.wood(rng), sides=5)
    for _ in range(int(rng.integers(8, 28))):
        base = np.array([0, 0, rng.uniform(pot, max(pot + 0.1, h * 0.75))])
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.45) * min(1.0, h)
        tip = base + np.array([reach * np.cos(angle), reach * np.sin(angle), rng.uniform(0.05, 0.45) * h * 0.6])
        side = np.array([-np.sin(angle), np.cos(angle), 0]) * rng.uniform(0.02, 0.08)
        middle = (base + tip) / 2 + np.array([0, 0, 0.05])
        shape.quad(base, middle + side, tip, middle - side, "plant", m.LEAF)
    return shape


def bin(rng: Rng) -> Shape:
    shape, r, h = Shape(), rng.uniform(0.12, 0.25), rng.uniform(0.25, 0.9)
    if rng.random() < 0.6:
        shape.tube((0, 0, 0), (0, 0, h), r * 0.85, "clutter", m.one_of(rng, m.lacquer, m.metal), end=r, sides=10)
    else:
        shape.slab((-r, -r, 0), (r, r, h), "clutter", m.lacquer(rng))
    return shape


def clutter(rng: Rng) -> Shape:
    """A pile of boxes, bags, buckets, cables."""
    shape = Shape()
    spread = rng.uniform(0.1, 0.45)
    for _ in range(int(rng.integers(1, 7))):
        x, y = (float(v) for v in rng.normal(0, spread, 2).clip(-0.6, 0.6))
        kind = rng.random()
        if kind < 0.55:
            size = rng.uniform([0.15, 0.15, 0.1], [0.6, 0.5, 0.5])
            material, yaw = m.package(rng), rng.uniform(0, np.pi)
            shape.box((x, y, size[2] / 2), size, "clutter", material, yaw)
            if rng.random() < 0.4:
                shape.box((x, y, size[2] * 1.4), size * 0.8, "clutter", m.CARDBOARD, yaw + 0.2)
        elif kind < 0.75:
            radii = rng.uniform([0.12, 0.12, 0.1], [0.3, 0.25, 0.3])
            shape.ellipsoid((x, y, radii[2] * 0.9), radii, "clutter", m.fabric(rng), rng.uniform(0, 3), sides=7)
        else:
            r, h = rng.uniform(0.06, 0.2), rng.uniform(0.15, 0.6)
            shape.tube((x, y, 0), (x, y, h), r, "clutter", m.lacquer(rng), end=r * rng.uniform(0.7, 1.2))
    return shape


def tripod(rng: Rng) -> Shape:
    """Tripod, easel, clothes stand or floor lamp."""
    shape, h = Shape(), rng.uniform(1.1, 1.9)
    dark = m.one_of(rng, m.metal, m.wood)
    kind = rng.random()
    label = "lamp" if kind < 0.4 else "clutter"
    if rng.random() < 0.6:
        for angle in np.arange(3) * 2 * np.pi / 3 + rng.uniform(0, 2):
            foot = (0.35 * np.cos(angle), 0.35 * np.sin(angle), 0)
            shape.tube(foot, (0, 0, h * 0.75), 0.015, label, dark, sides=5)
        shape.tube((0, 0, h * 0.7), (0, 0, h), 0.015, label, dark, sides=5)
    else:
        shape.tube((0, 0, 0), (0, 0, 0.03), 0.16, label, dark, sides=10)
        shape.tube((0, 0, 0), (0, 0, h), 0.015, label, dark, sides=5)
    if kind < 0.4:
        r = rng.uniform(0.12, 0.25)
        shape.tube((0, 0, h - 0.05), (0, 0, h + 0.25), r, label, m.LAMP_SHADE, end=r * 0.7, sides=10)
    elif kind < 0.6:
        shape.box((0, 0.03, h), (0.9, 0.03, 0.7), "board", m.WHITE_PLASTIC)
    elif kind < 0.8:
        for _ in range(int(rng.integers(1, 4))):
            x, y = (float(v) for v in rng.uniform(-0.15, 0.15, 2))
            shape.ellipsoid((x, y, h - 0.35), (0.16, 0.12, 0.45), label, m.fabric(rng), sides=7)
    else:
        shape.box((0, 0, h + 0.08), (0.2, 0.15, 0.16), label, m.BLACK_PLASTIC)
    return shape


def bath(rng: Rng) -> Shape:
    """Toilet, basin or tub."""
    shape, kind = Shape(), rng.random()
    if kind < 0.4:
        shape.slab((-0.18, -0.35, 0), (0.18, -0.15, 0.8), "appliance", m.WHITE_ENAMEL)
        shape.ellipsoid((0, 0.05, 0.3), (0.19, 0.27, 0.13), "appliance", m.WHITE_ENAMEL)
        shape.slab((-0.1, -0.2, 0), (0.1, 0.15, 0.25), "appliance", m.WHITE_ENAMEL)
    elif kind < 0.8:
        shape.slab((-0.3, -0.22, 0.7), (0.3, 0.22, 0.86), "appliance", m.WHITE_ENAMEL)
        shape.tube((0, -0.1, 0), (0, -0.1, 0.7), 0.08, "appliance", m.WHITE_ENAMEL)
    else:
        shape.slab((-0.85, -0.38, 0), (0.85, 0.38, 0.55), "appliance", m.WHITE_ENAMEL)
    return shape


def rack(rng: Rng) -> Shape:
    """Warehouse rack, or a work bench with machines."""
    shape, body = Shape(), m.metal(rng)
    w, d, h = rng.uniform(1.5, 2.7), rng.uniform(0.6, 1.1), rng.uniform(1.6, 2.8)
    levels = int(rng.integers(2, 5))
    for sx, sy in CORNERS:
        shape.box((sx * (w / 2 - 0.04), sy * (d / 2 - 0.04), h / 2), (0.08, 0.08, h), "shelf", body)
    for i in range(levels):
        z = 0.15 + i * (h - 0.3) / levels
        shape.box((0, 0, z), (w, d, 0.06), "shelf", body)
        for x in np.arange(-w / 2 + 0.35, w / 2 - 0.2, 0.55):
            if rng.random() < 0.65:
                size = rng.uniform([0.25, 0.3, 0.15], [0.5, d * 0.9, 0.45])
                shape.box((x, 0, z + 0.03 + size[2] / 2), size, "clutter", m.package(rng, 0.6))
    return shape


def machine(rng: Rng) -> Shape:
    """Laboratory machinery: a plinth, a column, an arm."""
    shape, body = Shape(), m.one_of(rng, m.metal, m.lacquer)
    w, d, h = rng.uniform(0.5, 1.4), rng.uniform(0.5, 1.0), rng.uniform(0.5, 1.1)
    shape.slab((-w / 2, -d / 2, 0), (w / 2, d / 2, h), "appliance", body)
    for _ in range(int(rng.integers(1, 4))):
        size = rng.uniform([0.15, 0.15, 0.1], [w * 0.7, d * 0.7, 0.7])
        x, y = (float(v) for v in rng.uniform(-0.2, 0.2, 2))
        shape.box((x, y, h + size[2] / 2), size, "appliance", m.one_of(rng, m.metal, m.lacquer), rng.uniform(-0.3, 0.3))
    if rng.random() < 0.5:
        elbow = (rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), h + 0.7)
        shape.tube((0, 0, h), elbow, 0.08, "appliance", body)
        shape.tube(elbow, (elbow[0] + 0.4, elbow[1], elbow[2] - 0.2), 0.06, "appliance", body)
    return shape


def assembly(rng: Rng) -> Shape:
    """A random object of a few joined boxes, tubes and blobs, from the size of a bucket to that of a wardrobe."""
    shape = Shape()
    reach = rng.uniform([0.15, 0.15, 0.3], [0.7, 0.6, 2.0])
    material = m.one_of(rng, m.lacquer, m.wood, m.metal, m.fabric)
    at, half = np.array([0.0, 0.0, 0.0]), np.zeros(3)
    for i in range(int(rng.integers(2, 12))):
        size = reach * rng.uniform(0.1, 0.8, 3)
        beside = at[:2] + rng.uniform(-0.5, 0.5, 2) * reach[:2] * 0.6
        z = min(at[2] + half[2] * rng.uniform(0, 1), reach[2])
        at = np.array([*beside, max(z, size[2] / 2 if i == 0 else 0.02)])
        half = size / 2
        material = material if rng.random() < 0.7 else m.one_of(rng, m.lacquer, m.wood, m.metal, m.fabric)
        kind = rng.random()
        if kind < 0.5:
            yaw, tilt = float(rng.choice([0, rng.uniform(0, 3)])), float(rng.choice([0, 0, rng.normal(0, 0.4)]))
            shape.box(at, size, "clutter", material, yaw, tilt)
        elif kind < 0.75:
            tip = at + rng.uniform(-0.5, 0.5, 3) * reach
            tip[2] = max(tip[2], 0.02)
            shape.tube(at, tip, rng.uniform(0.01, 0.08), "clutter", material, sides=6)
        else:
            center = at + np.array([0, 0, size[2] / 2])
            shape.ellipsoid(center, size / 2, "clutter", material, rng.uniform(0, 3), sides=7)
    return shape


def trolley(rng: Rng) -> Shape:
    """A cart, a mobile robot, a pallet with goods."""
    shape, body = Shape(), m.one_of(rng, m.metal, m.lacquer)
    w, d, deck = rng.uniform(0.4, 1.2), rng.uniform(0.4, 0.8), rng.uniform(0.12, 0.4)
    shape.slab((-w / 2, -d / 2, deck - 0.05), (w / 2, d / 2, deck), "clutter", body)
    for sx, sy in CORNERS:
        x, y = sx * w * 0.4, sy * d * 0.4
        shape.tube((x, y - 0.02, 0.06), (x, y + 0.02, 0.06), 0.06, "clutter", m.BLACK_PLASTIC)
    if rng.random() < 0.6:
        for sy in (-1, 1):
            shape.tube((-w / 2, sy * d * 0.45, deck), (-w / 2, sy * d * 0.45, 0.95), 0.015, "clutter", m.STEEL, sides=5)
        shape.tube((-w / 2, -d * 0.45, 0.95), (-w / 2, d * 0.45, 0.95), 0.015, "clutter", m.STEEL, sides=5)
    z = deck
    for _ in range(int(rng.integers(0, 5))):
        size = rng.uniform([0.2, 0.2, 0.1], [w * 0.9, d * 0.9, 0.4])
        shape.box((rng.normal(0, 0.03), 0, z + size[2] / 2), size, "clutter", m.package(rng))
        z += float(size[2])
        if z > 1.6:
            break
    return shape


def divider(rng: Rng) -> Shape:
    """A free-standing screen between desks, a folding screen or a clothes rail."""
    shape = Shape()
    w, h = rng.uniform(0.8, 2.2), rng.uniform(1.1, 1.9)
    if rng.random() < 0.7:
        shape.slab((-w / 2, -0.02, 0.06), (w / 2, 0.02, h), "clutter", m.one_of(rng, m.fabric, m.lacquer))
        for sx in (-1, 1):
            shape.box((sx * w * 0.45, 0, 0.03), (0.05, 0.4, 0.06), "clutter", m.STEEL)
    else:
        shape.tube((-w / 2, 0, h), (w / 2, 0, h), 0.015, "clutter", m.STEEL, sides=5)
        for sx in (-1, 1):
            shape.tube((sx * w / 2, 0, 0), (sx * w / 2, 0, h), 0.015, "clutter", m.STEEL, sides=5)
        for x in np.arange(-w / 2 + 0.1, w / 2 - 0.1, 0.12):
            if rng.random() < 0.7:
                radii = (0.05, 0.22, rng.uniform(0.35, 0.5))
                shape.ellipsoid((x, 0, h - 0.5), radii, "clutter", m.fabric(rng), sides=6)
    return shape


def ladder(rng: Rng) -> Shape:
    """A step ladder, or boards and poles leaning against the wall."""
    shape, h = Shape(), rng.uniform(1.2, 2.1)
    spread = 0.3 * h
    for sx in (-0.22, 0.22):
        shape.tube((sx, spread / 2, 0), (sx * 0.8, -spread / 2 + 0.05, h), 0.02, "clutter", m.STEEL, sides=4)
        if rng.random() < 0.8:
            shape.tube((sx, -spread / 2, 0), (sx * 0.8, -spread / 2 + 0.04, h), 0.02, "clutter", m.STEEL, sides=4)
    for t in np.arange(0.15, 1.0, 0.28 / h):
        y = spread / 2 + t * (-spread + 0.05)
        shape.box((0, y, t * h), (0.42, 0.08, 0.02), "clutter", m.STEEL)
    return shape


def stairs(rng: Rng) -> Shape:
    """A straight flight that climbs along +x, with a solid or open underside and a rail."""
    shape, material = Shape(), m.one_of(rng, m.wood, m.lacquer, m.metal)
    w, rise, tread = rng.uniform(0.9, 1.6), rng.uniform(0.16, 0.19), rng.uniform(0.26, 0.3)
    steps, solid = int(rng.integers(4, 14)), rng.random() < 0.6
    length = steps * tread
    for i in range(steps):
        x0, z = -length / 2 + i * tread, (i + 1) * rise
        shape.slab((x0, -w / 2, 0 if solid else z - 0.05), (x0 + tread, w / 2, z), "stairs", material)
    if rng.random() < 0.8:
        a, b = (-length / 2, w / 2, 0.95), (length / 2, w / 2, steps * rise + 0.95)
        shape.tube(a, b, 0.025, "stairs", m.STEEL, sides=6)
        for i in range(0, steps, 2):
            x = -length / 2 + (i + 0.5) * tread
            low, high = (x, w / 2, (i + 1) * rise), (x, w / 2, (i + 0.5) * rise + 0.95)
            shape.tube(low, high, 0.012, "stairs", m.STEEL, sides=4)
    return shape


def counter(rng: Rng) -> Shape:
    """A reception desk or bar."""
    shape, body = Shape(), m.furniture(rng)
    w, d, h = rng.uniform(1.5, 4.0), rng.uniform(0.6, 0.9), rng.uniform(0.95, 1.2)
    shape.slab((-w / 2, 0, 0), (w / 2, d / 2, h), "table", body)
    shape.slab((-w / 2, -d / 2, 0.7), (w / 2, 0, 0.74), "table", body)
    for x0, x1 in ((-w / 2, -(w / 2 - 0.05)), (w / 2 - 0.05, w / 2)):
        shape.slab((x0, -d / 2, 0), (x1, 0, h), "table", body)
    _things_on(shape, rng, w * 0.6, 0.2, h)
    shape.surface = (w * 0.6, 0.1, h)
    return shape

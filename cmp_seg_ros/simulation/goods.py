"""What stands in buildings of the second world: models, shelves with goods, counters, machines, thin things.

As in `furniture`, each maker returns a shape on z = 0, centred in x and y, its back towards -y.
"""

import numpy as np

from cmp_seg_ros.simulation import furniture as f
from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation import models
from cmp_seg_ros.simulation.mesh import Rng, Shape


def _model(rng: Rng, *labels: str) -> Shape | None:
    """A model of the catalogues at 0.85 to 1.15 of its size, often with things on a table; None without catalogues."""
    found = models.pick(rng, "floor", *labels)
    if found is None:
        return None
    shape = Shape()
    found.put(shape, rng)
    w, d, h = (float(v) for v in found.size)
    if found.label in ("table", "cabinet") and h < 1.3:
        if rng.random() < 0.7:
            things(shape, rng, 0.7 * w, 0.6 * d, h)
        shape.surface = (0.6 * w, 0.5 * d, h)
    return shape


def model(rng: Rng) -> Shape:
    """Any piece of furniture."""
    return _model(rng) or f.assembly(rng)


def seat(rng: Rng) -> Shape:
    return _model(rng, "chair", "sofa") or f.chair(rng)


def desk(rng: Rng) -> Shape:
    """A desk full of things, a seat before it."""
    shape = _model(rng, "table") if rng.random() < 0.5 else None
    if shape is None:
        return laden(f.desk(rng), rng)
    _, high = shape.bounds()
    shape.put(seat(rng), (0, float(high[1]) + rng.uniform(0.1, 0.5), 0), np.pi + rng.normal(0, 0.4))
    return shape


def laden(shape: Shape, rng: Rng) -> Shape:
    """With more things on its free top."""
    if shape.surface:
        w, d, h = shape.surface
        things(shape, rng, w, d, h)
    return shape


def things(shape: Shape, rng: Rng, w: float, d: float, h: float, most: int = 9) -> None:
    """Small things on a surface of w x d about the origin at height h."""
    for _ in range(int(rng.integers(1, most))):
        at = rng.uniform(-w / 2, w / 2), rng.uniform(-d / 2, d / 2), h
        found = models.pick(rng, "small") if rng.random() < 0.6 else None
        if found is not None:
            found.put(shape, rng, at, rng.uniform(0, 2 * np.pi))
            continue
        size = rng.uniform([0.04, 0.04, 0.02], [0.35, 0.3, 0.4])
        material = m.one_of(rng, m.lacquer, m.fabric, m.metal)
        if rng.random() < 0.5:
            shape.box((at[0], at[1], h + size[2] / 2), size, "clutter", material, rng.uniform(0, 3))
        else:
            shape.tube(at, (at[0], at[1], h + size[2]), size[0] / 3, "clutter", material, sides=7)


def hung(rng: Rng) -> Shape | None:
    """Something that hangs on a wall, at its height; None without catalogues."""
    found = models.pick(rng, "hung")
    if found is None:
        return None
    shape = Shape()
    found.put(shape, rng, (0, 0, found.elevation))
    return shape


def _goods(shape: Shape, rng: Rng, low: tuple[float, float], high: tuple[float, float], z: float, room: float) -> None:
    """Goods side by side on a board between the corners `low` and `high` (x, y), at most `room` high."""
    x, fill = low[0] + 0.02, rng.uniform(0.4, 1.0)
    size = rng.uniform([0.06, 0.3, 0.3], [min(0.7, high[0] - low[0]), 1.0, 0.95])
    while x < high[0] - 0.06:
        if rng.random() < 0.25:  # another kind of goods
            size = rng.uniform([0.06, 0.3, 0.3], [min(0.7, high[0] - low[0]), 1.0, 0.95])
        w = min(float(size[0]), high[0] - x - 0.01)
        deep, tall = float(size[1]) * (high[1] - low[1]), float(size[2]) * room
        if rng.random() < fill:
            back = low[1] if rng.random() < 0.5 else high[1] - deep
            material = m.CARDBOARD if rng.random() < 0.4 else m.one_of(rng, m.lacquer, m.fabric)
            if rng.random() < 0.8:
                shape.slab((x, back, z), (x + w, back + deep, z + tall), "clutter", material)
            else:
                r = min(w, deep) / 2
                shape.tube((x + r, back + r, z), (x + r, back + r, z + tall), r, "clutter", material, sides=8)
        x += w + float(rng.choice([0.004, 0.02, 0.1]))


def tall_shelf(rng: Rng) -> Shape:
    """Shelves up to 3 m, with or without a back, full of goods."""
    shape, body = Shape(), m.one_of(rng, m.metal, m.wood, m.lacquer)
    w, d, h = rng.uniform(0.8, 2.4), rng.uniform(0.25, 0.65), rng.uniform(1.3, 3.0)
    back = rng.random() < 0.5
    if back:
        shape.slab((-w / 2, -d / 2, 0), (w / 2, -d / 2 + 0.015, h), "shelf", body)
    for x in (-w / 2, w / 2 - 0.03):
        if rng.random() < 0.5:
            shape.slab((x, -d / 2, 0), (x + 0.03, d / 2, h), "shelf", body)
        else:
            for y in (-d / 2, d / 2 - 0.04):
                shape.slab((x, y, 0), (x + 0.03, y + 0.04, h), "shelf", body)
    step = rng.uniform(0.25, 0.55)
    for z in np.arange(rng.uniform(0.04, 0.2), h - 0.05, step):
        shape.slab((-w / 2, -d / 2, z - 0.02), (w / 2, d / 2, z), "shelf", body)
        _goods(shape, rng, (-w / 2, -d / 2 + 0.02), (w / 2, d / 2 - 0.01), float(z), step - 0.04)
    return shape


def gondola(rng: Rng) -> Shape:
    """A shop's shelf from both sides, 1.2 to 2.4 m high."""
    shape, body = Shape(), m.one_of(rng, m.lacquer, m.metal)
    w, d, h = rng.uniform(1.0, 2.6), rng.uniform(0.6, 1.0), rng.uniform(1.2, 2.4)
    shape.slab((-w / 2, -0.015, 0), (w / 2, 0.015, h), "shelf", body)
    step = rng.uniform(0.28, 0.5)
    for z in np.arange(0.12, h - 0.1, step):
        deep = d / 2 if z < 0.2 else d / 2 * rng.uniform(0.7, 1.0)
        shape.slab((-w / 2, -deep, z - 0.025), (w / 2, deep, z), "shelf", body)
        _goods(shape, rng, (-w / 2, -deep), (w / 2, -0.02), float(z), step - 0.05)
        _goods(shape, rng, (-w / 2, 0.02), (w / 2, deep), float(z), step - 0.05)
    return shape


def pallet_rack(rng: Rng) -> Shape:
    """Two to six metres of posts, beams and pallets with goods; one can see through."""
    shape, body = Shape(), m.one_of(rng, m.metal, m.lacquer)
    w, d, h = rng.uniform(1.8, 3.6), rng.uniform(0.7, 1.2), rng.uniform(2.2, 6.5)
    for x in (-w / 2, w / 2 - 0.1):
        for y in (-d / 2, d / 2 - 0.08):
            shape.slab((x, y, 0), (x + 0.1, y + 0.08, h), "shelf", body)
        for z in np.arange(0.3, h - 0.6, 1.0):
            shape.tube((x + 0.05, -d / 2, z), (x + 0.05, d / 2, z + 0.6), 0.02, "shelf", body, sides=4)
    step = rng.uniform(0.8, 1.9)
    for i, z in enumerate(np.arange(0.0, h - 0.1, step)):
        if i:
            for y in (-d / 2, d / 2 - 0.05):
                shape.slab((-w / 2, y, z - 0.12), (w / 2, y + 0.05, z), "shelf", body)
            if rng.random() < 0.4:
                shape.slab((-w / 2, -d / 2, z - 0.02), (w / 2, d / 2, z), "shelf", body)
        if rng.random() < 0.85:
            shape.slab((-w / 2 + 0.12, -d / 2, z), (w / 2 - 0.12, d / 2, z + 0.12), "clutter", m.wood(rng))
            _goods(shape, rng, (-w / 2 + 0.14, -d / 2), (w / 2 - 0.14, d / 2), float(z) + 0.12, step - 0.3)
    return shape


def bar(rng: Rng) -> Shape:
    """A counter or a row of low cupboards, straight or round a corner, with things on it."""
    shape, body, top = Shape(), m.one_of(rng, m.furniture, m.metal), m.one_of(rng, m.wood, m.lacquer)
    w, d, h = rng.uniform(1.5, 5.0), rng.uniform(0.4, 0.8), rng.uniform(0.8, 1.3)
    shape.slab((-w / 2, -d / 2, 0), (w / 2, d / 2, h - 0.04), "table", body)
    shape.slab((-w / 2 - 0.03, -d / 2 - 0.03, h - 0.04), (w / 2 + 0.03, d / 2 + 0.03, h), "table", top)
    if rng.random() < 0.4:
        long = rng.uniform(0.8, 2.5)
        shape.slab((w / 2 - d, d / 2, 0), (w / 2, d / 2 + long, h), "table", body)
    if rng.random() < 0.25:  # a showcase of glass
        shape.slab((-w / 2, -d / 4, h), (w / 2, d / 4, h + 0.4), "table", m.glass(rng))
    else:
        things(shape, rng, 0.9 * w, 0.7 * d, h, 3 + int(3 * w))
    shape.surface = (0.8 * w, 0.5 * d, h)
    return shape


def workbench(rng: Rng) -> Shape:
    """A bench with tools and a board of tools behind it."""
    shape, body = Shape(), m.one_of(rng, m.wood, m.metal)
    w, d, h = rng.uniform(1.2, 3.0), rng.uniform(0.6, 0.9), rng.uniform(0.8, 1.0)
    shape.slab((-w / 2, -d / 2, h - 0.05), (w / 2, d / 2, h), "table", body)
    for x in (-w / 2, w / 2 - 0.08):
        for y in (-d / 2, d / 2 - 0.08):
            shape.slab((x, y, 0), (x + 0.08, y + 0.08, h), "table", body)
    if rng.random() < 0.6:
        shape.slab((-w / 2, -d / 2, 0.2), (w / 2, d / 2, 0.23), "table", body)
        _goods(shape, rng, (-w / 2 + 0.1, -d / 2 + 0.05), (w / 2 - 0.1, d / 2 - 0.05), 0.23, h - 0.35)
    things(shape, rng, 0.9 * w, 0.6 * d, h, 14)
    if rng.random() < 0.5:
        shape.slab((-w / 2, -d / 2, h + 0.1), (w / 2, -d / 2 + 0.02, h + 0.9), "shelf", body)
        for _ in range(int(rng.integers(4, 16))):
            x, z = rng.uniform(-w / 2 + 0.1, w / 2 - 0.1), rng.uniform(h + 0.2, h + 0.8)
            size = rng.uniform([0.02, 0.02, 0.05], [0.12, 0.08, 0.3])
            shape.box((x, -d / 2 + 0.06, z), size, "clutter", m.one_of(rng, m.metal, m.lacquer))
    shape.surface = (0.7 * w, 0.4 * d, h)
    return shape


def big_machine(rng: Rng) -> Shape:
    """A machine as tall as a person or taller: cabinets, pipes, an arm, a control panel on a post."""
    shape, body = Shape(), m.one_of(rng, m.metal, m.lacquer)
    w, d, h = rng.uniform(0.8, 2.8), rng.uniform(0.7, 1.8), rng.uniform(0.9, 2.4)
    shape.slab((-w / 2, -d / 2, 0), (w / 2, d / 2, h), "appliance", body)
    for _ in range(int(rng.integers(2, 7))):
        size = rng.uniform([0.15, 0.15, 0.15], [0.6 * w, 0.6 * d, 0.9])
        at = rng.uniform([-w / 2, -d / 2, 0.3 * h], [w / 2, d / 2, h + 0.2])
        shape.box(at, size, "appliance", m.one_of(rng, m.metal, m.lacquer))
    for _ in range(int(rng.integers(0, 5))):
        start, end = rng.uniform([-w / 2, -d / 2, 0.2], [w / 2, d / 2, h + 0.6], (2, 3))
        shape.tube(start, end, rng.uniform(0.015, 0.1), "appliance", m.metal(rng), sides=7)
    return shape


def thin(rng: Rng) -> Shape:
    """Stands, poles, barriers, brooms, bottles of infusion, music stands, racks of clothes, sticks with round tops."""
    shape, dark, h = Shape(), m.one_of(rng, m.metal, m.lacquer, m.wood), rng.uniform(0.9, 2.1)
    kind, r = rng.random(), rng.uniform(0.008, 0.03)
    spread = rng.uniform(0.15, 0.55)
    feet = int(rng.integers(3, 6))
    joint = float(rng.choice([0.1, 0.5 * h, 0.8 * h])) if feet == 3 else rng.uniform(0.03, 0.15)
    for angle in rng.uniform(0, 6) + np.arange(feet) * 2 * np.pi / feet:
        foot = (spread * np.cos(angle), spread * np.sin(angle), 0.01)
        shape.tube(foot, (0, 0, joint), r, "clutter", dark, sides=5)
    shape.tube((0, 0, 0.02), (0, 0, h), r, "clutter", dark, sides=6)
    if kind < 0.2:  # a head: camera, theodolite, scanner
        shape.box((0, 0, h + 0.08), rng.uniform(0.06, 0.25, 3), "clutter", m.BLACK_PLASTIC, rng.uniform(0, 3))
    elif kind < 0.35:  # a board
        size = rng.uniform(0.2, 1.1), 0.02, rng.uniform(0.2, 0.9)
        shape.box((0, 0.03, h), size, "clutter", m.lacquer(rng), 0.0, rng.normal(0, 0.3))
    elif kind < 0.55:  # coats, bags
        for _ in range(int(rng.integers(1, 5))):
            x, y = (float(v) for v in rng.uniform(-0.2, 0.2, 2))
            radii = rng.uniform([0.08, 0.06, 0.15], [0.22, 0.16, 0.5])
            at = x, y, max(float(radii[2]), h - rng.uniform(0.2, 0.6))
            shape.ellipsoid(at, radii, "clutter", m.fabric(rng),
                            rng.uniform(0, 3), sides=7)  # fmt: skip
    elif kind < 0.7:  # a trunk, as a tailor's dummy; a ball on top at times
        shape.ellipsoid((0, 0, h - 0.3), (0.13, 0.2, 0.36), "clutter", m.fabric(rng), rng.uniform(0, 3))
        if rng.random() < 0.4:
            shape.ellipsoid((0, 0, h + 0.15), (0.09, 0.08, 0.12), "clutter", m.lacquer(rng))
    elif kind < 0.85:  # arms
        for _ in range(int(rng.integers(1, 6))):
            angle, z = rng.uniform(0, 6), rng.uniform(0.4 * h, h)
            tip = 0.4 * np.cos(angle), 0.4 * np.sin(angle), z + rng.uniform(-0.1, 0.4)
            shape.tube((0, 0, z), tip, r, "clutter", dark, sides=5)
    return shape


def dummy(rng: Rng) -> Shape:
    """A thing of a person's size that is none: a barrel with a lid, a sack, a column of boxes, a plant, a vase."""
    shape = Shape()
    z, top = 0.0, rng.uniform(0.9, 1.9)
    while z < top:
        tall, r = rng.uniform(0.15, 0.8), rng.uniform(0.08, 0.3)
        material = m.one_of(rng, m.fabric, m.lacquer, m.wood)
        kind = rng.random()
        if kind < 0.4:
            shape.tube((0, 0, z), (0, 0, z + tall), r, "clutter", material, end=r * rng.uniform(0.5, 1.3))
        elif kind < 0.7:
            shape.ellipsoid((0, 0, z + tall / 2), (r, r * rng.uniform(0.5, 1), tall / 2), "clutter", material)
        else:
            shape.box((0, 0, z + tall / 2), (2 * r, 1.5 * r, tall), "clutter", material, rng.uniform(0, 3))
        z += tall
    return shape


def car(rng: Rng) -> Shape:
    """A car of the catalogues, or of boxes."""
    shape, found = Shape(), models.pick(rng, "cars")
    if found is not None:
        found.put(shape, rng)
        return shape
    w, long, paint = rng.uniform(1.6, 1.9), rng.uniform(3.4, 4.8), m.lacquer(rng)
    shape.slab((-w / 2, -long / 2, 0.25), (w / 2, long / 2, 0.85), "clutter", paint)
    shape.slab((-w / 2 + 0.1, -0.25 * long, 0.85), (w / 2 - 0.1, 0.3 * long, 1.45), "clutter", m.glass(rng))
    for x in (-w / 2, w / 2):
        for y in (-0.32 * long, 0.32 * long):
            shape.tube((x - 0.1, y, 0.3), (x + 0.1, y, 0.3), 0.3, "clutter", m.BLACK_PLASTIC, sides=10)
    return shape


def tree(rng: Rng) -> Shape:
    """A trunk and a crown of leaves, for outdoors."""
    shape, h = Shape(), rng.uniform(2.5, 9)
    shape.tube((0, 0, -1), (0, 0, 0.7 * h), rng.uniform(0.06, 0.25), "plant", m.wood(rng), end=0.05, sides=7)
    for _ in range(int(rng.integers(30, 90))):
        way = rng.normal(size=3)
        at = way / np.linalg.norm(way) * rng.uniform(0.2, 1) * [0.3 * h, 0.3 * h, 0.3 * h] + [0, 0, 0.7 * h]
        shape.ellipsoid(at, rng.uniform([0.1, 0.1, 0.03], [0.5, 0.5, 0.2]), "plant", m.LEAF, rng.uniform(0, 3), 5)
    return shape

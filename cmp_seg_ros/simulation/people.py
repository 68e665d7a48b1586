"""People made of capsules and ellipsoids, who stand, walk and sit."""

from dataclasses import dataclass, replace

import numpy as np

from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation import models
from cmp_seg_ros.simulation.mesh import Mesh, Rng, Shape


@dataclass(frozen=True)
class Person:
    """A person in the building.

    Args:
        seed: of the appearance (size, clothes).
        pose: stand, walk or sit.
        start, end: (x, y) between which a walker goes back and forth; others stay at `start`.
        yaw: heading of those who stay, radians.
        speed: metres per second.
        phase: metres already walked at time 0.
        modelled: whether the body comes from the catalogues, if installed.
        carries: board, trolley, box, or "".
    """

    seed: int
    pose: str
    start: tuple[float, float]
    end: tuple[float, float]
    yaw: float = 0.0
    speed: float = 1.1
    phase: float = 0.0
    modelled: bool = False
    carries: str = ""

    def varied(self, rng: Rng) -> "Person":
        """A variant for the second world: sometimes with a body from the catalogues, sometimes carrying something."""
        carries = "" if self.pose == "sit" else str(rng.choice(["", "board", "trolley", "box"], p=[0.7, 0.1, 0.1, 0.1]))
        return replace(self, modelled=bool(rng.random() < 0.35), carries=carries)

    def at(self, time: float) -> tuple[tuple[float, float], float, float]:
        """Position (x, y), yaw, and phase of the stride (radians) at `time` seconds."""
        if self.pose != "walk":
            return self.start, self.yaw + 0.1 * np.sin(0.7 * time + self.phase), 0.0
        a, b = np.array(self.start), np.array(self.end)
        length = max(float(np.linalg.norm(b - a)), 1e-6)
        walked = self.phase + self.speed * time
        lap = walked % (2 * length)
        forth = lap <= length
        way = b - a if forth else a - b
        at = a + (b - a) * (lap if forth else 2 * length - lap) / length
        return (float(at[0]), float(at[1])), float(np.arctan2(way[1], way[0])), walked * 2 * np.pi / 1.4


def body(seed: int, pose: str, stride: float) -> Shape:
    """A person who stands on z = 0 and looks along +x."""
    rng = np.random.default_rng(seed)
    h = rng.uniform(1.5, 1.95) if rng.random() < 0.92 else rng.uniform(1.0, 1.4)
    wide = rng.uniform(0.85, 1.25)
    shape, top, trousers = Shape(), m.fabric(rng), m.fabric(rng)
    skirt, bag, arms_mode = rng.random() < 0.15, rng.random() < 0.25, rng.random()
    hip, shoulder, head = 0.5 * h, 0.81 * h, 0.93 * h
    if pose == "sit":
        drop = hip - rng.uniform(0.46, 0.54)
        hip, shoulder, head = hip - drop, shoulder - drop, head - drop
    lean = rng.normal(0.02, 0.04)
    trunk = (0.12 * wide, 0.18 * wide, (shoulder - hip) / 2 + 0.08)
    shape.ellipsoid((lean, 0, (hip + shoulder) / 2 + 0.02), trunk, "person", top, sides=10)
    shape.ellipsoid((lean, 0, shoulder - 0.05), (0.1 * wide, 0.21 * wide, 0.1), "person", top, sides=10)
    shape.ellipsoid((0, 0, hip), (0.13 * wide, 0.18 * wide, 0.13), "person", trousers, sides=10)
    shape.tube((lean, 0, shoulder), (lean, 0, head - 0.05), 0.055, "person", m.SKIN, sides=7)
    shape.ellipsoid((lean + 0.01, 0, head), (0.095, 0.078, 0.125), "person", m.SKIN, sides=9)
    shape.ellipsoid((lean - 0.015, 0, head + 0.03), (0.095, 0.085, 0.11), "person", m.fabric(rng), sides=9)
    swing = 0.45 * np.sin(stride) if pose == "walk" else 0.0
    for side in (-1, 1):
        y, angle = side * 0.09 * wide, side * swing
        if pose == "sit":
            knee, foot = (0.42, y, hip), (0.44, y, 0.05)
        else:
            reach = hip / 2
            knee = (reach * np.sin(angle) + (0.05 if angle < 0 else 0.02), y, hip - reach * np.cos(angle))
            bend = angle - (0.5 * max(0.0, -np.sin(stride * 1 + side)) if pose == "walk" else 0)
            foot = (knee[0] + (reach - 0.06) * np.sin(bend), y, max(0.06, knee[2] - (reach - 0.06) * np.cos(bend)))
        shape.tube((0, y, hip), knee, 0.085 * wide, "person", trousers, end=0.06 * wide, sides=7)
        shape.tube(knee, foot, 0.06 * wide, "person", trousers if not skirt else m.SKIN, end=0.045, sides=7)
        shape.box((foot[0] + 0.07, foot[1], foot[2] - 0.02), (0.25, 0.09, 0.08), "person", m.BLACK_PLASTIC)
        arm, fore = -side * swing * 0.8, 0.25
        if pose == "sit" or arms_mode < 0.3:
            arm, fore = 0.3, 1.4
        length = 0.17 * h
        elbow = (lean + length * np.sin(arm), side * 0.25 * wide, shoulder - 0.04 - length * np.cos(arm))
        hand = (elbow[0] + length * np.sin(arm + fore), side * 0.24 * wide, elbow[2] - length * np.cos(arm + fore))
        shape.tube((lean, side * 0.2 * wide, shoulder - 0.03), elbow, 0.05 * wide, "person", top, end=0.042, sides=6)
        shape.tube(elbow, hand, 0.042, "person", top, end=0.03, sides=6)
        shape.ellipsoid(hand, (0.05, 0.03, 0.05), "person", m.SKIN, sides=6)
    if skirt and pose != "sit":
        shape.tube((0, 0, hip), (0, 0, hip * 0.5), 0.16 * wide, "person", trousers, end=0.24 * wide, sides=9)
    if bag:
        shape.ellipsoid((lean - 0.18, 0, shoulder - 0.2), (0.12, 0.15, 0.23), "person", m.fabric(rng))
    return shape


def _modelled(seed: int) -> Shape | None:
    """A person from the catalogues who looks along +x; None without catalogues."""
    rng = np.random.default_rng(seed)
    found = models.pick(rng, "people")
    if found is None:
        return None
    shape = Shape()
    found.put(shape, rng, yaw=-np.pi / 2)
    return shape


def _carried(seed: int, what: str) -> Shape:
    """The thing that a person who looks along +x carries or pushes."""
    rng, shape = np.random.default_rng([seed, 1]), Shape()
    if what == "board":
        size = 0.02, rng.uniform(0.4, 1.2), rng.uniform(0.3, 1.0)
        shape.box((0.38, rng.normal(0, 0.15), rng.uniform(0.8, 1.3)), size, "clutter", m.lacquer(rng))
    elif what == "box":
        shape.box((0.4, 0, rng.uniform(0.85, 1.2)), rng.uniform(0.2, 0.5, 3), "clutter", m.CARDBOARD)
    else:
        deck, long = rng.uniform(0.15, 0.4), rng.uniform(0.5, 1.0)
        shape.slab((0.5, -0.28, deck - 0.05), (0.5 + long, 0.28, deck), "clutter", m.metal(rng))
        for y in (-0.26, 0.26):
            shape.tube((0.5, y, 0.05), (0.5, y, 1.0), 0.015, "clutter", m.STEEL, sides=5)
        shape.tube((0.5, -0.26, 1.0), (0.5, 0.26, 1.0), 0.015, "clutter", m.STEEL, sides=5)
        tall = rng.uniform(0.1, 0.8)
        shape.slab((0.6, -0.24, deck), (0.45 + long, 0.24, deck + tall), "clutter", m.one_of(rng, m.lacquer, m.fabric))
    return shape


def people_mesh(people: list[Person], time: float, more: Shape | None = None) -> Mesh:
    """Mesh of all people at `time` (seconds), and of other moving objects."""
    shape = Shape()
    if more:
        shape.put(more, (0, 0, 0))
    for person in people:
        position, yaw, stride = person.at(time)
        shape.put((person.modelled and _modelled(person.seed)) or body(person.seed, person.pose, stride), position, yaw)
        if person.carries:
            shape.put(_carried(person.seed, person.carries), position, yaw)
    return shape.finish()

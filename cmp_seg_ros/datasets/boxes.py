"""Box rooms: a small generator that shares nothing with `simulation/`, to test labels on scans of another origin.

A room is a box seen from within; what stands in it is made of boxes, cylinders and ellipsoids. All are convex, so each
ray has one interval inside each solid, in closed form: an affine map makes every solid a unit cube, cylinder or ball.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels
from cmp_seg_ros.datasets.seeded import Seeded
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Scan, UInt8

Rng = np.random.Generator
Array = npt.NDArray[np.float64]

RINGS = {  # degrees from the lowest to the highest, and how many
    "rings-16": (-15.0, 15.0, 16),
    "rings-32": (-25.0, 15.0, 32),
    "rings-64": (-45.0, 45.0, 64),
    "rings-20": (-18.0, 18.0, 20),
    "rings-40": (-30.0, 25.0, 40),
}
COLUMNS = 1024
NOISE = 0.015  # m, one sigma of the range
FARTHEST = 100.0  # m
LOST = 0.01  # share of rays that do not come back
KINDS = ("plain", "things", "hall", "outdoor")
BOX, CYLINDER, BALL = range(3)
CORNERS = ((1, 1), (1, -1), (-1, 1), (-1, -1))


@dataclass(frozen=True)
class Solid:
    """A unit cube, cylinder (along z) or ball, scaled by `half`, turned and moved."""

    shape: int
    centre: Array  # (3,)
    half: Array  # (3,)
    turn: Array  # (3, 3)
    label: str
    albedo: float


class DataSet(Seeded):
    """Scans in box rooms, a room for each seed, in the order of rooms and places. Truth is in `indoor`.

    Args:
        seeds: of the rooms.
        scans: places in a room.
        sensor: of RINGS.
        kind: `plain` holds boxes; `things` holds thin things and people; `hall` is high, with racks and trusses;
            `outdoor` has neither walls nor ceiling: cars, trees, poles, houses, people.
    """

    def __init__(self, seeds: Iterable[int], scans: int, sensor: str = "rings-16", kind: str = "plain") -> None:
        super().__init__(Path(f"box rooms ({kind})"), seeds, scans)
        self.sensor, self.kind = sensor, kind

    def frame_of(self, seed: int, index: int) -> Frame:
        room = Room(np.random.default_rng([seed, KINDS.index(self.kind)]), self.kind)
        scan, label, height = room.scan(np.random.default_rng([seed, KINDS.index(self.kind), index]), self.sensor)
        T_base_lidar = np.eye(4)
        T_base_lidar[2, 3] = height
        key = f"{seed}/{index}"
        labels = {TRUTH: PointLabels(self.label_spaces[TRUTH], label)}
        return Frame(key, scan, labels=labels, T_base_lidar=T_base_lidar, sequence=key, group=str(seed))


class Room:
    """A box of `size` metres, its floor's corner at the origin, with what stands in it."""

    def __init__(self, rng: Rng, kind: str) -> None:
        self.rng = rng
        ranges = {"hall": ((10, 8, 5), (24, 16, 12)), "outdoor": ((60, 60, 30), (120, 120, 30))}
        low, high = ranges.get(kind, ((3.5, 3.5, 2.3), (12, 9, 4.0)))
        self.size: Array = rng.uniform(np.array(low), np.array(high))
        self.open = kind == "outdoor"
        self.albedo = rng.uniform(0.2, 0.9, 6)  # of its faces
        self.solids: list[Solid] = []
        self.taken: list[tuple[float, float, float]] = []  # x, y, radius
        getattr(self, f"_{kind}")()

    # -- what stands where

    def _plain(self) -> None:
        for _ in range(int(self.rng.integers(3, 4 + int(self.size[0] * self.size[1] / 5)))):
            self._some_box()

    def _things(self) -> None:
        for _ in range(int(self.rng.integers(1, 5))):
            self._some_box()
        makers = [self._tripod, self._stand, self._lamp, self._plant, self._chair, self._dummy]
        people = [self._standing, self._sitting, self._with_board, self._with_trolley]
        for made in range(int(self.rng.integers(6, 14))):
            chosen = people if made % 3 == 0 else makers
            if (place := self._place(0.5)) is not None:
                chosen[int(self.rng.integers(len(chosen)))](*place)

    def _hall(self) -> None:
        w, d, h = self.size
        for y in np.arange(1.5, d - 1.5, self.rng.uniform(2.6, 4.0)):
            if self.rng.random() < 0.7:
                self._rack(float(y))
        z = h - self.rng.uniform(0.5, 1.2)
        for x in np.arange(2.0, w - 1, self.rng.uniform(3, 6)):  # trusses: two chords and their diagonals
            for height in (z, h - 0.08):
                self._rod((x, 0, height), (x, d, height), 0.06, "ceiling")
            ends = np.linspace(0, d, max(3, int(d / 1.5)))
            for i, (a, b) in enumerate(pairwise(ends)):
                low, high = (z, h - 0.08) if i % 2 else (h - 0.08, z)
                self._rod((x, a, low), (x, b, high), 0.03, "ceiling")
        self._plain()

    def _outdoor(self) -> None:
        """Houses along the sides, cars, trees and poles in rows and anywhere, a few people."""
        rng = self.rng
        for _ in range(int(rng.integers(2, 9))):
            if (place := self._place(float(rng.uniform(5, 12)))) is not None:
                size = rng.uniform([5, 5, 4], [14, 14, 20])
                self._box((*place, size[2] / 2), size, "wall", rng.choice([0.0, rng.uniform(0, 3)]))
        for _ in range(int(rng.integers(4, 30))):
            if (place := self._place(2.2)) is not None:
                yaw = rng.choice([0.0, np.pi / 2])
                self._box((*place, 0.7), (4.3, 1.75, 0.9), "clutter", yaw)
                self._box((*place, 1.3), (2.2, 1.5, 0.6), "clutter", yaw)
        for _ in range(int(rng.integers(5, 60))):
            if (place := self._place(0.6)) is not None:
                h = rng.uniform(3, 10)
                self._rod((*place, 0), (*place, h), rng.uniform(0.05, 0.2), "plant")
                for _ in range(int(rng.integers(0, 12))):
                    at = np.array([*place, 0.8 * h]) + rng.normal(0, 0.15 * h, 3)
                    self._ball(at, rng.uniform(0.2, 0.2 + 0.15 * h, 3), "plant")
        for _ in range(int(rng.integers(0, 6))):
            if (place := self._place(0.5)) is not None:
                self._standing(*place)

    def _some_box(self) -> None:
        """A box on the floor, at times against a wall; or a table; or something under the ceiling."""
        rng, (w, d, h) = self.rng, self.size
        size = rng.uniform([0.25, 0.25, 0.2], [1.6, 0.9, min(2.2, h - 0.2)])
        if rng.random() < 0.4:
            size[2] = rng.uniform(0.7, 1.2)
        x, y = rng.uniform([0, 0], [w, d])
        yaw = rng.uniform(0, 2 * np.pi)
        if rng.random() < 0.6:
            yaw = 0.0
            if rng.random() < 0.5:
                x, y = (size[0] / 2 + 0.01, y) if rng.random() < 0.5 else (w - size[0] / 2 - 0.01, y)
            else:
                x, y = (x, size[1] / 2 + 0.01) if rng.random() < 0.5 else (x, d - size[1] / 2 - 0.01)
        reach = float(np.hypot(size[0], size[1]) / 2)
        x, y = float(np.clip(x, size[0] / 2, w - size[0] / 2)), float(np.clip(y, size[1] / 2, d - size[1] / 2))
        if any(np.hypot(x - a, y - b) < r + 0.7 * reach for a, b, r in self.taken):
            return
        self.taken.append((x, y, reach))
        if size[2] < 1.2 and rng.random() < 0.4:
            self._box((x, y, size[2] - 0.02), (size[0], size[1], 0.04), "table", yaw)
            at = _around(x, y, yaw)
            for a, b in CORNERS:
                leg = at(a * (size[0] / 2 - 0.05), b * (size[1] / 2 - 0.05), size[2] / 2)
                self._box(leg, (0.05, 0.05, size[2]), "table", yaw)
        else:
            self._box((x, y, size[2] / 2), size, "cabinet", yaw)

    def _rack(self, y: float) -> None:
        """Boards on posts with boxes on them, along x."""
        rng, (w, _, h) = self.rng, self.size
        low, high = rng.uniform(0.5, 3), w - rng.uniform(0.5, 3)
        deep, tall, step = rng.uniform(0.6, 1.2), min(rng.uniform(2, 6), h - 1.5), rng.uniform(0.8, 1.6)
        for x in np.arange(low, high, 2.7):
            for side in (-1, 1):
                self._box((x, y + side * deep / 2, tall / 2), (0.08, 0.08, tall), "shelf")
        for z in np.arange(0.12, tall, step):
            self._box(((low + high) / 2, y, z), (high - low, deep, 0.05), "shelf")
            for x in np.arange(low + 0.6, high - 0.5, 1.2):
                if rng.random() < 0.6:
                    size = rng.uniform([0.3, 0.3, 0.2], [1.1, deep, 0.75 * step])
                    self._box((x, y, z + 0.025 + size[2] / 2), size, "clutter")
        for x in np.arange(low, high, 0.8):
            self.taken.append((float(x), y, float(deep / 2)))

    def _tripod(self, x: float, y: float) -> None:
        h, turn = self.rng.uniform(1.0, 1.7), self.rng.uniform(0, 2)
        for angle in turn + np.arange(3) * 2 * np.pi / 3:
            self._rod((x + 0.4 * np.cos(angle), y + 0.4 * np.sin(angle), 0), (x, y, 0.8 * h), 0.017, "clutter")
        self._rod((x, y, 0.75 * h), (x, y, h), 0.02, "clutter")
        self._box((x, y, h + 0.06), (0.16, 0.12, 0.12), "clutter", turn)

    def _stand(self, x: float, y: float) -> None:
        """A coat stand, with a coat at times."""
        h = self.rng.uniform(1.6, 1.9)
        self._rod((x, y, 0), (x, y, h), 0.022, "clutter")
        self._rod((x, y, 0), (x, y, 0.03), 0.2, "clutter")
        for angle in np.arange(4) * np.pi / 2:
            self._rod(
                (x, y, h - 0.15), (x + 0.16 * np.cos(angle), y + 0.16 * np.sin(angle), h - 0.05), 0.012, "clutter"
            )
        for _ in range(int(self.rng.integers(0, 3))):
            dx, dy = self.rng.uniform(-0.14, 0.14, 2)
            self._ball((x + dx, y + dy, h - 0.6), (0.15, 0.11, 0.48), "clutter", self.rng.uniform(0, 3))

    def _lamp(self, x: float, y: float) -> None:
        h = self.rng.uniform(1.3, 1.8)
        self._rod((x, y, 0), (x, y, h), 0.014, "lamp")
        self._rod((x, y, 0), (x, y, 0.03), 0.14, "lamp")
        self._rod((x, y, h - 0.02), (x, y, h + 0.24), self.rng.uniform(0.12, 0.22), "lamp")

    def _plant(self, x: float, y: float) -> None:
        r, h = self.rng.uniform(0.12, 0.22), self.rng.uniform(0.2, 0.4)
        self._rod((x, y, 0), (x, y, h), r, "plant")
        for _ in range(int(self.rng.integers(6, 16))):
            place = np.array([x, y, h]) + self.rng.uniform([-0.35, -0.35, 0.1], [0.35, 0.35, 1.1])
            self._rod((x, y, h), place, 0.01, "plant")
            self._ball(place, (0.14, 0.05, 0.03), "plant", self.rng.uniform(0, 6))

    def _chair(self, x: float, y: float, yaw: float | None = None) -> None:
        yaw = self.rng.uniform(0, 6) if yaw is None else yaw
        at = _around(x, y, yaw)
        self._box((x, y, 0.45), (0.44, 0.44, 0.05), "chair", yaw)
        self._box(at(-0.2, 0, 0.72), (0.03, 0.42, 0.4), "chair", yaw)
        for a, b in CORNERS:
            self._rod(at(0.19 * a, 0.19 * b, 0), at(0.19 * a, 0.19 * b, 0.44), 0.016, "chair")

    def _dummy(self, x: float, y: float) -> None:
        """A tailor's: a trunk on a pole, without head, arms and legs."""
        h = self.rng.uniform(1.3, 1.55)
        self._rod((x, y, 0), (x, y, h - 0.5), 0.02, "clutter")
        self._rod((x, y, 0), (x, y, 0.03), 0.2, "clutter")
        self._ball((x, y, h - 0.3), (0.13, 0.19, 0.36), "clutter", self.rng.uniform(0, 6))

    def _standing(self, x: float, y: float) -> None:
        self._person(x, y, self.rng.uniform(0, 2 * np.pi))

    def _sitting(self, x: float, y: float) -> None:
        yaw = self.rng.uniform(0, 2 * np.pi)
        self._chair(x, y, yaw)
        self._person(x, y, yaw, sits=True)

    def _with_board(self, x: float, y: float) -> None:
        yaw = self.rng.uniform(0, 2 * np.pi)
        self._person(x, y, yaw, reach=0.8)
        self._box(_around(x, y, yaw)(0.36, 0, 1.05), (0.02, 0.8, 0.6), "clutter", yaw)

    def _with_trolley(self, x: float, y: float) -> None:
        yaw = self.rng.uniform(0, 2 * np.pi)
        at = _around(x, y, yaw)
        self._person(x, y, yaw, reach=0.9)
        self._box(at(0.95, 0, 0.25), (0.8, 0.5, 0.06), "clutter", yaw)
        self._box(at(0.95, 0, 0.48), (0.5, 0.4, 0.4), "clutter", yaw)
        for side in (-0.22, 0.22):
            self._rod(at(0.55, side, 0.05), at(0.55, side, 1.0), 0.015, "clutter")
        self._rod(at(0.55, -0.22, 1.0), at(0.55, 0.22, 1.0), 0.015, "clutter")

    def _person(self, x: float, y: float, yaw: float, sits: bool = False, reach: float = 0.15) -> None:
        """Of sticks and balls; `reach` is how far the arms are stretched ahead (0..1)."""
        rng, at = self.rng, _around(x, y, yaw)
        tall, wide = rng.uniform(1.55, 1.92), rng.uniform(0.9, 1.2)
        hip = 0.5 if sits else 0.51 * tall
        shoulder, head = hip + 0.31 * tall, hip + 0.43 * tall
        self._ball(at(0, 0, (hip + shoulder) / 2), (0.12 * wide, 0.18 * wide, 0.2 * tall), "person", yaw)
        self._ball(at(0, 0, shoulder - 0.05), (0.1, 0.22 * wide, 0.1), "person", yaw)
        self._ball(at(0.01, 0, head), (0.1, 0.08, 0.13), "person", yaw)
        self._rod(at(0, 0, shoulder - 0.05), at(0, 0, head), 0.05, "person")
        step = 0.0 if sits else float(rng.uniform(0, 0.25))
        for side in (-1, 1):
            knee = at(0.4, 0.1 * side, hip) if sits else at(step * side * 0.5, 0.09 * side, hip / 2)
            foot = at(0.42, 0.1 * side, 0.04) if sits else at(step * side, 0.09 * side, 0.04)
            self._rod(at(0, 0.09 * side, hip), knee, 0.075 * wide, "person")
            self._rod(knee, foot, 0.055 * wide, "person")
            toes = np.array([0.06 * np.cos(yaw), 0.06 * np.sin(yaw), 0])
            self._ball(foot + toes, (0.13, 0.045, 0.05), "person", yaw)
            elbow = at(0.2 * reach, 0.24 * side * wide, shoulder - 0.3 + 0.1 * reach)
            self._rod(at(0, 0.21 * side * wide, shoulder - 0.03), elbow, 0.045, "person")
            self._rod(elbow, at(0.05 + 0.42 * reach, 0.22 * side, shoulder - 0.5 + 0.25 * reach), 0.036, "person")

    # -- solids

    def _place(self, radius: float) -> tuple[float, float] | None:
        """Free floor for something of that radius."""
        for _ in range(20):
            x, y = self.rng.uniform([radius, radius], self.size[:2] - radius)
            if all(np.hypot(x - a, y - b) > radius + r for a, b, r in self.taken):
                self.taken.append((float(x), float(y), radius))
                return float(x), float(y)
        return None

    def _box(self, centre: object, size: object, label: str, yaw: float = 0.0) -> None:
        self._add(BOX, centre, np.asarray(size, np.float64) / 2, _about_z(yaw), label)

    def _ball(self, centre: object, half: object, label: str, yaw: float = 0.0) -> None:
        self._add(BALL, centre, np.asarray(half, np.float64), _about_z(yaw), label)

    def _rod(self, start: object, end: object, radius: float, label: str) -> None:
        start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
        length = float(np.linalg.norm(end - start))
        axis = (end - start) / length
        side = np.cross(axis, [1.0, 0, 0] if abs(axis[0]) < 0.9 else [0, 1.0, 0])
        side /= np.linalg.norm(side)
        turn = np.stack([side, np.cross(axis, side), axis], axis=1)
        self._add(CYLINDER, (start + end) / 2, np.array([radius, radius, length / 2]), turn, label)

    def _add(self, shape: int, centre: object, half: Array, turn: Array, label: str) -> None:
        albedo = float(self.rng.uniform(0.1, 0.9))
        self.solids.append(Solid(shape, np.asarray(centre, np.float64), half, turn, label, albedo))

    # -- the scan

    def scan(self, rng: Rng, sensor: str) -> tuple[Scan, UInt8, float]:
        """One turn from a free place: the scan, (N,) labels in `indoor`, and the height above the floor."""
        edge = 0.45
        for _ in range(100):
            x, y = rng.uniform([edge, edge], self.size[:2] - edge)
            if all(np.hypot(x - a, y - b) > r + 0.3 for a, b, r in self.taken):
                break
        height = float(rng.uniform(0.4, 1.5))
        place = np.array([x, y, height])
        low, high, count = RINGS[sensor]
        altitude = np.radians(np.linspace(high, low, count))[:, None]
        azimuth = np.linspace(np.pi, -np.pi, COLUMNS, endpoint=False)[None] + rng.uniform(0, 2 * np.pi)
        parts = np.cos(altitude) * np.cos(azimuth), np.cos(altitude) * np.sin(azimuth), np.sin(altitude) + 0 * azimuth
        directions = np.stack(parts, axis=2).reshape(-1, 3)  # (N, 3)
        distance, cosine, albedo, label = self._cast(place, directions)
        distance = distance + rng.normal(0, NOISE, len(distance))
        returned = (rng.random(len(distance)) > LOST) & (distance > 0.2) & (distance < FARTHEST)
        distance = np.where(returned, distance, 0)
        xyz = np.where(returned[:, None], distance[:, None] * directions, 0).astype(np.float32)
        intensity = 250 * albedo * cosine / (1 + (distance / 6) ** 2) * rng.normal(1, 0.05, len(distance))
        truth = np.where(returned, label, np.uint8(UNLABELLED))
        scan = Scan(xyz, np.where(returned, intensity.clip(0, 255), 0).astype(np.float32), shape=(count, COLUMNS))
        return scan, truth, height

    def _cast(self, place: Array, directions: Array) -> tuple[Array, Array, Array, UInt8]:
        """Range, |cosine| of incidence, albedo and class of the first surface that each ray meets; (N,) each."""
        indoor = LabelSpace.load("indoor")
        id_of = {name: indoor.classes[number].id for number, name in enumerate(indoor.names)}
        with np.errstate(divide="ignore", invalid="ignore"):
            ahead = np.where(directions > 0, self.size - place, -place) / directions
            ends = np.where(directions == 0, np.inf, ahead)  # (N, 3)
        axis = ends.argmin(axis=1)
        rows = np.arange(len(axis))
        if self.open:
            ends = np.where((np.arange(3) == 2) & (directions < 0), ends, np.inf)
            axis[:] = 2
        distance, cosine = ends[rows, axis], np.abs(directions[rows, axis])
        upper = directions[rows, axis] > 0
        albedo = self.albedo[2 * axis + upper]
        flat = np.where(upper, id_of["ceiling"], id_of["floor"])
        label = np.where(axis == 2, flat, id_of["wall"]).astype(np.uint8)
        for solid in self.solids:
            centre = solid.centre - place
            along = directions @ centre
            radius2 = float(solid.half @ solid.half)
            near = np.flatnonzero((centre @ centre - along**2 < radius2) & (along > -np.sqrt(radius2)))
            if not len(near):
                continue
            entry, normal = _enter(solid, -centre, directions[near])
            first = entry < distance[near]
            hit = near[first]
            distance[hit], label[hit], albedo[hit] = entry[first], id_of[solid.label], solid.albedo
            cosine[hit] = np.abs((normal[first] * directions[hit]).sum(axis=1))
        return distance, cosine, albedo, label


def _enter(solid: Solid, origin: Array, directions: Array) -> tuple[Array, Array]:
    """Where rays from outside enter a solid, infinite where they miss it: (N,) metres, (N, 3) unit normals there."""
    o = (origin @ solid.turn) / solid.half  # of the unit shape
    d = (directions @ solid.turn) / solid.half
    with np.errstate(divide="ignore", invalid="ignore"):
        slab_near, slab_far = np.minimum((-1 - o) / d, (1 - o) / d), np.maximum((-1 - o) / d, (1 - o) / d)
        axes = 3 if solid.shape == BALL else 2  # of the round part
        a, b = (d[:, :axes] ** 2).sum(axis=1), d[:, :axes] @ o[:axes]
        root = np.sqrt(b**2 - a * (o[:axes] @ o[:axes] - 1))  # NaN where the ray passes by
        round_near, round_far = (-b - root) / a, (-b + root) / a
        if solid.shape == BOX:
            near, far = slab_near.max(axis=1), slab_far.min(axis=1)
        elif solid.shape == BALL:
            near, far = round_near, round_far
        else:
            near, far = np.fmax(round_near, slab_near[:, 2]), np.fmin(round_far, slab_far[:, 2])
            near[np.isnan(root)] = np.nan
        hit = (near <= far) & (near > 0)
    where = o + np.where(hit, near, 1)[:, None] * d
    normal = where.copy()
    if solid.shape == BOX:
        normal = np.sign(where) * (np.abs(where) > 0.999)
    elif solid.shape == CYLINDER:
        cap = np.abs(where[:, 2]) > 0.999
        normal = np.where(cap[:, None], [0, 0, 1.0], where * [1, 1, 0])
    normal = (normal / solid.half) @ solid.turn.T
    normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(1e-12)
    return np.where(hit, near, np.inf), normal


def _around(x: float, y: float, yaw: float) -> Callable[[float, float, float], Array]:
    """Gives the place (3,) so far ahead of, left of and above a point of the floor, as seen in that direction."""
    c, s = np.cos(yaw), np.sin(yaw)
    return lambda ahead, left, up: np.array([x + c * ahead - s * left, y + s * ahead + c * left, up])


def _about_z(yaw: float) -> Array:
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])

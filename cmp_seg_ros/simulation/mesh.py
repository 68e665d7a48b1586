"""Triangle meshes with a class and a material per triangle: all geometry of the simulated world."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Float32, Float64, Int32, UInt8

Rng = np.random.Generator
Transform = Float64  # (..., 4, 4)
Point = Sequence[float] | npt.NDArray[np.floating]


@cache
def indoor() -> LabelSpace:
    """The label space of every simulated triangle."""
    return LabelSpace.load("indoor")


@cache
def class_id(name: str) -> int:
    """Id of the class `name` in the label space `indoor`."""
    space = indoor()
    return space.classes[space.names.index(name)].id


@dataclass(frozen=True)
class Material:
    """Optical properties of a surface for lidars and cameras.

    Args:
        color: (r, g, b), 0..1.
        reflectivity: diffuse, 0..1, at the lidar's wavelength (about 0.85 to 0.9 um).
        gloss: 0..1, share of specularly reflected light; the rest is diffuse.
        transmission: 0..1, share of rays that pass through (glass, meshes).
        texture: name of a procedural texture of `camera.py`, or "".
    """

    color: tuple[float, float, float]
    reflectivity: float
    gloss: float = 0.0
    transmission: float = 0.0
    texture: str = ""


@dataclass(frozen=True)
class Mesh:
    """Triangles in metres, each with a class of `indoor` and a material.

    Args:
        triangles: (T, 3, 3) float32 corners.
        label: (T,) uint8.
        material: (T,) int32 index into `materials`.
        materials: the table.
    """

    triangles: Float32
    label: UInt8
    material: Int32
    materials: tuple[Material, ...]

    def __len__(self) -> int:
        return len(self.triangles)


_CUBE_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)], dtype=np.float32)
_CUBE_FACES = np.array(
    [
        *([0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1]),
        *([2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]),
    ]
)
CUBE = _CUBE_CORNERS[_CUBE_FACES]  # (12, 3, 3), side 1, centred


@cache
def _circle(sides: int) -> Float32:
    """(sides + 1, 2) unit circle, closed."""
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


@cache
def _sphere(sides: int) -> Float32:
    """(T, 3, 3) unit sphere of latitude rings."""
    rings = max(3, sides // 2)
    polar = np.linspace(0, np.pi, rings + 1)
    x, y = np.sin(polar)[:, None] * _circle(sides).T[:, None]  # (rings + 1, sides + 1) each
    return grid_triangles(np.stack([x, y, np.cos(polar)[:, None] * np.ones(sides + 1)], axis=2))


def grid_triangles(points: npt.NDArray[np.floating]) -> Float32:
    """(R, C, 3) points of a curved sheet -> its (2 (R-1) (C-1), 3, 3) triangles."""
    a, b, c, d = points[:-1, :-1], points[:-1, 1:], points[1:, 1:], points[1:, :-1]
    lower, upper = np.stack([a, b, c], axis=2), np.stack([a, c, d], axis=2)
    return np.concatenate([lower.reshape(-1, 3, 3), upper.reshape(-1, 3, 3)]).astype(np.float32)


def rotation_z(yaw: float) -> Float32:
    """(3, 3) rotation about z."""
    c, s = np.cos(yaw), np.sin(yaw)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=np.float32)


class Shape:
    """Builds a mesh from primitives; `finish` returns it. Primitives have a class name and a material.

    `surface` is (width, depth, height) of a free top on which things may stand, or None.
    """

    def __init__(self) -> None:
        self.surface: tuple[float, float, float] | None = None
        self._triangles: list[Float32] = []
        self._labels: list[UInt8] = []
        self._materials: list[Int32] = []
        self._table: dict[Material, int] = {}

    def add(self, triangles: Float32, label: str, material: Material) -> None:
        """Add (T, 3, 3) triangles."""
        index = self._table.setdefault(material, len(self._table))
        self._triangles.append(triangles)
        self._labels.append(np.full(len(triangles), class_id(label), dtype=np.uint8))
        self._materials.append(np.full(len(triangles), index, dtype=np.int32))

    def box(
        self, center: Point, size: Point, label: str, material: Material, yaw: float = 0.0, tilt: float = 0.0
    ) -> None:
        """Add a box, rotated by `tilt` about its own x axis, then by `yaw` about z."""
        triangles = CUBE * np.asarray(size, dtype=np.float32)
        if tilt:
            c, s = np.cos(tilt), np.sin(tilt)
            triangles = triangles @ np.array([[1, 0, 0], [0, c, s], [0, -s, c]], dtype=np.float32)
        if yaw:
            triangles = triangles @ rotation_z(yaw).T
        self.add(triangles + np.asarray(center, dtype=np.float32), label, material)

    def slab(self, low: Point, high: Point, label: str, material: Material) -> None:
        """Add an axis-aligned box from corner to corner."""
        low, high = np.asarray(low, dtype=np.float32), np.asarray(high, dtype=np.float32)
        self.add(CUBE * (high - low) + (low + high) / 2, label, material)

    def quad(self, a: Point, b: Point, c: Point, d: Point, label: str, material: Material) -> None:
        """Add a planar quadrilateral."""
        self.add(np.array([[a, b, c], [a, c, d]], dtype=np.float32), label, material)

    def tube(
        self,
        p: Point,
        q: Point,
        radius: float,
        label: str,
        material: Material,
        end: float | None = None,
        sides: int = 8,
    ) -> None:
        """Add a capped cylinder or cone from `p` (radius) to `q` (radius `end`)."""
        p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
        axis = (q - p) / max(float(np.linalg.norm(q - p)), 1e-9)
        helper = np.array([1.0, 0, 0]) if abs(axis[0]) < 0.9 else np.array([0, 1.0, 0])
        u = np.cross(axis, helper)
        u /= np.linalg.norm(u)
        ring = _circle(sides)[:, :1] * u + _circle(sides)[:, 1:] * np.cross(axis, u)
        far = radius if end is None else end
        points = np.stack([p + 0 * ring, p + radius * ring, q + far * ring, q + 0 * ring])
        self.add(grid_triangles(points), label, material)

    def ellipsoid(
        self, center: Point, radii: Point, label: str, material: Material, yaw: float = 0.0, sides: int = 8
    ) -> None:
        triangles = _sphere(sides) * np.asarray(radii, dtype=np.float32)
        if yaw:
            triangles = triangles @ rotation_z(yaw).T
        self.add(triangles + np.asarray(center, dtype=np.float32), label, material)

    def put(self, other: "Shape", position: Point, yaw: float = 0.0) -> None:
        """Add another shape, rotated by `yaw` and moved."""
        if not other._triangles:
            return
        translate = np.asarray(position, dtype=np.float32)
        if translate.shape == (2,):
            translate = np.append(translate, np.float32(0))
        turn = rotation_z(yaw).T
        indices = np.array([self._table.setdefault(m, len(self._table)) for m in other._table], dtype=np.int32)
        self._triangles.append(np.concatenate(other._triangles) @ turn + translate)
        self._labels.append(np.concatenate(other._labels))
        self._materials.append(indices[np.concatenate(other._materials)])

    def filled(self) -> bool:
        """Whether the shape has any triangles."""
        return bool(self._triangles)

    def bounds(self) -> tuple[Float32, Float32]:
        """Minimum and maximum corner, (3,) each."""
        corners = np.concatenate(self._triangles).reshape(-1, 3)
        return corners.min(axis=0), corners.max(axis=0)

    def finish(self) -> Mesh:
        if not self._triangles:
            return Mesh(np.zeros((0, 3, 3), np.float32), np.zeros(0, np.uint8), np.zeros(0, np.int32), ())
        return Mesh(
            np.ascontiguousarray(np.concatenate(self._triangles), dtype=np.float32),
            np.concatenate(self._labels),
            np.concatenate(self._materials),
            tuple(self._table),
        )

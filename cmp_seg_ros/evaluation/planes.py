"""The plane check: how well labels fit the floor, the ceiling and the walls of a scan that nobody labelled.

    planes = find_planes(xyz)                 # (N, 3) with z about upwards, the sensor at the origin
    score(planes, label, space)               # {"floor": {"recall", "precision", "points"}, "ceiling", "wall"}

1. A normal for every point, from the smallest neighbourhood that shows a surface (see `surface_normals`).
2. The vertical, from the normals: parallel to those of floors and ceilings, perpendicular to those of walls.
3. Level planes as peaks over height, walls as peaks of a Hough transform from above; each fitted by least squares.
4. The floor is large, level, seen from above and the lowest: next to nothing around it is below it. Several levels can
   be floor, such as a room's and the ground outside its window. The ceiling likewise.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, UInt8

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

# The yardstick: metres, degrees, square metres.
NEAR = 0.10  # a point is on a plane within this distance
ALIKE = 35  # and with a normal within this angle
TALL = 1.8  # height above the floor that makes a wall; furniture may hide its foot
SEEN = 1.0  # height that must be seen of it
SLACK = 0.01  # of the range: how well a plane is known beyond 10 m, where few of its points are
LARGE = 4.0  # area that makes a wall
OPEN = 2.0  # area that makes a floor or ceiling: in a small furnished room a lidar sees no more

# How planes are found.
RADII = (0.25, 0.4, 0.64, 1.0, 1.6)  # of neighbourhoods; the largest spans two rings of 16 beams on a distant floor
NEIGHBOURS = 32  # at most; a disc of radius r holds some 28 voxels of r / 3
FEW = 6  # neighbours that tell no normal
WIDE = 0.5  # across / along a neighbourhood: less is a line, such as a single ring
FLAT = 0.3  # thickness / width of a neighbourhood: more is no surface
STEEP = 10  # degrees from level at which a plane is neither floor nor ceiling
VOTING = 25  # degrees between a normal and that of the plane it votes for
GAP = 2.0  # metres without a point along a wall that end it: more than a door
CELL = 0.4  # metres, to measure an area that rings cover sparsely
BEYOND = 0.2  # metres below the floor (above the ceiling) that count as beyond it: more than a step
STRAYS = 0.2  # points that may lie there for each on the plane: reflections, a stair
AROUND = 1.0  # metres around a plane that tell whether something is beyond it
UPRIGHT = 0.01  # weight of z as the vertical, against the normals; it decides where these say nothing
MAX_TILT = 20  # degrees between z and the vertical that are worth a word


class Plane(NamedTuple):
    """normal @ x = offset; the unit normal of floors and ceilings points up. A wall ends: start <= along @ x <= end."""

    normal: Float64
    offset: float
    along: Float64 = np.zeros(3)
    start: float = 0.0
    end: float = 0.0

    def distance(self, xyz: npt.NDArray[Any]) -> Float64:
        """(N,) signed distances of (N, 3) points."""
        signed: Float64 = xyz @ self.normal - self.offset
        return signed

    def near(self, xyz: npt.NDArray[Any], within: float | Float64 = NEAR) -> Bool:
        """(N,) which of (N, 3) points are `within` metres of the plane."""
        along = xyz @ self.along
        ends = (along >= self.start - NEAR) & (along <= self.end + NEAR)
        close: Bool = (np.abs(self.distance(xyz)) <= within) & ends
        return close


@dataclass(frozen=True)
class Planes:
    """What was found in the N points of a scan.

    Args:
        floor, ceiling: levels, by decreasing support; empty where there is none.
        walls: planes.
        overhead: level planes above head height: the ceiling, and beams or ducts below it, which may be called ceiling.
        up: (3,) the vertical.
        xyz: (N, 3) points; NaN where there is no return.
        normals: (N, 3) unit normals of either sign; NaN where none can be told.
    """

    floor: list[Plane]
    ceiling: list[Plane]
    walls: list[Plane]
    overhead: list[Plane]
    up: Float64
    xyz: Float32
    normals: Float64

    def on(self, planes: list[Plane]) -> Bool:
        """(N,) points that lie on one of `planes`, and whose normal says so."""
        found = np.zeros(len(self.xyz), dtype=bool)
        for plane in planes:
            alike = np.abs(self.normals @ plane.normal) >= np.cos(np.radians(ALIKE))
            found |= plane.near(self.xyz) & alike
        return found

    def along(self, planes: list[Plane]) -> Bool:
        """(N,) points that may be of one of `planes`: near it, as far as it is known there, and not crossing it."""
        found = np.zeros(len(self.xyz), dtype=bool)
        within = np.maximum(NEAR, SLACK * np.linalg.norm(self.xyz, axis=1))
        for plane in planes:
            crossing = np.abs(self.normals @ plane.normal) < np.sin(np.radians(ALIKE))
            found |= plane.near(self.xyz, within) & ~crossing
        return found

    def tilt(self) -> float:
        """Degrees between z and the vertical."""
        return float(np.degrees(np.arccos(np.clip(self.up[2], -1, 1))))


def find_planes(xyz: Float32) -> Planes:
    """The floor, the ceiling and the walls around a lidar.

    Args:
        xyz: (N, 3) float32, metres, the sensor at the origin, z upwards within some 30 degrees; what is not finite or
            is at the origin is no return.
    """
    returns = np.flatnonzero(np.isfinite(xyz).all(axis=1) & xyz.any(axis=1))
    points, voxel_of = thin(xyz[returns].astype(np.float64), RADII[0] / 3)  # (M, 3), (R,)
    voxel_normals = surface_normals(points)
    known = np.isfinite(voxel_normals).all(axis=1)
    seen, facing = points[known], voxel_normals[known]
    up = vertical(facing)
    level = level_planes(seen, facing, up)
    all_xyz = np.full(xyz.shape, np.nan, dtype=np.float32)
    all_xyz[returns] = xyz[returns]
    normals = np.full(xyz.shape, np.nan)
    normals[returns] = voxel_normals[voxel_of]
    floor = [plane for plane in level if plane.offset < 0 and _outermost(plane, points, -1)]
    ceiling = [plane for plane in level if plane.offset > 0 and _outermost(plane, points, 1)]
    # A floor that is not seen is lower than next to all that is seen.
    ground = floor[0].offset if floor else float(np.quantile(points @ up, 0.02)) if len(points) else 0.0
    overhead = [
        plane for plane in level if plane.offset > 0 and (_outermost(plane, points, 1) or plane.offset - ground >= TALL)
    ]
    return Planes(floor, ceiling, wall_planes(seen, facing, up, ground), overhead, up, all_xyz, normals)


def thin(xyz: Float64, size: float) -> tuple[Float64, Int64]:
    """(M, 3) means of the (N, 3) points in each voxel of `size` metres, and (N,) the voxel of each point."""
    if not len(xyz):
        return xyz, np.zeros(0, dtype=np.int64)
    key = np.floor(xyz / size).astype(np.int64)
    key -= key.min(axis=0)
    _, high, wide = key.max(axis=0) + 1
    _, voxel_of, count = np.unique(
        (key[:, 0] * high + key[:, 1]) * wide + key[:, 2], return_inverse=True, return_counts=True
    )
    means = np.stack([np.bincount(voxel_of, weights=column) for column in xyz.T], axis=1) / count[:, None]
    return means, voxel_of


def surface_normals(points: Float64) -> Float64:
    """(M, 3) unit normals of either sign at (M, 3) thinned points; NaN where none can be told.

    Principal axes of a neighbourhood. A lidar's rings are dense along and sparse across, so that the nearest
    neighbours of a point lie on a line; neighbourhoods are thinned to a third of their radius, and the radius grows
    until they are wide as well as long, and flat (the scale of each point, as in Demantke et al., Dimensionality based
    scale selection in 3D lidar point clouds, 2011).
    """
    from scipy.spatial import cKDTree

    normals = np.full(points.shape, np.nan)
    open_ = np.arange(len(points))
    for radius in RADII:
        if not len(open_):
            break
        around, _ = thin(points, radius / 3)
        _, index = cKDTree(around).query(points[open_], k=NEIGHBOURS, distance_upper_bound=radius)  # (K, 32)
        there = index < len(around)
        count = there.sum(axis=1)
        offset = np.where(there[..., None], around[np.minimum(index, len(around) - 1)] - points[open_, None], 0)
        mean = offset.sum(axis=1) / np.maximum(count, 1)[:, None]
        covariance = np.einsum("kni,knj->kij", offset, offset) / np.maximum(count, 1)[:, None, None]
        spread, axes = np.linalg.eigh(covariance - mean[:, :, None] * mean[:, None, :])  # ascending
        thick, across, along = np.sqrt(np.maximum(spread, 0)).T
        wide = (count >= FEW) & (across >= WIDE * along)
        flat = wide & (thick <= FLAT * across)
        normals[open_[flat]] = axes[flat, :, 0]
        open_ = open_[~flat]
    return normals


def vertical(normals: Float64) -> Float64:
    """(3,) unit vector next to z to which (M, 3) normals are either parallel or perpendicular."""
    z = np.array([0.0, 0.0, 1.0])
    up = z
    for within in (35, 25, 15, 10, 10):
        cosine = np.abs(normals @ up)
        level = normals[cosine >= np.cos(np.radians(within))]
        upright = normals[cosine <= np.sin(np.radians(within))]
        prior = UPRIGHT * max(FEW, len(level) + len(upright)) * np.outer(z, z)
        _, axes = np.linalg.eigh(upright.T @ upright - level.T @ level - prior)
        up = axes[:, 0] * np.sign(axes[2, 0])
    return up


def level_planes(points: Float64, normals: Float64, up: Float64) -> list[Plane]:
    """Large planes about perpendicular to `up`, by decreasing support, normals upwards."""
    found: list[Plane] = []
    left = points[np.abs(normals @ up) >= np.cos(np.radians(VOTING))]
    x, y = _basis(up)
    bin_ = NEAR / 5
    while len(left) * CELL**2 >= OPEN:
        height = left @ up
        lowest = height.min()
        votes = np.bincount(((height - lowest) / bin_).astype(np.int64))
        at = lowest + bin_ * (0.5 + int(np.argmax(np.convolve(votes, np.ones(7), mode="same"))))
        plane = Plane(up, float(at))
        for _ in range(4):
            inliers = left[np.abs(plane.distance(left)) <= NEAR]
            plane = _fit_level(inliers, x, y, up) if len(inliers) >= FEW else plane
        inside = np.abs(plane.distance(left)) <= NEAR
        if _area(left[inside] @ np.stack([x, y], axis=1)) >= OPEN and plane.normal @ up >= np.cos(np.radians(STEEP)):
            found.append(plane)
        inside |= np.abs(height - at) <= bin_  # so that something goes
        left = left[~inside]
    return found


def wall_planes(points: Float64, normals: Float64, up: Float64, ground: float) -> list[Plane]:
    """Planes along `up` of at least LARGE and TALL, by decreasing support: straight lines seen from above.

    Args:
        ground: height of the floor.
    """
    upright = np.abs(normals @ up) <= np.sin(np.radians(VOTING))
    x, y = _basis(up)
    flat = points[upright] @ np.stack([x, y], axis=1)  # (K, 2)
    height = points[upright] @ up - ground
    facing = normals[upright] @ np.stack([x, y], axis=1)
    angle = np.degrees(np.arctan2(facing[:, 1], facing[:, 0])) % 180
    # Every point votes for the lines through it whose normals are like its own, at steps of a degree and a NEAR.
    turned = np.round(angle[:, None] + np.arange(-10, 11)).astype(np.int64) % 180  # (K, 21)
    radians = np.radians(turned)
    distance = flat[:, :1] * np.cos(radians) + flat[:, 1:] * np.sin(radians)
    reach = float(np.abs(distance).max(initial=0.0))
    columns = int(2 * reach / NEAR) + 2
    cell = turned * columns + ((distance + reach) / NEAR).astype(np.int64)
    left = np.arange(len(flat))
    found: list[Plane] = []
    while len(left) * CELL * TALL >= LARGE:
        votes = np.bincount(cell[left].ravel(), minlength=180 * columns)
        best = int(np.argmax(votes))
        if votes[best] < 3 * FEW:
            break
        theta = np.radians(best // columns)
        normal = np.array([np.cos(theta), np.sin(theta)])
        offset = (best % columns + 0.5) * NEAR - reach
        inside = np.abs(flat[left] @ normal - offset) <= NEAR
        for _ in range(4):
            alike = np.abs(facing[left] @ normal) >= np.cos(np.radians(ALIKE))
            chosen = flat[left[inside & alike]]
            if len(chosen) < FEW:
                break
            middle = chosen.mean(axis=0)
            normal = np.linalg.eigh(np.cov((chosen - middle).T))[1][:, 0]
            offset = float(middle @ normal)
            inside = np.abs(flat[left] @ normal - offset) <= NEAR
        inside &= np.abs(facing[left] @ normal) >= np.cos(np.radians(ALIKE))
        on = left[inside]
        along = np.array([-normal[1], normal[0]])
        found += [
            Plane(normal[0] * x + normal[1] * y, float(offset), along[0] * x + along[1] * y, start, end)
            for start, end in _walls(flat[on] @ along, height[on])
        ]
        gone = inside | (cell[left] == best).any(axis=1)
        left = left[~gone]
    return found


def score(planes: Planes, label: UInt8, space: LabelSpace) -> dict[str, Any]:
    """How well (N,) labels fit the planes.

    Returns:
        `{"floor": {"recall", "precision", "points"}, "ceiling": the same, "wall": {"recall", "planes"}}`. Recall: of
        the points on the plane, those so labelled (on walls: wall or flush). Precision: of the points so labelled,
        those on a level of it, or overhead (`Planes.along`). None where the plane, or such a label, is not there.
    """
    named = class_masks(space)
    result: dict[str, Any] = {}
    for name, levels, allowed in (
        ("floor", planes.floor, planes.floor),
        ("ceiling", planes.ceiling, planes.overhead),
    ):
        right = named[name][label]
        on = planes.on(levels)
        result[name] = {
            "recall": _share(right, on),
            "precision": _share(planes.along(allowed), right & (label != UNLABELLED)) if levels else None,
            "points": int(on.sum()),
        }
    result["wall"] = {
        "recall": _share(named["wall"][label], planes.on(planes.walls)),
        "planes": len(planes.walls),
    }
    return result


def class_masks(space: LabelSpace) -> dict[str, Bool]:
    """(256,) which ids of `space` are right on a floor, a ceiling and a wall. Raises UserError."""
    space6 = LabelSpace.load("structural6")
    try:
        to6 = space6.id_map(space)
    except UserError:
        to6 = None
    masks = {}
    for surface, names in {"floor": ["floor"], "ceiling": ["ceiling"], "wall": ["wall", "flush"]}.items():
        if to6 is None:
            ids = [c.id for c in space.classes if c.name in names]
            masks[surface] = np.isin(np.arange(256), ids)
        else:
            masks[surface] = np.isin(to6, [c.id for c in space6.classes if c.name in names])
        if not masks[surface].any():
            raise UserError(f"label space '{space.name}' has no {surface}; check planes with a model that knows one")
    return masks


def medians(scores: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure over the scans that have it; None where none has."""

    def median(surface: str, figure: str) -> float | None:
        values = [scan[surface][figure] for scan in scores if scan[surface][figure] is not None]
        return float(np.median(values)) if values else None

    figures = {"floor": ("recall", "precision", "points"), "ceiling": ("recall", "precision", "points")}
    return {
        surface: {figure: median(surface, figure) for figure in names}
        for surface, names in {**figures, "wall": ("recall", "planes")}.items()
    }


def _outermost(plane: Plane, points: Float64, side: int) -> bool:
    """Whether next to none of the (M, 3) points around a level plane lie beyond it: below (side -1) or above it (1)."""
    distance = plane.distance(points)
    x, y = _basis(plane.normal)
    cell = np.floor(points @ np.stack([x, y], axis=1) / AROUND).astype(np.int64).clip(-10_000, 10_000)
    key = (cell[:, 0] + 20_000) * 40_000 + cell[:, 1] + 20_000
    on = np.abs(distance) <= NEAR
    steps = [row * 40_000 + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
    around = np.isin(key, (np.unique(key[on])[:, None] + steps).ravel())
    beyond = around & (side * distance > BEYOND)
    return int(beyond.sum()) <= STRAYS * int(on.sum())


def _fit_level(points: Float64, x: Float64, y: Float64, up: Float64) -> Plane:
    """Least squares over height, with slopes held near zero where points do not tell them."""
    flat = points @ np.stack([x, y], axis=1)  # (K, 2)
    height = points @ up
    centre, middle = flat.mean(axis=0), height.mean()
    centred = flat - centre
    ridge = 0.1 * len(points) * np.eye(2)
    slope = np.linalg.solve(centred.T @ centred + ridge, centred.T @ (height - middle))
    normal = up - slope[0] * x - slope[1] * y
    length = float(np.linalg.norm(normal))
    return Plane(normal / length, float(middle - slope @ centre) / length)


def _basis(up: Float64) -> tuple[Float64, Float64]:
    """Two unit vectors perpendicular to `up` and to each other, the first next to x."""
    x = np.array([1.0, 0.0, 0.0]) - up[0] * up
    x /= np.linalg.norm(x)
    return x, np.cross(up, x)


def _area(flat: Float64) -> float:
    """Square metres of the cells that (K, 2) points touch."""
    return len(np.unique(np.floor(flat / CELL).astype(np.int64), axis=0)) * CELL**2


def _walls(along: Float64, height: Float64) -> list[tuple[float, float]]:
    """From where to where (K,) points of an upright plane are a wall: without a GAP, TALL and, by columns, LARGE.

    Args:
        height: above the floor.
    """
    order = np.argsort(along)
    walls = []
    for piece in np.split(order, np.flatnonzero(np.diff(along[order]) > GAP) + 1):
        if len(piece) < 3 * FEW or np.ptp(np.percentile(height[piece], [1, 99])) < SEEN:
            continue
        if np.percentile(height[piece], 99) < TALL:
            continue
        column = np.floor((along[piece] - along[piece[0]]) / CELL).astype(np.int64)
        top = np.full(column[-1] + 1, -np.inf)
        bottom = np.full(column[-1] + 1, np.inf)
        np.maximum.at(top, column, height[piece])
        np.minimum.at(bottom, column, height[piece])
        if CELL * np.maximum(top - bottom, 0).sum() >= LARGE:
            walls.append((float(along[piece[0]]), float(along[piece[-1]])))
    return walls


def _share(part: Bool, whole: Bool) -> float | None:
    count = int(whole.sum())
    return int((part & whole).sum()) / count if count else None

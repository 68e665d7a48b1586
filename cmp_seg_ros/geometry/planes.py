"""Floor, ceiling and walls around a lidar, by geometry alone.

    planes = find_planes(xyz)                 # (N, 3) with z roughly up, the sensor at the origin

1. A normal for every point, from the smallest neighbourhood that shows a surface (`normals.surface_normals`).
2. The vertical, from the normals: parallel to those of floors and ceilings, perpendicular to those of walls.
3. Level planes are peaks of a histogram of heights, walls are peaks of a Hough transform of the top view; each is
   refined by least squares.
4. The floor is a large, level plane below the sensor with almost no points below it. Several levels can be floor, such
   as a room's and the ground outside its window. Likewise for the ceiling.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry.normals import MIN_NEIGHBOURS, RADII, surface_normals, thin, vertical
from cmp_seg_ros.scan import Bool, Float32

Float64 = npt.NDArray[np.float64]

FAR = 100.0  # metres along an axis; points beyond are ignored: they are outside the building and would cost memory

# What counts as a plane, and which points lie on it: metres, degrees, square metres.
NEAR = 0.10  # a point is on a plane within this distance
MAX_NORMAL_ANGLE = 35  # and if its normal is within this angle of the plane's
MIN_WALL_TOP = 1.8  # height above the floor that a wall must reach; furniture may hide its foot
MIN_WALL_SEEN = 1.0  # visible height of a wall
RELATIVE_SLACK = 0.01  # of the range: uncertainty of a plane beyond 10 m, where it has few points
MIN_WALL_AREA = 4.0
MIN_LEVEL_AREA = 2.0  # of a floor or ceiling: in a small furnished room a lidar sees no more

# How planes are found.
MAX_LEVEL_TILT = 10  # degrees; a steeper plane is neither floor nor ceiling
VOTE_ANGLE = 25  # degrees between a point's normal and that of the plane it votes for
MAX_WALL_GAP = 2.0  # metres along a wall; a longer gap without points ends it: more than a door
CELL = 0.4  # metres; cells in which an area sparsely covered by rings is measured
MIN_BEYOND = 0.2  # metres below the floor (above the ceiling) that count as beyond it: more than a step
MAX_STRAYS = 0.2  # points beyond a plane, per point on it, that are tolerated: reflections, a stair
NEIGHBOURHOOD = 1.0  # metres around a plane in which points beyond it are searched
MAX_TILT = 20  # degrees between z and the vertical; more gives a warning
REACH = 1.2  # metres above a floor where furniture stands
WAY_UP_RATIO = 1.5  # how many times nearer and fuller the floor must be than the ceiling to tell them apart


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
    """Planes found in the N points of a scan.

    Args:
        floor, ceiling: level planes, by decreasing support; may be empty.
        walls: upright planes, by decreasing support.
        overhead: level planes above head height: the ceiling, and beams or ducts, for which the label ceiling is right.
        up: (3,) the vertical.
        xyz: (N, 3) points; NaN without a return.
        normals: (N, 3) unit normals of either sign; NaN where undetermined.
    """

    floor: list[Plane]
    ceiling: list[Plane]
    walls: list[Plane]
    overhead: list[Plane]
    up: Float64
    xyz: Float32
    normals: Float64

    def on(self, planes: list[Plane]) -> Bool:
        """(N,) whether a point lies on one of `planes`, by its distance and its normal."""
        found = np.zeros(len(self.xyz), dtype=bool)
        for plane in planes:
            alike = np.abs(self.normals @ plane.normal) >= np.cos(np.radians(MAX_NORMAL_ANGLE))
            found |= plane.near(self.xyz) & alike
        return found

    def along(self, planes: list[Plane]) -> Bool:
        """(N,) whether a point may belong to one of `planes`: near it within its uncertainty, normal not across it."""
        found = np.zeros(len(self.xyz), dtype=bool)
        within = np.maximum(NEAR, RELATIVE_SLACK * np.linalg.norm(self.xyz, axis=1))
        for plane in planes:
            crossing = np.abs(self.normals @ plane.normal) < np.sin(np.radians(MAX_NORMAL_ANGLE))
            found |= plane.near(self.xyz, within) & ~crossing
        return found

    def tilt(self) -> float:
        """Degrees between z and the vertical."""
        return float(np.degrees(np.arccos(np.clip(self.up[2], -1, 1))))

    def way_up(self) -> int:
        """1 if the floor is below, -1 if the lidar hangs upside down, 0 if undecided.

        A lidar is nearer to the floor than to the ceiling, and furniture stands on the floor; both cues must agree.
        """
        if not self.floor or not self.ceiling:
            return 0
        points, _ = thin(self.xyz[np.isfinite(self.xyz).all(axis=1)].astype(np.float64), RADII[0] / 3)
        free = ~np.any([wall.near(points) for wall in self.walls], axis=0) if self.walls else np.ones(len(points), bool)
        away, filled = [], []
        for levels, inwards in ((self.floor, 1), (self.ceiling, -1)):
            distance = inwards * np.stack([level.distance(points) for level in levels])  # (L, M)
            on = (np.abs(distance) <= NEAR).any(axis=0)
            beside = ((distance > MIN_BEYOND) & (distance < REACH)).any(axis=0) & free & ~on
            away.append(abs(levels[0].offset))
            filled.append(beside.sum() / max(1, on.sum()))
        for vote, (this, other) in ((1, (0, 1)), (-1, (1, 0))):
            if away[other] > WAY_UP_RATIO * away[this] and filled[this] > WAY_UP_RATIO * filled[other]:
                return vote
        return 0


def find_planes(xyz: Float32) -> Planes:
    """The floor, the ceiling and the walls around a lidar.

    Args:
        xyz: (N, 3) float32, metres, the sensor at the origin, z up within about 30 degrees; points that are not finite,
            beyond FAR or at the origin are ignored.
    """
    returns = np.flatnonzero((np.abs(xyz) <= FAR).all(axis=1) & (xyz != 0).any(axis=1))
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
    # An unseen floor is lower than almost all points.
    ground = floor[0].offset if floor else float(np.quantile(points @ up, 0.02)) if len(points) else 0.0
    overhead = [
        plane
        for plane in level
        if plane.offset > 0 and (_outermost(plane, points, 1) or plane.offset - ground >= MIN_WALL_TOP)
    ]
    return Planes(floor, ceiling, wall_planes(seen, facing, up, ground), overhead, up, all_xyz, normals)


def level_planes(points: Float64, normals: Float64, up: Float64) -> list[Plane]:
    """Large planes roughly perpendicular to `up`, by decreasing support, normals upwards."""
    found: list[Plane] = []
    left = points[np.abs(normals @ up) >= np.cos(np.radians(VOTE_ANGLE))]
    x, y = _basis(up)
    bin_ = NEAR / 5
    while len(left) * CELL**2 >= MIN_LEVEL_AREA:
        height = left @ up
        lowest = height.min()
        votes = np.bincount(((height - lowest) / bin_).astype(np.int64))
        at = lowest + bin_ * (0.5 + int(np.argmax(np.convolve(votes, np.ones(7), mode="same"))))
        plane = Plane(up, float(at))
        for _ in range(4):
            inliers = left[np.abs(plane.distance(left)) <= NEAR]
            plane = _fit_level(inliers, x, y, up) if len(inliers) >= MIN_NEIGHBOURS else plane
        inside = np.abs(plane.distance(left)) <= NEAR
        is_level = plane.normal @ up >= np.cos(np.radians(MAX_LEVEL_TILT))
        if is_level and _area(left[inside] @ np.stack([x, y], axis=1)) >= MIN_LEVEL_AREA:
            found.append(plane)
        inside |= np.abs(height - at) <= bin_  # so that the loop ends
        left = left[~inside]
    return found


def wall_planes(points: Float64, normals: Float64, up: Float64, ground: float) -> list[Plane]:
    """Planes along `up` of at least MIN_WALL_AREA and MIN_WALL_TOP, by decreasing support: lines in the top view.

    Args:
        ground: height of the floor.
    """
    upright = np.abs(normals @ up) <= np.sin(np.radians(VOTE_ANGLE))
    x, y = _basis(up)
    flat = points[upright] @ np.stack([x, y], axis=1)  # (K, 2)
    height = points[upright] @ up - ground
    facing = normals[upright] @ np.stack([x, y], axis=1)
    angle = np.degrees(np.arctan2(facing[:, 1], facing[:, 0])) % 180
    # Every point votes for lines through it with normals similar to its own, in steps of one degree and of NEAR.
    turned = np.round(angle[:, None] + np.arange(-10, 11)).astype(np.int64) % 180  # (K, 21)
    radians = np.radians(turned)
    distance = flat[:, :1] * np.cos(radians) + flat[:, 1:] * np.sin(radians)
    reach = float(np.abs(distance).max(initial=0.0))
    columns = int(2 * reach / NEAR) + 2
    cell = turned * columns + ((distance + reach) / NEAR).astype(np.int64)
    left = np.arange(len(flat))
    found: list[Plane] = []
    while len(left) * CELL * MIN_WALL_TOP >= MIN_WALL_AREA:
        votes = np.bincount(cell[left].ravel(), minlength=180 * columns)
        best = int(np.argmax(votes))
        if votes[best] < 3 * MIN_NEIGHBOURS:
            break
        theta = np.radians(best // columns)
        normal = np.array([np.cos(theta), np.sin(theta)])
        offset = (best % columns + 0.5) * NEAR - reach
        inside = np.abs(flat[left] @ normal - offset) <= NEAR
        for _ in range(4):
            alike = np.abs(facing[left] @ normal) >= np.cos(np.radians(MAX_NORMAL_ANGLE))
            chosen = flat[left[inside & alike]]
            if len(chosen) < MIN_NEIGHBOURS:
                break
            middle = chosen.mean(axis=0)
            normal = np.linalg.eigh(np.cov((chosen - middle).T))[1][:, 0]
            offset = float(middle @ normal)
            inside = np.abs(flat[left] @ normal - offset) <= NEAR
        inside &= np.abs(facing[left] @ normal) >= np.cos(np.radians(MAX_NORMAL_ANGLE))
        on = left[inside]
        along = np.array([-normal[1], normal[0]])
        found += [
            Plane(normal[0] * x + normal[1] * y, float(offset), along[0] * x + along[1] * y, start, end)
            for start, end in _walls(flat[on] @ along, height[on])
        ]
        gone = inside | (cell[left] == best).any(axis=1)
        left = left[~gone]
    return found


def _outermost(plane: Plane, points: Float64, side: int) -> bool:
    """Whether almost none of the (M, 3) points around a level plane lie beyond it: below (side -1) or above it (1)."""
    distance = plane.distance(points)
    x, y = _basis(plane.normal)
    cell = np.floor(points @ np.stack([x, y], axis=1) / NEIGHBOURHOOD).astype(np.int64).clip(-10_000, 10_000)
    key = (cell[:, 0] + 20_000) * 40_000 + cell[:, 1] + 20_000
    on = np.abs(distance) <= NEAR
    steps = [row * 40_000 + column for row in (-1, 0, 1) for column in (-1, 0, 1)]
    around = np.isin(key, (np.unique(key[on])[:, None] + steps).ravel())
    beyond = around & (side * distance > MIN_BEYOND)
    return int(beyond.sum()) <= MAX_STRAYS * int(on.sum())


def _fit_level(points: Float64, x: Float64, y: Float64, up: Float64) -> Plane:
    """Least squares of height over x and y, with slopes regularised towards zero."""
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
    """Two unit vectors perpendicular to `up` and to each other, the first near x."""
    x = np.array([1.0, 0.0, 0.0]) - up[0] * up
    x /= np.linalg.norm(x)
    return x, np.cross(up, x)


def _area(flat: Float64) -> float:
    """Area of the cells that (K, 2) points occupy, square metres."""
    return len(np.unique(np.floor(flat / CELL).astype(np.int64), axis=0)) * CELL**2


def _walls(along: Float64, height: Float64) -> list[tuple[float, float]]:
    """Intervals (start, end) along an upright plane where its K points form a wall.

    A wall has no gap over MAX_WALL_GAP, reaches MIN_WALL_TOP and covers MIN_WALL_AREA, measured in columns of cells.

    Args:
        height: above the floor.
    """
    order = np.argsort(along)
    walls = []
    for piece in np.split(order, np.flatnonzero(np.diff(along[order]) > MAX_WALL_GAP) + 1):
        if len(piece) < 3 * MIN_NEIGHBOURS or np.ptp(np.percentile(height[piece], [1, 99])) < MIN_WALL_SEEN:
            continue
        if np.percentile(height[piece], 99) < MIN_WALL_TOP:
            continue
        column = np.floor((along[piece] - along[piece[0]]) / CELL).astype(np.int64)
        top = np.full(column[-1] + 1, -np.inf)
        bottom = np.full(column[-1] + 1, np.inf)
        np.maximum.at(top, column, height[piece])
        np.minimum.at(bottom, column, height[piece])
        if CELL * np.maximum(top - bottom, 0).sum() >= MIN_WALL_AREA:
            walls.append((float(along[piece[0]]), float(along[piece[-1]])))
    return walls

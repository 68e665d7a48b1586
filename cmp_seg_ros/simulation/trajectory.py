"""A robot's trajectory through a building: smoothed shortest paths between random places."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.scan import Bool, Float32, Float64, Int64
from cmp_seg_ros.simulation.building import Building
from cmp_seg_ros.simulation.mesh import Rng
from cmp_seg_ros.simulation.raycast import Scene

Kind = Literal["wheeled", "handheld", "flying"]

CELL = 0.1  # metres
ROBOT_RADIUS = 0.3
HEIGHT = 1.6  # metres of free height that the robot needs
SPEED = 0.7  # metres per second
MAX_YAW_RATE = 0.8  # radians per second


@dataclass(frozen=True)
class Carrier:
    """Sway of a robot's base along its path, as slow sines.

    Args:
        mount: metres from the base to the lidar.
        rise: metres by which the base moves up and down above the floor.
        lean: largest roll and pitch, radians.
        period: seconds.
        flies: whether the lidar moves up and down over all the free height, within `FLIGHT`.
    """

    mount: float
    rise: float
    lean: float
    period: float
    flies: bool = False


CARRIERS: dict[Kind, Carrier] = {
    "wheeled": Carrier(0.9, 0.0, np.radians(0.4), 1.3),
    "handheld": Carrier(1.1, 0.2, np.radians(15), 1.7),
    "flying": Carrier(0.1, 0.0, np.radians(15), 4.0, flies=True),
}
FLIGHT = (0.3, 2.5)  # metres of the lidar above the floor
HEADROOM = 0.25  # metres above the lidar


class Trajectory:
    """Poses of the base at any time. The world frame is the building's, z up, the floor at 0.

    Args:
        times: (K,) seconds, increasing from 0.
        places: (K, 2) metres.
        yaw: (K,) radians, unwrapped.
        kind: of the carrier.
        rng: for its sway.
        above: (K,) free height above the floor, metres.
    """

    def __init__(self, times: Float64, places: Float64, yaw: Float64, kind: Kind, rng: Rng, above: Float64) -> None:
        self._times, self._places, self._yaw = times, places, yaw
        self._carrier = CARRIERS[kind]
        self._phase = rng.uniform(0, 2 * np.pi, (3, 2))
        self._period = self._carrier.period * rng.uniform(0.7, 1.4, (3, 2))
        self._period[2] *= 2.5  # vertical motion is slower than roll and pitch
        self._above = above

    @property
    def duration(self) -> float:
        """Seconds until the robot arrives; it then stands still."""
        return float(self._times[-1])

    def pose(self, times: Float64) -> Float64:
        """(N,) seconds -> (N, 4, 4) T_world_base."""
        from scipy.spatial.transform import Rotation

        times = np.asarray(times, dtype=np.float64)
        yaw = np.interp(times, self._times, self._yaw)
        waves = np.sin(2 * np.pi * times[:, None, None] / self._period + self._phase).sum(axis=2) / 2  # (N, 3)
        T = np.tile(np.eye(4), (len(times), 1, 1))
        lean = self._carrier.lean * waves[:, :2]
        angles = np.column_stack([lean, yaw])
        T[:, :3, :3] = Rotation.from_euler("xyz", angles).as_matrix()
        for axis in range(2):
            T[:, axis, 3] = np.interp(times, self._times, self._places[:, axis])
        T[:, 2, 3] = self._height(times, waves[:, 2])
        return T

    def _height(self, times: Float64, wave: Float64) -> Float64:
        """(N,) metres of the base above the floor, for (N,) waves from -1 to 1."""
        if not self._carrier.flies:
            return self._carrier.rise * (1 + wave)
        low, high = FLIGHT
        top = np.clip(np.interp(times, self._times, self._above) - HEADROOM, low, high)
        return low + (top - low) * (1 + wave) / 2 - self._carrier.mount

    def velocity(self, time: float) -> tuple[Float64, Float64]:
        """Linear and angular velocity (3,) each, in the base's frame, at `time`."""
        from scipy.spatial.transform import Rotation

        start, end = max(0.0, time - 0.01), time + 0.01
        before, after = self.pose(np.array([start, end]))
        elapsed = end - start
        turn = Rotation.from_matrix(before[:3, :3].T @ after[:3, :3]).as_rotvec()
        return before[:3, :3].T @ (after[:3, 3] - before[:3, 3]) / elapsed, turn / elapsed


class FreeSpace:
    """Which cells of a building's floor a robot can stand on, from a few horizontal sections through its mesh."""

    def __init__(self, building: Building) -> None:
        from scipy.ndimage import distance_transform_edt, label

        cells = np.array([room.cell for room in building.plan.rooms])
        self.origin = cells[:, :2].min(axis=0) - CELL
        self.shape = tuple(np.ceil((cells[:, 2:].max(axis=0) - self.origin) / CELL).astype(int) + 1)
        taken = np.ones(self.shape, dtype=bool)
        for rect in cells:
            taken[self._box(rect)] = False
        for rect in building.obstacles:
            taken[self._box(rect)] = True
        for points in sections(building.mesh.triangles, np.arange(0.06, HEIGHT, 0.22)):
            index = np.floor((points - self.origin) / CELL).astype(int)
            inside = ((index >= 0) & (index < self.shape)).all(axis=1)
            taken[tuple(index[inside].T)] = True
        self.clearance: Float64 = distance_transform_edt(~taken) * CELL
        parts, count = label(self.clearance > ROBOT_RADIUS)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)
        sizes[0] = 0
        self.free: Bool = parts == sizes.argmax() if count else np.zeros(self.shape, dtype=bool)

    def _box(self, rect: npt.ArrayLike) -> tuple[slice, slice]:
        x0, y0, x1, y1 = (np.asarray(rect).reshape(2, 2) - self.origin).ravel() / CELL
        return slice(max(0, int(x0)), int(x1) + 1), slice(max(0, int(y0)), int(y1) + 1)

    def centre(self, cells: npt.NDArray[np.integer]) -> Float64:
        """(K, 2) cells -> (K, 2) metres."""
        return self.origin + (np.asarray(cells) + 0.5) * CELL

    def clear(self, places: Float64) -> Float64:
        """(K, 2) metres -> (K,) distance to the nearest obstacle."""
        index = np.clip(((places - self.origin) / CELL).astype(int), 0, np.array(self.shape) - 1)
        return self.clearance[tuple(index.T)]

    def path(self, start: int, goals: Int64) -> list[Float64]:
        """Shortest paths from a free cell to each goal (cell numbers), away from obstacles where there is space."""
        from scipy.sparse.csgraph import dijkstra

        _, before = dijkstra(self._graph, directed=False, indices=start, return_predecessors=True)
        ways = []
        for goal in goals:
            way = [int(goal)]
            while way[-1] != start and before[way[-1]] >= 0:
                way.append(int(before[way[-1]]))
            cells = np.stack(np.unravel_index(way[::-1], self.shape), axis=1)
            ways.append(self.centre(cells))
        return ways

    @property
    def _graph(self):  # type: ignore[no-untyped-def]
        from scipy.sparse import csr_matrix

        number = np.arange(self.free.size).reshape(self.shape)
        cost = 1 + 2 * np.clip(0.8 - self.clearance, 0, None)
        rows, columns, weights = [], [], []
        for dx, dy in ((1, 0), (0, 1), (1, 1), (1, -1)):
            here = (slice(0, self.shape[0] - dx), slice(max(0, -dy), self.shape[1] - max(0, dy)))
            there = (slice(dx, self.shape[0]), slice(max(0, dy), self.shape[1] + min(0, dy)))
            both = self.free[here] & self.free[there]
            rows.append(number[here][both])
            columns.append(number[there][both])
            weights.append(np.hypot(dx, dy) * (cost[here][both] + cost[there][both]) / 2)
        entries = np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))
        return csr_matrix(entries, shape=(self.free.size, self.free.size))


def plan(building: Building, rng: Rng, seconds: float, kind: Kind = "wheeled") -> Trajectory:
    """Plan a trajectory of at least `seconds`, through as many rooms as the doors allow."""
    space = FreeSpace(building)
    numbers = np.flatnonzero(space.free)
    if len(numbers) < 30:  # no space to drive: turn on the spot
        place = building.free_places(rng, 1, 0.2)[0]
        times = np.linspace(0, seconds, 50)
        places = np.tile(place, (50, 1))
        return Trajectory(times, places, 0.3 * times, kind, rng, _above(building, places))
    at = int(rng.choice(numbers, p=_roomy(space, numbers)))
    places, needed = np.zeros((0, 2)), seconds * SPEED * 0.8 + 1.0
    for _ in range(40):
        candidates = rng.choice(numbers, 4, p=_roomy(space, numbers))
        ways = space.path(at, candidates)
        lengths = [_length(way) for way in ways]
        best = int(np.argmax(lengths)) if len(places) == 0 else int(rng.integers(4))
        if lengths[best] < 0.5:
            continue
        places = np.concatenate([places, ways[best][len(places) > 0 :]])
        at = int(candidates[best])
        smooth = _smooth(places, space)
        times, yaw = _timing(smooth)
        if _length(places) > needed and times[-1] >= seconds:
            break
    return Trajectory(times, smooth, yaw, kind, rng, _above(building, smooth))


def _above(building: Building, places: Float64) -> Float64:
    """(K, 2) places -> (K,) free height above the floor in metres, over the robot's width and a metre of the path."""
    from scipy.ndimage import gaussian_filter1d, minimum_filter1d

    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    disc = ROBOT_RADIUS * np.append(np.stack([np.cos(angle), np.sin(angle)], axis=1), [[0, 0]], axis=0)
    origins = np.full((len(places), len(disc), 3), HEIGHT - 0.1, dtype=np.float32)
    origins[..., :2] = places[:, None] + disc
    up = np.zeros_like(origins)
    up[..., 2] = 1
    reach = Scene(building.mesh).cast(origins.reshape(-1, 3), up.reshape(-1, 3)).distance.reshape(origins.shape[:2])
    free = np.minimum(HEIGHT - 0.1 + reach.min(axis=1), 2 * FLIGHT[1]).astype(np.float64)
    return np.asarray(gaussian_filter1d(minimum_filter1d(free, 51, mode="nearest"), 8, mode="nearest"))


def _roomy(space: FreeSpace, numbers: Int64) -> Float64:
    weight = np.minimum(space.clearance.ravel()[numbers], 1.0) ** 2
    return np.asarray(weight / weight.sum())


def _length(way: Float64) -> float:
    return float(np.linalg.norm(np.diff(way, axis=0), axis=1).sum())


def _smooth(way: Float64, space: FreeSpace) -> Float64:
    """Resample the path every 4 cm and round its corners as far as they stay clear of obstacles."""
    from scipy.ndimage import gaussian_filter1d

    along = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(way, axis=0), axis=1))])
    fine = np.linspace(0, along[-1], max(20, int(along[-1] / 0.04)))
    line = np.stack([np.interp(fine, along, way[:, axis]) for axis in range(2)], axis=1)
    for sigma in (12, 8, 5, 3):
        smooth = gaussian_filter1d(line, sigma, axis=0, mode="nearest")
        if space.clear(smooth).min() > 0.8 * ROBOT_RADIUS:
            return smooth
    return smooth


def _timing(way: Float64) -> tuple[Float64, Float64]:
    """Times at which the points of the path are reached, slower in bends, and yaw."""
    from scipy.ndimage import gaussian_filter1d

    step = np.diff(way, axis=0)
    heading = np.unwrap(np.arctan2(step[:, 1], step[:, 0]))
    heading = gaussian_filter1d(np.append(heading, heading[-1]), 6, mode="nearest")
    length = np.linalg.norm(step, axis=1)
    bend = np.abs(np.diff(heading))
    ramp = np.minimum(np.arange(len(length)) * 0.04, 0.5) / 0.5  # starts gently
    pace = np.maximum(SPEED * (0.2 + 0.8 * ramp), 0.05)
    duration = np.maximum(length / pace, bend / MAX_YAW_RATE)
    return np.concatenate([[0], np.cumsum(np.maximum(duration, 1e-4))]), heading


def sections(triangles: Float32, heights: Float64) -> list[Float64]:
    """Points every 5 cm along the horizontal sections through the triangles: (K, 2) for each height."""
    found = []
    for z in heights:
        above = triangles[:, :, 2] > z
        crossing = triangles[above.any(axis=1) & ~above.all(axis=1)].astype(np.float64)
        if not len(crossing):
            continue
        above = crossing[:, :, 2] > z
        lone = np.where(above.sum(axis=1) == 1, above.argmax(axis=1), (~above).argmax(axis=1))
        rows = np.arange(len(crossing))
        apex = crossing[rows, lone]
        ends = []
        for k in (1, 2):
            other = crossing[rows, (lone + k) % 3]
            share = (z - apex[:, 2]) / (other[:, 2] - apex[:, 2])
            ends.append(apex[:, :2] + share[:, None] * (other[:, :2] - apex[:, :2]))
        a, b = ends
        count = np.ceil(np.linalg.norm(b - a, axis=1) / 0.05).astype(int) + 1
        row = np.repeat(np.arange(len(a)), count)
        number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        share = number / np.maximum(count[row] - 1, 1)
        found.append(a[row] + share[:, None] * (b - a)[row])
    return found

"""Random labelled scans for training: buildings, places, sensors, mounts and noise from a seed.

Which rotation is true of a scan: points are in the lidar's frame. `R_mount`, the rotation of the returned
`T_base_lidar`, is what a calibration file would say; preprocessing turns the points by it. What remains is the robot's
own roll and pitch (`R_attitude`, unknown to a robot without an inertial sensor), mostly within 3 degrees, at times up to
15: `R_world_lidar = R_yaw R_attitude R_mount`. A network that sees `R_mount xyz` therefore learns to bear the rest.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.scan import Scan, UInt8
from cmp_seg_ros.simulation.building import Building, make_building
from cmp_seg_ros.simulation.lidar import Lidar, Noise, Transform, sensor_names, sweep
from cmp_seg_ros.simulation.people import people_mesh
from cmp_seg_ros.simulation.raycast import Scene

Rng = np.random.Generator
LabelledScan = tuple[Scan, UInt8, Transform]


def random_scan(seed: int, sensor: str | None = None) -> LabelledScan:
    """One scan in a building of its own. See `scans_of_building`."""
    return next(scans_of_building(seed, 1, sensor))


def scans_of_building(seed: int, count: int, sensor: str | None = None) -> Iterator[LabelledScan]:
    """`count` scans at random places of the building of `seed`; the same arguments give the same scans.

    Args:
        seed: of the building and of all that is random in its scans.
        count: how many scans.
        sensor: name of the lidar; None takes a random one for each scan.

    Yields:
        (scan, labels, T_base_lidar): labels (N,) uint8 in `indoor`, 255 where there is no return or no truth; the
        base's frame is level but for the robot's attitude (see above), its origin on the floor.
    """
    rng = np.random.default_rng([seed, 2])
    building = make_building(seed)
    still = Scene(building.mesh)
    for place in building.free_places(rng, count):
        people = Scene(people_mesh(building.people, float(rng.uniform(0, 600))))
        lidar = perturbed(rng, Lidar.load(sensor or str(rng.choice(sensor_names()))))
        T_base_lidar, T_world_base = _mount(rng, building, place), _attitude(rng, place)
        start = T_world_base @ T_base_lidar
        velocity, yaw_rate = _motion(rng, T_world_base)

        def pose(times: npt.NDArray[np.float64]) -> Transform:
            return moving_pose(start, velocity, yaw_rate, times)  # noqa: B023

        result = sweep(lidar, [still, people], pose, rng, Noise.random(rng))
        yield result.scan, result.label, T_base_lidar


def perturbed(rng: Rng, lidar: Lidar) -> Lidar:
    """Another unit of the same sensor: beams a little off, another number of columns, at times fewer beams."""
    altitudes = np.array(lidar.altitudes) + rng.normal(0, 0.15) + rng.normal(0, 0.05, lidar.beams)
    azimuths = np.array(lidar.azimuths) + rng.normal(0, 0.1, lidar.beams)
    keep = np.arange(lidar.beams)
    if lidar.beams >= 64:  # as heavy as 16 or 32 beams, so that no sensor outweighs the others
        step = int(rng.choice([1, 2, 4], p=[0.2, 0.4, 0.4]))
        keep = keep[int(rng.integers(step)) :: step]
    elif lidar.beams == 32 and rng.random() < 0.25:
        keep = keep[int(rng.integers(2)) :: 2]
    columns = int(lidar.columns * rng.choice([0.5, 1, 1, 1, 2] if lidar.beams <= 16 else [0.5, 1, 1, 1]))
    return lidar.model_copy(
        update={"altitudes": altitudes[keep].tolist(), "azimuths": azimuths[keep].tolist(), "columns": columns}
    )


def rotation(roll: float, pitch: float, yaw: float) -> Transform:
    """(4, 4) turn: roll about x, then pitch about y, then yaw about z (fixed axes)."""
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", [roll, pitch, yaw]).as_matrix()
    return T


def moving_pose(
    start: Transform, velocity: npt.NDArray[np.float64], yaw_rate: float, times: npt.NDArray[np.float64]
) -> Transform:
    """(W, 4, 4) poses of a sensor that keeps its velocity (world frame) and turns about the vertical."""
    turn = np.zeros((len(times), 3, 3))
    c, s = np.cos(yaw_rate * times), np.sin(yaw_rate * times)
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1], turn[:, 2, 2] = c, -s, s, c, 1
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = turn @ start[:3, :3]
    poses[:, :3, 3] = start[:3, 3] + times[:, None] * velocity
    return poses


def _mount(rng: Rng, building: Building, place: npt.NDArray[np.float64]) -> Transform:
    """Where the lidar sits: mostly 0.5 to 1.2 m high and upright; at times tilted or upside down."""
    height = float(rng.uniform(0.5, 1.2)) if rng.random() < 0.65 else float(rng.uniform(0.3, 2.1))
    room = next(r for r in building.plan.rooms if _inside(r.inner, place))
    height = min(height, room.height - 0.25)
    roll = pitch = 0.0
    kind = rng.random()
    if kind < 0.2:
        roll, pitch = (float(v) for v in np.radians(rng.uniform(-20, 20, 2)))
    elif kind < 0.25:
        roll = np.pi
    T = rotation(roll, pitch, float(rng.uniform(-np.pi, np.pi)) if rng.random() < 0.3 else 0.0)
    T[2, 3] = height
    return T


def _inside(rect: tuple[float, float, float, float], place: npt.NDArray[np.float64]) -> bool:
    return bool(rect[0] <= place[0] <= rect[2] and rect[1] <= place[1] <= rect[3])


def _attitude(rng: Rng, place: npt.NDArray[np.float64]) -> Transform:
    """Where the robot stands and how it leans: within 5 degrees, one in eight up to 15."""
    lean = rng.normal(0, 1.2, 2).clip(-5, 5) if rng.random() < 0.88 else rng.uniform(-15, 15, 2)
    T = rotation(float(np.radians(lean[0])), float(np.radians(lean[1])), float(rng.uniform(-np.pi, np.pi)))
    T[:2, 3] = place
    return T


def _motion(rng: Rng, T_world_base: Transform) -> tuple[npt.NDArray[np.float64], float]:
    """Velocity along the base's x, and yaw rate; a third stands still."""
    if rng.random() < 0.33:
        return np.zeros(3), 0.0
    velocity = T_world_base[:3, 0] * float(rng.uniform(-0.2, 1.2)) * np.array([1, 1, 0])
    return velocity, float(rng.normal(0, 0.5))

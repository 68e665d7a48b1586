"""Random labelled scans for training: buildings, places, sensors, mounts and noise from a seed.

Rotations: points are in the lidar's frame. `R_mount`, the rotation of the returned `T_base_lidar`, is what a
calibration file would contain; preprocessing rotates the points by it. The robot's own roll and pitch remain
(`R_attitude`, unknown to a robot without an inertial sensor), mostly within 3 degrees, up to 15 for a carried lidar:
`R_world_lidar = R_yaw R_attitude R_mount`. A network trained on `R_mount xyz` therefore learns to tolerate them.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import partial

import numpy as np

from cmp_seg_ros.scan import Float64, Scan, UInt8
from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation.building import Building
from cmp_seg_ros.simulation.lidar import FIRST_SENSORS, Lidar, Noise, sensor_names, sweep
from cmp_seg_ros.simulation.mesh import Rng, Shape, Transform
from cmp_seg_ros.simulation.people import Person, people_mesh
from cmp_seg_ros.simulation.raycast import Scene

LabelledScan = tuple[Scan, UInt8, Transform]


def scans_in(building: Building, count: int, sensor: str | None = None) -> Iterator[LabelledScan]:
    """`count` scans at random places of a building; the same arguments give the same scans.

    Args:
        building: from `make_building` or `load_scene`; its seed determines everything random.
        count: number of scans.
        sensor: name of the lidar; None: a random one for each scan.

    Yields:
        (scan, labels, T_base_lidar): labels (N,) uint8 in `indoor`, 255 without a return or a truth; the base frame has
        its origin on the floor and is level except for the robot's attitude (see above).
    """
    for (scan,) in views_in(building, count, sensor):
        yield scan


def views_in(
    building: Building,
    count: int,
    sensor: str | None = None,
    mounts: Sequence[Transform | None] = (None,),
    thinned: bool = True,
) -> Iterator[list[LabelledScan]]:
    """Scans as from `scans_in`, each repeated with every mount: same place, same time, same unit.

    Args:
        mounts: T_base_lidar whose rotation replaces the random one; None: the random one.
        thinned: see `perturbed`.

    Yields:
        The views of one place, in the order of `mounts`.
    """
    rng = np.random.default_rng([building.seed, 2])
    still = Scene(building.mesh)
    made = 0
    for attempt in range(4 * count):
        T_world_base, T_base_lidar, own_body = _stand(rng, building)
        names = sensor_names() if building.second else FIRST_SENSORS
        lidar = perturbed(rng, Lidar.load(sensor or str(rng.choice(names))), thinned)
        people = people_mesh(_with_company(rng, building, T_world_base), rng.uniform(0, 600), own_body)
        scenes = [still, Scene(people)]
        velocity, yaw_rate = _motion(rng, T_world_base)
        noise = Noise.random(rng)
        views, crammed = [], False  # inside or right before something
        for mount, stream in zip(mounts, [deepcopy(rng) for _ in mounts[1:]] + [rng], strict=True):
            T_mounted = T_base_lidar.copy()
            if mount is not None:
                T_mounted[:3, :3] = mount[:3, :3]
            pose = partial(moving_pose, T_world_base @ T_mounted, velocity, yaw_rate)
            result = sweep(lidar, scenes, pose, stream, noise)
            crammed |= float((result.range > 0.15).mean()) < (0.3 if building.second else 0.45)
            views.append((result.scan, result.label, T_mounted))
        if crammed and attempt < 3 * count:
            continue
        yield views
        made += 1
        if made == count:
            return


def perturbed(rng: Rng, lidar: Lidar, thinned: bool = True) -> Lidar:
    """Another unit of the same sensor, with slightly different beam angles.

    If `thinned`, as for training, also with another number of columns and, sometimes, fewer beams.
    """
    altitudes = np.array(lidar.altitudes) + rng.normal(0, 0.15) + rng.normal(0, 0.05, lidar.beams)
    azimuths = np.array(lidar.azimuths) + rng.normal(0, 0.1, lidar.beams)
    if not thinned:
        return lidar.model_copy(update={"altitudes": altitudes.tolist(), "azimuths": azimuths.tolist()})
    keep = np.arange(lidar.beams)
    if lidar.beams >= 64:  # half of these sensors stay as they are, half get as few beams as the others
        step = int(rng.choice([1, 2, 4], p=[0.5, 0.3, 0.2]))
        keep = keep[int(rng.integers(step)) :: step]
    elif lidar.beams == 32 and rng.random() < 0.25:
        keep = keep[int(rng.integers(2)) :: 2]
    columns = int(lidar.columns * rng.choice([0.5, 1, 1, 1, 2] if lidar.beams <= 16 else [0.5, 1, 1, 1]))
    return lidar.model_copy(
        update={"altitudes": altitudes[keep].tolist(), "azimuths": azimuths[keep].tolist(), "columns": columns}
    )


def rotation(roll: float, pitch: float, yaw: float) -> Transform:
    """(4, 4) rotation: roll about x, then pitch about y, then yaw about z (fixed axes)."""
    from scipy.spatial.transform import Rotation

    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", [roll, pitch, yaw]).as_matrix()
    return T


def moving_pose(start: Transform, velocity: Float64, yaw_rate: float, times: Float64) -> Transform:
    """(W, 4, 4) poses of a sensor with constant velocity (world frame) and yaw rate."""
    turn = np.zeros((len(times), 3, 3))
    c, s = np.cos(yaw_rate * times), np.sin(yaw_rate * times)
    turn[:, 0, 0], turn[:, 0, 1], turn[:, 1, 0], turn[:, 1, 1], turn[:, 2, 2] = c, -s, s, c, 1
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    poses[:, :3, :3] = turn @ start[:3, :3]
    poses[:, :3, 3] = start[:3, 3] + times[:, None] * velocity
    return poses


def _stand(rng: Rng, building: Building) -> tuple[Transform, Transform, Shape]:
    """T_world_base, T_base_lidar and the parts of the robot that the lidar may see.

    Two thirds are wheeled robots, one sixth lidars on a table, one sixth lidars carried or on a tripod.
    """
    kind, body = rng.random(), Shape()
    low_mount = building.second and rng.random() < 0.2
    lean = rng.normal(0, 1.2, 2).clip(-5, 5)
    yaw = rng.uniform(-np.pi, np.pi)
    if kind < (0.25 if building.second else 1 / 6) and building.tops:
        top = building.tops[int(rng.integers(len(building.tops)))]
        along, across = (rng.uniform(-v, v) for v in top.half)
        c, s = np.cos(top.yaw), np.sin(top.yaw)
        x, y = top.x + c * along - s * across, top.y + s * along + c * across
        height = top.z + rng.uniform(0.06, 0.4)
        lean = rng.normal(0, 0.7, 2)
    else:
        x, y = building.free_places(rng, 1)[0]
        if kind < 5 / 6:
            height = rng.uniform(0.5, 1.2) if rng.random() < 0.7 else rng.uniform(0.3, 1.6)
            if low_mount:
                height = rng.uniform(0.12, 0.5)
            if rng.random() < 0.35:
                body = _robot(rng, height)
        else:
            height = rng.uniform(0.9, 2.2)
            if rng.random() < 0.6:
                lean = rng.uniform(-15, 15, 2)
    room = building.room_at(float(x), float(y))
    height = min(height, (room.height if room else 2.3) - 0.25)
    T_base_lidar = _mount(rng)
    T_base_lidar[2, 3] = height
    T_world_base = rotation(float(np.radians(lean[0])), float(np.radians(lean[1])), yaw)
    T_world_base[:2, 3] = x, y
    placed = Shape()
    placed.put(body, (float(x), float(y), 0.0), yaw)
    return T_world_base, T_base_lidar, placed


def _mount(rng: Rng) -> Transform:
    """A random mounting of the lidar, known from calibration: mostly upright, sometimes tilted or upside down."""
    roll = pitch = 0.0
    kind = rng.random()
    if kind < 0.2:
        roll, pitch = (float(v) for v in np.radians(rng.uniform(-20, 20, 2)))
    elif kind < 0.25:
        roll = np.pi
    return rotation(roll, pitch, rng.uniform(-np.pi, np.pi) if rng.random() < 0.3 else 0.0)


def _robot(rng: Rng, height: float) -> Shape:
    """The robot's own deck, posts and antennas, visible to its lidar."""
    shape, body = Shape(), m.one_of(rng, m.metal, m.lacquer)
    deck = height - rng.uniform(0.06, 0.35)
    if deck > 0.1:
        ahead, behind, wide = (float(v) for v in rng.uniform(0.1, 0.4, 3))
        shape.slab((-behind, -wide, 0.05), (ahead, wide, deck), "clutter", body)
    for _ in range(int(rng.integers(0, 4))):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.12, 0.35)
        x, y = away * np.cos(angle), away * np.sin(angle)
        shape.tube((x, y, 0.1), (x, y, height + rng.uniform(-0.1, 0.4)), rng.uniform(0.005, 0.03), "clutter", body)
    return shape


def _with_company(rng: Rng, building: Building, T_world_base: Transform) -> list[Person]:
    """The people of the building, and often a person near the sensor, who carries it or looks at the robot."""
    people = list(building.people)
    x, y = T_world_base[:2, 3]
    for _ in range(int(rng.choice([0, 1, 2, 4], p=[0.6, 0.25, 0.1, 0.05]))):
        angle, away = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 3.0)
        at = (float(x + away * np.cos(angle)), float(y + away * np.sin(angle)))
        room = building.room_at(*at)
        if room and building.clear(np.array([at]), 0.1)[0]:
            pose = str(rng.choice(["stand", "sit"], p=[0.8, 0.2]))
            person = Person(int(rng.integers(1 << 30)), pose, at, at, rng.uniform(0, 2 * np.pi))
            people.append(person.varied(rng) if building.second else person)
    return people


def _motion(rng: Rng, T_world_base: Transform) -> tuple[Float64, float]:
    """Velocity along the base's x axis, and yaw rate; a third of the robots stand still."""
    if rng.random() < 0.33:
        return np.zeros(3), 0.0
    velocity = T_world_base[:3, 0] * rng.uniform(-0.2, 1.2) * np.array([1, 1, 0])
    return velocity, rng.normal(0, 0.5)

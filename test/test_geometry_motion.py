"""Times of points, and scans moved to another moment."""

import numpy as np
import pytest

from cmp_seg_ros.geometry import motion
from cmp_seg_ros.geometry.calibration import CalibratedLidar
from cmp_seg_ros.scan import Scan
from cmp_seg_ros.simulation.lidar import Lidar

EYE = np.eye(4).tolist()
SECOND = 1_000_000_000


def turning(stamp: int) -> np.ndarray:
    """A lidar that drives at 1 m/s along x and turns at 2 rad/s."""
    t = stamp / SECOND - 1.0
    T = np.eye(4)
    T[:2, :2] = [[np.cos(2 * t), -np.sin(2 * t)], [np.sin(2 * t), np.cos(2 * t)]]
    T[0, 3] = t
    return T


def measured(world: np.ndarray, time: np.ndarray) -> Scan:
    """The scan of points of the world by the lidar of `turning`, each at its own time after the stamp of 1 s."""
    poses = np.array([np.linalg.inv(turning(SECOND + round(t * SECOND))) for t in time.tolist()])
    xyz = np.einsum("nij,nj->ni", poses[:, :3, :3], world) + poses[:, :3, 3]
    return Scan(xyz, time=time, stamp=SECOND)


def test_a_scan_is_moved_to_the_moment_of_an_image() -> None:
    rng = np.random.default_rng(0)
    world, time = rng.uniform(-10, 10, (500, 3)), rng.uniform(0, 0.1, 500).astype(np.float32)
    scan = measured(world, time)
    moved = motion.at(scan, SECOND + 40_000_000, turning)
    there = np.linalg.inv(turning(SECOND + 40_000_000))
    assert moved is not None
    np.testing.assert_allclose(moved, world @ there[:3, :3].T + there[:3, 3], atol=2e-3)
    assert np.abs(scan.xyz - moved).max() > 0.5


def test_what_is_no_return_stays_none_and_unknown_ways_move_nothing() -> None:
    scan = Scan(
        np.array([[0, 0, 0], [np.nan, 0, 0], [np.inf, 0, 0], [1, 0, 0]]),
        time=np.array([0, 0.1, np.nan, 0.05], np.float32),
        stamp=SECOND,
    )
    moved = motion.at(scan, SECOND, turning)
    assert moved is not None
    assert Scan(moved).valid().tolist() == [False, False, False, True]
    assert motion.at(scan, SECOND, lambda stamp: None) is None
    # The way ends within the sweep: later points take its last pose.
    ends = motion.at(scan, SECOND, lambda stamp: turning(stamp) if stamp <= SECOND else None)
    assert ends is not None and ends[3] == pytest.approx([1, 0, 0])


@pytest.mark.parametrize(
    "stamp, time, first",
    [("start", [0, 0.1], 0.0), ("end", [0, 0.1], -0.1), ("middle", [0, 0.1], -0.05), ("end", [-0.1, 0], -0.1)],
)
def test_times_count_from_the_stamp(stamp: str, time: list[float], first: float) -> None:
    lidar = CalibratedLidar.model_validate({"T_base_lidar": EYE, "stamp": stamp, "sweep": 0.1})
    times = motion.point_times(Scan(np.ones((2, 3), np.float32), time=np.array(time, np.float32)), lidar)
    assert times is not None
    np.testing.assert_allclose(times, [first, first + 0.1], atol=1e-6)


@pytest.mark.parametrize("name", ["os1-16", "vlp-16"])
@pytest.mark.parametrize("firing_order", [False, True])
def test_times_from_azimuths_are_those_of_the_lidar(name: str, firing_order: bool) -> None:
    lidar = Lidar.load(name)
    directions, time = lidar.directions, lidar.times
    if firing_order:
        directions, time = directions.transpose(1, 0, 2), time.T
    scan = Scan(3 * directions.reshape(-1, 3))
    none = CalibratedLidar.model_validate({"T_base_lidar": EYE})
    known = CalibratedLidar.model_validate({"T_base_lidar": EYE, "sweep": 0.1})
    found = motion.point_times(scan, known)
    assert motion.point_times(scan, none) is None and found is not None
    apart = np.abs(found - time.ravel())
    assert np.quantile(np.minimum(apart, 0.1 - apart), 0.99) < 0.002

"""Motion of the lidar: points at their own times, recorded poses, KISS-ICP, and jumps."""

import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.mapping import odometry
from cmp_seg_ros.mapping.odometry import Motion, moved, twist
from cmp_seg_ros.scan import Scan

SWEEP = 100_000_000  # ns
LOW, HIGH = np.array([-3.0, -2, -1]), np.array([5.0, 4, 2])  # of the room


def transform(x: float = 0, y: float = 0, yaw: float = 0) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    T[:3, 3] = x, y, 0
    return T


def box(pose: Callable[[float], np.ndarray], seed: int = 0) -> Scan:
    """A room of 8 x 6 x 3 m, in 512 columns of 32 random beams of a lidar that moves during its sweep of 0.1 s."""
    times, elevation = np.arange(512) / 5120, np.random.default_rng(seed).uniform(-0.6, 0.6, (512, 32))
    azimuth = 0.01 + 20 * np.pi * times
    T = np.stack([pose(seconds) for seconds in times])[:, None]  # (W, 1, 4, 4)
    flat = np.cos(elevation)
    ray = np.stack([np.cos(azimuth)[:, None] * flat, np.sin(azimuth)[:, None] * flat, np.sin(elevation)], axis=2)
    toward = (T[..., :3, :3] @ ray[..., None])[..., 0]
    ends = (np.where(toward > 0, HIGH, LOW) - T[..., :3, 3]) / toward
    return Scan((ray * ends.min(axis=2)[..., None]).reshape(-1, 3), time=np.repeat(times, 32))


@pytest.mark.parametrize("vector", [np.zeros(6), np.array([1, 2, 3, 0, 0, 0.0]), np.array([1, -2, 0.5, 0.3, -1, 2])])
def test_twist_and_moved_are_inverse(vector: np.ndarray) -> None:
    np.testing.assert_allclose(twist(moved(vector)), vector, atol=1e-9)
    np.testing.assert_allclose(moved(vector / 2) @ moved(vector / 2), moved(vector), atol=1e-9)


def test_points_are_placed_from_where_the_lidar_was_at_their_time() -> None:
    """Turning at 2 rad/s and moving at 1 m/s, walls come out flat to millimetres; without times they do not."""
    motion = Motion(transform(1, 0.5, 0.7), np.array([1, 0.2, 0, 0, 0, 2.0]))
    scan = box(motion.at)

    def off(world: np.ndarray) -> float:
        """95th percentile of the distance to the nearest face of the box."""
        faces = np.abs(np.concatenate([world - LOW, world - HIGH], axis=1)).min(axis=1)
        return float(np.percentile(faces, 95))

    assert off(motion.to_world(scan)) < 0.005
    assert off(motion.to_world(Scan(scan.xyz))) > 0.1


def frames(poses: list[np.ndarray | None]) -> list[Frame]:
    """Frames with poses that are known at their own stamps."""
    scans = [Scan(np.ones((1, 3), np.float32), stamp=i * SWEEP) for i in range(len(poses))]
    return [
        Frame(f"{i}", scan, sequence="drive", locate={scan.stamp: pose}.get)
        for i, (scan, pose) in enumerate(zip(scans, poses, strict=True))
    ]


def test_recorded_poses_give_the_velocity() -> None:
    recorded = odometry.Recorded()
    motions = [recorded(frame) for frame in frames([transform(0.05 * i, yaw=0.02 * i) for i in range(3)])]
    np.testing.assert_allclose(motions[2].start, transform(0.1, yaw=0.04))
    np.testing.assert_allclose(motions[2].at(0.1), transform(0.1, yaw=0.04) @ np.linalg.inv(transform(0.05, yaw=0.02))
                               @ transform(0.1, yaw=0.04), atol=1e-9)  # fmt: skip
    assert not motions[0].velocity.any()


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        ([transform(), None], "no pose for scan 1 of drive: .*--odometry kiss-icp"),
        ([transform(), transform(7)], r"jumps by 7\.00 m and 0 degrees in 0\.10 s at scan 1 of drive"),
        ([transform(), transform(yaw=2)], "jumps by 0.00 m and 115 degrees"),
    ],
)
def test_unknown_and_jumping_poses_are_errors(poses: list[np.ndarray | None], message: str) -> None:
    recorded = odometry.Recorded()
    first, second = frames(poses)
    recorded(first)
    with pytest.raises(UserError, match=message):
        recorded(second)


def test_auto_takes_recorded_poses_where_there_are_any() -> None:
    pytest.importorskip("kiss_icp")
    stampless, known, unknown = frames([None, transform(), None])
    assert odometry.odometry_of("auto", known).name == "recorded"
    assert odometry.odometry_of("auto", unknown).name == "kiss-icp"
    with pytest.raises(UserError, match="known: auto, recorded, kiss-icp"):
        odometry.odometry_of("wheels", known)
    with pytest.raises(UserError, match="drive is no drive: its scans have no time stamps"):
        odometry.odometry_of("auto", stampless)
    assert odometry.odometry_of("kiss-icp", stampless).name == "kiss-icp"


def test_missing_kiss_icp_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kiss_icp.config", None)
    with pytest.raises(UserError, match="pip install kiss-icp"):
        odometry.KissIcp()


def test_kiss_icp_follows_a_moving_lidar() -> None:
    """To centimetres, at the start of each sweep, in a world with z up though the lidar is mounted upside down."""
    pytest.importorskip("kiss_icp")
    flip = np.diag([1.0, -1, -1, 1])
    flip[2, 3] = 1
    kiss = odometry.KissIcp()

    def pose(seconds: float) -> np.ndarray:
        return transform(0.3 * seconds**2, 0.1 * seconds**2, 0.15 * seconds**2) @ flip  # from rest

    for i in range(15):
        scan = box(lambda seconds, begin=0.1 * i: pose(begin + seconds), seed=i)
        frame = Frame(f"{i}", Scan(scan.xyz, time=scan.time, stamp=(i + 10) * SWEEP), sequence="a", T_base_lidar=flip)
        motion = kiss(frame)
    error = np.linalg.inv(pose(1.4)) @ motion.start
    assert np.linalg.norm(error[:3, 3]) < 0.05 and np.linalg.norm(twist(error)[3:]) < 0.03
    np.testing.assert_allclose(motion.velocity[5], -0.3 * 1.45, atol=0.1)

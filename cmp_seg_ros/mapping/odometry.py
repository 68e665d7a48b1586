"""Where the lidar was during each scan: from the poses of a recording, or from KISS-ICP.

    odometry = odometry_of("auto", data)
    for frame in data:
        motion = odometry(frame)
        world = motion.to_world(frame.scan)

KISS-ICP: Vizzo et al. 2023, IEEE RA-L 8(2); `pip install kiss-icp`.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry import motion
from cmp_seg_ros.geometry.calibration import Transform
from cmp_seg_ros.mapping.odometry_source import OdometrySource
from cmp_seg_ros.scan import Float32, Scan

Float64 = npt.NDArray[np.float64]

SOURCES = tuple(source.value for source in OdometrySource)
FASTEST = 15.0  # metres per second; faster is a jump
FASTEST_TURN = np.radians(720)  # per second
AHEAD = 100_000_000  # ns after the stamp, at which the velocity of a sweep is taken
JUMP = 0.5  # metres that are no jump however short the time
LONGEST_SWEEP = 0.5  # seconds
# Of KISS-ICP, for rooms: its defaults, voxels of 1 m and a threshold of 2 m, are for cars. With finer voxels the rings
# of a lidar of 16 beams stick to their own traces.
RANGE, ICP_VOXEL, FIRST_THRESHOLD = 60.0, 0.5, 0.5  # metres


@dataclass(frozen=True)
class Motion:
    """The motion of the lidar during a sweep, at constant velocity.

    Args:
        start: (4, 4) T_world_lidar at the scan's stamp.
        velocity: (6,) of the twist in the lidar's frame, metres and radians per second (see `twist`).
    """

    start: Transform
    velocity: Float64

    def at(self, seconds: float) -> Transform:
        """(4, 4) T_world_lidar so many seconds after the scan's stamp."""
        return np.asarray(self.start @ moved(self.velocity * seconds))

    def to_world(self, scan: Scan) -> Float64:
        """(N, 3) the points in the world, each from where the lidar was at its own time, where times are known."""
        xyz: Float32 | None = scan.xyz
        if scan.time is not None and self.velocity.any():
            xyz = motion.at(scan, scan.stamp, lambda stamp: self.at((stamp - scan.stamp) * 1e-9))
        assert xyz is not None  # the motion is known at any time
        return xyz.astype(np.float64) @ self.start[:3, :3].T + self.start[:3, 3]


def twist(T: Transform) -> Float64:
    """(6,) logarithm of a (4, 4) rigid transform: metres, radians (Barfoot 2017, State Estimation, 7.1)."""
    from scipy.linalg import logm

    log = logm(T).real
    return np.array([*log[:3, 3], log[2, 1], log[0, 2], log[1, 0]])


def moved(vector: Float64) -> Transform:
    """(4, 4) rigid transform of a (6,) twist; the inverse of `twist`."""
    from scipy.linalg import expm

    x, y, z = vector[3:]
    generator = np.zeros((4, 4))
    generator[:3] = np.column_stack([[[0, -z, y], [z, 0, -x], [-y, x, 0]], vector[:3]])
    return np.asarray(expm(generator))


class NoPose(UserError):
    """Where the lidar was during a scan is not known."""


class Odometry(Protocol):
    """Gives the motion of the lidar during the scan of each frame; frames must come in order."""

    name: str

    def __call__(self, frame: Frame) -> Motion:
        """Raises NoPose if it is not known for this scan, UserError if it jumps."""
        ...


class Recorded:
    """The poses that come with the frames."""

    name = "recorded"

    def __init__(self) -> None:
        self._before: tuple[str, int, Transform] | None = None

    def __call__(self, frame: Frame) -> Motion:
        T = frame.T_world_lidar
        if T is None:
            raise NoPose(
                f"there is no pose for scan {frame.key} of {frame.sequence}: odometry does not cover it, or the "
                "calibration has no T_base_lidar; use --odometry kiss-icp"
            )
        before, self._before = self._before, (frame.sequence, frame.scan.stamp, T)
        velocity = np.zeros(6)
        if before is not None and before[0] == frame.sequence and frame.scan.stamp > before[1]:
            seconds = (frame.scan.stamp - before[1]) * 1e-9
            step = twist(np.linalg.inv(before[2]) @ T)
            check_step(step, seconds, f"scan {frame.key} of {frame.sequence}")
            velocity = step / seconds if seconds < LONGEST_SWEEP else velocity
        later = frame.locate(frame.scan.stamp + AHEAD)
        if later is not None:
            velocity = twist(np.linalg.inv(T) @ later) / (AHEAD * 1e-9)
        return Motion(T, velocity)


class KissIcp:
    """Poses by registration of each scan to those before; the world is the base at the first scan (z up).

    Raises UserError if kiss-icp is not installed.
    """

    name = "kiss-icp"

    def __init__(self) -> None:
        try:
            from kiss_icp.config import KISSConfig
            from kiss_icp.kiss_icp import KissICP
        except ImportError:
            raise UserError("odometry kiss-icp is not installed; pip install kiss-icp") from None
        config: Any = KISSConfig()
        config.data.max_range = RANGE  # farther returns are not used
        config.mapping.voxel_size, config.adaptive_threshold.initial_threshold = ICP_VOXEL, FIRST_THRESHOLD
        config.registration.max_num_threads = 1
        self._make = lambda: KissICP(config)
        self._sequence: str | None = None
        self._stamp = 0

    def __call__(self, frame: Frame) -> Motion:
        scan = frame.scan
        if frame.sequence != self._sequence:
            self._sequence, self._stamp, self._icp = frame.sequence, 0, self._make()
            self._T_world_first = np.eye(4) if frame.T_base_lidar is None else np.asarray(frame.T_base_lidar)
        kept = np.flatnonzero(scan.valid())
        times = np.zeros(0) if scan.time is None else scan.time[kept].astype(np.float64)
        sweep = float(np.ptp(times)) if len(times) else 0.0
        before = self._icp.last_pose
        self._icp.register_frame(scan.xyz[kept].astype(np.float64), times)
        end = self._T_world_first @ self._icp.last_pose
        seconds = (scan.stamp - self._stamp) * 1e-9 if self._stamp and scan.stamp else 0.0
        self._stamp = scan.stamp
        if not 0 < seconds < LONGEST_SWEEP:
            return Motion(end, np.zeros(6))
        step = twist(np.linalg.inv(before) @ self._icp.last_pose)
        check_step(step, seconds, f"scan {frame.key} of {frame.sequence}")
        velocity = step / seconds
        # Its pose is that of the end of the sweep: it moves all points there.
        after = sweep + (float(times.min()) if len(times) else 0.0)
        return Motion(end @ moved(-velocity * after), velocity)


def check_step(step: Float64, seconds: float, what: str) -> None:
    """Check that a robot can move so in that time. Raises UserError.

    Args:
        step: (6,) twist.
    """
    length, turn = float(np.linalg.norm(step[:3])), float(np.linalg.norm(step[3:]))
    if length > max(JUMP, FASTEST * seconds) or turn > max(0.5, FASTEST_TURN * seconds):
        raise UserError(
            f"odometry jumps by {length:.2f} m and {np.degrees(turn):.0f} degrees in {seconds:.2f} s at {what}; cut "
            "the recording there, or use other odometry (--odometry)"
        )


def odometry_of(source: str, frame: Frame) -> Odometry:
    """Odometry by the name of its source; auto: recorded where the first frame has a pose, else kiss-icp.

    Raises:
        UserError: the source is unknown; kiss-icp is not installed; auto: the frame has neither pose nor stamp, so that
            nothing says that its scans follow each other.
    """
    if source not in SOURCES:
        raise UserError(f"odometry '{source}' is unknown; known: {', '.join(SOURCES)}")
    if source == "auto":
        if frame.T_world_lidar is None and not frame.scan.stamp:
            raise UserError(
                f"{frame.sequence} is no drive: its scans have no time stamps, so nothing says that they follow each "
                "other; give a bag, or, if they do, --odometry kiss-icp"
            )
        source = "recorded" if frame.T_world_lidar is not None else "kiss-icp"
    return Recorded() if source == "recorded" else KissIcp()

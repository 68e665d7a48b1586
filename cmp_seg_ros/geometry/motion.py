"""When each point of a scan was measured, and the scan as it would be from one moment of the robot's way."""

from collections.abc import Callable

import numpy as np

from cmp_seg_ros.geometry.calibration import CalibratedLidar, Transform
from cmp_seg_ros.scan import Float32, Scan

KNOTS = 17  # moments of a sweep at which its pose is looked up: every 6 ms at 10 Hz
BACKWARDS = -1e-3  # seconds; earlier times than this cannot count from the start of a sweep
NEXT = np.radians(5)  # beams that follow each other in a message by less than this are of one turn


def point_times(scan: Scan, lidar: CalibratedLidar) -> Float32 | None:
    """(N,) seconds of each point from the scan's stamp; None where neither the scan nor the calibration says.

    Drivers count times from the stamp (Velodyne's go from -0.1 to 0) or from the start of the sweep. Those that never
    go below zero count from the start, and the calibration says how long before the stamp that was. A scan without
    times gets them from its points' azimuths, if the calibration gives the length of a sweep.
    """
    if scan.time is not None:
        from_stamp = np.nanmin(scan.time, initial=0.0) < BACKWARDS
        return scan.time if from_stamp else scan.time - np.float32(lidar.before_stamp)
    if lidar.sweep is None:
        return None
    return np.float32(lidar.sweep) * share_of_turn(scan) - np.float32(lidar.before_stamp)


def share_of_turn(scan: Scan) -> Float32:
    """(N,) how far the lidar had turned for each point, 0..1: from the azimuth of the first, the way that they follow.

    Points without a return get 0. The scan must be by a spinning lidar, and start where the message does.
    """
    returns = np.flatnonzero(scan.valid())
    share = np.zeros(len(scan), np.float32)
    if not len(returns):
        return share
    azimuth = np.arctan2(scan.xyz[returns, 1], scan.xyz[returns, 0])
    steps = np.remainder(np.diff(azimuth) + np.pi, 2 * np.pi) - np.pi
    sense = 1.0 if steps[np.abs(steps) < NEXT].sum() >= 0 else -1.0
    share[returns] = np.remainder(sense * (azimuth - azimuth[0]) / (2 * np.pi), 1)
    return share


def at(scan: Scan, stamp: int, locate: Callable[[int], Transform | None]) -> Float32 | None:
    """(N, 3) the scan's points in the lidar's frame as it stands at `stamp`; None where its pose then is not known.

    What moves by itself stays where it was measured. A scan without times was measured at its stamp.

    Args:
        scan: each point in the lidar's frame at the point's own time.
        stamp: nanoseconds, by the lidar's clock.
        locate: gives T_world_lidar at a stamp, or None.
    """
    time = np.zeros(len(scan), np.float32) if scan.time is None else np.nan_to_num(scan.time)
    T_world_now = locate(stamp)
    first, last = (float(time.min()), float(time.max())) if len(time) else (0.0, 0.0)
    knots = np.linspace(first, last, KNOTS if last > first else 1)
    poses = [locate(scan.stamp + round(second * 1e9)) for second in knots.tolist()]
    known = [index for index, pose in enumerate(poses) if pose is not None]
    if T_world_now is None or not known:
        return None
    T_now_knots = np.linalg.inv(T_world_now) @ np.array([poses[index] for index in known])  # (K, 4, 4)
    # Between knots a rotation is interpolated by its elements: at 2 radians a second that is 0.1 mm at 10 m.
    elements = T_now_knots[:, :3].reshape(-1, 12).T
    rows = np.stack([np.interp(time, knots[known], element) for element in elements], axis=1).reshape(-1, 3, 4)
    with np.errstate(invalid="ignore"):  # points without a return may be infinite
        moved = np.einsum("nij,nj->ni", rows[:, :, :3], scan.xyz) + rows[:, :, 3]
    return np.where(scan.valid()[:, None], moved, scan.xyz).astype(np.float32)

"""Poses in the order of time, and between them."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry.calibration import Transform

Pose = tuple[float, ...]  # x, y, z, qx, qy, qz, qw


class Track:
    """Where something was.

    Args:
        poses: of a moving frame in the world's frame, by stamp in nanoseconds.
    """

    def __init__(self, poses: Mapping[int, Pose]) -> None:
        self.stamps = np.array(sorted(poses), np.int64)  # (M,)
        self.poses = np.array([poses[stamp] for stamp in self.stamps.tolist()], np.float64).reshape(-1, 7)

    def __len__(self) -> int:
        return len(self.stamps)

    def at(self, stamp: int) -> Transform | None:
        """(4, 4) at a stamp: straight and at constant speed between two poses; None before the first, after the last.

        A pose's own stamp needs no other pose.
        """
        if not len(self) or not self.stamps[0] <= stamp <= self.stamps[-1]:
            return None
        after = int(np.searchsorted(self.stamps, stamp))
        if self.stamps[after] == stamp:
            return matrix_of(self.poses[after])
        return _between(self.poses[after - 1], self.poses[after], self._share(after, stamp))

    def _share(self, after: int, stamp: int) -> float:
        before, later = self.stamps[after - 1], self.stamps[after]
        return float(stamp - before) / float(later - before)


def matrix_of(pose: npt.ArrayLike) -> Transform:
    """x, y, z, qx, qy, qz, qw -> (4, 4)."""
    from scipy.spatial.transform import Rotation

    numbers = np.asarray(pose, np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(numbers[3:]).as_matrix()
    matrix[:3, 3] = numbers[:3]
    return matrix


def pose_of(matrix: Transform) -> Pose:
    """(4, 4) -> x, y, z, qx, qy, qz, qw."""
    from scipy.spatial.transform import Rotation

    return (*matrix[:3, 3].tolist(), *Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist())


def _between(before: npt.NDArray[np.float64], after: npt.NDArray[np.float64], share: float) -> Transform:
    from scipy.spatial.transform import Rotation, Slerp

    turned = Slerp([0, 1], Rotation.from_quat([before[3:], after[3:]]))(share)
    matrix = np.eye(4)
    matrix[:3, :3] = turned.as_matrix()
    matrix[:3, 3] = (1 - share) * before[:3] + share * after[:3]
    return matrix

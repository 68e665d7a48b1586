"""Poses in the order of time, and between them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.geometry.calibration import Transform

if TYPE_CHECKING:
    from scipy.spatial.transform import Rotation

Pose = tuple[float, ...]  # x, y, z, qx, qy, qz, qw


class Track:
    """Where something was.

    Args:
        poses: of a moving frame in the world's frame, by stamp in nanoseconds.
    """

    def __init__(self, poses: Mapping[int, Pose]) -> None:
        self.stamps = np.array(sorted(poses), np.int64)  # (M,)
        self.poses = np.array([poses[stamp] for stamp in self.stamps.tolist()], np.float64).reshape(-1, 7)

    def at(self, stamp: int) -> Transform | None:
        """(4, 4) at a stamp: straight and at constant speed between two poses; None before the first, after the last.

        A pose's own stamp needs no other pose.
        """
        from scipy.spatial.transform import Rotation, Slerp

        if not len(self.stamps) or not self.stamps[0] <= stamp <= self.stamps[-1]:
            return None
        after = int(np.searchsorted(self.stamps, stamp))
        if self.stamps[after] == stamp:
            return matrix_of(self.poses[after])
        poses, stamps = self.poses[after - 1 : after + 1], self.stamps[after - 1 : after + 1]
        share = float(stamp - stamps[0]) / float(stamps[1] - stamps[0])
        turned = Slerp([0, 1], Rotation.from_quat(poses[:, 3:]))(share)
        return rigid(turned, (1 - share) * poses[0, :3] + share * poses[1, :3])


def rigid(rotation: "Rotation", position: npt.ArrayLike) -> Transform:
    """(4, 4) of a rotation and a position."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation.as_matrix(), position
    return matrix


def matrix_of(pose: npt.ArrayLike) -> Transform:
    """x, y, z, qx, qy, qz, qw -> (4, 4)."""
    from scipy.spatial.transform import Rotation

    numbers = np.asarray(pose, np.float64)
    return rigid(Rotation.from_quat(numbers[3:]), numbers[:3])


def pose_of(matrix: Transform) -> Pose:
    """(4, 4) -> x, y, z, qx, qy, qz, qw."""
    from scipy.spatial.transform import Rotation

    return (*matrix[:3, 3].tolist(), *Rotation.from_matrix(matrix[:3, :3]).as_quat().tolist())

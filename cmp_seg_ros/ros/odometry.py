"""Where the lidar was, from a topic of odometry or from TF."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from nav_msgs.msg import Odometry

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Calibration, Transform
from cmp_seg_ros.geometry.track import Pose, Track
from cmp_seg_ros.mapping.odometry import Motion, twist
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.messages.point_cloud2 import stamp_ns
from cmp_seg_ros.messages.transforms import pose_in
from cmp_seg_ros.ros.inputs import Inputs
from cmp_seg_ros.ros.parameters import Parameter, Parameters
from cmp_seg_ros.ros.transforms import TfExtrinsics

ODOMETRY = "nav_msgs/msg/Odometry"
KEPT = 30_000_000_000  # ns of odometry
STEP = 100_000_000  # ns between the poses from which the velocity is taken
NEAR = 1_000_000_000  # ns around a scan from which its poses are taken

PARAMETERS = [
    Parameter("odometry", "topic", "Where poses come from: the topic odometry, or TF", ("topic", "tf")),
    Parameter("fixed_frame", "odom", "For poses from tf: the frame in which the map does not move"),
    Parameter("base_frame", "base_link", "For tf without odometry's child_frame_id: the frame of the robot"),
    Parameter("calibration_file", "", "Calibration with T_base_lidar; empty: from TF, else the lidar is the base"),
    Parameter("lidar_name", "", "The lidar's name in the calibration file; may be empty if it has only one"),
]


class OdometryInput:
    """Gives the motion of the lidar during a sweep. Raises UserError for wrong parameters.

    Attributes:
        frame: in which the poses are; empty until one has come.
    """

    def __init__(self, node: Any, parameters: Parameters, inputs: Inputs) -> None:
        p = parameters
        calibration = Calibration.load(p["calibration_file"]) if p["calibration_file"] else None
        self._T_base_lidar = None if calibration is None else np.array(calibration.lidar(p["lidar_name"]).T_base_lidar)
        self._by_tf = p["odometry"] == "tf"
        self._base = p["base_frame"]
        self.frame = p["fixed_frame"] if self._by_tf else ""
        self._tf = self._find_tf(node)
        self._lock = threading.Lock()
        self._poses: dict[int, Pose] = {}
        self.topic = None if self._by_tf else inputs.add(Odometry, "odometry", self._store, depth=200)

    def _find_tf(self, node: Any) -> TfExtrinsics | None:
        """TF, if poses must come from it, or the lidar's mount may."""
        if not self._by_tf and self._T_base_lidar is not None:
            return None
        try:
            return TfExtrinsics(node)
        except UserError:
            if self._by_tf:
                raise
            return None

    def _store(self, data: bytes) -> None:
        message = cdr.deserialize(data, ODOMETRY)
        stamp, pose = stamp_ns(message.header), pose_in(message.pose.pose)
        if not np.isfinite(pose).all() or not any(pose[3:]):
            return  # a cloud of that moment waits for a pose, or goes between its neighbours
        with self._lock:
            if self._poses and stamp < next(reversed(self._poses)):
                self._poses.clear()  # time went back: a bag that starts again
            self._poses[stamp] = pose
            self.frame, self._base = message.header.frame_id, message.child_frame_id or self._base
            while stamp - next(iter(self._poses)) > KEPT:
                del self._poses[next(iter(self._poses))]

    @property
    def is_mounted(self) -> bool:
        """Whether the mounting of the lidar on the robot is known."""
        return self._by_tf or self._T_base_lidar is not None

    def motion(self, stamp: int, lidar_frame: str) -> Motion | None:
        """The motion of the lidar during the sweep of that stamp; None while it is not known."""
        if self._by_tf:
            tf = self._tf
            assert tf is not None
            return self._motion(stamp, lambda at: tf.lookup(self.frame, lidar_frame, at))
        T_base_lidar = self._mount(lidar_frame)
        with self._lock:
            near = {s: pose for s, pose in self._poses.items() if abs(s - stamp) <= NEAR}
        track = Track(near)
        return self._motion(stamp, lambda at: None if (T := track.at(at)) is None else T @ T_base_lidar)

    def _mount(self, lidar_frame: str) -> Transform:
        """T_base_lidar."""
        if self._T_base_lidar is None and self._tf is not None:
            self._T_base_lidar = self._tf.lookup(self._base, lidar_frame)
        return np.eye(4) if self._T_base_lidar is None else self._T_base_lidar

    @staticmethod
    def _motion(stamp: int, locate: Callable[[int], Transform | None]) -> Motion | None:
        start = locate(stamp)
        if start is None:
            return None
        for other in (stamp + STEP, stamp - STEP):
            T = locate(other)
            if T is not None:
                return Motion(start, twist(np.linalg.inv(start) @ T) / ((other - stamp) * 1e-9))
        return Motion(start, np.zeros(6))

"""TIERS (Li et al., IROS 2022; enhanced: Ha et al., 2023): ROS 1 bags of a platform with up to six lidars.

Nobody published the calibration of the cameras: frames have images only with a calibration file of one's own. In the
first set the headers' stamps are seconds since each sensor was switched on, so that scans and images are stamped by
when they were recorded. The enhanced set is synchronised (PTP), and its stamps hold.
Mounts of the lidars: README of github.com/TIERS/tiers-lidars-dataset.
"""

from pathlib import Path
from typing import ClassVar

from cmp_seg_ros.datasets import bag
from cmp_seg_ros.datasets.preset import PublishedBag
from cmp_seg_ros.geometry.calibration import CalibratedLidar, Calibration
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.geometry.track import rigid

ORIGINAL = frozenset(("/os_cloud_node/points", "/os_cloud_nodee/points"))
ENHANCED = frozenset(("/os0_cloud_node/points", "/os1_cloud_node/points"))
# T_base_lidar: x, y, z, yaw, pitch, roll; the base is the OS0 turned by 45 degrees.
MOUNTS: dict[str, tuple[float, ...]] = {
    "velodyne": (-0.164831, 0.173188, 0.117624, 3.07795, 3.09161, 3.12807),
    "os0": (0, 0, 0, 0.785398, 0, 0),
    "os1": (0.0100882, 0.581502, -0.0210581, 2.34826, 3.12619, -3.13066),
    "avia": (-0.0608374, 0.29663, -0.122276, 0.00549421, 0.000246, -0.011555),
    "horizon": (0.00345477, 0.145195, -0.134907, 3.12905, 3.14022, 3.12706),
}


class DataSet(PublishedBag):
    lidars: ClassVar[dict[str, str]] = {
        "/velodyne_points": "velodyne",
        "/os_cloud_node/points": "os0",
        "/os_cloud_nodee/points": "os1",
        "/os0_cloud_node/points": "os0",
        "/os1_cloud_node/points": "os1",
        "/livox/lidar": "horizon",
        "/horizon/livox": "horizon",
        "/avia/livox/lidar": "avia",
    }
    signs = (ORIGINAL, ENHANCED)

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        self.stamps_by_receipt = bag.topics_at(path) >= ORIGINAL
        super().__init__(path, topic, sensors)
        if self.uncalibrated:
            self.uncalibrated = "TIERS publishes no calibration of its cameras, and it is not guessed here"
        if self.stamps_by_receipt:
            self.notes.add(
                f"headers of {path} count from when each sensor was switched on; scans and images are stamped by when "
                "they were recorded"
            )

    @classmethod
    def calibration(cls, lidar: str) -> Calibration:
        from scipy.spatial.transform import Rotation

        x, y, z, yaw, pitch, roll = MOUNTS[lidar or "velodyne"]
        T_base_lidar = rigid(Rotation.from_euler("ZYX", [yaw, pitch, roll]), (x, y, z))
        return Calibration(lidars={lidar or "velodyne": CalibratedLidar(T_base_lidar=T_base_lidar.tolist())})

    def stamp_of(self, number: int, stamp: int) -> int:
        return self._times[number] if self.stamps_by_receipt else stamp

"""Livox's own messages (CustomMsg), which its drivers publish in place of PointCloud2 unless told otherwise."""

from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.base import message_of
from cmp_seg_ros.messages.point_cloud2 import stamp_ns

POINT = "uint32 offset_time\nfloat32 x\nfloat32 y\nfloat32 z\nuint8 reflectivity\nuint8 tag\nuint8 line\n"
CUSTOM = (
    "std_msgs/Header header\nuint64 timebase\nuint32 point_num\nuint8 lidar_id\nuint8[3] rsvd\nCustomPoint[] points\n"
)
PACKAGES = ("livox_ros_driver2", "livox_ros_driver", "livox_interfaces")
TYPES = tuple(f"{package}/msg/CustomMsg" for package in PACKAGES)
# As the drivers have it, for bags that do not say themselves.
DEFINITIONS = {
    name: f"{CUSTOM}{'=' * 80}\nMSG: {package}/CustomPoint\n{POINT}"
    for name, package in zip(TYPES, PACKAGES, strict=True)
}
LATEST = 2**31 * 1_000_000_000  # ns; stamps of messages end there
KINDS = {"offset_time": np.uint32, "reflectivity": np.uint8, "tag": np.uint8, "line": np.uint8}  # others are float32


def cloud_of(message: Any) -> Any:
    """The PointCloud2 with the points of a CustomMsg, of whatever fields they have, and its stamp (or its timebase).

    Times (`offset_time`) are nanoseconds from the stamp; `reflectivity` is the intensity; `line` the laser. The message
    must have points.
    """
    names = [name for name in vars(message.points[0]) if not name.startswith("_")]
    columns: dict[str, npt.NDArray[Any]] = {
        name: np.array([getattr(point, name) for point in message.points], KINDS.get(name, np.float32))
        for name in names
    }
    stamp = stamp_ns(message.header) or int(message.timebase)
    if stamp >= LATEST:  # a timebase that is no time of day
        stamp = 0
    return message_of(columns, (1, len(message.points)), stamp, message.header.frame_id)

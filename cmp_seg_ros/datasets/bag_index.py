"""What of a bag is looked up by time: the image nearest to a scan, and where the robot was."""

from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.frame import CameraImage
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Transform
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.geometry.track import Track
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.messages.images import to_rgb
from cmp_seg_ros.messages.point_cloud2 import stamp_ns
from cmp_seg_ros.scan import UInt8

if TYPE_CHECKING:
    from cmp_seg_ros.datasets.bag import Bag

Int64 = npt.NDArray[np.int64]

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
ODOMETRY = "nav_msgs/msg/Odometry"
LATE = 500_000_000  # ns between a scan and an image that still go together


def image_topics(bag: "Bag", sensors: SensorSet) -> "dict[str, ImageTopic]":
    """The images of each camera, by its name: of the topic that has the name as a part, or of the only topic."""
    topics = [name for name, info in bag.topics.items() if info.type in IMAGE_TYPES and "truth" not in name]
    cameras: Mapping[str, CalibratedCamera | None] = sensors.calibration.cameras or {"camera": None}
    if len(topics) == len(cameras) == 1:
        [(name, camera)] = cameras.items()
        return {name: ImageTopic(bag, topics[0], camera)}
    found = {}
    for name, camera in cameras.items():
        own = [topic for topic in topics if name in topic.split("/")]
        if len(own) == 1:
            found[name] = ImageTopic(bag, own[0], camera)
    return found


class ImageTopic:
    """The images of one topic, by stamp."""

    def __init__(self, bag: "Bag", topic: str, camera: CalibratedCamera | None) -> None:
        self.bag, self.topic, self.camera = bag, topic, camera

    @cached_property
    def _stamps_and_times(self) -> tuple[Int64, Int64]:
        """Header stamp and time of recording of every image, by stamp."""
        found = sorted((cdr.stamp_ns(raw.data), raw.time) for raw in self.bag.serialised([self.topic]))
        stamps, times = np.array(found, np.int64).reshape(-1, 2).T
        return stamps, times

    def nearest(self, stamp: int) -> CameraImage | None:
        """The image of nearest stamp; None where the nearest is too far, or the scan has no stamp."""
        stamps, times = self._stamps_and_times
        if stamp == 0 or len(stamps) == 0:
            return None
        i = int(np.abs(stamps - stamp).argmin())
        if abs(int(stamps[i]) - stamp) > LATE:
            return None
        return CameraImage(int(stamps[i]), partial(self._read, int(stamps[i]), int(times[i])), self.camera)

    def _read(self, stamp: int, time: int) -> UInt8:
        for found in self.bag.messages([self.topic], time, time + 1):
            if stamp_ns(found.message.header) == stamp:
                return to_rgb(found.message)
        raise UserError(f"the image of stamp {stamp} on {self.topic} of {self.bag.path} cannot be read")


class NearestImages(Mapping[str, CameraImage]):
    """The images nearest to a moment, by camera; nothing is read before it is asked for.

    Args:
        stamp: ns, by the cameras' clock.
    """

    def __init__(self, topics: Mapping[str, ImageTopic], stamp: int) -> None:
        self._topics, self._stamp = topics, stamp

    @cached_property
    def _found(self) -> dict[str, CameraImage]:
        images = {name: topic.nearest(self._stamp) for name, topic in self._topics.items()}
        return {name: image for name, image in images.items() if image is not None}

    def __getitem__(self, name: str) -> CameraImage:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class Poses:
    """Where the lidar was, by the only topic of odometry of a bag."""

    def __init__(self, bag: "Bag", sensors: SensorSet) -> None:
        self._bag, self._sensors = bag, sensors
        self.topics = [name for name, info in bag.topics.items() if info.type == ODOMETRY]

    @cached_property
    def _track(self) -> Track:
        """Of the base; empty where the bag has none, or several topics of odometry."""
        found = {}
        for message in self._bag.messages(self.topics if len(self.topics) == 1 else []):
            pose = message.message.pose.pose
            p, q = pose.position, pose.orientation
            found[stamp_ns(message.message.header)] = (p.x, p.y, p.z, q.x, q.y, q.z, q.w)
        return Track(found)

    def T_world_lidar(self, stamp: int) -> Transform | None:
        """(4, 4) at a stamp in nanoseconds; None outside the track, or where the lidar's mount is not known."""
        T_base_lidar = self._sensors.T_base_lidar
        T_world_base = None if T_base_lidar is None else self._track.at(stamp)
        return None if T_world_base is None or T_base_lidar is None else T_world_base @ T_base_lidar

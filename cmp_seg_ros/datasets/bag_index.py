"""Lookups by time in a bag: the image nearest to a scan, and the pose of the robot."""

import os
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.frame import CameraImage
from cmp_seg_ros.datasets.storage.base import RawMessage
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Transform
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.geometry.track import Track
from cmp_seg_ros.messages import cdr
from cmp_seg_ros.messages.images import to_rgb
from cmp_seg_ros.messages.point_cloud2 import stamp_ns
from cmp_seg_ros.messages.transforms import pose_in
from cmp_seg_ros.scan import UInt8

if TYPE_CHECKING:
    from cmp_seg_ros.datasets.bag import Bag

Int64 = npt.NDArray[np.int64]

IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")
ODOMETRY = "nav_msgs/msg/Odometry"
LATE = 500_000_000  # ns between a scan and an image that still go together
SOON = 5_000_000_000  # ns ahead that are read through; beyond, a search is cheaper


def image_topics(bag: "Bag", sensors: SensorSet, by_receipt: bool = False) -> "dict[str, ImageTopic]":
    """The images of each camera, by its name: of the topic that the calibration names, else of that which has the
    camera's name as a part, or is the only one. Of an image recorded both raw and compressed the compressed one is
    taken.

    A camera of the calibration without images is noted, and one whose name is not in its topic.

    Args:
        by_receipt: whether images are stamped by when they were recorded, not by their headers.
    """
    topics = topics_of_images(bag)
    cameras: Mapping[str, CalibratedCamera | None] = sensors.calibration.cameras or {"camera": None}
    stamps = Stamps(bag, by_receipt)
    found = {}
    for name, camera in cameras.items():
        given = camera.topic if camera is not None else None
        if given:
            own = [one for one in map(bag.named, (given, f"{given}/compressed")) if one][:1]
        else:
            own = [topic for topic in topics if name in topic.split("/")]
        if not given and not own and len(topics) == len(cameras) == 1:
            own = topics
            if camera is not None:
                bag.notes.add(
                    f"bag {bag.path} has no topic of the name of camera '{name}': the images on {topics[0]}, the only "
                    f"ones, are taken as its own; if they are, write `topic: {topics[0]}` in the calibration file"
                )
        if len(own) == 1:
            found[name] = ImageTopic(bag, own[0], camera, stamps)
        elif camera is not None:
            why = f"several topics have its name: {', '.join(own)}" if own else f"of {', '.join(topics) or 'no topics'}"
            bag.notes.add(
                f"bag {bag.path} has no images for camera '{name}' ({why}); give its `topic` in the calibration file"
            )
    stamps.topics = [images.topic for images in found.values()]
    return found


def topics_of_images(bag: "Bag") -> list[str]:
    """Those of one kind of image: not also of its compressed form, nor of the truth."""
    topics = [name for name, info in bag.topics.items() if info.type in IMAGE_TYPES and "truth" not in name]
    return [name for name in topics if f"{name}/compressed" not in topics]


class Stamps:
    """Stamps and times of recording of all messages of some topics, read in one go when they are asked for."""

    def __init__(self, bag: "Bag", by_receipt: bool) -> None:
        self._bag, self._by_receipt = bag, by_receipt
        self.topics: list[str] = []

    @cached_property
    def _found(self) -> dict[str, Int64]:
        found: dict[str, list[tuple[int, int]]] = {topic: [] for topic in self.topics}
        for raw in self._bag.serialised(self.topics):
            found[raw.topic].append((self.stamp_of(raw), raw.time))
        return {topic: np.array(sorted(pairs), np.int64).reshape(-1, 2) for topic, pairs in found.items()}

    def stamp_of(self, raw: RawMessage) -> int:
        return raw.time if self._by_receipt else cdr.stamp_ns(raw.data)

    def of(self, topic: str) -> tuple[Int64, Int64]:
        """(M,) each, in the order of stamps."""
        stamps, times = self._found[topic].T
        return stamps, times


class ImageTopic:
    """The images of one topic, by stamp."""

    def __init__(self, bag: "Bag", topic: str, camera: CalibratedCamera | None, stamps: Stamps) -> None:
        self.bag, self.topic, self.camera = bag, topic, camera
        self._stamps = stamps
        self._ahead: Iterator[RawMessage] = iter(())  # the messages from `_position` on, for this process
        self._process = self._position = 0
        self._last: tuple[int, int, Any] = (0, 0, None)  # stamp, time and message

    def nearest(self, stamp: int) -> CameraImage | None:
        """The image of nearest stamp; None where the nearest is too far, or the scan has no stamp."""
        stamps, times = self._stamps.of(self.topic)
        if stamp == 0 or len(stamps) == 0:
            return None
        after = int(np.clip(np.searchsorted(stamps, stamp), 1, len(stamps) - 1)) if len(stamps) > 1 else 0
        i = min(max(after - 1, 0), after, key=lambda place: abs(int(stamps[place]) - stamp))
        if abs(int(stamps[i]) - stamp) > LATE:
            return None
        place = (int(stamps[i]), int(times[i]))
        return CameraImage(place[0], partial(self._rgb, *place), self.camera, partial(self._stored, *place))

    def _rgb(self, stamp: int, time: int) -> UInt8:
        return to_rgb(self._message(stamp, time))

    def _stored(self, stamp: int, time: int) -> bytes:
        """The compressed image; nothing of an image that is not."""
        message = self._message(stamp, time)
        return b"" if hasattr(message, "encoding") else bytes(message.data)

    def _message(self, stamp: int, time: int) -> Any:
        """Reads forwards, since scans ask for their images in the order of the bag, and a search costs more."""
        if self._last[:2] != (stamp, time):
            if self._process != os.getpid() or not self._position <= time < self._position + SOON:
                self._process, self._position = os.getpid(), time
                self._ahead = self.bag.serialised([self.topic], time)
            raw = self._find(self._ahead, stamp, time)
            if raw is None:  # in a bag that is not in the order of time
                raw = self._find(self.bag.serialised([self.topic], time, time + 1), stamp, time)
            self._last = (stamp, time, None if raw is None else self.bag.deserialised(raw))
        if self._last[2] is None:
            raise UserError(f"the image of stamp {stamp} on {self.topic} of {self.bag.path} cannot be read")
        return self._last[2]

    def _find(self, messages: Iterator[RawMessage], stamp: int, time: int) -> RawMessage | None:
        for raw in messages:
            self._position = raw.time
            if raw.time == time and self._stamps.stamp_of(raw) == stamp:
                return raw
            if raw.time > time:
                return None
        return None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_ahead": iter(()), "_process": 0, "_last": (0, 0, None)}


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
            found[stamp_ns(message.message.header)] = pose_in(message.message.pose.pose)
        return Track(found)

    def T_world_lidar(self, stamp: int) -> Transform | None:
        """(4, 4) at a stamp in nanoseconds; None outside the track, or where the lidar's mount is not known."""
        T_base_lidar = self._sensors.T_base_lidar
        T_world_base = None if T_base_lidar is None else self._track.at(stamp)
        return None if T_world_base is None or T_base_lidar is None else T_world_base @ T_base_lidar

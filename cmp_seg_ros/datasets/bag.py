"""Bags: ROS 1, and ROS 2 in sqlite3 or mcap, whole or cut short."""

import re
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from cmp_seg_ros.datasets import bag_index, livox, ouster, storage
from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.base import Problems
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels
from cmp_seg_ros.datasets.storage import METADATA, ZSTD
from cmp_seg_ros.datasets.storage.base import CDR, ROS1, RawMessage, Topic, joined, line
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.motion import point_times
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.messages.cdr import POINT_CLOUD2

REMEDY = "copy it again, reindex it (rosbag reindex, ros2 bag reindex) or record it again"
TRUTH_TOPIC = "/truth/points"  # as `cmp-seg simulate` records it
TRUTH_SPACE = "structural6"  # also the name of the truth's field
WAITING = 16  # clouds that wait for their truth, or truths for their cloud
NEAR = 1_000_000_000  # ns between the recording of a cloud and that of its truth
STRETCH = 10_000_000_000  # ns of a sequence that intervals take as one
SUFFIXES = (".bag", ".mcap", ".db3")
# Raw packets of sensors, by their types; and what makes clouds of them, by the package of the type.
PACKETS = re.compile(r"Packet|PandarScan|VelodyneScan|RslidarScan|UdpFrame")
DRIVERS = {
    "velodyne_msgs": "velodyne_pointcloud",
    "pandar_msgs": "nebula_ros or Hesai's own",
    "hesai_ros_driver": "hesai_ros_driver",
    "nebula_msgs": "nebula_ros",
    "rslidar_msg": "rslidar_sdk",
    "rslidar_msgs": "rslidar_sdk",
    "ouster_ros": "ouster_ros",
    "ouster_sensor_msgs": "ouster_ros",
}
DEFINITIONS = ouster.DEFINITIONS | livox.DEFINITIONS  # of types that are not ROS's, for bags without their own


class Message(NamedTuple):
    """A message of a bag; time is that of recording, in nanoseconds."""

    topic: str
    time: int
    message: Any


class Bag:
    """The messages of a bag. What is damaged is passed over and noted in `problems`.

    Args:
        path: a rosbag2 folder (with or without metadata.yaml), or a .bag, .mcap or .db3 file by any name.

    Attributes:
        topics: by name, as it was recorded.
        problems: why messages are missing.
        notes: what is odd about the bag and costs no message.

    Raises:
        UserError: no message can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems = Problems()
        self.notes = Problems()
        self._files = storage.open_files(path)
        if not self._files.storages and not (path / METADATA).is_file():
            named = path.is_file() and path.suffix in SUFFIXES
            why = (
                f"does not begin as {path.suffix} files do" if named else "is neither a rosbag2 folder nor such a file"
            )
            raise UserError(f"{path} is no bag (.bag, .mcap, .db3): it {why}")
        for note in self._files.notes:
            self.notes.add(f"bag {path}: {note}")
        self.undecodable: dict[str, str] = {}  # why no message of a topic was found fit by `first`
        self._types = _Types()
        self.topics = joined(item for file in self._files.storages for item in file.topics.items())
        if not any(topic.size for topic in self.topics.values()):
            if self._files.damage:
                raise UserError(f"{self.damage()}; {REMEDY}")
            raise UserError(f"bag {path} holds no messages; {_others(self) if self.topics else 'record it again'}")

    def damage(self) -> str:
        """That the bag is not whole, and what was in it when it was; nothing where its files are."""
        if not self._files.damage:
            return ""
        told = ", ".join(
            f"{name} ({info.type}, {info.size})" for name, info in self._files.promised.items() if info.size
        )
        read = ", ".join(f"{name} ({info.size})" for name, info in self.topics.items() if info.size)
        promise = f"its {METADATA} promises {told}; " if told else ""
        found = f"messages of {read} alone" if read else "no message"
        return f"bag {self.path} is damaged or cut short ({self._files.damage}): {promise}{found} could be read"

    def named(self, topic: str) -> str | None:
        """The bag's own spelling of a topic, which may have been recorded with or without the slash before it."""
        return next((name for name in (topic, f"/{topic.strip('/')}", topic.strip("/")) if name in self.topics), None)

    def messages(self, topics: Collection[str], start: int | None = None, stop: int | None = None) -> Iterator[Message]:
        """The messages of some topics, in the order of recording: those recorded from `start` to before `stop` (ns)."""
        for raw in self.serialised(topics, start, stop):
            message = self.deserialised(raw)
            if message is not None:
                yield Message(raw.topic, raw.time, message)

    def deserialised(self, raw: RawMessage) -> Any:
        """One of the messages of `serialised`; None where it cannot be decoded, which is noted."""
        try:
            return self._types.deserialise(raw.data, self.topics[raw.topic])
        except Exception as error:  # whatever damaged bytes make of the library
            self._note_undecodable(raw.topic, error)
            return None

    def serialised(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Generator[RawMessage, None, None]:
        """The same messages as CDR, as ROS 2 sends them."""
        count = Counter[str]()
        for raw in self._raw(topics, start, stop):
            count[raw.topic] += 1
            try:
                data = self._types.cdr(raw.data, self.topics[raw.topic])
            except Exception as error:  # whatever damaged bytes make of the library
                self._note_undecodable(raw.topic, error)
                continue
            yield raw._replace(data=data)
        if start is None and stop is None:
            self._note_missing([topic for topic in topics if topic in self.topics], count)

    def first(self, topic: str, fits: Callable[[Any], bool] = lambda message: True) -> Any:
        """The first message of a topic that can be read and fits, or None. What cannot be read is not noted yet."""
        known = self.topics[topic]
        for raw in self._raw([topic]):
            try:
                message = self._types.deserialise(self._types.cdr(raw.data, known), known)
            except Exception as error:  # whatever damaged bytes make of the library
                self.undecodable.setdefault(topic, line(error))
                continue
            if fits(message):
                return message
        return None

    def _raw(self, topics: Collection[str], start: int | None = None, stop: int | None = None) -> Iterator[RawMessage]:
        known = [topic for topic in topics if topic in self.topics]
        for file in self._files.storages:
            yield from file.messages(known, start, stop)

    def _note_undecodable(self, topic: str, error: Exception) -> None:
        what = f"bag {self.path} has a message on {topic} that cannot be decoded: {line(error)}"
        self.problems.add(what, topic)

    def _note_missing(self, topics: Collection[str], count: Mapping[str, int]) -> None:
        """What is to be said after all messages of some topics were asked for and `count` of them came."""
        promised = {name: topic.size for name, topic in self._files.promised.items()}
        missing = sum(max(0, max(self.topics[name].size, promised.get(name, 0)) - count[name]) for name in topics)
        damage = self._files.damage
        if damage and promised and not missing and self._files.is_closed:
            self.notes.add(f"bag {self.path}: {damage}; all messages that its {METADATA} promises were read", "damaged")
        elif damage or missing:
            self.problems.add(
                f"bag {self.path} is damaged or cut short ({damage or f'{missing} are missing'}): "
                f"{sum(count.values())} messages of {', '.join(topics)} could be read; {REMEDY}",
                "damaged",
            )


class _Types:
    """The messages of ROS, and those that a bag defines itself. Raises whatever the library makes of odd bytes."""

    def __init__(self) -> None:
        self._store = cdr.new_typestore()

    def deserialise(self, data: bytes, topic: Topic) -> Any:
        """A message that is CDR."""
        self._know(topic)
        return self._store.deserialize_cdr(data, topic.type)

    def cdr(self, data: bytes, topic: Topic) -> bytes:
        """A message as it lies in a bag, as CDR of ROS 2."""
        if topic.encoding == CDR:  # which begins with 0
            return zstandard.ZstdDecompressor().decompressobj().decompress(data) if data.startswith(ZSTD) else data
        if topic.encoding != ROS1:
            raise ValueError(f"its encoding is '{topic.encoding}', not that of ROS messages")
        self._know(topic)
        return bytes(self._store.ros1_to_cdr(data, topic.type))

    def _know(self, topic: Topic) -> None:
        """Make the type of a topic known, by the bag's own definition or by one of DEFINITIONS."""
        from rosbags.typesys import get_types_from_idl, get_types_from_msg

        known = self._store.fielddefs
        if topic.type in known:
            return
        types: dict[str, Any] = {}
        if topic.is_idl:
            for part in re.split(r"^=+\nIDL: .*\n", topic.definition, flags=re.MULTILINE):
                types |= get_types_from_idl(part) if part.strip() else {}
        elif text := topic.definition or DEFINITIONS.get(topic.type, ""):
            types = get_types_from_msg(text, topic.type)
        self._store.register({name: fields for name, fields in types.items() if name not in known})
        if topic.type not in known:
            raise ValueError(f"the bag does not say what a message of {topic.type} is")


class DataSet(BaseDataSet):
    """The clouds of one topic of a bag; keys are their numbers. Ouster's packets go to ouster-sdk.

    With each cloud come: the truth of its stamp, where the bag holds clouds of it (`cmp-seg simulate`); of each camera
    of the calibration the image nearest in time; the pose, where there is one topic of odometry and the lidar's mount
    is known.
    """

    has_topics = True
    is_general = True
    stamps_by_receipt = False  # whether images are stamped by when they were recorded; for scans see `stamp_of`

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        super().__init__(path, topic, sensors)
        self.bag = Bag(path)
        self.problems, self.notes = self.bag.problems, self.bag.notes
        self.topic = choose_topic(self.bag, topic)
        self.packets = self.bag.topics[self.topic].type in ouster.PACKET_TYPES
        self._is_livox = self.bag.topics[self.topic].type in livox.TYPES
        if not self.packets:
            self.count = self.bag.topics[self.topic].size
        if TRUTH_TOPIC in self.bag.topics:
            self.label_spaces = {TRUTH: LabelSpace.load(TRUTH_SPACE)}
        self._cameras = bag_index.image_topics(self.bag, self.sensors, self.stamps_by_receipt)
        if (images := bag_index.topics_of_images(self.bag)) and not self.sensors.calibration.cameras:
            self.uncalibrated = f"bag {path} has images ({', '.join(images)}), but no calibration file of their cameras"
        self._poses = bag_index.Poses(self.bag, self.sensors)
        self.seeks = self.count is not None and not self.bag.damage()

    @property
    def has_clouds(self) -> bool:
        """Whether its topic is of PointCloud2, and not of packets or of a driver's own messages."""
        return not self.packets and not self._is_livox

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if path.is_dir():
            return (path / METADATA).is_file()
        return storage.kind_of(path) is not None

    def __iter__(self) -> Iterator[Frame]:
        if self.packets:
            yield from ouster.frames_of_bag(self.bag, self.topic, self.sensors)
            return
        yield from self._noted(self._joined())

    def _noted(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames, with a note on stamps that are of no use."""
        before = 0
        for frame in frames:
            stamp = frame.scan.stamp
            if stamp == 0:
                self.notes.add(
                    f"scan {frame.key} on {self.topic} of {self.path} has the stamp zero: it cannot be matched in "
                    "time; let the driver set header.stamp",
                    "zero",
                )
            elif stamp < before:
                self.notes.add(
                    f"time runs backwards at scan {frame.key} on {self.topic} of {self.path}, by "
                    f"{(before - stamp) * 1e-9:.3f} s; split the bag there or mend the sensor's clock",
                    "backwards",
                )
            before = stamp
            yield frame

    def stretch(self, start: int, stop: int | None = None) -> Iterator[Frame]:
        if not self.seeks:
            yield from super().stretch(start, stop)
            return
        stop = len(self._times) if stop is None else min(stop, len(self._times))
        if start >= stop:
            return
        first, begin, end = 0, None, None
        if self._in_order:
            margin = NEAR if self.label_spaces else 0  # the truth is recorded before or after
            begin, end = self._times[start] - margin, self._times[stop - 1] + 1 + margin
            first = bisect_left(self._times, begin)
        joined = takewhile(lambda frame: frame.number < stop, self._joined(first, begin, end))
        yield from self._noted(frame for frame in joined if frame.number >= start)

    def frame_at(self, number: int) -> Frame:
        for frame in self.stretch(number, number + 1):
            return frame
        raise self._unreadable(number)

    @cached_property
    def _times(self) -> list[int]:
        """When each cloud was recorded."""
        return [time for time, _ in self._recorded]

    @cached_property
    def _in_order(self) -> bool:
        """Whether clouds are read in the order of their times; files that are read as they lie may have another."""
        return self._times == sorted(self._times)

    @cached_property
    def _recorded(self) -> list[tuple[int, int]]:
        """When each cloud was recorded, and its header's stamp."""
        return [(raw.time, cdr.stamp_ns(raw.data)) for raw in self.bag.serialised([self.topic])]

    def stamp_of(self, number: int, stamp: int) -> int:
        """The stamp of a scan whose header says `stamp`; data sets with known faults mend it here."""
        return stamp

    @cached_property
    def _begin(self) -> int:
        """The first stamp."""
        first = self.bag.first(self.topic, lambda message: point_cloud2.stamp_ns(message.header) != 0)
        return 0 if first is None else self.stamp_of(0, point_cloud2.stamp_ns(first.header))

    def _joined(self, number: int = 0, start: int | None = None, stop: int | None = None) -> Iterator[Frame]:
        """The frame of each cloud that can be read, with the truth of its stamp.

        Args:
            number: of the first cloud recorded from `start` on.
        """
        topics = [self.topic] if not self.label_spaces else [self.topic, TRUTH_TOPIC]
        waiting: deque[Frame] = deque()
        truths: dict[int, Any] = {}
        for topic, _, message in self.bag.messages(topics, start, stop):
            if topic == TRUTH_TOPIC and topic != self.topic:
                truths[point_cloud2.stamp_ns(message.header)] = message
                if len(truths) > WAITING:
                    truths.pop(next(iter(truths)))
                    self.problems.add(f"a truth on {TRUTH_TOPIC} of {self.path} is of no scan's stamp", "truth")
            else:
                what = f"scan {number:06d} on {self.topic} of {self.path}"
                try:
                    if _is_empty(message):
                        self.notes.add(f"{what} is empty: it has no points", "empty")
                    else:
                        waiting.append(self._frame(number, message, what))
                except UserError as error:
                    self.problems.add(f"{what} is left out: {error}", "cloud")
                number += 1
            while waiting and (not self.label_spaces or waiting[0].scan.stamp in truths or len(waiting) > WAITING):
                frame = waiting.popleft()
                yield self._with_truth(frame, truths.pop(frame.scan.stamp, None))
        for frame in waiting:
            yield self._with_truth(frame, truths.pop(frame.scan.stamp, None))

    def _with_truth(self, frame: Frame, message: Any) -> Frame:
        """A frame with its truth, where there is one and it fits."""
        if message is None:
            return frame
        try:
            label = point_cloud2.decode_labels(message, TRUTH_SPACE).label
        except UserError as error:
            self.problems.add(f"the truth of scan {frame.key} of {self.path} is left out: {error}", "truth")
            return frame
        if len(label) != len(frame.scan):
            self.problems.add(
                f"scan {frame.key} of {self.path} has {len(frame.scan)} points, its truth {len(label)}; simulate the "
                "bag again",
                "size",
            )
            return frame
        return replace(frame, labels={TRUTH: PointLabels(self.label_spaces[TRUTH], label)})

    def _frame(self, number: int, message: Any, what: str) -> Frame:
        """The frame of a message of the topic, without its truth. Raises UserError."""
        cloud = livox.cloud_of(message) if self._is_livox else message
        scan = point_cloud2.decode(cloud, note=lambda text: self.notes.add(f"{what}: {text}", text))
        scan = replace(scan, stamp=self.stamp_of(number, scan.stamp))
        stretch = (scan.stamp - self._begin) // STRETCH if scan.stamp else number // 100
        lidar = self.sensors.lidar
        return Frame(
            f"{number:06d}",
            scan if lidar is None else replace(scan, time=point_times(scan, lidar)),
            number,
            cloud,
            images=bag_index.NearestImages(self._cameras, lidar.camera_stamp(scan.stamp) if lidar else scan.stamp),
            T_base_lidar=self.sensors.T_base_lidar,
            intensity_statistics=self.sensors.intensity_statistics,
            camera_offset=round(lidar.time_offset * 1e9) if lidar else 0,
            locate=self._poses.T_world_lidar,
            sequence=str(self.path),
            group=f"{self.path.name}/{stretch}",
        )


def bag_of(path: Path) -> Path:
    """The bag in a folder of `cmp-seg simulate`; else the path itself."""
    return path / "bag" if (path / "bag" / METADATA).is_file() else path


def topics_at(path: Path) -> frozenset[str]:
    """Names of the topics of a bag; none of what is no bag that can be read."""
    try:
        return _topics_at(path, path.stat().st_mtime_ns) if DataSet.recognises(path) else frozenset()
    except (OSError, UserError):
        return frozenset()


@lru_cache(maxsize=16)
def _topics_at(path: Path, _changed: int) -> frozenset[str]:
    return frozenset(Bag(path).topics)


def choose_topic(bag: Bag, topic: str) -> str:
    """The topic of clouds that is asked for, or the only one. Raises UserError with the topics that would do."""
    with_points = next((group for group in _with_points(bag) if group), [])
    would_do = ", ".join(f"{name} ({bag.topics[name].size} messages)" for name in with_points)
    if topic:
        name = bag.named(topic)
        if name is not None and any(name in group for group in _with_points(bag)):
            return name
        why = f"holds {bag.topics[name].type}, no clouds with x, y and z" if name else "is not in the bag"
        others = f"these would do: {would_do}" if would_do else _others(bag)
        raise UserError(f"topic {name or topic} of {bag.path} {why}; {others}")
    if len(with_points) == 1:
        return with_points[0]
    if with_points:
        raise UserError(f"bag {bag.path} has several topics of clouds; choose one with --topic: {would_do}")
    raise UserError(f"bag {bag.path} has no PointCloud2 with x, y and z; {_others(bag)}")


def _with_points(bag: Bag) -> Iterator[list[str]]:
    """Topics of clouds with x, y and z, of Livox's messages, of packets that become such; the best first."""
    topics = {name: topic for name, topic in bag.topics.items() if topic.size and topic.encoding in (CDR, ROS1)}
    yield [name for name, topic in topics.items() if topic.type == POINT_CLOUD2 and _has_points(bag, name)]
    yield [name for name, topic in topics.items() if topic.type in livox.TYPES and bag.first(name) is not None]
    yield ouster.lidar_topics(topics)


def _has_points(bag: Bag, topic: str) -> bool:
    """Whether a cloud of a topic that is not empty has x, y and z."""
    return bag.first(topic, lambda cloud: not _is_empty(cloud) and {"x", "y", "z"} <= _fields(cloud)) is not None


def _fields(cloud: Any) -> set[str]:
    return {field.name.lower() for field in cloud.fields}


def _is_empty(message: Any) -> bool:
    """Whether a cloud holds nothing, as those that some drivers send until the sensor has started."""
    points = getattr(message, "points", None)  # Livox's
    return not len(points) if points is not None else not message.fields or 0 in (message.height, message.width)


def _others(bag: Bag) -> str:
    """What a bag without clouds has instead, and what to do about it."""
    if damage := bag.damage():
        return f"{damage}; {REMEDY}"
    topics = f"its topics are {', '.join(f'{name} ({_described(topic)})' for name, topic in bag.topics.items())}"
    for name, why in bag.undecodable.items():
        return f"{topics}: no message on {name} can be decoded ({why}); {REMEDY}"
    empty = [name for name, topic in bag.topics.items() if topic.type == POINT_CLOUD2 and bag.first(name, _is_empty)]
    if empty:
        return f"{topics}: the clouds on {', '.join(empty)} are empty; check the sensor's driver"
    clouds = {name: topic for name, topic in bag.topics.items() if topic.type == POINT_CLOUD2}
    for name, topic in clouds.items():
        if topic.encoding not in (CDR, ROS1):
            return f"{topics}: messages as on {name} are not supported; record them as {CDR}, the default of ROS 2"
        if (cloud := bag.first(name, lambda message: not _is_empty(message))) is not None:
            return f"{topics}: the clouds on {name} have the fields {', '.join(sorted(_fields(cloud)))} alone"
    foreign = [name for name, topic in bag.topics.items() if "PointCloud" in topic.type and topic.type != POINT_CLOUD2]
    if foreign:
        return f"{topics}: clouds as on {', '.join(foreign)} are not supported; record the sensor's {POINT_CLOUD2}"
    packages = {name: topic.type.split("/")[0] for name, topic in bag.topics.items()}
    packets = [name for name in packages if PACKETS.search(bag.topics[name].type)]
    if packets:
        drivers = {DRIVERS[packages[name]] for name in packets if packages[name] in DRIVERS}
        driver = f" ({', '.join(sorted(drivers))})" if drivers else ""
        return (
            f"{topics}: {', '.join(packets)} holds raw packets. Play the bag into the sensor's driver{driver} and "
            "record the PointCloud2 that it publishes"
        )
    return f"{topics}: record the sensor's PointCloud2 topic"


def _described(topic: Topic) -> str:
    """Type and number of a topic's messages, and their encoding where it is none of ROS."""
    encoding = "" if topic.encoding in (CDR, ROS1) else f" as {topic.encoding or 'no encoding that is named'}"
    return f"{topic.type or 'no type'}{encoding}, {topic.size}"

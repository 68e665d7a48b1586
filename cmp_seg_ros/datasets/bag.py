"""Bags: ROS 1, and ROS 2 in sqlite3 or mcap, whole or cut short."""

import re
from collections import Counter, deque
from collections.abc import Callable, Collection, Generator, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from cmp_seg_ros.datasets import bag_index, ouster, recovery
from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.base import Problems
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.scan import Scan

if TYPE_CHECKING:
    from rosbags.highlevel import AnyReader

POINT_CLOUD2 = "sensor_msgs/msg/PointCloud2"
METADATA = "metadata.yaml"
REMEDY = "copy it again, reindex it (rosbag reindex, ros2 bag reindex) or record it again"
TRUTH_TOPIC = "/truth/points"  # as `cmp-seg simulate` records it
TRUTH_SPACE = "structural6"  # also the name of the truth's field
WAITING = 16  # clouds that wait for their truth, or truths for their cloud
NEAR = 1_000_000_000  # ns between the recording of a cloud and that of its truth
STRETCH = 10_000_000_000  # ns of a sequence that intervals take as one
SUFFIXES = {recovery.ROS1: ".bag", recovery.MCAP: ".mcap", recovery.SQLITE: ".db3"}


class Topic(NamedTuple):
    """What a bag holds of a topic: message type (pkg/msg/Name) and number of messages."""

    type: str
    size: int


class Message(NamedTuple):
    """A message of a bag; time is that of recording, in nanoseconds."""

    topic: str
    time: int
    message: Any


class Bag:
    """The messages of a bag. What is damaged is passed over and noted in `problems`.

    Args:
        path: a rosbag2 folder (with or without metadata.yaml), or a .bag, .mcap or .db3 file by any name.

    Raises:
        UserError: no message can be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.problems = Problems()
        self._damaged = ""  # why the bag cannot be read by its own reader
        kinds = {recovery.storage(file) for file in _storage_files(path)} - {b""} if path.exists() else set()
        if not kinds and not (path / METADATA).is_file():
            named = path.is_file() and path.suffix in SUFFIXES.values()
            why = (
                f"does not begin as {path.suffix} files do" if named else "is neither a rosbag2 folder nor such a file"
            )
            raise UserError(f"{path} is no bag (.bag, .mcap, .db3): it {why}")
        self.is_ros1 = recovery.ROS1 in kinds
        self.topics = self._read_topics()
        if not any(topic.size for topic in self.topics.values()):
            why = self.damage() or f"bag {path} holds no messages"
            raise UserError(f"{why}; {REMEDY if self._damaged else 'record it again'}")

    def damage(self) -> str:
        """That the bag is not whole, and what was in it when it was; nothing where its own reader opens it."""
        if not self._damaged:
            return ""
        promised = _promised(self.path)
        told = ", ".join(f"{name} ({info.type}, {info.size})" for name, info in promised.items() if info.size)
        read = ", ".join(f"{name} ({info.size})" for name, info in self.topics.items() if info.size)
        promise = f"its {METADATA} promises {told}; " if told else ""
        found = f"messages of {read} alone" if read else "no message"
        return f"bag {self.path} is damaged or cut short ({self._damaged}): {promise}{found} could be read"

    def messages(self, topics: Collection[str], start: int | None = None, stop: int | None = None) -> Iterator[Message]:
        """Messages of some topics in the order of recording; only those recorded from `start` to before `stop` (ns)."""
        for raw, reader in self._raw(topics, start, stop):
            for message in self._tried(reader.deserialize if reader else self._deserialize, raw):
                yield Message(raw.topic, raw.time, message)

    def serialised(self, topics: Collection[str]) -> Generator[recovery.RawMessage, None, None]:
        """The same messages as CDR, as ROS 2 sends them."""
        from rosbags.typesys import Stores

        for raw, reader in self._raw(topics):
            if not self.is_ros1:
                yield raw
                continue
            typestore = _typestore(Stores.ROS2_HUMBLE)
            if reader and raw.type not in typestore.fielddefs:
                definitions = reader.typestore.fielddefs.items()
                typestore.register({name: fields for name, fields in definitions if name not in typestore.fielddefs})
            for data in self._tried(typestore.ros1_to_cdr, raw):
                yield raw._replace(data=bytes(data))

    def _tried(self, convert: Callable[[bytes, str], Any], raw: recovery.RawMessage) -> Iterator[Any]:
        """What becomes of a message; nothing, and a note, where its bytes make no sense."""
        try:
            converted = convert(raw.data, raw.type)
        except Exception as error:  # whatever damaged bytes make of the library
            what = f"bag {self.path} has a message on {raw.topic} that cannot be decoded: {_line(error)}"
            self.problems.add(what, raw.topic)
            return
        yield converted

    def _deserialize(self, data: bytes, msgtype: str) -> Any:
        """A message without the definitions of its bag: those of ROS are taken."""
        from rosbags.typesys import Stores

        if self.is_ros1:
            return _typestore(Stores.ROS1_NOETIC).deserialize_ros1(data, msgtype)
        return _typestore(Stores.ROS2_HUMBLE).deserialize_cdr(data, msgtype)

    def _raw(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> "Iterator[tuple[recovery.RawMessage, AnyReader | None]]":
        count = Counter[str]()
        if not self._damaged:
            try:
                for raw, reader in self._whole(topics, start, stop):
                    count[raw.topic] += 1
                    yield raw, reader
            except _Damage as error:
                self._damaged = str(error)
        if self._damaged:
            skip = count.copy()
            for raw in self._recovered():
                if raw.topic not in topics:
                    continue
                if skip[raw.topic]:
                    skip[raw.topic] -= 1
                    continue
                count[raw.topic] += 1
                if (start is None or raw.time >= start) and (stop is None or raw.time < stop):
                    yield raw, None
        if start is not None or stop is not None:
            return
        missing = sum(max(0, self.topics[topic].size - count[topic]) for topic in topics if topic in self.topics)
        if self._damaged or missing:
            why = f" ({self._damaged})" if self._damaged else f" ({missing} are missing)"
            self.problems.add(
                f"bag {self.path} is damaged or cut short{why}: {sum(count.values())} messages of "
                f"{', '.join(topics)} could be read; {REMEDY}",
                "damaged",
            )

    def first(self, topic: str) -> Any:
        """The first message of a topic that can be read, or None."""
        messages = self.messages([topic])
        try:
            return next((message.message for message in messages), None)
        finally:
            messages.close()  # type: ignore[attr-defined]

    def _read_topics(self) -> dict[str, Topic]:
        try:
            with _open(self.path) as reader:
                return {name: Topic(info.msgtype or "", info.msgcount) for name, info in reader.topics.items()}
        except _Damage as error:
            self._damaged = str(error)
        count, types = Counter[str](), dict[str, str]()
        for raw in self._recovered():
            count[raw.topic] += 1
            types[raw.topic] = raw.type
        return {topic: Topic(types[topic], count[topic]) for topic in sorted(count)}

    def _whole(
        self, topics: Collection[str], start: int | None, stop: int | None
    ) -> "Iterator[tuple[recovery.RawMessage, AnyReader]]":
        with _open(self.path) as reader:
            connections = [connection for connection in reader.connections if connection.topic in topics]
            messages = reader.messages(connections, start, stop) if connections else iter(())
            while True:
                try:
                    connection, time, data = next(messages)
                except StopIteration:
                    return
                except Exception as error:  # whatever damaged bytes make of the library
                    raise _Damage(_line(error)) from error
                yield recovery.RawMessage(connection.topic, connection.msgtype, time, data), reader

    def _recovered(self) -> Iterator[recovery.RawMessage]:
        for file in _storage_files(self.path):
            yield from recovery.recover(file)


class DataSet(BaseDataSet):
    """The clouds of one PointCloud2 topic of a bag; keys are their numbers. Ouster's packets go to ouster-sdk.

    With each cloud come: the truth of its stamp, where the bag holds clouds of it (`cmp-seg simulate`); of each camera
    of the calibration the image nearest in time; the pose, where there is one topic of odometry and the lidar's mount
    is known.
    """

    has_topics = True

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        super().__init__(path, topic, sensors)
        self.bag = Bag(path)
        self.problems = self.bag.problems
        self.topic = choose_topic(self.bag, topic)
        self.packets = self.bag.topics[self.topic].type != POINT_CLOUD2
        if not self.packets:
            self.count = self.bag.topics[self.topic].size
        if TRUTH_TOPIC in self.bag.topics:
            self.label_spaces = {TRUTH: LabelSpace.load(TRUTH_SPACE)}
        self._cameras = bag_index.image_topics(self.bag, self.sensors)
        self._poses = bag_index.Poses(self.bag, self.sensors)
        self._times: list[int] | None = None

    @classmethod
    def recognises(cls, path: Path) -> bool:
        if path.is_dir():
            return (path / METADATA).is_file()
        return bool(recovery.storage(path))

    def __iter__(self) -> Iterator[Frame]:
        if self.packets:
            yield from ouster.frames_of_bag(self.bag, self.topic, self.sensors)
            return
        begin = before = 0
        for number, scan, message, truth in self._joined():
            if scan.stamp == 0:
                self.problems.add(
                    f"scan {number:06d} on {self.topic} of {self.path} has the stamp zero: it cannot be matched in "
                    "time; let the driver set header.stamp",
                    "zero",
                )
            elif scan.stamp < before:
                self.problems.add(
                    f"time runs backwards at scan {number:06d} on {self.topic} of {self.path}, by "
                    f"{(before - scan.stamp) * 1e-9:.3f} s; split the bag there or mend the sensor's clock",
                    "backwards",
                )
            before = scan.stamp
            begin = begin or scan.stamp
            yield self._frame(number, scan, message, truth, begin)

    def __getitem__(self, number: int) -> Frame:
        if self.packets or self.bag.damage():
            return super().__getitem__(number)
        if self._times is None:
            self._times = [raw.time for raw in self.bag.serialised([self.topic])]
        if not 0 <= number < len(self._times):
            raise IndexError(f"{self.path} has no scan {number} on {self.topic}")
        time = self._times[number]
        nth = number - self._times.index(time)  # of those recorded at the same time
        found = next(islice(self.bag.messages([self.topic], time, time + 1), nth, None), None)
        if found is None:
            raise UserError(f"scan {number:06d} on {self.topic} of {self.path} cannot be read; {REMEDY}")
        scan = point_cloud2.decode(found.message)
        truth = None
        if self.label_spaces:
            near = self.bag.messages([TRUTH_TOPIC], time - NEAR, time + NEAR)
            same = (m.message for m in near if point_cloud2.stamp_ns(m.message.header) == scan.stamp)
            truth = self._truth_of(next(same, None), len(scan), number)
        return self._frame(number, scan, found.message, truth, scan.stamp)

    def _joined(self) -> Iterator[tuple[int, Scan, Any, PointLabels | None]]:
        """Number, scan and message of each cloud that can be read, with the truth of its stamp."""
        topics = [self.topic] if not self.label_spaces else [self.topic, TRUTH_TOPIC]
        waiting: deque[tuple[int, Scan, Any]] = deque()
        truths: dict[int, Any] = {}
        number = 0

        def next_one() -> tuple[int, Scan, Any, PointLabels | None]:
            place, scan, message = waiting.popleft()
            return place, scan, message, self._truth_of(truths.pop(scan.stamp, None), len(scan), place)

        for topic, _, message in self.bag.messages(topics):
            if topic == TRUTH_TOPIC and topic != self.topic:
                truths[point_cloud2.stamp_ns(message.header)] = message
                if len(truths) > WAITING:
                    truths.pop(next(iter(truths)))
                    self.problems.add(f"a truth on {TRUTH_TOPIC} of {self.path} is of no scan's stamp", "truth")
            else:
                try:
                    waiting.append((number, point_cloud2.decode(message), message))
                except UserError as error:
                    text = f"scan {number:06d} on {self.topic} of {self.path} is left out: {error}"
                    self.problems.add(text, "cloud")
                number += 1
            while waiting and (not self.label_spaces or waiting[0][1].stamp in truths or len(waiting) > WAITING):
                yield next_one()
        while waiting:
            yield next_one()

    def _truth_of(self, message: Any, points: int, number: int) -> PointLabels | None:
        if message is None:
            return None
        try:
            label = point_cloud2.decode_labels(message, TRUTH_SPACE).label
        except UserError as error:
            self.problems.add(f"the truth of scan {number:06d} of {self.path} is left out: {error}", "truth")
            return None
        if len(label) != points:
            self.problems.add(
                f"scan {number:06d} of {self.path} has {points} points, its truth {len(label)}; simulate the bag again",
                "size",
            )
            return None
        return PointLabels(self.label_spaces[TRUTH], label)

    def _frame(self, number: int, scan: Scan, message: Any, truth: PointLabels | None, begin: int) -> Frame:
        stretch = (scan.stamp - begin) // STRETCH if scan.stamp else number // 100
        return Frame(
            f"{number:06d}",
            scan,
            number,
            message,
            labels={} if truth is None else {TRUTH: truth},
            images=bag_index.NearestImages(self._cameras, self._camera_stamp(scan)),
            T_base_lidar=self.sensors.T_base_lidar,
            locate=partial(self._poses.T_world_lidar, scan.stamp),
            sequence=str(self.path),
            group=f"{self.path.name}/{stretch}",
        )

    def _camera_stamp(self, scan: Scan) -> int:
        """By the cameras' clock."""
        return self.sensors.lidar.camera_stamp(scan.stamp) if self.sensors.lidar else scan.stamp


def bag_of(path: Path) -> Path:
    """The bag in a folder of `cmp-seg simulate`; else the path itself."""
    return path / "bag" if (path / "bag" / METADATA).is_file() else path


def choose_topic(bag: Bag, topic: str = "") -> str:
    """The topic of clouds that is asked for, or the only one. Raises UserError with the topics that would do."""
    with_points = clouds_of(bag)
    would_do = ", ".join(f"{name} ({bag.topics[name].size} messages)" for name in with_points)
    if topic:
        topic = f"/{topic.strip('/')}"
        if topic in with_points:
            return topic
        known = topic in bag.topics
        why = f"holds {bag.topics[topic].type}, no clouds with x, y and z" if known else "is not in the bag"
        raise UserError(
            f"topic {topic} of {bag.path} {why}; {f'these would do: {would_do}' if would_do else _others(bag)}"
        )
    if len(with_points) == 1:
        return with_points[0]
    if with_points:
        raise UserError(f"bag {bag.path} has several topics of clouds; choose one with --topic: {would_do}")
    raise no_clouds(bag)


def clouds_of(bag: Bag) -> list[str]:
    """Topics of clouds with x, y and z, or else of packets that become such."""
    clouds = [name for name, info in bag.topics.items() if info.type == POINT_CLOUD2 and info.size]
    return [name for name in clouds if _has_points(bag.first(name))] or ouster.lidar_topics(bag.topics)


def no_clouds(bag: Bag) -> UserError:
    """What is to be said of a bag without clouds."""
    return UserError(f"bag {bag.path} has no PointCloud2 with x, y and z; {_others(bag)}")


def _others(bag: Bag) -> str:
    """What a bag without clouds has instead, and what to do about it."""
    if damage := bag.damage():
        return f"{damage}; {REMEDY}"
    topics = ", ".join(f"{name} ({info.type}, {info.size})" for name, info in bag.topics.items())
    packets = [
        name for name, info in bag.topics.items() if re.search(r"Packet|PandarScan|VelodyneScan|RslidarScan", info.type)
    ]
    if packets:
        return (
            f"its topics are {topics}: {', '.join(packets)} holds raw packets. Play the bag into the sensor's driver "
            "and record the PointCloud2 that it publishes"
        )
    return f"its topics are {topics}: record the sensor's PointCloud2 topic"


def _promised(path: Path) -> dict[str, Topic]:
    """The topics that a bag's metadata lists; none where there is no such file, or it is damaged, too."""
    try:
        content = yaml.safe_load((path / METADATA).read_text())
        return {
            entry["topic_metadata"]["name"]: Topic(entry["topic_metadata"]["type"], int(entry["message_count"]))
            for entry in content["rosbag2_bagfile_information"]["topics_with_message_count"]
        }
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return {}


def _has_points(message: Any) -> bool:
    return message is not None and {"x", "y", "z"} <= {field.name.lower() for field in message.fields}


class _Damage(Exception):
    """Why a bag's own reader gave up."""


class _open:
    """Context of an AnyReader for `path`. Raises _Damage where it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder: TemporaryDirectory[str] | None = None

    def __enter__(self) -> "AnyReader":
        from rosbags.highlevel import AnyReader
        from rosbags.typesys import Stores

        path = self.path
        if path.is_dir():
            if not (path / METADATA).is_file():
                raise _Damage(f"it has no {METADATA}")
        elif path.suffix != (suffix := SUFFIXES[recovery.storage(path)]):  # rosbags goes by the suffix
            self.folder = TemporaryDirectory()
            path = Path(self.folder.name) / f"bag{suffix}"
            path.symlink_to(self.path.resolve())
        try:
            self.reader = AnyReader([path], default_typestore=_typestore(Stores.ROS2_HUMBLE))
            self.reader.open()
        except Exception as error:  # whatever damaged bytes make of the library
            self._remove()
            raise _Damage(_line(error)) from error
        return self.reader

    def __exit__(self, *_: Any) -> None:
        self.reader.close()
        self._remove()

    def _remove(self) -> None:
        if self.folder:
            self.folder.cleanup()


def _storage_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    number = re.compile(r"(\d+)\D*$")
    files = [file for file in path.iterdir() if recovery.storage(file)]
    return sorted(files, key=lambda file: (int(m[1]) if (m := number.search(file.stem)) else 0, file.name))


@cache
def _typestore(store: Any) -> Any:
    """The messages of a distribution of ROS, and Ouster's packets."""
    from rosbags.typesys import get_types_from_msg, get_typestore

    types = get_typestore(store)
    for name in ouster.PACKET_TYPES:
        types.register(get_types_from_msg("uint8[] buf", name))
    return types


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

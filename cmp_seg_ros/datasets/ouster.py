"""Raw packets of Ouster sensors: .pcap with its .json, .osf, and bags of packets, decoded by ouster-sdk."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.base import Problems, frame_of, head
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.sensor_set import SensorSet

PCAP = (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\n\r\r\n")
OSF = b"OSF$"  # file identifier at byte 8
PACKET_TYPES = ("ouster_ros/msg/PacketMsg", "ouster_sensor_msgs/msg/PacketMsg")  # in bags
DEFINITIONS = dict.fromkeys(PACKET_TYPES, "uint8[] buf")
# Fields of a cloud besides its points, their channels, of which a sensor sends some, and their types.
CHANNELS = (
    ("reflectivity", "REFLECTIVITY", np.uint16),
    ("ambient", "NEAR_IR", np.uint16),
    ("range", "RANGE", np.uint32),
)
# ouster-sdk 1.0 asks for an old rosbags, which it needs for nothing that is used here.
INSTALL = 'pip install --no-deps "ouster-sdk>=1.0"'


class DataSet(BaseDataSet):
    """Scans as the Ouster driver publishes them: organised (beams, columns), in the sensor's frame, first return.

    `intensity` is the signal, or the reflectivity where the packets carry no signal. Every channel but the range may be
    missing.
    """

    @classmethod
    def recognises(cls, path: Path) -> bool:
        start = head(path)
        return start.startswith(PCAP) or start[8:12] == OSF or (path.suffix == ".osf" and path.is_file())

    def __iter__(self) -> Iterator[Frame]:
        return _frames(self.path, self._sweeps(), self.problems, self.sensors)

    def _sweeps(self) -> Iterator[Any]:
        try:
            from ouster.sdk import open_source
        except ImportError as error:
            raise _missing_sdk(self.path) from error
        for frames in open_source(str(self.path)):
            yield from frames


def lidar_topics(topics: Mapping[str, Any]) -> list[str]:
    """Topics of packets with points, among topics whose values have a `type`."""
    return [name for name, info in topics.items() if info.type in PACKET_TYPES and "lidar" in name.rpartition("/")[2]]


def frames_of_bag(bag: Any, topic: str, sensors: SensorSet) -> Iterator[Frame]:
    """The scans in a bag's packets on `topic` (a `datasets.bag.Bag`). Raises UserError."""
    return _frames(bag.path, _sweeps_of_bag(bag, topic), bag.problems, sensors)


def _sweeps_of_bag(bag: Any, topic: str) -> Iterator[Any]:
    # Not ouster-sdk's own reader of bags, which replaces parts of rosbags for the whole process.
    try:
        from ouster.sdk.core import FrameBatcher, LidarFrame, LidarPacket, PacketFormat, SensorInfo
    except ImportError as error:
        raise _missing_sdk(bag.path) from error
    metadata_topic = f"{topic.rpartition('/')[0]}/metadata"
    metadata = bag.first(metadata_topic) if metadata_topic in bag.topics else None
    if metadata is None:
        raise UserError(f"bag {bag.path} has packets on {topic} but nothing on {metadata_topic}; record that topic too")
    info = SensorInfo(metadata.data)
    layout = PacketFormat(info)
    batcher, frame, pending = FrameBatcher(info), LidarFrame(info), 0
    for _, time, message in bag.messages([topic]):
        if len(message.buf) < layout.lidar_packet_size:
            bag.problems.add(
                f"bag {bag.path} has packets of {len(message.buf)} bytes on {topic}, the metadata says "
                f"{layout.lidar_packet_size}; is {metadata_topic} of the same sensor?",
                "packet",
            )
            continue
        packet = LidarPacket(layout)
        packet.buf[:] = message.buf[: layout.lidar_packet_size]  # old drivers wrote one byte more
        packet.host_timestamp = time
        pending += 1
        if batcher.batch(packet, frame):
            yield frame
            frame, pending = LidarFrame(info), 0
    if pending:
        yield frame


def _frames(path: Path, sweeps: Iterator[Any], problems: Problems, sensors: SensorSet) -> Iterator[Frame]:
    number = 0
    try:
        for sweep in sweeps:
            if sweep is not None:
                yield _frame(number, sweep, path, sensors)
                number += 1
    except UserError:
        raise
    except Exception as error:  # ouster-sdk raises many kinds for what it cannot read
        why = str(error).splitlines()[-1].removeprefix("more details: ") if str(error) else type(error).__name__
        if number == 0:
            raise UserError(
                f"{path} cannot be read by ouster-sdk: {why} (a .pcap needs the sensor's metadata, a .json whose name "
                "begins alike, beside it)"
            ) from error
        problems.add(f"{path} is damaged or cut short after {number} scans: {why}")
    if number == 0:
        raise UserError(f"{path} holds no whole scan of an Ouster sensor; record it again")


def _missing_sdk(path: Path) -> UserError:
    return UserError(f"{path} holds Ouster packets, which need ouster-sdk: {INSTALL}")


def _frame(number: int, sweep: Any, path: Path, sensors: SensorSet) -> Frame:
    from ouster.sdk.core import XYZLut, destagger

    info = sweep.sensor_info
    shape = (sweep.h, sweep.w)
    xyz = destagger(info, XYZLut(info)(sweep)).reshape(-1, 3).astype(np.float32)  # (height * width, 3)
    columns: dict[str, Any] = {axis: xyz[:, i] for i, axis in enumerate("xyz")}

    def image(name: str, kind: type) -> Any:
        return destagger(info, sweep.field(name)).reshape(-1).astype(kind)

    there = set(sweep.fields)
    if strength := next((name for name in ("SIGNAL", "REFLECTIVITY") if name in there), ""):
        columns["intensity"] = image(strength, np.float32)
    stamps = np.asarray(sweep.timestamp, np.int64)  # of each column, in measured order; 0 where it is missing
    start = int(stamps[stamps > 0].min(initial=np.iinfo(np.int64).max)) if stamps.any() else 0
    since = np.maximum(stamps - start, 0).astype(np.uint32)
    columns["t"] = destagger(info, np.tile(since, (sweep.h, 1))).reshape(-1)
    columns["ring"] = np.repeat(np.arange(sweep.h, dtype=np.uint16), sweep.w)
    for name, channel, kind in CHANNELS:
        if channel in there:
            columns[name] = image(channel, kind)
    return frame_of(
        number,
        f"{number:06d}",
        columns,
        shape,
        start,
        "os_sensor",
        T_base_lidar=sensors.T_base_lidar,
        intensity_statistics=sensors.intensity_statistics,
        sequence=str(path),
        group=f"{path.name}/{number // 100}",
    )

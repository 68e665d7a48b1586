"""Raw packets of Ouster sensors: .pcap with its .json, .osf, and bags of packets, decoded by ouster-sdk."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets.base import Reader as BaseReader
from cmp_seg_ros.datasets.base import Sample, head, sample
from cmp_seg_ros.errors import UserError

PCAP = (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\n\r\r\n")
OSF = b"OSF$"  # file identifier at byte 8
PACKET_TYPES = ("ouster_ros/msg/PacketMsg", "ouster_sensor_msgs/msg/PacketMsg")  # in bags
# ouster-sdk 1.0 asks for an old rosbags, which it needs for nothing that is used here.
INSTALL = 'pip install --no-deps "ouster-sdk>=1.0"'


class Reader(BaseReader):
    """Scans as the Ouster driver publishes them: organised (beams, columns), in the sensor's frame, first return.

    `intensity` is the signal, or the reflectivity where the packets carry no signal.
    """

    @classmethod
    def recognises(cls, path: Path) -> bool:
        start = head(path)
        return start.startswith(PCAP) or start[8:12] == OSF or (path.suffix == ".osf" and path.is_file())

    def __iter__(self) -> Iterator[Sample]:
        try:
            from ouster.sdk import open_source
        except ImportError as error:
            raise UserError(f"{self.path} holds Ouster packets, which need ouster-sdk: {INSTALL}") from error
        index = 0
        try:
            for frames in open_source(str(self.path)):
                for frame in frames:
                    if frame is not None:
                        yield _sample(index, frame)
                        index += 1
        except UserError:
            raise
        except Exception as error:  # ouster-sdk raises many kinds for what it cannot read
            why = str(error).splitlines()[-1].removeprefix("more details: ") if str(error) else type(error).__name__
            if index == 0:
                raise UserError(
                    f"{self.path} cannot be read by ouster-sdk: {why} (a .pcap needs the sensor's metadata, a .json "
                    "whose name begins alike, beside it)"
                ) from error
            self.problems.add(f"{self.path} is damaged or cut short after {index} scans: {why}")
        if index == 0:
            raise UserError(f"{self.path} holds no whole scan of an Ouster sensor; record it again")


def _sample(index: int, frame: Any) -> Sample:
    from ouster.sdk.core import XYZLut, destagger

    info = frame.sensor_info
    shape = (frame.h, frame.w)
    xyz = destagger(info, XYZLut(info)(frame)).reshape(-1, 3).astype(np.float32)  # (height * width, 3)
    columns: dict[str, Any] = {axis: xyz[:, i] for i, axis in enumerate("xyz")}

    def image(name: str) -> Any:
        return destagger(info, frame.field(name)).reshape(-1)

    columns["intensity"] = image("SIGNAL" if "SIGNAL" in frame.fields else "REFLECTIVITY").astype(np.float32)
    stamps = np.asarray(frame.timestamp, np.int64)  # of each column, in measured order; 0 where it is missing
    start = int(stamps[stamps > 0].min(initial=np.iinfo(np.int64).max)) if stamps.any() else 0
    since = np.maximum(stamps - start, 0).astype(np.uint32)
    columns["t"] = destagger(info, np.tile(since, (frame.h, 1))).reshape(-1)
    columns["reflectivity"] = image("REFLECTIVITY").astype(np.uint16)
    columns["ring"] = np.repeat(np.arange(frame.h, dtype=np.uint16), frame.w)
    columns["ambient"] = image("NEAR_IR").astype(np.uint16)
    columns["range"] = image("RANGE").astype(np.uint32)
    return sample(index, f"{index:06d}", columns, shape, start, "os_sensor")

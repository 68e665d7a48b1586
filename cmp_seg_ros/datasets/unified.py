"""The unified form: what any data set becomes, to be read fast and at random, and to be given more labels.

    DIR/index.jsonl                 a line a scan: where it lies, its sha256, sequence, stamp, pose, split
    DIR/shards/NAME.tar             at most 256 MB each; of every scan
        KEY.points.npy              (N, 5) float32: x, y, z, intensity, t; NaN in columns that the scan does not have
        KEY.CAMERA.jpg              the image nearest in time, of each camera
        KEY.labels.npz              label sources by name, with confidence and the name of their label space
        KEY.json                    stamps in ns, cameras with T_camera_lidar, T_world_lidar, T_base_lidar, ...
    DIR/label_spaces/NAME.yaml      of the label sources
    DIR/labels/SOURCE/              a label source that was added later: see `added_labels`
    DIR/report.json                 what was converted, and what was wrong with it

Tars are plain: any tool unpacks them, and WebDataset streams them. Keys are SEQUENCE/NAME; neither holds a dot.
"""

import io
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from cmp_seg_ros.datasets import added_labels, shards
from cmp_seg_ros.datasets.base import DataSet as BaseDataSet
from cmp_seg_ros.datasets.frame import CameraImage, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import CalibratedCamera
from cmp_seg_ros.geometry.sensor_set import SensorSet
from cmp_seg_ros.geometry.track import Pose, Track
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages.images import decompressed
from cmp_seg_ros.scan import Scan


class DataSet(BaseDataSet):
    """The frames of a folder of `cmp-seg convert`, with all label sources, also those added later.

    Raises UserError: the set is damaged; a calibration file is given, though the set has its own.
    """

    seeks = True

    def __init__(self, path: Path, topic: str = "", sensors: SensorSet | None = None) -> None:
        super().__init__(path, topic, sensors)
        if self.sensors.given:
            raise UserError(
                f"{path} is a converted set and keeps the calibration that it was converted with; for another "
                "--calibration, convert the recording itself into another folder"
            )
        self.entries = shards.read_index(path)
        self.count = len(self.entries)
        self._spaces = shards.read_spaces(path)
        self._added = added_labels.sources(path, self._spaces)
        self.label_spaces = self._sources()

    @classmethod
    def recognises(cls, path: Path) -> bool:
        return (path / shards.SHARDS).is_dir() and any((path / name).exists() for name in (shards.INDEX, shards.PARTS))

    def __iter__(self) -> Iterator[Frame]:
        return map(self.frame_at, range(len(self.entries)))

    def frame_at(self, number: int) -> Frame:
        entry = self.entries[number]
        about: dict[str, Any] = json.loads(self._file(entry, shards.ABOUT))
        points = np.load(io.BytesIO(self._file(entry, shards.POINTS)))  # (N, 5)
        known = {name: points[:, i] for i, name in enumerate(shards.FIELDS) if name in about["fields"]}
        intensity, time = known.get("intensity"), known.get("t")
        return Frame(
            entry.key,
            Scan(points[:, :3], intensity, time, entry.stamp, about["frame_id"], tuple(about["shape"])),
            number,
            labels=self._labels(number, entry),
            images={name: self._image(entry, name, camera) for name, camera in about["cameras"].items()},
            T_base_lidar=None if about["T_base_lidar"] is None else np.array(about["T_base_lidar"]),
            intensity_statistics=about["intensity_statistics"] and tuple(about["intensity_statistics"]),
            camera_offset=about["camera_offset"],
            locate=self._tracks[entry.sequence].at,
            sequence=entry.sequence,
            group=about["group"],
            split=entry.split,
        )

    def _labels(self, number: int, entry: shards.Entry) -> dict[str, PointLabels]:
        content = self._file(entry, shards.LABEL_FILE) if shards.LABEL_FILE in entry.files else b""
        labels = shards.unpack_labels(content, self._spaces) if content else {}
        added = ((source, one.of(number, entry.key)) for source, one in self._added.items())
        return labels | {source: found for source, found in added if found is not None}

    def _image(self, entry: shards.Entry, name: str, about: dict[str, Any]) -> CameraImage:
        camera = CalibratedCamera.model_validate(about["camera"])
        stored = partial(self._file, entry, f"{name}.jpg")
        return CameraImage(about["stamp"], lambda: decompressed(stored(), f"{entry.key}.{name}.jpg"), camera, stored)

    def _file(self, entry: shards.Entry, name: str) -> bytes:
        """Raises UserError."""
        return shards.read_part(self.path / shards.SHARDS / entry.shard, *entry.files[name])

    def _sources(self) -> dict[str, LabelSpace]:
        """Label spaces by source; of sources in the shards, those of the first scan of each sequence."""
        firsts: dict[str, shards.Entry] = {}
        for entry in self.entries:
            if shards.LABEL_FILE in entry.files:
                firsts.setdefault(entry.sequence, entry)
        labels = [shards.unpack_labels(self._file(entry, shards.LABEL_FILE), self._spaces) for entry in firsts.values()]
        found = {source: one.space for sources in labels for source, one in sources.items()}
        return found | {source: one.space for source, one in self._added.items()}

    @cached_property
    def _tracks(self) -> dict[str, Track]:
        """Poses of the lidar, by sequence."""
        poses: dict[str, dict[int, Pose]] = defaultdict(dict)
        for entry in self.entries:
            known = poses[entry.sequence]
            if entry.pose is not None and entry.stamp:
                known[entry.stamp] = entry.pose
        return {sequence: Track(found) for sequence, found in poses.items()}

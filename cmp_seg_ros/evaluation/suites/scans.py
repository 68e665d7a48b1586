"""The scans of a suite as Frames: each place of some buildings, as every row shows it to the network."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmp_seg_ros.datasets import boxes, buildings
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame
from cmp_seg_ros.evaluation.suites.responses import respond
from cmp_seg_ros.evaluation.suites.suite import Row, Suite
from cmp_seg_ros.scan import Float32, Scan


class Scans(DataSet):
    """Frames of one sensor, for rows of the same places; the key of a frame begins with the name of its row.

    Args:
        suite: what it is of.
        rows: by name, all of the same places.
        sensor: name of the lidar.
        seeds: of the buildings, of the visits to a scene, or of the box rooms.
        scenes: folder of furnished scenes, for rows that have one.

    Attributes:
        digests: of the scans and their truth, by row; complete when all frames are taken.
    """

    def __init__(self, suite: Suite, rows: dict[str, Row], sensor: str, seeds: Iterable[int], scenes: Path | None):
        super().__init__(Path(suite.name))
        self.suite, self.rows, self.sensor, self.seeds, self.scenes = suite, rows, sensor, list(seeds), scenes
        self.mounts = list(dict.fromkeys(row.mount for row in rows.values()))
        self.source = self._source(next(iter(rows.values())))
        self.label_spaces = self.source.label_spaces
        self.digests = dict.fromkeys(rows, "")

    def parts(self) -> Iterator["Scans"]:
        """A building each."""
        for seed in self.seeds:
            yield Scans(self.suite, self.rows, self.sensor, [seed], self.scenes)

    def __iter__(self) -> Iterator[Frame]:
        taken = [hashlib.sha256() for _ in self.mounts]
        frames = iter(self.source)
        for views in zip(*[frames] * len(self.mounts), strict=True):  # a place in every mount
            for digest, frame in zip(taken, views, strict=True):
                intensity, label = frame.scan.intensity, frame.labels[TRUTH].label
                digest.update(frame.scan.xyz.tobytes() + np.asarray(intensity).tobytes() + label.tobytes())
            for name, row in self.rows.items():
                frame = views[self.mounts.index(row.mount)]
                yield replace(
                    frame,
                    key=f"{name}/{frame.key}",
                    scan=shown(frame, row),
                    sequence=f"{name}/{frame.key}",  # each scan has its own unit of the lidar
                    intensity_statistics=row.statistics,
                )
        digests = [digest.hexdigest() for digest in taken]
        self.digests = {name: digests[self.mounts.index(row.mount)] for name, row in self.rows.items()}

    def _source(self, row: Row) -> DataSet:
        if row.boxes:
            return boxes.DataSet(self.seeds, self.suite.scans, self.sensor, row.boxes)
        mounts = [None if mount is None else mount.T_base_lidar for mount in self.mounts]
        scene = None
        if row.scene:
            assert self.scenes is not None
            scene = self.scenes / row.scene
        return buildings.DataSet(self.seeds, self.suite.scans, self.sensor, mounts, thinned=False, scene=scene)


def shown(frame: Frame, row: Row) -> Scan:
    """A frame's scan as a row shows it to the network."""
    intensity: Float32 | None = frame.scan.intensity if row.intensity else None
    if row.response:
        seed = zlib.crc32(f"{row.response} {frame.key}".encode())
        intensity = respond(row.response, frame, np.random.default_rng(seed))
    return Scan(frame.scan.xyz, intensity, shape=frame.scan.shape)

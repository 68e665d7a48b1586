"""Scans, or the map of a drive, written for labelling by hand in CloudCompare, and read back.

Both start from the model's labels, so that a person corrects instead of drawing. Of a map, each voxel is a point, and
its label is carried back to the points of every scan in it.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets import hand, ply, point_files
from cmp_seg_ros.datasets.base import Array, DataSet
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.errors import UserError, describe_invalid
from cmp_seg_ros.evaluation.pipeline import Consumer, Result
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.kernels import fusion as kernels
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.drive import DriveMap
from cmp_seg_ros.mapping.fusion import table_of
from cmp_seg_ros.mapping.odometry import Motion
from cmp_seg_ros.scan import UNLABELLED, UInt8

ABOUT = "annotate.json"
MAP, VOXELS = "map.ply", "voxels.npz"
INDEX = "index"  # field with the number of each point, by which a changed order is found


class About(BaseModel):
    """What was exported: the file beside the clouds."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["scans", "map"]
    input: str
    topic: str
    label_space: str
    points: dict[str, int]  # by name of the file, without suffix
    sha256: dict[str, str]  # of the scans' points (float32 x, y, z of all), by key of the frame
    voxel_size: float | None = None


class ScanExport(Consumer):
    """Writes one .ply per scan, with its returns alone.

    Args:
        every: only one in so many scans.
    """

    replaces = (ABOUT, hand.SPACE_FILE)

    def __init__(self, data: DataSet, space: LabelSpace, out: Path, every: int = 1) -> None:
        self.data, self.space, self.out, self.every = data, space, out, every
        self.about = _about("scans", data, space)

    def add(self, result: Result, report: Report) -> None:
        frame, labels = result.frame, result.labels
        if labels is None or frame.number % self.every:
            return
        kept = np.flatnonzero(frame.scan.valid())
        path = self.out / f"{hand.file_name(frame.key)}.ply"
        intensity = None if frame.scan.intensity is None else frame.scan.intensity[kept]
        columns = ply.coloured(frame.scan.xyz[kept], labels.label[kept], self.space, intensity=intensity)
        _write_cloud(path, columns, self.space)
        self.about.points[path.stem] = len(kept)
        self.about.sha256[frame.key] = digest(frame)

    def finish(self, report: Report) -> None:
        _write_about(self.out, self.about, self.space)
        report.files += [ABOUT, hand.SPACE_FILE, *(f"{name}.ply" for name in self.about.points)]


class MapExport(DriveMap):
    """Writes the voxels of a drive as one .ply, and what carries their labels back to the scans."""

    replaces = (ABOUT, hand.SPACE_FILE, VOXELS)

    def __init__(self, data: DataSet, space: LabelSpace, out: Path, odometry: str, voxel_size: float) -> None:
        super().__init__(data, space, None, odometry, voxel_size, score=False)
        self.folder = out
        self.about = _about("map", data, space)
        self.about.voxel_size = voxel_size

    def add(self, result: Result, report: Report) -> None:
        super().add(result, report)
        if result.frame.number in self.motions:
            self.about.sha256[result.frame.key] = digest(result.frame)

    def finish(self, report: Report) -> None:
        super().finish(report)
        found = self.map.voxels.voxels()
        columns = ply.coloured(found.xyz, found.label, self.space, confidence=found.confidence, scans=found.scans)
        _write_cloud(self.folder / MAP, columns, self.space)
        np.savez_compressed(
            self.folder / VOXELS,
            keys=self.map.voxels.keys(),
            xyz=found.xyz,
            numbers=np.array(list(self.motions), np.int64),
            start=np.array([motion.start for motion in self.motions.values()]),
            velocity=np.array([motion.velocity for motion in self.motions.values()]),
        )
        self.about.points[Path(MAP).stem] = len(found)
        _write_about(self.folder, self.about, self.space)
        report.files += [ABOUT, hand.SPACE_FILE, MAP, VOXELS]


def _write_cloud(path: Path, columns: dict[str, Array], space: LabelSpace) -> None:
    """A cloud with the label to correct, and the number of each point."""
    ply.write(path, columns | {INDEX: np.arange(len(columns["label"]), dtype=np.uint32)}, space)


def _about(kind: Literal["scans", "map"], data: DataSet, space: LabelSpace) -> About:
    path = str(data.path.resolve())
    return About(kind=kind, input=path, topic=data.topic, label_space=space.name, points={}, sha256={})


def _write_about(folder: Path, about: About, space: LabelSpace) -> None:
    (folder / hand.SPACE_FILE).write_text(space.to_yaml())
    outputs.write_whole(folder / ABOUT, (about.model_dump_json(indent=1) + "\n").encode())


def digest(frame: Frame) -> str:
    """SHA-256 of the points of a frame."""
    return hashlib.sha256(frame.scan.xyz.tobytes()).hexdigest()[:16]


class Import:
    """Labels made by hand in an exported folder, checked, for each frame of the input.

    Args:
        folder: of the export, with the files saved over the exported ones or beside them in another format.
        field: name of the field with the labels, if it is not `label`.

    Raises:
        UserError: the files do not fit the export: points are missing, moved or in another order, or ids unknown.
    """

    def __init__(self, folder: Path, field: str = "") -> None:
        self.folder, self.field = folder, field
        try:
            self.about = About.model_validate_json((folder / ABOUT).read_text())
        except OSError as error:
            raise UserError(f"{folder} has no {ABOUT}; give the folder of cmp-seg annotate export") from error
        except ValidationError as error:
            raise UserError(f"{folder / ABOUT} is not valid: {describe_invalid(error)}; export again") from error
        self.space = LabelSpace.load(folder / hand.SPACE_FILE)
        self._motions: dict[int, Motion] = {}
        if self.about.kind == "map":
            self._load_map()

    def _load_map(self) -> None:
        try:
            with np.load(self.folder / VOXELS) as stored:
                keys, xyz, numbers = stored["keys"], stored["xyz"], stored["numbers"]
                start, velocity = stored["start"], stored["velocity"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{self.folder / VOXELS} cannot be read ({error}); export again") from error
        self._motions = {int(n): Motion(*motion) for n, *motion in zip(numbers, start, velocity, strict=True)}
        self._voxel_labels = self._labels(Path(MAP).stem, xyz)
        self._keys, self._table = keys, table_of(keys, len(keys))

    @property
    def unused(self) -> list[str]:
        """Names of files with labels that belong to no exported cloud."""
        clouds = (path for path in self.folder.iterdir() if path.suffix in hand.SUFFIXES)
        return sorted(path.name for path in clouds if path.stem not in self.about.points)

    def labels_of(self, frame: Frame) -> UInt8 | None:
        """(N,) labels of a frame's points; None if it was not exported. Raises UserError."""
        sha256 = self.about.sha256.get(frame.key)
        if sha256 is None:
            return None
        if sha256 != digest(frame):
            raise UserError(
                f"scan {frame.key} of {self.about.input} has other points than when it was exported; give the "
                "recording that was exported (--input)"
            )
        if self.about.kind == "map":
            return self._carried(frame)
        kept = np.flatnonzero(frame.scan.valid())
        label = np.full(len(frame.scan), UNLABELLED, np.uint8)
        label[kept] = self._labels(hand.file_name(frame.key), frame.scan.xyz[kept])
        return label

    def _carried(self, frame: Frame) -> UInt8:
        """Labels of the voxels that contain the points."""
        motion = self._motions[frame.number]
        keys = kernels.pack(np.ascontiguousarray(motion.to_world(frame.scan)), self.about.voxel_size)
        voxel = kernels.find(self._table, self._keys, keys)
        label = np.where(voxel >= 0, self._voxel_labels[voxel], UNLABELLED).astype(np.uint8)
        label[~frame.scan.valid()] = UNLABELLED
        return label

    def _labels(self, stem: str, expected: Array) -> UInt8:
        """Labels of an exported cloud; points must be as they were. Raises UserError."""
        file = self._newest(stem)
        columns = point_files.read(file)
        xyz = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
        if len(xyz) != len(expected):
            raise UserError(
                f"{file} has {len(xyz):,} points, exported were {len(expected):,}; label without deleting, merging or "
                "thinning points"
            )
        index = next((columns[name] for name in columns if point_files.plain(name) == INDEX), None)
        if index is not None and not np.array_equal(np.rint(index), np.arange(len(xyz))):
            order = np.argsort(index, kind="stable")
            if not np.array_equal(np.rint(index[order]), np.arange(len(xyz))):
                raise UserError(f"{file} has points twice (field {INDEX}); export again, and merge nothing")
            columns, xyz = {name: values[order] for name, values in columns.items()}, xyz[order]
        hand.require_same_places(xyz, expected, str(file), "the export")
        return hand.known_ids(columns[hand.label_column(columns, self.field, file)], self.space, str(file))

    def _newest(self, stem: str) -> Path:
        """The exported file, or what was saved beside it later in another format."""
        there = [path for suffix in point_files.SUFFIXES if (path := self.folder / f"{stem}{suffix}").is_file()]
        if not there:
            raise UserError(f"{self.folder} has no {stem}.ply (nor {', '.join(point_files.SUFFIXES[1:])}) any more")
        return max(there, key=lambda path: path.stat().st_mtime_ns)


def write_hand_labels(
    source: Import, data: DataSet, out: Path, progress: Callable[[int], None] = lambda done: None
) -> dict[str, Any]:
    """Write the labels of each frame as KEY.label, with label_space.yaml, for `with_hand_labels`.

    Returns:
        scans, points, labelled points, and points by class.

    Raises:
        UserError: labels do not fit, or the input has not all frames that were exported.
    """
    counts = np.zeros(256, np.int64)
    done = 0
    (out / hand.SPACE_FILE).write_text(source.space.to_yaml())
    for frame in data:
        label = source.labels_of(frame)
        if label is None:
            continue
        hand.write_label_file(out / f"{hand.file_name(frame.key)}{hand.LABEL}", label)
        counts += np.bincount(label, minlength=256)
        done += 1
        progress(done)
    missing = len(source.about.sha256) - done
    if missing:
        raise UserError(f"{data.path} lacks {missing} of the {len(source.about.sha256)} scans that were exported")
    by_class = {c.name: int(counts[c.id]) for c in source.space.classes}
    return {"scans": done, "points": int(counts.sum()), "unlabelled": int(counts[UNLABELLED]), "by_class": by_class}

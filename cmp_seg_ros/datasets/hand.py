"""Hand labels as a label source of frames: files of CloudCompare, SemanticKITTI's .label, or labelled clouds in a bag.

    data = with_hand_labels(open_input("drive"), "hand")
    for frame in data:
        frame.labels["hand"].label

A folder holds one file per scan, by the key of its frame (000012.ply, 000012.label, ...), and label_space.yaml.
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np

from cmp_seg_ros.datasets import point_files
from cmp_seg_ros.datasets.bag import Bag, bag_of
from cmp_seg_ros.datasets.bag import DataSet as BagDataSet
from cmp_seg_ros.datasets.base import Array, DataSet, read_bytes
from cmp_seg_ros.datasets.frame import HAND, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import cdr, point_cloud2
from cmp_seg_ros.scan import UNLABELLED, UInt8

SPACE_FILE = "label_space.yaml"
LABEL = ".label"  # SemanticKITTI: uint32 per point, of which the lower 16 bits are the class
SUFFIXES = (LABEL, *point_files.SUFFIXES)
STRING = "std_msgs/msg/String"
SAME_PLACE = 2e-3  # metres: CloudCompare and LAS round coordinates


def file_name(key: str) -> str:
    """Name, without suffix, of the file with the labels of a frame."""
    return key.replace("/", "_")


class Source(Protocol):
    """Gives the hand labels of a frame."""

    space: LabelSpace

    def labels_of(self, frame: Frame) -> UInt8 | None:
        """(N,) ids of the frame's points; None if it has none. Raises UserError if they do not fit the scan."""
        ...


class Labelled(DataSet):
    """Another data set's frames with the labels of one more source; labels that do not fit are noted in `problems`.

    Args:
        name: of the source in `Frame.labels`.
    """

    def __init__(self, data: DataSet, source: Source, name: str = HAND) -> None:
        super().__init__(data.path, data.topic, data.sensors)
        self.data, self.source, self.name = data, source, name
        self.problems, self.notes = data.problems, data.notes
        self.count, self.seeks, self.one_file_each = data.count, data.seeks, data.one_file_each
        self.has_topics, self.has_columns = data.has_topics, data.has_columns
        self.label_spaces = {**data.label_spaces, name: source.space}

    def __iter__(self) -> Iterator[Frame]:
        for frame in self.data:
            try:
                yield self._labelled(frame)
            except UserError as error:  # noqa: PERF203
                self.problems.add(str(error), "hand")
                yield frame

    def __getitem__(self, number: int) -> Frame:
        return self._labelled(self.data[number])

    def parts(self) -> Iterable[DataSet]:
        for part in self.data.parts():
            labelled = copy(self)
            labelled.data, labelled.count = part, part.count
            labelled.problems, labelled.notes = part.problems, part.notes
            yield labelled

    def _labelled(self, frame: Frame) -> Frame:
        label = self.source.labels_of(frame)
        if label is None:
            return frame
        return replace(frame, labels={**frame.labels, self.name: PointLabels(self.source.space, label)})


def with_hand_labels(data: DataSet, path: str | Path) -> Labelled:
    """The data set with labels from a folder, a file (if it has one scan), or a bag of labelled clouds.

    Raises:
        UserError: there are no such labels, or their label space is not known.
    """
    path = bag_of(Path(path))
    if not path.exists():
        raise UserError(
            f"labels {path} do not exist; give a folder of label files, a file, or a bag of labelled clouds"
        )
    return Labelled(data, BagLabels(path) if BagDataSet.recognises(path) else FileLabels(path))


class FileLabels:
    """Labels from files by the keys of frames. Points without a label have id 255, or 0 where no class has it.

    Raises:
        UserError: there is no file, or the label space is not known.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        space = (path if path.is_dir() else path.parent) / SPACE_FILE
        found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
        self.files = {file.stem: file for file in found}
        if not self.files:
            raise UserError(f"folder {path} has no label files ({', '.join(SUFFIXES)}), named by scan: 000012.label")
        if len(self.files) < len(found):
            twice = next(a for a in found if self.files[a.stem] != a)
            raise UserError(
                f"{path} has two files for scan {twice.stem}: {twice.name} and {self.files[twice.stem].name}"
            )
        if not space.is_file():
            raise UserError(
                f"what do the ids in {path} mean? Put {SPACE_FILE} beside them, a label space (docs/mapping.md)"
            )
        self.space = LabelSpace.load(space)

    def labels_of(self, frame: Frame) -> UInt8 | None:
        file = self.files.get(file_name(frame.key)) or (
            next(iter(self.files.values())) if self.path.is_file() else None
        )
        if file is None:
            return None
        if file.suffix == LABEL:
            return on_scan(read_label_file(file), None, frame, self.space, str(file))
        columns = point_files.read(file)
        ids = columns[label_column(columns, "", file)]
        xyz = np.stack([columns[axis].astype(np.float64) for axis in "xyz"], axis=1)
        return on_scan(ids, xyz, frame, self.space, str(file))


class BagLabels:
    """Labels from the clouds of a bag that have a field for them, by stamp. Raises UserError if there are none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bag = Bag(path)
        clouds = [name for name, topic in self.bag.topics.items() if topic.type == cdr.POINT_CLOUD2 and topic.size]
        self.topic = next((name for name in clouds if self._has_labels(name)), "")
        if not self.topic:
            raise UserError(
                f"no cloud in {path} has a field 'label' (topics: {', '.join(clouds) or 'none'}); give a bag of "
                "labelled clouds such as that of cmp-seg label"
            )
        self.space = self._space()
        self._times = {cdr.stamp_ns(raw.data): raw.time for raw in self.bag.serialised([self.topic])}

    def _has_labels(self, topic: str) -> bool:
        cloud = self.bag.first(topic)
        return cloud is not None and "label" in {field.name for field in cloud.fields}

    def _space(self) -> LabelSpace:
        """As `cmp-seg label` and the node publish it beside their clouds."""
        topic = f"{self.topic.rpartition('/')[0]}/label_space"
        message = self.bag.first(topic) if topic in self.bag.topics else None
        if message is None:
            raise UserError(f"{self.path} has no topic {topic} with the label space of its ids; record it, too")
        return LabelSpace.from_yaml(message.data, f"{topic} of {self.path}")

    def labels_of(self, frame: Frame) -> UInt8 | None:
        time = self._times.get(frame.scan.stamp)
        if time is None:
            return None
        what = f"the cloud of stamp {frame.scan.stamp} on {self.topic} of {self.path}"
        for found in self.bag.messages([self.topic], time, time + 1):
            if point_cloud2.stamp_ns(found.message.header) == frame.scan.stamp:
                ids = point_cloud2.decode_fields(found.message, "label")["label"]
                return on_scan(ids, point_cloud2.decode(found.message).xyz, frame, self.space, what)
        raise UserError(f"{what} cannot be read; copy the bag again")


def on_scan(ids: Array, xyz: Array | None, frame: Frame, space: LabelSpace, what: str) -> UInt8:
    """Check the ids of a scan's points, or of its returns alone, and return (N,) labels.

    Args:
        ids: (N,) or (returns,) numbers.
        xyz: as many points, in the scan's frame; they must be the scan's own, in its order. None: not known.
        what: name of their file, for errors.

    Raises:
        UserError: another number of points, points that moved, or ids that are not in `space`.
    """
    scan = frame.scan
    valid = scan.valid()
    label = known_ids(ids, space, what)
    rows = np.arange(len(scan)) if len(ids) == len(scan) else np.flatnonzero(valid)
    if len(ids) != len(rows):
        raise UserError(
            f"{what} has {len(ids):,} labels, but scan {frame.key} has {len(scan):,} points ({int(valid.sum()):,} "
            "returns); label the scan as it is, without deleting, merging or thinning points"
        )
    if xyz is not None:
        require_same_places(xyz, scan.xyz[rows], what, f"scan {frame.key}")
    full = np.full(len(scan), UNLABELLED, np.uint8)
    full[rows] = label
    full[~valid] = UNLABELLED
    return full


def known_ids(ids: Array, space: LabelSpace, what: str) -> UInt8:
    """(N,) uint8 labels of (N,) numbers; NaN, 255, and 0 if no class has it, are UNLABELLED. Raises UserError."""
    values = np.asarray(ids, np.float64)
    values = np.where(np.isfinite(values), values, UNLABELLED)
    known = {*space.ids.tolist(), UNLABELLED, 0}
    unknown = sorted(set(np.unique(values).tolist()) - known)
    if unknown:
        listed = ", ".join(f"{value:g}" for value in unknown[:8])
        classes = ", ".join(f"{c.id} {c.name}" for c in space.classes)
        raise UserError(
            f"{what} has ids that label space {space.name} lacks: {listed}; it has {classes}, and {UNLABELLED} for "
            f"no label. Correct the labels, or the {SPACE_FILE} beside them"
        )
    label = values.astype(np.uint8)
    if 0 not in space.ids:
        label[label == 0] = UNLABELLED
    return label


def require_same_places(found: Array, expected: Array, what: str, of: str) -> None:
    """Check that (N, 3) points are where they were, in the same order, to 2 mm; NaN is not compared.

    Raises:
        UserError: they moved, with the likely reason.
    """
    both = np.isfinite(found).all(axis=1) & np.isfinite(expected).all(axis=1)
    shift = found[both].astype(np.float64) - expected[both]
    away = np.abs(shift).max(axis=1, initial=0)
    moved = away > SAME_PLACE
    if not moved.any():
        return
    count = f"{int(moved.sum()):,} of the {len(found):,} points of {what} are not where {of} has them"
    middle = np.median(shift, axis=0)
    if np.abs(shift - middle).max() < SAME_PLACE:
        shift_text = ", ".join(f"{value:.3f}" for value in middle)
        raise UserError(f"{count}: all are shifted by ({shift_text}) m; save without a global shift")
    low, high = (np.sort(points[both], axis=0) for points in (found.astype(np.float64), expected.astype(np.float64)))
    if np.abs(low - high).max() < SAME_PLACE:
        raise UserError(f"{count}: they are in another order; save them in the order of the exported file")
    raise UserError(f"{count} (up to {away.max():.2f} m); export again, and change nothing but the labels")


def read_label_file(path: Path) -> Array:
    """(N,) ids of a SemanticKITTI .label file: the lower half of each uint32; the upper is the instance."""
    content = read_bytes(path)
    if len(content) % 4:
        raise UserError(f"{path} has {len(content)} bytes; a .label file has 4 (uint32) per point: copy it again")
    return np.frombuffer(content, "<u4") & 0xFFFF


def write_label_file(path: Path, label: UInt8) -> None:
    """Write (N,) ids as a SemanticKITTI .label file. Raises OSError."""
    path.write_bytes(label.astype("<u4").tobytes())


NAMES = ("label", "labels", "class", "classification", "scalar_field", "semantic", "sem_class")


def label_column(columns: Mapping[str, Array], field: str, path: Path) -> str:
    """The name of the column with the labels. Raises UserError."""
    plain = {point_files.plain(name): name for name in columns}
    wanted = (point_files.plain(field),) if field else NAMES
    for name in wanted:
        if name in plain:
            return plain[name]
    others = ", ".join(name for name in columns if name not in "xyz") or "none"
    raise UserError(
        f"{path} has no field {' or '.join(wanted)} with labels; it has: {others}. Rename it to label, "
        "or name it with --field (annotate import)"
    )

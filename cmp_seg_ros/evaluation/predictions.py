"""Labels that another network gave to the same scans, read from files.

    labeller = Predictions(Path("rival"), open_id_map("randlanet.yaml"), data.count)
    run(data, labeller, [Scores(truth_space, labeller.label_space)], report)

A folder holds one file per scan, named by the scan's key (000012.label), or else as many files as there are scans, in
their order: SemanticKITTI's .label, .npy, .npz (with `label` and, if known, `confidence`), .bin, .txt with one id a
line, or clouds with a field for labels (.ply, .pcd, .las).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from cmp_seg_ros import configuration
from cmp_seg_ros.datasets import hand, point_files
from cmp_seg_ros.datasets.base import Array, natural, read_bytes
from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.pipeline import CannotLabel
from cmp_seg_ros.label_space import IGNORE, LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Float32, Labels, UInt8

NUMBERS = (".label", ".bin", ".npy", ".npz")
SUFFIXES = (*NUMBERS, *point_files.SUFFIXES)
WIDTHS: dict[int, np.dtype[Any]] = {1: np.dtype("<u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4")}  # by bytes a point
SHOWN = 8  # unknown ids in a message


class IdFile(BaseModel):
    """What the ids of a network mean: `into` names a known label space, `ids` has for each id its class or "ignore".

    Points with an ignored id count as without a label.
    """

    model_config = ConfigDict(extra="forbid")

    into: str
    ids: dict[int, str]


class IdMap:
    """Maps ids of any size to a label space.

    Args:
        space: of the result.
        table: from ids to those of `space`, or UNLABELLED.
    """

    def __init__(self, space: LabelSpace, table: Mapping[int, int]) -> None:
        self.space, self.table = space, dict(table)

    def __call__(self, ids: Array, what: str) -> UInt8:
        """(N,) whole numbers -> (N,) ids of `space`. Raises UserError for an unknown one; `what` names their file."""
        known, inverse = np.unique(ids, return_inverse=True)
        if unknown := [f"{value:g}" for value in known.tolist() if value not in self.table]:
            listed = ", ".join(unknown[:SHOWN]) + (", ..." if len(unknown) > SHOWN else "")
            raise CannotLabel(
                f"{what} has unknown ids: {listed}; add them to --label-space, as `ignore` if they have no class",
                "its predictions have unknown ids",
            )
        return np.array([self.table[value] for value in known.tolist()], np.uint8)[inverse]


def open_id_map(space: str | Path) -> IdMap:
    """The ids of a label space (a name, or a file), or of a file with `into` and `ids`. Raises UserError."""
    path = Path(space)
    if path.is_file() and "ids" in (configuration.read_yaml("label space", path) or {}):
        file = configuration.read(IdFile, "label space", path)
        into = LabelSpace.load(file.into)
        of_name = {c.name: c.id for c in into.classes} | {IGNORE: UNLABELLED}
        if wrong := sorted(set(file.ids.values()) - of_name.keys()):
            raise UserError(f"label space {path} names {', '.join(wrong)}, not in {into.name}: {', '.join(of_name)}")
        return IdMap(into, {number: of_name[name] for number, name in file.ids.items()} | {UNLABELLED: UNLABELLED})
    known = LabelSpace.load(space)
    return IdMap(known, {number: number for number in (*known.ids.tolist(), UNLABELLED)})


class Predictions:
    """The labeller of a folder of predictions.

    Args:
        folder: see above.
        ids: what they mean.
        count: number of scans; None: unknown. If no file has the key of a scan, as many files are taken in order.

    Raises:
        UserError: there are no such files.
    """

    segmenter = None

    def __init__(self, folder: Path, ids: IdMap, count: int | None = None) -> None:
        self.folder, self.ids, self.label_space = folder, ids, ids.space
        found = sorted((path for path in folder.rglob("*") if path.suffix in SUFFIXES), key=natural)
        if not found:
            raise UserError(f"folder {folder} holds no predictions ({', '.join(SUFFIXES)}); give one file per scan")
        self.by_name = {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}
        if len(self.by_name) < len(found):
            raise UserError(f"folder {folder} has several files of the same name; leave one per scan")
        self.in_order = found if count == len(found) else []

    def __call__(self, frame: Frame) -> Labels:
        path = self.by_name.get(frame.key) or self.by_name.get(hand.file_name(frame.key))
        if path is None and frame.number < len(self.in_order):
            path = self.in_order[frame.number]
        if path is None:
            raise CannotLabel(f"{self.folder} has no file for it (such as {frame.key}.label)", "it has no predictions")
        ids, confidence = read(path, len(frame.scan))
        if len(ids) != len(frame.scan):
            raise CannotLabel(
                f"{path} has {len(ids):,} labels, the scan {len(frame.scan):,} points; write a label for every point, "
                "those without a return included",
                "its predictions have another number of points",
            )
        label = self.ids(ids, str(path))
        label[~frame.scan.valid()] = UNLABELLED
        certain = np.ones(len(label), np.float32) if confidence is None else confidence
        return Labels(label, np.where(label == UNLABELLED, 0, certain).astype(np.float32))


def read(path: Path, points: int) -> tuple[Array, Float32 | None]:
    """(N,) whole numbers of a file, and (N,) confidences if it has them.

    Args:
        points: N of the scan; by this the width of bare numbers is known.

    Raises:
        UserError: the file cannot be read.
    """
    if path.suffix == ".label":
        return hand.read_label_file(path), None
    if path.suffix == ".bin":
        content = read_bytes(path)
        kind = WIDTHS.get(len(content) // points if points else 0, WIDTHS[1])
        return np.frombuffer(content, kind, len(content) // kind.itemsize), None
    if path.suffix in (".npy", ".npz"):
        return _numpy(path)
    try:
        columns = point_files.read(path)
    except UserError:
        if path.suffix not in point_files.TEXT:
            raise
        try:
            return _whole(np.array(read_bytes(path).split(), np.float64), path), None
        except ValueError as error:
            raise UserError(f"{path} has a line that is no number ({error}); write one id a line") from error
    return _whole(columns[hand.label_column(columns, "", path)], path), columns.get("confidence")


def _numpy(path: Path) -> tuple[Array, Float32 | None]:
    try:
        loaded = np.load(path, allow_pickle=False)
        named = dict(loaded) if path.suffix == ".npz" else {"label": loaded}
    except Exception as error:  # whatever numpy makes of damaged bytes
        raise UserError(f"{path} cannot be read ({error}); save it again with numpy") from error
    if "label" not in named:
        raise UserError(f"{path} has no array `label`; it has: {', '.join(named) or 'none'}")
    return _whole(named["label"].squeeze(), path), named.get("confidence")


def _whole(values: Array, path: Path) -> Array:
    """(N,) numbers as integers. Raises UserError."""
    if values.ndim != 1 or values.dtype.kind not in "fiub":
        raise UserError(f"{path} has labels of shape {values.shape} and type {values.dtype}; save one id a point, (N,)")
    known = np.nan_to_num(values, nan=UNLABELLED)
    whole = known.astype(np.int64)
    if (whole != known).any():
        raise UserError(f"{path} has labels that are no whole numbers; save ids, not probabilities")
    return whole

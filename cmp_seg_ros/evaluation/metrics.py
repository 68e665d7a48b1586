"""Metrics of labels against the truth, as published for WaffleIron and for structural classes indoors.

confusion = Confusion(truth_space, predicted_space)
confusion.add(truth, labels.label)          # once a scan
confusion.structural4("primary").miou()
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, UInt8

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

# How the published evaluation maps the truth to structural4: the primary accuracy ignores flush points, the strict one
# counts them as non-structural. Labels are mapped strictly in both.
VARIANTS = {"primary": "primary", "strict": ""}
PRIMARY, STRICT = "structural4_primary", "structural4_strict"


class Confusion:
    """Points by true (row) and predicted (column) class; the last column counts points without a label.

    Args:
        space: of the truth. Points whose truth is not a class of it are ignored.
        predicted_space: of the labels; None: `space`. Scores need both in one space: see `read_in`.
    """

    def __init__(self, space: LabelSpace, predicted_space: LabelSpace | None = None) -> None:
        self.space = space
        self.predicted_space = predicted_space or space
        self.matrix = np.zeros((len(space.classes), len(self.predicted_space.classes) + 1), dtype=np.int64)

    def add(self, truth: UInt8, predicted: UInt8) -> None:
        """Add a scan: (N,) ids of the truth and of the labels."""
        self.matrix += self.count(truth, predicted, np.zeros(truth.shape, np.int64), 1)[0]

    def count(self, truth: UInt8, predicted: UInt8, part: npt.NDArray[np.integer[Any]], parts: int) -> Int64:
        """(parts, C_truth, C_predicted + 1) matrices of the parts of a scan; not added to this one.

        Args:
            truth, predicted: (N,) ids.
            part: (N,) index of the part of each point; below 0, or from `parts` on: in none.
        """
        if not truth.shape == predicted.shape == part.shape:
            raise ValueError(f"truth has {truth.shape} points, the labels {predicted.shape}, the parts {part.shape}")
        row = self.space.index_of_id[truth]
        known = (row != UNLABELLED) & (part >= 0) & (part < parts)
        rows, columns = self.matrix.shape
        column = np.minimum(self.predicted_space.index_of_id[predicted[known]], columns - 1)
        cells = (part[known].astype(np.int64) * rows + row[known]) * columns + column
        return np.bincount(cells, minlength=parts * rows * columns).reshape(parts, rows, columns)

    def read_in(self, merge: "Merge") -> "Confusion":
        """The same points with truth and labels mapped to one space."""
        result = Confusion(merge.space)
        result.matrix = merge(self.matrix)
        return result

    def structural4(self, variant: str) -> "Confusion":
        """The published evaluation of structural classes, variant `primary` or `strict`. Raises UserError."""
        return self.read_in(
            Merge.into(LabelSpace.load("structural4"), VARIANTS[variant], self.space, self.predicted_space)
        )

    def iou(self) -> dict[str, float]:
        """Intersection over union by class; NaN for a class that is neither true nor predicted."""
        return dict(zip(self.space.names, iou_of(self._in_one_space()).tolist(), strict=True))

    def miou(self) -> float:
        """Mean IoU of the classes with true or predicted points, as in most benchmarks; NaN if there is none.

        A class that is predicted but never true counts as 0.
        """
        return float(mean_of(iou_of(self._in_one_space())))

    def points(self) -> dict[str, int]:
        """Number of true points by class."""
        return dict(zip(self.space.names, self.matrix.sum(axis=1).tolist(), strict=True))

    def report(self) -> dict[str, Any]:
        """All scores for JSON: fractions 0..1, None if there is nothing to score."""
        matrix, names = self._in_one_space(), self.space.names
        by_class = {"iou": iou_of(matrix), "precision": precision_of(matrix), "recall": recall_of(matrix)}
        return {
            "miou": number(self.miou()),
            "mean_accuracy": number(float(mean_of(by_class["recall"]))),
            "overall_accuracy": number(float(overall_accuracy_of(matrix))),
            **{key: dict(zip(names, map(number, values), strict=True)) for key, values in by_class.items()},
            "points": self.points(),
        }

    def _in_one_space(self) -> Int64:
        if self.space.names != self.predicted_space.names:
            raise ValueError(
                f"truth is in {self.space.name}, labels are in {self.predicted_space.name}: map them to one space"
            )
        return self.matrix


@dataclass(frozen=True)
class Merge:
    """Maps confusion matrices of truth and labels, each in its own space, to one space.

    Args:
        space: of the result, with C classes.
        rows: (C_truth, C) of 0 and 1: the class of `space` that a true class maps to; all 0 if ignored.
        columns: (C_predicted + 1, C + 1) the same for the labels; the last column is "no label".
    """

    space: LabelSpace
    rows: Int64
    columns: Int64

    @classmethod
    def into(cls, space: LabelSpace, variant: str, truth: LabelSpace, predicted: LabelSpace) -> "Merge":
        """Map the truth to `space` (in a variant) and the labels strictly. Raises UserError if a mapping is missing."""
        rows = space.merge_matrix(truth, variant).astype(np.int64)  # (C_truth, C)
        columns = space.merge_matrix(predicted).astype(np.int64)  # (C_predicted, C)
        # A label that `space` ignores counts as no label.
        answered = np.pad(columns, ((0, 1), (0, 0)))  # (C_predicted + 1, C)
        return cls(space, rows, np.column_stack([answered, 1 - answered.sum(axis=1)]))

    def __call__(self, matrix: Int64) -> Int64:
        """(..., C_truth, C_predicted + 1) -> (..., C, C + 1)."""
        return self.rows.T @ matrix @ self.columns


def merges(truth: LabelSpace, predicted: LabelSpace, required: Iterable[str] = ()) -> dict[str, Merge]:
    """The ways to map a truth and labels to one space: the truth's own, by its name, then `structural4_primary` and
    `structural4_strict`, each if both map to it.

    Raises:
        UserError: there is none, or a required one is missing.
    """
    found: dict[str, Merge] = {}
    refused: list[str] = []
    structural4 = LabelSpace.load("structural4")
    targets = {truth.name: (truth, "")}
    targets |= {f"structural4_{name}": (structural4, variant) for name, variant in VARIANTS.items()}
    for name, (space, variant) in targets.items():
        try:
            found[name] = Merge.into(space, variant, truth, predicted)
        except UserError as error:  # noqa: PERF203
            refused.append(str(error))
    if not found or set(required) - found.keys():
        raise UserError(f"these labels cannot be compared with this truth: {'; '.join(refused)}")
    return found


def readings(confusion: Confusion, required: Iterable[str] = ()) -> dict[str, Confusion]:
    """The confusion mapped in each of the ways of `merges`. Raises the same UserError."""
    found = merges(confusion.space, confusion.predicted_space, required)
    return {name: confusion.read_in(merge) for name, merge in found.items()}


def iou_of(matrix: npt.NDArray[Any]) -> Float64:
    """(..., C) intersection over union of (..., C, C + 1) confusion matrices, the last column without a label.

    NaN for a class that is neither true nor predicted.
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(axis=-1) + matrix[..., :-1].sum(axis=-2) - hits
    return ratio(hits, union)


def precision_of(matrix: npt.NDArray[Any]) -> Float64:
    """(..., C) share of the points predicted as each class that truly are, of matrices as in `iou_of`.

    NaN for a class that is never predicted.
    """
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix[..., :-1].sum(axis=-2))


def recall_of(matrix: npt.NDArray[Any]) -> Float64:
    """(..., C) share of each class's true points that are predicted so, of matrices as in `iou_of`.

    NaN for a class without true points.
    """
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1), matrix.sum(axis=-1))


def overall_accuracy_of(matrix: npt.NDArray[Any]) -> Float64:
    """(...) share of the points that are right, of matrices as in `iou_of`; NaN without points."""
    return ratio(np.diagonal(matrix, axis1=-2, axis2=-1).sum(axis=-1), matrix.sum(axis=(-2, -1)))


def mean_of(values: Float64) -> Float64:
    """(..., C) -> (...) mean without NaN; NaN if all are NaN."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))


def percentiles(values: Iterable[float], at: tuple[int, ...] = (50, 95, 99)) -> dict[str, float]:
    """`{"p50": ..., "p95": ..., "p99": ...}`; empty without values."""
    values = list(values)
    return {f"p{p}": float(np.percentile(values, p)) for p in at} if values else {}


def stage_percentiles(
    stages: Iterable[Mapping[str, float]], at: tuple[int, ...] = (50, 95, 99)
) -> dict[str, dict[str, float]]:
    """`percentiles` of each stage over scans, and of their sum as `total`."""
    scans = [{**scan, "total": sum(scan.values())} for scan in stages]
    names = [*dict.fromkeys(name for scan in scans for name in scan if name != "total"), "total"]
    return {name: percentiles((scan[name] for scan in scans if name in scan), at) for name in names}


def ratio(part: Any, whole: Any) -> Float64:
    """`part` / `whole`, NaN where `whole` is 0."""
    whole = np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def number(value: float) -> float | None:
    """A figure for JSON: None instead of NaN."""
    return float(value) if np.isfinite(value) else None

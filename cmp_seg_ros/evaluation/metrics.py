"""Agreement of labels with the truth, as published for WaffleIron and for structural classes indoors.

confusion = Confusion(truth_space, predicted_space)
confusion.add(truth, labels.label)          # once a scan
confusion.structural4("primary").miou()
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, UInt8

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

# How the published evaluation reads the truth in structural4: the primary accuracy ignores flush points, the strict
# one counts them as non-structural. What the network says is read strictly in both.
VARIANTS = {"primary": "primary", "strict": ""}
PRIMARY, STRICT = "structural4_primary", "structural4_strict"


class Confusion:
    """Points by true (row) and predicted (column) class; the last column counts points without an answer.

    Args:
        space: of the truth. Points whose truth is no class of it are ignored.
        predicted_space: of the labels; None is `space`. Scores need both alike: see `read_in`.
    """

    def __init__(self, space: LabelSpace, predicted_space: LabelSpace | None = None) -> None:
        self.space = space
        self.predicted_space = predicted_space or space
        self.matrix = np.zeros((len(space.classes), len(self.predicted_space.classes) + 1), dtype=np.int64)

    def add(self, truth: UInt8, predicted: UInt8) -> None:
        """Count a scan: (N,) ids of the truth and of the labels."""
        if truth.shape != predicted.shape:
            raise ValueError(f"truth has {truth.shape} points, the labels have {predicted.shape}")
        row = self.space.index_of_id[truth]
        known = row != UNLABELLED
        rows, columns = self.matrix.shape
        column = np.minimum(self.predicted_space.index_of_id[predicted[known]], columns - 1)
        pairs = row[known].astype(np.int64) * columns + column
        self.matrix += np.bincount(pairs, minlength=rows * columns).reshape(rows, columns)

    def __iadd__(self, other: "Confusion") -> "Confusion":
        self.matrix += other.matrix
        return self

    def read_in(self, space: LabelSpace, variant: str = "") -> "Confusion":
        """The same points with their truth read in `space` (in a variant) and their labels strictly.

        Raises:
            UserError: `space` does not map from the truth's or the labels' space.
        """
        result = Confusion(space)
        rows = space.merge_matrix(self.space, variant).astype(np.int64)  # (C_truth, C)
        columns = space.merge_matrix(self.predicted_space).astype(np.int64)  # (C_predicted, C)
        # A label that `space` ignores is no answer.
        answered = np.pad(columns, ((0, 1), (0, 0)))  # (C_predicted + 1, C)
        mapping = np.column_stack([answered, 1 - answered.sum(axis=1)])  # (C_predicted + 1, C + 1)
        result.matrix = rows.T @ self.matrix @ mapping
        return result

    def structural4(self, variant: str) -> "Confusion":
        """The published evaluation of structural classes: variant `primary` or `strict`. Raises UserError."""
        return self.read_in(LabelSpace.load("structural4"), VARIANTS[variant])

    def iou(self) -> dict[str, float]:
        """Intersection over union by class; NaN for a class that is neither true nor predicted."""
        self._hits()  # in one space
        return self._named(iou_of(self.matrix))

    def accuracy(self) -> dict[str, float]:
        """Share of each class's true points that are found (recall); NaN for a class without any."""
        return self._named(_ratio(self._hits(), self.matrix.sum(axis=1)))

    def overall_accuracy(self) -> float:
        """Share of all points that are right; NaN without points."""
        return float(_ratio(self._hits().sum(), self.matrix.sum()))

    def miou(self) -> float:
        """Mean IoU of the classes that occur; NaN if none does."""
        return float(mean_of(np.array(list(self.iou().values()))))

    def points(self) -> dict[str, int]:
        """Number of true points by class."""
        return dict(zip(self.space.names, self.matrix.sum(axis=1).tolist(), strict=True))

    def report(self) -> dict[str, Any]:
        """All scores as JSON takes them: fractions 0..1, None where there is nothing to score."""
        return {
            "miou": number(self.miou()),
            "iou": {name: number(value) for name, value in self.iou().items()},
            "accuracy": {name: number(value) for name, value in self.accuracy().items()},
            "overall_accuracy": number(self.overall_accuracy()),
            "points": self.points(),
        }

    def _hits(self) -> Int64:
        if self.space.names != self.predicted_space.names:
            raise ValueError(
                f"truth in {self.space.name}, labels in {self.predicted_space.name}: read them in one space"
            )
        return np.diagonal(self.matrix)

    def _named(self, values: Float64) -> dict[str, float]:
        return dict(zip(self.space.names, values.tolist(), strict=True))


def readings(confusion: Confusion, required: Iterable[str] = ()) -> dict[str, Confusion]:
    """The confusion in each space that truth and labels both map to: the truth's own, by its name, then
    `structural4_primary` and `structural4_strict`.

    Raises:
        UserError: there is none, or not all that are required.
    """
    found: dict[str, Confusion] = {}
    refused: list[str] = []
    structural4 = LabelSpace.load("structural4")
    targets = {confusion.space.name: (confusion.space, "")}
    targets |= {f"structural4_{name}": (structural4, variant) for name, variant in VARIANTS.items()}
    for name, (space, variant) in targets.items():
        try:
            found[name] = confusion.read_in(space, variant)
        except UserError as error:  # noqa: PERF203
            refused.append(str(error))
    if not found or set(required) - found.keys():
        raise UserError(f"these labels cannot be compared with this truth: {'; '.join(refused)}")
    return found


def iou_of(matrix: npt.NDArray[Any]) -> Float64:
    """(..., C) intersection over union of (..., C, C + 1) confusion matrices, the last column without an answer.

    NaN for a class that is neither true nor predicted.
    """
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    union = matrix.sum(axis=-1) + matrix[..., :-1].sum(axis=-2) - hits
    return _ratio(hits, union)


def mean_of(values: Float64) -> Float64:
    """(..., C) -> (...) mean of what is not NaN; NaN if all is."""
    known = np.isfinite(values)
    return _ratio(np.where(known, values, 0).sum(axis=-1), known.sum(axis=-1))


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


def _ratio(part: Any, whole: Any) -> Float64:
    whole = np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def number(value: float) -> float | None:
    """A figure as JSON takes it: None where there is nothing to score."""
    return float(value) if np.isfinite(value) else None

"""Scores of occupancy and depth against a truth."""

import numpy as np

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN
from cmp_seg_ros.scan import Bool, Float32, UInt8

PARTS = ("all", "visible", "occluded")


def truth_ids(space: LabelSpace) -> UInt8:
    """(256,) ids in the space by what a true grid has: ids in `indoor`, FREE, or UNKNOWN."""
    ids = space.id_map(LabelSpace.load("indoor"))
    ids[FREE] = FREE
    return ids


class OccupancyScores:
    """Counts voxels over views. Voxels whose truth is UNKNOWN count nowhere; predicted unknown counts as not occupied.

    Args:
        space: of the classes of truth and prediction; mIoU is the mean over the classes that occur in the truth.
    """

    def __init__(self, space: LabelSpace) -> None:
        self.space = space
        size = len(space.classes) + 1  # the last row and column: empty
        self._counts = np.zeros((2, size, size), np.int64)  # (occluded, visible) x truth x prediction

    def add(self, truth: UInt8, predicted: UInt8, visible: Bool) -> None:
        """Add a view: (N,) true and predicted labels or FREE or UNKNOWN, (N,) whether the camera sees the voxel."""
        known = truth != UNKNOWN
        empty = len(self.space.classes)
        row, column = (np.minimum(self.space.index_of_id[ids[known]], empty) for ids in (truth, predicted))
        cells = np.ravel_multi_index((visible[known].astype(np.uint8), row, column), self._counts.shape)
        self._counts += np.bincount(cells, minlength=self._counts.size).reshape(self._counts.shape)

    def scores(self) -> dict[str, float]:
        """iou, precision, recall of each part (`iou` alone: of all), `miou`, and `iou_CLASS`; NaN where undefined."""
        found: dict[str, float] = {}
        matrix = self._counts.sum(axis=0)
        for part, counts in zip(PARTS, (matrix, self._counts[1], self._counts[0]), strict=True):
            hits, false, missed = counts[:-1, :-1].sum(), counts[-1, :-1].sum(), counts[:-1, -1].sum()
            end = "" if part == "all" else f"_{part}"
            found[f"occupancy_iou{end}"] = _ratio(hits, hits + false + missed)
            found[f"precision{end}"] = _ratio(hits, hits + false)
            found[f"recall{end}"] = _ratio(hits, hits + missed)
        union = matrix.sum(axis=0) + matrix.sum(axis=1) - matrix.diagonal()
        present = matrix.sum(axis=1) > 0
        ious = [_ratio(matrix[i, i], union[i]) if present[i] else float("nan") for i in range(len(matrix) - 1)]
        found["miou"] = float(np.nanmean(ious)) if present[:-1].any() else float("nan")
        found |= {f"iou_{name}": iou for name, iou in zip(self.space.names, ious, strict=True)}
        return found


class DepthScores:
    """Absolute relative error, RMSE and share within a factor of 1.25 (Eigen et al., NeurIPS 2014), over pixels."""

    def __init__(self) -> None:
        self._sums = np.zeros(4)

    def add(self, truth: Float32, predicted: Float32, nearest: float = 0.1, farthest: float = 12.0) -> None:
        """Add depths in metres of any equal shape; those of the truth beyond the range count nowhere."""
        known = np.isfinite(truth) & (truth > nearest) & (truth < farthest) & np.isfinite(predicted) & (predicted > 0)
        t, p = truth[known].astype(np.float64), predicted[known].astype(np.float64)
        within = np.maximum(t / p, p / t) < 1.25
        self._sums += [len(t), float((np.abs(p - t) / t).sum()), float(((p - t) ** 2).sum()), float(within.sum())]

    def scores(self) -> dict[str, float]:
        count, relative, square, within = self._sums.tolist()
        if not count:
            return dict.fromkeys(("abs_rel", "rmse", "delta_125"), float("nan"))
        return {"abs_rel": relative / count, "rmse": float(np.sqrt(square / count)), "delta_125": within / count}


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")

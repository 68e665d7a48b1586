"""How much fusion adds: labels of single scans and of the map, on the same points, against the truth."""

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.evaluation.bootstrap import Bootstrap
from cmp_seg_ros.evaluation.metrics import Confusion, Merge, iou_of, mean_of, merges, number
from cmp_seg_ros.evaluation.report import Gain
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan, UInt8

Int64 = npt.NDArray[np.int64]


class FusionScore:
    """Counts points of scans by truth and by both labels.

    Raises:
        UserError: labels and truth cannot be compared.
    """

    def __init__(self, truth: LabelSpace, labels: LabelSpace) -> None:
        self.merges = merges(truth, labels)
        self._confusion = Confusion(truth, labels)
        self.groups: dict[str, Int64] = {}  # (2, C_truth, C_predicted + 1): single scans, map

    def add(self, group: str, scan: Scan, truth: UInt8, single: Labels, fused: Labels) -> None:
        """Add a scan; `group` is the unit of resampling."""
        true = np.where(scan.valid(), truth, UNLABELLED).astype(np.uint8)
        part = np.zeros(len(true), np.int64)
        both = np.stack([self._confusion.count(true, found.label, part, 1)[0] for found in (single, fused)])
        self.groups[group] = self.groups.get(group, np.zeros_like(both)) + both

    def gains(self) -> dict[str, Gain]:
        """By reading: the truth's own space and structural4 (see `metrics.merges`)."""
        return gains_of(self.groups, self.merges, Bootstrap())


def gains_of(groups: dict[str, Int64], readings: dict[str, Merge], bootstrap: Bootstrap) -> dict[str, Gain]:
    """Gains from the (2, C_truth, C_predicted + 1) counts of groups, also of several drives together."""
    found = {}
    counts = np.stack(list(groups.values()))  # (G, 2, C_truth, C_predicted + 1)
    for name, merge in readings.items():
        single, fused = merge(counts[:, 0]), merge(counts[:, 1])
        drawn = bootstrap.difference(single, fused, lambda matrix: mean_of(iou_of(matrix)), paired=True)
        iou = [iou_of(matrix.sum(axis=0)) for matrix in (single, fused)]
        miou = [float(mean_of(values)) for values in iou]
        names = merge.space.names
        by_class = [dict(zip(names, map(number, values.tolist()), strict=True)) for values in iou]
        found[name] = Gain(
            single=number(miou[0]),
            fused=number(miou[1]),
            difference=number(miou[1] - miou[0]),
            interval=bootstrap.interval(drawn),
            iou_single=by_class[0],
            iou_fused=by_class[1],
        )
    return found

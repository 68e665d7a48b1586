"""Labels fused over time in voxels of the world.

Each scan gives each of its voxels one vote, a probability of each class. Votes are combined as independent
observations (Bayes; McCormac et al. 2017, SemanticFusion, eq. 1), by sums of weighted log-probabilities:

    log P(c) = (sum of w_s log p_s(c)) / W * min(W, K) + constant

where w_s falls with the distance from the sensor, and W is the sum of all w_s. Votes for one place are not independent,
since a network repeats its errors; so they count as at most K. K changes the confidence of a label, never the label.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels import fusion as kernels
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Bool, Float32, Labels, UInt8

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

VOXEL = 0.05  # metres; with 0.1, what lies flush in a wall loses a fifth of its IoU even if all labels are right
HALF_WEIGHT = 10.0  # metres from the sensor at which a vote has half the weight: points are sparse, and labels worse
LEAST = 0.01  # probability: no single vote rules a class out
INDEPENDENT = 4.0  # K: votes for a place count as at most so many independent ones
SMALLEST = 1 << 14  # voxels that there is always room for
MOST_VOXELS = 10_000_000  # below a gigabyte


@dataclass(frozen=True)
class Voxels:
    """M voxels of a map.

    Args:
        xyz: (M, 3) float32 mean place of the points in each, metres, in the world.
        label: (M,) ids.
        confidence: (M,) probability of the label.
        scans: (M,) number of scans with points in it.
        through: (M,) number of scans with a ray through it that ended beyond.
    """

    xyz: Float32
    label: UInt8
    confidence: Float32
    scans: Int32
    through: Int32

    def __len__(self) -> int:
        return len(self.xyz)


class _Arrays(NamedTuple):
    """What is kept of M voxels."""

    keys: Int64  # (M,), see `kernels.pack`
    sums: Float32  # (M, C) of weight * log-probability
    weights: Float32  # (M,)
    points: Int32  # (M,)
    scans: Int32  # (M,)
    mean: Float32  # (M, 3)
    through: Int32  # (M,)


class VoxelMap:
    """Voxels with the votes of all scans; memory grows with the surface seen (about 75 bytes a voxel).

        voxels = VoxelMap(space)
        voxels.add(xyz, labels, distance)          # of each scan, in the world
        label, confidence = voxels.labels_at(xyz)  # what all scans together say

    Args:
        space: of the labels.
        voxel_size: metres.
        independent: K.
    """

    def __init__(self, space: LabelSpace, voxel_size: float = VOXEL, independent: float = INDEPENDENT) -> None:
        self.space, self.voxel_size, self._independent = space, voxel_size, independent
        self._classes = len(space.classes)
        self._count = 0
        whole, fraction = np.zeros(0, np.int32), np.zeros(0, np.float32)
        sums, mean = np.zeros((0, self._classes), np.float32), np.zeros((0, 3), np.float32)
        self._arrays = _Arrays(np.zeros(0, np.int64), sums, fraction, whole, whole, mean, whole)
        self._resize(SMALLEST)

    def __len__(self) -> int:
        return self._count

    def _resize(self, room: int) -> None:
        """Make room for so many voxels, keeping those that there are."""
        more = room - self._count
        kept = (array[: self._count] for array in self._arrays)
        self._arrays = _Arrays(*(np.concatenate([a, np.zeros((more, *a.shape[1:]), a.dtype)]) for a in kept))
        self._seen = np.zeros(room, np.int32)
        self._table = table_of(self._arrays.keys[: self._count], room)

    def add(self, xyz: Float64, labels: Labels, distance: Float32) -> None:
        """Add the votes of a scan.

        Args:
            xyz: (N, 3) in the world; points without a label are ignored.
            labels: of the N points; without `probabilities`, what the confidence leaves is shared by all other classes.
            distance: (N,) from the sensor, metres.

        Raises:
            UserError: the map is too large for the memory.
        """
        index = self.space.index_of_id[labels.label]
        kept = np.flatnonzero(index != UNLABELLED)
        xyz = np.ascontiguousarray(xyz[kept], np.float64)
        evidence = self._evidence(labels, index, kept)
        weight = 1 / (1 + (distance[kept].astype(np.float32) / np.float32(HALF_WEIGHT)) ** 2)
        self._reserve(len(kept))
        keys = kernels.pack(xyz, self.voxel_size)
        own = self._arrays
        voxel, self._count = kernels.insert(self._table, own.keys, self._count, keys)
        sums = own.sums, own.weights, own.points, own.scans, own.mean
        kernels.accumulate(voxel, xyz, weight, evidence, self._seen, *sums)

    def _evidence(self, labels: Labels, index: UInt8, kept: Int64) -> Float32:
        """(n, C) log-probabilities of the classes."""
        if labels.probabilities is not None:
            probabilities = labels.probabilities[kept]
        else:
            confidence = np.clip(labels.confidence[kept], 1 / self._classes, 1)
            rest = (1 - confidence) / max(1, self._classes - 1)
            probabilities = np.repeat(rest[:, None], self._classes, axis=1)
            probabilities[np.arange(len(kept)), index[kept]] = confidence
        evidence: Float32 = np.log(np.maximum(probabilities, LEAST), dtype=np.float32)
        return evidence

    def _reserve(self, more: int) -> None:
        if self._count + more <= len(self._arrays.keys):
            return
        if self._count + more > MOST_VOXELS:
            raise UserError(
                f"the map has more than {MOST_VOXELS:,} voxels of {self.voxel_size:g} m; make them larger "
                "(--voxel-size), or map a shorter drive"
            )
        self._resize(1 << (self._count + more).bit_length())

    def find(self, xyz: Float64) -> Int32:
        """(N,) voxel of each of (N, 3) points, an index into `voxels()`; -1 if there is none."""
        keys = kernels.pack(np.ascontiguousarray(xyz, np.float64), self.voxel_size)
        found: Int32 = kernels.find(self._table, self._arrays.keys, keys)
        return found

    def labels_at(self, xyz: Float64) -> tuple[UInt8, Float32]:
        """(N,) label and confidence at (N, 3) points; UNLABELLED and 0 where the map has no voxel."""
        voxel = self.find(xyz)
        unique, inverse = np.unique(voxel, return_inverse=True)
        label, confidence = self._decide(np.maximum(unique, 0))
        label[unique < 0], confidence[unique < 0] = UNLABELLED, 0
        return label[inverse], confidence[inverse]

    def _decide(self, voxel: Int32 | slice) -> tuple[UInt8, Float32]:
        """Label and confidence of some voxels."""
        sums, weights = self._arrays.sums[voxel], self._arrays.weights[voxel]
        if not len(sums):
            return np.zeros(0, np.uint8), np.zeros(0, np.float32)
        scale = np.minimum(weights, self._independent) / np.maximum(weights, 1e-9)
        scaled = sums * scale[:, None]
        best = scaled.argmax(axis=1)
        top = scaled[np.arange(len(best)), best]
        confidence: Float32 = 1 / np.exp(scaled - top[:, None]).sum(axis=1)
        return self.space.ids[best], confidence.astype(np.float32)

    def voxels(self) -> Voxels:
        """All voxels, in the order in which they were first seen."""
        every, own = slice(self._count), self._arrays
        label, confidence = self._decide(every)
        return Voxels(own.mean[every].copy(), label, confidence, own.scans[every].copy(), own.through[every].copy())

    def keys(self) -> Int64:
        """(M,) packed index of each voxel (see `kernels.pack`)."""
        return self._arrays.keys[: self._count].copy()

    def places(self) -> Float32:
        """(M, 3) mean place of the points in each voxel; a view, until the next `add`."""
        return self._arrays.mean[: self._count]

    def note_through(self, passed: Bool) -> None:
        """Count a scan that sees through the voxels where (M,) `passed` is true."""
        self._arrays.through[: self._count] += passed

    def forget(self, centre: Float64, radius: float) -> int:
        """Remove the voxels farther than `radius` metres from `centre` in the plane; returns their number."""
        away = self.places()[:, :2] - centre[:2].astype(np.float32)
        kept = np.flatnonzero((away**2).sum(axis=1) <= radius**2)
        removed = self._count - len(kept)
        if removed:
            self._arrays = _Arrays._make(array[kept] for array in self._arrays)
            self._count = len(kept)
            self._resize(max(SMALLEST, 1 << (2 * len(kept)).bit_length()))
        return removed


def table_of(keys: Int64, room: int) -> Int32:
    """The hash table of (M,) keys, with room for so many."""
    table = np.full(1 << (2 * max(room, 1) - 1).bit_length(), kernels.EMPTY, np.int32)
    kernels.insert(table, np.empty_like(keys), 0, keys)
    return table

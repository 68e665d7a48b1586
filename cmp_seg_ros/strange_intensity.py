"""Whether a scan's intensities are like those of the training: if not, a network does better without them.

Figures of the intensities alone: how smooth they are on surfaces and farther apart, how they change across rings, with
range and height, and how their values are spread. A quadratic discriminant (`Choice`) is fitted to those of scans with
the simulator's intensities and with random responses (training/augment.py).

gate = bundle.description.intensities             # None where a bundle has none
voxels, unlikeness = gated(voxels, 0, gate)       # Labels.intensity_unlikeness
"""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.familiarity import Choice
from cmp_seg_ros.kernels.smoothness import local_variation
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.preprocess import Voxels

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

SAMPLED = 512  # voxels that are looked at, about
FLAT = 0.01  # of a neighbourhood's variance of position, at most across its plane
FEWEST_FLAT = 32  # else all neighbourhoods count
LEVELS = 64  # that count as many
QUANTILES = (0.02, 0.1, 0.5, 0.9, 0.98)  # of the intensities
RARE = 0.005  # share of the voxels that is next to none
OF_VARIANCE = (0.25, 0.5, 0.9)  # quantiles of the variance within a neighbourhood


def gated(voxels: Voxels, column: int, gate: Choice) -> tuple[Voxels, float | None]:
    """The voxels, whose intensities, a column of the features, become 0 if they are strange; and their unlikeness.

    It is above `gate.threshold` if they are; infinite if they are all the same; None if they are all 0.
    """
    intensity = voxels.features[:, column]
    if not intensity.any():
        return voxels, None
    found = figures(voxels.xyz, voxels.neighbours, intensity)
    unlikeness = float("inf") if found is None else gate.evidence(found)
    if unlikeness <= gate.threshold:
        return voxels, unlikeness
    features = voxels.features.copy()
    features[:, column] = 0
    return replace(voxels, features=features), unlikeness


def figures(xyz: Float32, neighbours: Int64, intensity: Float32) -> Float64 | None:
    """(D,) figures of (M, 3) voxels, their (M, K) nearest others, and (M,) intensities in any unit; D = 24.

    None for intensities that are all the same, and for too few voxels.
    """
    some = np.arange(0, len(xyz), max(1, len(xyz) // SAMPLED))
    value = intensity[some].astype(np.float64)
    mean, spread = value.mean() if len(value) else 0.0, value.std() if len(value) else 0.0
    if len(some) < FEWEST_FLAT or not spread > 1e-6:
        return None
    value = (value - mean) / spread
    variance, flat, nearest, across, along = local_variation(xyz, neighbours, intensity, some, FLAT)
    variance /= spread**2
    smooth = np.sort(variance[flat] if flat.sum() >= FEWEST_FLAT else variance)
    farthest = neighbours[some, -1]
    twice = neighbours[farthest, -1]
    steps = farthest, twice, neighbours[neighbours[twice, -1], -1]  # to places ever farther away
    apart = [np.square((intensity[place] - mean) / spread - value).mean() for place in steps]

    distance = _norm(xyz[some])
    far = _standard(np.log(distance + 0.3))
    bent = _standard(far**2 - far * (far**3).mean())  # what of its square is no line
    ordered = np.sort(value)
    changes = np.diff(ordered) > 1e-6
    return np.array(
        [
            _log(smooth.mean()),
            *(_log(_quantile(smooth, q)) for q in OF_VARIANCE),
            _log(variance.mean()),
            *(_log(one) for one in apart),
            _log(across / spread) - _log(along / spread),
            _log(_median(nearest) / spread),
            (value * far).mean(),
            (value * bent).mean(),
            (value * _standard(xyz[some, 2])).mean(),
            np.log2(min(LEVELS, 1 + int(np.count_nonzero(changes)))),
            np.log((ordered > ordered[-1] - 1e-6).mean() + RARE),
            np.log((ordered < ordered[0] + 1e-6).mean() + RARE),
            *(_quantile(ordered, q) for q in QUANTILES),
            *(np.log(_median(_apart(xyz, some, neighbours[some, place])) + 1e-6) for place in (0, -1)),
            np.log(_median(distance) + 1e-6),
        ]
    )


def _apart(xyz: Float32, some: Int64, others: Int64) -> Float32:
    """(S,) distances of voxels to others."""
    return np.asarray(_norm(xyz[others] - xyz[some]))


def _norm(vectors: Float32) -> Float32:
    x, y, z = vectors.T  # by columns: numpy is slow along rows of three
    return np.sqrt(x * x + y * y + z * z)


def _standard(value: npt.NDArray[np.floating]) -> Float64:
    return np.asarray((value - value.mean()) / (value.std() + 1e-6), np.float64)


def _quantile(ordered: npt.NDArray[np.floating], share: float) -> float:
    return float(ordered[int(share * (len(ordered) - 1))])


def _median(values: npt.NDArray[np.floating]) -> float:
    """As numpy's for an odd number; several times faster for few values."""
    return _quantile(np.sort(values), 0.5)


def _log(value: float) -> float:
    return math.log(value + 1e-3)

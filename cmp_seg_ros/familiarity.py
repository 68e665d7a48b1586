"""One number a scan: how unlike the scans of its training a bundle finds it.

From what is at hand when a scan is labelled, some twenty figures: how unsure the network is, how far the returns are,
how high they lie, how much of each class there is and at what height. The distance of these from their mean over scans
of the training, in units of their spread there (Mahalanobis 1936), is the number; beyond a threshold that few of those
scans pass, labels should not be trusted: outdoors, wrong units, wrong axes, a covered sensor.

known = bundle.description.familiarity                    # None where a bundle has none
found = figures(xyz, voxels.xyz, probabilities)
known.distance(found) > known.threshold                   # Labels.unlikeness; Labels.unfamiliar says in what
"""

from functools import cached_property

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cmp_seg_ros.scan import Float32

Float64 = npt.NDArray[np.float64]

POINTS = 8192  # of a scan that are looked at, about
UNSURE = 0.6  # probability below which a voxel counts as unsure
PRIOR = 1.0  # voxels at height 0 that every class has beside its own
# What the figures of a scan are about, in their order; those after them are about classes.
SUBJECTS = ["how unsure the network is"] * 2 + ["how many voxels"] + ["distances"] * 3 + ["heights"] * 3
CLASSES = "shares and heights of classes"
SPREAD = 0.02  # least spread of a figure, so that one that never varied in training does not decide alone


class Familiarity(BaseModel):
    """Figures of the training's scans, D of each.

    Args:
        mean: (D,).
        whitening: (D, D) lower triangle by rows; turns differences from the mean into ones of unit spread.
        threshold: unlikeness beyond which a scan is strange.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    mean: list[float]
    whitening: list[list[float]]
    threshold: float

    @cached_property
    def log_volume(self) -> float:
        """The logarithm of the covariance's determinant."""
        return -2 * float(np.sum(np.log([row[-1] for row in self.whitening])))

    @cached_property
    def _lower(self) -> Float64:
        """(D, D) `whitening`."""
        lower = np.zeros((len(self.mean), len(self.mean)))
        for i, row in enumerate(self.whitening):
            lower[i, : i + 1] = row
        return lower

    def distance(self, found: Float64) -> float:
        """Unlikeness of (D,) figures: about 1 for scans like those of the training."""
        return float(np.sqrt(np.mean(np.square(self._lower @ (found - self.mean)))))

    def deviations(self, found: Float64) -> Float64:
        """(D,) how far each figure is from its mean, in standard deviations."""
        spread = np.linalg.norm(np.linalg.inv(self._lower), axis=1)  # the roots of the covariance's diagonal
        return np.asarray((found - self.mean) / spread)


class Choice(BaseModel):
    """Tells scans like those of the training from others by which of two normal distributions they fit better.

    Args:
        usual, other: figures of the two kinds of scans.
        threshold: `evidence` beyond which a scan is of the other kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ignored_types=(cached_property,))

    usual: Familiarity
    other: Familiarity
    threshold: float

    def evidence(self, found: Float64) -> float:
        """Twice the logarithm of the likelihood ratio of (D,) figures, other to usual, over D."""
        distances = self.usual.distance(found) ** 2 - self.other.distance(found) ** 2
        return distances + (self.usual.log_volume - self.other.log_volume) / len(found)


def figures(xyz: Float32, voxels: Float32, probabilities: Float32) -> Float64:
    """(D,) figures of a scan, D = 9 + 2 C - 1: (N, 3) upright returns; (M, 3) voxels, (M, C) their probabilities."""
    p = probabilities.astype(np.float64)
    entropy = -(p * np.log(p.clip(1e-9))).sum(axis=1).mean() / np.log(p.shape[1])
    unsure = (p.max(axis=1) < UNSURE).mean()
    few = xyz[:: max(1, len(xyz) // POINTS)].astype(np.float64)
    away = np.log10(np.percentile(np.hypot(few[:, 0], few[:, 1]), [10, 50, 90]).clip(1e-3, 1e6))
    height = np.arcsinh(np.percentile(few[:, 2], [2, 50, 98]))
    share = p.mean(axis=0)
    heights = p.T @ np.arcsinh(voxels[:, 2].astype(np.float64)) / (p.sum(axis=0) + PRIOR)  # (C,) of each class
    return np.concatenate([[entropy, unsure, np.log10(len(p))], away, height, share[:-1], heights])


def strangest(known: Familiarity, found: Float64) -> str:
    """What a scan with these `figures` is least usual in, in words."""
    worst = int(np.abs(known.deviations(found)).argmax())
    return SUBJECTS[worst] if worst < len(SUBJECTS) else CLASSES


def fit_choice(usual: Float64, other: Float64, quantile: float) -> Choice:
    """From (S, D) and (T, D) figures of scans of both kinds; `quantile` of the usual ones shall be taken as such."""
    choice = Choice(usual=fit(usual), other=fit(other), threshold=0)
    evidence = [choice.evidence(one) for one in usual]
    return choice.model_copy(update={"threshold": round(float(np.quantile(evidence, quantile)), 3)})


def fit(found: Float64, quantile: float = 0.99) -> Familiarity:
    """From (S, D) figures of scans of the training; `quantile` of them shall not be strange.

    The threshold comes from every fourth scan, the rest from the others.
    """
    held = np.arange(len(found)) % 4 == 0
    mean = found[~held].mean(axis=0)
    covariance = np.cov(found[~held].T) + SPREAD**2 * np.eye(found.shape[1])
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    rows = [[float(f"{value:.5g}") for value in row[: i + 1]] for i, row in enumerate(whitening.tolist())]
    familiarity = Familiarity(mean=[float(f"{value:.6g}") for value in mean], whitening=rows, threshold=0)
    distances = [familiarity.distance(one) for one in found[held]]
    return familiarity.model_copy(update={"threshold": round(float(np.quantile(distances, quantile)), 3)})

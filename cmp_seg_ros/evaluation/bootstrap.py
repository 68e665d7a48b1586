"""Bootstrap intervals of figures, and of differences between two runs, by resampling groups of scans.

Scans of one building, or of one stretch of a drive, are similar, so groups are resampled, not scans. A figure is
computed from the sum of the counts of its groups, as are all figures of a confusion matrix.

Percentile bootstrap: Efron 1979 (Ann. Statist. 7); Efron and Tibshirani 1993, An Introduction to the Bootstrap, 13.3.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

Float64 = npt.NDArray[np.float64]
Counts = npt.NDArray[Any]  # (G, *K): K counts of each of G groups
Statistic = Callable[[Float64], Float64]  # (..., *K) summed counts -> (..., *F) figures
Interval = tuple[float, float]

BLOCK = 4_000_000  # numbers in memory at once
FEW = 10  # groups; with fewer, percentile intervals are known to be too narrow


class Bootstrap(BaseModel):
    """Number of draws, seed, and confidence level of the intervals."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    resamples: int = Field(default=2000, gt=0)
    seed: int = Field(default=0, ge=0)
    level: float = Field(default=0.95, gt=0, lt=1)

    def weights(self, groups: int, stream: int = 0) -> Float64:
        """(R, G) how often each of R draws contains each group; different `stream`s are independent.

        R is 0 for fewer than two groups: with one, all draws are equal, which would look like an exact figure.
        """
        count = self.resamples if groups > 1 else 0
        rng = np.random.default_rng([self.seed, stream] if stream else self.seed)
        draws = rng.integers(max(1, groups), size=(count, groups))
        cells = np.arange(count)[:, None] * groups + draws
        return np.bincount(cells.ravel(), minlength=count * groups).reshape(count, groups).astype(np.float64)

    def draw(self, counts: Counts, statistic: Statistic, stream: int = 0) -> Float64:
        """(R, *F) figures of each draw from (G, *K) counts; R is 0 for fewer than two groups."""
        weights = self.weights(len(counts), stream)
        step = max(1, BLOCK // max(1, counts[:1].size))
        blocks = [weights[i : i + step] for i in range(0, max(1, len(weights)), step)]
        return np.concatenate([statistic(np.tensordot(block, counts, 1)) for block in blocks])

    def difference(self, a: Counts, b: Counts, statistic: Statistic, paired: bool) -> Float64:
        """(R, *F) figures of `b` minus those of `a`; if paired, each draw uses the same groups for both.

        R is 0 if either has fewer than two groups.
        """
        if paired and len(a) != len(b):
            raise ValueError(f"{len(a)} and {len(b)} groups cannot be paired")
        before, after = self.draw(a, statistic), self.draw(b, statistic, 0 if paired else 1)
        count = min(len(before), len(after))
        return after[:count] - before[:count]

    def interval(self, drawn: Float64) -> Interval | None:
        """The central interval of `level` of the (R,) draws that are not NaN; None without any."""
        known = drawn[np.isfinite(drawn)]
        if not len(known):
            return None
        tail = 50 * (1 - self.level)
        low, high = np.percentile(known, [tail, 100 - tail])
        return float(low), float(high)


def pack(counts: npt.NDArray[Any]) -> str:
    """A matrix of counts as one line, `12 0 3; 4 5 6`; as JSON lists, thousands of groups would take megabytes."""
    return "; ".join(" ".join(f"{value:.10g}" for value in row) for row in counts.tolist())


def unpack(packed: Iterable[str]) -> Float64:
    """(G, R, C) matrices from the lines of `pack`. Raises ValueError if one is not a matrix, or shapes differ."""
    matrices = [[[float(value) for value in row.split()] for row in text.split(";")] for text in packed]
    return np.array(matrices, np.float64)

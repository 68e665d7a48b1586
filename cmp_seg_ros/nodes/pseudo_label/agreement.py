"""How often the network and the teacher name the same class, over the last scans."""

from collections import deque
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, UInt8

Int64 = npt.NDArray[np.int64]

FEWEST = 20  # points that both label: fewer say nothing of a scan, or of a class


class Agreement:
    """A sliding window of confusion matrices, one a scan.

    Args:
        space: of the labels of both.
        window: scans.
    """

    def __init__(self, space: LabelSpace, window: int) -> None:
        self.space = space
        self._scans: deque[Int64] = deque(maxlen=window)
        self._sum = np.zeros((len(space.classes),) * 2, np.int64)

    def add(self, teacher: UInt8, network: UInt8) -> float | None:
        """Count a scan with (N,) labels of both; returns its own agreement, None with too few points."""
        both = (teacher != UNLABELLED) & (network != UNLABELLED)
        count = len(self.space.classes)
        pairs = self.space.index_of_id[teacher[both]].astype(np.int64) * count
        confusion = np.bincount(pairs + self.space.index_of_id[network[both]], minlength=count**2)
        if len(self._scans) == self._scans.maxlen:
            self._sum -= self._scans[0]
        self._scans.append(confusion.reshape(count, count))
        self._sum += self._scans[-1]
        points = int(both.sum())
        return float(np.trace(self._scans[-1])) / points if points >= FEWEST else None

    def __len__(self) -> int:
        """Scans in the window."""
        return len(self._scans)

    @property
    def overall(self) -> float | None:
        """Share of the points that both label alike, 0..1; None without such."""
        total = int(self._sum.sum())
        return float(np.trace(self._sum)) / total if total >= FEWEST else None

    def by_class(self) -> Iterator[tuple[str, float]]:
        """Of each class that one of them names: points that both name so, over those that either does."""
        either = self._sum.sum(axis=0) + self._sum.sum(axis=1) - np.diag(self._sum)
        for index, name in enumerate(self.space.names):
            if either[index] >= FEWEST:
                yield name, float(self._sum[index, index] / either[index])

"""Checks whether a lidar of unknown mounting leans, by the floor and the walls that it sees."""

import threading
import time
from collections.abc import Callable

import numpy as np

from cmp_seg_ros.geometry.plausibility import lean
from cmp_seg_ros.scan import Scan

FEW_RETURNS = 1000  # too few for a check
RETRY = 5.0  # seconds from one check to the next
DUTY = 0.02  # share of the time, at most, that is spent on checks


class LevelCheck:
    """Warns if a lidar that is taken as upright is not, by the first scan that shows a floor, a ceiling or walls.

    Args:
        note: takes the kind of a problem, for counting, and the warning.

    Attributes:
        done: whether such a scan has come.
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self.done = False
        self._note = note
        self._thread: threading.Thread | None = None
        self._next = 0.0  # monotonic seconds

    def __call__(self, scan: Scan, returns: int) -> None:
        """Check a scan now and then: half a second of work in a thread, so that no scan waits."""
        if self.done or returns <= FEW_RETURNS or time.monotonic() < self._next:
            return
        self._next = np.inf  # until this check is over
        self._thread = threading.Thread(target=self._look, args=(scan,), name="level check")
        self._thread.start()

    def close(self) -> None:
        """Wait for a check that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _look(self, scan: Scan) -> None:
        start = time.monotonic()
        try:
            self._check(scan)
        finally:
            end = time.monotonic()
            self._next = end + max(RETRY, (end - start) / DUTY)

    def _check(self, scan: Scan) -> None:
        doubts = lean(scan.xyz)
        self.done = doubts is not None
        for doubt in doubts or ():
            self._note(doubt.kind, doubt.text)

"""Does a lidar of unknown mount lean, by the floor and the walls that it sees?"""

import threading
import time
from collections.abc import Callable

import numpy as np

from cmp_seg_ros.geometry.plausibility import lean
from cmp_seg_ros.scan import Scan

FEW_RETURNS = 1000  # too few to tell whether the lidar is upright
RETRY = 5.0  # seconds from one look to the next
DUTY = 0.02  # of the time, at most, is spent on looking


class LevelCheck:
    """Warns, by the first scan that tells, of a lidar that is taken as upright and is not: its labels suffer.

    A scan tells that shows a floor, a ceiling or walls.

    Args:
        note: takes what to count and what to say.

    Attributes:
        done: whether a scan has told.
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self.done = False
        self._note = note
        self._thread: threading.Thread | None = None
        self._next = 0.0  # monotonic seconds

    def __call__(self, scan: Scan, returns: int) -> None:
        """Look at a scan now and then: half a second of work, in a thread, for which no scan waits."""
        if self.done or returns <= FEW_RETURNS or time.monotonic() < self._next:
            return
        self._next = np.inf  # until this look is over
        self._thread = threading.Thread(target=self._look, args=(scan,), name="level check")
        self._thread.start()

    def close(self) -> None:
        """Wait until it is over."""
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
        told = lean(scan.xyz)
        self.done = told is not None
        for doubt in told or ():
            self._note(doubt.kind, doubt.text)

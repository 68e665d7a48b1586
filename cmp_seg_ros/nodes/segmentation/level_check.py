"""Does a lidar of unknown mount lean, by the floor and the walls that it sees?"""

import threading
import time
from collections.abc import Callable

import numpy as np

from cmp_seg_ros.scan import Scan

FEW_RETURNS = 1000  # too few to tell whether the lidar is upright
MANY_POINTS = 1 << 15  # that tell it well; of more, every second, third, ... is looked at
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
        from cmp_seg_ros.geometry.planes import MAX_TILT, find_planes

        found = find_planes(scan.xyz[:: -(-len(scan) // MANY_POINTS)])
        self.done = bool(found.floor or found.ceiling or found.walls)
        if not self.done:
            return
        if found.tilt() > MAX_TILT:
            self._note(
                "tilted",
                f"the lidar leans by about {found.tilt():.0f} degrees, by the floor and walls that it sees, but is "
                "taken as upright; give T_base_lidar in a calibration_file",
            )
        elif found.way_up() < 0:
            self._note(
                "upside_down",
                "the lidar seems to hang upside down: the level surface above it is nearer and fuller than the one "
                "below; if it does, give T_base_lidar in a calibration_file",
            )

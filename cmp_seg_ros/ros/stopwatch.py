"""How long the stages of a job take."""

import time


class Stopwatch:
    """Milliseconds by stage of a job that begins now.

    Args:
        start: when it began to wait, by time.monotonic.
    """

    def __init__(self, start: float) -> None:
        self._start, self._taken = start, time.monotonic()
        self._last = self._taken
        self._paused = 0.0
        self.stages_ms = {"wait": 1e3 * (self._taken - start)}

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self.stages_ms[stage] = 1e3 * (now - self._last)
        self._last = now

    def pause(self) -> None:
        """End a stage that is measured elsewhere, or not at all."""
        self._last = time.monotonic()

    def resume(self) -> None:
        """End a pause, which does not count as busy."""
        now = time.monotonic()
        self._paused += now - self._last
        self._last = now

    @property
    def busy(self) -> float:
        """Seconds since the job began, less pauses."""
        return time.monotonic() - self._taken - self._paused

    @property
    def total_ms(self) -> float:
        """Milliseconds since the start."""
        return 1e3 * (time.monotonic() - self._start)

"""How long the stages of a scan take."""

import time


class Stopwatch:
    """Milliseconds by stage, from now or from a monotonic time in seconds."""

    def __init__(self, start: float | None = None) -> None:
        self.stages_ms: dict[str, float] = {}
        self._start = self._last = time.monotonic() if start is None else start

    def lap(self, stage: str) -> None:
        """End a stage."""
        now = time.monotonic()
        self.stages_ms[stage] = 1e3 * (now - self._last)
        self._last = now

    def skip(self) -> None:
        """End a stage that is measured elsewhere."""
        self._last = time.monotonic()

    @property
    def total_ms(self) -> float:
        return 1e3 * (time.monotonic() - self._start)

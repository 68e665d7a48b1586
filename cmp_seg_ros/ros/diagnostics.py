"""Counters of all messages and durations of all stages, for /diagnostics."""

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 200  # messages over which percentiles are computed
RATE_WINDOW = 5.0  # seconds
PERCENTILES = (50, 95, 99)
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Tally:
    """Counters of messages: received = published + dropped + pending at any time. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._published = 0
        self._dropped: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=1000)
        self._departures: deque[float] = deque(maxlen=1000)
        self._stages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def receive(self, superseded: bool) -> int:
        """Count an arrival, and the pending message that it replaces, if any. Returns its number, from 0."""
        with self._lock:
            self._received += 1
            self._arrivals.append(time.monotonic())
            if superseded:
                self._dropped["superseded"] += 1
            return self._received - 1

    def drop(self, reason: str) -> None:
        """Count a message without a result."""
        with self._lock:
            self._dropped[reason] += 1

    def publish(self, stages_ms: Mapping[str, float]) -> None:
        """Count a published result, with the milliseconds of each stage."""
        with self._lock:
            self._published += 1
            self._departures.append(time.monotonic())
            for stage, milliseconds in stages_ms.items():
                self._stages[stage].append(milliseconds)

    def note(self, what: str, count: int = 1) -> None:
        """Count anything else."""
        with self._lock:
            self._notes[what] += count

    def snapshot(self) -> tuple[dict[str, Any], Counter[str], bool]:
        """Values for /diagnostics, messages dropped by reason, and whether there are enough arrivals to judge the rate.

        The values are `in`, `out`, `dropped`, `pending`, `rate_hz`, `in_rate_hz`, and such as `dropped.superseded`,
        `note.no_intensity`, `ms.network.p95`.
        """
        now = time.monotonic()
        with self._lock:
            came, went = ([t for t in times if now - t < RATE_WINDOW] for times in (self._arrivals, self._departures))
            steady = len(came) > 1 and now - came[0] >= 0.8 * RATE_WINDOW and now - came[-1] < 0.2 * RATE_WINDOW
            dropped = sum(self._dropped.values())
            values = {
                "in": self._received,
                "out": self._published,
                "dropped": dropped,
                "pending": self._received - self._published - dropped,
                "rate_hz": _rate(went),
                "in_rate_hz": _rate(came),
            }
            values |= {f"dropped.{reason}": count for reason, count in self._dropped.items()}
            values |= {f"note.{what}": count for what, count in self._notes.items()}
            for stage, taken in self._stages.items():
                values |= {f"ms.{stage}.{name}": value for name, value in percentiles(taken).items()}
            return values, self._dropped.copy(), steady


def _rate(recent: list[float]) -> float:
    """Events per second, from their times."""
    return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0


def percentiles(values: Any) -> dict[str, float]:
    """p50, p95, p99."""
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(list(values), PERCENTILES), strict=True)}


class Throttle:
    """Lets one message per reason and period pass, and counts those held back."""

    def __init__(self, period: float = 10.0) -> None:
        self.period = period
        self._last: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    def __call__(self, reason: str) -> int | None:
        """Number of messages held back since the last one that passed; None if this one is held back too."""
        now = time.monotonic()
        if now - self._last.get(reason, -np.inf) < self.period:
            self._held[reason] += 1
            return None
        self._last[reason] = now
        return self._held.pop(reason, 0)


def status(name: str, level: bytes, message: str, hardware_id: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """A DiagnosticStatus with the values as text."""
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id, values=pairs)


def values(message: Any) -> dict[str, str]:
    """The key-value pairs of a DiagnosticStatus."""
    return {pair.key: pair.value for pair in message.values}


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)

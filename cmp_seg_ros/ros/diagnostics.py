"""What happens to every message, counted so that nothing gets lost unseen, and how long each stage takes."""

import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

WINDOW = 200  # scans that percentiles are taken over
RATE_WINDOW = 5.0  # seconds
PERCENTILES = (50, 95, 99)
OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


class Tally:
    """Counters of scans: received = published + dropped + pending, at every moment. For several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._received = self._published = 0
        self._dropped: Counter[str] = Counter()
        self._notes: Counter[str] = Counter()
        self._arrivals: deque[float] = deque(maxlen=1000)
        self._departures: deque[float] = deque(maxlen=1000)
        self._stages: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def receive(self, superseded: bool) -> int:
        """Count a scan that came, and the pending one that it takes the place of. Returns its number, from 0."""
        with self._lock:
            self._received += 1
            self._arrivals.append(time.monotonic())
            if superseded:
                self._dropped["superseded"] += 1
            return self._received - 1

    def drop(self, reason: str) -> None:
        """A scan ends without labels."""
        with self._lock:
            self._dropped[reason] += 1

    def publish(self, stages_ms: Mapping[str, float]) -> None:
        """A scan ends with labels, after so many milliseconds by stage."""
        with self._lock:
            self._published += 1
            self._departures.append(time.monotonic())
            for stage, milliseconds in stages_ms.items():
                self._stages[stage].append(milliseconds)

    def note(self, what: str, count: int = 1) -> None:
        """Something else worth a count."""
        with self._lock:
            self._notes[what] += count

    def snapshot(self) -> dict[str, Any]:
        """All counters at one moment, the rate, and percentiles by stage."""
        with self._lock:
            dropped = sum(self._dropped.values())
            return {
                "in": self._received,
                "out": self._published,
                "dropped": dropped,
                "pending": self._received - self._published - dropped,
                "dropped_by_reason": dict(self._dropped),
                "notes": dict(self._notes),
                "rate_hz": _rate(self._departures),
                "in_rate_hz": _rate(self._arrivals),
                "steady": _spans(self._arrivals, RATE_WINDOW * 0.8),
                "stages_ms": {stage: percentiles(values) for stage, values in self._stages.items()},
            }


def _rate(times: Iterable[float]) -> float:
    """Events a second, by the monotonic times of the last few seconds."""
    now = time.monotonic()
    recent = [t for t in times if now - t < RATE_WINDOW]
    return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 else 0.0


def _spans(times: Iterable[float], seconds: float) -> bool:
    """Whether events came in the last few seconds for so long that their rate means something."""
    now = time.monotonic()
    recent = [t for t in times if now - t < RATE_WINDOW]
    return len(recent) > 1 and now - recent[0] >= seconds and now - recent[-1] < RATE_WINDOW - seconds


def percentiles(values: Any) -> dict[str, float]:
    """p50, p95, p99."""
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, np.percentile(list(values), PERCENTILES), strict=True)}


class Throttle:
    """Lets one message a reason pass in so many seconds, and says how many it held back before."""

    def __init__(self, period: float = 10.0) -> None:
        self.period = period
        self._last: dict[str, float] = {}
        self._held: Counter[str] = Counter()

    def __call__(self, reason: str) -> int | None:
        """Number of messages held back since the last one that passed; None where this one is held back too."""
        now = time.monotonic()
        if now - self._last.get(reason, -np.inf) < self.period:
            self._held[reason] += 1
            return None
        self._last[reason] = now
        return self._held.pop(reason, 0)


def status(name: str, level: bytes, message: str, hardware_id: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    """A DiagnosticStatus; numbers are written so that they can be read back."""
    pairs = [KeyValue(key=key, value=_text(value)) for key, value in values.items()]
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id=hardware_id, values=pairs)


def values(message: Any) -> dict[str, str]:
    """The key-value pairs of a DiagnosticStatus."""
    return {pair.key: pair.value for pair in message.values}


def flat(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot under flat keys, such as `in`, `dropped.superseded`, `note.no_intensity`, `ms.network.p95`."""
    flattened: dict[str, Any] = {
        key: snapshot[key] for key in ("in", "out", "dropped", "pending", "rate_hz", "in_rate_hz")
    }
    flattened |= {f"dropped.{reason}": count for reason, count in snapshot["dropped_by_reason"].items()}
    flattened |= {f"note.{what}": count for what, count in snapshot["notes"].items()}
    for stage, figures in snapshot["stages_ms"].items():
        flattened |= {f"ms.{stage}.{name}": value for name, value in figures.items()}
    return flattened


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)

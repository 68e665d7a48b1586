"""Intensities as other sensors might give them, for scans whose geometry stays as it is.

A response is a seeded function of a frame: (N,) float32, or None where the sensor gives no intensity. `native` is what
the frame has. Labels should not depend on which of them a scan comes with.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.datasets.frame import Frame
from cmp_seg_ros.scan import Float32

Rng = np.random.Generator
Array = npt.NDArray[np.float64]
Response = Callable[[Frame, Rng], Array | Float32 | None]

CELL = 1.5  # m, of steps in space
WAVE = 1.0  # m, of stripes in space


def respond(name: str, frame: Frame, rng: Rng) -> Float32 | None:
    """(N,) float32 intensities of the named response, 0 where there is no return; or None."""
    value = RESPONSES[name](frame, rng)
    return None if value is None else np.where(frame.scan.valid(), value, 0).astype(np.float32)


def _native(frame: Frame) -> tuple[Array, float, float]:
    """(N,) intensities, their mean and deviation over the returns; without any, zeros, 0 and 1."""
    if frame.scan.intensity is None:
        return np.zeros(len(frame.scan)), 0.0, 1.0
    value = frame.scan.intensity.astype(np.float64)
    known = value[frame.scan.valid()]
    return (value, float(known.mean()), float(known.std()) or 1.0) if len(known) else (value, 0.0, 1.0)


def _range(frame: Frame) -> Array:
    return np.linalg.norm(np.nan_to_num(frame.scan.xyz).astype(np.float64), axis=1)


def _noisy(frame: Frame, rng: Rng, strength: float) -> Array:
    """Native, and noise of `strength` times its deviation."""
    value, _, spread = _native(frame)
    return value + rng.normal(0, strength * spread, len(value))


def _ring_gains(frame: Frame, rng: Rng) -> Array:
    """Native, with a gain for each ring; of a cloud that is not organised, for each quarter of a degree of altitude."""
    if frame.ring is not None:
        ring = frame.ring
    else:
        xyz = np.nan_to_num(frame.scan.xyz)
        altitude = np.degrees(np.arctan2(xyz[:, 2], np.hypot(xyz[:, 0], xyz[:, 1])))
        ring = np.round(4 * (altitude + 90)).astype(np.intp)
    return _native(frame)[0] * np.exp(rng.normal(0, 0.7, int(ring.max()) + 1))[ring]


def _steps(frame: Frame, rng: Rng) -> Array:
    """A level for each cube of space."""
    cell = np.floor(np.nan_to_num(frame.scan.xyz) / CELL).astype(np.int64) % 64
    return np.asarray(rng.uniform(0, 200, (64, 64, 64))[cell[:, 0], cell[:, 1], cell[:, 2]])


def _stripes(frame: Frame, rng: Rng) -> Array:
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    return 100 + 80 * np.sin(2 * np.pi / WAVE * (np.nan_to_num(frame.scan.xyz) @ way) + rng.uniform(0, 6))


def _quantised(frame: Frame, rng: Rng, levels: int) -> Array:
    """Native in so many equal steps from its lowest to its highest value but for one per cent at each end."""
    value, _, _ = _native(frame)
    low, high = np.percentile(value[frame.scan.valid()], [1, 99]) if frame.scan.valid().any() else (0, 1)
    share = ((value - low) / max(high - low, 1e-9)).clip(0, 1)
    return np.floor(share * (levels - 1e-6)) * (255 / max(1, levels - 1))


def _saturated(frame: Frame, rng: Rng) -> Array:
    """All but the darkest fifth is at the sensor's highest value."""
    value, _, _ = _native(frame)
    valid = frame.scan.valid()
    return np.minimum(value, np.percentile(value[valid], 20) if valid.any() else 0)


def _retroreflectors(frame: Frame, rng: Rng) -> Array:
    """Native, with specks that are a hundred times as bright as it is on average."""
    value, mean, spread = _native(frame)
    return np.where(rng.random(len(value)) < 0.003, 100 * (abs(mean) + spread), value)


def _other_lidar(frame: Frame, rng: Rng) -> Array:
    """Native in its order, with the distribution of a sensor whose values are mostly low and have a long tail."""
    value, _, _ = _native(frame)
    valid = frame.scan.valid()
    rank = np.empty(len(value))
    rank[np.argsort(np.where(valid, value, -np.inf), kind="stable")] = np.arange(len(value))
    share = ((rank - (~valid).sum() + 0.5) / max(1, valid.sum())).clip(0, 1 - 1e-6)
    return np.asarray(-20 * np.log1p(-share))


RESPONSES: dict[str, Response] = {
    "native": lambda frame, rng: frame.scan.intensity,
    "absent": lambda frame, rng: None,
    "constant": lambda frame, rng: np.full(len(frame.scan), 100.0),
    "white-noise": lambda frame, rng: rng.uniform(0, 255, len(frame.scan)),
    "noise-weak": partial(_noisy, strength=0.3),
    "noise-medium": partial(_noisy, strength=1.0),
    "noise-strong": partial(_noisy, strength=3.0),
    "fall-off": lambda frame, rng: 1000 / (1 + _range(frame) ** 2) * rng.normal(1, 0.05, len(frame.scan)),
    "rise": lambda frame, rng: 10 * _range(frame) * rng.normal(1, 0.05, len(frame.scan)),
    "ring-gains": _ring_gains,
    "steps": _steps,
    "stripes": _stripes,
    "quantised-4": partial(_quantised, levels=4),
    "quantised-256": partial(_quantised, levels=256),
    "saturated": _saturated,
    "retroreflectors": _retroreflectors,
    "other-lidar": _other_lidar,
}

"""Adapts the voxel size so that this machine labels every scan in time.

The time of a scan is modelled as `rest + per_voxel x voxels`: network time per voxel, and everything else. How the
number of voxels depends on their size is learnt from every change of size. Time beyond a scan's budget adds to a debt,
time below it pays the debt back. When the debt is too high, the model chooses coarser voxels; after a calm period, the
finest that fit. If a refinement has to be reverted, the next one waits longer.

    keeper = RateKeeper(segmenter.voxel_size, target_rate_hz=15)
    segmenter.voxel_size = keeper.voxel_size    # before every scan
    keeper.add(Timing(...))                     # after it
"""

from collections import deque
from dataclasses import dataclass

import numpy as np

COARSEST = 0.2  # metres; the networks were trained with voxels of 0.1 to 0.2 m
STEP = 1.125  # at most, from one size to the next; six steps from 0.1 to 0.2 m
MAX_LOAD = 0.9  # of the budget; time beyond it is debt. With scans of varying size, a higher value drops one in fifty
MAX_DEBT = 3.0  # budgets; more debt makes voxels coarser. A single scan adds one at most, however slow it was
AIMED_LOAD = 0.82  # of the budget, predicted by the model, after a change
WINDOW = 30  # scans used to decide on a refinement
RECENT = 4  # scans used to decide on a coarsening
COOL_DOWN = 10.0  # seconds from a change to the next refinement; doubles with every reverted refinement
LONGEST_COOL_DOWN = 120.0
TRIAL = 30.0  # seconds; a refinement that is reverted sooner has failed
EXPONENT = 1.0  # initial guess: the number of voxels is proportional to 1 / size^EXPONENT; 2 for densely seen surfaces
EXPONENTS = (0.3, 2.2)  # measured exponents are clipped to this range
OUTLIER = 2.0  # times the median; slower scans are clipped to it
LONGEST_PERIOD = 3.0  # times the usual period; longer gaps between scans are ignored when it is estimated


@dataclass(frozen=True)
class Timing:
    """Timing of a labelled scan.

    Args:
        number: index of the scan among all received ones, labelled or not.
        arrival: time of reception, seconds of any monotonic clock.
        busy: seconds from the start of its processing until the next scan could be processed, without waiting.
        network: the part of `busy` that grows with the number of voxels, seconds.
        voxels: number of voxels.
        voxel_size: metres.
    """

    number: int
    arrival: float
    busy: float
    network: float
    voxels: int
    voxel_size: float


@dataclass(frozen=True)
class Cost:
    """Seconds of a scan: `rest + per_voxel * voxels`."""

    rest: float
    per_voxel: float
    voxels: float

    @classmethod
    def of(cls, timings: list[Timing]) -> "Cost":
        """Mean of the timings, outliers clipped."""
        measured = np.array([(t.busy - t.network, t.network / t.voxels, t.voxels) for t in timings])
        return cls(*np.minimum(measured, OUTLIER * np.median(measured, axis=0)).mean(axis=0).tolist())


class RateKeeper:
    """Chooses the voxel size of the next scan from the timings of the last ones.

    Args:
        finest: the bundle's voxel size, metres.
        target_rate_hz: scans per second to be labelled; 0 keeps the bundle's voxel size.

    Attributes:
        target_rate_hz: may be changed.
        changes: number of changes of the size so far.
    """

    def __init__(self, finest: float, target_rate_hz: float) -> None:
        self.sizes = sizes(finest)
        self.target_rate_hz = target_rate_hz
        self.changes = 0
        self._index = 0
        self._log_voxels = -EXPONENT * np.log(self.sizes)  # by size; only differences matter
        self._arrivals: deque[tuple[int, float]] = deque(maxlen=WINDOW + 1)
        self._timings: deque[Timing] = deque(maxlen=WINDOW)  # since the last change
        self._before: Timing | None = None
        self._debt = 0.0
        self._changed = self._refined = -np.inf
        self._cool_down = COOL_DOWN

    @property
    def voxel_size(self) -> float:
        """Metres, for the next scan."""
        return self.sizes[self._index] if self.target_rate_hz > 0 else self.sizes[0]

    @property
    def budget(self) -> float:
        """Seconds a scan may take: the period of the target rate, or of the incoming scans if that is longer."""
        if self.target_rate_hz <= 0:
            return np.inf
        return max(1 / self.target_rate_hz, self._period())

    @property
    def load(self) -> float:
        """Median share of the budget that recent scans took; NaN before the first one."""
        return float(np.median([t.busy for t in self._timings])) / self.budget if self._timings else np.nan

    @property
    def too_slow(self) -> bool:
        """Whether even the coarsest voxels are too slow."""
        return self._index == len(self.sizes) - 1 and self._debt > MAX_DEBT and self.load > 1

    @property
    def state(self) -> str:
        """off, fine (the bundle's voxels), coarse, or too slow (the coarsest voxels do not hold the rate)."""
        if self.target_rate_hz <= 0:
            return "off"
        return "too slow" if self.too_slow else "coarse" if self._index else "fine"

    def add(self, timing: Timing) -> None:
        """Add the timing of a labelled scan, and choose the size for the next one."""
        if self.target_rate_hz <= 0:
            self._change(0, timing.arrival)
            return
        self._arrivals.append((timing.number, timing.arrival))
        if not timing.voxels or timing.voxel_size != self.voxel_size:
            return  # not informative about the current size
        self._learn(timing)
        self._timings.append(timing)
        self._debt += min(timing.busy / self.budget - MAX_LOAD, 1.0)
        self._debt = min(max(self._debt, 0.0), MAX_DEBT + 1)  # paid back soon, once the load ends
        if self._debt > MAX_DEBT:
            self._coarsen(timing.arrival)
        elif self._index and len(self._timings) == WINDOW and timing.arrival - self._changed > self._cool_down:
            self._refine(timing.arrival)

    def _period(self) -> float:
        """Seconds between incoming scans, labelled or not; 0 if not yet known."""
        if len(self._arrivals) < 2:
            return 0.0
        numbers, times = np.diff(np.array(self._arrivals), axis=0).T
        each = times / numbers
        steady = each <= LONGEST_PERIOD * np.partition(each, -1 - len(each) // 4)[-1 - len(each) // 4]
        return float(times[steady].sum() / numbers[steady].sum())

    def _learn(self, timing: Timing) -> None:
        """Update the number of voxels by size, from the first scan after a change of size."""
        before, self._before = self._before, timing
        if before is None or before.voxel_size == timing.voxel_size:
            return
        fine, coarse = sorted((before, timing), key=lambda t: t.voxel_size)
        ends = [self.sizes.index(t.voxel_size) for t in (fine, coarse)]
        fewer = np.log(fine.voxels / coarse.voxels)
        believed = np.clip(fewer, *(np.array(EXPONENTS) * np.log(coarse.voxel_size / fine.voxel_size)))
        expected = self._log_voxels[ends[0]] - self._log_voxels[ends[1]]
        self._log_voxels -= np.interp(np.arange(len(self.sizes)), ends, [0.0, believed - expected])

    def _fitting(self, cost: Cost) -> int:
        """Index of the finest size that fits the budget; of the coarsest if none does."""
        voxels = cost.voxels * np.exp(self._log_voxels - self._log_voxels[self._index])
        fits = cost.rest + cost.per_voxel * voxels <= AIMED_LOAD * self.budget
        return int(np.argmax(fits)) if fits.any() else len(self.sizes) - 1

    def _coarsen(self, time: float) -> None:
        if self._index == len(self.sizes) - 1:
            return
        if time - self._refined < TRIAL:
            self._cool_down = min(2 * self._cool_down, LONGEST_COOL_DOWN)
        else:
            self._cool_down = COOL_DOWN
        self._change(max(self._fitting(Cost.of(list(self._timings)[-RECENT:])), self._index + 1), time)

    def _refine(self, time: float) -> None:
        fitting = self._fitting(Cost.of(list(self._timings)))
        if fitting < self._index:
            self._change(fitting, time)
            self._refined = time

    def _change(self, index: int, time: float) -> None:
        if index != self._index:
            self._index, self._changed, self._debt = index, time, 0.0
            self._timings.clear()
            self.changes += 1


def sizes(finest: float) -> list[float]:
    """Voxel sizes from `finest` to COARSEST in equal ratios, rounded to millimetres except the finest."""
    if finest >= COARSEST:
        return [finest]
    steps = int(np.ceil(np.log(COARSEST / finest) / np.log(STEP)))
    coarser = np.round(np.geomspace(finest, COARSEST, steps + 1)[1:], 3)
    return [finest, *(float(size) for size in np.unique(coarser) if size > finest)]

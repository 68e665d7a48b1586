"""The rate keeper on simulated machines: cost by voxels, noise, load that comes and goes."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp_seg_ros.rate_keeper import COARSEST, STEP, RateKeeper, Timing, sizes

FINEST = 0.1
TARGET = 15.0


@dataclass(frozen=True)
class Machine:
    """A node on some machine in some building; times are in seconds, without load.

    Args:
        at_finest, at_coarsest: what a scan takes at the two ends of the voxel sizes.
        rest: of these, what does not go with the voxels, as a share of `at_coarsest`.
        noise: spread of what a scan takes, as the sigma of its logarithm.
        slow: share of the scans that take five times as long.
    """

    at_finest: float
    at_coarsest: float
    rest: float = 0.2
    noise: float = 0.1
    slow: float = 0.0
    seed: int = 0

    @property
    def exponent(self) -> float:
        rest = self.rest * self.at_coarsest
        return float(np.log((self.at_finest - rest) / (self.at_coarsest - rest)) / np.log(COARSEST / FINEST))

    def takes(self, size: float) -> float:
        """Seconds, without noise."""
        rest = self.rest * self.at_coarsest
        return rest + (self.at_finest - rest) * (FINEST / size) ** self.exponent


@dataclass
class Run:
    """What a simulated run gave: times of arrival, of labelling and the sizes then, and what was changed when."""

    came: list[float] = field(default_factory=list)
    labelled: list[float] = field(default_factory=list)
    sizes: list[float] = field(default_factory=list)

    @property
    def changes(self) -> list[float]:
        pairs = zip(self.labelled[1:], pairwise(self.sizes), strict=True)
        return [time for time, (before, after) in pairs if before != after]

    def most_changes(self, seconds: float) -> int:
        """The most in any stretch of time."""
        times = np.array(self.changes)
        return max((int(((times >= t) & (times < t + seconds)).sum()) for t in times), default=0)

    def share(self, start: float, end: float) -> float:
        """Of the scans that came between the two times, how many were labelled."""

        def between(times: list[float]) -> int:
            return sum(start <= t < end for t in times)

        return between(self.labelled) / between(self.came)


def steady(_time: float) -> float:
    return 1.0


def drive(
    machine: Machine,
    seconds: float,
    rate: float = TARGET,
    load: Callable[[float], float] = steady,
    keeper: RateKeeper | None = None,
) -> Run:
    """A lidar at `rate` scans a second, and a node that takes the newest."""
    random = np.random.default_rng(machine.seed)
    keeper = keeper or RateKeeper(FINEST, TARGET)
    arrivals = np.arange(0, seconds, 1 / rate) + random.uniform(0, 0.01, int(np.ceil(seconds * rate)))
    run = Run(came=arrivals.tolist())
    now = 0.0
    while True:
        number = int(np.searchsorted(arrivals, now, "right")) - 1
        if number < 0 or arrivals[number] in run.labelled[-1:]:  # nothing new: wait
            number += 1
        if number >= len(arrivals):
            return run
        now = max(now, float(arrivals[number]))
        size = keeper.voxel_size
        slow = 5 if random.random() < machine.slow else 1
        rest = machine.rest * machine.at_coarsest
        factor = load(now) * slow * random.lognormal(0, machine.noise)
        network = (machine.takes(size) - rest) * factor
        voxels = round(5000 * (FINEST / size) ** machine.exponent * random.uniform(0.97, 1.03))
        busy = network + rest * factor
        now += busy
        run.labelled.append(float(arrivals[number]))
        run.sizes.append(size)
        keeper.add(Timing(number, float(arrivals[number]), busy, network, voxels, size))


def settled(machine: Machine) -> float:
    """The mean time of a scan over that without noise."""
    return float(np.exp(machine.noise**2 / 2)) * (1 + 4 * machine.slow)


@st.composite
def machines(draw: st.DrawFn, fastest: float = 0.03, slowest: float = 0.2) -> Machine:
    """Voxels go with size^-0.7 to size^-1.9, as points lie on lines of a sparse lidar or cover surfaces."""
    at_finest, rest = draw(st.floats(fastest, slowest)), draw(st.floats(0.0, 0.5))
    fewer = 2 ** draw(st.floats(0.7, 1.9))
    return Machine(
        at_finest,
        at_coarsest=at_finest / (rest + (1 - rest) * fewer),
        rest=rest,
        noise=draw(st.floats(0.0, 0.2)),
        slow=draw(st.sampled_from([0.0, 0.02])),
        seed=draw(st.integers(0, 2**16)),
    )


@given(machines())
@settings(max_examples=50)
def test_holds_the_rate_wherever_the_coarsest_voxels_do(machine: Machine) -> None:
    run = drive(machine, 120)
    assert all(FINEST <= size <= COARSEST for size in run.sizes)
    if machine.at_coarsest * settled(machine) * TARGET < 0.85:
        assert run.share(30, 120) > 0.97 - 4 * machine.slow  # what is five times too slow costs four scans
    assert run.most_changes(60) <= 6
    assert sum(time > 60 for time in run.changes) <= 4
    ladder = sizes(FINEST)
    index = ladder.index(run.sizes[-1])
    if index >= 2:  # no coarser than it must be
        assert machine.takes(ladder[index - 2]) * settled(machine) * TARGET > 0.75


@given(machines(fastest=0.01, slowest=0.65 / TARGET), st.floats(1.2, 5.0))
@settings(max_examples=30)
def test_returns_to_the_size_of_the_bundle_when_the_load_ends(machine: Machine, load: float) -> None:
    run = drive(machine, 160, load=lambda time: load if 10 < time < 60 else 1.0)
    if machine.at_finest * load * TARGET > 1.1:
        assert max(run.sizes) > FINEST
    last = [size for time, size in zip(run.labelled, run.sizes, strict=True) if time > 100]
    if machine.slow:  # some machine has four slow scans together at some time, and 10 s of coarser voxels after them
        assert last.count(FINEST) > 0.6 * len(last)
    else:
        assert set(last) == {FINEST}
    assert run.most_changes(60) <= 6


@given(machines(fastest=0.01, slowest=0.8 / TARGET))
@settings(max_examples=20)
def test_single_slow_scans_change_nothing(machine: Machine) -> None:
    """One in twenty takes ten times as long, never two in a row."""
    number = iter(range(10**6))
    quiet = replace(machine, slow=0.0, noise=min(machine.noise, 0.1))
    run = drive(quiet, 60, load=lambda _: 10.0 if next(number) % 20 == 7 else 1.0)
    assert set(run.sizes) == {FINEST}


def test_a_slower_lidar_leaves_more_time() -> None:
    """85 ms a scan are too much at 15 Hz and enough for a lidar of 10 Hz, whatever came in between."""
    machine = Machine(at_finest=0.085, at_coarsest=0.04, noise=0.03)
    assert set(drive(machine, 60, rate=10).sizes) == {FINEST}
    assert max(drive(machine, 60, rate=15).sizes) > FINEST
    assert max(drive(machine, 60, rate=40).sizes) > FINEST  # 15 of the 40 are asked for
    keeper = RateKeeper(FINEST, TARGET)
    drive(machine, 20, rate=10, keeper=keeper)
    for number, pause in ((200, 30.0), (201, 30.1), (202, 30.2)):  # a bag that starts again
        keeper.add(Timing(number, pause, 0.085, 0.07, 5000, FINEST))
    assert keeper.budget == pytest.approx(0.1, rel=0.1)
    assert keeper.changes == 0


def test_says_when_even_the_coarsest_voxels_take_too_long() -> None:
    keeper = RateKeeper(FINEST, TARGET)
    assert keeper.state == "fine" and np.isnan(keeper.load)
    run = drive(Machine(at_finest=0.3, at_coarsest=0.12), 30, keeper=keeper)
    assert run.sizes[-1] == COARSEST and keeper.state == "too slow"
    assert len(run.changes) == keeper.changes == 1, "it goes there at once, not through sizes that cannot do"
    assert keeper.load == pytest.approx(0.12 * TARGET, rel=0.2)
    for number in range(1000, 1010):  # the load ends
        keeper.add(Timing(number, 30 + number / TARGET, 0.01, 0.01, 2000, COARSEST))
    assert keeper.state == "coarse"


def test_little_to_spare_is_not_too_slow() -> None:
    keeper = RateKeeper(COARSEST, TARGET)
    run = drive(Machine(at_finest=0.95 / TARGET, at_coarsest=0.95 / TARGET, noise=0.0), 30, keeper=keeper)
    assert keeper.state == "fine" and run.share(0, 30) > 0.99


def test_off_means_the_voxels_of_the_bundle() -> None:
    keeper = RateKeeper(FINEST, 0)
    assert set(drive(Machine(at_finest=0.3, at_coarsest=0.12), 10, keeper=keeper).sizes) == {FINEST}
    assert keeper.state == "off" and keeper.budget == np.inf
    keeper.target_rate_hz = TARGET
    drive(Machine(at_finest=0.3, at_coarsest=0.12), 10, keeper=keeper)
    assert keeper.voxel_size == COARSEST
    keeper.target_rate_hz = 0  # while it runs
    assert keeper.voxel_size == FINEST
    keeper.add(Timing(10**6, 1e3, 0.01, 0.01, 5000, COARSEST))
    keeper.target_rate_hz = TARGET
    assert keeper.voxel_size == FINEST


TIMES = st.floats(0, 1e3)
TIMINGS = st.tuples(TIMES, TIMES, st.integers(0, 10**6), st.floats(1e-6, 10), st.integers(1, 50))


@given(st.floats(0.001, 1.0), st.floats(0.01, 1e3), st.lists(TIMINGS, max_size=80))
@settings(max_examples=100)
def test_never_leaves_its_bounds(
    finest: float, target: float, timings: list[tuple[float, float, int, float, int]]
) -> None:
    keeper = RateKeeper(finest, target)
    number, arrival = 0, 0.0
    for network, rest, voxels, gap, skipped in timings:
        number, arrival = number + skipped, arrival + gap
        keeper.add(Timing(number, arrival, network + rest, network, voxels, keeper.voxel_size))
        assert finest <= keeper.voxel_size <= max(finest, COARSEST)
        assert keeper.budget >= 1 / target
        assert keeper.state in ("fine", "coarse", "too slow")


@given(st.floats(0.005, 0.5))
def test_sizes_rise_in_small_steps(finest: float) -> None:
    ladder = sizes(finest)
    assert ladder[0] == finest and ladder == sorted(set(ladder))
    assert ladder[-1] == max(finest, COARSEST)
    assert all(after <= before * STEP + 0.001 for before, after in pairwise(ladder))
    assert all(float(f"{size:.3f}") == size for size in ladder[1:]), "as ~/scan_info tells them"

"""Rivals in turns, and how quiet the machine is meanwhile."""

import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

TURNS = 15  # at most
LONG = 2000.0  # milliseconds; what takes longer is not run unmeasured first
QUICK = 200.0  # milliseconds; what is quicker runs once unmeasured before each turn, as caches are in steady work
PAUSE = 0.02  # seconds between runs: threads of a library that still look for work get none from the next one's cores
BUSY = 0.05  # share of the processors taken by others that spoils figures


class Run(NamedTuple):
    """One run: milliseconds, and what came of it."""

    ms: float
    result: Any


def race(
    rivals: Mapping[str, Callable[[], Any]], seconds: float, failed: Callable[[str, Exception], None]
) -> dict[str, list[Run]]:
    """The runs of each rival, which take turns for about so many seconds, one turn at least.

    What disturbs one disturbs all. A rival's first run counts only where it is a long one; one that fails is out of the
    race, with all its runs, and `failed` is called.
    """
    end = time.perf_counter() + seconds
    runs: dict[str, list[Run]] = {}
    warm_up: dict[str, Run] = {}
    for name, run in rivals.items():
        try:
            warm_up[name] = _time(run)
        except Exception as error:  # noqa: PERF203
            failed(name, error)
    for turn in range(TURNS):
        began = time.perf_counter()
        for name in list(warm_up):
            if turn == 0 and warm_up[name].ms > LONG:
                runs[name] = [warm_up[name]]
                continue
            time.sleep(PAUSE)
            try:
                if warm_up[name].ms < QUICK:
                    rivals[name]()
                runs.setdefault(name, []).append(_time(rivals[name]))
            except Exception as error:
                del warm_up[name]
                runs.pop(name, None)
                failed(name, error)
        now = time.perf_counter()
        if now + max(now - began, 1e-3 * sum(first.ms for first in warm_up.values())) > end:
            break
    return runs


def _time(run: Callable[[], Any]) -> Run:
    start = time.perf_counter()
    result = run()
    return Run(1e3 * (time.perf_counter() - start), result)


@contextmanager
def watch() -> Iterator[Callable[[], float]]:
    """Gives the share of all processors that other programs and other guests of the host took since then, 0..1."""
    before = _seconds()

    def others() -> float:
        total, idle, ours = _seconds() - before
        return float(max(0.0, (total - idle - ours) / total)) if total > 0 else 0.0

    yield others


def share_of_others() -> float:
    """Share of all processors that others take while this process does nothing, 0..1."""
    with watch() as taken:
        time.sleep(1)
        return taken()


def _seconds() -> npt.NDArray[np.float64]:
    """Of all processors together, of those the idle ones, and of this process and its children that have ended."""
    every = psutil.cpu_times()._asdict()
    total = sum(value for name, value in every.items() if not name.startswith("guest"))  # which user has, too
    return np.array([total, every["idle"] + every.get("iowait", 0.0), sum(os.times()[:4])])


def machine(threads: int, packages: Iterable[str]) -> dict[str, Any]:
    """The machine and software that figures were measured with; `packages`: further ones whose versions matter."""
    names = dict.fromkeys(("numpy", "numba", "torch", *sorted(packages)))
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in names if (found := _version(name))},
        "load_average": round(os.getloadavg()[0], 2),
    }


def processor() -> str:
    """Name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""

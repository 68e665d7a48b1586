"""Rivals in turns, and how quiet the machine is meanwhile."""

import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

TURNS = 15  # at most
LONG = 2000.0  # milliseconds; what takes longer is not run in vain
QUICK = (
    200.0  # milliseconds; what is quicker runs once unmeasured before each turn, so that caches are as in steady work
)
PAUSE = 0.02  # seconds between runs: threads of a library that still look for work get none from the next one's cores
BUSY = 0.05  # share of the processors taken by others that spoils figures
PACKAGES = ("numpy", "numba", "torch", "openvino", "onnxruntime", "tensorrt")


class Run(NamedTuple):
    """One run: milliseconds, and what came of it."""

    ms: float
    result: Any


def race(
    rivals: Mapping[str, Callable[[], Any]], seconds: float, failed: Callable[[str, Exception], None]
) -> dict[str, list[Run]]:
    """The runs of each rival, which take turns for about so many seconds, one turn at least.

    What disturbs one disturbs all. A rival's first run counts only where it is a long one; one that fails is out of the
    race, with all its runs, and `failed` is told.
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
def watch() -> Iterator[Callable[[], float | None]]:
    """Gives the share of all processors that other programs and other guests of the host took since then, 0..1.

    None where the system does not tell.
    """
    before = _ticks()

    def others() -> float | None:
        after = _ticks()
        if before is None or after is None or after[0] <= before[0]:
            return None
        total, idle, ours = (b - a for a, b in zip(before, after, strict=True))
        return max(0.0, (total - idle - ours) / total)

    yield others


def idle_share_taken(seconds: float = 1.0) -> float | None:
    """Share of all processors that others take while this process does nothing, 0..1; None where it is not known."""
    with watch() as taken:
        time.sleep(seconds)
        return taken()


def _ticks() -> tuple[float, float, float] | None:
    """Clock ticks of all processors, those idle, and those of this process and of its children that have ended."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    times = os.times()
    ours = times.user + times.system + times.children_user + times.children_system
    return float(sum(fields)), float(fields[3] + fields[4]), ours * os.sysconf("SC_CLK_TCK")


def machine(threads: int) -> dict[str, Any]:
    """What a figure needs beside it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "memory_gb": round(memory, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "load_average": round(os.getloadavg()[0], 2),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())

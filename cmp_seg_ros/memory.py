"""Memory of a process."""

from pathlib import Path

import psutil


def resident_mb(pid: int | None = None) -> float:
    """Resident memory of a process in MiB, by default of this one; NaN if it has ended."""
    try:
        return float(psutil.Process(pid).memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return float("nan")


def peak_mb(pid: int | str = "self") -> float:
    """Peak resident memory of a process in MiB; NaN if the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), float("nan"))

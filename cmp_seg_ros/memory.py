"""Memory of a process."""

import ctypes
from contextlib import suppress
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


def keep_freed(blocks: int = 2**31 - 1, total: int = 2**31 - 1) -> None:
    """Let glibc keep freed memory for the next allocation, where it is the C library.

    By default it returns large blocks to the system and asks for them again. The page faults then take half of the
    time of a training step on some machines, and 2.7 ms of a scan from one serialised cloud of 16 x 1024 points to the
    other.

    Args:
        blocks: bytes of the largest block that is kept; an older glibc takes no more than 32 MiB.
        total: bytes of all free memory that are kept.
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(mmap_threshold, blocks)
        library.mallopt(trim_threshold, total)

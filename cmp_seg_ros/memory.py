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


def keep_freed() -> None:
    """Let glibc keep freed memory for the next allocation, where it is the C library.

    By default it returns large blocks to the system and asks for them again: each training step then touches gigabytes
    of new pages, which takes half of its time on some machines.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
            library.mallopt(option, 2**31 - 1)


_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h

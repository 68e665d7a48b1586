"""Memory of a process."""

from pathlib import Path


def resident_mb(pid: int | str = "self") -> float:
    """Resident memory of a process now; NaN where the system does not tell."""
    return _status(pid, "VmRSS")


def peak_mb(pid: int | str = "self") -> float:
    """The most that was resident since the process began; NaN where the system does not tell."""
    return _status(pid, "VmHWM")


def _status(pid: int | str, name: str) -> float:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return float("nan")

"""What a node needs of its process before it starts."""

import contextlib
import fcntl
import os
import re
import tempfile
from pathlib import Path

import filelock

from cmp_seg_ros import resources
from cmp_seg_ros.errors import UserError

PROFILES = "config/fastdds.xml"
VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"
OLD_VARIABLE = "FASTRTPS_DEFAULT_PROFILES_FILE"  # of Fast DDS 2.x; newer ones warn about it
OLD_DISTRIBUTIONS = ("humble", "iron", "jazzy")
SHARED_MEMORY = Path("/dev/shm")
SEGMENT_LOCK = re.compile(r"fast(dds|rtps)_[0-9a-f]{16}_el")  # beside a segment, locked as long as its owner lives


def prepare() -> None:
    """Point Fast DDS to the profile for large messages, where the user gave none. Call before `rclpy.init`.

    With the middleware's defaults clouds of a megabyte get lost. Other middlewares ignore the variable. The shared
    memory of that profile is large enough to miss what killed processes left behind, so it is freed, too.
    """
    free_dead_segments()
    if not os.environ.get(variable()):
        os.environ[variable()] = str(resources.resource(PROFILES))


def variable() -> str:
    """The one that Fast DDS of this distribution reads."""
    return OLD_VARIABLE if os.environ.get("ROS_DISTRO") in OLD_DISTRIBUTIONS else VARIABLE


def free_dead_segments(folder: Path = SHARED_MEMORY) -> int:
    """Remove the shared memory of processes that were killed, as `fastdds shm clean` does. Returns how many segments.

    Fast DDS leaves 64 MB behind with every process that dies without saying so. Whoever still reads a segment keeps it
    until he is done. What belongs to other users stays.
    """
    removed = 0
    for lock in folder.iterdir() if folder.is_dir() else ():
        if not SEGMENT_LOCK.fullmatch(lock.name):
            continue
        with contextlib.suppress(OSError), lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails where the owner lives
            lock.with_name(lock.name.removesuffix("_el")).unlink(missing_ok=True)
            lock.unlink()
            removed += 1
    return removed


class Domain:
    """A ROS domain (`number`) that no other of our programs on this machine uses until it is released."""

    def __init__(self) -> None:
        first = os.getpid()  # where the lock's folder is not shared, two will hardly begin with the same
        for number in (1 + (first + i) % 100 for i in range(100)):
            lock = filelock.FileLock(Path(tempfile.gettempdir()) / f"cmp_seg_ros_domain_{number}.lock")
            with contextlib.suppress(OSError):  # somebody else's
                lock.acquire(timeout=0)
                self.number, self._lock = number, lock
                return
        raise UserError("all ROS domains from 1 to 100 are in use by runs like this one; wait until some have ended")

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()

"""Cache of the engines built for this machine, and of the results of their checks.

A file's name states what it was built from and for; if any of that changes, another file is built. Files begin with a
checksum of name and content: a damaged file, or a renamed one, is rebuilt. Files are written atomically, and if two
processes need the same engine, one builds it while the other waits. If the cache is not writable, the engine is built
in memory at every start, with a warning.
"""

import hashlib
import logging
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import filelock
import llvmlite.binding as llvm

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels.launch import cache_folder
from cmp_seg_ros.outputs import try_writing, write_whole

CHECKSUM = 32  # bytes of a SHA-256
REMEDY = "free some space, or set XDG_CACHE_HOME to a writable folder"
UNUSED = 60 * 86400.0  # seconds; files unused for longer are deleted when another engine is built

PROGRESS = {"progress": True}  # `extra` of log records that are warnings only to explain a long wait

logger = logging.getLogger(__name__)


class Key(NamedTuple):
    """Everything that a built engine depends on.

    Args:
        bundle: hash of the bundle.
        runtime: name of the engine.
        version: of the runtime.
        sources: digest of our code that builds it.
        precision: of the matrix products.
        hardware: that it was built for.
    """

    bundle: str
    runtime: str
    version: str
    sources: str
    precision: str
    hardware: str

    def __str__(self) -> str:
        return "-".join(re.sub(r"[^\w.]+", "_", part) for part in self)


class Kept(NamedTuple):
    """Content of a built engine, and whether this call built it."""

    content: bytes
    built: bool


def folder() -> Path:
    """$XDG_CACHE_HOME/cmp_seg_ros/engines"""
    return cache_folder().parent / "engines"


def path_of(key: Key) -> Path:
    return folder() / f"{key}.engine"


def obtain(key: Key, build: Callable[[], bytes], fresh: bool = False, must_keep: bool = False) -> Kept:
    """The built engine, from the cache if it is there and undamaged.

    Args:
        key: of the engine.
        build: builds it; may take minutes.
        fresh: build it even if the cache has it.
        must_keep: whether failing to write the cache is an error instead of a warning.

    Raises:
        UserError: the engine must be kept and cannot be; also what `build` raises.
    """
    path = path_of(key)
    if not fresh and (found := _read(path, key)) is not None:
        return Kept(found, False)
    try:
        lock = _locked(path)
    except (OSError, NotImplementedError) as error:  # a folder that cannot be written, a file system without locks
        _cannot_keep(error, must_keep)
        return Kept(_timed(key, build), True)
    with lock:
        if not fresh and (found := _read(path, key)) is not None:  # built by another process meanwhile
            return Kept(found, False)
        built = _timed(key, build)
        try:
            write_whole(path, _checksum(key, built) + built)
            _prune()
        except OSError as error:
            _cannot_keep(error, must_keep)
    return Kept(built, True)


def require_writable(kept_in: Path) -> None:
    """Check, before long work, that results can be kept in a folder. Raises UserError if it is not writable."""
    try:
        kept_in.mkdir(parents=True, exist_ok=True)
        try_writing(kept_in)
    except OSError as error:
        raise UserError(f"cache folder {kept_in} is not writable: {error.strerror or error}; {REMEDY}") from error


def remember(key: Key, about: str, found: bytes) -> None:
    """Store a result about an engine, if the cache is writable."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
        write_whole(folder() / f"{key}.{about}.json", found)
    except OSError as error:
        logger.info("the check of %s cannot be stored in %s: %s", key, folder(), error)


def recall(key: Key, about: str) -> bytes:
    """What `remember` stored; empty if it is missing."""
    try:
        return _use(folder() / f"{key}.{about}.json")
    except OSError:
        return b""


@cache
def processor() -> str:
    """This machine's processor: its name and a digest of its features."""
    features = ",".join(name for name, there in sorted(llvm.get_host_cpu_features().items()) if there)
    return f"{llvm.get_host_cpu_name()}.{hashlib.sha256(features.encode()).hexdigest()[:6]}"


def _timed(key: Key, build: Callable[[], bytes]) -> bytes:
    start = time.monotonic()
    logger.warning("building engine %s %s for this machine, once", key.runtime, key.precision, extra=PROGRESS)
    built = build()
    logger.info("built engine %s %s in %.1f s", key.runtime, key.precision, time.monotonic() - start)
    return built


def _checksum(key: Key, built: bytes) -> bytes:
    return hashlib.sha256(str(key).encode() + built).digest()


def _read(path: Path, key: Key) -> bytes | None:
    """Content of the file; None if it is missing, damaged or of another key."""
    try:
        content = _use(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("%s cannot be read and is rebuilt: %s", path, error)
        return None
    built = content[CHECKSUM:]
    if content[:CHECKSUM] == _checksum(key, built):
        return built
    logger.warning("%s is damaged, or belongs to another engine, and is rebuilt", path)
    return None


def _use(path: Path) -> bytes:
    """Content of a file; updates its time, since `_prune` deletes unused files. Raises OSError."""
    content = path.read_bytes()
    with suppress(OSError):  # the file may belong to another user
        os.utime(path)
    return content


def _prune() -> None:
    """Delete what was not used for long: of bundles that are gone, of older versions."""
    oldest = time.time() - UNUSED
    kernels = set(cache_folder().parent.glob("kernels-*")) - {cache_folder()}
    for path in [*kernels, *folder().iterdir()]:
        with suppress(OSError):  # another process may be as tidy
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                logger.info("%s was not used for long and is deleted", path)


def _cannot_keep(error: Exception, must_keep: bool) -> None:
    what = f"the engine cannot be kept in {folder()}: {getattr(error, 'strerror', None) or error}"
    if must_keep:
        raise UserError(f"{what}; {REMEDY}") from error
    logger.warning("%s; it is built at every start. To mend this, %s", what, REMEDY)


def _locked(path: Path) -> filelock.AcquireReturnProxy:
    """Inside, no other process builds the same. Raises OSError, or NotImplementedError, where there can be no lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path.with_suffix(".lock"))
    try:
        return lock.acquire(timeout=0)
    except filelock.Timeout:
        logger.warning("another process builds %s; waiting for it", path.name, extra=PROGRESS)
        return lock.acquire()

"""Compiles kernels and runs them on all cores.

A kernel is called once per thread, without the GIL, and takes its work block by block from shared counters. There is no
thread pool: threads end with the call, so kernels work together with fork, other threads and the pools of libraries.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from threading import Thread
from typing import Any

import numba
import numpy as np
import platformdirs
from llvmlite import ir
from numba import types

from cmp_seg_ros.kernels import COMPILING

# Untyped, since numba's annotations differ by version and do not describe its decorators.
njit: Any = numba.njit
intrinsic: Any = numba.extending.intrinsic
config: Any = numba.config

MAX_THREADS = 16  # the phases of a scan are too short for more
SPINS = 1000  # checks of a barrier before the thread yields
COUNTERS = 16  # int64 per phase: blocks taken and, on another cache line, threads that are done
ARRIVED = 8

Function = Callable[..., Any]


def kernel(function: Function) -> Function:
    """Compile `function` on its first call, or load it from the cache."""
    return _compile(function)


def inlined(function: Function) -> Function:
    """As `kernel`, for functions called in an innermost loop."""
    return _compile(function, forceinline=True)


def reduction(function: Function) -> Function:
    """As `inlined`, for sums whose terms may be added in any order, as vectors need it."""
    return _compile(function, forceinline=True, fastmath={"contract", "reassoc"})


def threads() -> int:
    """Number of threads of a launch: the processors available to this process, or OMP_NUM_THREADS."""
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(MAX_THREADS, int(limit) if limit.isdigit() and int(limit) else len(os.sched_getaffinity(0)))


def launch(function: Function, *args: Any, blocks: int, phases: int = 1) -> None:
    """Run `function(*args, sync, threads)` on `threads()` threads, at most `blocks`.

    sync: (phases, COUNTERS) int64, for `next_block` and `barrier`.
    """
    count = max(1, min(threads(), blocks))
    share = partial(function, *args, np.zeros((phases, COUNTERS), dtype=np.int64), count)
    # Daemons: threads left waiting after a Ctrl-C do not keep the process alive.
    helpers = [Thread(target=share, daemon=True) for _ in range(count - 1)]
    for helper in helpers:
        helper.start()
    share()
    for helper in helpers:
        helper.join()


def compile_in_background(work: Callable[[], object]) -> None:
    """Run `work` in a thread named COMPILING and wait for it, so that Ctrl-C works although LLVM ignores it."""
    done: Future[None] = Future()

    def run() -> None:
        try:
            work()
            done.set_result(None)
        except BaseException as error:
            done.set_exception(error)

    Thread(target=run, name=COMPILING, daemon=True).start()
    done.result()


def is_cached(function: Function) -> bool:
    """Whether an earlier process has compiled the kernel."""
    return any(cache_folder().rglob(f"*.{function.__name__}-*.nbc"))


@cache
def cache_folder() -> Path:
    """Cache folder of compiled kernels and of the results of their checks; a new one when a kernel changes."""
    sources = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    folder = platformdirs.user_cache_path("cmp_seg_ros") / f"kernels-{hashlib.sha256(sources).hexdigest()[:12]}"
    with contextlib.suppress(OSError):
        os.utime(folder)  # mark as in use: unused files are deleted (engine/cache.py)
    return folder


def _compile(function: Function, **options: Any) -> Function:
    options = {"error_model": "numpy", "fastmath": {"contract"}, "nogil": True, "cache": True} | options
    with _cache_folder():
        try:
            compiled: Function = njit(**options)(function)
        except RuntimeError:  # no writable folder: compile in every process
            compiled = njit(**options | {"cache": False})(function)
    return compiled


@contextlib.contextmanager
def _cache_folder() -> Iterator[None]:
    """Make numba cache our kernels in our own folder: its own does not notice changes of kernels in other files."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_folder())
    try:
        yield
    finally:
        config.CACHE_DIR = before


@intrinsic
def _fetch_add(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], ir.IntType(64).as_pointer())
        return builder.atomic_rmw("add", pointer, ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.intp(types.intp), generate


@intrinsic
def _atomic_load(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(args[0], ir.IntType(64).as_pointer()), "acquire", 8)

    return types.intp(types.intp), generate


@intrinsic
def _yield(typing: Any) -> Any:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        name, kind = "sched_yield", ir.FunctionType(ir.IntType(32), [])
        builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


@kernel
def next_block(sync: Any, phase: int) -> int:
    """The next block of a phase: 0, 1, 2, ..., each returned once."""
    return _fetch_add(sync[phase].ctypes.data)


@kernel
def barrier(sync: Any, phase: int, threads: int) -> None:
    """Wait until all threads have reached this point."""
    arrived = sync[phase, ARRIVED:].ctypes.data
    _fetch_add(arrived)
    spins = 0
    while _atomic_load(arrived) < threads:
        spins += 1
        if spins > SPINS:
            _yield()

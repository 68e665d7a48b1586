"""Parallel map over worker processes that never outlive their parent."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread, Timer
from typing import Any, TypeVar

from cmp_seg_ros import interrupts
from cmp_seg_ros.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AHEAD = 4  # items per process submitted ahead of the results taken
RETRIES = 3  # of the items at work when a process was killed
PATIENCE = 1.0  # seconds that interrupted work has to stop before it is killed


class WorkerKilledError(UserError):
    """A worker process was killed, by the system or by somebody."""


def lasting_map(function: Callable[[T], R], items: Iterable[T], processes: int | None = None) -> Iterator[R]:
    """As `process_map`, for functions that may be called again: what a killed process left, others do again.

    Raises:
        UserError: processes are killed again and again.
    """
    left = deque(items)
    failures = 0
    while left:
        before = len(left)
        with suppress(WorkerKilledError) if failures < RETRIES else nullcontext():
            for result in process_map(function, tuple(left), processes):
                left.popleft()
                yield result
        failures = failures + 1 if len(left) == before else 0


def spread(function: Callable[[T], R], items: Sequence[T], processes: int, runner: str = "local") -> Iterator[R]:
    """Yield `function(item)` for each of `items`, computed by this process, by several, or on a Ray cluster.

    Killed workers' items are given to others, so that the function may be called again. Order holds only locally.

    Args:
        runner: "local" or "ray".

    Raises:
        UserError: Ray is not there; workers are killed again and again.
    """
    if runner == "ray":
        from cmp_seg_ros.ray_cluster import ray_map

        return ray_map(function, items, processes)
    return lasting_map(function, items, min(processes, len(items))) if processes > 1 else map(function, items)


def process_map(
    function: Callable[[T], R],
    items: Iterable[T],
    processes: int | None = None,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Generator[R, None, None]:
    """Yield `function(item)` for each of `items`, in order, computed by new processes (None: one per processor).

    Each process runs `initializer` first and uses one thread, since together they occupy all processors.
    After an exception, from an item or in the caller's loop, running items are interrupted and the others dropped.

    Raises:
        WorkerKilledError: a process was killed.
    """
    count = processes or len(os.sched_getaffinity(0))
    before = set(active_children())
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin, initargs=(initializer, initargs))
    waiting: deque[Future[R]] = deque()
    try:
        # The processes inherit both: numerical libraries read the variables when they are imported.
        with changed_environment(dict.fromkeys(THREADS, "1")), interrupts.blocked():
            for _ in range(count):  # each call starts a process
                pool.submit(os.getpid)
        for item in items:
            waiting.append(pool.submit(_work, function, item))
            if len(waiting) == AHEAD * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise WorkerKilledError(
            "a worker process was killed, probably out of memory; use fewer processes (taskset) to need less"
        ) from error
    except BaseException:
        _break_off(set(active_children()) - before)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _break_off(processes: Iterable[BaseProcess]) -> None:
    """Interrupt the processes; kill those that have not stopped soon, such as inside a long call of a C library."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGINT)

    def kill() -> None:
        for process in processes:
            process.kill()

    killing = Timer(PATIENCE, kill)
    killing.daemon = True
    killing.start()


# State of a worker process. Interrupts only stop the function at work, so that the pool's pipes and locks stay intact.
_at_work = False
_interrupted = False


def _begin(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    """Start a worker process that exits when its parent does, for whatever reason."""
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, _interrupt)
    interrupts.unblock()
    if initializer is not None:
        with suppress(KeyboardInterrupt):  # then no item is worked on either
            _work(initializer, *initargs)


def _interrupt(*_: object) -> None:
    global _interrupted
    _interrupted = True
    if _at_work:
        raise KeyboardInterrupt


def _work(function: Callable[..., R], *arguments: Any) -> R:
    global _at_work
    if _interrupted:
        raise KeyboardInterrupt
    _at_work = True
    try:
        return function(*arguments)
    finally:
        _at_work = False


@contextmanager
def changed_environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables inside the block; afterwards they are as before."""
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)

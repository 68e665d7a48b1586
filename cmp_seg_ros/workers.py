"""Work shared by processes that end with their parent, also when it is interrupted."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread, Timer
from typing import Any, TypeVar

from cmp_seg_ros import interrupts
from cmp_seg_ros.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AHEAD = 4  # items a process, at most, that are begun and whose results are not taken
PATIENCE = 1.0  # seconds, for work that was interrupted


def process_map(
    function: Callable[[T], R],
    items: Iterable[T],
    processes: int | None = None,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Generator[R, None, None]:
    """The results of `function` for each of `items`, in their order, by new processes (None: one a processor).

    Each computes on one thread, since together they fill the processors. `initializer` begins each.
    An exception, of an item or by whoever takes the results, ends it: what has begun is broken off, the rest dropped.
    Raises UserError where a process was killed.
    """
    count = processes or len(os.sched_getaffinity(0))
    before = set(active_children())
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin, initargs=(initializer, initargs))
    waiting: deque[Future[R]] = deque()
    try:
        with _one_thread(), interrupts.blocked():  # the processes inherit both
            for _ in range(count):  # each starts a process
                pool.submit(os.getpid)
        for item in items:
            waiting.append(pool.submit(_work, function, item))
            if len(waiting) == AHEAD * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process was killed from outside; is the memory full? With fewer processors (taskset) it needs less"
        ) from error
    except BaseException:
        _break_off(set(active_children()) - before)
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _break_off(processes: Iterable[BaseProcess]) -> None:
    """Interrupt them, and kill those that have not ended soon, in a call that hears of no interrupt."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid or 0, signal.SIGINT)

    def kill() -> None:
        for process in processes:
            process.kill()

    killing = Timer(PATIENCE, kill)
    killing.daemon = True
    killing.start()


# In a worker. An interrupt breaks off what is at work alone: the pool's own pipes and locks stay whole.
_at_work = False
_interrupted = False


def _begin(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    """Of a worker, which ends with its parent, however that ends."""
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, _interrupt)
    interrupts.unblock()
    if initializer is not None:
        with suppress(KeyboardInterrupt):  # then there is no item to come
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
def _one_thread() -> Iterator[None]:
    """By the environment, which numerical libraries read when they are imported."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value

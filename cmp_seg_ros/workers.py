"""Work shared by processes that end with their parent, also when it is interrupted."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AHEAD = 4  # items a process, at most, that are begun or wait


@dataclass(frozen=True)
class _End:
    error: BaseException | None = None


def process_map(
    function: Callable[[T], R],
    items: Iterable[T],
    processes: int | None = None,
    initializer: Callable[..., None] | None = None,
    initargs: tuple[Any, ...] = (),
) -> Generator[R, None, None]:
    """The results of `function` for each of `items`, in their order, by new processes (None: one a processor).

    Each computes on one thread, since together they fill the processors. `initializer` begins each.
    An exception, of an item or by whoever takes the results, ends it: what has begun is waited for, the rest dropped.
    After a second interrupt nothing is waited for.

    A Ctrl-C reaches every process of the terminal: the workers pass over it, so that the parent alone decides. Python
    raises it in the main thread, anywhere, and so perhaps between the taking of a lock and what would give it back.
    Hence the pool is left to another thread; the main thread shares nothing with it but a queue without such a gap.
    """
    count = processes or os.cpu_count() or 1
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=initializer, initargs=initargs)
    results: SimpleQueue[R | _End] = SimpleQueue()
    thread = Thread(target=_feed, args=(pool, count, function, items, results), name="workers")
    try:
        with _interrupts_blocked():  # the thread inherits that, and its processes from it
            thread.start()
        while not isinstance(result := results.get(), _End):
            yield result
        if result.error is not None:
            raise result.error
    finally:
        try:
            pool.shutdown(cancel_futures=True)
            if thread.is_alive():  # else interrupted before its start
                thread.join()
        except KeyboardInterrupt:  # the second: whoever sends it does not want to wait for the work that has begun
            for child in active_children():
                child.kill()
            raise


def _feed(
    pool: ProcessPoolExecutor,
    count: int,
    function: Callable[[T], R],
    items: Iterable[T],
    results: "SimpleQueue[R | _End]",
) -> None:
    waiting: deque[Future[R]] = deque()
    try:
        with _one_thread():
            for _ in range(count):  # each starts a process
                pool.submit(os.getpid)
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= AHEAD * count:
                results.put(waiting.popleft().result())
        while waiting:
            results.put(waiting.popleft().result())
        results.put(_End())
    except BaseException as error:
        results.put(_End(error))


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


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

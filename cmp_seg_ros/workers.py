"""Worker processes that end with their parent, also when it is interrupted."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@contextmanager
def workers(
    count: int | None = None, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` processes (None: one a processor). An exception drops the work that has not begun.

    Each computes on one thread, since together they fill the processors.
    After a second interrupt the work that has begun is not waited for.
    A Ctrl-C reaches every process of the terminal: the workers pass over it, so that the parent alone decides.
    """
    count = count or os.cpu_count() or 1
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=initializer, initargs=initargs)
    try:
        with _interrupts_held_back(), _one_thread():  # inherited by the processes, and each of these starts one
            for _ in range(count):
                pool.submit(os.getpid)
        yield pool
    except BaseException:
        try:
            pool.shutdown(cancel_futures=True)
        except KeyboardInterrupt:  # the second: whoever sends it does not want to wait for the work that has begun
            for child in active_children():
                child.kill()
        raise
    pool.shutdown()


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
def _interrupts_held_back() -> Iterator[None]:
    """Processes started here never see an interrupt; the parent sees one at the end, however early it came.

    They inherit the signal mask. In the parent another thread may take the signal in spite of it, and Python would then
    interrupt the start of a process half-way.
    """
    came: list[int] = []
    in_main = threading.current_thread() is threading.main_thread()  # only there may a handler be set
    handler = signal.signal(signal.SIGINT, lambda number, _: came.append(number)) if in_main else None
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if in_main:
            signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)

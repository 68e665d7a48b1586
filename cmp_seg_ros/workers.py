"""Worker processes that end with their parent, also when it is interrupted."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any


@contextmanager
def workers(
    count: int | None = None, initializer: Callable[..., None] | None = None, initargs: tuple[Any, ...] = ()
) -> Iterator[ProcessPoolExecutor]:
    """A pool of `count` processes (None: one a processor). An exception drops the work that has not begun.

    A Ctrl-C reaches every process of the terminal: the workers pass over it, so that the parent alone decides.
    """
    count = count or os.cpu_count() or 1
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=initializer, initargs=initargs)
    try:
        with _interrupts_ignored():  # which a process inherits when it is started, and one starts for each of these
            for _ in range(count):
                pool.submit(os.getpid)
        yield pool
    except BaseException:
        pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only it may say so
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

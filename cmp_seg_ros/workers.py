"""Work shared by processes that end with their parent, also when it is interrupted."""

import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context, parent_process
from queue import SimpleQueue
from threading import Thread
from typing import Any, Generic, TypeVar

from cmp_seg_ros.errors import UserError

T = TypeVar("T")
R = TypeVar("R")

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
AHEAD = 4  # items a process, at most, that are begun and whose results are not taken


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
    After a second interrupt nothing is waited for. Raises UserError where a process was killed.

    A Ctrl-C reaches every process of the terminal: the workers pass over it, so that the parent alone decides. Python
    raises it in the main thread, anywhere, and so perhaps between the taking of a lock and what would give it back.
    Hence the pool is left to another thread; the main thread shares nothing with it but queues without such a gap.
    """
    count = processes or len(os.sched_getaffinity(0))
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_begin, initargs=(initializer, initargs))
    feeder = _Feeder(pool, count, function, items)
    feeder.start()
    try:
        while not isinstance(result := feeder.results.get(), _End):
            yield result
            feeder.room.put(None)
        if result.error is not None:
            raise result.error
    finally:
        feeder.wanted = False
        feeder.room.put(None)
        try:
            feeder.join()
        except KeyboardInterrupt:  # the second: whoever sends it does not want to wait for the work that has begun
            for child in active_children():
                child.kill()
            pool._result_queue._writer.close()  # type: ignore[attr-defined]  # else a result cut off is waited for
            raise


def _begin(initializer: Callable[..., None] | None, initargs: tuple[Any, ...]) -> None:
    """Of a worker, which ends with its parent, however that ends."""
    parent = parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class _Feeder(Thread, Generic[T, R]):
    """Hands items to a pool, and ends it.

    Attributes:
        results: in the order of the items, and an end.
        room: takes something for every result that was taken; only so many more items are begun.
        wanted: whether to go on.
    """

    def __init__(self, pool: ProcessPoolExecutor, count: int, function: Callable[[T], R], items: Iterable[T]) -> None:
        super().__init__(name="workers", daemon=True)  # a program that ends does not wait for all items
        self.results: SimpleQueue[R | _End] = SimpleQueue()
        self.room: SimpleQueue[None] = SimpleQueue()
        self.wanted = True
        self._pool, self._count, self._function, self._items = pool, count, function, items

    def run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the processes inherit it
        error = None
        try:
            self._work()
        except BaseException as raised:
            error = raised
        if isinstance(error, BrokenProcessPool):
            error = UserError(
                "a process was killed from outside; is the memory full? With fewer processors (taskset) it needs less"
            )
        self._pool.shutdown(cancel_futures=True)
        self.results.put(_End(error))

    def _work(self) -> None:
        with _one_thread():
            for _ in range(self._count):  # each starts a process
                self._pool.submit(os.getpid)
        for _ in range(AHEAD * self._count):
            self.room.put(None)
        waiting: deque[Future[R]] = deque()
        for item in self._items:
            while waiting and self.wanted and self.room.empty():
                self.results.put(waiting.popleft().result())
            self.room.get()
            if not self.wanted:
                return
            waiting.append(self._pool.submit(self._function, item))
        while waiting and self.wanted:
            self.results.put(waiting.popleft().result())


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

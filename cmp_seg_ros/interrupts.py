"""The one policy for Ctrl-C and SIGTERM.

The first signal ends a command within a second or two; finished work is kept. It raises KeyboardInterrupt, or, in work
that must not be cut (a training step), only sets a flag that the work checks. The second signal kills the process and
its workers immediately.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130  # exit status
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def handled(defer: bool = False) -> Iterator[list[int]]:
    """Apply the policy inside the block, then restore the previous handlers. Does nothing outside the main thread.

    Args:
        defer: do not raise KeyboardInterrupt; the block checks the list instead.

    Yields:
        The signals received so far, shared with enclosing blocks.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS} if current_thread() is main_thread() else {}
    handler = _Handler(defer, next((outer.received for outer in before.values() if isinstance(outer, _Handler)), []))
    before = {number: outer for number, outer in before.items() if outer not in (signal.SIG_IGN, None)}
    try:
        for number in before:  # ignored signals, as in background jobs, stay ignored
            signal.signal(number, handler)
        yield handler.received
    finally:
        for number, outer in before.items():
            signal.signal(number, outer)


@contextmanager
def explained(kept: str) -> Iterator[None]:
    """If the block is interrupted, print on stderr what is kept and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"stopped; {kept}", file=sys.stderr, flush=True)
        raise


def resumes(out: Path) -> str:
    """For `explained`: of a command that goes on where it was."""
    return f"finished work is kept in {out}; run the same command to continue"


@dataclass(frozen=True)
class _Handler:
    defer: bool
    received: list[int]

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.received.append(number)
        if len(self.received) > 1:
            _end_at_once()
        if not self.defer:
            raise KeyboardInterrupt


@contextmanager
def blocked() -> Iterator[None]:
    """Delay signals until the end of the block. Processes started inside inherit this until they call `unblock`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with handled(defer=True) as received:  # the mask is per thread, and another thread may receive the signal
            count = len(received)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if len(received) > count:
        raise KeyboardInterrupt


def block() -> None:
    """Ignore signals in a worker process that its parent ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock() -> None:
    """Receive signals again in a process that was started in `blocked`, pending ones included."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_at_once() -> None:
    for child in multiprocessing.active_children():
        child.kill()
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), SHOW_CURSOR)  # progress bars hide it
    os._exit(INTERRUPTED)

"""The one policy for Ctrl-C and SIGTERM.

The first ends a command within a second or two, and what is finished is kept: it is a KeyboardInterrupt, or, where work
must end whole (a step of training), it is looked at between the pieces. The second ends the process and its workers at
once.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import current_thread, main_thread
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130  # exit status
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def handled(defer: bool = False) -> Iterator[list[int]]:
    """The policy above; afterwards signals do again what they did before. Nothing but in the main thread.

    Args:
        defer: do not raise; whoever works looks whether the list is empty.

    Yields:
        A list that grows with each signal; that of the handling around this one, if there is any.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS} if current_thread() is main_thread() else {}
    handler = _Handler(defer, next((outer.received for outer in before.values() if isinstance(outer, _Handler)), []))
    before = {number: outer for number, outer in before.items() if outer not in (signal.SIG_IGN, None)}
    try:
        for number in before:  # those that are ignored, as of a job in the background, stay so
            signal.signal(number, handler)
        yield handler.received
    finally:
        for number, outer in before.items():
            signal.signal(number, outer)


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
    """Signals wait until the end. A process that is started meanwhile inherits that, until it says `unblock`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        with handled(defer=True) as received:  # another thread may get them for this one
            count = len(received)
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if len(received) > count:
        raise KeyboardInterrupt


def block() -> None:
    """In a worker that ends when its parent tells it to, and not by signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def unblock() -> None:
    """In a process that was started while signals were blocked: those that wait arrive now."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_at_once() -> None:
    for child in multiprocessing.active_children():
        child.kill()
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), SHOW_CURSOR)  # a progress bar had hidden it
    os._exit(INTERRUPTED)

"""The one policy for Ctrl-C and SIGTERM.

The first ends a command within a second or two, and what is finished is kept: it is a KeyboardInterrupt in the main
thread, or, where work must end whole (a step of training), it is looked at between the pieces. The second ends the
process and its workers at once.
"""

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130  # exit status
SHOW_CURSOR = b"\x1b[?25h"


@contextmanager
def handled(defer: bool = False) -> Iterator[list[int]]:
    """The policy above, in the main thread; afterwards signals do again what they did before.

    Args:
        defer: do not raise; whoever works looks whether the list is empty.

    Yields:
        A list that grows with each signal.
    """
    received: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            _end_at_once()
        if not defer:
            raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    try:
        for number in before:  # those that are ignored, as of a job in the background, stay so
            signal.signal(number, handle)
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def blocked() -> Iterator[None]:
    """Signals wait. A process that is started meanwhile inherits that, until it says `unblock`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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

"""Ctrl-C beside kernels: it breaks nothing off in the middle, and nothing waits for ever."""

import signal
import subprocess
import sys
import time
from threading import current_thread, main_thread

import pytest

from cmp_seg_ros.kernels.launch import aside

INTERRUPTED_AT_THE_START_OF_A_THREAD = """
import signal, sys, threading
from cmp_seg_ros.kernels import launch

@launch.kernel
def meet(sync, threads):
    launch.wait(sync, 0, threads)

launch.threads = lambda: 2
launch.launch(meet, blocks=2)  # compiled
start = threading.Thread.start

def interrupted(thread):
    start(thread)
    if threading.current_thread() is threading.main_thread():
        signal.raise_signal(signal.SIGINT)

threading.Thread.start = interrupted
try:
    launch.launch(meet, blocks=2)
except KeyboardInterrupt:
    sys.exit(threading.active_count())
"""


def test_an_interrupt_between_the_starts_of_threads_leaves_none_waiting() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT_THE_START_OF_A_THREAD], timeout=240, check=False)
    assert done.returncode == 1  # the main thread alone


def test_work_aside_is_waited_for_and_raises_what_it_raised() -> None:
    done = []
    aside(lambda: done.append(current_thread() is not main_thread()))
    assert done == [True]
    with pytest.raises(ZeroDivisionError):
        aside(lambda: 1 / 0)


def test_an_interrupt_waits_for_the_end_of_work_aside() -> None:
    done = []

    def work() -> None:
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.5)
        signal.pthread_kill(main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.5)  # without Python's lock, as kernels are
        done.append(True)

    with pytest.raises(KeyboardInterrupt):
        aside(work)
    assert done

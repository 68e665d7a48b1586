"""Ctrl-C beside kernels: the process ends."""

import subprocess
import sys

import pytest

from cmp_seg_ros.kernels.launch import compile_in_background

INTERRUPTED_AT_THE_START_OF_A_THREAD = """
import signal, sys, threading
from cmp_seg_ros.kernels import launch

@launch.kernel
def meet(sync, threads):
    launch.barrier(sync, 0, threads)

launch.threads = lambda: 2
launch.launch(meet, blocks=2)  # compiled
start = threading.Thread.start

def interrupted(thread):
    start(thread)
    signal.raise_signal(signal.SIGINT)

threading.Thread.start = interrupted
try:
    launch.launch(meet, blocks=2)
except KeyboardInterrupt:
    sys.exit(3)
"""


def test_a_thread_that_waits_for_others_keeps_no_process_alive() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED_AT_THE_START_OF_A_THREAD], timeout=240, check=False)
    assert done.returncode == 3


def test_what_compiling_raises_is_raised() -> None:
    done: list[int] = []
    compile_in_background(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        compile_in_background(lambda: 1 / 0)

"""An interrupted command takes its worker processes with it."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.workers import _interrupts_held_back, workers


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, pgrp = status.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(pgrp) == group and state != "Z":
            found.append(int(status.parent.name))
    return found


@pytest.mark.parametrize(
    "command",
    [["simulate", "--seconds", "60", "--processes", "2"], ["train", "waffleiron24-128"]],
    ids=["simulate", "train"],
)
def test_ctrl_c_ends_the_workers_too(tmp_path: Path, command: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "cmp_seg_ros.cli.main", *command, "--out", str(tmp_path / "out")],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # Where tests run in the background, SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # type: ignore[arg-type, return-value]
    )
    try:
        deadline = time.monotonic() + 60
        while len(members(process.pid)) < 4:  # the command, two workers, and what watches over their resources
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Traceback" not in said
        deadline = time.monotonic() + 10
        while members(process.pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)


def test_an_interrupt_while_workers_start_comes_when_they_have() -> None:
    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        reached.append("the kernel may give the signal to any thread")

    reached: list[str] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt), _interrupts_held_back():
            interrupt()
            other = threading.Thread(target=lambda: signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT}))
            other.start()
            other.join()
            interrupt()
            child = subprocess.run([sys.executable, "-c", "import os; os.kill(os.getpid(), 2)"], check=False)
        assert len(reached) == 2 and child.returncode == 0
        assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_each_worker_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with workers(1) as pool:
        assert pool.submit(threads).result() == 1
        assert pool.submit(os.getenv, "OPENBLAS_NUM_THREADS").result() == "1"
    assert os.environ["OMP_NUM_THREADS"] == "3" and "OPENBLAS_NUM_THREADS" not in os.environ

"""An interrupted command takes its worker processes with it."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cmp_seg_ros import interrupts, workers
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.workers import AHEAD, WorkerKilledError, lasting_map, process_map

PATIENCE = 240.0  # seconds; a few on an idle machine


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


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """A process with a group of its own, which is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, *command],
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where tests run in the background, SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # type: ignore[arg-type, return-value]
    )
    try:
        yield process
    finally:
        for pid in members(process.pid):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def at_work(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command, as soon as its workers are there."""
    with started("-m", "cmp_seg_ros.cli.main", *arguments) as process:
        # The command, a worker at least, and what watches over their resources.
        wait_until(lambda: process.poll() is not None or len(members(process.pid)) >= 3)
        yield process


def program(folder: Path, line: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """A line of Python under the policy for interrupts."""
    (folder / "program.py").write_text(
        "import signal, sys, time\nfrom cmp_seg_ros.interrupts import handled\n"
        "from cmp_seg_ros import workers\nfrom cmp_seg_ros.workers import process_map\n"
        f"if __name__ == '__main__':\n    try:\n        with handled():\n            {line}\n"
        "    except KeyboardInterrupt:\n        sys.exit(130)\n"
    )
    return started(str(folder / "program.py"))


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


SIMULATE = ("simulate", "--seconds", "60", "--processes", "2")


@pytest.mark.parametrize(
    ("command", "kill"),
    [
        (SIMULATE, lambda pid: os.killpg(pid, signal.SIGINT)),
        (("train", "waffleiron24-128"), lambda pid: os.kill(pid, signal.SIGTERM)),
    ],
    ids=["Ctrl-C", "SIGTERM"],
)
def test_ctrl_c_and_sigterm_end_the_workers_too(tmp_path: Path, command: tuple[str, ...], kill: Any) -> None:
    with at_work(*command, "--out", str(tmp_path / "out")) as process:
        assert process.poll() is None
        kill(process.pid)
        _, said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert "Traceback" not in said
        assert len(re.findall("^stopped.*run the same command", said, re.M)) == 1
        wait_until(lambda: not members(process.pid), 10)


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    with at_work(*SIMULATE, "--out", str(tmp_path / "out")) as process:
        process.kill()
        process.communicate(timeout=PATIENCE)
        wait_until(lambda: not members(process.pid))  # one that is starting looks for its parent when it has


def test_an_interrupt_breaks_off_what_has_begun(tmp_path: Path) -> None:
    """Though the workers hear nothing of it."""
    with program(tmp_path, "for _ in process_map(time.sleep, [0, *[300] * 9], 2): print(flush=True)") as process:
        assert process.stdout is not None
        process.stdout.readline()  # of the first
        os.kill(process.pid, signal.SIGINT)
        said = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130 and said == ("", "")
        wait_until(lambda: not members(process.pid), 10)


def test_signals_do_afterwards_what_they_did_before() -> None:
    before = [signal.getsignal(number) for number in interrupts.SIGNALS]
    with pytest.raises(KeyboardInterrupt), interrupts.handled() as received:
        with interrupts.blocked():
            os.kill(os.getpid(), signal.SIGTERM)
        pytest.fail("it was lost")
    assert received == [signal.SIGTERM]
    assert [signal.getsignal(number) for number in interrupts.SIGNALS] == before


def test_results_come_in_order_until_an_item_fails() -> None:
    results = process_map(int, ["1", "2", "x", "3"], 2)
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(ValueError, match="'x'"):
        next(results)


def test_a_worker_that_dies_is_an_error() -> None:
    with pytest.raises(UserError, match="a worker process was killed"):
        list(process_map(os._exit, [3], 1))


def test_nothing_goes_on_when_nobody_takes_the_results(tmp_path: Path) -> None:
    files = [tmp_path / str(i) for i in range(1000)]
    results = process_map(Path.touch, files, 1)
    next(results)
    results.close()
    assert len(list(tmp_path.iterdir())) <= AHEAD + 1
    assert not multiprocessing.active_children()


def test_each_worker_computes_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    assert list(process_map(threads_of, [0], 1)) == [(1, "1")]
    assert os.environ["OMP_NUM_THREADS"] == "3" and "OPENBLAS_NUM_THREADS" not in os.environ


def threads_of(_: int) -> tuple[int, str | None]:
    return threads(), os.getenv("OPENBLAS_NUM_THREADS")


def test_what_a_killed_process_left_is_done_by_others(tmp_path: Path) -> None:
    results = list(lasting_map(partial(killed_once, folder=tmp_path), range(6), 2))
    assert results == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "killed").exists()


def test_processes_that_are_killed_again_and_again_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "RETRIES", 1)
    with pytest.raises(WorkerKilledError, match="a worker process was killed"):
        list(lasting_map(_killed, range(2), 1))


def killed_once(number: int, folder: Path) -> int:
    if number == 3:
        with suppress(FileExistsError):
            (folder / "killed").touch(exist_ok=False)
            os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def _killed(number: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)

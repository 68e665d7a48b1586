"""How a node is run as a program: its log, its end, what signals do."""

import logging
import os
import re
import signal

import pytest
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.ros import runner


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")


class Program(Node):
    """Does something once, in a callback."""

    def __init__(self, what) -> None:
        super().__init__("program")
        self.done: int | None = None
        self.ended: list[str] = []
        self.create_timer(0.01, lambda: what(self))

    def configure(self) -> None:
        pass

    def close(self) -> None:
        self.ended.append("closed")

    def destroy_node(self) -> None:
        self.ended.append("destroyed")
        super().destroy_node()


def test_records_of_any_severity_become_log_lines(capfd):
    def log(program):
        for level in (logging.WARNING, logging.INFO, logging.ERROR, logging.DEBUG, logging.INFO):
            logging.getLogger("cmp_seg_ros.anything").log(level, "level %d", level)
        program.done = 0

    assert runner.run("program", lambda: Program(log), []) == 0
    err = capfd.readouterr().err
    assert err.count("[INFO]") == 2 and err.count("[WARN]") == 2
    assert "[program]: level 40" in err and "level 10" not in err
    assert not [h for h in logging.getLogger("cmp_seg_ros").handlers if isinstance(h, runner._ToRos)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_the_program_well(number, monkeypatch):
    monkeypatch.setattr(
        SingleThreadedExecutor, "shutdown", lambda self: programs[0].ended.append("let go by its executor")
    )
    before = signal.getsignal(number)
    programs = []

    def make():
        programs.append(Program(lambda _: os.kill(os.getpid(), number)))
        return programs[0]

    assert runner.run("program", make, []) == 0
    assert programs[0].ended == ["closed", "let go by its executor", "destroyed"]
    assert signal.getsignal(number) is before


def test_a_signal_while_it_starts():
    def make():
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("the start goes on")

    assert runner.run("program", make, []) == 0


def test_what_the_user_can_mend_is_one_line(capfd):
    def make():
        raise UserError("the bag is empty; record another")

    assert runner.run("program", make, []) == 1
    assert re.fullmatch(r"\[FATAL\] .*\[program\]: the bag is empty; record another\n", capfd.readouterr().err)

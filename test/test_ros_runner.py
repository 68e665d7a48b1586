"""How a node is run as a program: its log, and what the user can mend."""

import logging
import re

import pytest
from rclpy.node import Node

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.ros import runner


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "OFF")


class Logging(Node):
    """Logs a record of every severity, and is done."""

    def __init__(self) -> None:
        super().__init__("program")
        self.done: int | None = None

    def configure(self) -> None:
        self.create_timer(0.01, self.log)

    def log(self) -> None:
        for level in (logging.WARNING, logging.INFO, logging.ERROR, logging.DEBUG, logging.INFO):
            logging.getLogger("cmp_seg_ros.anything").log(level, "level %d", level)
        self.done = 0

    def close(self) -> None:
        pass


def test_records_of_any_severity_become_log_lines(capfd):
    assert runner.run("program", Logging, []) == 0
    err = capfd.readouterr().err
    assert err.count("[INFO]") == 2 and err.count("[WARN]") == 2
    assert "[program]: level 40" in err and "level 10" not in err
    assert not [h for h in logging.getLogger("cmp_seg_ros").handlers if isinstance(h, runner._ToRos)]


def test_what_the_user_can_mend_is_one_line(capfd):
    def make():
        raise UserError("the bag is empty; record another")

    assert runner.run("program", make, []) == 1
    assert re.fullmatch(r"\[FATAL\] .*\[program\]: the bag is empty; record another\n", capfd.readouterr().err)

"""Counters that never lose a scan, from several threads; percentiles; throttled messages."""

import threading
import time
from unittest.mock import MagicMock

import pytest
from builtin_interfaces.msg import Time
from hypothesis import given
from hypothesis import strategies as st

from cmp_seg_ros.ros import diagnostics
from cmp_seg_ros.ros.diagnostics import WARN, Tally, Throttle
from cmp_seg_ros.ros.report import Problem, Report

EVENTS = st.lists(st.sampled_from(["receive", "supersede", "publish", "malformed"]), max_size=60)


@given(EVENTS)
def test_received_is_published_and_dropped_and_pending(events):
    tally, pending, number = Tally(), 0, 0
    for event in events:
        if event in ("receive", "supersede"):
            superseded = event == "supersede" and pending > 0
            assert tally.receive(superseded) == number
            number += 1
            pending += not superseded
        elif pending:
            pending -= 1
            tally.publish({"total": 1.0}) if event == "publish" else tally.drop(event)
        values, dropped, _ = tally.snapshot()
        assert values["in"] == values["out"] + values["dropped"] + values["pending"] == number
        assert values["pending"] == pending
        assert sum(dropped.values()) == values["dropped"]


def test_counters_hold_under_threads():
    tally = Tally()

    def work():
        for _ in range(500):
            tally.receive(superseded=False)
            tally.publish({"network": 2.0})
            tally.note("odd")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    values, _, _ = tally.snapshot()
    assert (values["in"], values["out"], values["pending"], values["note.odd"]) == (2000, 2000, 0, 2000)


def test_percentiles_and_flat_keys():
    tally = Tally()
    for milliseconds in range(1, 101):
        tally.receive(superseded=False)
        tally.publish({"total": float(milliseconds)})
    tally.receive(superseded=False)
    tally.drop("empty")
    flat, _, _ = tally.snapshot()
    assert flat["ms.total.p50"] == pytest.approx(50.5)
    assert flat["ms.total.p99"] == pytest.approx(99.01)
    assert (flat["in"], flat["out"], flat["dropped"], flat["dropped.empty"], flat["pending"]) == (101, 100, 1, 1, 0)


def test_status_can_be_read_back():
    message = diagnostics.status(
        "node: scans", diagnostics.WARN, "odd", "os1", {"in": 3, "rate_hz": 9.87654, "x": None}
    )
    assert diagnostics.values(message) == {"in": "3", "rate_hz": "9.877", "x": ""}
    assert (message.level, message.name, message.hardware_id) == (diagnostics.WARN, "node: scans", "os1")


def test_throttle_lets_each_reason_pass_now_and_then(monkeypatch):
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    throttle = Throttle(period=10.0)
    assert throttle("a") == 0
    assert throttle("a") is None and throttle("a") is None
    assert throttle("b") == 0
    now = 111.0
    assert throttle("a") == 2
    assert throttle("a") is None


def test_a_lasting_problem_is_logged_when_it_begins():
    node = MagicMock()
    node.get_fully_qualified_name.return_value = "/node"
    node.get_clock().now().to_msg.return_value = Time()
    report = Report(node, "labelling", "scans")
    report._throttle.period = 0.0
    for degrees in (12, 13, None, 12):  # the second is the same problem
        report.publish({}, [Problem(WARN, f"the lidar leans by {degrees} degrees")] if degrees else [])
    assert node.get_logger().warning.call_count == 2

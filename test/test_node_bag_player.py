"""The bag player as a process of its own, over DDS."""

import json
import re
import threading
import time

import numpy as np
import pytest
from bags import STORAGES, bag_path, scans, write_bag
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2

from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.nodes.bag_player import ahead, shifted
from cmp_seg_ros.ros import qos

SECOND = 1_000_000_000
RECORDED = 2000 * SECOND  # the first message's time of recording; stamps are 1000 s before
SCANS = 8


def stamps(clouds):
    return [point_cloud2.stamp_ns(cloud.header) for cloud in clouds]


def play(robot, path, *arguments, wait="60.0"):
    given = [part for argument in arguments for part in ("-p", argument)]
    return robot.start("bag_player", str(path), "--ros-args", "-p", f"wait_for_subscribers:={wait}", *given)


def finish(robot, player, received, count):
    robot.until(lambda: len(received) >= count and player.process.poll() is not None, f"{count} clouds and the end")
    return json.loads(player.out)


@pytest.mark.parametrize("storage", STORAGES)
def test_every_storage_is_played_whole_with_stamps_of_the_playing(robot, tmp_path, storage):
    path = write_bag(bag_path(tmp_path, storage), storage, {"/lidar/points": scans(SCANS)})
    clouds = robot.subscribe(PointCloud2, "/points")
    start = time.time_ns() + 5 * SECOND
    player = robot.start(
        *("bag_player", str(path), "--ros-args", "-r", "/lidar/points:=/points", "-p", "rate:=20.0"),
        *("-p", "wait_for_subscribers:=60.0", "-p", f"start_time_ns:={start}"),
    )
    report = finish(robot, player, clouds, SCANS)
    assert player.wait() == 0
    assert report["messages"] == {"/points": SCANS}
    assert report["acknowledged"] and report["problems"] == []
    assert report["offset_ns"] == start - RECORDED
    assert {"p50", "p95", "p99", "max"} == set(report["lateness_ms"]) and report["lateness_ms"]["p50"] >= 0
    # Every scan is stamped 1000 s before it was recorded; at twenty-fold speed that is 50 s before it is played.
    assert stamps(clouds) == [start - 50 * SECOND + i * SECOND // 20 for i in range(SCANS)]
    for number, (cloud, given) in enumerate(zip(clouds, scans(SCANS), strict=True)):
        scan = point_cloud2.decode(cloud)
        assert scan.frame_id == "lidar"
        np.testing.assert_array_equal(scan.xyz, np.stack([given[axis] for axis in "xyz"], axis=1))
        assert set(scan.intensity) == {number}


def test_stamps_may_stay_and_the_clock_goes_with_them(robot, tmp_path):
    path = write_bag(bag_path(tmp_path, "mcap"), "mcap", {"/points": scans(4), "/others": scans(4)})
    clouds = robot.subscribe(PointCloud2, "/points")
    others = robot.subscribe(PointCloud2, "/others")
    ticks = robot.subscribe(Clock, "/clock", qos.OUTPUT)
    player = play(robot, path, "rate:=4.0", "keep_stamps:=true", "topics:=points")
    report = finish(robot, player, clouds, 4)
    assert report["messages"] == {"/points": 4}
    assert stamps(clouds) == [(1000 + i) * SECOND for i in range(4)]
    times = [tick.clock.sec * SECOND + tick.clock.nanosec for tick in ticks]
    assert len(times) > 10 and times == sorted(times)
    assert times[0] > RECORDED - 1 * SECOND and times[-1] == RECORDED + 3 * SECOND
    assert not others


def test_loop_goes_on_with_growing_stamps(robot, tmp_path):
    write_bag(tmp_path / "bag", "sqlite3", {"/points": scans(4), "/lonely": scans(4)})  # as cmp-seg simulate leaves it
    clouds = robot.subscribe(PointCloud2, "/points")
    player = play(robot, tmp_path, "rate:=100.0", "loop:=true", "wait_for_topics:=/points")
    robot.until(lambda: len(clouds) >= 10, "the third round")
    assert stamps(clouds) == sorted(set(stamps(clouds)))
    assert player.stop() == 0
    assert json.loads(player.out)["messages"]["/points"] >= 10


def test_a_bag_cut_short_is_played_as_far_as_it_goes(robot, tmp_path):
    path = write_bag(bag_path(tmp_path, "mcap"), "mcap", {"/points": scans(SCANS)})
    file = next(path.glob("*.mcap"))
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    clouds = robot.subscribe(PointCloud2, "/points")
    player = play(robot, path, "rate:=50.0")
    report = finish(robot, player, clouds, 1)
    assert player.wait() == 1
    assert 1 <= len(clouds) < SCANS and report["messages"] == {"/points": len(clouds)}
    assert re.search(r"damaged or cut short.*record it again", report["problems"][0])
    assert re.search(r"damaged or cut short.*record it again", player.err) and "Traceback" not in player.err


WRONG = {
    "no bag": ([], "", r"no bag is given: bag_player BAG"),
    "no such bag": (["/no/such/bag"], "", r"/no/such/bag is no bag"),
    "wrong topic": (["{bag}"], "topics:=/poinst", r"topic /poinst is not in bag .*; it has: /points"),
    "nobody listens": (["{bag}"], "wait_for_subscribers:=0.5", r"nobody has subscribed to /points within 0.5 s"),
    "wrong type": (["{bag}"], "rate:=fast", r"parameter rate is 'fast'; it must be a number"),
}


def test_what_cannot_be_played_is_one_line_and_exit_status_1(robot, tmp_path):
    bag = write_bag(bag_path(tmp_path, "mcap"), "mcap", {"/points": scans(2)})
    players = {
        name: robot.start(
            *("bag_player", *(argument.format(bag=bag) for argument in arguments)),
            *(("--ros-args", "-p", parameter) if parameter else ()),
        )
        for name, (arguments, parameter, _) in WRONG.items()
    }
    for name, player in players.items():
        assert player.wait() == 1, name
        lines = [line for line in player.err.splitlines() if line.strip()]
        assert len(lines) == 1 and re.search(WRONG[name][2], lines[0]), (name, player.err)
        assert not player.out


def test_packets_without_their_messages_are_refused(robot, shared_data):
    player = robot.start("bag_player", str(shared_data / "real" / "nebula_xt32" / "bag"))
    assert player.wait() == 1
    assert re.search(r"message types of /pandar_packets \(pandar_msgs/msg/PandarScan\) are not installed", player.err)


def test_reading_ahead_changes_nothing():
    opened_in = []

    def numbers(last):
        opened_in.append(threading.get_ident())
        try:
            for number in range(last):
                if number == 70:
                    raise ValueError("damaged")
                yield number
        finally:
            assert threading.get_ident() == opened_in[-1]
            opened_in.append(None)

    assert list(ahead(numbers(70))) == list(range(70))
    assert list(ahead(numbers(3), 10)) == [0, 1, 2]
    given = ahead(numbers(80))
    with pytest.raises(ValueError, match="damaged"):
        list(given)
    broken_off = ahead(numbers(60))
    assert next(broken_off) == 0
    broken_off.close()
    assert opened_in[-1] is None and threading.get_ident() not in opened_in


def test_shifted_stamps():
    assert shifted(15, 5, 100, 2.0) == 105
    assert shifted(0, 5, 7, 1.0) == 0, "a missing stamp stays missing"

"""When the node looks whether its lidar leans, and how much of the time that takes."""

import threading

import numpy as np
from ros_harness import empty_room

from cmp_seg_ros.geometry import planes, plausibility
from cmp_seg_ros.nodes.segmentation import level_check
from cmp_seg_ros.nodes.segmentation.level_check import LevelCheck
from cmp_seg_ros.scan import Scan
from cmp_seg_ros.simulation.generate import rotation


def test_the_level_check_looks_until_it_sees_planes_and_never_at_two_scans_at_once(monkeypatch):
    """Blocked views first, then a room that leans: one look at a time, a pause after each, none after the last."""
    notes, looks, now, go = [], [], [1000.0], threading.Event()
    check = LevelCheck(lambda what, message: notes.append(what))
    see = LevelCheck._check

    def look(self, scan):
        looks.append(scan)
        assert go.wait(60)
        see(self, scan)

    monkeypatch.setattr(LevelCheck, "_check", look)
    monkeypatch.setattr(level_check.time, "monotonic", lambda: now[0])
    blocked = Scan(np.random.default_rng(0).normal(0, 3, (2000, 3)))
    leaning = Scan(empty_room().xyz @ rotation(np.radians(25.0), 0, 0)[:3, :3].astype(np.float32))
    check(blocked, level_check.FEW_RETURNS)
    assert not looks, "too few returns"
    for _ in range(3):
        check(blocked, 2000)
        now[0] += 10 * level_check.RETRY
    assert len(looks) == 1, "the others did not wait for the first"
    go.set()
    check.close()
    assert not check.done and not notes
    now[0] += 0.9 * level_check.RETRY
    check(blocked, 2000)
    check.close()
    assert len(looks) == 1, "not so soon"
    now[0] += 1e6
    check(leaning, len(leaning))
    check.close()
    assert len(looks) == 2 and check.done and notes == ["tilted"]
    now[0] += 1e6
    check(leaning, len(leaning))
    check.close()
    assert len(looks) == 2


def test_the_level_check_takes_little_of_the_time_and_few_of_many_points(monkeypatch):
    """On a robot where a look takes four seconds, the next one comes minutes later."""
    now, sizes = [1000.0], []

    def find_planes(xyz):
        sizes.append(len(xyz))
        now[0] += 4
        return planes.Planes([], [], [], [], np.array([0.0, 0, 1]), xyz, xyz)

    monkeypatch.setattr(planes, "find_planes", find_planes)
    monkeypatch.setattr(level_check.time, "monotonic", lambda: now[0])
    check = LevelCheck(lambda what, message: None)
    dense = Scan(np.ones((131072, 3)))
    for pause in (0, 4 / level_check.DUTY - 1, 2):
        now[0] += pause
        check(dense, len(dense))
        check.close()
    assert sizes == [plausibility.MANY] * 2

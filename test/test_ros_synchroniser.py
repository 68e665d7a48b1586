"""Joining scans with images: nearest stamp inside the deadline, and no waiting without a camera."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cmp_seg_ros.ros.synchroniser import MEMORY, Synchroniser

MS = 1_000_000
START = 1_700_000_000_000 * MS


@given(st.lists(st.integers(-500, 500), max_size=MEMORY, unique=True), st.integers(0, 300))
def test_nearest_image_inside_the_deadline(offsets, deadline_ms):
    synchroniser = Synchroniser[int](deadline_ms / 1000)
    for offset in sorted(offsets):
        synchroniser.add_image(START + offset * MS, offset, now=0.0)
    match = synchroniser.match(START)
    inside = [offset for offset in offsets if abs(offset) <= deadline_ms]
    if inside:
        assert match is not None and abs(match.image) == min(map(abs, inside))
        assert match.offset == match.image * MS
    else:
        assert match is None
    assert synchroniser.match_rate == float(bool(inside))


def test_without_a_camera_nothing_is_waited_for():
    assert Synchroniser[str](0.1).decided(START, waiting_since=10.0, now=10.0)


def test_waits_for_a_later_image_at_most_until_the_deadline():
    synchroniser = Synchroniser[str](0.1)
    synchroniser.add_image(START - 80 * MS, "before", now=10.0)
    assert not synchroniser.decided(START, waiting_since=10.0, now=10.05)
    assert synchroniser.decided(START, waiting_since=10.0, now=10.2)
    synchroniser.add_image(START + 20 * MS, "after", now=10.06)
    assert synchroniser.decided(START, waiting_since=10.0, now=10.06)
    match = synchroniser.match(START)
    assert match is not None and (match.image, match.offset) == ("after", 20 * MS)
    assert synchroniser.median_offset == 20 * MS


def test_a_camera_that_has_died_is_not_waited_for():
    synchroniser = Synchroniser[str](0.1)
    synchroniser.add_image(START, "last", now=10.0)
    assert synchroniser.decided(START + 5000 * MS, waiting_since=15.0, now=15.0)


def test_a_scan_without_stamp_has_no_image():
    synchroniser = Synchroniser[str](0.1)
    synchroniser.add_image(0, "no stamp either", now=0.0)
    assert synchroniser.decided(0, waiting_since=0.0, now=0.0)
    assert synchroniser.match(0) is None


def test_memory_is_bounded():
    synchroniser = Synchroniser[np.ndarray](1.0)
    for i in range(10 * MEMORY):
        synchroniser.add_image(START + i * MS, np.zeros(1), now=0.0)
    assert len(synchroniser._images) == MEMORY


@given(st.integers(3, 900), st.integers(1, 40))
def test_a_bag_that_starts_again_matches_as_in_its_first_round(seconds, late_ms):
    """Nothing of the first round decides or matches a scan of the second, however soon that begins."""
    synchroniser = Synchroniser[str](0.1)
    for tenth in range(10 * seconds - 15, 10 * seconds + 1):  # the end of the first round
        synchroniser.add_image(START + tenth * 100 * MS, "first", now=0.0)
    synchroniser.add_scan(START + seconds * 1000 * MS)
    assert synchroniser.add_scan(START)
    synchroniser.add_image(START - 80 * MS, "second, before", now=1.0)
    assert not synchroniser.decided(START, waiting_since=1.0, now=1.01)
    synchroniser.add_image(START + late_ms * MS, "second", now=1.02)
    assert synchroniser.decided(START, waiting_since=1.0, now=1.03)
    match = synchroniser.match(START)
    assert match is not None and (match.image, match.offset) == ("second", late_ms * MS)


def test_images_out_of_order_are_no_jump():
    synchroniser = Synchroniser[str](0.1)
    synchroniser.add_image(START, "this", now=0.0)
    synchroniser.add_image(START - 200 * MS, "late on the way", now=0.01)
    match = synchroniser.match(START)
    assert match is not None and match.image == "this"

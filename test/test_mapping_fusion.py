"""Labels fused in voxels: votes of scans, the hash table behind them, and what is forgotten."""

import numpy as np
import pytest

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.fusion import VoxelMap
from cmp_seg_ros.scan import UNLABELLED, Labels

SIX = LabelSpace.load("structural6")
WALL, FLOOR, OBJECT = 0, 1, 4


def labels(*ids: int, confidence: float = 0.8) -> Labels:
    label = np.array(ids, np.uint8)
    return Labels(label, np.where(label == UNLABELLED, 0, confidence).astype(np.float32))


def at(*xyz: tuple[float, float, float]) -> np.ndarray:
    return np.array(xyz, np.float64)


def near(count: int, metres: float = 1.0) -> np.ndarray:
    return np.full(count, metres, np.float32)


def test_votes_are_multiplied_as_by_bayes() -> None:
    voxels = VoxelMap(SIX, 0.1)
    place = at((1.02, 2.03, 0.04))
    for _ in range(2):
        voxels.add(place, labels(WALL, confidence=0.7), near(1, 0))
    voxels.add(place, labels(OBJECT, confidence=0.9), near(1, 0))
    label, confidence = voxels.labels_at(place)
    wall, thing, other = 0.7**2 * 0.02, 0.06**2 * 0.9, 0.06**2 * 0.02
    assert label == [WALL]
    assert confidence[0] == pytest.approx(wall / (wall + thing + 4 * other), rel=1e-3)


def test_near_votes_outweigh_far_ones() -> None:
    voxels = VoxelMap(SIX, 0.1)
    place = at((0, 0, 0))
    voxels.add(place, labels(WALL), near(1, 2))
    for _ in range(2):
        voxels.add(place, labels(OBJECT), near(1, 30))
    assert voxels.labels_at(place)[0] == [WALL]


def test_a_scan_has_one_vote_in_a_voxel_however_many_points() -> None:
    voxels = VoxelMap(SIX, 0.1)
    voxels.add(at(*[(0.05, 0.05, 0.05)] * 50), labels(*[WALL] * 50, confidence=0.6), near(50))
    for _ in range(2):
        voxels.add(at((0.05, 0.05, 0.05)), labels(OBJECT, confidence=0.6), near(1))
    assert voxels.labels_at(at((0.01, 0.01, 0.01)))[0] == [OBJECT]
    found = voxels.voxels()
    assert found.scans.tolist() == [3]
    np.testing.assert_allclose(found.xyz, [[0.05, 0.05, 0.05]], rtol=1e-6)


def test_votes_with_all_probabilities_sum_over_classes() -> None:
    """The second choice of each of two scans wins where their first ones disagree."""
    voxels = VoxelMap(SIX, 0.1)
    for first in (WALL, OBJECT):
        probabilities = np.full((1, 6), 0.02, np.float32)
        probabilities[0, first], probabilities[0, FLOOR] = 0.5, 0.42
        voxels.add(at((0, 0, 0)), Labels(labels(first).label, near(1, 0.5), probabilities=probabilities), near(1))
    assert voxels.labels_at(at((0, 0, 0)))[0] == [FLOOR]


def test_confidence_stays_below_certainty_however_often_a_place_is_seen() -> None:
    voxels = VoxelMap(SIX, 0.1)
    for _ in range(500):
        voxels.add(at((0, 0, 0)), labels(WALL, confidence=0.6), near(1))
    assert 0.9 < voxels.labels_at(at((0, 0, 0)))[1][0] < 0.9999


def test_points_without_label_or_place_leave_no_trace() -> None:
    voxels = VoxelMap(SIX, 0.1)
    places = at((1, 1, 1), (np.nan, 0, 0), (1e9, 0, 0), (2, 2, 2))
    voxels.add(places, labels(UNLABELLED, WALL, WALL, FLOOR), near(4))
    assert len(voxels) == 1
    label, confidence = voxels.labels_at(places)
    assert label.tolist() == [UNLABELLED, UNLABELLED, UNLABELLED, FLOOR]
    assert confidence[:3].tolist() == [0, 0, 0]


def test_many_voxels_are_found_again_while_the_map_grows() -> None:
    """As a dictionary would hold them."""
    rng = np.random.default_rng(0)
    voxels = VoxelMap(SIX, 0.1)
    expected: dict[tuple[int, ...], set[int]] = {}
    for _ in range(30):
        xyz = rng.normal(0, 4, (3000, 3))
        ids = rng.integers(0, 6, 3000)
        voxels.add(xyz, labels(*ids), near(3000))
        for key, label in zip(map(tuple, np.floor(xyz / 0.1).astype(int).tolist()), ids.tolist(), strict=True):
            expected.setdefault(key, set()).add(label)
    assert len(voxels) == len(expected) > 1 << 14
    centres = (np.array(list(expected)) + 0.5) * 0.1
    found = voxels.labels_at(centres)[0]
    assert all(label in seen for label, seen in zip(found, expected.values(), strict=True))
    assert (voxels.find(centres) >= 0).all() and (voxels.find(centres + 100) < 0).all()


def test_forgets_what_is_far_and_keeps_the_rest_as_it_was() -> None:
    rng = np.random.default_rng(1)
    voxels = VoxelMap(SIX, 0.1)
    xyz = rng.uniform(-10, 10, (20000, 3))
    voxels.add(xyz, labels(*rng.integers(0, 6, 20000)), near(20000))
    before = voxels.labels_at(xyz)
    removed = voxels.forget(np.array([5.0, 0, 0]), 4)
    assert removed and len(voxels) + removed < 20001
    after = voxels.labels_at(xyz)
    far = np.hypot(xyz[:, 0] - 5, xyz[:, 1])
    assert (after[0][far > 4.2] == UNLABELLED).all()
    np.testing.assert_array_equal(before[0][far < 3.8], after[0][far < 3.8])
    np.testing.assert_array_equal(before[1][far < 3.8], after[1][far < 3.8])
    voxels.add(xyz, labels(*[WALL] * 20000), near(20000))  # goes on growing
    assert (voxels.find(xyz) >= 0).all()

"""Temporal consistency: the same place is found again by the poses, and its label compared."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cmp_seg_ros.evaluation.consistency import Consistency, TemporalConsistency, agreement_of
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Scan

SIX = LabelSpace.load("structural6")
FOUR = LabelSpace.load("structural4")
WALL, FLOOR, CEILING, FLUSH, OBJECT, PERSON, NONE = 0, 1, 2, 3, 4, 5, 255


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8)


def pose(x: float = 0, y: float = 0, z: float = 0, turn: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", turn).as_matrix()
    T[:3, 3] = x, y, z
    return T


def along(*x: float) -> Scan:
    """Points on the x axis."""
    return Scan(np.array([[value, 0.02, 0.02] for value in x]))


def compared(*scans: tuple[Any, ...], space: LabelSpace = SIX, **options: Any) -> TemporalConsistency | None:
    consistency = Consistency(space, **options)
    for scan in scans:
        consistency.add("a", *scan)
    return consistency.result()


def test_places_are_found_by_the_poses() -> None:
    """The robot moves a metre on and turns back: its front is behind it."""
    before = along(1.05, 2.05, 3.05), ids(WALL, FLOOR, WALL), pose()
    now = Scan(np.array([[-0.05, -0.02, 0.02], [-1.05, -0.02, 0.02], [5.05, 0, 0]])), ids(WALL, WALL, OBJECT)
    found = compared(before, (*now, pose(1, turn=(0, 0, np.pi))))
    assert found is not None
    assert found.pairs == 1 and found.places == 2 and found.agreement == 0.5
    assert found.iou == {"wall": 0.5, "floor": 0, "ceiling": None, "flush": None, "object": None}
    assert found.miou == 0.25 and found.truth is None


@given(st.integers(0, 1000), st.floats(-3e6, 3e6), st.tuples(*[st.floats(-3, 3)] * 3))
def test_a_still_world_is_consistent_from_wherever_it_is_seen(seed: int, away: float, turn: Any) -> None:
    """Points in the middle of voxels, far from the world's origin (as of a map's grid) too."""
    rng = np.random.default_rng(seed)
    origin = np.array([away, -away, 100.0])
    # One labelled place for each voxel, seen from two poses; float32 metres around the lidar keep it there.
    steps = np.unique(rng.integers(-60, 60, (40, 3)), axis=0)
    places, label = origin + (steps + 0.5) * 0.1, rng.integers(0, 5, len(steps)).astype(np.uint8)
    first = pose(*origin)
    second = pose(*(origin + rng.uniform(-3, 3, 3)), turn)
    scans = [Scan((places - T[:3, 3]) @ T[:3, :3]) for T in (first, second)]
    order = rng.permutation(len(steps))
    found = compared((scans[0], label, first), (Scan(scans[1].xyz[order]), label[order], second))
    assert found is not None and found.places == len(steps) and found.agreement == 1


def test_a_voxel_has_the_label_of_most_of_its_points() -> None:
    before = along(1.01, 1.02, 1.03, 1.04), ids(WALL, FLOOR, FLOOR, NONE), pose()
    same = along(1.05, 1.06, 1.07, 1.08), ids(FLOOR, NONE, NONE, NONE), pose()
    tied = along(1.05, 1.06), ids(FLOOR, WALL), pose()
    for now, agreement in ((same, 1), (tied, 0)):
        found = compared(before, now)
        assert found is not None and found.places == 1 and found.agreement == agreement


def test_voxels_are_alike_on_either_side_of_the_origin() -> None:
    found = compared((along(-0.05, 1.05), ids(WALL, WALL), pose()), (along(0.05, 1.05), ids(FLOOR, WALL), pose()))
    assert found is not None and found.places == 1


def test_people_are_left_out_where_truth_or_labels_know_them() -> None:
    scan = along(1.05, 2.05, 3.05)
    labels = ids(WALL, PERSON, WALL), ids(WALL, WALL, PERSON)
    found = compared(*((scan, label, pose()) for label in labels))
    assert found is not None and found.moving is not None
    assert (found.places, found.agreement) == (1, 1) and (found.moving.places, found.moving.agreement) == (2, 0)
    truths = ids(WALL, PERSON, WALL), ids(WALL, PERSON, FLOOR)
    found = compared(
        *((scan, label, pose(), truth) for label, truth in zip(labels, truths, strict=True)), truth_space=SIX
    )
    assert found is not None and found.moving is not None
    assert (found.places, found.agreement, found.truth) == (2, 0.5, 0.5) and found.moving.places == 1
    assert "person" not in found.iou and found.miou == pytest.approx(0.5)  # wall, before and now or before alone
    found = compared((scan, ids(0, 1, 2), pose()), (scan, ids(0, 1, 2), pose()), space=FOUR)
    assert found is not None and found.moving is None


def test_only_neighbours_of_one_sequence_with_poses_are_compared() -> None:
    scan, label = along(1.05), ids(WALL)
    consistency = Consistency(SIX)
    for sequence, T in (("a", pose()), ("b", pose()), ("b", None), ("b", pose()), ("b", pose(50))):
        assert not consistency.add(sequence, scan, label, T).any()
    assert consistency.result() is None
    assert consistency.add("b", scan, label, pose(50)).sum() == 1
    with pytest.raises(ValueError, match="must be"):
        consistency.add("b", scan, label, np.full((4, 4), np.nan))


def test_points_without_a_place_do_not_count() -> None:
    points = np.array([[np.nan, 0, 0], [0, 0, 0], [np.inf, 0, 0], [1e9, 0, 0], [1.05, 0, 0]])
    found = compared(*[(Scan(points), ids(*[WALL] * 5), pose())] * 2)
    assert found is not None and found.places == 1


def test_agreement_of_many() -> None:
    matrices = np.array([[[3, 1], [0, 0]], [[0, 0], [0, 0]]])
    np.testing.assert_array_equal(agreement_of(matrices), [0.75, np.nan])

"""The scorer: what counts, by range, ring, group and frame; and that a report of it stays small."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.accuracy import Accuracy, Scorer
from cmp_seg_ros.evaluation.bootstrap import Bootstrap, unpack
from cmp_seg_ros.evaluation.metrics import Confusion, iou_of, mean_of
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Labels, Scan

SIX, FOUR, INDOOR = (LabelSpace.load(name) for name in ("structural6", "structural4", "indoor"))
WALL, FLOOR, CEILING, FLUSH, OBJECT, PERSON, NONE = 0, 1, 2, 3, 4, 5, 255
BOOTSTRAP = Bootstrap(resamples=50)


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8)


def labels(label: np.ndarray, confidence: float = 0.9) -> Labels:
    return Labels(label, np.full(len(label), confidence, np.float32))


def at(*distances: float) -> Scan:
    return Scan(np.array([[0, d, 0] for d in distances]))


def scorer(truth: LabelSpace = SIX, predicted: LabelSpace = SIX) -> Scorer:
    return Scorer(truth, predicted, BOOTSTRAP)


@st.composite
def drives(draw: st.DrawFn) -> list[tuple[str, Scan, np.ndarray, np.ndarray, np.ndarray]]:
    """Scans: group, points, truth, labels, ring."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    found = []
    for _ in range(draw(st.integers(0, 5))):
        count = draw(st.integers(1, 60))
        xyz = rng.normal(0, 6, (count, 3)) * (rng.random((count, 1)) > 0.1)  # some without return
        truth, label = (rng.choice([*range(6), NONE], count).astype(np.uint8) for _ in range(2))
        found.append((draw(st.sampled_from("ab")), Scan(xyz), truth, label, rng.integers(-1, 4, count)))
    return found


@given(drives())
@settings(max_examples=25)
def test_all_ways_to_cut_hold_the_same_points(drive: list[Any]) -> None:
    found, expected = scorer(), Confusion(SIX)
    for number, (group, scan, truth, label, ring) in enumerate(drive):
        found.add(group, str(number), scan, truth, labels(label), ring)
        valid = scan.valid()
        expected.add(truth[valid], label[valid])
    result = found.result()
    reading = result.readings["structural6"]
    assert reading.confusion == expected.matrix.tolist()
    scores = expected.report()
    assert {key: getattr(reading, key) for key in scores} == scores
    assert result.readings["structural4_primary"].miou == expected.structural4("primary").report()["miou"]
    total = expected.matrix.sum()
    assert sum(score.points for score in reading.by_range) == total
    of_rings = sum(((ring >= 0) & scan.valid() & (truth != NONE)).sum() for _, scan, truth, _, ring in drive)
    assert sum(score.points for score in reading.by_ring or []) == of_rings
    groups = unpack(reading.groups.values())
    assert set(reading.groups) == {group for group, *_ in drive}
    if drive:
        np.testing.assert_array_equal(groups.sum(axis=0), expected.matrix)
    assert (reading.interval is None) == (len(reading.groups) < 2 or reading.miou is None)
    assert result.scans == len(result.by_frame) == len(drive)
    assert Accuracy.model_validate_json(result.model_dump_json()) == result
    assert json.loads(result.model_dump_json()) == result.model_dump(mode="json")


def test_range_and_ring_are_those_of_the_points() -> None:
    found = scorer()
    truth, label = ids(WALL, WALL, FLOOR, FLOOR), ids(WALL, WALL, FLOOR, WALL)
    found.add("a", "0", at(1, 2, 4.9, 5), truth, labels(label), np.array([0, 2, 2, -1]))
    reading = found.result().readings["structural6"]
    bins = [(score.near, score.far, score.points, score.miou) for score in reading.by_range]
    assert bins == [(0, 2, 1, 1), (2, 5, 2, 1), (5, 10, 1, 0), (10, 20, 0, None), (20, None, 0, None)]
    assert reading.by_ring is not None
    assert [(score.ring, score.points, score.miou) for score in reading.by_ring] == [(0, 1, 1), (2, 2, 1)]
    found.add("a", "1", at(1), ids(WALL), labels(ids(WALL)), np.array([70_000]))  # no ring of any lidar
    assert [score.ring for score in found.result().readings["structural6"].by_ring or []] == [0, 2]
    found = scorer()
    found.add("a", "0", at(1), ids(WALL), labels(ids(WALL)))
    assert found.result().readings["structural6"].by_ring is None


def test_the_headline_is_the_primary_reading() -> None:
    found = scorer()
    scan = at(1, 2, 3)
    assert found.add("a", "flush", scan, ids(WALL, FLUSH, NONE), labels(ids(WALL, WALL, WALL))) == 1
    assert found.add("a", "nothing", scan, ids(FLUSH, FLUSH, NONE), labels(ids(WALL, WALL, WALL))) is None
    result = found.result()
    assert result.headline == "structural4_primary"
    assert result.by_frame == {"flush": 1, "nothing": None}
    assert list(result.readings) == ["structural6", "structural4_primary", "structural4_strict"]
    assert scorer(FOUR, FOUR).headline == "structural4"
    with pytest.raises(UserError, match="cannot be compared"):
        scorer(SIX, LabelSpace.numbered(4))


def test_intervals_draw_groups() -> None:
    """Of three groups of one frame each, a draw has one, two or all of them."""
    found = scorer()
    for group, wrong in (("a", 0), ("b", 2), ("c", 4)):
        label = np.where(np.arange(10) < wrong, FLOOR, WALL).astype(np.uint8)
        found.add(group, group, at(*range(1, 11)), ids(*[WALL] * 10), labels(label))
    reading = found.result().readings["structural6"]
    groups = unpack(reading.groups.values())
    drawn = [mean_of(iou_of(np.tensordot(weights, groups, 1))) for weights in BOOTSTRAP.weights(3)]
    assert reading.interval == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist())
    assert len(np.unique(drawn)) > 2


def test_confidences_are_of_the_labels_own_space() -> None:
    """Truth in finer classes is read in the labels' space, and truth in coarser ones as far as both can be read."""
    sofa, door = (INDOOR.ids[INDOOR.names.index(name)] for name in ("sofa", "door"))
    found = scorer(INDOOR, SIX)
    found.add("a", "0", at(1, 2, 3, 4), ids(sofa, door, door, NONE), labels(ids(OBJECT, FLUSH, NONE, WALL)))
    curve = found.result().reliability
    assert curve is not None and curve.space == "structural6"
    assert (curve.points, curve.accuracy) == (2, 1) and curve.ece == pytest.approx(0.1)
    assert unpack(curve.groups.values()).sum(axis=(0, 2)) == pytest.approx([2, 1.8, 2])
    found = scorer(FOUR, SIX)
    found.add("a", "0", at(1, 2), ids(3, 0), labels(ids(OBJECT, FLUSH)))
    curve = found.result().reliability
    assert curve is not None and (curve.space, curve.accuracy) == ("structural4", 0.5)


def test_labels_without_confidences_have_no_calibration() -> None:
    found = scorer()
    found.add("a", "0", at(1), ids(WALL), labels(ids(WALL), 0))
    assert found.result().reliability is None


def test_consistency_is_counted_by_group() -> None:
    found = scorer()
    for number, (group, label) in enumerate((("a", WALL), ("a", WALL), ("b", WALL), ("b", FLOOR))):
        found.add(group, str(number), at(1, 2), ids(WALL, WALL), labels(ids(label, label)), T_world_lidar=np.eye(4))
    result = found.result().consistency
    assert result is not None
    assert (result.pairs, result.places, result.agreement, result.truth) == (2, 4, 0.5, 1)
    assert set(result.groups) == {"a", "b"} and unpack(result.groups.values())[0, WALL, WALL] == 2
    assert scorer().result().consistency is None


def test_what_does_not_fit_is_refused() -> None:
    found = scorer()
    with pytest.raises(ValueError, match=r"truth has \(2,\) points, the labels \(3,\)"):
        found.add("a", "7", at(1, 2), ids(WALL, WALL), labels(ids(WALL, WALL, WALL)))
    found.add("a", "7", at(1), ids(WALL), labels(ids(WALL)))
    with pytest.raises(ValueError, match="two scans have the key 7"):
        found.add("b", "7", at(1), ids(WALL), labels(ids(WALL)))


def test_a_report_of_many_scans_and_groups_stays_small() -> None:
    """At 1,000 bytes a group and 60 a scan, 6,000 scans in 1,000 buildings take 1.4 MB."""
    found = scorer()
    rng = np.random.default_rng(0)
    truth, label = (rng.integers(0, 6, 400).astype(np.uint8) for _ in range(2))
    scan, T = Scan(rng.normal(0, 5, (400, 3))), np.eye(4)

    def size(groups: int) -> int:
        for group in range(groups):
            for number in range(2):
                found.add(f"building {group}", f"{groups}/{group}/{number}", scan, truth, labels(label), None, T)
            found.groups[f"building {group}"].points *= 10**5  # points as of thousands of scans
        return len(json.dumps(found.result().model_dump(mode="json"), indent=2))

    small = size(10)
    assert 0 < size(60) - small < 50 * (1000 + 2 * 60)

"""Metrics: parity with the published ones and with scikit-learn; and how flush points count."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.metrics import (
    Confusion,
    overall_accuracy_of,
    percentiles,
    precision_of,
    readings,
    recall_of,
    stage_percentiles,
)
from cmp_seg_ros.label_space import LabelSpace

DATA = Path(__file__).parent / "data"  # inputs, weights and outputs of the published modules, at tiny sizes

SIX = LabelSpace.load("structural6")
FOUR = LabelSpace.load("structural4")
WALL, FLOOR, CEILING, FLUSH, OBJECT, PERSON, NONE = 0, 1, 2, 3, 4, 5, 255


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.uint8)


def counted(space: LabelSpace, truth: np.ndarray, predicted: np.ndarray) -> Confusion:
    confusion = Confusion(space)
    confusion.add(truth, predicted)
    return confusion


def test_parity_with_the_published_metrics() -> None:
    golden = np.load(DATA / "wi_loss_metrics.npz")
    predicted = golden["logits"].argmax(axis=1).astype(np.uint8)
    confusion = counted(LabelSpace.numbered(4), golden["target"].astype(np.uint8), predicted)
    np.testing.assert_array_equal(confusion.matrix[:, :4], golden["hist"])
    assert not confusion.matrix[:, 4].any()
    np.testing.assert_allclose(list(confusion.iou().values()), golden["iou"], atol=1e-6)
    np.testing.assert_allclose(recall_of(confusion.matrix), golden["acc"], atol=1e-6)
    assert overall_accuracy_of(confusion.matrix) == pytest.approx(float(golden["oacc"]), abs=1e-6)


@st.composite
def labelled(draw: st.DrawFn) -> tuple[int, np.ndarray, np.ndarray]:
    """A number of classes, truth with ignored points, and labels with points that have none; classes may be absent."""
    classes = draw(st.integers(2, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    there = [*rng.choice(classes, draw(st.integers(1, classes)), replace=False), NONE]
    count = draw(st.integers(1, 60))
    return classes, ids(*rng.choice(there, count)), ids(*rng.choice([*range(classes), NONE], count))


@given(labelled())
@settings(max_examples=25)
def test_parity_with_scikit_learn(case: tuple[int, np.ndarray, np.ndarray]) -> None:
    from sklearn import metrics

    classes, truth, predicted = case
    confusion = counted(LabelSpace.numbered(classes), truth, predicted)
    known = truth != NONE
    if not known.any():
        report = confusion.report()
        assert report["miou"] is report["mean_accuracy"] is report["overall_accuracy"] is None
        return
    said = np.minimum(predicted[known], classes)  # no label is a class of its own, that no point has
    pair = (truth[known], said)
    theirs = metrics.confusion_matrix(*pair, labels=range(classes + 1))
    np.testing.assert_array_equal(confusion.matrix, theirs[:classes])
    among = {"labels": range(classes), "average": None}
    precision = metrics.precision_score(*pair, **among, zero_division=np.nan)
    recall = metrics.recall_score(*pair, **among, zero_division=np.nan)
    seen = np.isin(range(classes), pair)  # scikit-learn has no NaN for classes that are nowhere
    jaccard = np.where(seen, metrics.jaccard_score(*pair, **among, zero_division=0), np.nan)
    np.testing.assert_allclose(precision_of(confusion.matrix), precision, atol=1e-9)
    np.testing.assert_allclose(recall_of(confusion.matrix), recall, atol=1e-9)
    np.testing.assert_allclose(list(confusion.iou().values()), jaccard, atol=1e-9)
    np.testing.assert_allclose(confusion.miou(), np.nanmean(jaccard) if seen.any() else np.nan, atol=1e-9)
    np.testing.assert_allclose(confusion.report()["overall_accuracy"], metrics.accuracy_score(*pair), atol=1e-9)
    np.testing.assert_allclose(confusion.report()["mean_accuracy"], np.nanmean(recall), atol=1e-9)


def test_parts_of_a_scan_add_up_to_it() -> None:
    confusion = Confusion(SIX)
    truth, predicted = ids(WALL, WALL, FLOOR, NONE, OBJECT), ids(WALL, FLOOR, FLOOR, WALL, NONE)
    parts = confusion.count(truth, predicted, np.array([1, 0, 1, 1, 2]), 3)
    np.testing.assert_array_equal(parts.sum(axis=0), counted(SIX, truth, predicted).matrix)
    assert parts.sum(axis=(1, 2)).tolist() == [1, 2, 1] and parts[0, WALL, FLOOR] == 1
    assert confusion.count(truth, predicted, np.array([-1, 3, 0, 0, 7]), 3).sum() == 1  # the others are in no part
    with pytest.raises(ValueError, match="the labels"):
        confusion.add(truth, predicted[1:])


def test_absent_classes_are_left_out_of_the_mean() -> None:
    confusion = counted(LabelSpace.numbered(4), ids(0, 1, 1), ids(0, 1, 0))
    assert np.isnan([confusion.iou()["2"], confusion.iou()["3"]]).all()
    assert confusion.miou() == 0.5
    confusion.add(ids(0), ids(2))  # a class that is labelled but never true
    assert confusion.iou()["2"] == 0 and confusion.miou() == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert np.isnan(Confusion(SIX).miou())
    assert Confusion(SIX).report()["miou"] is None


def test_flush_is_ignored_by_primary_and_non_structural_to_strict() -> None:
    truth = ids(WALL, FLOOR, CEILING, FLUSH, FLUSH, OBJECT, PERSON, NONE)
    confusion = counted(SIX, truth, ids(WALL, FLOOR, CEILING, WALL, FLUSH, PERSON, OBJECT, WALL))
    assert confusion.iou() == pytest.approx(
        {"wall": 0.5, "floor": 1, "ceiling": 1, "flush": 0.5, "object": 0, "person": 0}
    )
    primary, strict = confusion.structural4("primary"), confusion.structural4("strict")
    assert primary.miou() == 1
    assert sum(primary.points().values()) == 5
    assert strict.iou() == pytest.approx({"wall": 0.5, "floor": 1, "ceiling": 1, "non-structural": 0.75})
    assert sum(strict.points().values()) == 7


def test_a_wall_that_is_called_flush_is_wrong_in_every_reading() -> None:
    found = readings(counted(SIX, ids(WALL, WALL), ids(WALL, FLUSH)))
    assert list(found) == ["structural6", "structural4_primary", "structural4_strict"]
    assert all(confusion.iou()["wall"] == 0.5 for confusion in found.values())


def test_labels_in_four_classes_are_scored_in_those() -> None:
    confusion = Confusion(SIX, FOUR)
    confusion.add(ids(WALL, FLUSH, PERSON), ids(0, 3, NONE))
    found = readings(confusion)
    assert list(found) == ["structural4_primary", "structural4_strict"]
    assert found["structural4_strict"].report()["iou"]["non-structural"] == 0.5
    with pytest.raises(ValueError, match="map them to one space"):
        confusion.iou()


def test_fine_classes_are_read_in_coarse_ones() -> None:
    """Labels or truth in `indoor`, which structural4 knows by way of structural6 alone."""
    indoor = LabelSpace.load("indoor")
    door, table = (indoor.ids[indoor.names.index(name)] for name in ("door", "table"))
    labels = Confusion(SIX, indoor)
    labels.add(ids(WALL, FLUSH, OBJECT), ids(indoor.ids[0], door, table))
    assert list(readings(labels)) == ["structural6", "structural4_primary", "structural4_strict"]
    assert all(confusion.miou() == 1 for confusion in readings(labels).values())
    truth = Confusion(indoor, SIX)
    truth.add(ids(door, door, table), ids(FLUSH, WALL, OBJECT))
    found = readings(truth, ["structural4_primary", "structural4_strict"])
    assert found["structural4_primary"].points()["non-structural"] == 1  # the doors are ignored
    assert found["structural4_strict"].report()["iou"]["non-structural"] == pytest.approx(2 / 3)


def test_labels_of_a_foreign_space_are_refused() -> None:
    with pytest.raises(UserError, match="no mapping from 'numbered'"):
        readings(Confusion(SIX, LabelSpace.numbered(4)))
    with pytest.raises(UserError, match=r"cannot be compared.*no mapping from 'structural4:primary'"):
        readings(Confusion(FOUR), ["structural4_primary"])


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=200), st.integers(0, 200))
def test_scans_add_up_in_every_reading(pairs: list[tuple[int, int]], cut: int) -> None:
    truth, predicted = (np.array(column, dtype=np.uint8) for column in zip(*pairs, strict=True))
    whole, parts = counted(SIX, truth, predicted), counted(SIX, truth[:cut], predicted[:cut])
    parts.add(truth[cut:], predicted[cut:])
    np.testing.assert_array_equal(whole.matrix, parts.matrix)
    for variant, name in (("primary", "primary"), ("strict", "")):
        mapped = counted(FOUR, FOUR.id_map(SIX, name)[truth], FOUR.id_map(SIX)[predicted])
        np.testing.assert_array_equal(whole.structural4(variant).matrix, mapped.matrix)


def test_percentiles_by_stage() -> None:
    report = stage_percentiles([{"network": float(i), "backfill": 1.0} for i in range(101)])
    assert report["network"] == {"p50": 50, "p95": 95, "p99": 99}
    assert list(report) == ["network", "backfill", "total"]
    assert report["total"]["p50"] == 51
    assert percentiles([]) == {}

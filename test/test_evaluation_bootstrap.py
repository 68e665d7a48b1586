"""Bootstrap intervals: coverage, pairing, and groups as a report keeps them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cmp_seg_ros.evaluation.bootstrap import Bootstrap, pack, unpack
from cmp_seg_ros.evaluation.metrics import iou_of, mean_of, overall_accuracy_of

BOOTSTRAP = Bootstrap(resamples=400)


def miou(matrix: np.ndarray) -> np.ndarray:
    return mean_of(iou_of(matrix))


def groups(rng: np.random.Generator, count: int, accuracy: float, spread: float = 0.05) -> np.ndarray:
    """(G, 2, 3) confusions of two classes, whose accuracy differs from group to group."""
    found = np.zeros((count, 2, 3), np.int64)
    for matrix, share in zip(found, np.clip(rng.normal(accuracy, spread, count), 0, 1), strict=True):
        for c in range(2):
            matrix[c, c] = rng.binomial(500, share)
            matrix[c, 1 - c] = 500 - matrix[c, c]
    return found


def test_draws_weigh_whole_groups() -> None:
    weights = BOOTSTRAP.weights(7)
    assert weights.shape == (400, 7) and (weights.sum(axis=1) == 7).all()
    np.testing.assert_array_equal(weights, BOOTSTRAP.weights(7))
    assert (weights != BOOTSTRAP.weights(7, stream=1)).any()
    counts = groups(np.random.default_rng(0), 7, 0.8)
    expected = [miou(np.repeat(counts, weight.astype(int), axis=0).sum(axis=0)) for weight in weights[:20]]
    np.testing.assert_allclose(BOOTSTRAP.draw(counts, miou)[:20], expected)


def test_many_classes_are_drawn_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = groups(np.random.default_rng(0), 7, 0.8)
    whole = BOOTSTRAP.draw(counts, iou_of)
    monkeypatch.setattr("cmp_seg_ros.evaluation.bootstrap.BLOCK", 50)
    np.testing.assert_array_equal(BOOTSTRAP.draw(counts, iou_of), whole)


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    """Of 200 experiments with 20 groups each, nine tenths, less what the percentile method is short of."""
    rng = np.random.default_rng(0)
    bootstrap = Bootstrap(resamples=300, level=0.9)
    held = 0
    for _ in range(200):
        interval = bootstrap.interval(bootstrap.draw(groups(rng, 20, 0.8), overall_accuracy_of))
        assert interval is not None
        held += interval[0] <= 0.8 <= interval[1]
    assert 0.8 <= held / 200 <= 0.95


def test_pairing_finds_a_difference_that_groups_hide() -> None:
    """Buildings differ by far more than the two runs, which differ alike in each."""
    rng = np.random.default_rng(0)
    a = groups(rng, 15, 0.7, spread=0.15)
    b = a.copy()
    for c in range(2):
        moved = b[:, c, 1 - c] // 10
        b[:, c, c] += moved
        b[:, c, 1 - c] -= moved
    paired, unpaired = (BOOTSTRAP.interval(BOOTSTRAP.difference(a, b, miou, p)) for p in (True, False))
    assert paired is not None and unpaired is not None
    difference = miou(b.sum(axis=0)) - miou(a.sum(axis=0))
    assert 0 < paired[0] < difference < paired[1]
    assert unpaired[0] < 0 < difference < unpaired[1]
    np.testing.assert_array_equal(BOOTSTRAP.difference(a, a, miou, True), 0)


def test_of_a_single_group_there_is_no_interval() -> None:
    one, many = groups(np.random.default_rng(0), 1, 0.8), groups(np.random.default_rng(0), 5, 0.8)
    assert BOOTSTRAP.interval(BOOTSTRAP.draw(one, miou)) is None
    assert BOOTSTRAP.interval(BOOTSTRAP.draw(one[:0], miou)) is None
    assert BOOTSTRAP.difference(one, many, miou, False).shape == (0,)
    with pytest.raises(ValueError, match="1 and 5 groups cannot be paired"):
        BOOTSTRAP.difference(one, many, miou, True)


def test_draws_without_the_figure_are_left_out() -> None:
    assert BOOTSTRAP.interval(np.array([np.nan, 1.0, np.nan])) == (1, 1)
    assert BOOTSTRAP.interval(np.array([np.nan])) is None


@given(
    arrays.arrays(
        np.int64, st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4)), elements=st.integers(0, 10**9)
    )
)
def test_packed_counts_come_back(counts: np.ndarray) -> None:
    np.testing.assert_array_equal(unpack(pack(matrix) for matrix in counts), counts)


@pytest.mark.parametrize("packed", [["1 2; 3"], ["1 x"], ["1 2", "1 2 3"]])
def test_what_is_no_matrix_is_refused(packed: list[str]) -> None:
    with pytest.raises(ValueError):
        unpack(packed)

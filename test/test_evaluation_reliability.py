"""Calibration of confidences: parity with torchmetrics, and what a bin holds."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmp_seg_ros.evaluation.bootstrap import unpack
from cmp_seg_ros.evaluation.reliability import BINS, Reliability, ece_of, plot


def reliability(confidence: list[float], right: list[bool], bins: int = BINS) -> Reliability:
    found = Reliability(bins)
    found.add(np.array(confidence, np.float32), np.array(right, bool))
    return found


@given(st.integers(0, 2**32 - 1), st.integers(1, 400), st.integers(1, 20))
def test_parity_with_torchmetrics(seed: int, count: int, bins: int) -> None:
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.full(4, 0.3), count)
    truth = rng.integers(4, size=count)
    right = probabilities.argmax(axis=1) == truth
    ours = reliability(probabilities.max(axis=1).tolist(), right.tolist(), bins).curve("four").ece
    theirs = multiclass_calibration_error(
        torch.tensor(probabilities).clamp(max=1 - 1e-7), torch.tensor(truth), num_classes=4, n_bins=bins
    )
    assert ours == pytest.approx(float(theirs), abs=1e-6)  # single precision


def test_bins_are_open_below_and_closed_above() -> None:
    curve = reliability([0.0, 0.25, 0.2501, 1.0], [False, True, True, True], 4).curve("four")
    assert [b.points for b in curve.bins] == [2, 1, 0, 1]
    assert [(b.low, b.high) for b in curve.bins] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    assert curve.bins[0].accuracy == 0.5 and curve.bins[0].confidence == 0.125
    assert curve.bins[2].accuracy is None and curve.bins[2].confidence is None
    assert curve.ece == pytest.approx((2 * 0.375 + (1 - 0.2501) + 0) / 4)
    assert curve.confidence == pytest.approx(1.5001 / 4) and curve.accuracy == 0.75


def test_without_points_there_is_nothing_to_score() -> None:
    curve = reliability([], []).curve("four")
    assert curve.ece is None and curve.confidence is None and curve.points == 0


@given(st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), max_size=50), st.integers(0, 50))
def test_scans_add_up(points: list[tuple[float, bool]], cut: int) -> None:
    confidence, right = [c for c, _ in points], [r for _, r in points]
    whole = reliability(confidence, right)
    parts = reliability(confidence[:cut], right[:cut])
    parts += reliability(confidence[cut:], right[cut:])
    np.testing.assert_allclose(parts.counts, whole.counts)
    assert whole.counts[0].sum() == len(points) and whole.counts[2].sum() == sum(right)
    np.testing.assert_allclose(ece_of(np.stack([whole.counts, 3 * whole.counts])), ece_of(whole.counts))


def test_the_diagram_shows_runs_beside_each_other(tmp_path: Path) -> None:
    good, bad = reliability([0.5, 0.9], [True, True]).curve(""), reliability([], []).curve("")
    plot(tmp_path / "reliability.png", {"good": good, "empty": bad}, "Confidences")
    assert (tmp_path / "reliability.png").stat().st_size > 10_000
    assert unpack([]).size == 0

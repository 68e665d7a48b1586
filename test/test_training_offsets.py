"""Offsets of the decision between classes."""

from pathlib import Path

import golden
import numpy as np
import pytest

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.segmenter import Segmenter
from cmp_seg_ros.training.offsets import shift


def test_an_offset_is_one_of_the_log_probabilities(tmp_path: Path) -> None:
    bundle, scan = Bundle.find("waffleiron24-128"), next(golden.scans()).scan
    moved = shift(bundle, {"wall": -2.0}, tmp_path / "moved")
    before, after = (Segmenter(one, "cpu-fp32", probabilities=True)(scan).probabilities for one in (bundle, moved))
    assert before is not None and after is not None
    wall = bundle.description.label_space.names.index("wall")
    odds = [p[:, wall] / (1 - p[:, wall]) for p in (before, after)]
    sure = (before[:, wall] > 0.05) & (before[:, wall] < 0.95)
    assert sure.sum() > 100
    np.testing.assert_allclose(np.log(odds[1][sure] / odds[0][sure]), -2.0, atol=0.02)  # weights are in float16
    assert moved.description.training["offsets"] == {"wall": -2.0}


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no class door"):
        shift(Bundle.find("waffleiron24-128"), {"door": 1.0}, tmp_path)

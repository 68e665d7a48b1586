"""The teacher's check of simulated images: its label space, its report, and what it says when something is missing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation.building import make_building
from cmp_seg_ros.teachers.base import Masks


@pytest.fixture(scope="module")
def teacher(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("teacher")


def test_views_are_repeatable_and_not_right_before_a_wall(teacher: ModuleType) -> None:
    first, again = (list(teacher.views(make_building(10_000_003), 2, "pinhole")) for _ in range(2))
    assert len(first) == 2
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a.rgb, b.rgb)
        assert np.median(a.depth) > 1.3


def test_the_report_scores_a_perfect_teacher_as_perfect(
    teacher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its answers are made from the truth, so that all the way from images to the report must be right."""
    seen: list[np.ndarray] = []
    rendered = teacher.Renderer.render

    def remember(self: object, *arguments: object) -> object:
        image = rendered(self, *arguments)
        seen.append(image.label)
        return image

    mosaic, structural6 = LabelSpace.load("mosaic32"), LabelSpace.load("structural6")
    to_structural6 = structural6.id_map(LabelSpace.load("indoor"))
    answers = structural6.id_map(mosaic)
    back = np.array([np.flatnonzero(answers == i)[0] for i in range(6)], dtype=np.uint8)

    def perfect(rgb: np.ndarray) -> Masks:
        truth = to_structural6[seen[-1]]
        label = np.where(truth == UNLABELLED, 3, back[np.minimum(truth, 5)]).astype(np.uint8)
        return Masks(label, np.ones(label.shape, np.float32))

    monkeypatch.setattr(teacher.Renderer, "render", remember)
    monkeypatch.setattr(teacher, "open_teacher", lambda name: SimpleNamespace(masks=perfect, label_space=mosaic))
    arguments = ["--buildings", "2", "--views", "3", "--out", str(tmp_path), "--json"]
    monkeypatch.setattr(sys, "argv", ["teacher.py", *arguments])
    assert teacher.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["views"] == 3 and len(report["places"]) == 2
    assert {value for value in report["structural6"]["iou"].values() if value is not None} == {1.0}
    assert report["structural4_primary"]["miou"] == 1.0
    assert (tmp_path / "views.png").stat().st_size > 10_000

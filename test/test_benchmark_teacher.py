"""The teacher's check of simulated images: its label space, its report, and what it says when something is missing."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation.building import make_building
from cmp_seg_ros.teachers.base import Masks

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def teacher() -> ModuleType:
    spec = importlib.util.spec_from_file_location("teacher", ROOT / "benchmarks" / "teacher.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_class_of_the_teacher_has_a_place_in_structural6() -> None:
    mosaic, structural6 = LabelSpace.load("mosaic32"), LabelSpace.load("structural6")
    assert mosaic.ids.tolist() == list(range(32))
    table = structural6.id_map(mosaic)
    names = {name: int(table[i]) for i, name in enumerate(mosaic.names)}
    for name, expected in (("wall", 0), ("rug", 1), ("ceiling", 2), ("door", 3), ("sofa", 4), ("person", 5)):
        assert names[name] == expected
    assert names["sky"] == UNLABELLED
    merged = LabelSpace.load("structural4").merge_matrix(structural6, "primary")
    assert merged.sum() == 5  # flush is ignored


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
    monkeypatch.setattr(
        sys,
        "argv",
        ["teacher.py", "--buildings", "2", "--views", "3", "--out", str(tmp_path), "--json"],
    )
    assert teacher.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["views"] == 3 and len(report["places"]) == 2
    assert {value for value in report["structural6"]["iou"].values() if value is not None} == {1.0}
    assert report["structural4_primary"]["miou"] == 1.0
    assert (tmp_path / "views.png").stat().st_size > 10_000

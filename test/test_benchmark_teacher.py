"""The teacher's check of simulated images: its label space, its report, and what it says when something is missing."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation.building import make_building

ROOT = Path(__file__).resolve().parents[1]
MODEL = "teachers/mosaic_r4_ade20k31_uint8.tflite"


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

    def perfect(rgb: np.ndarray) -> np.ndarray:
        truth = to_structural6[seen[-1]]
        return np.where(truth == UNLABELLED, 3, back[np.minimum(truth, 5)]).astype(np.uint8)

    monkeypatch.setattr(teacher.Renderer, "render", remember)
    monkeypatch.setattr(teacher, "mosaic", lambda path: perfect)
    monkeypatch.setattr(
        sys,
        "argv",
        ["teacher.py", "--model", "x.tflite", "--buildings", "2", "--views", "3", "--out", str(tmp_path), "--json"],
    )
    assert teacher.main() == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["views"] == 3 and len(report["places"]) == 2
    assert {value for value in report["structural6"]["iou"].values() if value is not None} == {1.0}
    assert report["structural4_primary"]["miou"] == 1.0
    assert (tmp_path / "views.png").stat().st_size > 10_000


def test_mosaic_labels_a_view(teacher: ModuleType, shared_data: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    label = teacher.mosaic(shared_data / MODEL)
    (image,) = teacher.views(make_building(10_000_001), 1, "pinhole")
    found = label(image.rgb)
    assert found.shape == image.label.shape and found.dtype == np.uint8
    assert found.max() < 32
    assert set(np.unique(found)) & {1, 4, 6}  # wall, floor or ceiling


def test_a_missing_or_wrong_model_is_named(teacher: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(UserError, match="there is no teacher at"):
        teacher.mosaic(tmp_path / "none.tflite")
    (tmp_path / "broken.tflite").write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no model that ai-edge-litert runs"):
        teacher.mosaic(tmp_path / "broken.tflite")


def test_without_its_library_the_command_says_what_to_install(
    teacher: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    monkeypatch.setattr(sys, "argv", ["teacher.py", "--model", "x.tflite", "--buildings", "1", "--out", str(tmp_path)])
    assert teacher.main() == 1
    assert "pip install ai-edge-litert" in capsys.readouterr().err

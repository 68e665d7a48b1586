"""Teachers: one test of the interface for all, where samples of a grid are taken, and errors with their remedies."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.teachers.base import Features, Masks, Teacher, open_teacher, resized, sample

MOSAIC = "mosaic_r4_ade20k31_uint8.tflite"


@pytest.fixture
def mosaic(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> Teacher:
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("CMP_SEG_TEACHERS", str(shared_data / "teachers"))
    return open_teacher("mosaic")


def check_interface(teacher: Teacher, rgb: np.ndarray) -> tuple[Masks | None, Features | None]:
    """What every teacher must hold to, for an (H, W, 3) image; returns what it gave."""
    height, width = rgb.shape[:2]
    uv = np.array([[0, 0], [width - 1, height - 1], [width / 3, height / 2]], np.float32)
    before, masks, features = rgb.copy(), None, None
    if teacher.label_space is not None:
        masks = teacher.masks(rgb)
        assert masks.label.shape == masks.confidence.shape == (height, width)
        assert masks.label.dtype == np.uint8 and masks.confidence.dtype == np.float32
        assert set(np.unique(masks.label)) <= set(teacher.label_space.ids.tolist())
        assert masks.confidence.min() >= 0 and masks.confidence.max() <= 1
        if masks.probabilities is not None:
            assert masks.probabilities.dtype == np.float32
            assert masks.probabilities.shape[2] == len(teacher.label_space.classes)
            np.testing.assert_allclose(masks.at(uv).sum(axis=1), 1, atol=1e-4)
        again = teacher.masks(rgb)
        np.testing.assert_array_equal(again.label, masks.label)
    else:
        with pytest.raises(UserError, match="no masks"):
            teacher.masks(rgb)
    if teacher.dimension:
        features = teacher.features(rgb)
        assert features.values.dtype == np.float32 and features.values.shape[2] == teacher.dimension
        assert features.size == (height, width) and np.isfinite(features.values).all()
        assert features.at(uv).shape == (3, teacher.dimension)
    else:
        with pytest.raises(UserError, match="no features"):
            teacher.features(rgb)
    np.testing.assert_array_equal(rgb, before)
    return masks, features


def scenery(height: int, width: int) -> np.ndarray:
    """An image of smooth areas with edges, the same scene at every size."""
    v, u = np.mgrid[0:height, 0:width]
    x, y = (u + 0.5) / width, (v + 0.5) / height
    rgb = np.stack([200 * (y < 0.3) + 40, 150 * x + 60 * (y > 0.7), 120 + 90 * np.sin(5 * x)], axis=2)
    rgb[(np.abs(x - 0.6) < 0.1) & (y > 0.4)] = 30
    return rgb.astype(np.uint8)


def test_samples_of_a_ramp_are_exact_at_pixel_centres() -> None:
    height, width = 30, 40
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    image = np.stack([u, v], axis=2)
    coarse = image.reshape(6, 5, 8, 5, 2).mean(axis=(1, 3))  # (6, 8, 2), each the mean of its pixels' coordinates
    uv = np.random.default_rng(0).uniform([2, 2], [37, 27], (50, 2)).astype(np.float32)
    np.testing.assert_allclose(sample(coarse, (height, width), uv), uv, atol=1e-4)
    np.testing.assert_allclose(sample(coarse, (height, width), np.array([[0, 0]])), [[2, 2]])  # the border continues
    pixels = np.stack([u.ravel(), v.ravel()], axis=1)
    for shift in (0.0, 0.375):
        expected = sample(coarse[..., :1], (height, width), pixels, shift).reshape(height, width)
        np.testing.assert_allclose(resized(coarse[..., 0], (height, width), shift), expected, atol=1e-3)


def test_mosaic_loads_in_silence(shared_data: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ai_edge_litert")
    open_teacher(shared_data / "teachers" / MOSAIC)
    os.write(2, b"heard again")
    assert capfd.readouterr().err == "heard again"


def test_mosaic_holds_to_the_interface_and_its_samples_are_where_its_output_is(mosaic: Teacher) -> None:
    rgb = scenery(300, 400)
    masks, _ = check_interface(mosaic, rgb)
    assert masks is not None
    v, u = np.mgrid[0:300, 0:400].astype(np.float32)
    there = masks.at(np.stack([u.ravel(), v.ravel()], axis=1)).argmax(axis=1).reshape(300, 400)
    shifted = masks._replace(shift=0.0).at(np.stack([u.ravel(), v.ravel()], axis=1)).argmax(axis=1).reshape(300, 400)
    agreement = (there == masks.label).mean()
    assert agreement > 0.98 and agreement > (shifted == masks.label).mean()


def test_features_of_two_sizes_of_a_scene_agree(mosaic: Teacher) -> None:
    uv = np.random.default_rng(0).uniform(10, 190, (200, 2)).astype(np.float32)
    small = mosaic.features(scenery(200, 200)).at(uv)
    large = mosaic.features(scenery(800, 800)).at(4 * (uv + 0.5) - 0.5)
    cosine = (small * large).sum(axis=1) / np.linalg.norm(small, axis=1) / np.linalg.norm(large, axis=1)
    assert np.median(cosine) > 0.95


def test_a_missing_teacher_or_wrong_weights_are_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMP_SEG_TEACHERS", str(tmp_path))
    with pytest.raises(UserError, match=rf"not at {tmp_path / MOSAIC}: .*mlcommons/mobile_open"):
        open_teacher("mosaic")
    with pytest.raises(UserError, match=r"no teacher 'mosaik'.*mosaic"):
        open_teacher("mosaik")
    (tmp_path / "weights.txt").write_text("nothing")
    with pytest.raises(UserError, match="holds no weights of a known teacher"):
        open_teacher(tmp_path / "weights.txt")
    pytest.importorskip("ai_edge_litert")
    (tmp_path / MOSAIC).write_bytes(b"nothing")
    with pytest.raises(UserError, match="is no model that ai-edge-litert runs"):
        open_teacher("mosaic")


def test_without_its_library_a_teacher_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    (tmp_path / MOSAIC).write_bytes(b"nothing")
    with pytest.raises(UserError, match="pip install ai-edge-litert"):
        open_teacher(tmp_path / MOSAIC)

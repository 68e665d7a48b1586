"""Unlikeness separates strange scans from those of a training; temperature is what makes confidences right."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rooms import box_rooms

from cmp_seg_ros import Scan, Segmenter, familiarity, strange_intensity
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets.frame import Returns
from cmp_seg_ros.kernels.smoothness import local_variation
from cmp_seg_ros.remarks import StrangeIntensity, Unfamiliar
from cmp_seg_ros.scan import Labels
from cmp_seg_ros.training.calibration import fit_temperature
from cmp_seg_ros.waffleiron.preprocess import prepare


def test_a_known_temperature_is_found() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (20_000, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    target = (p.cumsum(axis=1) > rng.random((len(p), 1))).argmax(axis=1).astype(np.uint8)
    assert fit_temperature((2.5 * logits).astype(np.float32), target) == pytest.approx(2.5, rel=0.05)


def test_distance_is_that_of_mahalanobis() -> None:
    rng = np.random.default_rng(0)
    found = rng.normal(size=(4000, 3)) @ np.array([[2.0, 0, 0], [1, 1, 0], [0, 0, 5]]).T + [1, 2, 3]
    fitted = familiarity.fit(found)
    distances = np.array([fitted.distance(one) for one in found])
    assert np.mean(distances**2) == pytest.approx(1, abs=0.05)
    assert np.mean(distances > fitted.threshold) == pytest.approx(0.01, abs=0.008)
    assert fitted.distance(np.array([1.0, 2, 3 + 50])) == pytest.approx(10 / np.sqrt(3), rel=0.1)


def test_strange_scans_are_told_from_those_of_the_training(tiny_bundle: Path, calibrated: Bundle) -> None:
    bundle = calibrated
    assert bundle.description.familiarity is not None and bundle.hash != Bundle(tiny_bundle).hash
    segmenter = Segmenter(bundle, "reference")
    threshold = bundle.description.familiarity.threshold

    def unlikeness(xyz: np.ndarray) -> float:
        found = segmenter(Scan(xyz)).unlikeness
        assert found is not None
        return found

    usual = [unlikeness(scan.xyz) for scan in box_rooms(range(100, 108))]
    assert np.median(usual) < threshold
    room = box_rooms(range(100, 101))[0].xyz
    strange = {
        "millimetres": 1000 * room,
        "feet": room / 0.3048 * 3,
        "axes": room[:, [1, 2, 0]],
        "covered": 0.05 * room,
        "outdoor": box_rooms(range(3, 4), "outdoor")[0].xyz,
    }
    for name, xyz in strange.items():
        assert unlikeness(xyz) > max(threshold, max(usual)), name
    assert segmenter(Scan(strange["feet"])).unfamiliar in {*familiarity.SUBJECTS, familiarity.CLASSES}
    told = [segmenter(Scan(scan.xyz)) for scan in box_rooms(range(100, 108))]
    assert [bool(labels.unfamiliar) for labels in told] == [(labels.unlikeness or 0) > threshold for labels in told]
    assert not all(labels.unfamiliar for labels in told)
    assert Segmenter.from_bundle(tiny_bundle, "reference")(Scan(room)).unlikeness is None


def test_temperature_changes_confidences_and_no_label(tiny_bundle: Path, tmp_path: Path) -> None:
    warm = Bundle(tiny_bundle).description.model_copy(update={"temperature": 3.0})
    weights = Bundle(tiny_bundle).weights_path.read_bytes()
    Bundle.write(tmp_path / "warm", weights, **warm.model_dump(exclude={"weights_sha256"}))
    scan = Scan(box_rooms(range(1))[0].xyz)
    cold, hot = (Segmenter.from_bundle(path, "reference")(scan) for path in (tiny_bundle, tmp_path / "warm"))
    np.testing.assert_array_equal(cold.label, hot.label)
    assert hot.confidence.mean() < cold.confidence.mean()


def test_one_strange_scan_among_usual_ones_is_not_remarked() -> None:
    usual, strange = Labels(np.zeros(0, np.uint8), np.zeros(0, np.float32), unlikeness=1.0), labels_of_strange(5.0)
    watch = Unfamiliar()
    assert [remark.kind for remark in watch(strange, "scan 0")] == ["unfamiliar"]
    watch = Unfamiliar()
    told = [len(list(watch(labels, "a scan"))) for labels in [usual] * 9 + [strange] * 8 + [usual] * 2 + [strange]]
    assert told == [0] * 14 + [1] * 3 + [0, 0, 1]


def labels_of_strange(unlikeness: float) -> Labels:
    return Labels(np.zeros(0, np.uint8), np.zeros(0, np.float32), unlikeness=unlikeness, unfamiliar="heights")


def test_neighbourhoods_vary_as_numpy_says() -> None:
    rng = np.random.default_rng(0)
    xyz, value = rng.normal(size=(50, 3)).astype(np.float32), rng.normal(size=50).astype(np.float32)
    xyz[:25, 2] = 1  # a plane
    neighbours = np.stack([rng.permutation(25)[:9] + (0 if i < 25 else 25) for i in range(50)])
    chosen = np.arange(0, 50, 3)
    variance, flat, nearest, steep, level = local_variation(xyz, neighbours, value, chosen, 0.01)
    np.testing.assert_allclose(variance, value[neighbours[chosen]].var(axis=1), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(flat, chosen < 25)
    np.testing.assert_allclose(nearest, np.abs(value[neighbours[chosen, 0]] - value[chosen]), rtol=1e-5)
    offset = xyz[neighbours[chosen]] - xyz[chosen][:, None]
    above = np.abs(offset[..., 2]) > np.linalg.norm(offset[..., :2], axis=2)
    away = np.abs(value[neighbours[chosen]] - value[chosen][:, None])
    assert (steep, level) == (pytest.approx(away[above].mean()), pytest.approx(away[~above].mean()))


def test_unit_and_offset_of_intensities_do_not_matter(calibrated: Bundle) -> None:
    scan = box_rooms(range(1))[0]
    voxels, _ = prepare(scan.xyz, scan.intensity, calibrated.points.preprocess)
    one, other = (
        strange_intensity.figures(voxels.xyz, voxels.neighbours, value)
        for value in (voxels.features[:, 0], 7 * voxels.features[:, 0] + 100)
    )
    assert one is not None and other is not None
    np.testing.assert_allclose(one, other, atol=1e-3)
    assert strange_intensity.figures(voxels.xyz, voxels.neighbours, np.ones(len(voxels), np.float32)) is None


def test_two_kinds_are_told_apart() -> None:
    rng = np.random.default_rng(0)
    usual, other = rng.normal(0, 1, (2000, 3)), rng.normal([0, 0, 4], 3, (2000, 3))
    choice = familiarity.fit_choice(usual, other, 0.95)
    over = [np.mean([choice.evidence(one) > choice.threshold for one in found]) for found in (usual, other)]
    assert over[0] == pytest.approx(0.05, abs=0.005) and over[1] > 0.9
    log = -0.5 * (usual[0] ** 2).sum(), -0.5 * (((usual[0] - [0, 0, 4]) / 3) ** 2).sum() - 3 * np.log(3)
    assert choice.evidence(usual[0]) == pytest.approx(2 * (log[1] - log[0]) / 3, abs=0.25)


def test_strange_intensities_are_left_away(calibrated: Bundle, tiny_bundle: Path) -> None:
    segmenter = Segmenter(calibrated, "reference", intensity_mean=100.0, intensity_std=60.0)
    scans = box_rooms(range(100, 112))

    def labels(intensity: Callable[[Returns], np.ndarray | None]) -> list[Labels]:
        return [segmenter(Scan(scan.xyz, intensity(scan))) for scan in scans]

    usual, bare = labels(lambda scan: scan.intensity), labels(lambda scan: None)
    assert np.mean([found.strange_intensity for found in usual]) < 0.5
    kept = [i for i, found in enumerate(usual) if not found.strange_intensity]
    assert any((usual[i].confidence != bare[i].confidence).any() for i in kept)
    assert all(found.intensity_unlikeness is None for found in bare)
    rng = np.random.default_rng(0)
    strange = {
        "constant": lambda scan: np.full(len(scan.xyz), 130.0),
        "noise": lambda scan: rng.uniform(0, 200, len(scan.xyz)),
        "steps": lambda scan: (np.floor(scan.xyz / 1.5).astype(int) @ [7, 11, 13]) % 5 * 40.0,
        "levels": lambda scan: np.where(scan.intensity > 80, 200.0, 0.0),
    }
    for name, intensity in strange.items():
        for found, without in zip(labels(intensity), bare, strict=True):
            assert found.strange_intensity, name
            np.testing.assert_array_equal(found.label, without.label)
            np.testing.assert_array_equal(found.confidence, without.confidence)
    old = Segmenter.from_bundle(tiny_bundle, "reference")(Scan(scans[0].xyz, np.full(len(scans[0].xyz), 9.0)))
    assert old.intensity_unlikeness is None and not old.strange_intensity


def test_strange_intensities_are_remarked_if_most_scans_have_them() -> None:
    watch = StrangeIntensity()
    odd = Labels(np.zeros(0, np.uint8), np.zeros(0, np.float32), intensity_unlikeness=3.0, strange_intensity=True)
    usual = Labels(np.zeros(0, np.uint8), np.zeros(0, np.float32), intensity_unlikeness=-3.0)
    told = [[remark.kind for remark in watch(labels, "a scan")] for labels in [usual] * 3 + [odd] * 4]
    assert told == [[]] * 6 + [["strange_intensity"]]

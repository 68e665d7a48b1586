"""Unlikeness separates strange scans from those of a training; temperature is what makes confidences right."""

from pathlib import Path

import numpy as np
import pytest

from cmp_seg_ros import Scan, Segmenter, familiarity
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets import boxes
from cmp_seg_ros.datasets.frame import Returns
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.remarks import Unfamiliar
from cmp_seg_ros.scan import Labels
from cmp_seg_ros.training.calibration import calibrate, fit_temperature


def training_scans(seeds: range, kind: str = "plain") -> list[Returns]:
    table, found = LabelSpace.load("structural6").id_map(LabelSpace.load("indoor")), []
    for frame in boxes.DataSet(seeds, 1, "rings-16", kind):
        scan = frame.returns()
        found.append(Returns(*(column[::4] for column in scan._replace(label=table[scan.label]))))
    return found


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


def test_strange_scans_are_told_from_those_of_the_training(tiny_bundle: Path, tmp_path: Path) -> None:
    scans = training_scans(range(40))
    bundle = calibrate(Bundle(tiny_bundle), scans, tmp_path / "bundle", "reference")
    assert bundle.description.familiarity is not None and bundle.hash != Bundle(tiny_bundle).hash
    segmenter = Segmenter(bundle, "reference")
    threshold = bundle.description.familiarity.threshold

    def unlikeness(xyz: np.ndarray) -> float:
        found = segmenter(Scan(xyz)).unlikeness
        assert found is not None
        return found

    usual = [unlikeness(scan.xyz) for scan in training_scans(range(100, 108))]
    assert np.median(usual) < threshold
    room = training_scans(range(100, 101))[0].xyz
    strange = {
        "millimetres": 1000 * room,
        "feet": room / 0.3048 * 3,
        "axes": room[:, [1, 2, 0]],
        "covered": 0.05 * room,
        "outdoor": training_scans(range(3, 4), "outdoor")[0].xyz,
    }
    for name, xyz in strange.items():
        assert unlikeness(xyz) > max(threshold, max(usual)), name
    assert segmenter(Scan(1000 * room)).unfamiliar in ("distances", "how many voxels")
    told = [segmenter(Scan(scan.xyz)) for scan in training_scans(range(100, 108))]
    assert [bool(labels.unfamiliar) for labels in told] == [(labels.unlikeness or 0) > threshold for labels in told]
    assert not all(labels.unfamiliar for labels in told)
    assert Segmenter.from_bundle(tiny_bundle, "reference")(Scan(room)).unlikeness is None


def test_temperature_changes_confidences_and_no_label(tiny_bundle: Path, tmp_path: Path) -> None:
    warm = Bundle(tiny_bundle).description.model_copy(update={"temperature": 3.0})
    weights = Bundle(tiny_bundle).weights_path.read_bytes()
    Bundle.write(tmp_path / "warm", weights, **warm.model_dump(exclude={"weights_sha256"}))
    scan = Scan(training_scans(range(1))[0].xyz)
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

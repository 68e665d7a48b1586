"""The one way from a scan to its labels: order, frames, intensities, label spaces, and scans that are no good."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from engines import PREPROCESS, MakeBundle, changed
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cmp_seg_ros import Scan, Segmenter, UserError
from cmp_seg_ros.bundle import Bundle, IntensityConfig
from cmp_seg_ros.intensity import SCANS_TO_LEARN, IntensityScale
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Arrays, Float32, Labels


def room(points: int = 3000, seed: int = 0) -> Scan:
    """Random points with intensities."""
    random = np.random.default_rng(seed)
    xyz = random.uniform([-6, -4, -1], [6, 4, 2], (points, 3)).astype(np.float32)
    return Scan(xyz, random.uniform(0, 200, points).astype(np.float32))


@pytest.fixture(scope="module")
def segmenter(tiny_bundle: Path) -> Segmenter:
    return Segmenter.from_bundle(tiny_bundle, "reference", intensity_mean=100, intensity_std=50)


def assert_labels(labels: Labels, scan: Scan, space: LabelSpace) -> None:
    """Every return in the tiny model's view has a class of the space and a probability, all else has neither."""
    with np.errstate(invalid="ignore"):
        valid = scan.valid() & (scan.xyz > [-20, -20, -3]).all(axis=1) & (scan.xyz < [20, 20, 5]).all(axis=1)
    assert labels.label.dtype == np.uint8 and labels.confidence.dtype == np.float32
    assert labels.label.shape == labels.confidence.shape == (len(scan),)
    assert (labels.label[~valid] == UNLABELLED).all() and (labels.confidence[~valid] == 0).all()
    assert labels.stages_ms.keys() == {"preprocess", "network", "backfill"}
    if labels.voxels:
        assert set(labels.label[valid]) <= set(space.ids)
        assert (labels.confidence[valid] > 1e-3).all() and (labels.confidence <= 1).all()
    else:
        assert (labels.label == UNLABELLED).all()


def test_every_point_has_a_label_in_its_own_place(segmenter: Segmenter) -> None:
    scan = room()
    labels = segmenter(scan)
    assert_labels(labels, scan, segmenter.label_space)
    assert len(set(labels.label)) > 1
    assert labels.voxel_size == 0.1 and 1000 < labels.voxels <= 3000


def test_points_beyond_the_view_have_no_label(segmenter: Segmenter) -> None:
    """Also with extrinsics, which turn the view; what is in it is labelled all the same."""
    far = np.array([[60, 0, 0], [0, -20.001, 0], [0, 0, 5.5], [0, 0, -60], [1e6, 0, 0], [0, 19.9, 0]], np.float32)
    scan = Scan(np.concatenate([room().xyz, far]), np.append(room().intensity, np.full(6, 30, np.float32)))
    segmenter.probabilities = True
    labels = segmenter(scan)
    segmenter.probabilities = False
    assert labels.label[-6:].tolist() == [UNLABELLED] * 5 + [labels.label[-1]] and labels.label[-1] != UNLABELLED
    assert (labels.confidence[-6:-1] == 0).all() and (labels.probabilities[-6:-1] == 0).all()
    assert (labels.label[:-6] != UNLABELLED).all() and labels.probabilities[-1].sum() == pytest.approx(1)
    hanging = Scan(scan.xyz * np.array([1, -1, -1], np.float32), scan.intensity)
    segmenter.rotation = np.diag([1, -1, -1]).astype(np.float32)
    np.testing.assert_array_equal(segmenter(hanging).label, labels.label)
    segmenter.rotation = None
    # Nor does a point that is no measurement change the others.
    without = segmenter(Scan(scan.xyz[:-2], scan.intensity[:-2]))
    with_it = segmenter(Scan(scan.xyz[:-1], scan.intensity[:-1]))
    np.testing.assert_array_equal(with_it.confidence[:-1], without.confidence)


def test_a_stray_return_changes_no_label_where_voxels_are_anchored(make_bundle: MakeBundle) -> None:
    """It does where they start at the minimum of the cloud, as in published models."""
    stray = Scan(np.append(room().xyz, [[-217.33, 0.04, 0]], axis=0), np.append(room().intensity, [9.0]))
    changed = {}
    for origin in ("lidar", "minimum"):
        bundle = make_bundle(PREPROCESS.model_copy(update={"voxel_origin": origin}))
        with_it, without = (Segmenter(bundle, "reference", None, None, 30, 9)(scan) for scan in (stray, room()))
        assert with_it.label[-1] == UNLABELLED
        changed[origin] = (with_it.label[:-1] != without.label).mean()
    assert changed["lidar"] == 0 < changed["minimum"]


def test_points_without_a_return_change_nothing(segmenter: Segmenter) -> None:
    scan = room()
    assert scan.intensity is not None
    holes = np.zeros(6000, bool)
    holes[::2] = True
    xyz, intensity = np.full((6000, 3), np.nan, np.float32), np.full(6000, 7, np.float32)
    xyz[holes], intensity[holes] = scan.xyz, scan.intensity
    xyz[1::4] = 0
    xyz[3::8, 1] = np.inf
    gappy = Scan(xyz, intensity, shape=(6, 1000))
    labels, alone = segmenter(gappy), segmenter(scan)
    assert_labels(labels, gappy, segmenter.label_space)
    np.testing.assert_array_equal(labels.label[holes], alone.label)
    np.testing.assert_array_equal(labels.confidence[holes], alone.confidence)


def test_a_tilted_lidar_sees_what_an_upright_one_sees(tiny_bundle: Path, segmenter: Segmenter) -> None:
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_euler("xyz", [150, -20, 75], degrees=True).as_matrix()
    transform[:3, 3] = 1, 2, 3  # only the rotation counts
    scan = room()
    tilted = replace(scan, xyz=scan.xyz @ transform[:3, :3].astype(np.float32))
    mounted = Segmenter.from_bundle(tiny_bundle, "reference", transform, intensity_mean=100, intensity_std=50)
    agreement = (mounted(tilted).label == segmenter(scan).label).mean()
    assert agreement > 0.99  # rounding moves single points over the border of a voxel
    assert (segmenter(tilted).label == segmenter(scan).label).mean() < 0.9


def test_another_label_space_adds_the_probabilities(tiny_bundle: Path, segmenter: Segmenter) -> None:
    merged = Segmenter.from_bundle(
        tiny_bundle, "reference", label_space="structural4", intensity_mean=100, intensity_std=50
    )
    assert merged.label_space.name == "structural4"
    scan = room()
    labels, full = merged(scan), segmenter(scan)
    assert_labels(labels, scan, merged.label_space)
    assert (labels.confidence >= full.confidence - 1e-6).all()
    np.testing.assert_array_equal(labels.label[full.label < 3] == 3, labels.label[full.label < 3] > 2)
    assert (labels.label[full.label >= 3] == 3).all()  # a leading part of non-structural leads as a whole
    with pytest.raises(UserError, match="'indoor' has no mapping from 'structural6'"):
        Segmenter.from_bundle(tiny_bundle, "reference", label_space="indoor")


def test_ids_of_the_space_are_what_comes_out(tiny_bundle: Path, tmp_path: Path, segmenter: Segmenter) -> None:
    names = LabelSpace.load("structural6").names
    space: dict[str, Any] = {
        "name": "sparse",
        "classes": [{"name": n, "id": 40 * i + 2, "color": [i, i, i]} for i, n in enumerate(names)],
        "mappings": {"structural6": {n: n for n in names}},
    }
    (tmp_path / "sparse.yaml").write_text(yaml.safe_dump(space))
    path = str(tmp_path / "sparse.yaml")
    sparse = Segmenter.from_bundle(tiny_bundle, "reference", label_space=path, intensity_mean=100, intensity_std=50)
    np.testing.assert_array_equal(sparse(room()).label, 40 * segmenter(room()).label + 2)


@pytest.mark.parametrize("label_space", [None, "structural4"])
def test_probabilities_of_every_class_on_demand(tiny_bundle: Path, label_space: str | None) -> None:
    segmenter = Segmenter.from_bundle(
        tiny_bundle, "reference", label_space=label_space, intensity_mean=100, intensity_std=50
    )
    scan = room()
    scan.xyz[::7] = np.nan
    without = segmenter(scan)
    assert without.probabilities is None
    segmenter.probabilities = True
    labels = segmenter(scan)
    assert labels.probabilities is not None and labels.probabilities.dtype == np.float32
    assert labels.probabilities.shape == (len(scan), len(segmenter.label_space.classes))
    np.testing.assert_array_equal(labels.label, without.label)
    np.testing.assert_array_equal(labels.probabilities.max(axis=1), labels.confidence)
    np.testing.assert_array_equal(labels.confidence, without.confidence)
    valid = scan.valid()
    np.testing.assert_allclose(labels.probabilities.sum(axis=1), valid, atol=1e-6)
    ids = segmenter.label_space.ids[labels.probabilities.argmax(axis=1)]
    np.testing.assert_array_equal(ids[valid], labels.label[valid])
    nothing = segmenter(Scan(np.full((4, 3), np.nan, np.float32)))
    assert nothing.probabilities is not None and not nothing.probabilities.any()


def test_coarser_voxels_are_those_of_a_coarser_bundle(tiny_bundle: Path) -> None:
    """Labels depend on the voxel size, and on no size that was set before."""
    fine_bundle = Bundle(tiny_bundle)
    preprocess = fine_bundle.points.preprocess.model_copy(update={"voxel_size": 0.178})
    coarse = changed(fine_bundle, preprocess=preprocess)
    expected = Segmenter(coarse, "reference", intensity_mean=100, intensity_std=50)(room())
    segmenter = Segmenter.from_bundle(tiny_bundle, "reference", intensity_mean=100, intensity_std=50)
    fine = segmenter(room())
    segmenter.voxel_size = 0.178
    labels = segmenter(room())
    assert_labels(labels, room(), segmenter.label_space)
    assert labels.voxel_size == 0.178 and labels.voxels == expected.voxels < fine.voxels
    np.testing.assert_array_equal(labels.label, expected.label)
    np.testing.assert_array_equal(labels.confidence, expected.confidence)
    segmenter.voxel_size = fine.voxel_size
    np.testing.assert_array_equal(segmenter(room()).confidence, fine.confidence)
    for size in (0.0, -0.1, NAN, INF, 1e-9):
        with pytest.raises(UserError, match="invalid voxel size"):
            segmenter.voxel_size = size
    assert segmenter.voxel_size == fine.voxel_size


NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    "xyz",
    [
        np.empty((0, 3)),
        np.full((50, 3), NAN),
        np.zeros((50, 3)),
        [[1, 2, 0.5]],
        [[1, 2, 0.5]] * 40,
        np.eye(3),
        np.full((20, 3), 500.0),
        [[1, 1, 1], [900, 900, 900], [1e30, 0, 0], [-3e38, 3e38, 0]],
        [[INF, 0, 0], [0, -INF, 1], [1, 1, NAN]],
        [[1, 2, 0.5], [NAN, 0, 0]],
    ],
    ids=["empty", "nan", "zero", "one", "same", "few", "outside", "far", "infinite", "one_of_two"],
)
@pytest.mark.parametrize("intensity", [None, 0.0, NAN, INF, 1e38])
def test_scans_that_are_no_good(tiny_bundle: Path, xyz: Any, intensity: float | None) -> None:
    segmenter = Segmenter.from_bundle(tiny_bundle, "reference")
    points = np.array(xyz, np.float32).reshape(-1, 3)
    scan = Scan(points, None if intensity is None else np.full(len(points), intensity, np.float32))
    for _ in range(2):
        assert_labels(segmenter(scan), scan, segmenter.label_space)
    assert_labels(segmenter(room()), room(), segmenter.label_space)  # and it goes on


@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.floats(0.01, 100))
@settings(max_examples=40)
def test_any_small_scan(segmenter: Segmenter, seed: int, points: int, size: float) -> None:
    random = np.random.default_rng(seed)
    xyz = random.normal(0, size, (points, 3)).astype(np.float32)
    xyz[random.random(points) < 0.2] = np.nan
    scan = Scan(xyz, random.normal(0, 100, points).astype(np.float32))
    assert_labels(segmenter(scan), scan, segmenter.label_space)


def test_intensities_reach_the_network_as_the_bundle_says(tiny_bundle: Path) -> None:
    """Raw, fixed and per sensor differ in the numbers; a fixed scale equals the same scale given by a sensor."""
    bundle = Bundle(tiny_bundle)

    def labels(mode: str, **numbers: float) -> Float32:
        intensity = IntensityConfig(mode=mode, **numbers)  # type: ignore[arg-type]
        given = {"intensity_mean": 100.0, "intensity_std": 50.0} if mode == "per_sensor" else {}
        return Segmenter(changed(bundle, intensity=intensity), "reference", **given)(room()).confidence

    np.testing.assert_array_equal(labels("fixed", mean=100, std=50), labels("per_sensor"))
    assert np.abs(labels("raw") - labels("per_sensor")).max() > 0.01


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_nan_and_infinity_are_no_labels(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    """One logit of one voxel: no label of the scan is believed. The next scan finds the segmenter as it was."""
    segmenter = Segmenter.from_bundle(tiny_bundle, "reference", intensity_mean=100, intensity_std=50)
    expected, sound = segmenter(room()), segmenter._engine

    class Faulty:
        name, precision = "faulty", "fp16"

        def __call__(self, inputs: Arrays) -> Arrays:
            logits = sound(inputs)["logits"].copy()
            logits[7, 2] = value
            return {"logits": logits}

    monkeypatch.setattr(segmenter, "_engine", Faulty())
    said = rf"'faulty-fp16' returned NaN or infinity for 1 of {expected.voxels:,} voxels; use engine 'cpu-fp32'"
    with pytest.raises(UserError, match=said):
        segmenter(room())
    monkeypatch.setattr(segmenter, "_engine", sound)
    np.testing.assert_array_equal(segmenter(room()).label, expected.label)


# Intensities alone


def test_absent_intensities_are_zero() -> None:
    scale = IntensityScale(IntensityConfig(mode="fixed", mean=5, std=2))
    np.testing.assert_array_equal(scale(None, 3), np.zeros(3, np.float32))
    np.testing.assert_array_equal(scale(np.array([9, NAN, 5], np.float32), 3), [2, 0, 0])


def test_statistics_are_learnt_from_ten_scans_then_held() -> None:
    random = np.random.default_rng(0)
    scale = IntensityScale(IntensityConfig(mode="per_sensor"))
    scans = [random.normal(300, 40, 2000).astype(np.float32) for _ in range(SCANS_TO_LEARN)]
    for scan in scans:
        assert scale.learning
        scaled = scale(scan, len(scan))
        assert abs(scaled.mean()) < 0.3 and abs(scaled.std() - 1) < 0.1
    everything = np.concatenate(scans)
    assert not scale.learning
    assert scale.mean == pytest.approx(everything.mean(), rel=1e-4)
    assert scale.std == pytest.approx(everything.std(), rel=1e-3)
    held = scale.mean
    scale(np.full(100, 9000, np.float32), 100)
    assert scale.mean == held


def test_scans_without_intensities_teach_nothing() -> None:
    scale = IntensityScale(IntensityConfig(mode="per_sensor"))
    for _ in range(2 * SCANS_TO_LEARN):
        scale(None, 5)
        scale(np.full(5, NAN, np.float32), 5)
        np.testing.assert_array_equal(scale(np.array([INF, 3e38, -1e9], np.float32), 3), np.zeros(3))
        scale(np.empty(0, np.float32), 0)
    assert scale.learning and (scale.mean, scale.std) == (0, 1)


def test_equal_intensities_become_zero() -> None:
    scale = IntensityScale(IntensityConfig(mode="per_sensor"))
    np.testing.assert_array_equal(scale(np.full(5, 80, np.float32), 5), np.zeros(5))

"""The trainer: exact resume, augmentation that keeps truth with its point, and a bundle at the end that works."""

from pathlib import Path

import numpy as np
import pytest
import torch

from cmp_seg_ros import Scan, Segmenter, UserError
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation import version
from cmp_seg_ros.training import cache as cache_module
from cmp_seg_ros.training.augment import augment, voxels_and_targets
from cmp_seg_ros.training.cache import ScanCache, TrainingScan
from cmp_seg_ros.training.config import AugmentConfig, TrainConfig
from cmp_seg_ros.training.log import read
from cmp_seg_ros.training.loop import Trainer
from cmp_seg_ros.training.pictures import curves

WALL, FLOOR, CEILING = 0, 1, 2


def box_room(seed: int, points: int = 1500) -> TrainingScan:
    """Rays from inside an empty box: floor, ceiling and walls by analytic intersection."""
    rng = np.random.default_rng(seed)
    half = np.array([*rng.uniform(2, 6, 2), 1.4])
    ring = rng.integers(0, 16, points)
    azimuth, elevation = rng.uniform(-np.pi, np.pi, points), np.deg2rad(np.linspace(-40, 40, 16))[ring]
    ray = np.stack(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
    )
    distance = half / np.abs(ray)
    axis = distance.argmin(axis=1)
    label = np.where(axis < 2, WALL, np.where(ray[:, 2] < 0, FLOOR, CEILING))
    label[::100] = UNLABELLED  # ghosts behind mirrors have no truth
    xyz = ray * distance.min(axis=1)[:, None]
    return TrainingScan(
        xyz.astype(np.float32), rng.random(points, np.float32), ring.astype(np.uint8), label.astype(np.uint8)
    )


@pytest.fixture
def cache(tmp_path: Path) -> ScanCache:
    cache = ScanCache(tmp_path / "scans", "structural6", 2)
    cache.path(0).parent.mkdir(parents=True)
    for building in [*range(4), *range(100, 102)]:
        rooms = {i: box_room(10 * building + i) for i in range(2)}
        arrays = {f"{i}.{name}": value for i, room in rooms.items() for name, value in room._asdict().items()}
        np.savez(cache.path(building), **arrays)
    return cache


def config(**changes: object) -> TrainConfig:
    values = {
        "name": "boxes",
        "data": {
            "first_building": 0,
            "buildings": 4,
            "scans_per_building": 2,
            "first_validation_building": 100,
            "validation_buildings": 2,
        },
        "network": {"width": 16, "depth": 3, "outputs": 6, "drop_path": 0.1},
        "preprocess": {
            "voxel_size": 0.3,
            "fov_min": [-10, -10, -3],
            "fov_max": [10, 10, 3],
            "grids": [[40, 40], [40, 12], [40, 12]],
        },
        "optimiser": {"learning_rate": 0.01},
        "steps": 8,
        "validate_every": 100,
    }
    return TrainConfig.model_validate({**values, **changes})


def trainer(cache: ScanCache, out: Path, **changes: object) -> Trainer:
    out.mkdir(exist_ok=True)
    return Trainer(config(**changes), cache, cache, out, workers=0)


def test_resume_is_exact(cache: ScanCache, tmp_path: Path) -> None:
    whole = trainer(cache, tmp_path / "whole")
    whole.run()

    first = trainer(cache, tmp_path / "parts")
    assert first.run(stop=lambda: first.progress.step == 3) is None
    torch.manual_seed(1234)  # whatever happened in between
    second = trainer(cache, tmp_path / "parts")
    second.run()

    assert second.progress.step == whole.progress.step == 8
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name]), name


def test_checkpoint_of_another_configuration_is_refused(cache: ScanCache, tmp_path: Path) -> None:
    first = trainer(cache, tmp_path / "run")
    first.save()
    with pytest.raises(UserError, match="another configuration"):
        trainer(cache, tmp_path / "run", batch=1).run()


def test_learns_boxes_and_writes_a_bundle_that_labels_them(cache: ScanCache, tmp_path: Path) -> None:
    run = trainer(cache, tmp_path / "run", steps=120)
    bundle = run.run()
    assert bundle is not None
    assert run.progress.score > 0.9
    assert bundle.description.measured["validation"]["primary_miou"] == pytest.approx(run.progress.score, abs=1e-4)

    room = box_room(999)
    labels = Segmenter.from_bundle(bundle.path, engine="reference")(Scan(room.xyz, room.intensity))
    assert (labels.label == room.label).mean() > 0.9
    curves(tmp_path / "run" / "log.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_the_last_step_is_validated_once(cache: ScanCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    validated = []
    validate = Trainer.validate

    def counted(run: Trainer) -> None:
        validated.append(run.progress.step)
        validate(run)

    monkeypatch.setattr(Trainer, "validate", counted)
    bundles = [trainer(cache, tmp_path / "run", validate_every=4).run() for _ in range(2)]
    assert validated == [4, 8]
    logged = [int(row["step"]) for row in read(tmp_path / "run" / "log.csv") if row["name"] == "primary_miou"]
    assert logged == [4, 8]
    first, again = (bundle.description.measured["validation"] for bundle in bundles if bundle is not None)
    assert first == again and set(first) > {"miou", "primary_miou", "iou_wall"}

    assert trainer(cache, tmp_path / "run", validate_every=100, steps=10).run() is not None
    assert validated == [4, 8, 10]


def test_another_simulator_has_a_cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans, changed = ScanCache(tmp_path, "structural6", 2), tmp_path / "sensor.yaml"
    before = scans.path(7)
    changed.write_text("beams: 16")
    monkeypatch.setattr(version, "data_files", lambda: [changed])
    monkeypatch.setattr(cache_module, "simulator_version", version.simulator_version.__wrapped__)
    after = scans.path(7)
    assert before != after and before.name == after.name
    changed.write_text("beams: 32")
    assert scans.path(7) not in (before, after)


def test_time_budget_ends_the_run(cache: ScanCache, tmp_path: Path) -> None:
    run = trainer(cache, tmp_path / "run", steps=1_000_000, hours=2 / 3600)
    run.run()
    assert run.progress.step < 1_000_000
    assert run.progress.seconds >= 2


def test_augmentation_keeps_truth_with_its_point() -> None:
    """In a box, truth follows from geometry also after the scan was turned, mirrored and scaled."""
    room = box_room(5)
    exact = AugmentConfig(tilt=0, jitter=0, scale=0.05)
    for seed in range(20):
        scan = augment(room, exact, np.random.default_rng(seed))
        floor = scan.xyz[scan.label == FLOOR, 2]
        ceiling = scan.xyz[scan.label == CEILING, 2]
        assert np.ptp(floor) < 1e-4 and floor.mean() == pytest.approx(-1.4, rel=0.051)
        assert np.ptp(ceiling) < 1e-4 and ceiling.mean() == pytest.approx(1.4, rel=0.051)
        assert len(scan.xyz) == len(scan.label) == len(scan.intensity) == len(scan.ring)


def test_targets_are_those_of_the_representatives() -> None:
    room = box_room(6)
    settings = config().preprocess
    for seed in range(5):
        rng = np.random.default_rng(seed)
        voxels, target = voxels_and_targets(room, settings, AugmentConfig(max_voxels=200), rng)
        assert len(voxels) <= 200
        expected = {tuple(p): label for p, label in zip(room.xyz.tolist(), room.label, strict=True)}
        assert all(expected[tuple(p)] == t for p, t in zip(voxels.xyz.tolist(), target, strict=True))


def test_unknown_configuration_lists_the_known() -> None:
    with pytest.raises(UserError, match="waffleiron24-128"):
        TrainConfig.load("nonsense")


def test_a_run_starts_with_the_bundle_of_another(cache: ScanCache, tmp_path: Path) -> None:
    first = trainer(cache, tmp_path / "first", steps=20)
    bundle = first.run()
    assert bundle is not None
    second = trainer(cache, tmp_path / "second", start=str(bundle.path))
    agreed = [np.mean(ours == theirs) for ours, theirs in zip(second.answers(), first.answers(), strict=True)]
    assert min(agreed) > 0.99  # weights are kept in float16

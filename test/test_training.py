"""The trainer: exact resume, augmentation that keeps truth with its point, and a bundle at the end that works."""

import multiprocessing
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from typer import Typer
from typer.testing import CliRunner, Result

from cmp_seg_ros import Scan, Segmenter, UserError
from cmp_seg_ros.cli.train import train
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation import version
from cmp_seg_ros.training import cache as cache_module
from cmp_seg_ros.training.augment import augment, voxels_and_targets
from cmp_seg_ros.training.cache import ScanCache, TrainingScan
from cmp_seg_ros.training.config import AugmentConfig, TrainConfig
from cmp_seg_ros.training.data import TrainingItem, training_batches
from cmp_seg_ros.training.log import read
from cmp_seg_ros.training.loop import Progress, Trainer
from cmp_seg_ros.training.pictures import ValidationPicture, curves

WALL, FLOOR, CEILING = 0, 1, 2

held: Iterator[TrainingItem] | None = None


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
    trainer(cache, tmp_path / "run", optimiser={"learning_rate": 1e-5})  # the remedy of a loss that became NaN
    space = LabelSpace.load("structural6")
    (tmp_path / "mine.yaml").write_text(space.to_yaml())
    trainer(cache, tmp_path / "mine", label_space=str(tmp_path / "mine.yaml")).save()
    swapped = [c.model_copy(update={"id": number}) for number, c in enumerate(reversed(space.classes))]
    (tmp_path / "mine.yaml").write_text(space.model_copy(update={"classes": swapped}).to_yaml())
    with pytest.raises(UserError, match="another configuration"):
        trainer(cache, tmp_path / "mine", label_space=str(tmp_path / "mine.yaml"))


def test_scans_of_a_label_space_in_a_file_are_its_own(tmp_path: Path) -> None:
    space = LabelSpace.load("structural6")
    file = tmp_path / "mine.yaml"
    folders = {ScanCache(tmp_path / "scans", "structural6", 1).path(0).parent}
    for description in ("one", "two"):
        file.write_text(space.model_copy(update={"description": description}).to_yaml())
        folders.add(ScanCache(tmp_path / "scans", str(file), 1).path(0).parent)
    assert len(folders) == 3 and {folder.parent for folder in folders} == {tmp_path / "scans"}


def test_intensities_are_trained_on_in_one_way_alone() -> None:
    with pytest.raises(ValidationError, match="intensity mode raw: training brings"):
        config(intensity={"mode": "raw"})


def test_a_damaged_checkpoint_is_named(cache: ScanCache, tmp_path: Path) -> None:
    trainer(cache, tmp_path / "run").save()
    path = tmp_path / "run" / "checkpoint.pt"
    for content in (path.read_bytes()[:2000], b"", b"no checkpoint", b"\x80\x02}."):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint\.pt is damaged.*remove it"):
            trainer(cache, tmp_path / "run")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_scan_is_named_in_one_line(cache: ScanCache, tmp_path: Path, workers: int) -> None:
    for building in range(4):
        np.savez(cache.path(building), other=np.zeros(3))
    (tmp_path / "run").mkdir()
    run = Trainer(config(), cache, cache, tmp_path / "run", workers)
    with pytest.raises(
        UserError, match=r"^simulated scans .*npz cannot be read: .*; remove the file.*again$"
    ) as raised:
        run.run()
    assert "\n" not in str(raised.value)


def test_scans_that_were_cut_off_are_simulated_again(cache: ScanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated: list[int] = []
    monkeypatch.setattr(cache_module, "process_map", lambda function, items, _: map(function, items))
    monkeypatch.setattr(ScanCache, "_simulate", lambda _, building: simulated.append(building) or building)
    path = cache.path(2)
    path.write_bytes(path.read_bytes()[:5000])
    assert list(cache.fill(range(5))) == [0, 1, 3, 2, 4]
    assert simulated == [2, 4]

    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ScanCache, "_simulate", full)
    with pytest.raises(UserError, match=r"cannot be written to .*: No space left on device; make room"):
        list(cache.fill([9]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"network": {"outputs": 5}}, r"network.outputs is 5, classes are 6 \(label_space structural6\); make the two"),
        ({"network": {"outputs": 6, "inputs": 4}}, "network.inputs is 4, the features have 5"),
        ({"data": {"first_building": -5}}, "data.first_building: Input should be greater than or equal to 0"),
        ({"augment": {"max_voxels": 0}}, "augment.max_voxels: "),
        ({"augment": {"drop_rings": 1.5}}, "augment.drop_rings: "),
        ({"augment": {"jitter": -1}}, "augment.jitter: "),
        ({"optimiser": {"learning_rate": float("inf")}}, "optimiser.learning_rate: "),
        ({"label_space": "structural9"}, "no label space 'structural9'"),
    ],
)
def test_an_unfit_configuration_is_refused(change: dict[str, object], told: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**config().model_dump(mode="json"), **change}))
    with pytest.raises(UserError, match=told):
        TrainConfig.load(path)


def command(tmp_path: Path, **changes: object) -> Result:
    """`cmp-seg train` of `config` into tmp_path/run, with the scans of `cache`."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config(**changes).model_dump(mode="json")))
    app = Typer()
    app.command()(train)
    arguments = [str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run"), "--workers", "0"]
    return CliRunner().invoke(app, [*arguments, "--cache", str(tmp_path / "scans")])


def test_the_command_says_which_step_scored_what(
    cache: ScanCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles: list[str] = []

    def drawn(_: ValidationPicture, path: Path, predicted: object, title: str) -> None:
        titles.append(title)
        Image.new("RGB", (8, 8)).save(path)

    monkeypatch.setattr(ValidationPicture, "save", drawn)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    shutil.copytree(cache.path(0).parent, ScanCache(cache.folder, "structural6", 2, "os1-16").path(0).parent)
    result = command(tmp_path, steps=5, validate_every=4)
    assert result.exit_code == 0, (result.output, result.exception)
    scored = [line for line in result.stderr.splitlines() if "primary mIoU" in line and line.startswith("step")]
    assert [line.split(",")[0] for line in scored[:2]] == ["step 4", "step 5"]
    assert "nan" not in result.output
    assert "primary mIoU" in result.stdout and "{" not in result.stdout
    assert str(tmp_path / "run" / "bundle") in result.stdout
    assert all("primary mIoU of all" in title and "all 6 classes of structural6" in title for title in titles)
    assert len(titles) == 2


def test_the_command_refuses_before_it_simulates(
    cache: ScanCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def simulated(*_: object) -> NoReturn:
        raise AssertionError("simulated")

    monkeypatch.setattr(ScanCache, "fill", simulated)
    trainer(cache, tmp_path / "run").save()
    written = tmp_path / "run" / "config.yaml"
    written.write_text("of the first run")
    result = command(tmp_path, batch=1)
    assert isinstance(result.exception, UserError) and "another configuration" in str(result.exception)
    assert written.read_text() == "of the first run"
    (tmp_path / "run" / "checkpoint.pt").unlink()
    result = command(tmp_path, start="nowhere")
    assert isinstance(result.exception, UserError) and "no bundle 'nowhere'" in str(result.exception)
    assert written.read_text() == "of the first run"


def test_an_interrupted_simulation_says_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Iterator[int]:
        yield 100
        raise KeyboardInterrupt

    monkeypatch.setattr(ScanCache, "fill", interrupted)
    result = command(tmp_path)
    assert result.exit_code == 130
    assert f"are kept in {tmp_path / 'scans'}, and the same command goes on" in result.stderr


def test_a_job_that_is_told_to_end_saves_though_its_workers_are_told_too(cache: ScanCache, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    run = Trainer(config(), cache, cache, tmp_path / "run", workers=1)
    told: list[int] = []

    def tell(_: Progress) -> None:
        if not told:
            told.extend(child.pid for child in multiprocessing.active_children() if child.pid)
            subprocess.run(["kill", "-TERM", *map(str, told)], check=True)  # not by the parent, from whom it counts

    assert run.run(tell, stop=lambda: run.progress.step == 8) is None
    assert told and Trainer(config(), cache, cache, tmp_path / "run").progress.step == 8


def leave_with_workers_at_work(cache: ScanCache) -> None:
    """The end of a process that something still holds a loader in: a traceback, say."""
    global held
    held = training_batches(config(), cache, 0, workers=1)
    next(held)


def test_a_process_ends_though_its_workers_are_at_work(cache: ScanCache) -> None:
    process = multiprocessing.get_context("spawn").Process(target=leave_with_workers_at_work, args=(cache,))
    process.start()
    process.join(240)
    try:
        assert process.exitcode == 0
    finally:
        process.kill()


def test_a_full_disk_is_said_with_what_is_kept(
    cache: ScanCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    writes: list[Path] = []

    def full(path: Path, content: bytes) -> NoReturn:
        writes.append(path)
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    Trainer(config(), cache, cache, tmp_path / "run", workers=0).run(stop=lambda: True)
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    run = Trainer(config(), cache, cache, tmp_path / "run", workers=0)
    with pytest.raises(
        UserError, match=r"No space left on device; make room there.*checkpoint.pt, saved last at step 1$"
    ):
        run.run(stop=lambda: True)
    assert writes and not any(path.exists() for path in writes)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept


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
    def path() -> Path:
        return ScanCache(tmp_path, "structural6", 2).path(7)

    before, changed = path(), tmp_path / "sensor.yaml"
    changed.write_text("beams: 16")
    monkeypatch.setattr(version, "data_files", lambda: [changed])
    monkeypatch.setattr(cache_module, "simulator_version", version.simulator_version.__wrapped__)
    after = path()
    assert before != after and before.name == after.name
    changed.write_text("beams: 32")
    assert path() not in (before, after)


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

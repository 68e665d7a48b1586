"""Training: exact resume, several processes, augmentation that keeps truth with its point, and a bundle that works."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pydantic import ValidationError
from typer import Typer
from typer.testing import CliRunner, Result

from cmp_seg_ros import Scan, Segmenter, UserError
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.cli.train import train
from cmp_seg_ros.datasets import scan_cache
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import TRUTH, Frame, PointLabels, Returns
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.training import pictures, tasks
from cmp_seg_ros.training.augment import augment, augmented_voxels
from cmp_seg_ros.training.config import AugmentConfig
from cmp_seg_ros.training.log import read
from cmp_seg_ros.training.loop import Progress, Trainer
from cmp_seg_ros.training.tasks.segmentation import Config, Task

WALL, FLOOR, CEILING = 0, 1, 2  # in structural6 and in indoor
TRAINING, VALIDATION = range(4), range(100, 102)


def box_room(seed: int, points: int = 1500) -> Returns:
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
    return Returns(
        xyz.astype(np.float32), rng.random(points, np.float32), ring.astype(np.uint8), label.astype(np.uint8)
    )


class Rooms(DataSet):
    """Two scans of each box room, from memory."""

    def __init__(self, seeds: Iterable[int]) -> None:
        super().__init__(Path("rooms"))
        self.seeds = list(seeds)
        self.count = 2 * len(self.seeds)
        self.label_spaces = {TRUTH: LabelSpace.load("structural6")}

    def __iter__(self) -> Iterator[Frame]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Frame:
        room = box_room(10 * self.seeds[number // 2] + number % 2)
        truth = PointLabels(self.label_spaces[TRUTH], room.label)
        return Frame(str(number), Scan(room.xyz, room.intensity), number, labels={TRUTH: truth}, ring=room.ring)

    def parts(self) -> Iterator[DataSet]:
        return (Rooms([seed]) for seed in self.seeds)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder of scans in which the rooms take the place of simulated buildings."""
    data = config().data
    for make in (data.training, data.validation, data.calibration):
        kept = make(tmp_path / "scans")
        kept.file(0).parent.mkdir(parents=True)
        for seed in kept.seeds:
            kept.keep(seed, [box_room(10 * seed + i)._asdict() for i in range(kept.scans)])
    return tmp_path / "scans"


def config(**changes: object) -> Config:
    values = {
        "name": "boxes",
        "data": {
            "first_building": 0,
            "buildings": 4,
            "scans_per_building": 2,
            "first_validation_building": 100,
            "validation_buildings": 2,
            "first_calibration_building": 200,
            "calibration_buildings": 4,
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
    return Config.model_validate({**values, **changes})


def trainer(out: Path, workers: int = 0, **changes: object) -> Trainer:
    out.mkdir(exist_ok=True)
    task = Task(config(**changes), out / "scans", Rooms(TRAINING), Rooms(VALIDATION))
    return Trainer(task, out, workers)


def test_resume_is_exact(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run()

    first = trainer(tmp_path / "parts", workers=1)
    assert first.run(stop=lambda: first.progress.step == 3) is None
    torch.manual_seed(1234)  # whatever happened in between
    second = trainer(tmp_path / "parts", workers=1)
    second.run()

    assert second.progress.step == whole.progress.step == 8
    for name, value in whole.task.network.state_dict().items():
        assert torch.equal(value, second.task.network.state_dict()[name]), name


def test_mixed_precision_leaves_positions_alone(tmp_path: Path) -> None:
    run, dtypes = trainer(tmp_path / "run", precision="bf16-mixed"), set()
    run.task.network.register_forward_hook(lambda _, args, output: dtypes.add((args[0].features.dtype, output.dtype)))
    run.run(stop=lambda: run.progress.step == 1)
    assert dtypes == {(torch.float32, torch.bfloat16)}
    assert all(value.dtype == torch.float32 for value in run.task.network.parameters())


def test_groups_of_parameters_have_their_own_learning_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def groups(task: Task) -> list[dict[str, Any]]:
        classif = [value for name, value in task.network.named_parameters() if name.startswith("classif")]
        rest = [value for name, value in task.network.named_parameters() if not name.startswith("classif")]
        return [{"params": classif}, {"params": rest, "scale": 0.0}]

    monkeypatch.setattr(Task, "parameters", groups)
    run = trainer(tmp_path / "run")
    before = {name: value.clone() for name, value in run.task.network.named_parameters()}
    run.run(stop=lambda: run.progress.step == 2)
    changed = {name for name, value in run.task.network.named_parameters() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("classif") for name in changed)


def write_reversed_space(path: Path) -> None:
    """structural6 with the ids the other way round."""
    space = LabelSpace.load("structural6")
    swapped = [c.model_copy(update={"id": number}) for number, c in enumerate(reversed(space.classes))]
    path.write_text(space.model_copy(update={"classes": swapped}).to_yaml())


def test_checkpoint_of_another_configuration_is_refused(tmp_path: Path) -> None:
    first = trainer(tmp_path / "run")
    first.save()
    with pytest.raises(UserError, match="another configuration"):
        trainer(tmp_path / "run", batch=1).run()
    trainer(tmp_path / "run", optimiser={"learning_rate": 1e-5})  # the remedy of a loss that became NaN
    (tmp_path / "mine.yaml").write_text(LabelSpace.load("structural6").to_yaml())
    trainer(tmp_path / "mine", label_space=str(tmp_path / "mine.yaml")).save()
    write_reversed_space(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match="another configuration"):
        trainer(tmp_path / "mine", label_space=str(tmp_path / "mine.yaml"))


def test_truth_is_read_in_the_classes_of_the_run(tmp_path: Path) -> None:
    write_reversed_space(tmp_path / "mine.yaml")
    ours, mine = (
        trainer(tmp_path / name, label_space=label_space).task.batch(0)
        for name, label_space in (("ours", "structural6"), ("mine", str(tmp_path / "mine.yaml")))
    )
    known = ours.target != UNLABELLED
    assert known.sum() > 100 and torch.equal(ours.target == UNLABELLED, mine.target == UNLABELLED)
    assert torch.equal(ours.target[known], 5 - mine.target[known])


def test_intensities_are_trained_on_in_one_way_alone() -> None:
    with pytest.raises(ValidationError, match="intensity mode raw: training normalises"):
        config(intensity={"mode": "raw"})


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    trainer(tmp_path / "run").save()
    path = tmp_path / "run" / "checkpoint.pt"
    for content in (path.read_bytes()[:2000], b"", b"no checkpoint", b"\x80\x02}."):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"checkpoint\.pt is damaged.*remove it"):
            trainer(tmp_path / "run")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_user_can_mend_is_one_line(tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*_: object) -> NoReturn:
        raise UserError("scan 7 is damaged; remove it")

    run = trainer(tmp_path / "run", workers)
    _ = run.task.validation
    monkeypatch.setattr(Rooms, "__getitem__", damaged)
    with pytest.raises(UserError, match=r"^scan 7 is damaged; remove it$"):
        run.run()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"network": {"outputs": 5}}, r"network.outputs is 5, classes are 6 \(label_space structural6\); make the two"),
        ({"network": {"outputs": 6, "inputs": 4}}, "network.inputs is 4, the features have 5"),
        ({"data": {"first_building": -5}}, "data.first_building: Input should be greater than or equal to 0"),
        ({"augment": {"max_voxels": 0}}, "augment.max_voxels: "),
        ({"optimiser": {"learning_rate": float("inf")}}, "optimiser.learning_rate: "),
        ({"label_space": "structural9"}, "no label space 'structural9'"),
    ],
)
def test_an_unfit_configuration_is_refused(change: dict[str, object], told: str, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump({**config().model_dump(mode="json"), **change}))
    with pytest.raises(UserError, match=told):
        tasks.load_config(path)


def command(tmp_path: Path, **changes: object) -> Result:
    """`cmp-seg train` of `config` into tmp_path/run, with the scans of `cache`."""
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config(**changes).model_dump(mode="json")))
    app = Typer()
    app.command()(train)
    arguments = [str(tmp_path / "run.yaml"), "--out", str(tmp_path / "run"), "--workers", "0"]
    return CliRunner().invoke(app, [*arguments, "--cache", str(tmp_path / "scans")])


@pytest.fixture
def titles(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Of the pictures, which are not drawn."""
    drawn: list[str] = []

    def draw(path: Path, scans: object, space: object, title: str) -> None:
        drawn.append(title)
        Image.new("RGB", (8, 8)).save(path)

    monkeypatch.setattr(pictures, "draw", draw)
    return drawn


def test_the_command_says_which_step_scored_what(cache: Path, tmp_path: Path, titles: list[str]) -> None:
    result = command(tmp_path, steps=5, validate_every=4)
    assert result.exit_code == 0, (result.output, result.exception)
    scored = [line for line in result.stderr.splitlines() if "primary mIoU" in line and line.startswith("step")]
    assert [line.split(",")[0] for line in scored[:2]] == ["step 4", "step 5"]
    assert "nan" not in result.output
    assert "primary mIoU" in result.stdout and "{" not in result.stdout
    assert str(tmp_path / "run" / "bundle") in result.stdout
    learnt = Bundle(tmp_path / "run" / "bundle").description
    assert learnt.familiarity is not None and learnt.temperature != 1, "calibrated"
    assert all("primary mIoU of all" in title and "all 6 classes of structural6" in title for title in titles)
    assert len(titles) == 2


def test_an_interrupted_run_saves_and_resumes(
    cache: Path, tmp_path: Path, titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, losses = Task.loss, []

    def third(task: Task, network: Any, batch: Any) -> torch.Tensor:
        losses.append(0)
        if len(losses) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(task, network, batch)

    monkeypatch.setattr(Task, "loss", third)
    result = command(tmp_path, steps=5, validate_every=3)
    assert result.exit_code == 130, result.exception
    assert "stopped and saved at step 3; run the same command to resume" in result.stderr
    assert command(tmp_path, steps=5, validate_every=3).exit_code == 0 and len(losses) == 5


TWO_PROCESSES = """
from pathlib import Path
import test_training as t

t.pictures.draw = lambda path, *_: t.Image.new("RGB", (8, 8)).save(path)

def run(name, stop_at=99, **changes):
    run = t.trainer(Path(name), devices=2, steps=3, precision="64-true", **changes)
    run.run(stop=lambda: run.progress.step == stop_at)

run("plain", network={"width": 16, "depth": 3, "outputs": 6})
run("whole")
run("parts", stop_at=1)
run("parts")
"""


@pytest.mark.slow
def test_two_processes_train_as_one_that_accumulates_and_resume(tmp_path: Path) -> None:
    (tmp_path / "two.py").write_text(TWO_PROCESSES)
    path = {**os.environ, "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run([sys.executable, "two.py"], cwd=tmp_path, env=path, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()
    plain, whole, parts = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("plain", "whole", "parts")
    )
    one = trainer(
        tmp_path / "one", accumulate=2, steps=3, precision="64-true", network={"width": 16, "depth": 3, "outputs": 6}
    )
    one.run()
    assert plain["progress"]["loss"] == pytest.approx(one.progress.loss, rel=1e-6)
    for name, value in one.task.network.named_parameters():
        assert torch.allclose(plain["network"][name], value, rtol=0, atol=1e-10), name
        assert torch.equal(whole["network"][name], parts["network"][name]), name
    assert whole["progress"]["step"] == parts["progress"]["step"] == 3
    assert not torch.equal(*whole["random"]["cpu"])


def test_the_command_refuses_before_it_simulates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def simulated(*_: object) -> NoReturn:
        raise AssertionError("simulated")

    monkeypatch.setattr(scan_cache.DataSet, "fill", simulated)
    trainer(tmp_path / "run").save()
    written = tmp_path / "run" / "config.yaml"
    written.write_text("of the first run")
    result = command(tmp_path, batch=1)
    assert isinstance(result.exception, UserError) and "another configuration" in str(result.exception)
    assert written.read_text() == "of the first run"
    (tmp_path / "run" / "checkpoint.pt").unlink()
    result = command(tmp_path, start="nowhere")
    assert isinstance(result.exception, UserError) and "no bundle 'nowhere'" in str(result.exception)
    assert written.read_text() == "of the first run"


def test_a_job_that_is_told_to_end_saves_though_its_workers_are_told_too(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", workers=1)
    told: list[int] = []

    def tell(_: Progress) -> None:
        if not told:
            told.extend(child.pid for child in multiprocessing.active_children() if child.pid)
            subprocess.run(["kill", "-TERM", *map(str, told)], check=True)

    assert run.run(tell, stop=lambda: run.progress.step == 8) is None
    assert told and not multiprocessing.active_children()
    assert trainer(tmp_path / "run").progress.step == 8


def test_a_full_disk_is_said_with_what_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[Path] = []

    def full(path: Path, content: bytes) -> NoReturn:
        writes.append(path)
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    first = trainer(tmp_path / "run")
    first.run(stop=lambda: first.progress.step == 1)
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", full)
    run = trainer(tmp_path / "run")
    with pytest.raises(UserError, match=r"No space left on device; free some space.*checkpoint.pt, saved at step 1$"):
        run.run(stop=lambda: True)
    assert writes and not any(path.exists() for path in writes)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept


def test_learns_boxes_and_writes_a_bundle_that_labels_them(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", steps=120)
    bundle = run.run()
    assert bundle is not None
    assert run.progress.score > 0.9
    assert bundle.description.measured["validation"]["primary_miou"] == pytest.approx(run.progress.score, abs=1e-4)

    room = box_room(999)
    labels = Segmenter.from_bundle(bundle.path, engine="reference")(Scan(room.xyz, room.intensity))
    assert (labels.label == room.label).mean() > 0.9
    pictures.curves(tmp_path / "run" / "log.csv", tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_the_last_step_is_validated_once(tmp_path: Path, titles: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    validated = []
    validate = Task.validate

    def counted(task: Task, answers: Any) -> Any:
        validated.append(len(answers))
        return validate(task, answers)

    monkeypatch.setattr(Task, "validate", counted)
    bundles = [trainer(tmp_path / "run", validate_every=4).run() for _ in range(2)]
    assert validated == [4, 4]
    logged = [int(row["step"]) for row in read(tmp_path / "run" / "log.csv") if row["name"] == "primary_miou"]
    assert logged == [4, 8]
    first, again = (bundle.description.measured["validation"] for bundle in bundles if bundle is not None)
    assert first == again and set(first) > {"miou", "primary_miou", "iou_wall"}

    assert trainer(tmp_path / "run", validate_every=100, steps=10).run() is not None
    assert len(validated) == 3


def test_time_budget_ends_the_run(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", steps=1_000_000, hours=2 / 3600)
    run.run()
    assert run.progress.step < 1_000_000
    assert run.progress.seconds >= 2


def test_augmentation_keeps_truth_with_its_point() -> None:
    """In a box, truth follows from geometry also after the scan was turned, mirrored and scaled."""
    room = box_room(5)
    exact = AugmentConfig(tilt=0, jitter=0, scale=0.05)
    for seed in range(20):
        scan, _ = augment(room, exact, np.random.default_rng(seed))
        floor = scan.xyz[scan.label == FLOOR, 2]
        ceiling = scan.xyz[scan.label == CEILING, 2]
        assert np.ptp(floor) < 1e-4 and floor.mean() == pytest.approx(-1.4, rel=0.051)
        assert np.ptp(ceiling) < 1e-4 and ceiling.mean() == pytest.approx(1.4, rel=0.051)
        assert len(scan.xyz) == len(scan.label) == len(scan.intensity) == len(scan.ring)


def test_rows_are_those_of_the_representatives() -> None:
    """A scan turned about z alone has the same heights and distances from the axis."""
    room, turned = box_room(6), AugmentConfig(tilt=0, mirror=0, scale=0, jitter=0, max_voxels=200)
    for seed in range(5):
        voxels, rows = augmented_voxels(room, config().preprocess, None, turned, np.random.default_rng(seed))
        assert len(voxels) <= 200
        found, expected = (np.c_[np.hypot(*p[:, :2].T), p[:, 2]] for p in (voxels.xyz, room.xyz[rows]))
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_run_starts_with_the_bundle_of_another(tmp_path: Path) -> None:
    first = trainer(tmp_path / "first", steps=20)
    bundle = first.run()
    assert bundle is not None
    second = trainer(tmp_path / "second", start=str(bundle.path))
    theirs, ours = first.answers(), second.answers()
    assert theirs is not None and ours is not None
    agreed = [np.mean(a == b) for a, b in zip(ours, theirs, strict=True)]
    assert min(agreed) > 0.99  # weights are kept in float16

"""Distillation, probing and fine-tuning on scans of box rooms: what learns, from what, and exactly how."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Run
from painted import camera_ahead
from test_training import Rooms, box_room

from cmp_seg_ros import UserError
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import TRUTH, CameraImage, Frame, PointLabels
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Float32, Scan, UInt8
from cmp_seg_ros.teachers.base import Features
from cmp_seg_ros.training import tasks
from cmp_seg_ros.training.loop import Trainer
from cmp_seg_ros.training.scans import Labels, SetConfig, labelled
from cmp_seg_ros.training.tasks import distill, finetune, probe
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.network import Segmenter

SPACE = LabelSpace.load("structural6")
NETWORK = NetworkConfig(width=16, depth=3, outputs=6)
PREPROCESS = PreprocessConfig(
    voxel_size=0.3, fov_min=(-10, -10, -3), fov_max=(10, 10, 3), grids=[(40, 40), (40, 12), (40, 12)]
)
SMALL = {"epochs": None, "steps": 6, "batch": 2, "validate_every": 100}


@pytest.fixture(autouse=True)
def rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    """A set's path is the seeds of rooms, `0-4`."""
    monkeypatch.setattr(SetConfig, "open", open_rooms)


def open_rooms(source: SetConfig) -> DataSet:
    return Rooms(range(*map(int, source.path.split("-"))))


def write_bundle(path: Path, kind: str = "segmentation", seed: int = 0, **network: Any) -> Bundle:
    torch.manual_seed(seed)
    config = NETWORK.model_copy(update=network)
    head = {"label_space": SPACE} if kind == "segmentation" else {}
    points = {"network": config, "preprocess": PREPROCESS}
    return Bundle.write(
        path, weights.serialise(Segmenter(config), half=False), name=path.name, kind=kind, **{kind: points}, **head
    )


def config(start: Path, task: Any = finetune, **changes: Any) -> Any:
    sets = [{"path": "0-4", "labels": TRUTH}]
    held = [{"path": "100-101", "labels": TRUTH}]
    values = {"name": "boxes", "start": str(start), "sets": sets, "validation": held, **SMALL}
    return task.Config.model_validate({**values, **changes})


def train(settings: Any, out: Path, stop_at: int = -1) -> Trainer:
    out.mkdir(exist_ok=True)
    torch.manual_seed(99)  # of no influence
    task = tasks.module_of(settings.task).Task(settings, out / "scans")
    trainer = Trainer(task, out, workers=0)
    for preparation in task.prepare():
        list(preparation.pieces)
    trainer.run(stop=lambda: trainer.progress.step == stop_at)
    return trainer


def state(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.task.network.state_dict().items()}


def test_a_probe_learns_the_head_alone(tmp_path: Path) -> None:
    start = write_bundle(tmp_path / "start", "features", outputs=8)
    trainer = train(config(start.path, probe, steps=60, optimiser={"learning_rate": 0.02}), tmp_path / "run")
    before = weights.load(start.weights_path, start.points.network).state_dict()
    for name, value in state(trainer).items():
        if not name.startswith("classif"):
            assert torch.equal(value, before[name]), name
    assert trainer.progress.scores["iou_floor"] > 0.5  # random features tell floor from the rest
    bundle = Bundle(tmp_path / "run" / "bundle")
    assert bundle.points.network.head == "probe" and bundle.description.label_space.names == SPACE.names


def test_layers_learn_the_slower_the_farther_from_the_head(tmp_path: Path) -> None:
    start = write_bundle(tmp_path / "start")
    settings = config(start.path, layer_decay=0.5, optimiser={"learning_rate": 1.0, "weight_decay": 0.1})
    task = finetune.Task(settings, tmp_path)
    named = {id(value): name for name, value in task.network.named_parameters()}
    rate, decay = {}, {}
    for group in task.parameters():
        for value in group["params"]:
            rate[named[id(value)]], decay[named[id(value)]] = group["scale"], group["weight_decay"]
    assert rate.keys() == {name for name, _ in task.network.named_parameters()}
    assert rate["classif.weight"] == 1 and rate["embed.conv1.weight"] == 0.5**4
    assert rate["waffleiron.channel_mix.2.mlp.0.weight"] == 0.5 == rate["waffleiron.spatial_mix.2.norm.weight"]
    assert rate["waffleiron.channel_mix.0.mlp.0.bias"] == 0.5**3
    assert decay["waffleiron.spatial_mix.1.ffn.0.weight"] == decay["waffleiron.spatial_mix.1.scale.weight"] == 0.1
    assert decay["classif.bias"] == decay["waffleiron.spatial_mix.0.norm.weight"] == 0


def test_fine_tuning_resumes_exactly_and_learns(tmp_path: Path) -> None:
    start = write_bundle(tmp_path / "start")
    settings = config(start.path, freeze_norms=True, optimiser={"learning_rate": 0.01})
    whole = train(settings, tmp_path / "whole")
    train(settings, tmp_path / "parts", stop_at=2)
    parts = train(settings, tmp_path / "parts")
    before = Segmenter(NETWORK).state_dict()
    for name, value in state(whole).items():
        assert torch.equal(value, state(parts)[name]), name
        if "running" in name or "num_batches" in name:
            assert torch.equal(value, before[name]), name  # frozen norms
    assert not torch.equal(state(whole)["classif.weight"], before["classif.weight"])
    assert Bundle(tmp_path / "whole" / "bundle").description.training["start"] == start.hash


def test_steps_follow_the_epochs(tmp_path: Path) -> None:
    start = write_bundle(tmp_path / "start")
    trainer = train(config(start.path, epochs=3, steps=1000), tmp_path / "run")
    assert trainer.progress.step == 3 * 8 // 2  # 8 scans, 2 a batch


def frame(confidence: float, said: int) -> Frame:
    room = box_room(3)
    scan = Scan(room.xyz, room.intensity)
    label = np.where(np.arange(len(room.label)) < 500, room.label, UNLABELLED).astype(np.uint8)
    sure = np.full(len(label), confidence, np.float32)
    return Frame("a", scan, labels={"pseudo": PointLabels(SPACE, label, sure)}, ring=room.ring)


def test_labels_weigh_as_much_as_their_confidence_and_the_bundle_fills_the_rest() -> None:
    source = SetConfig(path="0-1", labels="pseudo")

    def own(found: Frame) -> PointLabels:
        count = len(found.scan.xyz)
        return PointLabels(SPACE, np.full(count, 4, np.uint8), np.full(count, 0.5, np.float32))

    [plain] = Labels(SPACE)(frame(0.7, 1), source)
    scan, weight = labelled(plain)
    known = scan.label != UNLABELLED
    assert known.sum() == 495 and np.allclose(weight[known], 0.7) and not weight[~known].any()
    [flat] = Labels(SPACE, trusted=False)(frame(0.7, 1), source)
    assert np.allclose(flat["weight"][known], 1)
    [filled] = Labels(SPACE, own=own, own_weight=0.2)(frame(0.7, 1), source)
    assert (filled["label"][~known] == 4).all() and np.allclose(filled["weight"][~known], 0.1)
    assert np.array_equal(filled["label"][known], scan.label[known])
    assert not list(Labels(SPACE)(frame(0.7, 1), SetConfig(path="0-1", labels="hand")))


class Pixels:
    """A teacher whose features are where a pixel is, and its colour."""

    dimension = 3

    def features(self, rgb: UInt8) -> Features:
        height, width = rgb.shape[:2]
        v, u = np.mgrid[:height, :width].astype(np.float32)
        return Features(np.stack([u / width, v / height, np.ones_like(u)], axis=-1), (height, width))


class Pictured(Rooms):
    """Rooms with a camera that looks along x."""

    def __getitem__(self, number: int) -> Frame:
        found = super().__getitem__(number)
        image = CameraImage(0, lambda: np.zeros((48, 64, 3), np.uint8), camera_ahead(64, 48, 40))
        return Frame(found.key, found.scan, number, images={"front": image}, ring=found.ring)


@pytest.fixture
def pictured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SetConfig, "open", lambda source: Pictured(range(*map(int, source.path.split("-")))))
    monkeypatch.setattr(distill, "open_teacher", lambda name: Pixels())


def test_distillation_learns_the_teacher_where_the_camera_sees(tmp_path: Path, pictured: None) -> None:
    settings = distill.Config.model_validate(
        {
            "name": "boxes",
            "sets": [{"path": "0-4"}],
            "validation": [{"path": "100-101"}],
            "network": NETWORK.model_dump(),
            "preprocess": PREPROCESS.model_dump(),
            "augment": {"tilt": 0, "mirror": 0, "scale": 0, "jitter": 0, "max_voxels": 2000},
            "optimiser": {"learning_rate": 0.01},
            **SMALL,
            "steps": 40,
        }
    )
    trainer = train(settings, tmp_path / "run")
    assert isinstance(trainer.task, distill.Task)
    arrays = trainer.task.scans[0]
    seen: Float32 = arrays["xyz"]
    assert (seen[:, 0] > 1).all() and len(seen) > 100
    expected = (31.5 - 40 * seen[:, 1] / seen[:, 0] + 0.5) / 64  # the feature is bilinear in the pixel
    assert np.allclose(arrays["features"][:, 0].astype(np.float32), expected - 0.5 / 64, atol=2e-3)
    assert trainer.progress.scores["cosine"] > 0.9
    bundle = Bundle(tmp_path / "run" / "bundle")
    assert bundle.description.kind == "features" and bundle.points.network.outputs == 3
    assert (tmp_path / "run" / "validation.png").stat().st_size > 10_000


def test_recipes_are_valid_and_hold_the_published_figures() -> None:
    scalr, plus = tasks.load_config("scalr"), tasks.load_config("scalr_plus")
    assert [round(plus.optimiser.factor(epoch / 65), 3) for epoch in (2, 10, 62.999)] == [0.557, 0.218, 0.085]
    assert plus.optimiser.factor(63 / 65 + 1e-6) == pytest.approx(0.0842, abs=5e-5)
    assert plus.optimiser.factor(1) == 0 and plus.optimiser.factor(0.5 / 65) == pytest.approx(0.5, abs=1e-4)
    assert (scalr.optimiser.learning_rate, scalr.optimiser.weight_decay) == (2e-3, 0.03)
    assert (scalr.batch, scalr.epochs) == (8, 25)
    assert scalr.optimiser.factor(1) * scalr.optimiser.learning_rate == pytest.approx(1e-5)
    tuned, probed = tasks.load_config("scalr-finetune"), tasks.load_config("scalr-probe")
    assert (tuned.layer_decay, tuned.drop_path, tuned.optimiser.weight_decay) == (0.99, 0.2, 0)
    assert probed.optimiser.factor(1) * probed.optimiser.learning_rate == pytest.approx(1e-5)
    assert tasks.load_config("scalr24-128").network.depth == 24


@pytest.mark.parametrize(
    ("bundle", "changes", "told"),
    [
        ({"kind": "features"}, {}, "gives features, no classes"),
        ({}, {"label_space": "indoor"}, "has the classes of structural6, the run those of indoor"),
        ({}, {"validation": []}, "no frame of 0-4 .split val. has held-back scans"),
        ({}, {"sets": [{"path": "0-4", "labels": "hand"}]}, "no frame of 0-4 .split train. has labelled scans"),
        ({}, {"sets": []}, "no data to fine-tune on"),
        ({}, {"preprocess": {**PREPROCESS.model_dump(), "features": ["xyz"]}}, "other input channels or planes"),
    ],
)
def test_bad_input_is_one_line(tmp_path: Path, bundle: dict[str, Any], changes: dict[str, Any], told: str) -> None:
    start = write_bundle(tmp_path / "start", **bundle)
    with pytest.raises(UserError, match=told):
        train(config(start.path, **changes), tmp_path / "run")


def test_a_loss_that_is_not_finite_names_the_batch_and_keeps_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = config(write_bundle(tmp_path / "start").path, batch=2)
    train(settings, tmp_path / "run", stop_at=3)
    kept = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    loss = finetune.Task.loss

    trained: list[bool] = []

    def broken(task: finetune.Task, network: Any, batch: Any) -> torch.Tensor:
        trained.append(True)
        return loss(task, network, batch) * (float("nan") if len(trained) == 2 else 1)

    monkeypatch.setattr(finetune.Task, "loss", broken)
    with pytest.raises(UserError, match=r"became nan at step 4 \(batches 4 to 4\).*resumes from .*checkpoint.pt"):
        train(settings, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == kept


def test_the_command_reports(tmp_path: Path, run: Run) -> None:
    start = write_bundle(tmp_path / "start")
    recipe = tmp_path / "mine.yaml"
    held = "[{path: 100-101, labels: truth}]"
    recipe.write_text(f"name: mine\ntask: finetune\nvalidation: {held}\nepochs: null\nsteps: 2\nbatch: 1\n")
    data = ("finetune", "0-2", "--labels", "truth")
    options = ("--recipe", recipe, "--start", start.path, "--workers", 0, "--out", tmp_path / "run", "--json")
    done = run(*data, *options)
    assert done.code == 0, done.err
    assert '"command": "finetune"' in done.out and "primary_miou" in done.out
    refused = run(*data, "--recipe", "scalr", "--out", tmp_path / "other")
    assert refused.code == 1 and "of `cmp-seg distill`" in refused.err

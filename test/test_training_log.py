"""The log of a run in CSV and TensorBoard, and the picture of validation scans."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.training import log
from cmp_seg_ros.training.log import Log, read
from cmp_seg_ros.training.pictures import ValidationScan, draw, some_of


@pytest.fixture
def without_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "has_tensorboard", lambda: False)


def steps(out: Path) -> list[tuple[int, str, float]]:
    return [(int(row["step"]), row["name"], float(row["value"])) for row in read(out / "log.csv")]


def test_a_resumed_run_has_each_step_once(without_tensorboard: None, tmp_path: Path) -> None:
    first = Log(tmp_path)
    for step in (10, 20, 30):
        first.add(step, 1.5 * step, loss=1 / step)
    first.close()
    with (tmp_path / "log.csv").open("a") as file:
        file.write("40,60")  # cut off
    second = Log(tmp_path, step=20)
    second.add(30, 45, loss=0.5, iou_wall=float("nan"))
    assert steps(tmp_path)[:3] == [(10, "loss", 0.1), (20, "loss", 0.05), (30, "loss", 0.5)]
    assert steps(tmp_path)[3][:2] == (30, "iou_wall") and len(steps(tmp_path)) == 4
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_shows_values_and_the_picture(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    Image.new("RGB", (40, 30), (200, 10, 10)).save(tmp_path / "a.png")
    written = Log(tmp_path)
    written.add(10, 1.0, loss=0.25, iou_wall=0.5, primary_miou=0.75)
    written.add_picture(10, "validation", tmp_path / "a.png")
    written.close()
    found = EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    assert sorted(found.Tags()["scalars"]) == ["iou/wall", "loss", "primary_miou"]
    assert [(event.step, event.value) for event in found.Scalars("loss")] == [(10, 0.25)]
    assert found.Images("validation")[0].width == 40
    assert steps(tmp_path)[0] == (10, "loss", 0.25)


def test_picture_of_validation_scans(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    scans = []
    for number in range(4):
        points = 400 + 50 * number
        truth = rng.choice(np.array([0, 1, 2, UNLABELLED], np.uint8), points)
        xyz = rng.uniform(-3, 3, (points, 3)).astype(np.float32)
        scans.append(ValidationScan(number, xyz, truth, np.where(truth == UNLABELLED, 0, truth).astype(np.uint8)))
    chosen = some_of(scans, 3)
    assert [scan.number for scan in chosen] == [0, 2, 3] and some_of(scans[:2], 3) == scans[:2]
    wrong = [scan._replace(predicted=np.where(scan.predicted == 0, 1, 0).astype(np.uint8)) for scan in chosen]
    reds = []
    for drawn in (chosen, wrong):
        draw(tmp_path / "picture.png", drawn, LabelSpace.load("structural6"), "a title")
        pixels = np.asarray(Image.open(tmp_path / "picture.png").convert("RGB")).reshape(-1, 3).astype(int)
        reds.append(int((np.abs(pixels - (214, 30, 30)).max(axis=1) < 12).sum()))
    assert reds[1] > 100 * max(1, reds[0])

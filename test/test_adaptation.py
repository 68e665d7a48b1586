"""What an adaptation holds back, and what it advises."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
from conftest import Run
from painted import Painted, camera_ahead
from PIL import Image
from test_training import box_room
from test_training_tasks import write_bundle

from cmp_seg_ros import UserError
from cmp_seg_ros.adaptation import run as adaptation
from cmp_seg_ros.adaptation.holding import hold_back, sets_of
from cmp_seg_ros.adaptation.verdict import Difference, judge
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.datasets.frame import PSEUDO
from cmp_seg_ros.evaluation import calibration_check
from cmp_seg_ros.geometry.calibration import CalibratedLidar, Calibration
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UInt8
from cmp_seg_ros.teachers import base as teachers

SECOND = 1_000_000_000


class Entry(NamedTuple):
    sequence: str
    stamp: int


class Set(NamedTuple):
    """As much of a unified set as is looked at."""

    entries: list[Entry]


def test_the_end_of_each_sequence_is_held_back_with_a_gap() -> None:
    drive = [Entry("drive", SECOND * (100 + i)) for i in range(50)]
    pairs = [Entry("pairs", 0) for _ in range(18)]
    found = hold_back(Set(drive + pairs), 0.2)  # type: ignore[arg-type]
    assert found.held_back == [(40, 49), (64, 67)]
    assert found.learnt == [(0, 30), (50, 63)]  # ten seconds are left out where stamps are known
    [first, second] = sets_of(Path("set"), PSEUDO, found.learnt)
    assert (first.first, first.last, second.first, second.last) == (0, 30, 50, 63) and first.splits is None


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([Entry("a", 0)] * 5, "too few scans .* of 5 scans, 4 are left to learn from"),
        (
            [Entry("a", SECOND * i) for i in range(1, 13)],
            "lasts 11 s, at least 19 s are needed: of 12 scans, 0 are left",
        ),
    ],
)
def test_too_short_a_recording_is_refused(entries: list[Entry], said: str) -> None:
    with pytest.raises(UserError, match=said):
        hold_back(Set(entries), 0.2)  # type: ignore[arg-type]
    hold_back(Set([Entry("a", SECOND * i) for i in range(1, 21)]), 0.2)  # type: ignore[arg-type]


TAUGHT = {"wall": 0.6, "floor": 0.4}
BETTER, WITHIN, WORSE = ((0.02, 0.06), (-0.01, 0.05), (-0.06, -0.02))


@pytest.mark.parametrize(
    ("points", "classes", "simulated", "floor", "advice", "said"),
    [
        (BETTER, BETTER, 0.89, 0.95, "take", "more than chance"),
        (BETTER, WITHIN, 0.89, 0.95, "take", "more than chance"),
        (BETTER, BETTER, 0.80, 0.95, "unsure", "at a cost"),
        (BETTER, BETTER, 0.89, 0.85, "unsure", "Plane check: recall of floor 95.0 % before, 85.0 % after"),
        (WITHIN, WITHIN, 0.89, 0.95, "unsure", "within chance"),
        (WORSE, WORSE, 0.89, 0.95, "keep", "Why it may be no better"),
        (WORSE, BETTER, 0.89, 0.95, "unsure", "the pictures must tell"),
        (BETTER, WORSE, 0.89, 0.95, "unsure", "the pictures must tell"),
        (None, None, 0.89, 0.95, "unsure", "within chance"),
        ((0.001, 0.003), (0.001, 0.003), 0.87, 0.95, "keep", "Why it may be no better"),  # hardly a gain, and forgetful
    ],
)
def test_advice(
    points: tuple[float, float] | None,
    classes: tuple[float, float] | None,
    simulated: float,
    floor: float,
    advice: str,
    said: str,
) -> None:
    def gained(interval: tuple[float, float] | None) -> Difference:
        return Difference("", 0.7, 0.7 + (0.03 if interval is None else sum(interval) / 2), interval)

    planes = [Difference("recall of floor", 0.95, floor)]
    forgotten = Difference("primary mIoU", 0.89, simulated)
    flush = Difference("flush", 0.4, 0.3, WITHIN if points == WITHIN else WORSE)
    verdict = judge(30, gained(points), gained(classes), [flush], forgotten, planes, TAUGHT)
    assert verdict.advice == advice
    lost = "(IoU): flush 40.0 % before, 30.0 % after" + (" (within chance)." if points == WITHIN else ".")
    assert any(reason.endswith(lost) for reason in verdict.reasons)
    assert said in " ".join(verdict.reasons)


def test_few_images_and_classes_that_were_not_taught_are_said() -> None:
    teacher = Difference("mIoU", 0.7, 0.8, BETTER)
    verdict = judge(4, teacher, teacher, [teacher], Difference("mIoU", 0.9, 0.9), [], {**TAUGHT, "person": 0.0})
    assert not any("agree less" in reason for reason in verdict.reasons)
    assert any("4 held-back images are few" in reason for reason in verdict.reasons)
    assert any("hardly ever said person" in reason for reason in verdict.reasons)


def levels(rgb: UInt8) -> UInt8:
    """Ceiling at the top of an image, wall in the middle, floor at the bottom."""
    space, (height, width) = LabelSpace.load("mosaic32"), rgb.shape[:2]
    ids = np.array([space.ids[space.names.index(name)] for name in ("ceiling", "wall", "floor")])
    return np.repeat(ids[np.arange(height) * 3 // height][:, None], width, axis=1)


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten pairs of a scan of a box room and an image, and all that an adaptation to them needs, at tiny sizes."""
    folder = tmp_path / "drive"
    folder.mkdir()
    lidar = CalibratedLidar(T_base_lidar=np.eye(4).tolist())
    Calibration(cameras={"front": camera_ahead(96, 72, 40)}, lidars={"top": lidar}).save(folder / "calibration.yaml")
    for seed in range(10):
        room = box_room(seed)
        np.save(folder / f"{seed}.npy", np.column_stack([room.xyz, room.intensity]))
        Image.new("RGB", (96, 72)).save(folder / f"{seed}.jpg")
    (tmp_path / "suite.yaml").write_text(
        "name: tiny\nbuildings: {first: 1, count: 1}\nscans: 1\nsensors: [os1-16]\n"
        "rows: {boxes: {boxes: plain, sensors: [rings-20]}}\n"
    )
    (tmp_path / "recipe.yaml").write_text("name: tiny\ntask: finetune\nepochs: null\nsteps: 2\nbatch: 1\n")
    monkeypatch.setattr(teachers, "open_teacher", lambda name: Painted(levels, "mosaic32"))
    monkeypatch.setattr(calibration_check, "check", lambda *_, **__: {})  # black images say nothing of it
    monkeypatch.setattr(adaptation, "SUITE", str(tmp_path / "suite.yaml"))
    return folder


def test_from_a_recording_to_a_verdict_and_again(recording: Path, tmp_path: Path, run: Run) -> None:
    start = write_bundle(tmp_path / "start")
    options = ("--start", start.path, "--recipe", tmp_path / "recipe.yaml", "--workers", 0, "--out", tmp_path / "out")
    result = run("adapt", recording, *options, "--json")
    assert result.code == 0, result.err
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["finished"] and report["held_back"] == 2 and report["advice"] in ("take", "unsure", "keep")
    assert report["shares"]["floor"] > 0.1 and report["shares"]["person"] == 0 and 0.05 < report["covered"] < 0.5
    bundle = Bundle(tmp_path / "out" / "bundle")
    assert bundle.description.training["start"] == start.hash and bundle.hash != start.hash
    page = (tmp_path / "out" / "page.html").read_text()
    assert "mIoU (primary: four classes, without flush)" in page and "mIoU (all 6 classes)" in page
    assert "Scans that changed most" in page and page.count("data:image/png;base64,") >= 3

    trained = (tmp_path / "out" / "training" / "checkpoint.pt").stat().st_mtime_ns
    again = run("adapt", recording, *options)
    assert again.code == 0 and report["reasons"][0] in again.out
    assert (tmp_path / "out" / "training" / "checkpoint.pt").stat().st_mtime_ns == trained
    other = run("adapt", recording, *options, "--held-back", 0.5)
    assert other.code == 1 and "other settings (--held-back); give" in other.err


def test_a_recording_without_a_calibrated_camera_is_refused(recording: Path, tmp_path: Path) -> None:
    (recording / "calibration.yaml").unlink()
    work = adaptation.Adaptation(adaptation.Settings(recordings=[str(recording)]), tmp_path / "out")
    with pytest.raises(UserError, match="has no image of a calibrated camera"):
        work.convert(lambda what, total: nullcontext(lambda done: None))


def test_extrinsics_that_are_off_stop_it_unless_forced(
    recording: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = {"verdict": "off by 3.0 degrees, 5 cm", "between_halves": (0.5, 1.0)}
    found = SimpleNamespace(degrees=3.0, centimetres=5.0, summary=lambda: about)
    monkeypatch.setattr(calibration_check, "check", lambda *_, **__: {"front": found})
    work = adaptation.Adaptation(adaptation.Settings(recordings=[str(recording)]), tmp_path)
    progress = lambda what, total: nullcontext(lambda done: None)  # noqa: E731
    with pytest.raises(UserError, match=r"camera 'front': off by 3.0 degrees, 5 cm: pseudo-labels would be wrong"):
        work.check(progress)
    assert work.check(progress, force=True) == ["camera 'front': off by 3.0 degrees, 5 cm"]


def test_a_longer_recording_may_follow_one_that_is_too_short(recording: Path, tmp_path: Path) -> None:
    for pairs in (3, 10):
        folder = tmp_path / str(pairs)
        folder.mkdir()
        for path in recording.iterdir():
            if not path.stem.isdigit() or int(path.stem) < pairs:
                shutil.copy(path, folder)
        work = adaptation.Adaptation(adaptation.Settings(recordings=[str(folder)]), tmp_path / "out")
        work.begin()
        work.convert(lambda what, total: nullcontext(lambda done: None))
        if pairs == 3:
            with pytest.raises(UserError, match="too few scans"):
                _ = work.stretches
    assert work.stretches.held_back == [(8, 9)]

"""`cmp-seg pseudo-label`: from pairs to labels in the unified form, with report and pictures; it resumes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from painted import Painted, camera_ahead
from PIL import Image
from test_conversion import content

from cmp_seg_ros.cli.pseudo_label import pseudo_label
from cmp_seg_ros.datasets import added_labels, open_input
from cmp_seg_ros.datasets.frame import PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.calibration import Calibration
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.pseudo_labels import run as pseudo_run
from cmp_seg_ros.pseudo_labels.labeller import Evidence, Refinements
from cmp_seg_ros.pseudo_labels.report import PseudoReport
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.teachers import base
from cmp_seg_ros.teachers.base import Masks

STRUCTURAL6 = LabelSpace.load("structural6")
WALL, FLOOR = (STRUCTURAL6.ids[STRUCTURAL6.names.index(name)] for name in ("wall", "floor"))


class ByBrightness(Painted):
    """Bright is wall, dark is floor."""

    def __init__(self) -> None:
        super().__init__(lambda rgb: np.where(rgb[..., 0] > 128, 0, 1))  # ids of wall and floor in indoor
        self.asked = 0
        self.breaks_at = -1

    def masks(self, rgb: np.ndarray) -> Masks:
        self.asked += 1
        if self.asked == self.breaks_at:
            raise KeyboardInterrupt
        return super().masks(rgb)


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> ByBrightness:
    found = ByBrightness()
    monkeypatch.setattr(base, "open_teacher", lambda name: found)
    return found


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Three scans of a plane 3 m ahead, whose pictures are bright above the horizon and dark below."""
    folder = tmp_path / "pairs"
    folder.mkdir()
    y, z = (axis.ravel() for axis in np.meshgrid(np.linspace(-1, 1, 30), np.linspace(-0.8, 0.8, 30)))
    xyz = np.column_stack([np.full(901, 3), [*y, 0.0], [*z, 0.1]])
    for number in range(3):
        np.save(folder / f"{number}.npy", xyz)
        picture = np.full((120, 160, 3), 220, np.uint8)
        picture[60:] = 30
        Image.fromarray(picture).save(folder / f"{number}.jpg", quality=95)
    Calibration(cameras={"camera": camera_ahead(160, 120, 105)}).save(folder / "calibration.yaml")
    return folder


def labels_of(folder: Path) -> list[np.ndarray]:
    return [frame.labels["pseudo"].label for frame in open_input(folder)]


def label(pairs: Path, out: Path, **options: object) -> None:
    """The command with its defaults, but for the mapping (the teacher's space has no variant)."""
    defaults = {"variant": "hand", "agreement": True, "borders": True, "depth_edges": True, "geometry": False}
    pseudo_label(pairs, out, **(defaults | {"time": True, "confidence": 0.6, "keep": 1.0} | options))  # type: ignore[arg-type]


def test_points_get_what_the_picture_shows_where_they_are(
    pairs: Path, tmp_path: Path, teacher: ByBrightness, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    label(pairs, out, as_json=True)
    report = json.loads(capsys.readouterr().out)
    for frame in open_input(out):
        found, height = frame.labels["pseudo"], frame.scan.xyz[:, 2]
        assert found.space.name == "structural6" and found.confidence is not None
        assert (found.label[height > 0.2] == WALL).all() and (found.label[height < -0.2] == FLOOR).all()
        assert (found.label[np.abs(height) < 0.02] == UNLABELLED).all()  # the border of the mask
        np.testing.assert_array_equal(found.confidence > 0, found.label != UNLABELLED)
    assert report["finished"] and report["scans"] == 3 and report["seen"] == 3 * 901 == report["points"]
    assert report["labelled"] == sum(int((one != UNLABELLED).sum()) for one in labels_of(out))
    assert report["classes"]["wall"] + report["classes"]["floor"] == report["labelled"] < report["seen"]
    assert report["rejected"]["borders"] + report["labelled"] >= report["seen"]
    assert len(report["files"]) == 3
    for picture in report["files"]:
        assert Image.open(out / "labels" / "pseudo" / picture).size[0] > 1000


def test_the_report_says_why_points_have_no_label_and_which_only_time_gave_one() -> None:
    none, wall, floor = UNLABELLED, WALL, FLOOR
    rows = np.array(  # points, by stage: outvoted, improbable, beyond keep, not seen, border, ignored
        [[wall, none, none, none], [wall, wall, none, none], [floor, floor, floor, none], [none, wall, wall, wall],
         [none, none, none, none], [none, none, none, none]], np.uint8)  # fmt: skip
    seen, border = np.arange(6) != 3, np.arange(6) == 4
    evidence = Evidence(np.zeros((6, 6), np.float32), seen, np.arange(6) < 2, {"borders": border})
    report = PseudoReport(input="", teacher="", label_space="", variant="", refinements=Refinements(), source="")
    report.add(np.ones(6, bool), evidence, [PointLabels(STRUCTURAL6, stage) for stage in rows.T], STRUCTURAL6)
    assert report.rejected == {"borders": 1, "time": 1, "keep": 1} and (report.unsure, report.corrected) == (2, 2)
    assert (report.points, report.seen, report.labelled, report.unseen) == (6, 5, 1, 1)


def test_an_interrupted_run_keeps_its_work_and_goes_on(
    pairs: Path, tmp_path: Path, teacher: ByBrightness, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (added_labels, pseudo_run):
        monkeypatch.setattr(module, "BLOCK", 1)
    label(pairs, tmp_path / "whole")
    asked, teacher.asked = teacher.asked, 0
    teacher.breaks_at = asked * 2 // 3 + 1  # the first question about the last scan
    with pytest.raises(KeyboardInterrupt):
        label(pairs, tmp_path / "broken")
    teacher.asked, teacher.breaks_at = 0, -1
    label(pairs, tmp_path / "broken")
    assert teacher.asked == asked // 3
    for one, other in zip(labels_of(tmp_path / "whole"), labels_of(tmp_path / "broken"), strict=True):
        np.testing.assert_array_equal(one, other)
    reports = [json.loads((tmp_path / name / "labels/pseudo/report.json").read_text()) for name in ("whole", "broken")]
    assert {key: value for key, value in reports[0].items() if key != "input"} == {
        key: value for key, value in reports[1].items() if key != "input"
    }
    label(pairs, tmp_path / "broken")
    assert teacher.asked == asked // 3  # nothing is left to do


def test_labels_made_otherwise_are_not_overwritten(
    pairs: Path, tmp_path: Path, teacher: ByBrightness, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "set"
    label(pairs, out)
    with pytest.raises(UserError, match="holds labels made by"):
        label(pairs, out, confidence=0.8)
    label(out, None, raw=True, source="raw")  # type: ignore[arg-type]
    [first, *_] = open_input(out)
    assert (first.labels["raw"].label != UNLABELLED).all()
    label(pairs, out, confidence=0.8, again=True)
    assert json.loads((out / "labels/pseudo/report.json").read_text())["scans"] == 3


def test_the_least_probable_points_of_each_class_are_left_out(
    pairs: Path, tmp_path: Path, teacher: ByBrightness, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {}
    for keep in (1.0, 0.5):
        label(pairs, tmp_path / str(keep), keep=keep, as_json=True)
        counts[keep] = json.loads(capsys.readouterr().out)["classes"]
    for name in ("wall", "floor"):
        assert abs(counts[0.5][name] - counts[1.0][name] / 2) <= 1


def change_size(pairs: Path) -> None:
    for path in pairs.glob("*.jpg"):
        Image.open(path).resize((80, 60)).save(path)


def drop_pictures(pairs: Path) -> None:
    for path in pairs.glob("*.jpg"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (change_size, "80 x 60 pixels, its calibration is for 160 x 120"),
        (drop_pictures, "no scan has an image of the calibration's cameras"),
        (lambda pairs: (pairs / "calibration.yaml").unlink(), "camera 'camera' of scan 0 is not calibrated"),
    ],
)
def test_bad_input_is_named(
    damage: Callable[[Path], None], message: str, pairs: Path, tmp_path: Path, teacher: ByBrightness
) -> None:
    damage(pairs)
    with pytest.raises(UserError, match=message):
        label(pairs, tmp_path / "set")


def test_a_folder_that_is_not_converted_needs_an_output(pairs: Path, teacher: ByBrightness) -> None:
    with pytest.raises(UserError, match="give a folder for it with --out"):
        label(pairs, None)  # type: ignore[arg-type]


def test_a_set_without_any_label_is_an_error(pairs: Path, tmp_path: Path, teacher: ByBrightness) -> None:
    def fails(rgb: np.ndarray) -> Masks:
        raise UserError("this teacher is asleep")

    teacher.masks = fails  # type: ignore[method-assign]
    with pytest.raises(UserError, match="got a label: this teacher is asleep"):
        label(pairs, tmp_path / "set")


@pytest.mark.slow
def test_two_processes_give_the_same_labels_as_one(
    pairs: Path, tmp_path: Path, run: Run, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMP_SEG_TEACHERS", str(shared_data / "teachers"))
    for number in range(3, added_labels.BLOCK + 6):
        for suffix in (".npy", ".jpg"):
            shutil.copy(pairs / f"0{suffix}", pairs / f"{number}{suffix}")
    for processes in (1, 2):
        options = ("--variant", "hand", "--raw", "--processes", processes)
        assert run("pseudo-label", pairs, "--out", tmp_path / str(processes), *options).code == 0
    labels = [content(tmp_path / name / "labels/pseudo") for name in ("1", "2")]
    assert labels[0] == labels[1]


def test_a_converted_set_takes_no_other_calibration(pairs: Path, tmp_path: Path, teacher: ByBrightness) -> None:
    label(pairs, tmp_path / "set")
    with pytest.raises(UserError, match="is a converted set and keeps the calibration"):
        label(tmp_path / "set", None, calibration=pairs / "calibration.yaml")  # type: ignore[arg-type]

"""Pseudo-labels of a whole set: in blocks, resumed, counted once, and the same from several processes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from bags import Recording, columns
from conftest import Run
from test_conversion import SECOND, START, calibration, content, jpeg
from test_pseudo_labels import Painted

from cmp_seg_ros.datasets import added_labels, open_input
from cmp_seg_ros.datasets.unified import DataSet as UnifiedSet
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.pseudo_labels import run as pseudo_run
from cmp_seg_ros.pseudo_labels.labeller import PseudoLabeller, Refinements
from cmp_seg_ros.pseudo_labels.report import PseudoReport

SPACE = LabelSpace.load("structural6")
SOURCE = "labels/pseudo"


def make_set(folder: Path, scans: int, run: Run) -> Path:
    """Images of 32 x 24 whose red is 20 times the number of their scan, converted."""
    calibration(folder / "calibration.yaml")
    with Recording(folder / "drive") as bag:
        for i in range(scans):
            cloud = columns(i) | {"x": np.abs(columns(i)["x"]) * 5 + 2}
            bag.cloud("/points", START + i * SECOND // 10, cloud)
            bag.jpeg("/left/compressed", START + i * SECOND // 10, jpeg(20 * i))
            bag.jpeg("/right/compressed", START + i * SECOND // 10, jpeg(20 * i))
    assert run("convert", folder / "drive", "--out", folder / "set", "--processes", 1).code == 0
    return folder / "set"


def label(folder: Path, paint: Callable[[np.ndarray], np.ndarray]) -> PseudoReport:
    labeller = PseudoLabeller(Painted(paint), SPACE, "", Refinements.none())
    report = PseudoReport(
        input="",
        teacher="painted",
        label_space=SPACE.name,
        variant="hand",
        refinements=labeller.refinements,
        source="pseudo",
    )
    return pseudo_run.label_set(UnifiedSet(folder), labeller, report)


def floor_or_wall(rgb: np.ndarray) -> np.ndarray:
    """Of `indoor`, by the scan's number: floor where it is odd."""
    return np.full(rgb.shape[:2], round(rgb[0, 0, 0] / 20) % 2, np.uint8)


def test_a_run_that_is_broken_off_goes_on_and_counts_every_scan_once(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (added_labels, pseudo_run):
        monkeypatch.setattr(module, "BLOCK", 4)
    folder = make_set(tmp_path, 10, run)
    asked: list[int] = []

    def breaks_off(rgb: np.ndarray) -> np.ndarray:
        asked.append(1)
        if len(asked) == 13:  # in the second block
            raise KeyboardInterrupt
        return floor_or_wall(rgb)

    with pytest.raises(KeyboardInterrupt):
        label(folder, breaks_off)
    assert sorted(path.name for path in (folder / SOURCE).glob("*.tar")) == ["000000.tar"]
    report = label(folder, floor_or_wall)
    assert report.finished and report.scans == 10 and len(report.files) == len(set(report.files)) == 5
    assert report.labelled == report.seen == sum(report.classes.values()) > 0
    (tmp_path / "b").mkdir()
    again = make_set(tmp_path / "b", 10, run)
    label(again, floor_or_wall)
    assert content(folder / SOURCE) == content(again / SOURCE)
    for frame in open_input(folder):
        names = {SPACE.names[one] for one in np.unique(frame.labels["pseudo"].label) if one != 255}
        assert names == {"floor" if frame.number % 2 else "wall"}


def test_a_set_without_any_label_is_an_error(tmp_path: Path, run: Run) -> None:
    folder = make_set(tmp_path, 2, run)

    def fails(rgb: np.ndarray) -> np.ndarray:
        raise UserError("this teacher is asleep")

    with pytest.raises(UserError, match="got a label: this teacher is asleep"):
        label(folder, fails)


@pytest.mark.slow
def test_two_processes_give_the_same_labels_as_one(
    tmp_path: Path, run: Run, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMP_SEG_TEACHERS", str(shared_data / "teachers"))
    folders = []
    for processes in (1, 2):
        (tmp_path / str(processes)).mkdir()
        folders.append(make_set(tmp_path / str(processes), added_labels.BLOCK + 6, run))
        options = ("--variant", "hand", "--raw", "--processes", processes)
        assert run("pseudo-label", folders[-1], *options).code == 0
    assert content(folders[0]) == content(folders[1])

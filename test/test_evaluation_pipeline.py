"""The one loop from frames to a report: what becomes of frames that cannot be labelled, and what the report says."""

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from painted import Painted, camera_ahead

from cmp_seg_ros import outputs
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import PREDICTIONS, TRUTH, CameraImage, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.pipeline import Consumer, Result, StoredLabels, results_of_parts, run
from cmp_seg_ros.evaluation.report import Report, schema
from cmp_seg_ros.evaluation.report_page import PageFiles
from cmp_seg_ros.evaluation.scoring import Scores, TeacherLabels
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED, Scan

SPACE = LabelSpace.load("structural6")
SCHEMA = Path(__file__).parents[1] / "docs" / "report.schema.json"


class Frames(DataSet):
    """Six frames of three points; the third has no predictions, the fourth no truth. A part each."""

    def __init__(self, numbers: tuple[int, ...] = (0, 1, 2, 3, 4, 5)) -> None:
        super().__init__(Path("six"))
        self.numbers = numbers
        self.count = len(numbers)

    def __iter__(self) -> Iterator[Frame]:
        for number in self.numbers:
            labels = {"predictions": PointLabels(SPACE, np.array([0, 1, number % 2], np.uint8))}
            labels[TRUTH] = PointLabels(SPACE, np.array([0, 1, 0], np.uint8))
            if number in (2, 3):
                del labels["predictions" if number == 2 else TRUTH]
            yield Frame(f"{number}", Scan(np.full((3, 3), 1.0 + number)), number, labels=labels, group=f"{number // 3}")

    def parts(self) -> list[DataSet]:
        return [Frames((number,)) for number in self.numbers]


class Written(Consumer):
    replaces = ("written.txt",)

    def __init__(self, out: Path) -> None:
        self.out, self.closed = out, False

    def finish(self, report: Report) -> None:
        (self.out / "written.txt").write_text(f"{report.frames.labelled}")
        report.files.append("written.txt")

    def close(self) -> None:
        self.closed = True


def test_frames_are_accounted_for_by_outcome(tmp_path: Path) -> None:
    written = Written(tmp_path / "out")
    told: list[int] = []
    consumers = [Scores(SPACE, SPACE), written]
    report = run(
        Frames(),
        StoredLabels(SPACE),
        consumers,
        Report(command="test"),
        written.out,
        needs=(TRUTH,),
        progress=told.append,
    )
    frames = report.frames
    assert (frames.read, frames.labelled, sum(frames.skipped.values())) == (6, 4, 2)
    assert set(frames.skipped) == {"it has no truth", "2 has no labels from predictions"}
    assert len(report.problems) == 2 and told == [1, 2, 3, 4, 5, 6]
    assert report.accuracy is not None and report.accuracy.scans == 4
    assert report.iou["wall"] == pytest.approx(6 / 8)  # the third point of frames 1 and 5 is called floor
    stored = json.loads((written.out / "report.json").read_text())
    assert stored["finished"] and stored["files"] == ["written.txt", "report.json"]
    assert Report.model_validate(stored) == report and written.closed


def test_a_run_that_fails_is_marked_and_closed(tmp_path: Path) -> None:
    class Failing(Written):
        def add(self, result: Result, report: Report) -> None:
            raise UserError("no more")

    failing = Failing(tmp_path / "out")
    with pytest.raises(UserError, match="no more"):
        run(Frames(), StoredLabels(SPACE), [failing], Report(command="test"), failing.out)
    assert failing.closed and json.loads((failing.out / "report.json").read_text())["finished"] is False
    with pytest.raises(UserError, match="not made by cmp-seg another"):
        run(Frames(), StoredLabels(SPACE), [], Report(command="another"), failing.out)
    assert outputs.made_by(failing.out) == "test"


def test_several_sources_are_scored_side_by_side() -> None:
    sources = {"hand": SPACE, "pseudo": LabelSpace.load("structural4")}
    data = Frames()

    def labelled() -> Iterator[Frame]:
        for frame in Frames((0, 1, 3, 4, 5)):
            hand = PointLabels(SPACE, np.array([0, 1, UNLABELLED], np.uint8))
            pseudo = PointLabels(sources["pseudo"], np.array([0, 2, 0], np.uint8))
            labels = {PREDICTIONS: frame.labels[PREDICTIONS], "hand": hand, "pseudo": pseudo}
            for missing in {1: ["hand"], 4: ["pseudo"], 5: ["hand", "pseudo"]}.get(frame.number, []):
                del labels[missing]
            yield replace(frame, labels=labels)

    data.__class__ = type("Labelled", (Frames,), {"__iter__": lambda self: labelled()})
    scores = Scores(SPACE, SPACE, source="hand", others={"pseudo": sources["pseudo"]})
    report = run(data, StoredLabels(SPACE), [scores], Report(command="test"), needs=tuple(sources))
    assert report.source == "hand" and report.accuracy is not None and report.accuracy.scans == 3
    assert report.miou == 1 and report.accuracy.readings["structural6"].points["wall"] == 3  # partial labels
    pseudo = report.other_sources["pseudo"]
    assert pseudo.scans == 3 and pseudo.headline == "structural4"
    assert pseudo.readings["structural4"].iou == {"wall": 4 / 6, "floor": 0, "ceiling": 0, "non-structural": None}
    assert report.frames.skipped == {"it has no hand or pseudo labels": 1}
    assert not report.problems and len(report.warnings) == 1


def test_a_teacher_labels_what_its_camera_sees() -> None:
    mosaic32 = LabelSpace.load("mosaic32")
    floor = mosaic32.ids[mosaic32.names.index("floor")]
    scan = Scan(np.array([[3, 0, 0], [3, 0.5, 0.2], [-3, 0, 0], [np.nan] * 3]))  # ahead, ahead, behind, no return
    source = TeacherLabels(Painted(lambda rgb: np.full(rgb.shape[:2], floor), "mosaic32"))
    image = CameraImage(0, lambda: np.zeros((120, 160, 3), np.uint8), camera_ahead(160, 120, 100))
    label = source.labels_of(Frame("0", scan, images={"front": image}))
    assert label is not None and label.tolist() == [1, 1, UNLABELLED, UNLABELLED]
    assert source.labels_of(Frame("0", scan)) is None


def test_an_interrupted_run_keeps_what_it_measured(tmp_path: Path) -> None:
    def interrupt(done: int) -> None:
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    out = tmp_path / "out"
    consumers = [Scores(SPACE, SPACE), PageFiles(out)]
    with pytest.raises(KeyboardInterrupt):
        run(Frames(), StoredLabels(SPACE), consumers, Report(command="evaluate"), out, progress=interrupt)
    report = json.loads((out / "report.json").read_text())
    assert report["finished"] is False and report["frames"]["read"] == report["accuracy"]["scans"] == 2
    assert "Partial: the run was interrupted after 2 scans" in (out / "page.html").read_text()


def test_nothing_that_can_be_labelled_is_an_error() -> None:
    with pytest.raises(UserError, match="scan 2 of six: 2 has no labels from predictions"):
        run(Frames((2,)), StoredLabels(SPACE), [], Report(command="test"))
    with pytest.raises(UserError, match="six contains no scans"):
        run(Frames(()), StoredLabels(SPACE), [], Report(command="test"))


def keys(part: DataSet, results: Iterator[Result]) -> list[tuple[str, bool]]:
    return [(result.frame.key, result.labels is None) for result in results]


@pytest.mark.parametrize("processes", [1, 2])
def test_parts_come_in_order(processes: int) -> None:
    found = [pair for part in results_of_parts(Frames().parts(), StoredLabels(SPACE), keys, processes) for pair in part]
    assert found == [(str(number), number == 2) for number in range(6)]


def test_a_data_set_gives_the_frame_of_a_number() -> None:
    assert Frames()[4].key == "4" and len(Frames()) == 6
    with pytest.raises(IndexError):
        Frames()[6]


def test_the_schema_in_the_docs_is_the_reports() -> None:
    assert SCHEMA.read_text() == schema()

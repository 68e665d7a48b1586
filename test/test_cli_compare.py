"""`cmp-seg compare`: which differences are noise, what cannot be compared, and what is left behind."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cmp_seg_ros.evaluation.accuracy import Scorer
from cmp_seg_ros.evaluation.bootstrap import Bootstrap, pack
from cmp_seg_ros.evaluation.metrics import iou_of, mean_of
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Labels, Scan

Write = Callable[..., Path]
SIX, FOUR = LabelSpace.load("structural6"), LabelSpace.load("structural4")
WALL, FLOOR, OBJECT = 0, 1, 4
GROUPS = 12


def evaluated(
    wrong: dict[int, float],
    seed: int = 0,
    groups: int = GROUPS,
    space: LabelSpace = SIX,
    confidence: float = 0.9,
) -> dict[str, Any]:
    """A report on scans that are the same in all; a share of the points of each class is mistaken, of some groups more
    than of others."""
    scans, labels = np.random.default_rng(1), np.random.default_rng(seed)
    scorer = Scorer(space, space)
    for group in range(groups):
        hard = scans.uniform(0, 2)
        for number in range(2):
            truth = scans.integers(0, len(space.classes), 300).astype(np.uint8)
            scan = Scan(scans.normal(0, 5, (300, 3)).round(1))
            share = np.array([wrong.get(c, 0.1) for c in range(len(space.classes))])[truth] * hard
            said = np.where(labels.random(300) < share, np.where(truth == 3, 2, 3), truth).astype(np.uint8)
            found = Labels(said, np.full(300, confidence, np.float32))
            scorer.add(f"building {group}", f"{group}/{number}", scan, truth, found, T_world_lidar=np.eye(4))
    latency = {"p50": 40.0, "p95": 60.0}
    accuracy = scorer.result().model_dump(mode="json")
    return {"command": "evaluate", "model": "m", "engine": "cpu", "latency_ms": latency, "accuracy": accuracy}


def suite(better: float = 0.0, groups: bool = True, rows: tuple[str, ...] = ("world", "house")) -> dict[str, Any]:
    """The report of a benchmark suite, as far as it is compared: two sensors, buildings that differ."""
    rng = np.random.default_rng(2)
    found: dict[str, Any] = {
        "command": "evaluate",
        "suite": "small",
        "model": "m",
        "engine": f"cpu-{better}",
        "rows": {},
    }
    for name in rows:
        sensors = {}
        for sensor in ("a", "b"):
            matrices = np.zeros((GROUPS, 2, 3), np.int64)
            for matrix in matrices:
                share = rng.uniform(0.6, 0.9) + better
                for c in range(2):
                    matrix[c, [c, 1 - c]] = round(1000 * share), 1000 - round(1000 * share)
            drawn = Bootstrap().draw(matrices, lambda m: mean_of(iou_of(m)))
            sensors[sensor] = {
                "primary": float(mean_of(iou_of(matrices.sum(axis=0)))),
                "interval": Bootstrap().interval(drawn),
                "scans_sha256": name + sensor,
                "groups": {str(i): pack(matrix) for i, matrix in enumerate(matrices)} if groups else {},
            }
        mean = float(np.mean([column["primary"] for column in sensors.values()]))
        found["rows"][name] = {"sensors": sensors, "mean": {"primary": mean, "interval": [mean - 0.05, mean + 0.05]}}
    return found


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def call(name: str, report: Any) -> Path:
        path = tmp_path / name / "report.json"
        path.parent.mkdir()
        path.write_text(report if isinstance(report, str) else json.dumps(report))
        return path

    return call


@pytest.fixture
def compare(run: Callable[..., SimpleNamespace]) -> Callable[..., dict[str, Any]]:
    """The comparison by title of section and name of figure; `notes` and `summary` as they are."""

    def call(a: Path, b: Path) -> dict[str, Any]:
        ran = run("compare", a, b, "--json")
        assert ran.code == 0, ran.err
        report = json.loads(ran.out)
        sections = {
            section["title"]: {figure["name"]: figure for figure in section["figures"]}
            for section in report["sections"]
        }
        how = {section["title"]: section["intervals"] for section in report["sections"]}
        return {**sections, "how": how, "notes": report["notes"], "summary": report["summary"]}

    return call


def test_what_is_worse_is_told_from_noise(write: Write, compare: Any) -> None:
    a = write("a", evaluated({}))
    b = write("b", evaluated({FLOOR: 0.4}, seed=5, confidence=0.99))
    found = compare(a, b.parent)
    six = found["structural6"]
    accuracy = [json.loads(path.read_text())["accuracy"]["readings"]["structural6"] for path in (a, b)]
    assert (six["mIoU"]["a"], six["mIoU"]["b"]) == (accuracy[0]["miou"], accuracy[1]["miou"])
    assert six["IoU floor"]["difference"] == pytest.approx(accuracy[1]["iou"]["floor"] - accuracy[0]["iou"]["floor"])
    assert six["IoU floor"]["verdict"] == "worse" and six["IoU floor"]["interval"][1] < 0
    assert six["IoU wall"]["verdict"] == six["IoU person"]["verdict"] == "noise"
    assert found["how"]["structural6"] == f"paired, {GROUPS} groups"
    assert found["structural6, by class"]["recall floor"]["verdict"] == "worse"
    assert found["structural4_primary"]["mIoU"]["verdict"] == "worse"
    assert next(iter(found["structural4_primary, by range"])) == "mIoU 0-2 m"
    assert found["calibration of confidences"]["ECE"]["verdict"] == "worse"
    assert found["temporal consistency"]["agreement"]["difference"] is not None
    assert found["latency"]["p50"] == {
        "name": "p50", "unit": "ms", "a": 40, "b": 40, "difference": 0, "interval": None, "verdict": "unknown"
    }  # fmt: skip
    (line,) = (line for line in found["summary"] if line.startswith("structural6:"))
    worse, _, noise = line.partition("noise: ")
    assert "B worse: mIoU (-" in worse and "IoU floor (-" in worse and "IoU wall" in noise


def test_the_other_way_round_it_is_better(write: Write, compare: Any) -> None:
    a, b = write("a", evaluated({})), write("b", evaluated({FLOOR: 0.2}, seed=5))
    one, other = compare(a, b)["structural6"]["IoU floor"], compare(b, a)["structural6"]["IoU floor"]
    assert (one["verdict"], other["verdict"]) == ("worse", "better")
    assert one["interval"] == pytest.approx([-end for end in reversed(other["interval"])])
    same = compare(a, a)["structural6"]
    assert {figure["verdict"] for figure in same.values()} == {"equal"}


def test_groups_are_paired_by_name_whatever_their_order(write: Write, compare: Any) -> None:
    b = evaluated({FLOOR: 0.2}, seed=5)
    turned = copy.deepcopy(b)
    for reading in turned["accuracy"]["readings"].values():
        reading["groups"] = dict(reversed(reading["groups"].items()))
    a = write("a", evaluated({}))
    expected = compare(a, write("b", b))["structural6"]
    assert compare(a, write("turned", turned))["structural6"] == expected


def test_other_groups_are_not_paired(write: Write, compare: Any) -> None:
    a = write("a", evaluated({}))
    found = compare(a, write("b", evaluated({FLOOR: 0.12}, seed=5, groups=11)))
    assert found["how"]["structural6"] == f"unpaired: {GROUPS} groups in A, 11 in B, not the same ones"
    interval = found["structural6"]["IoU floor"]["interval"]
    paired = compare(a, write("paired", evaluated({FLOOR: 0.12}, seed=5)))["structural6"]["IoU floor"]["interval"]
    assert interval[1] - interval[0] > paired[1] - paired[0]
    found = compare(a, write("one", evaluated({}, groups=1)))
    assert found["how"]["structural6"] == "none: a single group"
    assert any("evaluate more groups" in note for note in found["notes"])
    assert found["structural6"]["mIoU"]["verdict"] == "unknown"
    found = compare(a, write("few", evaluated({}, groups=3)))
    assert any("fewer than 10 groups" in note for note in found["notes"])


def test_what_differs_between_the_runs_is_noted(write: Write, compare: Any) -> None:
    a = evaluated({})
    b = {**copy.deepcopy(a), "engine": "openvino", "machine": {"processor": "Fast"}}
    b["accuracy"]["readings"]["structural6"]["groups"]["building 3"] = pack(np.ones((6, 7), int))
    b["accuracy"]["consistency"]["voxel_size"] = 0.2
    found = compare(write("a", a), write("b", b))
    assert found["notes"][:2] == ["engine: A cpu, B openvino", "processor: A -, B Fast"]
    assert any(note.startswith("structural6: groups of the same name have different points") for note in found["notes"])
    assert "temporal consistency" not in found and any("temporal consistency" in note for note in found["notes"])


def test_labels_of_other_classes_are_compared_where_both_can_be_read(write: Write, compare: Any) -> None:
    a, b = evaluated({}), evaluated({}, space=FOUR)
    b["accuracy"]["readings"]["structural4_primary"] = b["accuracy"]["readings"].pop("structural4")
    found = compare(write("a", a), write("b", b))
    assert "structural6" not in found and found["structural4_primary"]["mIoU"]["interval"] is not None
    assert "not in both reports, or with different classes: structural6" in found["notes"]


def test_rows_of_a_suite(write: Write, compare: Any) -> None:
    a = write("a", suite())
    found = compare(a, write("b", suite(0.01)))
    row = found["primary mIoU, world"]
    assert list(row) == ["mean", "a", "b"] and {figure["verdict"] for figure in row.values()} == {"better"}
    assert row["mean"]["interval"][0] < row["mean"]["difference"] < row["mean"]["interval"][1]
    assert found["how"]["primary mIoU, world"] == f"paired, {GROUPS} groups"
    # The mean over sensors, of which only one got better.
    half = suite(0.01)
    half["rows"]["world"]["sensors"]["b"] = suite()["rows"]["world"]["sensors"]["b"]
    row = compare(a, write("half", half))["primary mIoU, world"]
    assert row["mean"]["interval"] == pytest.approx([end / 2 for end in row["a"]["interval"]])
    assert row["b"]["verdict"] == "equal"
    # Without groups, from the intervals: the buildings hide as small a difference.
    old = suite(0.01, groups=False)
    found = compare(a, write("old", old))
    row = found["primary mIoU, house"]
    assert {figure["verdict"] for figure in row.values()} == {"noise"}
    assert "as if A and B were independent" in found["how"]["primary mIoU, house"]
    one, other = (report["rows"]["house"]["sensors"]["a"] for report in (suite(), old))
    down = np.hypot(other["primary"] - other["interval"][0], one["interval"][1] - one["primary"])
    assert row["a"]["interval"][0] == pytest.approx(row["a"]["difference"] - down)


def test_rows_and_sensors_that_both_have(write: Write, compare: Any) -> None:
    a, b = suite(rows=("world",)), suite(0.1)
    del b["rows"]["world"]["sensors"]["a"]
    b["rows"]["world"]["sensors"]["b"]["scans_sha256"] = "other"
    found = compare(write("a", a), write("b", b))
    assert list(found["primary mIoU, world"]) == ["b"] and "primary mIoU, house" not in found
    assert found["primary mIoU, world"]["b"]["verdict"] == "better"
    assert "world: A and B were measured on different scans" in found["notes"]


def test_it_leaves_what_it_says(write: Write, run: Any, tmp_path: Path) -> None:
    a, b = write("a", evaluated({})), write("b", evaluated({FLOOR: 0.2}, seed=5))
    out = tmp_path / "out"
    ran = run("compare", a, b, "--out", out)
    assert ran.code == 0, ran.err
    assert "B worse: mIoU" in ran.out and "noise: " in ran.out and str(a) in ran.out
    assert json.loads((out / "report.json").read_text())["command"] == "compare"
    assert "| IoU floor | " in (out / "report.md").read_text()
    page = (out / "page.html").read_text()
    assert '<td class="bad">B worse</td>' in page and page.count("data:image/png") == 2
    for picture in ("compare.png", "reliability.png"):
        assert (out / picture).stat().st_size > 10_000
    # Of a suite there are no confidences: no picture of an earlier run stays.
    assert run("compare", write("c", suite()), write("d", suite(0.1)), "--out", out).code == 0
    assert (out / "compare.png").exists() and not (out / "reliability.png").exists()
    refused = run("compare", a, b, "--out", a.parent)
    assert refused.code == 1 and "give another --out" in refused.err


@pytest.mark.parametrize(
    ("report", "says"),
    [
        ("{", "is not JSON"),
        ([], "is not a report"),
        (
            {"command": "label"},
            "has neither a section `accuracy` nor rows of a benchmark suite: it is from cmp-seg label",
        ),
        ({"command": "evaluate", "finished": False}, "is from a run that did not finish; run it again"),
        (
            {"command": "evaluate", "accuracy": {"scans": 3}},
            "was written by another version of cmp-seg (truth_space: Field",
        ),
        (suite(), "is from a benchmark suite and"),
    ],
)
def test_what_cannot_be_compared_is_one_clear_line(write: Write, run: Any, report: Any, says: str) -> None:
    good, bad = write("good", evaluated({}, groups=2)), write("bad", report)
    for pair in ((good, bad), (bad.parent, good)):
        ran = run("compare", *pair)
        assert ran.code == 1 and says in ran.err and str(bad) in ran.err and ran.err.count("\n") == 1


def test_missing_files_and_damaged_groups(write: Write, run: Any, tmp_path: Path) -> None:
    a = evaluated({}, groups=2)
    good = write("good", a)
    ran = run("compare", good, tmp_path / "nothing")
    assert ran.code == 1 and "nothing cannot be read: No such file" in ran.err and "cmp-seg evaluate --out" in ran.err
    a["accuracy"]["readings"]["structural6"]["groups"]["building 0"] = "1 2; 3"
    ran = run("compare", good, write("bad", a))
    assert ran.code == 1 and "has groups with invalid counts" in ran.err and "bad" in ran.err
    ran = run("compare", write("c", suite(rows=("world",))), write("d", suite(rows=("house",))))
    assert ran.code == 1 and "has rows world" in ran.err

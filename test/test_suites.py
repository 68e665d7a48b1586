"""The benchmark suite: fixed files, the same scans on every run, figures of what was counted, and the command."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import Run
from painted import Painted, camera_ahead

from cmp_seg_ros import resources
from cmp_seg_ros.datasets import boxes
from cmp_seg_ros.datasets.frame import CameraImage, Frame
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.accuracy import Scorer
from cmp_seg_ros.evaluation.metrics import Confusion
from cmp_seg_ros.evaluation.page import percent
from cmp_seg_ros.evaluation.pipeline import Model
from cmp_seg_ros.evaluation.reliability import BINS
from cmp_seg_ros.evaluation.report_page import iou_table
from cmp_seg_ros.evaluation.suites import run as suite_run
from cmp_seg_ros.evaluation.suites.recordings import Agreement
from cmp_seg_ros.evaluation.suites.run import Count, Counter, Part, SuiteRun, program_files
from cmp_seg_ros.evaluation.suites.scans import Scans, shown
from cmp_seg_ros.evaluation.suites.scores import Scores, compile_report
from cmp_seg_ros.evaluation.suites.suite import Suite
from cmp_seg_ros.evaluation.suites.tables import heading, markdown, sheets
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Labels, Scan
from cmp_seg_ros.simulation import generate
from cmp_seg_ros.simulation.building import make_building
from cmp_seg_ros.simulation.generate import rotation, scans_in, views_in
from cmp_seg_ros.simulation.lidar import Lidar
from cmp_seg_ros.simulation.version import data_files
from cmp_seg_ros.training import tasks

SIX = LabelSpace.load("structural6")
WALL, FLOOR, CEILING, FLUSH, OBJECT, PERSON = range(6)

SMALL: dict[str, Any] = {
    "name": "small",
    "buildings": {"first": 20_000_000, "count": 2},
    "scans": 1,
    "sensors": ["os1-16", "vlp-16"],
    "rows": {
        "world": None,
        "no-intensity": {"intensity": False, "against": "world"},
        "level": {"mount": {}},
        "tilted": {"mount": {"roll": 20}, "against": "level"},
    },
    "range_bins": [0, 4],
    "bootstrap": {"resamples": 50},
    "musts": {"world": {"primary": 0.0, "class": 0.99}, "tilted": {"drop": 1}},
}


def small(**changes: Any) -> Suite:
    return Suite.model_validate({**SMALL, **changes})


def dump(**changes: Any) -> str:
    return yaml.safe_dump({**SMALL, **changes}, sort_keys=False)


@pytest.fixture
def perfect(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Labels come from the simulator's truth instead of a network; the scans that it was shown."""
    truths: dict[bytes, Any] = {}
    shown: list[dict[str, Any]] = []

    def remembering(*args: Any, **kwargs: Any) -> Any:
        for views in views_in(*args, **kwargs):
            for scan, label, _ in views:
                truths[scan.xyz.tobytes()] = SIX.id_map(LabelSpace.load("indoor"))[label]
            yield views

    def perfect(self: Model, frame: Frame) -> Labels:
        shown.append({"intensity": frame.scan.intensity is not None, "T": frame.T_base_lidar})
        label = truths[frame.scan.xyz.tobytes()]
        return Labels(label, np.ones(len(label), np.float32), voxels=7)

    monkeypatch.setattr(generate, "views_in", remembering)
    monkeypatch.setattr(Model, "__call__", perfect)
    return shown


def test_suites_and_training_share_no_building() -> None:
    suites = [Suite.load(name) for name in resources.names("config/suites", ".yaml")]
    assert "indoor-v2" in [suite.name for suite in suites]
    others: set[int] = set()
    for suite in suites:
        measured = set(range(suite.buildings.first, suite.buildings.first + suite.buildings.count))
        assert not measured & others
        others |= measured
        for name in resources.names("config/training", ".yaml"):
            config = tasks.load_config(name)
            for data in (getattr(config, field, None) for field in ("data", "simulation")):
                if data is not None:
                    first = data.first_validation_building
                    assert not measured & set(data.seeds)
                    assert not measured & set(range(first, first + data.validation_buildings))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"sensors": ["os1-17"]}, "no sensor os1-17; known: airy"),
        ({"sensors": ["os1-16", "os1-16"]}, "a sensor is named twice"),
        ({"truth": "ade"}, "truth: no label space 'ade'"),
        ({"range_bins": [0, 5, 2]}, "range_bins must rise from 0"),
        ({"rows": {"a": {"against": "b"}}, "musts": {}}, "row a is compared with 'b', which is no row"),
        ({"rows": {"a": {}, "b": {"mount": {}, "against": "a"}}, "musts": {}}, "b is compared with a, which is taken"),
        (
            {"rows": {"a": {}, "b": {"against": "a"}, "c": {"against": "b"}}, "musts": {}},
            "row c is compared with b, which is itself compared with another",
        ),
        ({"musts": {"house": {}}}, "musts are for rows; 'house' is none of world"),
        ({"musts": {"world": {"drop": 0.1}}}, "musts of world: a drop needs a row"),
        ({"rows": {"world": {"mount": {"rol": 20}}}}, "rows.world.mount.rol: Extra inputs"),
        ({"rows": {"a": {"boxes": "plain", "scene": "house"}}, "musts": {}}, "neither a scene nor a mount"),
        ({"rows": {"a": {"boxes": "cellar"}}, "musts": {}}, "no box rooms 'cellar'; known: plain"),
        ({"rows": {"a": {"response": "loud"}}, "musts": {}}, "no response 'loud'; known: native"),
        ({"rows": {"a": {"boxes": "plain"}}, "musts": {}}, "no sensor os1-16, vlp-16; known: rings-16"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(dump(**changes))
    with pytest.raises(UserError) as error:
        Suite.load(path)
    message = str(error.value)
    assert says in message and str(path) in message and "\n" not in message and "Value error" not in message


def test_an_unknown_suite_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UserError, match=r"no benchmark suite 'outdoor': neither a file nor one of .*indoor-v2"):
        Suite.load("outdoor")


def test_mounts_see_the_same_place() -> None:
    level, turned = rotation(0, 0, 0), rotation(np.pi, 0, 0)
    for (a, _, T_a), (b, _, T_b), (c, _, T_c) in views_in(make_building(3), 2, "vlp-16", [level, turned, None]):
        np.testing.assert_array_equal(T_a[:3, :3], np.eye(3))
        np.testing.assert_array_equal(T_b[:3, :3], turned[:3, :3])
        np.testing.assert_array_equal(T_a[:3, 3], T_b[:3, 3])
        np.testing.assert_array_equal(T_c[:3, 3], T_b[:3, 3])
        assert len(a) == len(b) == len(c)
        # The room around them is the same: as far to the ground, about as far to the walls.
        up_a, up_b = ((xyz.xyz @ T[:3, :3].T)[xyz.valid()] for xyz, T in ((a, T_a), (b, T_b)))
        np.testing.assert_allclose(np.percentile(up_a, [5, 95], axis=0), np.percentile(up_b, [5, 95], axis=0), atol=0.7)


def test_a_place_does_not_depend_on_other_mounts() -> None:
    alone = [scan for scan, _, _ in scans_in(make_building(5), 2, "os1-16")]
    both = [views[-1][0] for views in views_in(make_building(5), 2, "os1-16", [rotation(0.3, 0, 0), None])]
    for one, other in zip(alone, both, strict=True):
        np.testing.assert_array_equal(one.xyz, other.xyz)
        np.testing.assert_array_equal(one.intensity, other.intensity)


def test_a_perfect_labeller_gets_all(perfect: list[dict[str, Any]], tiny_bundle: Path, tmp_path: Path) -> None:
    run = SuiteRun(small(), tiny_bundle, "reference", out=tmp_path)
    run.processes = 1
    report = compile_report(run, run.run(), {})
    for row in report["rows"].values():
        assert row["mean"]["primary"] == row["mean"]["strict"] == 1 and row["mean"]["interval"] == (1, 1)
        for column in row["sensors"].values():
            assert column["structural6"]["miou"] == 1 and column["voxels_per_scan"] == 7 and column["scans"] == 2
            assert sum(bin_["points"] for bin_ in column["by_range"]) <= column["points"]
    assert report["rows"]["tilted"]["difference"]["mean"] == 0
    assert [must["met"] for must in report["musts"]] == [True, True, True] and report["whole"]
    # What the network was shown: intensity but in one row, and the mount that the scan was taken in.
    assert sum(not scan["intensity"] for scan in perfect) == 4 and len(perfect) == 16
    tilts = [np.degrees(np.arccos(scan["T"][2, 2])) for scan in perfect[8:]]
    np.testing.assert_allclose(tilts, 4 * [0, 20], atol=1e-6)


def test_lidars_have_all_their_beams_and_columns(perfect: list[dict[str, Any]], tiny_bundle: Path) -> None:
    run = SuiteRun(small(sensors=["os1-64"]), tiny_bundle, "reference")
    row, full = run.rows["level"], Lidar.load("os1-64").shape
    assert full == (64, 1024)
    taken = {frame.scan.shape for frame in run.scans(row.places, "os1-64")}
    assert taken == {full}
    # Those of training, of the same buildings, are thinned.
    assert {scan.shape for b in run.buildings for scan, _, _ in scans_in(make_building(b), 1, "os1-64")} > {full}


def test_the_digest_is_of_intensity_too(
    perfect: list[dict[str, Any]], tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = SuiteRun(small(), tiny_bundle, "reference", only=["world"])
    views = generate.views_in

    def brighter(*args: Any, **kwargs: Any) -> Iterator[Any]:
        for ((scan, label, T),) in views(*args, **kwargs):
            yield [(replace(scan, intensity=2 * np.asarray(scan.intensity)), label, T)]

    def digest() -> str:
        scans = run.scans("buildings-mix", "vlp-16")
        assert list(scans)
        return scans.digests["world"]

    before = digest()
    assert digest() == before
    monkeypatch.setattr(generate, "views_in", brighter)
    assert digest() != before


@pytest.fixture
def counting(tiny_bundle: Path, tmp_path: Path) -> Callable[..., list[tuple[str, str]]]:
    """Runs a benchmark suite of a building and a scene, counts without scans; the jobs that were not kept."""
    folder = tmp_path / "scenes" / "shed"
    folder.mkdir(parents=True)
    (folder / "world.yaml").write_text("items: [1]")
    suite = small(rows={"level": {"mount": {}}, "shed": {"scene": "shed"}}, musts={}, sensors=["vlp-16"])

    def call(during: Callable[[], Any] = lambda: None, **options: Any) -> list[tuple[str, str]]:
        run = SuiteRun(suite, tiny_bundle, "reference", data=tmp_path, out=tmp_path / "out", **options)
        done: list[tuple[str, str]] = []

        def counted(jobs: list[tuple[str, str]], progress: Any) -> Iterator[Any]:
            during()
            for places, sensor in jobs:
                done.append((places, sensor))
                count = Count(np.ones(run.counter.shape, np.int64), np.ones((3, BINS)), 1, 1, "0")
                yield places, sensor, [dict.fromkeys(run._rows_of(places, sensor), count)] * len(run.buildings)

        run._counted = counted  # type: ignore[method-assign]
        assert set(run.run()) == {"level", "shed"}
        return done

    return call


HOUSES, SHED = ("buildings-mounts", "vlp-16"), ("shed-mix", "vlp-16")


def test_parts_of_several_settings_live_side_by_side(counting: Callable[..., list[tuple[str, str]]]) -> None:
    assert counting() == [HOUSES, SHED] and counting() == []
    assert counting(voxel_size=0.3) == [HOUSES, SHED]
    assert counting(buildings=1) == [HOUSES, SHED]
    assert counting() == counting(voxel_size=0.3) == counting(buildings=1) == []


def test_a_part_is_of_the_program_and_the_scene_at_the_beginning(
    counting: Callable[..., list[tuple[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = tmp_path / "scenes" / "shed" / "world.yaml"
    assert counting(lambda: world.write_text("items: [2]")) == [HOUSES, SHED]
    assert counting() == [SHED] and counting() == []
    assert {"structural6.yaml", "indoor.yaml", "os1-16.yaml"} <= {path.name for path in data_files()}
    program = {"/".join(path.parts[-2:]) for path in program_files()}
    assert {
        "simulation/walls.py",
        "kernels/network.py",
        "cmp_seg_ros/segmenter.py",
    } <= program and "cli/main.py" not in program
    monkeypatch.setattr(suite_run, "data_files", lambda: [*data_files(), world])
    assert counting() == [HOUSES, SHED] and counting() == []
    monkeypatch.setattr(suite_run, "_version", lambda library: "another")
    assert counting() == [HOUSES, SHED]


def test_a_damaged_part_is_done_again(counting: Callable[..., list[tuple[str, str]]], tmp_path: Path) -> None:
    counting()
    (path,) = (tmp_path / "out" / "parts").glob("shed-*.npz")
    whole = path.read_bytes()
    garbled = whole[:60] + bytes(byte ^ 0xFF for byte in whole[60:90]) + whole[90:]  # behind an array's header
    for damaged in (whole[: len(whole) // 2], garbled, b""):
        path.write_bytes(damaged)
        assert counting() == [SHED] and counting() == []


def test_draws_weigh_whole_buildings() -> None:
    confusion = Confusion(SIX)
    right, wrong = (
        confusion.count(np.array([WALL, FLOOR], np.uint8), np.array(said, np.uint8), np.zeros(2, int), 1)
        for said in ([WALL, FLOOR], [FLOOR, WALL])
    )  # (1, C, C + 1) of two points each
    count, weights = np.ones(3, np.int64), np.array([[1.0, 1, 1], [3, 0, 0], [0, 3, 0], [2, 1, 0]])
    part = Part(np.stack([right, wrong, right]), np.zeros((3, 3, BINS)), count, count, "")
    found = Scores({"a": part}, confusion, weights)
    # Of three parts right and one wrong: 3 / (3 + 2) in both classes; the other classes are not there.
    assert found.miou() == pytest.approx([0.5]) and found.drawn_miou()[:, 0] == pytest.approx([0.5, 1, 0, 0.5])
    assert np.isnan(found.iou[0, 2:]).all()


@pytest.fixture
def evaluate(run: Run, tiny_bundle: Path, tmp_path: Path) -> Run:
    path = tmp_path / "small.yaml"
    path.write_text(dump(sensors=["vlp-16"]))

    def call(*arguments: Any, suite: Any = path) -> SimpleNamespace:
        return run("evaluate", "--suite", suite, "--model", tiny_bundle, "--engine", "cpu-fp32", *arguments)

    return call


def test_command(evaluate: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = evaluate("--out", out, "--workers", 2, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report == json.loads((out / "report.json").read_text())
    assert list(report["rows"]) == ["world", "no-intensity", "level", "tilted"] and report["whole"]
    assert report["voxel_size"] == 0.1 and report["skipped"] == {}
    world, without = report["rows"]["world"], report["rows"]["no-intensity"]
    for sensor, column in world["sensors"].items():
        assert column["interval"][0] <= column["primary"] <= column["interval"][1]
        assert column["scans_sha256"] == without["sensors"][sensor]["scans_sha256"]
        assert 0 < column["points"] == without["sensors"][sensor]["points"]
    difference = without["mean"]["primary"] - world["mean"]["primary"]
    assert without["difference"]["mean"] == pytest.approx(difference)
    assert (out / "suite.png").stat().st_size > 10_000
    page = (out / "table.md").read_text()
    assert "| tilted |" in page and "## world: IoU in per cent" in page and "MISSED" in page

    # Nothing is done again, and one process counts as two do.
    parts = {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()}
    assert len(parts) == 2
    again = evaluate("--out", out, "--workers", 1, "--check")
    assert again.code == 1 and "world: IoU of " in again.err, again.err
    assert {path: path.stat().st_mtime_ns for path in (out / "parts").iterdir()} == parts

    # A part of it, with larger voxels.
    arguments = ("--only", "tilted", "--buildings", 1, "--workers", 1, "--voxel-size", 0.3, "--json")
    coarse = json.loads(evaluate("--out", out, *arguments).out)
    assert list(coarse["rows"]) == ["level", "tilted"] and not coarse["whole"]
    assert coarse["voxel_size"] == 0.3 and coarse["buildings"] == 1
    # Draws of one building are all alike, which is no certainty.
    for row in coarse["rows"].values():
        assert row["mean"]["interval"] is None and 0 < row["mean"]["primary"] < 1
    assert coarse["rows"]["tilted"]["difference"]["interval"] is None
    fine, column = (found["rows"]["tilted"]["sensors"]["vlp-16"] for found in (report, coarse))
    assert column["voxels_per_scan"] < 0.6 * fine["voxels_per_scan"]


def test_a_scene_that_is_not_there_is_said(evaluate: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("CMP_SEG_SHARED_DATA", raising=False)
    path = tmp_path / "house.yaml"
    rows = {"level": {"mount": {}}, "house": {"scene": "small_house"}}
    musts = {"house": {"primary": 0.1}}
    path.write_text(dump(rows=rows, musts=musts, sensors=["vlp-16"]))
    arguments = ("--buildings", 1, "--workers", 1, "--out", tmp_path / "out")
    ran = evaluate(*arguments, "--check", suite=path)
    assert "row house is left out: scene small_house: give --data FOLDER" in ran.err
    assert "not run" in ran.out and "not measured" in ran.out
    assert ran.code == 1 and "house was not measured" in ran.err
    report = json.loads(evaluate(*arguments, "--json", suite=path).out)
    assert not report["whole"] and list(report["skipped"]) == ["house"]
    nothing = evaluate("--only", "house", suite=path)
    assert nothing.code == 1 and "nothing of suite small can be run" in nothing.err
    wrong = evaluate("--data", tmp_path, suite=path)
    assert wrong.code == 1 and "has no scene small_house" in wrong.err


def test_the_house(evaluate: Run, tmp_path: Path, shared_data: Path) -> None:
    path = tmp_path / "house.yaml"
    rows = {"house": {"scene": "small_house"}}
    path.write_text(dump(rows=rows, musts={}, sensors=["vlp-16"]))
    arguments = ("--data", shared_data, "--buildings", 1, "--workers", 1)
    report = json.loads(evaluate(*arguments, "--json", suite=path).out)
    assert report["rows"]["house"]["sensors"]["vlp-16"]["points"] > 5000


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--only", "world,roof"), "suite small has no row roof; its rows: world, no-intensity"),
        (("--buildings", 3), "suite small has 2 buildings"),
        (("scans.bag", "--topic", "/points"), "leave out INPUT, --topic"),
    ],
)
def test_wrong_arguments(evaluate: Run, arguments: tuple[Any, ...], says: str) -> None:
    ran = evaluate(*arguments)
    assert ran.code == 1 and says in ran.err


def test_options_of_a_suite_need_one(run: Run) -> None:
    ran = run("evaluate", "bag", "--check", "--only", "world")
    assert ran.code == 1 and "--only, --check only works with --suite NAME" in ran.err
    ran = run("evaluate")
    assert ran.code == 1 and "nothing to evaluate" in ran.err


def test_sheets_say_what_is_not_there() -> None:
    figures = {"primary": 1.0, "interval": None, "strict": None, "iou": {"wall": 1.0, "floor": None}}
    figures |= {"ece": None, "false_person": 0.0}
    column = {**figures, "by_range": [{"primary": None}, {"primary": 1.0}], "points": 1000, "voxels_per_scan": 2.0}
    report: dict[str, Any] = {
        **{"suite": "b", "description": "d", "model": "m", "engine": "e", "voxel_size": 0.1, "whole": True},
        **{"buildings": 1, "first_building": 5, "scans_per_building": 1, "bootstrap": {"level": 0.9, "resamples": 2}},
        **{"range_bins": [0, 4], "skipped": {}, "musts": []},
        "rows": {"world": {"mount": None, "mean": figures, "sensors": {"a": column}}},
        "recordings": {},
    }
    details = {row[0]: row[1:] for row in sheets(report)[1].rows if row}
    assert details["floor"] == ["-", "-"] and details["primary, 0-4 m"] == ["-", ""]
    assert details["primary, from 4 m"] == ["100.0", ""] and details["90% interval"] == ["-", "-"]
    assert "| floor | - | - |" in markdown(report)
    assert "1 building from seed 5, 1 scan of each" in heading(report)
    report["rows"]["house"] = {**report["rows"]["world"], "scene": "small_house"}
    report |= {"buildings": 12, "scans_per_building": 2}
    assert "12 buildings from seed 5 (12 visits in house), 2 scans of each" in heading(report)
    del report["rows"]["world"]
    assert "12 visits in house, 2 scans" in heading(report) and "buildings" not in heading(report)


def test_box_rooms_are_shown_with_every_intensity(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {
        "none": {"boxes": "things", "intensity": False},
        "all": {"boxes": "things", "against": "none"},
        "rise": {"boxes": "things", "response": "rise", "sensors": ["rings-32"], "against": "none"},
    }
    suite = small(rows=rows, sensors=["rings-16", "rings-32"], musts={"all": {"false_person": 0.0, "mean": 0.9}})
    run = SuiteRun(suite, tiny_bundle, "reference", processes=1, buildings=2)
    frames = boxes.DataSet([20_000_000], 1, "rings-16", "things")
    right = frames[0].labels["truth"].label
    seen = {}
    for name, row in run.rows.items():
        scan = shown(frames[0], row)
        seen[name] = scan.intensity
        np.testing.assert_array_equal(scan.xyz, frames[0].scan.xyz)
    assert seen["none"] is None and seen["rise"] is not None
    assert np.corrcoef(seen["rise"], np.linalg.norm(frames[0].scan.xyz, axis=1))[0, 1] > 0.98
    np.testing.assert_array_equal(seen["rise"], shown(frames[0], run.rows["rise"]).intensity)
    truth = SIX.id_map(LabelSpace.load("indoor"))[right]
    wrong = np.where(truth == OBJECT, PERSON, truth).astype(np.uint8)
    assert (truth == OBJECT).any() and (truth == PERSON).any()

    def count(self: Any, scans: Scans, results: Any) -> Any:
        labels = Labels(wrong, np.full(len(wrong), 0.9, np.float32))
        points = self.confusions(frames[0].scan, truth, wrong)
        return {name: Count(points, self.calibration(truth, labels), 1, 5, "0") for name in scans.rows}

    monkeypatch.setattr(Counter, "__call__", count)
    report = compile_report(run, run.run(), {})
    known = truth != 255
    share = (truth == OBJECT).sum() / (known & (truth != PERSON)).sum()
    column = report["rows"]["all"]["sensors"]["rings-16"]
    assert column["false_person"] == pytest.approx(share)
    assert column["ece"] == pytest.approx(abs(0.9 - (wrong == truth)[known].mean()), abs=1e-6)
    assert list(report["rows"]["rise"]["sensors"]) == ["rings-32"]
    musts = {must["kind"]: must for must in report["musts"]}
    assert musts["false_person"]["met"] is False and musts["false_person"]["bound"] == "at most"
    assert "| rise | - |" in markdown(report)


def test_out_is_tried_before_the_work(evaluate: Run, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(SuiteRun, "run", lambda *_: pytest.fail("measured"))
    (tmp_path / "file").touch()
    ran = evaluate("--out", tmp_path / "file")
    assert ran.code == 1 and "file cannot be written" in ran.err, ran.err


def test_a_class_without_truth_is_marked() -> None:
    space = LabelSpace.load("structural6")
    xyz = np.arange(12, dtype=np.float32).reshape(4, 3) + 1

    def table(truth: list[int]) -> Any:
        scorer = Scorer(space, space)
        labels = Labels(np.array([0, 0, 1, 5], np.uint8), np.ones(4, np.float32))
        scorer.add("building", "scan", Scan(xyz), np.array(truth, np.uint8), labels)
        return iou_table(scorer.result(), "")

    marked = table([0, 0, 1, 1])
    assert marked.header[1] == "structural6"
    shares = {"wall": 1.0, "floor": 0.5, "object": None, "person *": 0.0}
    assert {row[0]: row[1] for row in marked.rows if row and row[0] in shares} == {
        name: percent(share, bar=True) for name, share in shares.items()
    }
    assert "not in the truth" in marked.note
    assert table([0, 0, 1, 5]).note == ""


def test_labels_agree_with_the_teacher_where_it_is_sure_and_the_point_is_seen() -> None:
    """It sees people on the left half of the image and floor on the right, but is unsure of the top half."""
    mosaic32 = LabelSpace.load("mosaic32")
    ids = [mosaic32.ids[mosaic32.names.index(name)] for name in ("person", "floor")]
    sure = np.repeat([0.5, 1.0], 50)[:, None]  # (100, 1)
    eyes = Painted(lambda rgb: np.repeat([ids], 100, axis=0).repeat(50, axis=1), "mosaic32", sure)
    left, right, down = 0.5, -0.5, -0.5
    points = {
        (2, left, down): PERSON,
        (2, right, down): FLOOR,
        (2, 1.5 * right, down): WALL,
        (2, left, -down): FLOOR,  # where the teacher is unsure
        (20, 10 * left, 10 * down): FLOOR,  # behind the first
        (-2, left, down): FLOOR,  # behind the camera
    }
    frame = Frame("0", Scan(np.array(list(points), np.float32)))
    labels = Labels(np.array(list(points.values()), np.uint8), np.ones(len(points), np.float32))
    agreement = Agreement(SIX, eyes)
    agreement.add(frame, CameraImage(0, lambda: np.zeros((100, 100, 3), np.uint8), camera_ahead(100, 100, 50)), labels)
    found = agreement.report()
    assert found["person"] == {"points": 1, "agrees": 1.0} and found["floor"] == {"points": 2, "agrees": 0.5}
    assert found["wall"] == {"points": 0, "agrees": None}


def test_recordings_are_rows_of_a_suite(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    [frame] = boxes.DataSet([7], 1, "rings-16")
    np.save(tmp_path / "real" / "room.npy", frame.scan.xyz[::4])
    rows = {"room": {"path": "real/room.npy", "people": False, "false_person": 0.0}, "gone": {"path": "real/gone"}}
    seen = rows | {"seen": {"path": "real/room.npy", "teacher": True}}
    monkeypatch.setenv("CMP_SEG_TEACHERS", str(tmp_path))
    run = SuiteRun(
        small(recordings=seen), tiny_bundle, "reference", only=list(seen), data=tmp_path, out=tmp_path / "out"
    )
    assert set(run.skipped) == {"gone", "seen"} and "mosaic" in run.skipped["seen"]
    report = compile_report(run, run.run(), dict(run.run_recordings()))
    room = report["recordings"]["room"]
    assert room["scans"] == 1 and room["planes"]["floor"]["points"] > 100
    assert room["false_person"] == room["share"]["person"]
    [must] = [must for must in report["musts"] if must["row"] == "room"]
    assert must["met"] == (room["false_person"] == 0) and "| room | 1 |" in markdown(report)
    monkeypatch.setattr(suite_run, "score", lambda *_: pytest.fail("it is kept"))
    assert dict(run.run_recordings())["room"] == room

"""`cmp-seg evaluate`: the report and its page, the same on every run."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from bags import columns, write_bag
from conftest import Run

from cmp_seg_ros.evaluation.report import TIMINGS
from cmp_seg_ros.label_space import LabelSpace

TRUTH = np.random.default_rng(0).integers(0, 6, (2, 400), np.uint8)
SPEED = re.compile(r'<section id="s\d+">\n<h2>Speed</h2>.*?</section>|## Speed.*', re.DOTALL)


@pytest.fixture
def evaluate(run: Run, tiny_bundle: Path) -> Run:
    return lambda *arguments: run("evaluate", *arguments, "--model", tiny_bundle, "--engine", "reference")


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """A bag of two scans with a random truth."""
    truth = [{"structural6": label} for label in TRUTH]
    return write_bag(tmp_path / "drive", "mcap", {"/points": [columns(0), columns(1)], "/truth/points": truth})


def without_timings(out: Path) -> dict[str, str]:
    report = {name: part for name, part in json.loads((out / "report.json").read_text()).items() if name not in TIMINGS}
    pages = {name: SPEED.sub("", (out / name).read_text()) for name in ("page.html", "report.md")}
    assert all("mIoU" in page and "ms per scan" not in page for page in pages.values())
    return {"report.json": json.dumps(report), **pages}


def test_two_runs_differ_only_in_timings(evaluate: Run, drive: Path, tmp_path: Path) -> None:
    for out in ("a", "b"):
        ran = evaluate(drive, "--out", tmp_path / out)
        assert ran.code == 0, ran.err
    assert without_timings(tmp_path / "a") == without_timings(tmp_path / "b")
    for picture in ("worst.png", "best.png", "reliability.png"):
        assert (tmp_path / "a" / picture).read_bytes() == (tmp_path / "b" / picture).read_bytes()


def test_without_a_truth_labels_are_checked_by_planes_and_over_time(evaluate: Run, drive: Path, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", "mcap", {"/points": [columns(0)] * 2})
    ran = evaluate(bag, "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["miou"] is None and "accuracy" not in report and len(report["planes"]["scans"]) == 2
    page = (tmp_path / "out/page.html").read_text()
    assert "Floor, ceiling and walls" in page and "<h2>Labels against" not in page


def test_sources_that_are_not_there(evaluate: Run, drive: Path) -> None:
    ran = evaluate(drive, "--labels", "hand")
    assert ran.code == 1 and "has no labels from hand (it has: truth)" in ran.err
    ran = evaluate(drive, "--labels", "hand", "--planes")
    assert ran.code == 1 and "leave out --labels, or --planes" in ran.err


def test_online_labels_are_those_of_offline(evaluate: Run, drive: Path) -> None:
    pytest.importorskip("rclpy")
    reports = []
    for options in ([], ["--online", "--rate", "0.5"]):
        ran = evaluate(drive, "--json", *options)
        assert ran.code == 0, ran.err
        reports.append(json.loads(ran.out))
    offline, online = reports
    scans = online["scans"]
    assert scans["played"] == 2 == scans["in"] and scans["in"] == scans["out"] + scans["dropped"]
    assert online["frames"]["labelled"] == scans["received"] == 2, "at this rate nothing is dropped"
    assert online["frames"]["hashes"] == offline["frames"]["hashes"]
    assert online["accuracy"] == offline["accuracy"] and online["bundle"] == offline["bundle"]
    assert online["played_at"] == 0.5 and online["latency_ms"]["p50"] > 0 and len(online["latency_by_frame_ms"]) == 2


def test_hand_labels_of_some_scans(evaluate: Run, drive: Path, tmp_path: Path) -> None:
    (tmp_path / "hand").mkdir()
    (tmp_path / "hand/000001.label").write_bytes(np.full(400, 4, "<u4").tobytes())
    (tmp_path / "hand/label_space.yaml").write_text(LabelSpace.load("structural6").to_yaml())
    ran = evaluate(drive, "--hand", tmp_path / "hand", "--labels", "hand,truth", "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report["source"] == "hand" and report["accuracy"]["scans"] == 1
    assert report["accuracy"]["readings"]["structural6"]["points"]["object"] == 400
    assert report["other_sources"]["truth"]["scans"] == 2


def test_predictions_of_another_network(evaluate: Run, drive: Path, tmp_path: Path) -> None:
    (tmp_path / "rival").mkdir()
    np.save(tmp_path / "rival/000000.npy", TRUTH[0] + 10)
    (tmp_path / "rival/000001.txt").write_text("17\n" * 400)
    names = LabelSpace.load("structural6").names
    ids = {10 + number: name for number, name in enumerate(names)}
    (tmp_path / "rival.yaml").write_text(yaml.safe_dump({"into": "structural6", "ids": ids}))
    options = ("--predictions", tmp_path / "rival", "--label-space", tmp_path / "rival.yaml", "--json")
    ran = evaluate(drive, *options)
    report = json.loads(ran.out)
    assert report["miou"] == 1 and report["model"].startswith("predictions in") and not report["stages_ms"]
    assert ran.code == 1 and "unknown ids: 17" in ran.err  # of the second scan
    assert report["frames"]["skipped"] == {"its predictions have unknown ids": 1}
    ran = evaluate(drive, *options[:2])
    assert ran.code == 1 and "--label-space (what their ids mean) go together" in ran.err


def test_only_clouds_in_a_bag_are_evaluated_online(evaluate: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((10, 3)))
    ran = evaluate(tmp_path / "a.npy", "--online")
    assert ran.code == 1 and "--online needs a bag with a PointCloud2 topic" in ran.err

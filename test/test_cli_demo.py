"""The demo as a user runs it, with a small untrained bundle: everything is counted, and everything is left behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cmp_seg_ros.cli.demo import voxel_sizes
from cmp_seg_ros.datasets.bag import Bag
from cmp_seg_ros.messages import point_cloud2


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Path:
    out = tmp_path_factory.mktemp("demo")
    command = [sys.executable, "-m", "cmp_seg_ros.cli.main", "demo", "--out", out, "--model", tiny_bundle]
    options = ["--seconds", "2", "--rate", "3", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((out / "report.json").read_text())
    return out


def test_every_scan_is_accounted_for(demo: Path) -> None:
    report = json.loads((demo / "report.json").read_text())
    scans = report["scans"]
    assert scans["played"] == scans["in"] == 20
    assert scans["in"] == scans["out"] + scans["dropped"]
    assert scans["received"] == scans["out"] > 0
    assert sum(scans["dropped_by_reason"].values()) == scans["dropped"]


def test_report_has_what_the_readme_promises(demo: Path) -> None:
    report = json.loads((demo / "report.json").read_text())
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"] <= report["latency_ms"]["p99"]
    assert {"decode", "preprocess", "network", "backfill", "encode", "publish"} <= report["stages_ms"].keys()
    assert 0 <= report["miou"] <= 1
    assert set(report["iou"]) == {"wall", "floor", "ceiling", "non-structural"}
    assert report["points_per_scan"] == 16 * 1024
    assert 0 < report["voxels_per_scan"] < report["points_per_scan"]
    assert 0.1 <= report["voxel_size"] <= 0.2  # the node coarsens where the machine is busy
    assert 0 < sum(report["scans_by_voxel_size"].values()) <= report["scans"]["out"]
    assert report["rate_hz"] > 0 and report["engine"] and report["model"]
    assert report["memory_mb"]["node"] > 0


def test_changed_voxels_are_told() -> None:
    assert voxel_sizes({"0.1": 20}) == "0.1 m"
    both = voxel_sizes({"0.1": 15, "0.126": 5})
    assert both == "0.1 m (15 scans) and 0.126 m (5 scans)"


def test_picture_and_labelled_bag_are_there(demo: Path) -> None:
    for name in ("overview.png", "occupancy.png"):
        assert np.ptp(np.asarray(Image.open(demo / name).convert("L"))) > 200
    report = json.loads((demo / "report.json").read_text())
    clouds = [m.message for m in Bag(demo / "labelled").messages(["/segmentation_node/labelled_points"])]
    assert len(clouds) == report["scans"]["received"]
    labels = point_cloud2.decode_labels(clouds[0])
    returns = point_cloud2.decode(clouds[0]).valid()
    assert ((labels.label != 255) == returns).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sensor", "nosuch"], "no sensor 'nosuch'"),
        (["--out", "/dev/null/x"], "/dev/null/x cannot be written"),
    ],
)
def test_wrong_arguments_are_one_line(tmp_path: Path, tiny_bundle: Path, arguments: list[str], said: str) -> None:
    """Also those that a process of the demo's own refuses."""
    command = [sys.executable, "-m", "cmp_seg_ros.cli.main", "demo", "--out", tmp_path / "out", "--model", tiny_bundle]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1
    assert said in done.stderr and len(done.stderr.strip().splitlines()) == 1

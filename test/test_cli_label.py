"""`cmp-seg label` and `cmp-seg evaluate`, as a user calls them."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
from bags import Recording, write_bag
from conftest import Run
from painted import camera_ahead
from PIL import Image

from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.evaluation.metrics import Confusion
from cmp_seg_ros.geometry.calibration import CalibratedLidar, Calibration
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.messages import point_cloud2
from cmp_seg_ros.messages.point_cloud2 import decode_labels
from cmp_seg_ros.scan import UNLABELLED, Scan
from cmp_seg_ros.segmenter import Segmenter

RNG = np.random.default_rng(0)
POINTS = np.column_stack([RNG.uniform(-5, 5, (400, 2)), RNG.uniform(-1, 2, 400), RNG.uniform(0, 99, 400)]).astype(
    np.float32
)
IDENTITY = np.eye(4).tolist()


@pytest.fixture
def label(run: Run, tiny_bundle: Path, tmp_path: Path) -> Run:
    """Run `cmp-seg label INPUT` with a tiny model into tmp_path/out."""
    common = ("--model", tiny_bundle, "--engine", "reference", "--out", tmp_path / "out")
    return lambda path, *args: run("label", path, *common, *args)


@pytest.fixture
def evaluate(run: Run, tiny_bundle: Path, tmp_path: Path) -> Run:
    common = ("--model", tiny_bundle, "--engine", "reference", "--out", tmp_path / "out")
    return lambda path, *args: run("evaluate", path, *common, *args)


def cloud(points: np.ndarray) -> dict[str, np.ndarray]:
    return dict(zip(("x", "y", "z", "intensity"), points.T, strict=True))


def calibration(path: Path, T_base_lidar: list[list[float]] = IDENTITY) -> Path:
    lidar = CalibratedLidar(T_base_lidar=T_base_lidar)
    Calibration(cameras={"camera": camera_ahead(160, 120, 100)}, lidars={"lidar": lidar}).save(path)
    return path


def test_label_a_file(label: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    points = POINTS.copy()
    points[5] = np.nan
    np.save(tmp_path / "scan.npy", points)
    ran = label(tmp_path / "scan.npy")
    assert ran.code == 0, ran.err
    out = tmp_path / "out"
    stored = np.load(out / "scans/000000.npz")
    expected = Segmenter.from_bundle(tiny_bundle, "reference")(Scan(points[:, :3], points[:, 3]))
    np.testing.assert_array_equal(stored["label"], expected.label)
    np.testing.assert_array_equal(stored["confidence"], expected.confidence)
    assert (stored["label"].dtype, stored["confidence"].dtype) == (np.uint8, np.float32)
    assert stored["label"][5] == UNLABELLED and stored["key"] == "scan"
    report = json.loads((out / "report.json").read_text())
    assert (report["frames"]["labelled"], report["points"], report["engine"]) == (1, 400, "reference-fp32")
    assert report["model"] == "tiny" and report["label_space"] == "structural6" and report["voxel_size"] == 0.1
    assert sum(report["share"].values()) == pytest.approx(1) and report["unlabelled"] == 1 / 400
    assert {"preprocess", "network", "backfill", "total"} <= set(report["stages_ms"])
    assert set(report["latency_ms"]) == {"p50", "p95", "p99"}
    assert report["frames"]["without_labels"] == [] and "0.2% of the points have no label" in ran.out
    # The labelled clouds, in the bag and beside it.
    for copy in (out / "labelled", out / "clouds/000000.ply"):
        (sample,) = open_input(copy)
        np.testing.assert_array_equal(decode_labels(sample.message).label, expected.label)
        np.testing.assert_array_equal(sample.scan.xyz, points[:, :3])
    assert Image.open(out / "overview.png").width > 1000


def test_label_a_bag(label: Run, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", "mcap", {"/points": [cloud(POINTS + i / 10) for i in range(12)]})
    ran = label(bag, "--json")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert (report["frames"]["labelled"], report["topic"], report["warnings"]) == (12, "/points", [])
    out = tmp_path / "out"
    assert sorted(file.name for file in (out / "scans").iterdir()) == [f"{i:06d}.npz" for i in range(12)]
    assert np.load(out / "scans/000003.npz")["stamp"] == 1003 * 10**9
    assert sorted(file.name for file in (out / "pictures").iterdir()) == ["000003.png", "000006.png", "000009.png"]
    assert not (out / "clouds").exists()
    for i, sample in enumerate(open_input(out / "labelled")):
        stored = np.load(out / f"scans/{i:06d}.npz")
        np.testing.assert_array_equal(decode_labels(sample.message).label, stored["label"])
        np.testing.assert_array_equal(decode_labels(sample.message).confidence, stored["confidence"])
    # A second, shorter run leaves nothing of the first.
    assert label(bag, "--max-scans", 2).code == 0
    assert len(list((out / "scans").iterdir())) == 2
    assert len(list(open_input(out / "labelled"))) == 2


def test_label_in_another_space(label: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", POINTS)
    assert label(tmp_path / "scan.npy").code == 0
    six = np.load(tmp_path / "out/scans/000000.npz")
    assert label(tmp_path / "scan.npy", "--label-space", "structural4").code == 0
    four = np.load(tmp_path / "out/scans/000000.npz")
    assert set(np.unique(four["label"])) <= {0, 1, 2, 3}
    assert (four["confidence"] >= six["confidence"] - 1e-6).all()  # merged probabilities add up
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert list(report["share"]) == ["wall", "floor", "ceiling", "non-structural"]


def test_calibration_turns_the_scan_upright(label: Run, tmp_path: Path) -> None:
    # Voxels start at the cloud's minimum, so a turned cloud is cut into other voxels, unless its points lie apart.
    grid = np.stack(np.meshgrid(*[np.arange(-3, 3.1, 0.5)] * 2, [-1, 0, 1.0]), axis=-1).reshape(-1, 3)
    np.save(tmp_path / "level.npy", grid + 0.05)
    np.save(tmp_path / "hanging.npy", (grid + 0.05) * [1, -1, -1])
    assert label(tmp_path / "level.npy").code == 0
    level = np.load(tmp_path / "out/scans/000000.npz")
    path = calibration(tmp_path / "mount.yaml", T_base_lidar=np.diag([1.0, -1, -1, 1]).tolist())
    assert label(tmp_path / "hanging.npy", "--calibration", path).code == 0
    hanging = np.load(tmp_path / "out/scans/000000.npz")
    np.testing.assert_array_equal(hanging["label"], level["label"])
    assert json.loads((tmp_path / "out/report.json").read_text())["calibration"] == str(path)


def test_calibration_beside_the_input_is_taken(label: Run, tmp_path: Path) -> None:
    with Recording(tmp_path / "bag") as bag:
        bag.cloud("/points", 10**9, cloud(POINTS))
        bag.image("/camera/image", 10**9 + 10**8, np.full((120, 160, 3), 90, np.uint8))
    without = label(tmp_path / "bag")
    size = Image.open(tmp_path / "out/overview.png").width
    calibration(tmp_path / "calibration.yaml")
    ran = label(tmp_path / "bag")
    assert (without.code, ran.code) == (0, 0), ran.err
    assert json.loads((tmp_path / "out/report.json").read_text())["calibration"].endswith("calibration.yaml")
    assert Image.open(tmp_path / "out/overview.png").width > size  # the camera image has joined


def test_picture_beside_a_file(label: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "7.npy", POINTS)
    Image.new("RGB", (160, 120)).save(tmp_path / "7.jpg")
    path = calibration(tmp_path / "calibration.yaml")
    assert label(tmp_path / "7.npy").code == 0
    assert Image.open(tmp_path / "out/overview.png").width == 1400
    Image.new("RGB", (80, 60)).save(tmp_path / "7.jpg")
    ran = label(tmp_path / "7.npy")
    assert ran.code == 1
    assert "80 x 60 pixels" in ran.err and str(path) in ran.err.replace("\n", "")
    (tmp_path / "7.jpg").write_bytes(b"no picture")
    ran = label(tmp_path / "7.npy")
    assert ran.code == 1 and f"picture {tmp_path}/7.jpg cannot be read" in ran.err
    assert (tmp_path / "out/scans/000000.npz").exists()


def test_scans_without_labels_are_named_and_spoil_no_figure(label: Run, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, points in {"a": POINTS, "b": np.full((50, 4), np.nan), "c": np.zeros((50, 4))}.items():
        np.save(tmp_path / "in" / f"{name}.npy", points)
    assert label(tmp_path / "in").code == 1
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["frames"]["labelled"] == 3 and report["frames"]["without_labels"] == ["b", "c"]
    assert report["voxels_per_scan"] > 0 and report["latency_ms"]["p50"] > 0


def test_a_topic_of_what_has_none_is_not_passed_over(label: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "scan.npy", POINTS)
    for path, says in ((tmp_path / "scan.npy", "scan.npy is no bag"), (tmp_path, f"folder {tmp_path} holds no bag")):
        ran = label(path, "--topic", "/points")
        assert ran.code == 1 and "so it has no topic '/points'; leave out --topic" in ran.err and says in ran.err
    # In a folder with a bag it is that bag's.
    write_bag(tmp_path / "bag", "mcap", {"/a": [cloud(POINTS)], "/b": [cloud(POINTS), cloud(POINTS)]})
    ran = label(tmp_path, "--topic", "/b")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "out/report.json").read_text())["frames"]["labelled"] == 3


@pytest.mark.parametrize(
    "points, says",
    [
        (np.zeros((0, 4)), "no points"),
        (np.full((50, 4), np.nan), "no return"),
        (np.zeros((50, 4)), "no return"),
        (POINTS[:1], "has only 1 returns"),
        (POINTS[:9], "has only 9 returns"),
        (POINTS + 500, "without a label, beyond the model's field of view"),
        (POINTS[:, :2], "must be numbers of shape"),
    ],
)
def test_scans_that_cannot_be_labelled_well(label: Run, tmp_path: Path, points: np.ndarray, says: str) -> None:
    np.save(tmp_path / "bad.npy", points)
    ran = label(tmp_path / "bad.npy")
    assert ran.code == 1
    assert says in ran.err and "bad.npy" in ran.err and "Traceback" not in ran.err
    assert ran.err.count("error:") == 1
    if says == "no return":  # a table of zeros says nothing
        assert "no point could be labelled" in ran.err and not ran.out


def test_one_bad_scan_does_not_stop_the_others(label: Run, tmp_path: Path) -> None:
    no_scan = {"structural6": np.zeros(4, np.uint8)}
    clouds = [cloud(POINTS), cloud(np.full_like(POINTS, np.nan)), no_scan, cloud(POINTS)]
    ran = label(write_bag(tmp_path / "bag", "mcap", {"/points": clouds}))
    assert ran.code == 1
    assert "3 scans labelled, but: scan 000001" in ran.err and "scan 000002" in ran.err
    out = tmp_path / "out"
    assert sorted(file.name for file in (out / "scans").iterdir()) == ["000000.npz", "000001.npz", "000003.npz"]
    assert (np.load(out / "scans/000001.npz")["label"] == UNLABELLED).all()
    assert len(json.loads((out / "report.json").read_text())["problems"]) == 2


def test_what_costs_no_scan_is_a_warning(label: Run, tmp_path: Path) -> None:
    odd = replace(point_cloud2.encode(cloud(POINTS), (1, 400)), row_step=0)
    ran = label(write_bag(tmp_path / "bag", "mcap", {"/points": [odd, odd]}))
    assert ran.code == 0, ran.err
    assert "warning: scan 000000 on /points" in ran.err and "row_step of the cloud is 0" in ran.err
    assert len(json.loads((tmp_path / "out/report.json").read_text())["warnings"]) == 1


def test_points_that_look_like_another_unit_or_other_axes_are_a_warning(label: Run, tmp_path: Path) -> None:
    xyz = next(golden.scans()).scan.xyz
    np.save(tmp_path / "km.npy", xyz / 1000)
    np.save(tmp_path / "optical.npy", np.column_stack([-xyz[:, 1], -xyz[:, 2], xyz[:, 0]]))
    ran = label(tmp_path / "km.npy")
    assert ran.code == 0 and "km.npy: its" in ran.err and "they look like kilometres" in ran.err
    ran = label(tmp_path / "optical.npy")
    assert ran.code == 0 and "beams turn about y, not z" in ran.err
    path = calibration(tmp_path / "mount.yaml", T_base_lidar=[[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
    assert "turn about" not in label(tmp_path / "optical.npy", "--calibration", path).err


@pytest.mark.parametrize(
    "args, says",
    [
        (("--model", "none"), "no bundle 'none'"),
        (("--engine", "none"), "no engine 'none'"),
        (("--label-space", "none"), "no label space 'none'"),
        (("--calibration", "none.yaml"), "none.yaml cannot be read"),
        (("--lidar", "roof"), "lidar 'roof' is not in the calibration"),
    ],
)
def test_wrong_options(label: Run, tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    np.save(tmp_path / "scan.npy", POINTS)
    ran = label(tmp_path / "scan.npy", *args)
    assert ran.code == 1 and says in ran.err.replace("\n", " ") and "Traceback" not in ran.err
    assert not (tmp_path / "out").exists()


def test_a_run_is_repeated_but_not_over_its_own_input(label: Run, tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", "mcap", {"/points": [cloud(POINTS)]})
    for _ in range(2):
        assert label(bag).code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert label(tmp_path / "out/labelled").code == 1  # from which it would be made
    assert label(bag, "--topic", "/wrong").code == 1
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before
    for name in ("scans", "clouds", "pictures", "labelled"):  # of whoever made them
        (tmp_path / "other" / name).mkdir(parents=True)
        ran = label(bag, "--out", tmp_path / "other")
        assert ran.code == 1 and f"already has {name}, not made by cmp-seg label" in ran.err.replace("\n", " ")
        (tmp_path / "other" / name).rmdir()


def test_results_beside_the_scans_are_no_part_of_them(label: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out" / "scan.npy", POINTS)
    for _ in range(2):
        ran = label(tmp_path / "out")
        assert ran.code == 0, ran.err
        assert json.loads((tmp_path / "out/report.json").read_text())["frames"]["labelled"] == 1


def test_what_label_has_not_made_is_left_alone(label: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kept = [out / name for name in ("scans/000000.npy", "scans/000001.npz", "clouds/000000.ply", "labelled/drive.mcap")]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path.with_suffix(".npy"), POINTS)
        path.with_suffix(".npy").rename(path)
    ran = label(out / "scans")
    assert ran.code == 1 and f"is in {out}/scans, which cmp-seg label would replace" in ran.err.replace("\n", " ")
    np.save(tmp_path / "scan.npy", POINTS)
    for report in ({}, {"command": "simulate"}):
        (out / "report.json").write_text(json.dumps(report))
        ran = label(tmp_path / "scan.npy")
        assert ran.code == 1 and ", not made by cmp-seg label; give another --out" in ran.err.replace("\n", " ")
    assert all(path.exists() for path in kept)


def test_a_full_disk(label: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    np.save(tmp_path / "scan.npy", POINTS)
    monkeypatch.setattr(np, "savez_compressed", full)
    ran = label(tmp_path / "scan.npy")
    assert ran.code == 1 and "cannot be written: No space left on device" in ran.err and "Traceback" not in ran.err


def test_every_real_scan(label: Run, shared_data: Path, tmp_path: Path) -> None:
    real = shared_data / "real"
    for name, count in (("plycal", 4), ("nebula_xt32/scan.pcd", 1), ("nebula_vlp16/scan.pcd", 1)):
        ran = label(real / name)
        assert ran.code == 0, ran.err
        report = json.loads((tmp_path / "out/report.json").read_text())
        assert report["frames"]["labelled"] == count and report["unlabelled"] < 0.02  # beyond the view


def test_ouster_packets(label: Run, shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("ouster.sdk", reason="needs ouster-sdk")
    ran = label(shared_data / "real/ouster")
    assert ran.code == 0, ran.err
    assert json.loads((tmp_path / "out/report.json").read_text())["points"] == 2 * 65536


def test_an_interrupted_label_says_what_is_kept(label: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cmp_seg_ros.evaluation.pipeline.run", interrupted)
    monkeypatch.setattr("os._exit", sys.exit)
    done = label(write_bag(tmp_path / "bag", "mcap", {"/points": [cloud(POINTS)]}))
    assert done.code == 130
    assert "stopped; the scans labelled until then are in" in done.err


def test_evaluate(evaluate: Run, tmp_path: Path, tiny_bundle: Path) -> None:
    truth = RNG.integers(0, 6, 400).astype(np.uint8)
    truth[::10] = UNLABELLED
    folder = tmp_path / "sim"  # as `cmp-seg simulate` leaves it
    folder.mkdir()
    clouds = {"/lidar/points": [cloud(POINTS)] * 4, "/truth/points": [{"structural6": truth}] * 4}
    write_bag(folder / "bag", "mcap", clouds)
    calibration(folder / "calibration.yaml")
    for path in (folder, folder / "bag"):
        ran = evaluate(path, "--json")
        assert ran.code == 0, ran.err
        report = json.loads(ran.out)
        assert report == json.loads((tmp_path / "out/report.json").read_text())
        labels = Segmenter.from_bundle(tiny_bundle, "reference")(Scan(POINTS[:, :3], POINTS[:, 3]))
        expected = Confusion(LabelSpace.load("structural6"))
        expected.add(truth, labels.label)
        assert report["accuracy"]["readings"]["structural6"]["iou"] == pytest.approx(expected.report()["iou"])
        assert report["accuracy"]["readings"]["structural4_strict"]["miou"] == pytest.approx(
            expected.structural4("strict").miou()
        )
        assert report["miou"] == report["accuracy"]["readings"]["structural4_primary"]["miou"]
        assert (
            report["frames"]["labelled"] == 4
            and sum(report["accuracy"]["readings"]["structural6"]["points"].values()) == 4 * 360
        )
        assert set(report["latency_ms"]) == {"p50", "p95", "p99"}
        assert report["calibration"].endswith("sim/calibration.yaml")
        assert report["worst"]["miou"] <= report["best"]["miou"]
    assert (tmp_path / "out/worst.png").exists() and (tmp_path / "out/best.png").exists()
    table = evaluate(folder).out
    assert all(word in table for word in ("non-structural", "mIoU", "structural4 primary", "p99", "network"))


def test_evaluate_leaves_out_what_has_no_partner(evaluate: Run, tmp_path: Path) -> None:
    truth, wrong_size = ({"structural6": np.zeros(count, np.uint8)} for count in (400, 3))
    bag = write_bag(
        tmp_path / "bag", "mcap", {"/points": [cloud(POINTS)] * 4, "/truth/points": [truth, wrong_size, truth]}
    )
    ran = evaluate(bag)
    assert ran.code == 1
    assert (
        "2 scans evaluated, but:" in ran.err
        and "it has no truth" in ran.err
        and "has 400 points, its truth 3" in ran.err
    )

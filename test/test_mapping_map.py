"""The map of a drive: what moves is left out, grid and files, and what fusion adds, from frames to the report."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from bags import scans, write_bag

from cmp_seg_ros.datasets import point_files
from cmp_seg_ros.datasets.base import DataSet
from cmp_seg_ros.datasets.frame import PREDICTIONS, TRUTH, Frame, PointLabels
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.pipeline import StoredLabels, run
from cmp_seg_ros.evaluation.report import Report
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.mapping.drive import DriveMap
from cmp_seg_ros.mapping.fusion import Voxels
from cmp_seg_ros.mapping.grid import FREE, OCCUPIED, UNKNOWN, grid_of
from cmp_seg_ros.mapping.odometry import Motion
from cmp_seg_ros.mapping.roles import FLOOR as IS_FLOOR
from cmp_seg_ros.mapping.roles import MOVING, OBSTACLE, roles_of
from cmp_seg_ros.mapping.semantic_map import SemanticMap
from cmp_seg_ros.scan import UNLABELLED, Labels, Scan

SIX = LabelSpace.load("structural6")
WALL, FLOOR, CEILING, FLUSH, OBJECT, PERSON = range(6)


def voxels(*places: tuple[float, float, float, int]) -> Voxels:
    xyz, label = np.array([place[:3] for place in places], np.float32), np.array([p[3] for p in places], np.uint8)
    ones = np.ones(len(places), np.int32)
    return Voxels(xyz, label, np.ones(len(places), np.float32), 5 * ones, 0 * ones)


def room(block: bool = False, label: int = OBJECT) -> tuple[Scan, Labels]:
    """Rays from 1 m above the middle of a floor of 8 x 8 m to it and to four walls; a block may stand 2 m ahead."""
    azimuth, elevation = (
        a.ravel() for a in np.meshgrid(np.radians(np.arange(0, 360, 0.7)), np.radians(np.arange(-40, 20, 1.0)))
    )
    ray = np.stack(
        [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)], axis=1
    )
    to_wall = 4 / np.abs(ray[:, :2]).max(axis=1)
    to_floor = np.where(ray[:, 2] < 0, -1 / np.minimum(ray[:, 2], -1e-9), np.inf)
    reach, ids = np.minimum(to_wall, to_floor), np.where(to_floor < to_wall, FLOOR, WALL)
    if block:
        to_block = 2 / np.maximum(ray[:, 0], 1e-9)
        hit = (np.abs(ray[:, 1] * to_block) < 0.3) & (ray[:, 2] * to_block < 0.5) & (to_block < reach)
        reach, ids = np.where(hit, to_block, reach), np.where(hit, label, ids)
    return Scan(ray * reach[:, None]), Labels(ids.astype(np.uint8), np.full(len(ids), 0.9, np.float32))


AT = np.eye(4)
AT[2, 3] = 1
STILL = Motion(AT, np.zeros(6))


def test_a_block_that_goes_away_is_left_out_and_one_that_stays_is_not() -> None:
    """Seen for a second, then for four seconds the rays go through; floor and walls stay whole."""
    left, stayed = SemanticMap(SIX), SemanticMap(SIX)
    for i in range(50):
        left.add(*room(block=i < 10), STILL)
        stayed.add(*room(block=True), STILL)
    assert (left.every()[0].label == OBJECT).sum() > 50
    still = left.still()
    gone = still.xyz[still.label == OBJECT]
    assert len(gone) < 0.25 * (left.every()[0].label == OBJECT).sum()
    assert (gone[:, 2] < 0.25).all(), "rays that pass low end on the floor just behind"
    assert (stayed.still().label == OBJECT).sum() == (stayed.every()[0].label == OBJECT).sum()
    for label in (WALL, FLOOR):
        every, still = (left.every()[0].label == label).sum(), (left.still().label == label).sum()
        assert still > 0.97 * every


def test_people_are_left_out_even_where_they_stand_still() -> None:
    found = SemanticMap(SIX)
    for _ in range(10):
        found.add(*room(block=True, label=PERSON), STILL)
    assert set(found.still().label.tolist()) == {WALL, FLOOR}


def test_roles_follow_the_structural_classes() -> None:
    indoor = LabelSpace.load("indoor")
    roles = dict(zip(indoor.names, roles_of(indoor)[indoor.ids].tolist(), strict=True))
    assert roles["floor"] == IS_FLOOR and roles["person"] == MOVING
    assert {roles[name] for name in ("wall", "door", "table", "stairs")} == {OBSTACLE}
    assert roles_of(SIX)[[FLOOR, UNLABELLED]].tolist() == [IS_FLOOR, 4]


def test_obstacles_count_from_the_floor_at_their_place() -> None:
    """A ramp rises by 1 m; on it a threshold of 10 cm is no obstacle, a box is, a lamp overhead is not."""
    ramp = [(0.1 * i + 0.05, 0.05, 0.1 * i, FLOOR) for i in range(11)]
    things = [
        (0.25, 0.05, 0.3, OBJECT),
        (0.55, 0.05, 1.0, OBJECT),
        (0.85, 0.05, 3.2, OBJECT),
        (1.05, 0.05, 3.3, CEILING),
    ]
    grid = grid_of(voxels(*ramp, *things, (1.45, 0.05, 1.5, WALL)), SIX, 0.1)
    assert grid.occupancy.shape == (1, 15) and grid.origin == (0.0, 0.0)
    expected = [FREE] * 11 + [UNKNOWN] * 3 + [OCCUPIED]
    expected[5] = OCCUPIED
    assert grid.occupancy[0].tolist() == expected
    assert grid.label[0, [0, 5, 12, 14]].tolist() == [FLOOR, OBJECT, UNLABELLED, WALL]


def test_small_holes_of_the_floor_are_closed_and_large_ones_are_not() -> None:
    holes = {(5, 5), (5, 6), (12, 12), (13, 12), (14, 12), (12, 13), (13, 13), (14, 13), (12, 14), (13, 14), (14, 14)}
    floor = [(0.1 * x + 0.05, 0.1 * y + 0.05, 0, FLOOR) for x in range(20) for y in range(20) if (x, y) not in holes]
    grid = grid_of(voxels(*floor), SIX, 0.1)
    assert (grid.occupancy[5, 5], grid.occupancy[6, 5], grid.occupancy[13, 13]) == (FREE, FREE, UNKNOWN)


class Drive(DataSet):
    """A lidar that drives through the room; three labels in ten are wrong at random; `poses` are those of frames."""

    def __init__(self, poses: list[np.ndarray | None], truth: bool = True) -> None:
        super().__init__(Path("drive"))
        self.poses, self.count = poses, len(poses)
        self.label_spaces = {PREDICTIONS: SIX} | ({TRUTH: SIX} if truth else {})

    def __iter__(self) -> Iterator[Frame]:
        for i, T in enumerate(self.poses):
            scan, labels = room()
            x = i * 0.05
            world = scan.xyz + np.array([0, 0, 1])
            noise = np.random.default_rng(i)
            wrong = noise.random(len(scan)) < 0.3
            label = np.where(wrong, noise.integers(0, 5, len(scan)), labels.label).astype(np.uint8)
            sources = {PREDICTIONS: PointLabels(SIX, label, np.full(len(scan), 0.6, np.float32))}
            if TRUTH in self.label_spaces:
                sources[TRUTH] = PointLabels(SIX, labels.label)
            stamp = (i + 1) * 10**8
            yield Frame(
                f"{i}", Scan((world - [x, 0, 1]).astype(np.float32), stamp=stamp), i, labels=sources, sequence="a",
                group=f"{i // 4}", locate={stamp: T}.get,
            )  # fmt: skip


def poses(count: int = 12) -> list[np.ndarray | None]:
    found: list[np.ndarray | None] = []
    for i in range(count):
        T = AT.copy()
        T[0, 3] = 0.05 * i
        found.append(T)
    return found


def mapped(data: DataSet, out: Path, odometry: str = "recorded") -> Report:
    return run(data, StoredLabels(SIX), [DriveMap(data, SIX, out, odometry)], Report.of("map", data), out)


def test_files_and_gain_of_a_drive(tmp_path: Path) -> None:
    report = mapped(Drive(poses()), tmp_path)
    assert report.map is not None and report.map.complete and report.map.scans == 12
    assert report.map.metres == pytest.approx(0.55)
    assert report.map.gain is not None
    gain = report.map.gain["structural6"]
    assert gain.single is not None and gain.fused is not None and gain.interval is not None
    for name in ("wall", "floor"):  # errors at random are averaged away
        single, fused = gain.iou_single[name], gain.iou_fused[name]
        assert single is not None and fused is not None and single < 0.75 and fused > 0.97
    assert gain.interval[0] > 0.1
    assert gain.difference == pytest.approx(gain.fused - gain.single)

    about = yaml.safe_load((tmp_path / "grid.yaml").read_text())
    header, size, depth, pixels = (tmp_path / about["image"]).read_bytes().split(b"\n", 3)
    width, height = map(int, size.split())
    shades = np.frombuffer(pixels, np.uint8).reshape(height, width)[::-1]
    assert (header, depth) == (b"P5", b"255") and set(np.unique(shades)) == {0, 205, 254}
    (x0, y0, _), step = about["origin"], about["resolution"]
    assert shades[int((1.05 - y0) / step), int((1.05 - x0) / step)] == 254
    assert shades[int((1.05 - y0) / step), int((4.0 - x0) / step)] == 0

    clouds = [point_files.read(tmp_path / name) for name in ("map.ply", "map.pcd")]
    assert len(clouds[0]["x"]) == len(clouds[1]["x"]) == report.map.still
    np.testing.assert_array_equal(clouds[0]["label"], clouds[1]["label"])
    assert ElementTree.parse(tmp_path / "floor_plan.svg").getroot().tag.endswith("svg")
    assert (tmp_path / "floor_plan.png").read_bytes().startswith(b"\x89PNG")
    assert {"map.ply", "floor_plan.svg", "grid.pgm"} <= set(report.files)


def test_a_jump_ends_the_map_and_keeps_what_was_there(tmp_path: Path) -> None:
    found = poses()
    for T in found[8:]:
        assert T is not None
        T[1, 3] += 5
    report = mapped(Drive(found), tmp_path)
    assert report.map is not None and not report.map.complete and report.map.scans == 8
    assert "the map ends at scan 8: odometry jumps by 5.00 m" in report.problems[0]
    assert (tmp_path / "map.ply").exists()


def test_scans_without_a_pose_are_left_out_with_a_warning_and_all_without_are_an_error(tmp_path: Path) -> None:
    report = mapped(Drive([None, *poses()[1:]], truth=False), tmp_path)
    assert report.map is not None and report.map.scans == 11 and report.map.gain is None
    assert any("there is no pose for scan 0" in warning for warning in report.warnings) and not report.problems
    with pytest.raises(UserError, match=r"there is no pose for scan 0 .* use --odometry kiss-icp"):
        mapped(Drive([None] * 3), tmp_path)


def test_the_command(run: Callable[..., SimpleNamespace], tiny_bundle: Path, tmp_path: Path) -> None:
    """Scans that have nothing to do with each other, and no odometry: KISS-ICP finds that they jump, or maps them."""
    bag = write_bag(tmp_path / "drive", "mcap", {"/points": scans(3)})
    model = ("--model", tiny_bundle, "--engine", "reference")
    done = run("map", bag, "--out", tmp_path / "out", "--odometry", "recorded", *model)
    assert done.code == 1 and "there is no pose for scan 000000" in done.err and "--odometry kiss-icp" in done.err
    done = run("map", bag, "--out", tmp_path / "out", "--labels", "hand")
    assert done.code == 1 and "hand" in done.err
    done = run("map", bag, "--out", tmp_path / "wheels", "--odometry", "wheels", *model)
    assert done.code == 2 and "wheels" in done.err and not (tmp_path / "wheels").exists()
    pytest.importorskip("kiss_icp")
    done = run("map", bag, "--out", tmp_path / "out", "--json", *model)
    assert done.code == 0, done.err
    assert json.loads(done.out)["map"]["odometry"] == "kiss-icp"

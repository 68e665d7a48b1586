"""The plane check: rooms with known planes, simulated scans with known labels, the command on a file and on a bag."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from conftest import Run
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation.plane_check import class_masks, medians, score
from cmp_seg_ros.evaluation.report import PlaneScore, PlaneScores, WallScore
from cmp_seg_ros.geometry.normals import surface_normals, thin
from cmp_seg_ros.geometry.planes import Planes, find_planes
from cmp_seg_ros.geometry.projection import upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation.building import make_building
from cmp_seg_ros.simulation.generate import scans_in
from cmp_seg_ros.simulation.recorder import record
from cmp_seg_ros.simulation.rig import RigConfig

SPACE = LabelSpace.load("structural6")
WALL, FLOOR, CEILING, FLUSH, OBJECT, PERSON = range(6)
NOTHING = PlaneScore(recall=None, precision=None, points=0)
Box = tuple[tuple[float, float, float], tuple[float, float, float]]  # low, high


def room(
    size: tuple[float, float] = (8.0, 6.0),
    down: float = 0.9,
    up: float = 1.8,
    beams: int = 64,
    furniture: tuple[Box, ...] = (),
    noise: float = 0.01,
) -> tuple[np.ndarray, np.ndarray]:
    """What a lidar in the middle of a room with boxes sees: (N, 3) points and their (N,) labels in structural6."""
    elevation = np.radians(np.linspace(-45, 45, beams))
    azimuth = np.radians(np.arange(0, 360, 0.35))
    e, a = (grid.ravel() for grid in np.meshgrid(elevation, azimuth, indexing="ij"))
    ray = np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=1)
    high = np.array([size[0] / 2, size[1] / 2, up])
    low = np.array([-size[0] / 2, -size[1] / 2, -down])
    with np.errstate(divide="ignore"):
        reach = np.where(ray >= 0, high / ray, low / ray)  # (N, 3)
    distance, side = reach.min(axis=1), reach.argmin(axis=1)
    label = np.where(side < 2, WALL, np.where(ray[:, 2] < 0, FLOOR, CEILING)).astype(np.uint8)
    for near, far in furniture:
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = np.array(near) / ray, np.array(far) / ray
        enter, leave = np.minimum(first, second).max(axis=1), np.maximum(first, second).min(axis=1)
        hit = (enter > 0) & (enter < leave) & (enter < distance)
        distance, label = np.where(hit, enter, distance), np.where(hit, OBJECT, label).astype(np.uint8)
    distance = distance + np.random.default_rng(0).normal(0, noise, len(distance))
    return (ray * distance[:, None]).astype(np.float32), label


def turned(xyz: np.ndarray, roll: float, pitch: float) -> np.ndarray:
    return (xyz @ Rotation.from_euler("xy", [roll, pitch], degrees=True).as_matrix().T).astype(np.float32)


@pytest.mark.parametrize("beams", [16, 32, 64])
def test_an_empty_room(beams: int) -> None:
    xyz, label = room(beams=beams, noise=0.02)
    planes = find_planes(xyz)
    assert [round(plane.offset, 1) for plane in planes.floor] == [-0.9]
    assert [round(plane.offset, 1) for plane in planes.ceiling] == [1.8]
    assert sorted(round(abs(plane.offset), 1) for plane in planes.walls) == [3.0, 3.0, 4.0, 4.0]
    assert planes.floor[0].normal[2] > 0.99 and planes.ceiling[0].normal[2] > 0.99
    scores = score(planes, label, SPACE)
    for surface in ("floor", "ceiling"):
        assert getattr(scores, surface).recall > 0.98 and getattr(scores, surface).precision > 0.97
    assert scores.wall.recall == pytest.approx(1, abs=0.02) and scores.wall.planes == 4
    assert scores.floor.points > 0.8 * (label == FLOOR).sum()


def test_figures_are_of_the_labels() -> None:
    xyz, label = room()
    planes = find_planes(xyz)
    half = label.copy()
    half[(label == FLOOR) & (xyz[:, 0] > 0)] = OBJECT
    half[label == CEILING] = UNLABELLED
    half[(label == WALL) & (xyz[:, 1] > 0)] = FLUSH  # right on a wall
    scores = score(planes, half, SPACE)
    assert scores.floor.recall == pytest.approx(0.5, abs=0.05) and scores.floor.precision > 0.98
    assert scores.ceiling.recall == 0 and scores.ceiling.precision is None
    assert scores.wall.recall > 0.98
    everything = score(planes, np.full(len(label), FLOOR, np.uint8), SPACE)
    assert everything.floor.recall == 1 and everything.wall.recall == 0
    assert everything.floor.precision == pytest.approx((label == FLOOR).mean(), abs=0.05)


@settings(max_examples=8)
@given(roll=st.floats(-20, 20), pitch=st.floats(-20, 20))
def test_the_vertical_is_found(roll: float, pitch: float) -> None:
    xyz, label = room(beams=32)
    planes = find_planes(turned(xyz, roll, pitch))
    lean = np.degrees(np.arccos(np.cos(np.radians(roll)) * np.cos(np.radians(pitch))))
    assert planes.tilt() == pytest.approx(lean, abs=1.5)
    scores = score(planes, label, SPACE)
    assert scores.floor.recall > 0.97 and scores.ceiling.recall > 0.97 and scores.wall.recall > 0.97


def test_a_large_table_is_no_floor() -> None:
    table = ((0.3, -2.0, -0.35), (3.0, 2.0, -0.3))
    xyz, label = room(furniture=(table,))
    planes = find_planes(xyz)
    assert [round(plane.offset, 1) for plane in planes.floor] == [-0.9]
    on_table = (label == OBJECT) & (np.abs(xyz[:, 2] + 0.3) < 0.05)
    assert on_table.sum() > 100 and not planes.on(planes.floor)[on_table].any()
    # Without a floor in sight the table does not take its place: walls go on below it.
    seen = ~((label == FLOOR) | (np.linalg.norm(xyz, axis=1) < 0.3))
    planes = find_planes(xyz[seen])
    assert planes.floor == [] and planes.ceiling and len(planes.walls) == 4
    scores = score(planes, label[seen], SPACE)
    assert scores.floor == NOTHING


def test_a_platform_is_a_level_of_the_floor() -> None:
    platform = ((-3.9, -2.9, -0.9), (-1.0, 2.9, -0.72))
    xyz, label = room(furniture=(platform,))
    label[(label == OBJECT) & (xyz[:, 2] > -0.75)] = FLOOR
    planes = find_planes(xyz)
    assert sorted(round(plane.offset, 1) for plane in planes.floor) == [-0.9, -0.7]
    scores = score(planes, label, SPACE)
    assert scores.floor.recall > 0.92 and scores.floor.precision > 0.95


def test_what_makes_a_wall() -> None:
    # A cabinet of 1 m and a narrow column of full height are none; what they hide of a wall does not matter.
    cabinet, column = ((1.5, -2.0, -0.9), (2.0, 2.0, 0.1)), ((-2.0, 1.0, -0.9), (-1.6, 1.4, 1.8))
    xyz, label = room(furniture=(cabinet, column))
    planes = find_planes(xyz)
    assert sorted(round(abs(plane.offset), 1) for plane in planes.walls) == [3.0, 3.0, 4.0, 4.0]
    assert score(planes, label, SPACE).wall.recall > 0.98
    # A wall ends: what stands in its line beyond is not on it.
    (wall,) = (plane for plane in planes.walls if plane.distance(np.array([[4.0, 0, 0]]))[0] ** 2 < 0.01)
    assert wall.end - wall.start == pytest.approx(6, abs=0.4)
    assert wall.near(np.array([[4.0, 0, 0], [4.0, 9, 0], [3.8, 0, 0]])).tolist() == [True, False, False]


@pytest.mark.parametrize(
    "xyz",
    [
        np.zeros((0, 3), np.float32),
        np.zeros((5, 3), np.float32),
        np.full((5, 3), np.nan, np.float32),
        np.ones((1, 3), np.float32),
        np.ones((500, 3), np.float32),
        np.random.default_rng(0).normal(0, 3, (500, 3)).astype(np.float32),
        np.array([[1e6, 0, 0], [np.inf, 1, 1], [0, 0, -2]], np.float32),
        np.random.default_rng(0).normal(0, 3e37, (500, 3)).astype(np.float32),
    ],
)
def test_scans_without_planes(xyz: np.ndarray) -> None:
    planes = find_planes(xyz)
    scores = score(planes, np.full(len(xyz), FLOOR, np.uint8), SPACE)
    assert scores.floor.recall is None and scores.wall == WallScore(recall=None, planes=0)
    assert planes.tilt() == pytest.approx(0, abs=35)


@pytest.mark.parametrize("far", [1e3, 1e6, 3e38])
def test_what_is_far_away_takes_no_memory_and_changes_nothing(far: float) -> None:
    """Patches of garbage among the returns: tables over heights and distances would reach as far."""
    xyz, _ = room(beams=16)
    random = np.random.default_rng(0)
    direction = random.choice([-1, 1], (4, 1, 3)) * random.uniform(0.5, 1, (4, 1, 3))
    patches = far * direction + random.uniform(-1, 1, (4, 400, 3)) * [1, 1, 0]
    expected = find_planes(xyz)
    tracemalloc.start()
    found = find_planes(np.concatenate([xyz, patches.reshape(-1, 3).astype(np.float32)]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500e6
    for few, many in ((found.floor, expected.floor), (found.ceiling, expected.ceiling), (found.walls, expected.walls)):
        assert len(few) == len(many) > 0
        np.testing.assert_allclose([p.offset for p in few], [p.offset for p in many])


def test_normals_across_rings() -> None:
    # Two rings on a floor, 0.5 m apart and dense: nearest neighbours lie on a line.
    along = np.arange(-2, 2, 0.02)
    rings = np.concatenate([np.stack([along, np.full_like(along, y), np.full_like(along, -1)], 1) for y in (3, 3.5)])
    normals = surface_normals(thin(rings, 0.08)[0])
    assert np.isfinite(normals).all() and (np.abs(normals[:, 2]) > 0.99).all()
    single = surface_normals(thin(rings[: len(along)], 0.08)[0])
    assert np.isnan(single).all()


def test_medians_leave_out_what_is_not_there() -> None:
    floors = PlaneScore(recall=0.5, precision=1.0, points=4), PlaneScore(recall=1.0, precision=None, points=2)
    wall = WallScore(recall=0.5, planes=2)
    found = medians([PlaneScores(floor=floor, ceiling=NOTHING, wall=wall) for floor in floors])
    assert found.floor == PlaneScore(recall=0.75, precision=1.0, points=3)
    assert (found.ceiling, found.wall) == (NOTHING, wall)


def test_label_spaces() -> None:
    indoor = LabelSpace.load("indoor")
    masks = class_masks(indoor)
    assert [c.name for c in indoor.classes if masks["wall"][c.id]] == ["wall", "door", "window", "board", "curtain"]
    assert masks["floor"].sum() == masks["ceiling"].sum() == 1
    assert class_masks(LabelSpace.load("structural4"))["wall"].sum() == 1
    with pytest.raises(UserError, match="label space 'numbered' has no class floor"):
        class_masks(LabelSpace.numbered(6))


def test_a_perfect_labeller_of_simulated_scans() -> None:
    scores = []
    for i, sensor in enumerate(("os1-16", "os1-64", "os0-128", "vlp-16", "vlp-32c", "xt-32")):
        for scan, label, T_base_lidar in scans_in(make_building(10_000_100 + i), 2, sensor):
            scores.append(score(find_planes(upright(scan.xyz, T_base_lidar)), label, LabelSpace.load("indoor")))
    found = medians(scores)
    assert found.floor.recall > 0.95 and found.floor.precision > 0.95
    assert found.ceiling.recall > 0.9 and found.ceiling.precision > 0.9
    assert found.wall.recall > 0.9 and found.wall.planes >= 1


def test_real_scans_show_planes(shared_data: Path) -> None:
    def planes(name: str) -> Planes:
        return find_planes(next(iter(open_input(shared_data / "real" / name))).scan.xyz)

    plycal = planes("plycal/0.pcd")
    assert len(plycal.floor) == 1 and -1.5 < plycal.floor[0].offset < -0.7 and len(plycal.walls) >= 2
    assert len(planes("nebula_xt32/scan.pcd").walls) >= 3
    for name in ("plycal/0.pcd", "nebula_xt32/scan.pcd", "nebula_vlp16/scan.pcd"):
        assert planes(name).tilt() < 5


@pytest.fixture
def evaluate(run: Run, tiny_bundle: Path) -> Run:
    return lambda *arguments: run("evaluate", *arguments, "--planes", "--model", tiny_bundle, "--engine", "reference")


def test_command_on_files(evaluate: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", room(beams=16)[0])
    ran = evaluate(tmp_path, "--json", "--out", tmp_path / "out")
    assert ran.code == 0, ran.err
    report = json.loads(ran.out)
    assert report == json.loads((tmp_path / "out/report.json").read_text())
    assert [scan["key"] for scan in report["planes"]["scans"]] == ["a", "b"]
    assert set(report["planes"]["scans"][0]["floor"]) == {"recall", "precision", "points"}
    assert report["planes"]["scans"][0]["wall"]["planes"] == 4 == report["planes"]["median"]["wall"]["planes"]
    assert report["planes"]["perfect_median"] is None
    assert (tmp_path / "out/planes-000.png").exists() and (tmp_path / "out/planes-001.png").exists()
    table = evaluate(tmp_path / "a.npy").out
    assert "precision" in table and "median" in table and "1 scan," in table
    np.save(tmp_path / "nothing.npy", np.full((50, 3), np.nan))
    nothing = evaluate(tmp_path / "nothing.npy")
    assert nothing.code == 1 and "has no return: all its 50 points are NaN" in nothing.err
    assert not nothing.out


def test_command_on_a_tilted_lidar(evaluate: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", turned(room(beams=32)[0], 0, 25))
    report = json.loads(evaluate(tmp_path / "a.npy", "--json").out)
    assert any("tilted by 25 degrees against z; give the lidar's mounting" in text for text in report["warnings"])


FURNITURE = (((1.0, -2.0, -0.9), (1.8, 1.0, -0.2)), ((-3.5, 0.5, -0.9), (-2.5, 2.5, -0.3)))


def test_a_lidar_that_hangs_upside_down(evaluate: Run, tmp_path: Path) -> None:
    xyz = room(beams=32, furniture=FURNITURE)[0]
    assert find_planes(xyz).way_up() == 1
    hanging = turned(xyz, 180, 0)
    assert find_planes(hanging).way_up() == -1
    # In an empty room, or halfway up, nothing tells it.
    assert find_planes(room(beams=32)[0]).way_up() == 0
    assert find_planes(room(beams=32, down=1.3, up=1.4)[0]).way_up() == 0
    assert find_planes(xyz[xyz[:, 2] < 1]).way_up() == 0  # no ceiling in sight

    np.save(tmp_path / "a.npy", hanging)
    report = json.loads(evaluate(tmp_path / "a.npy", "--json").out)
    assert any("1 of 1 scans look as if the lidar hung upside down" in text for text in report["warnings"])
    assert report["planes"]["scans"][0]["way_up"] == -1


def test_command_scores_a_perfect_labeller_of_simulated_bags(evaluate: Run, tmp_path: Path) -> None:
    for _ in record(RigConfig(10_000_003, "os1-64", 0.5, 4, "wheeled", 20, 0, ()), tmp_path / "sim", 1):
        pass
    report = json.loads(evaluate(tmp_path / "sim", "--json").out)
    perfect = report["planes"]["perfect_median"]
    assert perfect["floor"]["recall"] > 0.95 and perfect["floor"]["precision"] > 0.95
    assert perfect["wall"]["recall"] > 0.9 and perfect["wall"]["planes"] >= 2
    assert (
        report["calibration"].endswith("sim/calibration.yaml") and max(s["tilt"] for s in report["planes"]["scans"]) < 5
    )
    assert "perfect" in evaluate(tmp_path / "sim").out

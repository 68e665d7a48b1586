"""Grids, true occupancy of simulated scenes, what depth images tell, scores, and the commands."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fields import occupancy_bundle
from PIL import Image

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.occupancy import pictures
from cmp_seg_ros.occupancy.cases import from_depth, in_front, level_base
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid
from cmp_seg_ros.occupancy.images import images_of, load_camera
from cmp_seg_ros.occupancy.scores import DepthScores, OccupancyScores
from cmp_seg_ros.occupancy.truth import occupancy, surface_points
from cmp_seg_ros.simulation.materials import WHITE_PLASTIC
from cmp_seg_ros.simulation.mesh import Shape
from cmp_seg_ros.simulation.raycast import Scene

CAMERA = Camera(model="pinhole", intrinsics=(50, 50, 49.5, 39.5), width=100, height=80)
AHEAD = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.0], [0, 0, 0, 1]])  # level, 1 m above the floor
GRID = Grid(voxel=0.25, shape=(20, 16, 10), origin=(0.0, -2.0, -0.125))


def test_published_and_indoor_grids_have_their_sizes() -> None:
    sscbench = Grid.load("sscbench")
    assert sscbench.size == 2_097_152 and np.allclose(sscbench.centres()[0], (0.1, -25.5, -1.9))
    indoor = Grid.load("indoor")
    assert np.allclose(np.array(indoor.shape) * indoor.voxel, (12.8, 12.8, 3.2))
    index, inside = indoor.index(indoor.centres()[[0, 5000, -1]])
    assert index.tolist() == [0, 5000, indoor.size - 1] and inside.all()
    assert not indoor.index(np.array([[-0.01, 0, 0]]))[1].any()


def test_surface_points_leave_no_voxel_of_a_surface_out() -> None:
    """Also where the surface is askew, and the triangles long and thin."""
    shape = Shape()
    shape.quad((0, 0, 0), (3.1, 1.7, 0.4), (3.0, 1.9, 0.5), (-0.1, 0.2, 0.1), "table", WHITE_PLASTIC)
    points, label = surface_points(shape.finish(), (-1, -1, -1), (4, 4, 4))
    a, b = np.random.default_rng(0).uniform(size=(2, 2000, 1))
    corners = np.array([[0, 0, 0], [3.1, 1.7, 0.4], [3.0, 1.9, 0.5]])
    swap = (a + b > 1).ravel()
    a[swap], b[swap] = 1 - a[swap], 1 - b[swap]
    there = corners[0] + a * (corners[1] - corners[0]) + b * (corners[2] - corners[0])
    distance = np.linalg.norm(there[:, None] - points[None, ::1], axis=2).min(axis=1)
    assert distance.max() < 0.05 and (label == 7).all()


def test_truth_is_free_where_seen_and_unknown_behind_walls_and_in_cupboards() -> None:
    shape = Shape()
    shape.slab((-1, -2, -0.05), (5, 2, 0.0), "floor", WHITE_PLASTIC)
    shape.slab((3, -2, 0), (3.1, 2, 2.5), "wall", WHITE_PLASTIC)
    shape.slab((1.55, -0.7, 0), (2.45, 0.7, 1.2), "cabinet", WHITE_PLASTIC)
    mesh = shape.finish()
    places = np.array([[0, 0, 1.8], [1.0, -1.5, 1.0]], np.float32)
    found = occupancy(
        [Scene(mesh)],
        [surface_points(mesh, (-1, -3, -1), (6, 3, 3))],
        GRID,
        np.eye(4),
        places,
        np.ones(GRID.size, bool),
    )
    space = LabelSpace.load("indoor")
    wall, floor, cabinet = (space.ids[space.names.index(name)] for name in ("wall", "floor", "cabinet"))
    assert found[2, 8, 4] == FREE and found[2, 8, 0] == floor and found[12, 2, 6] == wall
    assert found[6, 8, 2] == cabinet and found[8, 8, 2] == UNKNOWN  # its front, and inside
    assert (found[14:, :, 2:8] == UNKNOWN).all()  # behind the wall
    within = np.zeros(GRID.size, bool)
    assert (occupancy([Scene(mesh)], [], GRID, np.eye(4), places, within) == UNKNOWN).all()


def test_a_depth_image_tells_what_is_occupied_free_and_unknown() -> None:
    """A wall 3 m ahead, without depth in the left half."""
    depth = np.full((80, 100), 3.0, np.float32)
    depth[:, :50] = 0
    found = from_depth(GRID, CAMERA, AHEAD, depth)
    right, left = 4, 12  # indices along y, of 1 m to the right and to the left
    assert (found[6:11, right, 4] == FREE).all() and found[12, right, 4] < FREE
    assert (found[13:, right, 4] == UNKNOWN).all() and (found[:, left, 4] == UNKNOWN).all()
    visible = in_front(GRID, CAMERA, AHEAD, np.full((80, 100), 3.0, np.float32), 0.25)
    assert visible[8, right, 4] and not visible[15, right, 4] and not visible[0, 0, 4]


def test_the_base_is_level_and_below_the_camera() -> None:
    """In a world whose y axis points up; the camera looks along -z, tilted down."""
    c, s = np.cos(0.3), np.sin(0.3)
    T_world_camera = np.eye(4)
    T_world_camera[:3, :3] = np.column_stack([(1, 0, 0), (0, -c, s), (0, -s, -c)])
    T_world_camera[:3, 3] = 5, 1.6, 2
    T_world_base = level_base(T_world_camera, 0.1)
    assert np.allclose(T_world_base[:3, 3], (5, 0.1, 2)) and np.allclose(T_world_base[:3, 2], (0, 1, 0))
    assert np.allclose(T_world_base[:3, 0], (0, 0, -1)) and np.linalg.det(T_world_base) == pytest.approx(1)


def test_scores_count_visible_and_occluded_voxels_apart() -> None:
    space = LabelSpace.load("image14")
    scores = OccupancyScores(space)
    truth = np.array([0, 0, 1, FREE, FREE, UNKNOWN, 1, FREE], np.uint8)
    found = np.array([0, 1, FREE, FREE, 2, 3, 1, 5], np.uint8)
    scores.add(truth, found, np.array([1, 1, 1, 1, 1, 1, 0, 0], bool))
    result = scores.scores()
    assert result["occupancy_iou_visible"] == pytest.approx(2 / 4) and result["precision_visible"] == pytest.approx(
        2 / 3
    )
    assert result["occupancy_iou_occluded"] == pytest.approx(1 / 2) and result["recall_occluded"] == 1
    assert result["occupancy_iou"] == pytest.approx(3 / 6)
    assert result["iou_wall"] == pytest.approx(1 / 2) and result["iou_floor"] == pytest.approx(1 / 3)
    assert result["miou"] == pytest.approx((1 / 2 + 1 / 3) / 2)  # the others are not in the truth
    depths = DepthScores()
    depths.add(np.array([1, 2, 0, np.inf, 4], np.float32), np.array([1.1, 3, 5, 5, 4], np.float32))
    found_depths = depths.scores()
    assert found_depths["abs_rel"] == pytest.approx((0.1 + 0.5 + 0) / 3, abs=1e-6)
    assert found_depths["delta_125"] == pytest.approx(2 / 3)


def test_images_need_a_camera_and_faults_are_named(tmp_path: Path) -> None:
    Image.new("L", (20, 10), 90).save(tmp_path / "grey.png")
    with pytest.raises(UserError, match="give --calibration FILE"):
        list(images_of(tmp_path, None))
    (tmp_path / "camera.yaml").write_text("model: pinhole\nintrinsics: [10, 10, 9.5, 4.5]\nwidth: 20\nheight: 10\n")
    pose = load_camera(tmp_path / "camera.yaml")
    [(key, rgb, _)] = images_of(tmp_path, pose)
    assert key == "grey" and rgb.shape == (10, 20, 3) and pose.T_base_camera is None
    (tmp_path / "robot.yaml").write_text(
        "cameras: {front: {model: pinhole, intrinsics: [10, 10, 9.5, 4.5], width: 20, height: 10,"
        " T_base_camera: [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 2], [0, 0, 0, 1]]}}\n"
    )
    mounted = load_camera(tmp_path / "robot.yaml")  # no lidar, so no T_camera_lidar
    assert (
        mounted.camera.intrinsics == pose.camera.intrinsics
        and mounted.T_base_camera is not None
        and mounted.T_base_camera[2, 3] == 2
    )
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"broken\.jpg cannot be read"):
        list(images_of(tmp_path, pose))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no images"):
        list(images_of(tmp_path / "empty", pose))
    with pytest.raises(UserError, match="there is no"):
        list(images_of(tmp_path / "nowhere", pose))
    with pytest.raises(UserError, match="is no image, folder of images, or bag"):
        list(images_of(tmp_path / "robot.yaml", pose))


def test_infer_and_evaluate_leave_files_and_figures(tmp_path: Path, run: Any) -> None:
    occupancy_bundle(tmp_path / "bundle")
    frames = tmp_path / "frames"
    for name in ("images", "depth"):
        (frames / name).mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (128, 96), (120, 130, 140)).save(frames / "images" / f"{number}.png")
        Image.fromarray(np.full((96, 128), 2300, np.uint16)).save(frames / "depth" / f"{number}.png")
    pose = np.diag([1.0, -1, -1, 1])  # y up, ahead along -z
    np.savetxt(frames / "poses.txt", np.stack([pose, pose]).reshape(2, 16))
    np.savetxt(frames / "K.txt", np.array([[100, 0, 63.5], [0, 100, 47.5], [0, 0, 1]]))
    camera = tmp_path / "camera.yaml"
    camera.write_text("model: pinhole\nintrinsics: [100, 100, 63.5, 47.5]\nwidth: 128\nheight: 96\n")
    out, model = tmp_path / "out", ("--model", tmp_path / "bundle")
    result = run("scenedino", "infer", frames / "images", "--calibration", camera, *model, "--out", out, "--json")
    assert result.code == 0, result.err
    report = json.loads(result.out)
    with np.load(out / "0.npz") as file:
        label = file["label"]
        assert (label < FREE).sum() == report["images"][0]["occupied"] > 1000 and file["frame"] == "camera"
    assert f"element vertex {(label < FREE).sum()}\n" in (out / "0.ply").read_bytes()[:200].decode("latin")
    with Image.open(out / "0.depth.png") as depth:
        assert 1750 < np.median(np.asarray(depth)) < 2250
    assert (out / "0.png").stat().st_size > 20_000
    result = run("scenedino", "evaluate", frames, *model, "--every", 2, "--out", tmp_path / "scores", "--json")
    assert result.code == 0, result.err
    scores = json.loads(result.out)
    assert scores["cases"] == 1 and scores["constant_depth"]["abs_rel"] < 0.01 and scores["model"]["abs_rel"] < 0.25
    assert scores["constant_depth"]["occupancy_iou"] > 0.9  # the wall at its true place
    result = run("scenedino", "infer", frames / "images", *model, "--out", out)
    assert result.code == 1 and "give --calibration FILE" in result.err


def test_a_picture_names_the_classes_that_occur(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: drawn.append(figure))
    space = LabelSpace.load("image14")
    grid = Grid.load("indoor")
    wall, door = (space.ids[space.names.index(name)] for name in ("wall", "door"))
    label = np.full(grid.shape, FREE, np.uint8)
    for occupied in (label, np.where(np.arange(label.size).reshape(label.shape) == 0, wall, label)):
        classes = np.broadcast_to(space.palette[door], (6, 8, 3))
        rgb, depth = np.zeros((6, 8, 3), np.uint8), np.ones((6, 8), np.float32)
        pictures.draw_result(tmp_path / "a.png", rgb, depth, classes, grid, occupied.astype(np.uint8), space, "title")
    names = [[text.get_text().split()[0] for text in figure.axes[-1].get_legend().get_texts()] for figure in drawn]
    assert names == [["door"], ["wall", "door"]]

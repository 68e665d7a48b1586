"""Projection with visibility."""

import numpy as np
import pytest

from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.geometry.projection import project_scan, transform
from cmp_seg_ros.simulation.rig import Rig, RigConfig
from cmp_seg_ros.simulation.rig_camera import RigCamera, load_camera

CAMERA = Camera(model="pinhole", intrinsics=(320, 320, 320, 240), width=640, height=480)
# Lidar x forward, z up -> camera z forward, x right, y down; the camera 0.3 m to the left of the lidar.
T_CAMERA_LIDAR = np.array([[0, -1, 0, 0.3], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)


def wall(x: float, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    grid = np.stack(np.meshgrid(y, z), axis=-1).reshape(-1, 2)
    return np.column_stack([np.full(len(grid), x), grid]).astype(np.float32)


def test_points_behind_a_near_board_are_hidden() -> None:
    far = wall(6, np.linspace(-4, 4, 400), np.linspace(-1.5, 1.5, 60))
    board = wall(2, np.linspace(-0.3, 0.3, 100), np.linspace(-0.5, 0.5, 60))
    seen = project_scan(np.concatenate([far, board]), CAMERA, T_CAMERA_LIDAR)
    visible_far, visible_board = seen.visible[: len(far)], seen.visible[len(far) :]
    assert visible_board.all()
    # The shadow of the board on the wall, from the camera at y = 0.3: y in 0.3 + 3 (-0.6 .. 0), z in 3 (-0.5 .. 0.5).
    shadow = (far[:, 1] > -1.4) & (far[:, 1] < 0.2) & (np.abs(far[:, 2]) < 1.4)
    lit = (far[:, 1] < -1.7) & (far[:, 1] > -3) | (far[:, 1] > 0.5) & (far[:, 1] < 3)
    assert not visible_far[shadow].any()
    assert visible_far[lit].all()
    np.testing.assert_allclose(
        seen.depth, np.linalg.norm(np.concatenate([far, board]) - (0, 0.3, 0), axis=1), rtol=1e-5
    )


def test_a_floor_is_not_hidden_by_itself() -> None:
    x, y = np.meshgrid(np.linspace(1.5, 6, 150), np.linspace(-1, 1, 80))
    floor = np.column_stack([x.ravel(), y.ravel(), np.full(x.size, -1.0)]).astype(np.float32)
    seen = project_scan(floor, CAMERA, T_CAMERA_LIDAR)
    inside = CAMERA.project(transform(T_CAMERA_LIDAR, floor))[1]
    assert inside.mean() > 0.9
    assert seen.visible[inside].mean() > 0.95


def test_what_is_no_return_is_never_visible() -> None:
    points = np.array([[np.nan, 0, 0], [np.inf, 0, 0], [0, 0, 0], [-3, 0, 0], [3, 0, 0]], dtype=np.float32)
    T = T_CAMERA_LIDAR.copy()
    T[2, 3] = 1.0  # the lidar's origin is in view
    assert project_scan(points, CAMERA, T).visible.tolist() == [False, False, False, False, True]
    assert project_scan(points[:0], CAMERA, T).visible.shape == (0,)


def test_points_near_a_depth_edge_are_marked() -> None:
    far = wall(6, np.linspace(-4, 4, 400), np.linspace(-2.5, 2.5, 100))
    far = far[(np.abs(far[:, 1]) > 0.9) | (np.abs(far[:, 2]) > 1.5)]  # what the lidar sees past the board
    board = wall(2, np.linspace(-0.3, 0.3, 100), np.linspace(-0.5, 0.5, 60))
    seen = project_scan(np.concatenate([far, board]), CAMERA, T_CAMERA_LIDAR)
    edge_far, edge_board = seen.edge[: len(far)], seen.edge[len(far) :]
    rim = (board[:, 1] < -0.29) | (np.abs(board[:, 2]) > 0.49)  # left of it, the lidar does not see what lies behind
    inner = (np.abs(board[:, 1]) < 0.24) & (np.abs(board[:, 2]) < 0.44)
    assert edge_board[rim].all() and not edge_board[inner].any()
    lit = seen.visible[: len(far)]
    away = lit & ((far[:, 1] < -1.9) | (far[:, 1] > 1.1))
    assert (edge_far & lit).any() and not edge_far[away].any()


@pytest.mark.parametrize("sensor, kind", [("os1-16", "pinhole"), ("xt-32", "equidistant"), ("vlp-16", "wide")])
def test_visibility_is_that_of_the_simulator(sensor: str, kind: str) -> None:
    """Of the points said to be visible few are hidden, and few of those that the camera sees are lost."""
    right = said = true = 0
    for seed in (3, 5, 8):  # buildings
        rig = Rig(RigConfig(seed, sensor, seconds=0.1, cameras=(RigCamera(camera=load_camera(kind)),)))
        camera, sweep = rig.calibration().camera(), rig.scan(0)
        visible, truth = project_scan(sweep.scan.xyz, camera, camera.T_camera_lidar).visible, rig.visible(0, sweep)
        right += int((visible & truth).sum())
        said, true = said + int(visible.sum()), true + int(truth.sum())
    assert right / said > 0.97
    assert right / true > 0.97

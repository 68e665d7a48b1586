"""Extrinsics that are off are found, by the edges and the brightness of images."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import Run

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.evaluation import calibration_check
from cmp_seg_ros.geometry import alignment
from cmp_seg_ros.geometry.alignment import Alignment, View
from cmp_seg_ros.geometry.calibration import CalibratedCamera, Calibration
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.geometry.sensor_set import SensorSet

CAMERA = Camera(model="pinhole", intrinsics=(200, 200, 160, 120), width=320, height=240)
T_CAMERA_LIDAR = np.array([[0, -1, 0, 0.1], [0, 0, -1, -0.1], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=float)
Boards = list[tuple[np.ndarray, float, float]]  # centre in the lidar's frame (x is the distance), half size, brightness


def boards(seed: int) -> Boards:
    """Upright squares in front of a wall at 8 m, near ones first."""
    rng = np.random.default_rng(seed)
    distances = np.sort(rng.uniform(2, 6, 6))
    return [
        (np.array([d, rng.uniform(-0.5, 0.5) * d, rng.uniform(-0.3, 0.3) * d]), 0.12 * d, rng.uniform(20, 230))
        for d in distances
    ]


def hits(origin: np.ndarray, rays: np.ndarray, scene: Boards) -> tuple[np.ndarray, np.ndarray]:
    """(N,) distances along the rays (lidar's axes) and (N,) brightness of what they hit first."""
    distance, brightness = (8 - origin[0]) / rays[:, 0], np.full(len(rays), 120.0)
    for centre, half, shade in reversed(scene):
        along = (centre[0] - origin[0]) / rays[:, 0]
        place = origin + along[:, None] * rays
        on = (np.abs(place[:, 1:] - centre[1:]) < half).all(axis=1)
        distance, brightness = np.where(on, along, distance), np.where(on, shade, brightness)
    return distance, brightness


def view(seed: int) -> View:
    """What a lidar of 32 rings and the camera see of some boards."""
    scene = boards(seed)
    ring, azimuth = np.meshgrid(np.arange(32), np.radians(np.arange(-45, 45, 0.5)), indexing="ij")
    elevation = np.radians(ring.ravel() * 1.3 - 20)
    a = azimuth.ravel()
    rays = np.stack([np.cos(elevation) * np.cos(a), np.cos(elevation) * np.sin(a), np.sin(elevation)], axis=1)
    distance, strength = hits(np.zeros(3), rays, scene)
    pixels = np.stack(np.meshgrid(np.arange(320), np.arange(240)), axis=-1).reshape(-1, 2).astype(np.float32)
    T_lidar_camera = np.linalg.inv(T_CAMERA_LIDAR)
    seen = hits(T_lidar_camera[:3, 3], CAMERA.unproject(pixels) @ T_lidar_camera[:3, :3].T, scene)[1]
    return View(
        (distance[:, None] * rays).astype(np.float32), strength.astype(np.float32), None, seen.reshape(240, 320)
    )


VIEWS = [view(seed) for seed in range(6)]


@pytest.fixture(autouse=True)
def _shorter_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alignment, "SAMPLES", 40)
    monkeypatch.setattr(alignment, "STARTS", 1)


@pytest.mark.parametrize("axis", [1, 4])
def test_an_error_put_in_is_found(axis: int) -> None:
    offset = np.zeros(6)
    offset[axis] = 2  # degrees, or 20 cm
    wrong = alignment.offset_by(T_CAMERA_LIDAR, offset)
    found = alignment.refine(Alignment(VIEWS, CAMERA, wrong), wrong)
    degrees, metres = alignment.difference(T_CAMERA_LIDAR, found.T_camera_lidar)
    assert found.after > found.before + 1
    assert np.abs(degrees).max() < 1 and np.abs(metres).max() < 0.1  # of some 1.3 degrees between rings
    assert abs(np.append(degrees, metres / 0.1)[axis]) < 0.7


def test_right_extrinsics_stay_without_intensities() -> None:
    views = [View(v.xyz, None, None, v.grey) for v in VIEWS]
    near = alignment.refine(Alignment(views, CAMERA, T_CAMERA_LIDAR), T_CAMERA_LIDAR).T_camera_lidar
    degrees, metres = alignment.difference(T_CAMERA_LIDAR, near)
    assert np.abs(degrees).max() < 1 and np.abs(metres).max() < 0.1


def test_rings_and_depth_steps() -> None:
    azimuth = np.radians(np.arange(0, 20, 0.5))
    flat = np.stack([np.cos(azimuth), np.sin(azimuth), 0 * azimuth], axis=1)
    reach = np.where(np.arange(40) < 20, 2.0, 5.0)
    xyz = np.concatenate([reach[:, None] * flat, 3 * (flat + np.array([0, 0, 0.2]))]).astype(np.float32)
    ring = alignment.rings(xyz)
    assert ring.tolist() == [0] * 40 + [1] * 40
    step = alignment.depth_steps(xyz, ring)
    assert np.flatnonzero(step > 0.1).tolist() == [19]
    assert step[19] == pytest.approx(3, abs=1e-5)


def pairs(folder: Path, count: int) -> Path:
    """A folder of scans with pictures, and their calibration."""
    from PIL import Image

    folder.mkdir()
    for number, one in enumerate(VIEWS[:count]):
        assert one.intensity is not None
        points = np.column_stack([one.xyz, one.intensity])
        np.save(folder / f"{number}.npy", points.astype(np.float32))
        Image.fromarray(one.grey.astype(np.uint8)).convert("RGB").save(folder / f"{number}.png")
    cameras = {"front": CAMERA.model_dump() | {"T_camera_lidar": T_CAMERA_LIDAR.tolist()}}
    Calibration.model_validate({"cameras": cameras}).save(folder / "calibration.yaml")
    return folder


def test_the_command_reports_and_refines(tmp_path: Path, run: Run) -> None:
    folder, out = pairs(tmp_path / "pairs", 4), tmp_path / "out"
    ran = run("calibration", "check", folder, "--out", out, "--refine", "--json")
    assert ran.code == 0, ran.err
    report = json.loads((out / "report.json").read_text())
    front = report["cameras"]["front"]
    assert (front["views"], front["between_halves"]) == (4, None)
    assert front["verdict"].startswith("cannot tell, because 4 images are too few")
    refined = Calibration.load(out / "calibration-refined.yaml").camera("front")
    assert refined.T_camera_lidar == front["T_camera_lidar"]
    assert refined.intrinsics == CAMERA.intrinsics
    assert Calibration.load(folder / "calibration.yaml").camera().T_camera_lidar == T_CAMERA_LIDAR.tolist()
    assert (out / "front.png").stat().st_size > 20_000


@pytest.mark.parametrize(
    ("axis", "offset", "apart", "verdict", "refinable"),
    [
        (0, 1, 0.1, "fits", True),
        (0, 3, 0.1, "off by 3.0 degrees, 0 cm", True),
        (3, 3, 0.1, "off by 0.0 degrees, 30 cm", True),
        (0, 3, 4, "cannot tell, because searches with half of the images end 4.0 degrees", False),
        (0, 28, 0.5, "cannot tell, because the best place is 28.0 degrees", False),
        (0, 3, None, "cannot tell, because 6 images are too few", True),
        (0, 28, None, "cannot tell, because the best place is 28.0 degrees", False),
    ],
)
def test_the_verdict(axis: int, offset: float, apart: float | None, verdict: str, refinable: bool) -> None:
    """Offsets are in degrees, or in tenths of a metre."""
    camera = CalibratedCamera(**CAMERA.model_dump(), T_camera_lidar=T_CAMERA_LIDAR.tolist())
    best, other = (alignment.offset_by(T_CAMERA_LIDAR, d * np.eye(6)[axis]) for d in (offset, offset + (apart or 0)))
    others = () if apart is None else (best, other)
    found = calibration_check.Checked(camera, best, 1.0, 2.0, others, VIEWS)
    assert found.verdict.startswith(verdict) and found.is_refinable == refinable
    assert found.is_off == verdict.startswith("off")


@pytest.mark.parametrize("degrees", [1.0, 60.0])
def test_extrinsics_that_went_astray_are_not_written(
    degrees: float, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = pairs(tmp_path / "pairs", 4)
    best = alignment.offset_by(T_CAMERA_LIDAR, np.array([degrees, 0, 0, 0, 0, 0]))
    monkeypatch.setattr(alignment, "refine", lambda *_: alignment.Found(best, 1.0, 2.0))
    ran = run("calibration", "check", folder, "--refine", "--out", tmp_path / "out")
    assert ran.code == (degrees == 60) and (tmp_path / "out/calibration-refined.yaml").exists() == (degrees == 1)


def test_inputs_that_cannot_be_checked(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "pairs", 3)
    with pytest.raises(UserError, match="3 images with a scan; 4 are needed"):
        calibration_check.check(folder, SensorSet.around(folder))
    with pytest.raises(UserError, match="camera 'rear' is not in the calibration"):
        calibration_check.check(folder, SensorSet.around(folder), camera="rear")
    (folder / "calibration.yaml").unlink()
    with pytest.raises(UserError, match="no images of a calibrated camera; give a calibration file"):
        calibration_check.check(folder, SensorSet.around(folder))

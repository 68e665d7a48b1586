"""Camera models: round trips, the monotone range, and known values."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cmp_seg_ros.geometry.cameras import Camera

# A fisheye whose polynomial turns over inside its image (M2DGR, back left).
TURNING = Camera(
    model="equidistant",
    intrinsics=(539.834690518987, 538.7141533225924, 630.8171732844409, 501.86380820583685),
    distortion=[-0.05750460898, -0.03555561604, 0.03055597655, -0.01435815153],
    width=1280,
    height=1024,
)


def camera(model: str, distortion: list[float], xi: float = 0.0) -> Camera:
    focal = 300.0 if model == "pinhole" else 200.0 * (1 + xi)
    return Camera(
        model=model, intrinsics=(focal, focal * 1.01, 321.3, 238.7), distortion=distortion, xi=xi, width=640, height=480
    )


small = st.floats(-0.08, 0.08)
tiny = st.floats(-0.002, 0.002)
cameras = st.one_of(
    st.just(camera("pinhole", [])),
    st.builds(lambda k1, k2, p1, p2, k3: camera("pinhole", [k1, k2, p1, p2, k3]), small, small, tiny, tiny, small),
    st.builds(lambda k1, k2, p1, p2: camera("pinhole", [4 * k1, k2, p1, p2]), small, small, tiny, tiny),
    st.builds(lambda *k: camera("equidistant", list(k)), small, small, small, small),
    st.builds(
        lambda k1, k2, p1, p2, xi: camera("mei", [k1, k2, p1, p2], xi), small, small, tiny, tiny, st.floats(0, 2)
    ),
)


@given(cameras, st.integers(0, 2**32 - 1))
@example(camera("equidistant", [-0.03003691028263595, -0.055295850042485634, 0.0, 0.0]), 365872)
@settings(max_examples=150)
def test_points_come_back_on_their_ray(cam: Camera, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rays = rng.normal(size=(300, 3))
    rays = (rays / np.linalg.norm(rays, axis=1, keepdims=True)).astype(np.float32)
    uv, inside = cam.project(rays * rng.uniform(0.2, 30, (300, 1)).astype(np.float32))
    # Near the edge of the model's range a pixel says little of the direction: 20 pixels a radian at least, here, to
    # whichever side the direction turns.
    nudges = [cam.project(rays + np.float32(1e-3) * axis)[0].astype(float) - uv for axis in np.eye(3, dtype=np.float32)]
    turns = np.nan_to_num(np.stack(nudges, axis=-1) / 1e-3)  # (N, 2, 3) pixels a radian
    tells = np.linalg.svd(turns, compute_uv=False)[:, 1] > 20
    keep = inside & tells
    assert keep.sum() >= 0.75 * inside.sum()
    np.testing.assert_allclose(cam.unproject(uv[keep]), rays[keep], atol=1e-4)


@given(cameras)
@settings(max_examples=60)
def test_pixels_come_back(cam: Camera) -> None:
    u, v = np.meshgrid(np.arange(0, cam.width, 13), np.arange(0, cam.height, 11))
    uv = np.stack([u, v], axis=-1).reshape(-1, 2).astype(np.float32)
    rays = cam.unproject(uv)
    seen = np.isfinite(rays).all(axis=1)
    assert seen[np.abs(uv - (320, 240)).max(axis=1) < 100].all()
    np.testing.assert_allclose(np.linalg.norm(rays[seen], axis=1), 1, atol=1e-5)
    again, _ = cam.project(rays[seen] * 3.5)
    assert np.nanmax(np.abs(again - uv[seen])) < 0.05


@given(cameras, st.integers(0, 2**32 - 1))
@example(TURNING, 0)
@settings(max_examples=100)
def test_pixels_are_those_of_opencv(cam: Camera, seed: int) -> None:
    cv2 = pytest.importorskip("cv2")
    points = np.random.default_rng(seed).normal(size=(300, 3)) * (3, 3, 2) + (0, 0, 2)
    points = points.astype(np.float32).astype(np.float64)
    uv, inside = cam.project(points.astype(np.float32))
    inside &= (points[:, 2] > 0) | (cam.model == "mei")  # OpenCV's fisheye mirrors what is behind it
    fx, fy, cx, cy = cam.intrinsics
    k, d = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), np.array(cam.distortion or [0.0] * 4)
    still, seen = np.zeros(3), points[inside].reshape(-1, 1, 3)
    if cam.model == "pinhole":
        theirs, _ = cv2.projectPoints(seen, still, still, k, d)
    elif cam.model == "equidistant":
        theirs, _ = cv2.fisheye.projectPoints(seen, still, still, k, d)
    else:
        theirs, _ = cv2.omnidir.projectPoints(seen, still, still, k, cam.xi, d)
    assert inside.sum() > 20
    np.testing.assert_allclose(uv[inside], theirs.reshape(-1, 2), atol=0.01)


def test_directions_beyond_the_turning_point_are_dropped() -> None:
    angle = np.radians(np.arange(0.0, 120.0, 0.1))
    points = np.column_stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)]).astype(np.float32)
    uv, inside = TURNING.project(points)
    assert np.degrees(angle[inside].max()) == pytest.approx(76.9, abs=0.15)
    assert (np.diff(uv[inside, 0]) > 0).all()
    assert np.isnan(uv[np.degrees(angle) > 77]).all()
    # The pixel that no direction reaches has no ray; the image is wider than the lens on this side.
    assert np.isnan(TURNING.unproject(np.array([[1279, 502]], dtype=np.float32))).all()


def test_strong_barrel_distortion_folds_nothing_into_the_image(shared_data: Path) -> None:
    config = json.loads((shared_data / "real/plycal/config.json").read_text())
    k = np.array(config["cam"]["K"])
    cam = Camera(
        model="pinhole",
        intrinsics=(k[0, 0], k[1, 1], k[0, 2], k[1, 2]),
        distortion=config["cam"]["D"],
        width=1920,
        height=1080,
    )
    angle = np.radians(np.arange(0.0, 89.9, 0.1))
    points = np.column_stack([np.sin(angle), np.zeros_like(angle), np.cos(angle)]).astype(np.float32)
    uv, inside = cam.project(points)
    assert (np.diff(uv[np.isfinite(uv[:, 0]), 0]) > 0).all()
    assert 40 < np.degrees(angle[inside].max()) < 60


def test_known_values() -> None:
    pinhole = Camera(model="pinhole", intrinsics=(100, 200, 50, 40), width=101, height=81)
    uv, inside = pinhole.project(np.array([[0.1, 0.1, 1], [0, 0, -1], [5, 0, 1], [np.nan, 0, 1]], dtype=np.float32))
    np.testing.assert_allclose(uv[0], [60, 60], atol=1e-4)
    assert inside.tolist() == [True, False, False, False]
    fisheye = Camera(model="equidistant", intrinsics=(100, 100, 200, 200), width=401, height=401)
    uv, inside = fisheye.project(np.array([[1, 0, 0], [0, 0, 1], [0, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(uv[:2], [[200 + 50 * np.pi, 200], [200, 200]], atol=1e-3)
    assert inside.tolist() == [True, True, False]
    rays = fisheye.unproject(np.array([[200 + 99 * np.pi, 200], [200 + 101 * np.pi, 200]]))
    assert np.isfinite(rays[:, 0]).tolist() == [True, False]
    # xi = 1 is the stereographic projection: radius tan(angle / 2).
    mei = Camera(model="mei", intrinsics=(100, 100, 200, 200), xi=1.0, width=401, height=401)
    uv, _ = mei.project(np.array([[1, 0, 0]], dtype=np.float32))
    np.testing.assert_allclose(uv[0], [300, 200], atol=1e-3)


def test_empty() -> None:
    cam = camera("pinhole", [0.1, 0, 0, 0])
    uv, inside = cam.project(np.zeros((0, 3), dtype=np.float32))
    assert uv.shape == (0, 2) and inside.shape == (0,)
    assert cam.unproject(np.zeros((0, 2), dtype=np.float32)).shape == (0, 3)


@pytest.mark.parametrize(
    "change", [{"distortion": [0.1]}, {"intrinsics": (0, 1, 2, 3)}, {"xi": -1.0}, {"distortion": [float("nan")] * 4}]
)
def test_what_is_not_a_camera_is_an_error(change: dict[str, object]) -> None:
    good = {"model": "pinhole", "intrinsics": (100, 100, 50, 40), "width": 100, "height": 80}
    with pytest.raises(ValidationError):
        Camera(**{**good, **change})

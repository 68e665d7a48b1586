"""Pictures of scans: what they show, and that odd scans do not break them."""

from pathlib import Path

import numpy as np
import pytest
from painted import camera_ahead
from PIL import Image

from cmp_seg_ros.evaluation import plots
from cmp_seg_ros.geometry.projection import upright
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import Labels, Scan

SPACE = LabelSpace.load("structural6")
WALL, FLOOR, CEILING, FLUSH, OBJECT, PERSON = range(6)
CAMERA = camera_ahead(320, 240, 200)


def room() -> tuple[Scan, Labels]:
    """A 16-ring scan of a round room of 4 m radius: wall in front and behind, floor below."""
    azimuth, elevation = np.meshgrid(np.radians(np.arange(-180, 180, 0.5)), np.radians(np.linspace(-30, 15, 16)))
    reach = np.minimum(4 / np.cos(elevation), np.where(elevation < 0, -1.0 / np.sin(np.minimum(elevation, -1e-6)), 99))
    direction = [np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)]
    xyz = (reach * np.stack(direction)).reshape(3, -1).T.astype(np.float32)
    label = np.where(xyz[:, 2] < -0.99, FLOOR, WALL).astype(np.uint8)
    return Scan(xyz, shape=(16, 720)), Labels(label, np.ones(len(xyz), np.float32))


def test_range_image_looks_around_from_left_to_right() -> None:
    scan, labels = room()
    picture, (left, right, bottom, top) = plots.range_image(scan.xyz, labels.label, SPACE)
    assert (left, right) == (180, -180)
    assert bottom == pytest.approx(-31, abs=0.5) and top == pytest.approx(16, abs=0.5)
    assert (picture.any(axis=2)).mean() > 0.9  # the gaps between the rings are filled
    hue = picture / np.maximum(picture.max(axis=2, keepdims=True), 1)
    floor = np.array(SPACE.classes[FLOOR].color) / max(SPACE.classes[FLOOR].color)
    rows = np.abs(hue - floor).max(axis=2) < 0.03
    assert rows[-10].mean() > 0.9 and rows[10].mean() == 0
    # An object to the left is in the left half.
    label = labels.label.copy()
    label[scan.xyz[:, 1] > 3] = OBJECT
    picture, _ = plots.range_image(scan.xyz, label, SPACE)
    red = (picture[..., 0].astype(int) - picture[..., 2]) > 60
    assert red[:, : red.shape[1] // 2].any() and not red[:, red.shape[1] // 2 :].any()


def test_range_image_prefers_the_near_surface() -> None:
    xyz = np.array([[2, 0, 0], [5, 0, 0], [2, 0, 0]], dtype=np.float32)
    picture, _ = plots.range_image(xyz, np.array([WALL, OBJECT, WALL], np.uint8), SPACE)
    row, column = np.argwhere(picture.any(axis=2))[0]
    assert picture[row, column, 2] > picture[row, column, 0]


@pytest.mark.parametrize("length, expected", [(3.3, 2), (5, 5), (0.7, 0.5), (12, 10), (1, 1)])
def test_scales_have_round_lengths(length: float, expected: float) -> None:
    assert plots.round_length(length) == pytest.approx(expected)


def test_overview_with_camera(tmp_path: Path) -> None:
    scan, labels = room()
    image = np.full((240, 320, 3), 200, np.uint8)
    plots.overview(tmp_path / "a" / "overview.png", scan, labels, SPACE, image, CAMERA, title="A room")
    picture = np.asarray(Image.open(tmp_path / "a" / "overview.png"))
    assert picture.shape == (1100, 1400, 4)
    # All colours of the scan are there, most of the page is white.
    for name in (WALL, FLOOR):
        assert (np.abs(picture[..., :3].astype(int) - SPACE.classes[name].color).max(axis=2) < 6).sum() > 300
    assert 0.4 < (picture[..., :3] == 255).all(axis=2).mean() < 0.9


def test_ceiling_is_faint_from_above(tmp_path: Path) -> None:
    scan, labels = room()
    covered = np.concatenate([scan.xyz, scan.xyz + np.float32([0, 0, 9])])
    label = np.concatenate([labels.label, np.full(len(scan), CEILING, np.uint8)])
    plots.overview(tmp_path / "a.png", Scan(covered), Labels(label, np.ones(len(label), np.float32)), SPACE)
    above = np.asarray(Image.open(tmp_path / "a.png"))[100:700, 100:800, :3].astype(int)
    wall = np.abs(above - SPACE.classes[WALL].color).max(axis=2) < 40
    ceiling = np.abs(above - SPACE.classes[CEILING].color).max(axis=2) < 40
    assert wall.sum() > 500 and ceiling.sum() < 50


def test_comparison_counts_what_is_wrong(tmp_path: Path) -> None:
    scan, labels = room()
    truth = labels.label.copy()
    truth[:100] = OBJECT
    truth[200:300] = 255
    plots.comparison(tmp_path / "a.png", scan, labels, truth, SPACE, title="Compared")
    picture = np.asarray(Image.open(tmp_path / "a.png"))[..., :3].astype(int)
    assert (np.abs(picture - plots.WRONG).max(axis=2) < 60).sum() > 50


@pytest.mark.parametrize(
    "xyz",
    [
        np.full((20, 3), np.nan),
        np.zeros((1, 3)),
        np.ones((1, 3)),
        np.array([[1, 2, 3], [np.inf, 0, 0], [1e9, 0, 0]]),
        np.column_stack([np.ones(50), np.zeros(50), np.zeros(50)]),
    ],
)
def test_odd_scans_are_drawn_too(tmp_path: Path, xyz: np.ndarray) -> None:
    scan = Scan(xyz.astype(np.float32))
    label = np.where(scan.valid(), WALL, 255).astype(np.uint8)
    labels = Labels(label, np.ones(len(scan), np.float32))
    image = np.zeros((240, 320, 3), np.uint8)
    plots.overview(tmp_path / "a.png", scan, labels, SPACE, image, CAMERA, title="Odd")
    plots.comparison(tmp_path / "b.png", scan, labels, label, SPACE, title="Odd")
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_upright_turns_points_by_the_mount() -> None:
    upside_down = np.diag([1.0, -1, -1, 1])
    np.testing.assert_allclose(upright(np.float32([[1, 2, 3]]), upside_down), [[1, -2, -3]])
    assert upright(np.float32([[1, 2, 3]]), None).tolist() == [[1, 2, 3]]

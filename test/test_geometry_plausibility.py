"""Units and axes of points are judged, and rooms raise no doubt."""

from pathlib import Path

import golden
import numpy as np
import pytest

from cmp_seg_ros.datasets import open_input
from cmp_seg_ros.geometry.plausibility import doubts
from cmp_seg_ros.waffleiron.preprocess import voxelise

SCANS = [scan.xyz for scan, _, _ in golden.scans()]
TO_OPTICAL = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]])  # x forward, z up to z forward, y down


def judged(
    xyz: np.ndarray, frame_id: str = "lidar", mount_known: bool = False, voxel_size: float = 0.1
) -> dict[str, str]:
    xyz = np.asarray(xyz, np.float32)
    valid = np.isfinite(xyz).all(axis=1) & (xyz != 0).any(axis=1)
    voxels = len(voxelise(xyz[valid], voxel_size))
    return {doubt.kind: doubt.text for doubt in doubts(xyz, frame_id, voxels, voxel_size, mount_known)}


@pytest.mark.parametrize("xyz", SCANS, ids=golden.SENSORS)
def test_rooms_raise_no_doubt(xyz: np.ndarray) -> None:
    """Nor do they on their heads, thinned, at coarser voxels, or in large halls."""
    assert judged(xyz) == {}
    assert judged(xyz * [1, -1, -1]) == judged(xyz[::7]) == judged(xyz, voxel_size=0.2) == judged(2 * xyz) == {}


@pytest.mark.filterwarnings("error")
def test_signalling_nan_is_no_return() -> None:
    xyz = SCANS[0].copy()
    xyz[::3] = np.array(0x7F800001, np.uint32).view(np.float32)
    assert judged(xyz) == {}


@pytest.mark.parametrize("xyz", SCANS, ids=golden.SENSORS)
@pytest.mark.parametrize(
    ("scale", "says"),
    [(0.001, "look like kilometres"), (0.05, ""), (100, "centimetres"), (1000, "millimetres"), (1e6, "not metres")],
)
def test_other_units_than_metres(xyz: np.ndarray, scale: float, says: str) -> None:
    found = judged(xyz * scale)
    assert list(found) == ["scale"] and says in found["scale"] and "give points in metres" in found["scale"]


@pytest.mark.parametrize("xyz", SCANS, ids=golden.SENSORS)
def test_beams_that_turn_about_another_axis(xyz: np.ndarray) -> None:
    optical = judged(xyz @ TO_OPTICAL.T)
    assert list(optical) == ["axes"]
    assert "turn about y, not z, as in a camera's optical frame" in optical["axes"]
    assert "T_base_lidar" in optical["axes"] and "[[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0]" in optical["axes"]
    assert "turn about x" in judged(xyz[:, [2, 1, 0]])["axes"]
    assert judged(xyz @ TO_OPTICAL.T, mount_known=True) == {}
    assert "frame 'Lidar_Optical' is named as a camera's" in judged(xyz, "Lidar_Optical")["axes"]


def test_the_rotation_that_is_offered_turns_an_optical_frame_upright() -> None:
    (text,) = judged(SCANS[0] @ TO_OPTICAL.T).values()
    T_base_lidar = np.array(eval(text[text.index("[[") :]))
    np.testing.assert_array_equal(T_base_lidar[:3, :3] @ TO_OPTICAL, np.eye(3))


def test_what_tells_nothing_raises_no_doubt() -> None:
    random = np.random.default_rng(0)
    for xyz in (
        random.uniform(-5, 5, (5000, 3)),
        random.normal([6, 0, 0], size=(5000, 3)),
        np.full((5000, 3), np.nan),
        np.zeros((5000, 3)),
        np.zeros((0, 3)),
        SCANS[0][:100] / 1000,
    ):
        assert judged(xyz) == {}


def test_real_scans_raise_no_doubt(shared_data: Path) -> None:
    for name in ("plycal", "nebula_xt32/scan.pcd", "nebula_vlp16/scan.pcd", "nebula_more", "acfr_ouster64/pose1.pcd"):
        for frame in open_input(shared_data / "real" / name):
            assert judged(frame.scan.xyz) == {}, name

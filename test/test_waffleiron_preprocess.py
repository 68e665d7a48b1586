"""From points to the network's input, against the published pipeline and against plain definitions."""

from pathlib import Path

import numpy as np
import pytest

from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import nearest_voxel, prepare

DATA = Path(__file__).parent / "data"  # inputs, weights and outputs of the published modules, at tiny sizes

CONFIG = PreprocessConfig(fov_min=(-8, -8, -2), fov_max=(8, 8, 2), grids=[(16, 16), (16, 4), (16, 4)])


@pytest.mark.parametrize("sample", [0, 1])
def test_pipeline_of_the_reference(sample: int) -> None:
    golden = np.load(DATA / "wi_preprocess.npz")
    raw, count = golden[f"raw{sample}"].astype(np.float32), int(golden[f"n{sample}"])
    config = PreprocessConfig(
        voxel_size=float(golden["voxel_size"]),
        fov_min=tuple(golden["fov"][0].tolist()),
        fov_max=tuple(golden["fov"][1].tolist()),
        grids=[(int(h), int(w)) for h, w in golden["grids"]],
    )
    xyz = np.ascontiguousarray(raw[:, :3])
    voxels, grid = prepare(xyz, raw[:, 3], config)
    assert len(voxels) == count and grid is not None
    np.testing.assert_allclose(voxels.features.T, golden["feat"][sample][:, :count], atol=1e-6)
    np.testing.assert_array_equal(voxels.cells, golden["cell_ind"][sample][:, :count])
    np.testing.assert_array_equal(nearest_voxel(xyz, grid), golden[f"upsample{sample}"])
    published = golden["neighbors_emb"][sample]
    np.testing.assert_array_equal(
        published[0, :count], np.arange(count)
    )  # row 0 is the point itself; ours leaves it out
    np.testing.assert_array_equal(np.sort(voxels.neighbours, 1), np.sort(published[1:, :count].T, 1))


def test_cells_count_from_the_corner_of_the_view() -> None:
    xyz = np.array([[-7.9, -7.9, -1.9], [7.9, 7.9, 1.9], [0.1, -0.1, 0.1]], dtype=np.float32)
    voxels, _ = prepare(xyz, np.zeros(3, np.float32), CONFIG)
    by_point = dict(zip(voxels.points.tolist(), voxels.cells.T.tolist(), strict=True))
    assert by_point[0] == [0, 0, 0]
    assert by_point[1] == [255, 63, 63]
    assert by_point[2] == [8 * 16 + 7, 8 * 4 + 2, 7 * 4 + 2]


def test_every_feature() -> None:
    xyz = np.array([[3.0, 4.0, 0.0], [0.0, 3.0, 1.5]], dtype=np.float32)
    config = CONFIG.model_copy(update={"features": ["constant", "height", "radius", "xyz", "intensity"]})
    assert config.inputs == 7
    voxels, _ = prepare(xyz, np.array([7.0, 9.0], np.float32), config)
    radius = np.float32(np.sqrt(3.0**2 + 1.5**2))
    rows = {0: [1, 0, 5, 3, 4, 0, 7], 1: [1, 1.5, radius, 0, 3, 1.5, 9]}
    for point, row in zip(voxels.points, voxels.features, strict=True):
        np.testing.assert_allclose(row, rows[int(point)], rtol=1e-6)


def test_points_outside_the_view_are_answered_by_the_nearest_inside() -> None:
    xyz = np.array([[1, 1, 0], [7, 7, 0], [50, 50, 0], [1, 1, 9]], dtype=np.float32)
    voxels, grid = prepare(xyz, np.zeros(4, np.float32), CONFIG)
    assert grid is not None
    assert sorted(voxels.points.tolist()) == [0, 1]
    assert voxels.points[nearest_voxel(xyz, grid)].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("xyz", [np.empty((0, 3)), np.full((5, 3), 100.0), np.array([[8.0, 0, 0], [0, 0, -2.0]])])
def test_no_point_in_view_gives_no_voxels(xyz: np.ndarray) -> None:
    voxels, grid = prepare(xyz.astype(np.float32), np.zeros(len(xyz), np.float32), CONFIG)
    assert len(voxels) == 0 and grid is None
    assert voxels.neighbours.shape == (0, 16) and voxels.cells.shape == (3, 0) and voxels.features.shape == (0, 5)


@pytest.mark.parametrize(
    "fields",
    [
        {"grids": [(16, 16)]},
        {"fov_min": (-8, 8, -2)},
        {"fov_max": (8, 8, float("inf"))},
        {"voxel_size": 0},
        {"neighbours": 0},
        {"grids": [(16, 16), (16, 4), (16, 0)]},
        {"features": ["colour"]},
    ],
)
def test_nonsense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        PreprocessConfig.model_validate(CONFIG.model_dump() | fields)

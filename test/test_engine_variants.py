"""The CPU engine and the exported graph against the reference: every variant, every size, odd views and features."""

from typing import Any

import numpy as np
import pytest
import test_engine_cpu
import test_graph
from engines import VARIANTS, MakeBundle, preprocess_with, voxels_of

from cmp_seg_ros.waffleiron.preprocess import prepare

check = pytest.mark.parametrize("check", [test_engine_cpu.check, test_graph.check], ids=["cpu", "graph"])


@check
@pytest.mark.parametrize("fields", VARIANTS)
def test_every_variant(make_bundle: MakeBundle, check: Any, fields: dict[str, Any]) -> None:
    check(make_bundle(**fields), voxels_of(2000))


@check
@pytest.mark.parametrize(("width", "depth", "outputs"), [(1, 1, 1), (16, 2, 3), (64, 3, 6), (100, 5, 20), (130, 2, 70)])
def test_every_width_and_depth(make_bundle: MakeBundle, check: Any, width: int, depth: int, outputs: int) -> None:
    check(make_bundle(width=width, depth=depth, outputs=outputs), voxels_of(700))


@check
@pytest.mark.parametrize("points", [1, 2, 3, 16, 17, 48, 49, 97, 300])
def test_every_size(make_bundle: MakeBundle, check: Any, points: int) -> None:
    check(make_bundle(), voxels_of(points))


@check
@pytest.mark.parametrize("neighbours", [1, 3, 4, 5, 7, 48, 60])
def test_every_number_of_neighbours(make_bundle: MakeBundle, check: Any, neighbours: int) -> None:
    preprocess = preprocess_with(neighbours=neighbours)
    check(make_bundle(preprocess), voxels_of(300, preprocess))


@check
def test_other_features_and_planes(make_bundle: MakeBundle, check: Any) -> None:
    features = ["intensity", "xyz", "radius", "height", "constant"]
    preprocess = preprocess_with(features=features, planes=["yz", "xy"], grids=[(41, 9), (37, 43)])
    check(make_bundle(preprocess, planes=2, depth=5), voxels_of(800, preprocess))


@check
def test_the_border_of_the_grid_stays_a_border(make_bundle: MakeBundle, check: Any) -> None:
    """A view smaller than the room: cells along all four borders are occupied, and filters must not look beyond."""
    preprocess = preprocess_with(fov_min=(-2, -2, -1), fov_max=(2, 2, 1), grids=[(8, 8), (8, 4), (8, 4)])
    random = np.random.default_rng(0)
    xyz = random.uniform(-3, 3, (3000, 3)).astype(np.float32)
    voxels = prepare(xyz, random.random(3000).astype(np.float32), preprocess)[0]
    assert {0, 7} <= set((voxels.cells[0] // 8).tolist())
    check(make_bundle(preprocess), voxels)

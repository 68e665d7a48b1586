"""Voxels and nearest neighbours of our own kernels against numpy and scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from cmp_seg_ros.kernels import search
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.preprocess import FAR, voxelise


def cloud(kind: str, points: int, seed: int) -> Float32:
    """Clouds that are hard on a grid: sparse rings, a thin wall, clusters far apart, one place."""
    random = np.random.default_rng(seed)
    if kind == "rings":
        angle = random.uniform(-np.pi, np.pi, points)
        xyz = np.stack([np.cos(angle), np.sin(angle), 0.3 * random.integers(-3, 4, points)], 1)
        xyz *= random.uniform(1, 12, (points, 1))
    elif kind == "wall":
        xyz = random.uniform([0, 2, -1], [9, 2.02, 1.5], (points, 3))
    elif kind == "clusters":
        xyz = random.choice([-90.0, 0.0, 70.0], (points, 3)) + random.normal(0, 0.2, (points, 3))
    else:
        xyz = random.normal(0, 1e-3, (points, 3))
    return xyz.astype(np.float32)


KINDS = st.sampled_from(["rings", "wall", "clusters", "one place"])


@given(
    KINDS, st.integers(2, 700), st.integers(0, 1000), st.sampled_from([1, 5, 16]), st.sampled_from([0.02, 0.3, 50.0])
)
@settings(max_examples=60)
def test_nearest_others_are_those_of_a_tree(kind: str, points: int, seed: int, count: int, size: float) -> None:
    xyz = cloud(kind, points, seed)
    found = search.nearest_others(search.build(xyz, size), count)
    real = min(count, points - 1)
    expected = cKDTree(xyz).query(xyz, k=range(2, real + 2))[0]
    distance = np.linalg.norm(xyz[found[:, :real]].astype(np.float64) - xyz[:, None].astype(np.float64), axis=2)
    np.testing.assert_allclose(distance, expected, rtol=1e-12)
    np.testing.assert_array_equal(found[:, real:], np.repeat(np.arange(points)[:, None], count - real, 1))
    for row, neighbours in enumerate(found[:, :real]):
        assert row not in neighbours and len(set(neighbours)) == real


@given(KINDS, st.integers(1, 300), st.integers(0, 1000), st.sampled_from([0.02, 0.3, 50.0]))
@settings(max_examples=40)
def test_nearest_is_that_of_a_tree(kind: str, points: int, seed: int, size: float) -> None:
    """For queries among the points, beside them and far outside their box."""
    xyz = cloud(kind, points, seed)
    random = np.random.default_rng(seed)
    queries = np.concatenate([xyz, xyz + random.normal(0, 0.5, xyz.shape), random.uniform(-500, 500, (50, 3))])
    queries = queries.astype(np.float32)
    found = search.nearest(search.build(xyz, size), queries)
    distance = np.linalg.norm(xyz[found].astype(np.float64) - queries.astype(np.float64), axis=1)
    np.testing.assert_allclose(distance, cKDTree(xyz).query(queries)[0], rtol=1e-12)


def test_duplicates_are_neighbours_of_each_other() -> None:
    xyz = np.zeros((4, 3), np.float32)
    xyz[3] = 1
    found = search.nearest_others(search.build(xyz, 0.3), 2)
    assert {tuple(sorted(row)) for row in found[:3].tolist()} == {(1, 2), (0, 2), (0, 1)}


def test_among_equals_the_answer_does_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points and queries on a lattice: almost every query has several nearest points."""
    lattice = np.stack(np.meshgrid(*[np.arange(12.0)] * 3), -1).reshape(-1, 3).astype(np.float32)
    queries = np.random.default_rng(0).permutation(np.concatenate([lattice + 0.5, lattice]))
    answers = []
    for threads in ("1", "4"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        grid = search.build(lattice, 2.5)
        answers.append((search.nearest(grid, queries), search.nearest_others(grid, 9)))
    np.testing.assert_array_equal(answers[0][0], answers[1][0])
    np.testing.assert_array_equal(answers[0][1], answers[1][1])
    np.testing.assert_array_equal(search.nearest(grid, queries[::-1])[::-1], answers[0][0])
    sorted_lattice = lattice[grid.order]
    square = ((queries[:, None] - sorted_lattice[None]) ** 2).sum(axis=2)
    np.testing.assert_array_equal(answers[0][0], grid.order[square.argmin(axis=1)])  # the first in the grid
    square = ((lattice[:, None] - sorted_lattice[None]) ** 2).sum(axis=2)
    square[grid.order, np.arange(len(lattice))] = np.inf
    np.testing.assert_array_equal(answers[0][1], grid.order[square.argsort(axis=1, kind="stable")[:, :9]])


def test_a_query_at_the_end_of_the_world() -> None:
    xyz = cloud("rings", 200, 0)
    queries = np.array([[1e30, 0, 0], [0, -3e38, 0], [1e12, 1e12, 1e12]], np.float32)
    assert (search.nearest(search.build(xyz, 0.3), queries) < 200).all()


@given(KINDS, st.integers(1, 500), st.integers(0, 1000), st.sampled_from([0.01, 0.1, 3.0, 1000.0]))
@settings(max_examples=60)
def test_voxels_are_those_of_unique_rows(kind: str, points: int, seed: int, size: float) -> None:
    """Also where their keys take all passes of the sort, and beside a point that is no measurement."""
    xyz = cloud(kind, points, seed)
    steps = ((xyz - xyz.min(axis=0)) / np.float32(size)).astype(np.int64)
    expected = np.unique(steps, axis=0, return_index=True)[1]
    np.testing.assert_array_equal(voxelise(xyz, size), expected)
    wild = np.insert(xyz, points // 2, [0, 0, 2 * FAR], axis=0)
    np.testing.assert_array_equal(voxelise(wild, size), expected + (expected >= points // 2))


@given(KINDS, st.integers(1, 500), st.integers(0, 1000), st.sampled_from([0.01, 0.1, 3.0]))
@settings(max_examples=60)
def test_anchored_voxels_are_those_of_unique_rows_and_hold_whatever_else_is_there(
    kind: str, points: int, seed: int, size: float
) -> None:
    xyz = cloud(kind, points, seed)
    steps = np.floor(xyz / np.float32(size)).astype(np.int64)
    expected = np.unique(steps, axis=0, return_index=True)[1]
    np.testing.assert_array_equal(voxelise(xyz, size, anchored=True), expected)
    stray = np.append(xyz, [[-987.654, 321.0, 765.4]], axis=0).astype(np.float32)
    np.testing.assert_array_equal(np.sort(voxelise(stray, size, anchored=True)), np.sort(np.append(expected, points)))


def test_millimetre_voxels_over_the_whole_reach() -> None:
    random = np.random.default_rng(0)
    xyz = random.uniform(-FAR, FAR, (3000, 3)).astype(np.float32)
    assert len(voxelise(xyz, 0.001)) == 3000
    assert len(voxelise(np.repeat(xyz, 2, axis=0), 0.001)) == 3000

"""The simulated world: geometry against analytic truth, sensors against their tables, determinism."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation import materials as m
from cmp_seg_ros.simulation.building import make_building
from cmp_seg_ros.simulation.generate import rotation, scans_in
from cmp_seg_ros.simulation.lidar import NO_NOISE, Lidar, Noise, fixed_pose, sensor_names, sweep
from cmp_seg_ros.simulation.mesh import Material, Shape, class_id
from cmp_seg_ros.simulation.raycast import Scene, cast_all
from cmp_seg_ros.simulation.trajectory import CARRIERS, FreeSpace, Kind, plan

LOW, HIGH = np.array([-3.0, -4.0, 0.0]), np.array([5.0, 2.0, 2.7])
PLASTER = Material((0.9, 0.9, 0.9), 0.9)


def box_room(walls: Material = PLASTER) -> Shape:
    """A bare room from LOW to HIGH."""
    shape = Shape()
    (x0, y0, z0), (x1, y1, z1) = LOW, HIGH
    shape.quad((x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0), "floor", PLASTER)
    shape.quad((x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1), "ceiling", PLASTER)
    for a, b in (((x0, y0), (x1, y0)), ((x1, y0), (x1, y1)), ((x1, y1), (x0, y1)), ((x0, y1), (x0, y0))):
        shape.quad((*a, z0), (*b, z0), (*b, z1), (*a, z1), "wall", walls)
    return shape


def pose(x: float, y: float, z: float, roll: float = 0.0, pitch: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    T = rotation(roll, pitch, yaw)
    T[:3, 3] = x, y, z
    return T


@pytest.mark.parametrize("sensor", sensor_names())
def test_range_is_the_distance_to_the_analytic_wall(sensor: str) -> None:
    lidar, T = Lidar.load(sensor), pose(0.7, -0.4, 1.1, 0.1, -0.05, 2.0)
    result = sweep(lidar, [Scene(box_room().finish())], fixed_pose(T), np.random.default_rng(0), NO_NOISE)
    directions = lidar.directions.reshape(-1, 3).astype(np.float64) @ T[:3, :3].T
    origins = lidar.offsets.reshape(-1, 3).astype(np.float64) @ T[:3, :3].T + T[:3, 3]
    with np.errstate(divide="ignore"):
        exits = np.maximum((LOW - origins) / directions, (HIGH - origins) / directions)
    distance, axis = exits.min(axis=1), exits.argmin(axis=1)
    valid = result.scan.valid()
    assert valid.mean() > 0.97
    np.testing.assert_allclose(result.range[valid], distance[valid], atol=1e-4)
    local = result.scan.xyz - lidar.offsets.reshape(-1, 3)
    np.testing.assert_allclose(np.linalg.norm(local[valid], axis=1), distance[valid], atol=1e-4)
    expected = np.where(
        axis < 2, class_id("wall"), np.where(directions[:, 2] < 0, class_id("floor"), class_id("ceiling"))
    )
    corner = np.sort(exits, axis=1)[:, 1] - distance < 1e-3
    np.testing.assert_array_equal(result.label[valid & ~corner], expected[valid & ~corner])
    assert (result.label[~valid] == UNLABELLED).all()


def test_every_hit_lies_in_the_triangle_it_names() -> None:
    building = make_building(4)
    scene, rng = Scene(building.mesh), np.random.default_rng(1)
    origins = np.tile([*building.free_places(rng, 1)[0], 1.2], (4000, 1)).astype(np.float32)
    directions = rng.normal(size=(4000, 3)).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    hits = scene.cast(origins, directions)
    rows = np.flatnonzero(hits.hit)
    assert len(rows) > 3000
    points = origins[rows] + hits.distance[rows, None] * directions[rows]
    a, b, c = building.mesh.triangles[hits.triangle[rows]].transpose(1, 0, 2).astype(np.float64)
    whole = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    parts = sum(np.linalg.norm(np.cross(p - points, q - points), axis=1) for p, q in ((a, b), (b, c), (c, a)))
    assert np.abs(parts - whole).max() < 1e-2 * max(1.0, whole.max())
    np.testing.assert_array_equal(hits.label[rows], building.mesh.label[hits.triangle[rows]])
    assert ((hits.normal[rows] * directions[rows]).sum(axis=1) < 0).all()


def test_several_scenes_give_the_nearest_hit() -> None:
    block = Shape()
    block.box((2, 0, 1), (0.5, 0.5, 0.5), "table", PLASTER)
    room, block_scene = Scene(box_room().finish()), Scene(block.finish())
    origins = np.zeros((2, 3), np.float32) + np.float32([0, 0, 1])
    directions = np.float32([[1, 0, 0], [-1, 0, 0]])
    hits = cast_all([room, block_scene], origins, directions)
    np.testing.assert_allclose(hits.distance, [1.75, 3.0], atol=1e-5)
    assert hits.label.tolist() == [class_id("table"), class_id("wall")]
    assert hits.triangle[0] >= len(room.mesh) > hits.triangle[1]


@pytest.mark.parametrize("sensor", [name for name in sensor_names() if Lidar.load(name).rosette is None])
def test_elevations_of_the_beams_are_those_of_the_table(sensor: str) -> None:
    lidar = Lidar.load(sensor)
    assert lidar.shape == (len(lidar.altitudes), lidar.columns)
    noise = Noise(1.0, 0.0, 0.0, 0.0, 0.0)
    result = sweep(lidar, [Scene(box_room().finish())], fixed_pose(pose(0, 0, 1)), np.random.default_rng(0), noise)
    local = result.scan.xyz - lidar.offsets.reshape(-1, 3)
    valid = result.scan.valid()
    elevation = np.degrees(np.arcsin(local[valid, 2] / np.linalg.norm(local[valid], axis=1)))
    measured = [np.median(elevation[result.ring[valid] == ring]) for ring in range(lidar.beams)]
    np.testing.assert_allclose(measured, lidar.altitudes, atol=0.01)
    assert result.scan.time is not None
    assert 0 <= result.scan.time.min() < result.scan.time.max() < 1 / lidar.rate


def test_an_ouster_image_is_free_of_stagger() -> None:
    lidar = Lidar.load("os0-128")
    azimuth = np.arctan2(lidar.directions[..., 1], lidar.directions[..., 0])
    spread = np.angle(np.exp(1j * (azimuth - azimuth[:1])))
    assert np.abs(np.degrees(spread)).max() < 360 / lidar.columns + 0.01
    assert sorted(lidar.firing[0].tolist()) == list(range(lidar.columns))


def test_range_noise_has_the_sensors_spread() -> None:
    lidar, scene = Lidar.load("os1-16"), [Scene(box_room().finish())]
    exact = sweep(lidar, scene, fixed_pose(pose(0, 0, 1)), np.random.default_rng(0), NO_NOISE)
    noise = Noise(1.0, 0.0, 0.01, 0.0, 0.0)
    noisy = sweep(lidar, scene, fixed_pose(pose(0, 0, 1)), np.random.default_rng(0), noise)
    both = (exact.range > 0) & (noisy.range > 0)
    assert np.std((noisy.range - exact.range)[both]) == pytest.approx(lidar.range_noise, rel=0.1)
    assert 1 - noisy.scan.valid().mean() == pytest.approx(0.01, abs=0.01)
    steps = noisy.range[both].astype(np.float64) / lidar.range_resolution
    np.testing.assert_allclose(steps, np.round(steps), atol=0.01)


def test_points_move_with_the_sensor_during_the_sweep() -> None:
    lidar, scene = Lidar.load("os1-16"), [Scene(box_room().finish())]

    def driving(times: np.ndarray) -> np.ndarray:
        poses = np.tile(pose(0, 0, 1), (len(times), 1, 1))
        poses[:, 0, 3] = 2.0 * times
        return poses

    result = sweep(lidar, scene, driving, np.random.default_rng(0), NO_NOISE)
    assert result.scan.time is not None
    ahead = (result.scan.xyz[:, 0] > 2) & (np.abs(result.scan.xyz[:, 1]) < 1) & (result.label == class_id("wall"))
    wall = result.scan.xyz[ahead, 0] + 2.0 * result.scan.time[ahead]
    np.testing.assert_allclose(wall, HIGH[0], atol=1e-3)
    assert np.ptp(result.scan.xyz[ahead, 0]) > 0.01


def test_glass_lets_most_pulses_through_and_mirrors_show_ghosts_without_truth() -> None:
    lidar = Lidar.load("vlp-16")
    behind = Shape()
    behind.slab((-10, -10, -5), (12, 10, 8), "clutter", PLASTER)
    rng = np.random.default_rng(0)
    glazed = [Scene(box_room(m.GLASS).finish()), Scene(behind.finish())]
    result = sweep(lidar, glazed, fixed_pose(pose(0, 0, 1)), rng, NO_NOISE)
    shares = np.bincount(result.label, minlength=256) / len(result.label)
    assert shares[class_id("clutter")] > 0.6
    assert shares[class_id("wall")] > 0.01
    mirrored = sweep(lidar, [Scene(box_room(m.MIRROR).finish())], fixed_pose(pose(0, 0, 1)), rng, NO_NOISE)
    ghosts = mirrored.scan.valid() & (mirrored.label == UNLABELLED)
    assert ghosts.mean() > 0.1
    world = mirrored.scan.xyz + np.array([0, 0, 1])
    outside = (world > HIGH + 1e-3) | (world < LOW - 1e-3)
    assert outside[ghosts].any(axis=1).mean() > 0.99


def test_floor_ceiling_and_walls_are_where_and_how_they_should_be() -> None:
    for seed in range(6):
        building = make_building(seed)
        rng = np.random.default_rng(seed)
        scene = Scene(building.mesh)
        for x, y in building.free_places(rng, 3):
            room = building.room_at(x, y)
            assert room is not None
            directions = rng.normal(size=(3000, 3)).astype(np.float32)
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            origins = np.tile([x, y, 1.0], (3000, 1)).astype(np.float32)
            hits = scene.cast(origins, directions)
            z = 1.0 + hits.distance * directions[:, 2]
            floor, wall = hits.label == class_id("floor"), hits.label == class_id("wall")
            assert (z[floor] < 0.02).all()
            assert (hits.normal[floor & (z < 0.0005) & (z > -0.0005), 2] > 0.99).all()
            assert (np.abs(hits.normal[wall, 2]) < 0.05).mean() > 0.9  # the rest are lintels
            ceiling = hits.label == class_id("ceiling")
            assert (z[ceiling] > 0.99).all()
            assert np.median(z[ceiling]) > 2.0 if ceiling.any() else True


@settings(max_examples=12)
@given(st.integers(0, 2**40))
def test_any_seed_makes_a_sound_building(seed: int) -> None:
    building = make_building(seed)
    mesh = building.mesh
    assert np.isfinite(mesh.triangles).all()
    assert mesh.label.max() < 20
    assert mesh.material.max() < len(mesh.materials)
    assert min(room.height for room in building.plan.rooms) >= 2.2
    for room in building.plan.rooms:
        assert min(room.size) > 0.5
        for openings in room.openings.values():
            ordered = sorted(openings, key=lambda o: o.low)
            assert all(a.high <= b.low for a, b in pairwise(ordered))
            assert all(o.top < room.height for o in openings)
    rects = building.obstacles
    overlap = (rects[:, None, 2:] - 1e-6 > rects[None, :, :2]) & (rects[:, None, :2] < rects[None, :, 2:] - 1e-6)
    np.fill_diagonal(overlap[..., 0], False)
    assert not overlap.all(axis=2).any(), "furniture stands in furniture"


def test_the_same_seed_gives_the_same_bytes() -> None:
    first, second = (list(scans_in(make_building(11), 3)) for _ in range(2))
    other = list(scans_in(make_building(12), 3))
    for (a, label_a, T_a), (b, label_b, T_b) in zip(first, second, strict=True):
        assert a.xyz.tobytes() == b.xyz.tobytes()
        assert a.intensity is not None and b.intensity is not None and a.time is not None and b.time is not None
        assert a.intensity.tobytes() == b.intensity.tobytes()
        assert a.time.tobytes() == b.time.tobytes()
        assert label_a.tobytes() == label_b.tobytes()
        assert T_a.tobytes() == T_b.tobytes()
    assert first[0][0].xyz.tobytes() != other[0][0].xyz.tobytes()


def test_every_class_occurs_and_scans_are_well_formed() -> None:
    structural6, indoor = LabelSpace.load("structural6"), LabelSpace.load("indoor")
    seen, fine = np.zeros(256), np.zeros(256, dtype=int)
    for seed in range(20, 28):
        for scan, label, T in scans_in(make_building(seed), 3):
            assert label.dtype == np.uint8 and label.shape == (len(scan),)
            assert (label[~scan.valid()] == UNLABELLED).all()
            assert scan.valid().mean() > 0.3
            assert np.isfinite(scan.xyz).all()
            assert np.allclose(T[:3, :3] @ T[:3, :3].T, np.eye(3))
            fine += np.bincount(label, minlength=256)
            found = np.bincount(structural6.id_map(indoor)[label], minlength=256)
            seen += found / found[structural6.ids].sum()  # a scan of 128 beams weighs no more than one of 16
    shares = seen[structural6.ids] / seen[structural6.ids].sum()
    assert (shares > 0.005).all(), dict(zip(structural6.names, shares, strict=True))
    assert (fine[indoor.ids] > 0).sum() >= 18


def test_the_returned_mount_levels_the_scan() -> None:
    """After the rotation of T_base_lidar the floor lies below and level, up to the robot's own lean."""
    leans = []
    for seed in range(40, 48):
        for scan, label, T in scans_in(make_building(seed), 2, "os1-64"):
            floor = scan.xyz[label == class_id("floor")] @ T[:3, :3].T
            if len(floor) < 500:
                continue
            assert np.median(floor[:, 2]) < 0
            _, _, axes = np.linalg.svd(floor - floor.mean(axis=0), full_matrices=False)
            leans.append(np.degrees(np.arccos(min(1.0, abs(axes[2, 2])))))
    assert len(leans) > 5
    assert np.median(leans) < 4
    assert max(leans) < 25


def test_the_way_is_clear_and_gentle() -> None:
    for seed in (3, 12, 14):
        building = make_building(seed)
        way = plan(building, np.random.default_rng(seed), 20.0)
        assert way.duration >= 20
        times = np.linspace(0, 20, 400)
        poses = way.pose(times)
        assert FreeSpace(building).clear(poses[:, :2, 3]).min() > 0.2
        steps = np.linalg.norm(np.diff(poses[:, :2, 3], axis=0), axis=1) / np.diff(times)
        assert steps.max() < 1.0
        assert np.linalg.norm(poses[-1, :2, 3] - poses[0, :2, 3]) + steps.mean() > 0.1
        linear, angular = way.velocity(7.0)
        moved = (np.linalg.inv(way.pose(np.array([6.995]))[0]) @ way.pose(np.array([7.005]))[0])[:3, 3] / 0.01
        np.testing.assert_allclose(linear, moved, atol=0.05)
        assert np.abs(angular).max() < 1.5


@pytest.mark.parametrize("motion", ["handheld", "flying"])
def test_other_carriers_sway(motion: Kind) -> None:
    building = make_building(5)
    poses = plan(building, np.random.default_rng(0), 40.0, motion).pose(np.linspace(0, 40, 800))
    _, pitch, roll = Rotation.from_matrix(poses[:, :3, :3]).as_euler("ZYX", degrees=True).T
    for angle in (pitch, roll):
        assert 8 < np.abs(angle).max() <= 15.01
    lidar = poses[:, 2, 3] + CARRIERS[motion].mount
    assert lidar.min() > 0.29
    assert np.ptp(lidar) > (0.3 if motion == "handheld" else 0.8)
    up = Scene(building.mesh).cast(
        np.column_stack([poses[:, :2, 3], lidar]).astype(np.float32), np.tile(np.float32([0, 0, 1]), (800, 1))
    )
    assert up.distance.min() > 0.2


def test_an_unknown_or_broken_sensor_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no sensor 'os1-17': neither a file nor one of .*os1-16"):
        Lidar.load("os1-17")
    broken = tmp_path / "broken.yaml"
    text = Lidar.load("vlp-16").model_copy(update={"azimuths": [0.0]}).model_dump_json()
    broken.write_text(text)
    with pytest.raises(UserError, match=r"broken\.yaml.*16 altitudes but 1 azimuths"):
        Lidar.load(broken)
    with pytest.raises(UserError, match=r"absent\.yaml': neither a file"):
        Lidar.load(tmp_path / "absent.yaml")

"""Furnished scenes: a little one made here, and the small house where it is at hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import UNLABELLED
from cmp_seg_ros.simulation.generate import scans_in, views_in
from cmp_seg_ros.simulation.mesh import class_id
from cmp_seg_ros.simulation.raycast import Scene
from cmp_seg_ros.simulation.rig import Rig, RigConfig
from cmp_seg_ros.simulation.rig_camera import RigCamera, load_camera
from cmp_seg_ros.simulation.scene_folder import ModelTable, load_scene, rectangles
from cmp_seg_ros.simulation.texture import TexturedMesh, barycentric

trimesh = pytest.importorskip("trimesh")

HEIGHT = 2.8  # of the little scene's walls
RED, BLUE = (200, 30, 30), (30, 30, 200)


def box(low: tuple[float, ...], high: tuple[float, ...]) -> Any:
    mesh = trimesh.creation.box(bounds=[low, high])
    mesh.unmerge_vertices()
    return mesh


@pytest.fixture
def little(tmp_path: Path) -> Path:
    """A room of 6 m x 4 m with a beam, a table in it, and a half red, half blue floor that reaches beyond the walls."""
    (tmp_path / "models").mkdir()
    sides = [((-3.2, -2.2), (3.2, -2)), ((-3.2, 2), (3.2, 2.2)), ((-3.2, -2), (-3, 2)), ((3, -2), (3.2, 2))]
    walls = [box((*low, 0), (*high, HEIGHT)) for low, high in sides]
    beam = box((-0.2, -1.9, HEIGHT - 0.3), (0.2, 1.9, HEIGHT))
    floor = trimesh.Trimesh([[-5, -5, 0], [5, -5, 0], [5, 5, 0], [-5, 5, 0]], [[0, 1, 2], [0, 2, 3]], process=False)
    from PIL import Image

    halves = np.empty((8, 8, 3), np.uint8)
    halves[:, :4], halves[:, 4:] = RED, BLUE
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(halves))
    floor.visual = trimesh.visual.TextureVisuals(uv=[[0, 0], [1, 0], [1, 1], [0, 1]], material=material)
    models = {
        "x_RoomWallB_01": trimesh.util.concatenate([*walls, beam]),
        "x_Floor_01": floor,
        "x_TableA_02": box((-0.5, -0.3, 0), (0.5, 0.3, 0.7)),
    }
    places = {"x_TableA_02": [2.0, -1.0, 0.0]}
    items = []
    for name, mesh in models.items():
        mesh.export(tmp_path / "models" / f"{name}.glb")
        T = np.eye(4)
        T[:3, 3] = places.get(name, [0, 0, 0])
        items.append({"name": name, "model": name, "T_world_model": T.tolist()})
    (tmp_path / "world.yaml").write_text(yaml.safe_dump({"items": items}))
    return tmp_path


def change(folder: Path, change_items: Any) -> Path:
    world = yaml.safe_load((folder / "world.yaml").read_text())
    change_items(world["items"])
    (folder / "world.yaml").write_text(yaml.safe_dump(world))
    return folder


def test_a_scene_is_a_building_with_rooms_a_ceiling_and_beams(little: Path) -> None:
    scene = load_scene(little, 1)
    (room,) = scene.plan.rooms
    np.testing.assert_allclose(room.inner, (-3, -2, 3, 2), atol=0.21)
    assert room.height == pytest.approx(HEIGHT, abs=0.01)
    (top,) = scene.tops
    assert (top.x, top.y, top.z) == pytest.approx((2, -1, 0.7), abs=1e-5)
    # straight rays into the world: what is where
    origins = np.float32([[1.5, 1, 1], [1.5, 1, 1], [0, 0, 1], [2, -1, 1], [1.5, 1, 1], [4.5, 0, 1]])
    ways = np.float32([[0, 0, -1], [0, 0, 1], [0, 0, 1], [0, 0, -1], [1, 0, 0], [0, 0, 1]])
    hits = Scene(scene.mesh).cast(origins, ways)
    names = ["floor", "ceiling", "ceiling", "table", "wall"]
    assert hits.label.tolist() == [*(class_id(name) for name in names), UNLABELLED]  # no ceiling outside
    np.testing.assert_allclose(hits.distance[:5], [1, HEIGHT - 1, HEIGHT - 1.3, 0.3, 1.5], atol=1e-5)
    places = scene.free_places(np.random.default_rng(0), 300)
    assert places.shape == (300, 2)
    assert (np.abs(places) < (2.85, 1.85)).all()
    assert not ((np.abs(places - (2, -1)) < (0.6, 0.4)).all(axis=1)).any()
    assert scene.clear(np.array([[0.0, 0.0], [2.0, -1.0]]), 0.2).tolist() == [True, False]


def test_textures_lie_where_their_corners_say(little: Path) -> None:
    mesh = load_scene(little).mesh
    assert isinstance(mesh, TexturedMesh)
    origins = np.float32([[-4.9, 0.7, 5], [-0.1, -4, 5], [0.1, 3, 5], [4.9, -2.5, 5]])
    hits = Scene(mesh).cast(origins, np.tile(np.float32([0, 0, -1]), (4, 1)))
    floor = hits.label == class_id("floor")
    assert floor.tolist() == [True, True, True, True] or floor.sum() >= 3
    places = origins + hits.distance[:, None] * np.float32([0, 0, -1])
    colors = mesh.color(hits.triangle, places)
    for row in np.flatnonzero(floor):
        expected = np.array(RED if origins[row, 0] < 0 else BLUE) / 255
        np.testing.assert_allclose(colors[row] ** (1 / 1.4), expected, atol=1e-3)


def test_barycentric_weights_rebuild_the_place() -> None:
    rng = np.random.default_rng(0)
    corners = rng.normal(size=(50, 3, 3)).astype(np.float32)
    weights = rng.dirichlet([1, 1, 1], 50).astype(np.float32)
    places = (weights[:, :, None] * corners).sum(axis=1)
    np.testing.assert_allclose(barycentric(corners, places), weights, atol=1e-3)


def test_rectangles_cover_a_mask_exactly() -> None:
    rng = np.random.default_rng(1)
    for mask in (rng.random((9, 7)) < 0.6, np.ones((3, 4), bool), np.zeros((3, 3), bool)):
        covered = np.zeros(mask.shape, int)
        for x0, y0, x1, y1 in rectangles(mask):
            covered[x0:x1, y0:y1] += 1
        np.testing.assert_array_equal(covered, mask)
    assert len(rectangles(np.ones((30, 40), bool))) == 1


def test_scans_of_a_scene_are_repeatable_and_have_truth(little: Path) -> None:
    first, again, other = (list(scans_in(load_scene(little, seed), 3)) for seed in (5, 5, 6))
    for (a, label_a, T_a), (b, label_b, T_b) in zip(first, again, strict=True):
        assert (
            a.xyz.tobytes() + label_a.tobytes() + T_a.tobytes() == b.xyz.tobytes() + label_b.tobytes() + T_b.tobytes()
        )
    assert first[0][0].xyz.tobytes() != other[0][0].xyz.tobytes()
    found = np.unique(np.concatenate([label for _, label, _ in first]))
    assert {class_id("wall"), class_id("floor"), class_id("ceiling")} <= set(found.tolist())
    mounts = (None, np.diag([1.0, -1.0, -1.0, 1.0]))
    (upright, inverted), *_ = views_in(load_scene(little, 5), 1, "vlp-16", mounts)
    floor = inverted[1] == class_id("floor")
    assert np.median((inverted[0].xyz @ inverted[2][:3, :3].T)[floor, 2]) < 0
    assert upright[2][2, 3] == inverted[2][2, 3]


def test_a_robot_drives_and_looks_around_in_a_scene(little: Path) -> None:
    camera = load_camera("pinhole").model_copy(update={"width": 64, "height": 48, "intrinsics": (42, 42, 31.5, 23.5)})
    rig = Rig(RigConfig(2, "vlp-16", 1.0, cameras=(RigCamera(camera=camera, pitch=30),), scene=little))
    assert rig.building.plan.kind == little.name
    result, image = rig.scan(0), rig.image(0)
    assert result.scan.valid().mean() > 0.9
    floor = image.rgb[image.label == class_id("floor")].astype(int)
    assert len(floor) > 300
    assert (np.abs(floor[:, 0] - floor[:, 2]) > 15).mean() > 0.9  # red or blue, but never grey
    assert 0 < rig.visible(0, result).sum() < len(result.scan) / 2


def test_models_are_known_by_name() -> None:
    table = ModelTable.load()
    for model, name in (
        ("aws_robomaker_residential_ChairA_01", "Chair"),
        ("aws_robomaker_residential_TV_02", "TV"),
        ("HouseWallB_01", "HouseWall"),
        ("RoomWindow", "RoomWindow"),
    ):
        assert table.name_of(model) == name


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            lambda items: items[2].update(model="x_Unicorn_01"),
            r"model x_Unicorn_01 has no class: add 'Unicorn: CLASS' to",
        ),
        (lambda items: items[2].update(model="Chair_09"), r"Chair_09\.glb is missing"),
        (lambda items: items[2].update(T_world_model=[[1, 0], [0, 1]]), r"item 2 needs .*T_world_model"),
        (lambda items: items.clear(), "has no `items`"),
        (lambda items: items.pop(0), "its walls must enclose one"),
    ],
)
def test_what_is_wrong_with_a_scene_is_named(little: Path, broken: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_scene(change(little, broken))


def test_a_folder_without_a_world_or_with_a_damaged_model_is_named(little: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"world\.yaml cannot be read"):
        load_scene(tmp_path / "absent")
    (little / "models" / "x_Floor_01.glb").write_bytes(b"no glTF")
    with pytest.raises(UserError, match=r"x_Floor_01\.glb cannot be read as glTF"):
        load_scene(little)


def test_the_small_house(shared_data: Path) -> None:
    scene = load_scene(shared_data / "scenes" / "small_house", 3)
    heights = sorted(round(room.height, 2) for room in scene.plan.rooms)
    assert heights == [2.68, 3.0, 3.0]  # the balcony's walls are lower
    assert len(scene.plan.rooms) == 3
    scene_rays = Scene(scene.mesh)
    places = scene.free_places(np.random.default_rng(0), 500)
    origins = np.column_stack([places, np.ones(500)]).astype(np.float32)
    up = scene_rays.cast(origins, np.tile(np.float32([0, 0, 1]), (500, 1)))
    assert (up.label == class_id("ceiling")).mean() > 0.85
    assert (up.label == UNLABELLED).sum() == 0  # closed
    beams = (scene.mesh.label == class_id("ceiling")) & (scene.mesh.triangles[:, :, 2].min(axis=1) < 2.6)
    clear = scene.clear(np.array([[-6.2, 2.0], [0.5, -2.6], [-5.0, -3.5], [8.0, -4.0]]), 0.3)
    assert clear.tolist() == [False, False, True, True]  # bed, sofa; behind the partition, before the kitchen's L
    assert beams.sum() == 12  # two beams, 2.5 m above the floor, have two sides and a lower face each

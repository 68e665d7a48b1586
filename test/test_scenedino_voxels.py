"""The engines against the network as it is; voxels of grids."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from fields import SMALL, occupancy_bundle

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.occupancy.grid import FREE, UNKNOWN, Grid
from cmp_seg_ros.occupier import Occupier, Warp
from cmp_seg_ros.scan import Float32, Int64
from cmp_seg_ros.scenedino.config import ClusterConfig, DecoderConfig, FieldConfig, VitConfig
from cmp_seg_ros.scenedino.field import FeatureField, normalised_intrinsics
from cmp_seg_ros.scenedino.graph import OnnxRuntime
from cmp_seg_ros.scenedino.voxels import QUERIES, Folded, Plain, attention_by_parts

PUBLISHED = FieldConfig(  # in small; as wide as Winograd's form needs
    encoder=VitConfig(width=32, depth=4, heads=2, taps=(0, 1, 2)),
    decoder=DecoderConfig(width=64, stages=(8, 8, 16, 24)),
    head=ClusterConfig(hidden=20, full=96, distilled=8, clusters=5),
    image=(24, 40),
    hidden=16,
    features=12,
)
CAMERA = Camera.centred(100, (96, 128))


def random_field(config: FieldConfig) -> FeatureField:
    """Random weights whose features have some size, up to the border."""
    torch.manual_seed(1)
    field = FeatureField(config).eval().requires_grad_(False)
    for module in field.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d) and module.bias is not None:
            module.bias.data = torch.randn_like(module.bias)
    return field


HEIGHTS = SMALL.model_copy(update={"heights": True, "code_near": 0.8})


class Answers(NamedTuple):
    """Of an engine at 3000 random points, the latter two at every second one."""

    density: Float32
    classes: Int64
    features: Float32


def ask(evaluation: Plain, up: torch.Tensor | None = None) -> Answers:
    torch.manual_seed(2)
    height, width = evaluation.field.config.image
    camera = Camera(model="pinhole", intrinsics=(30, 30, 20, 11), width=width, height=height)
    image = torch.rand(1, 3, height, width) * 2 - 1
    xyz = torch.rand(3000, 3) * torch.tensor([8.0, 5.0, 6.0]) - torch.tensor([4.0, 2.5, 0.2])
    features = evaluation.look(image)
    points = evaluation.plan(xyz, normalised_intrinsics(camera), up)
    rows = np.arange(0, 3000, 2)
    found = evaluation.classes(features, points, rows), evaluation.point_features(features, points, rows)
    return Answers(evaluation.density(features, points), *found)


@pytest.mark.parametrize("engine", [partial(Folded, low=False), OnnxRuntime], ids=["folded", "onnxruntime"])
@pytest.mark.parametrize("config", [PUBLISHED, SMALL, HEIGHTS], ids=["published", "small", "heights"])
def test_an_engine_equals_the_network(config: FieldConfig, engine: Callable[[FeatureField], Plain]) -> None:
    field, up = random_field(config), torch.tensor([0.1, -0.9, 0.3, 1.2])
    wanted, found = ask(Plain(field), up), ask(engine(field), up)
    np.testing.assert_allclose(found.density, wanted.density, rtol=1e-3, atol=1e-5)
    assert wanted.density.std() > 0.01 * wanted.density.mean()
    assert np.allclose(wanted.density, ask(Plain(field)).density) != config.heights
    assert (found.classes == wanted.classes).mean() > 0.998 and len(np.unique(wanted.classes)) > 1  # ties
    np.testing.assert_allclose(found.features, wanted.features, rtol=1e-3, atol=1e-4)


def test_bfloat16_keeps_most_labels() -> None:
    field = random_field(PUBLISHED)
    wanted, found = ask(Plain(field)), ask(Folded(field, low=True))
    assert (found.classes == wanted.classes).mean() > 0.98
    error = np.abs(found.density / wanted.density - 1)
    assert 1e-4 < error.max() < 0.1 and np.median(error) < 0.02  # rounded, but not wrong


def test_attention_by_parts_is_attention() -> None:
    q, k, v = torch.randn(3, 1, 2, QUERIES + 45, 8, generator=torch.Generator().manual_seed(0))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(attention_by_parts(q, k, v), wanted, rtol=1e-5, atol=1e-5)


def test_rounding_for_the_engine_leaves_the_network_as_it_was() -> None:
    field = random_field(PUBLISHED)
    before = {key: value.clone() for key, value in field.state_dict().items()}
    folded = Folded(field, low=True)
    assert {p.dtype for p in folded.encoder.blocks.parameters() if p.dim() > 1} == {torch.bfloat16}  # type: ignore[union-attr]
    for key, value in field.state_dict().items():
        assert value.dtype == before[key].dtype and torch.equal(value, before[key])


def test_a_grid_is_labelled_where_the_camera_sees_and_unknown_elsewhere(tmp_path: Path) -> None:
    occupier = Occupier(occupancy_bundle(tmp_path / "o"))
    rgb = np.full((96, 128, 3), 128, np.uint8)
    grid = Grid(frame="base", voxel=0.2, shape=(20, 20, 5), origin=(0.0, -2.0, 0.0))
    T_base_camera = np.eye(4)
    T_base_camera[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    T_base_camera[2, 3] = 0.5
    view = occupier.look(rgb, CAMERA)
    voxels = occupier.voxels(view, grid, T_base_camera)
    ahead = voxels.label[:, 10, 2]  # 0.1 m right of the axis
    assert (ahead[1:9] == FREE).all() and (ahead[11:] == 7).all()  # 2 m, in steps of 0.2 m
    assert (voxels.label[:3, 0] == UNKNOWN).all() and (voxels.density[:3, 0] == 0).all()  # beside the view
    rendered = occupier.render(view)
    assert abs(np.median(rendered.depth) - 2) < 0.25 and (rendered.label == 7).all()
    with pytest.raises(UserError, match="needs the camera's pose in it"):
        occupier.voxels(view, grid)
    upright = Grid(frame="camera", voxel=0.2, shape=(20, 5, 20), origin=(-2.0, -0.5, 0.0))
    seen = occupier.voxels(view, upright)
    assert (seen.label[10, 2, 1:9] == FREE).all() and (seen.label[10, 2, 11:] == 7).all()
    with pytest.raises(UserError, match=r"the image has 100 x 50 pixels, its camera info 128 x 96"):
        occupier.look(np.zeros((50, 100, 3), np.uint8), CAMERA)


def test_images_are_warped_to_the_view_of_the_network() -> None:
    """A fisheye's image of a direction comes to lie where the network's pinhole camera sees that direction."""
    fisheye = Camera(model="equidistant", intrinsics=(80, 80, 99.5, 79.5), width=200, height=160)
    directions = np.array([[0.2, 0.1, 1.0], [-0.4, 0.2, 1.0]], np.float32)
    rgb = np.zeros((160, 200, 3), np.uint8)
    v, u = np.mgrid[0:160, 0:200]
    for uv in fisheye.project(directions)[0]:
        rgb[np.hypot(u - uv[0], v - uv[1]) < 3] = 255
    warp = Warp(fisheye, (64, 96), 70.0)
    image = warp(rgb)[0, 0].numpy()
    for u, v in np.round(warp.camera.project(directions)[0]).astype(int):
        assert image[v, u] > 0.5
    assert (image > 0).mean() < 0.02 and warp.inside.all()
    narrow = Warp(Camera.centred(140, (96, 128)), (64, 96), 70.0)
    assert narrow.inside.mean() == pytest.approx(0.5, abs=0.03)  # 64 x 48 of 96 x 64 pixels
    assert (narrow(np.full((96, 128, 3), 255, np.uint8))[0, :, ~narrow.inside] == 0).all()

"""The feature field against reference outputs and keys of the published network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fields import SMALL
from torch import Tensor

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.geometry.cameras import Camera
from cmp_seg_ros.network_weights import load_state
from cmp_seg_ros.scenedino import checkpoint
from cmp_seg_ros.scenedino.config import ClusterConfig, DecoderConfig, FieldConfig, VitConfig
from cmp_seg_ros.scenedino.decoder import Decoder
from cmp_seg_ros.scenedino.field import FeatureField, normalised_intrinsics, project, sample
from cmp_seg_ros.scenedino.head import ClusterHead, Downsampler
from cmp_seg_ros.scenedino.rendering import composite, rays_of, render

DINO_B8 = FieldConfig()
DINOV2_B14 = FieldConfig(encoder=VitConfig(patch=14, stride=16, layer_scale=True))
DATA = Path(__file__).parent / "data"
TINY = FieldConfig(
    encoder=VitConfig(width=32, depth=4, heads=2, taps=(0, 1, 2)),
    decoder=DecoderConfig(width=24, stages=(8, 8, 16, 24)),
    head=ClusterConfig(hidden=20, full=96, distilled=8, clusters=5),
    image=(16, 32),
    hidden=16,
    features=12,
)


def golden(name: str) -> dict[str, Tensor]:
    with np.load(DATA / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file}


def published_state(variant: str, device: str = "meta") -> dict[str, Tensor]:
    """Empty tensors under the published keys."""
    sections = (DATA / "sd_state_dicts.txt").read_text().split("[")[1:]
    lines = next(text for text in sections if text.startswith(variant + "]")).splitlines()[1:]
    state = {}
    for line in lines:
        key, shape, dtype = line.split()
        sizes = [] if shape == "-" else [int(size) for size in shape.split(",")]
        for block in range(12) if "#" in key else (0,):
            value = torch.empty(sizes, dtype=getattr(torch, dtype), device=device)
            state[checkpoint.PREFIX + key.replace("#", str(block))] = value
    return state


def test_the_decoder_gives_the_reference_output() -> None:
    data = golden("sd_dpt")
    decoder = Decoder(DecoderConfig(width=24, stages=(8, 8, 16, 24)), (32,) * 4)
    decoder.load_state_dict({key[2:]: value for key, value in data.items() if key.startswith("w/")})
    out = decoder([data[f"in{i}"] for i in range(4)])
    torch.testing.assert_close(out, data["out"], atol=1e-4, rtol=1e-4)


def test_points_get_the_reference_density_features_and_cluster() -> None:
    data = golden("sd_points")
    weights = {key[2:]: value for key, value in data.items() if key.startswith("w/")}
    names = {"net.encoder.dim_reduction.": "up_projection.", "net.code_xyz.": "code.", "net.heads.normal_head.": "mlp."}
    names |= {"stego.": "head.stego_head.", "kmeans.": "head.stego_cluster_head."}
    field = FeatureField(TINY).eval()
    state = field.state_dict()
    for key, value in weights.items():
        theirs = next(name for name in names if key.startswith(name))
        ours = names[theirs] + key.removeprefix(theirs)
        state[ours] = value.reshape(state[ours].shape)
    load_state(field, state, "golden")
    features, intrinsics, xyz = data["feature_map"][0], data["K"][0], data["xyz"]
    uv, invalid = project(xyz, intrinsics)
    torch.testing.assert_close(invalid, data["invalid"][..., 0])
    valid = ~invalid[0]
    code = field.code(field.coordinates(xyz, uv))
    sampled = torch.cat([sample(features, uv), code], dim=2)
    torch.testing.assert_close(sampled[0, valid], data["sampled"][0, valid, 0], atol=1e-4, rtol=1e-4)
    found = field.query(features, xyz, intrinsics)
    torch.testing.assert_close(found.density[0, valid], data["sigma"][0, valid, 0], atol=1e-4, rtol=1e-4)
    full = field.up_projection(found.features)
    torch.testing.assert_close(full[0, valid], data["features_full"][0, valid], atol=1e-4, rtol=1e-4)
    assert isinstance(field.head, ClusterHead)
    distilled = field.head.stego_head(full)
    torch.testing.assert_close(distilled[0, valid], data["distilled"][0, valid], atol=1e-4, rtol=1e-4)
    assert (field.logits(found.features)[0, valid].argmax(dim=1) == data["cluster"][valid]).all()


@pytest.mark.parametrize(("variant", "config"), [("dino_vitb8", DINO_B8), ("dinov2_vitb14", DINOV2_B14)])
def test_every_published_key_and_shape_is_ours(variant: str, config: FieldConfig) -> None:
    state = published_state(variant)
    with torch.device("meta"):
        field = FeatureField(config)
    ours = {key: tuple(value.squeeze().shape) for key, value in field.state_dict().items()}
    theirs = checkpoint.renamed(state, Path("x"))
    assert {key: tuple(value.squeeze().shape) for key, value in theirs.items()} == ours
    assert checkpoint._encoder(theirs, Path("x")) == config.encoder
    grid = tuple(size // 16 for size in config.image) if variant == "dinov2_vitb14" else (24, 80)
    assert field.encoder.grid == grid


def tiny_checkpoint() -> dict[str, Tensor]:
    """The weights of a tiny network under the published names, with a teacher that is ignored."""
    torch.manual_seed(0)
    config = TINY.model_copy(update={"encoder": VitConfig(width=64, depth=10, heads=1), "image": (24, 80)})
    names = {ours: theirs for theirs, ours in checkpoint.NAMES.items()}
    state = {}
    for key, value in FeatureField(config).state_dict().items():
        ours = next(name for name in names if key.startswith(name))
        state[checkpoint.PREFIX + names[ours] + key.removeprefix(ours)] = value
    return state | {checkpoint.PREFIX + "encoder.gt_encoder.x": torch.zeros(1), "artifact_field": torch.zeros(1)}


@pytest.mark.parametrize("nested", [False, True])
def test_a_checkpoint_is_read_flat_or_nested_and_its_faults_are_named(
    nested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tiny_checkpoint()
    # Only the encoder is read from the shapes; the rest of the published network has one size.
    monkeypatch.setattr(
        checkpoint, "FieldConfig", lambda **fields: TINY.model_copy(update={**fields, "image": (24, 80)})
    )
    path = tmp_path / "checkpoint.pt"
    torch.save({"trainer": {}, "model": state} if nested else state, path)
    field = checkpoint.read(path)
    key = checkpoint.PREFIX + "heads.normal_head.lin_out.weight"
    assert torch.equal(field.mlp.lin_out.weight, state[key])
    del state[key]
    torch.save(state, path)
    with pytest.raises(UserError, match=r"missing: mlp\.lin_out\.weight"):
        checkpoint.read(path)
    torch.save({"net": {}}, path)
    with pytest.raises(UserError, match=r"has no key 'renderer\.net"):
        checkpoint.read(path)


def test_position_embeddings_are_resampled_to_another_grid() -> None:
    """A ramp from left to right stays one."""
    ramp = (torch.arange(20) + 0.5).view(1, 1, 1, 20).expand(1, 1, 6, 20)
    positions = torch.cat([torch.full((1, 1, 1), 9.0), ramp.flatten(2).transpose(1, 2)], dim=1)
    found = checkpoint.resampled(positions, (3, 10), Path("x"))
    assert found.shape == (1, 31, 1) and found[0, 0, 0] == 9
    torch.testing.assert_close(found[0, 1:, 0].view(3, 10)[1, 1:-1], 2 * torch.arange(1, 9) + 1.0)


def test_rays_end_at_a_wall_and_show_its_features() -> None:
    """Density only behind z = 4 in the left half of the view."""

    def query(points: Tensor) -> tuple[Tensor, Tensor]:
        wall = (points[..., 2] > 4) & (points[..., 0] < 0)
        return wall * 1e4, points[..., 2:]

    intrinsics = normalised_intrinsics(Camera.centred(50, (48, 64)))[None]
    rays = rays_of(intrinsics, (48, 64))
    assert torch.allclose(rays[0, 0], torch.nn.functional.normalize(torch.tensor([-31.5, -23.5, 50]), dim=0))
    rendered = render(query, rays, (0.5, 20), samples=400)
    depth = (rendered.distance * rays[..., 2]).view(48, 64)
    assert (depth[:, :32] - 4).abs().max() < 0.15 and (rendered.features.view(48, 64)[:, :32] - 4).abs().max() < 0.15
    assert rendered.distance.view(48, 64)[:, 32:].max() < 1e-3  # nothing there: no weight


def test_compositing_is_the_formula() -> None:
    density, at = torch.tensor([[[0.5, 2.0, 1.0]]]), torch.tensor([[[1.0, 2.0, 4.0]]])
    out = composite(density, torch.eye(3).view(1, 1, 3, 3), at)
    a, b = 1 - np.exp(-0.5), 1 - np.exp(-4.0)
    expected = torch.tensor([a, (1 - a) * b, (1 - a) * (1 - b)], dtype=torch.float32)
    torch.testing.assert_close(out.weights[0, 0], expected)
    torch.testing.assert_close(out.features[0, 0], expected)


def test_the_encoders_and_variants_run_and_have_their_sizes() -> None:
    second = TINY.model_copy(
        update={
            "encoder": VitConfig(**{**TINY.encoder.model_dump(), "patch": 14, "stride": 16, "layer_scale": True}),
            "image": (32, 64),
        }
    )
    for config, size in ((SMALL, (16, 24)), (TINY, (32, 64)), (second, (32, 64))):
        field = FeatureField(config).eval()
        features = field.encode(torch.rand(1, 3, *config.image))
        assert features.shape[2:] == size
        intrinsics = normalised_intrinsics(Camera.centred(50, config.image))[None]
        found = field.query(features, torch.rand(1, 7, 3) + 1, intrinsics)
        assert found.density.shape == (1, 7) and (found.density > 0).all()
        assert field.classes(found.features).shape == (1, 7)


def test_the_downsampler_averages() -> None:
    field = Downsampler(6, 8)
    value = torch.randn(2, 6, 1, 1)
    unit = torch.nn.functional.normalize(value[..., 0, 0], dim=1)
    torch.testing.assert_close(field(value.expand(-1, -1, 8, 8)), unit)

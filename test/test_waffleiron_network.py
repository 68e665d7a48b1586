"""The network against the published outputs, and against an independent one on full dense grids for every variant."""

from copy import deepcopy
from itertools import product
from pathlib import Path

import numpy as np
import published
import pytest
import torch

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.waffleiron import network as network_module
from cmp_seg_ros.waffleiron import pooling, weights
from cmp_seg_ros.waffleiron.batch import collate
from cmp_seg_ros.waffleiron.config import NetworkConfig, Plane, PreprocessConfig
from cmp_seg_ros.waffleiron.network import DropPath, Embedding, Segmenter
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

DATA = Path(__file__).parent / "data"  # inputs, weights and outputs of the published modules, at tiny sizes

PLANES: list[Plane] = ["xy", "xz", "yz"]
GRIDS = [(20, 24), (20, 7), (24, 7)]


def preprocess(planes: int = 3) -> PreprocessConfig:
    return PreprocessConfig(
        voxel_size=0.3,
        neighbours=6,
        fov_min=(-10, -12, -3),
        fov_max=(10, 12, 4),
        planes=PLANES[:planes],
        grids=GRIDS[:planes],
    )


def room(points: int, seed: int, size: float = 4.0, planes: int = 3) -> Voxels:
    """Voxels of a random cloud."""
    random = np.random.default_rng(seed)
    xyz = random.uniform([-size, -size, -2], [size, size, 2], (points, 3)).astype(np.float32)
    return prepare(xyz, random.random(points).astype(np.float32), preprocess(planes))[0]


def build(state: published.State, **fields: object) -> Segmenter:
    network = Segmenter(NetworkConfig(**fields))  # type: ignore[arg-type]
    weights.load_state(network, state, "test")
    return network.eval().requires_grad_(False)


def test_forward_of_the_reference() -> None:
    inputs = np.load(DATA / "wi_preprocess.npz")
    golden = np.load(DATA / "wi_forward_batchnorm.npz")
    state = {key[2:]: torch.from_numpy(golden[key]) for key in golden if key.startswith("w/")}
    network = build(state, width=16, depth=6, outputs=4)
    scans = []
    for sample in (0, 1):  # the published batch itself, less its padding
        count = int(inputs[f"n{sample}"])
        scans.append(
            Voxels(
                points=np.arange(count),
                xyz=inputs["feat"][sample, 1:4, :count].T,
                features=np.ascontiguousarray(inputs["feat"][sample, :, :count].T),
                neighbours=np.ascontiguousarray(inputs["neighbors_emb"][sample, 1:, :count].T),
                cells=inputs["cell_ind"][sample, :, :count],
            )
        )
    batch = collate(scans, [(int(h), int(w)) for h, w in inputs["grids"]])
    tokens = network.embed(batch.features, batch.neighbours)
    backbone = network.waffleiron(tokens, batch)
    start = 0
    for sample, scan in enumerate(scans):
        rows = slice(start, start := start + len(scan))
        stages = {"embed": tokens, "backbone": backbone, "logits": network(batch)}
        for name, answer in stages.items():
            np.testing.assert_allclose(answer[rows].T, golden[name][sample][:, : len(scan)], atol=1e-4, err_msg=name)


@pytest.mark.parametrize(
    ("norm", "activation", "head", "planes"),
    [
        *product(("batchnorm", "layernorm"), ("relu", "gelu"), ("linear", "mlp", "probe"), (3,)),
        ("batchnorm", "relu", "linear", 1),
    ],
)
def test_every_variant_equals_full_dense_grids(norm: str, activation: str, head: str, planes: int) -> None:
    state = published.state(norm=norm, head=head)
    fields = {"norm": norm, "activation": activation, "head": head, "head_hidden": 12, "planes": planes}
    network = build(state, width=8, depth=4, outputs=5, **fields)
    scans = [room(400, 1, planes=planes), room(150, 2, size=9.9, planes=planes)]  # the second reaches the grids' border
    answer = network(collate(scans, GRIDS[:planes]))
    expected = published.logits(state, published.padded(scans), GRIDS[:planes], activation)
    for rows, sample, scan in zip(answer.split([len(scan) for scan in scans]), expected, scans, strict=True):
        torch.testing.assert_close(rows, sample[:, : len(scan)].T, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("norm", ["batchnorm", "layernorm"])
def test_a_batch_gives_each_scan_what_it_gives_alone(norm: str) -> None:
    network = build(published.state(norm=norm), width=8, depth=4, outputs=5, norm=norm)
    scans = [room(300, 3), room(1, 4), room(900, 5, size=9.9), room(4, 6)]
    together = network(collate(scans, GRIDS)).split([len(scan) for scan in scans])
    for scan, rows in zip(scans, together, strict=True):
        torch.testing.assert_close(rows, network(collate([scan], GRIDS)), atol=1e-5, rtol=1e-5)


def test_the_crop_is_a_small_part_of_the_grid() -> None:
    cells = collate([room(200, 7, size=1.0)], GRIDS).planes[0]
    assert cells.shape[1] * cells.shape[2] < GRIDS[0][0] * GRIDS[0][1] / 5


def test_the_neighbour_branch_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build(published.state(), width=8, depth=4, outputs=5)
    batch = collate([room(300, 8)], GRIDS)
    whole = network(batch)
    monkeypatch.setattr(network_module, "NEIGHBOUR_CHUNK", 100)
    torch.testing.assert_close(network(batch), whole, atol=1e-6, rtol=1e-6)


def test_drop_path_leaves_whole_scans_out() -> None:
    drop = DropPath(0.25).train()
    sample = torch.arange(4000).repeat_interleave(3)
    torch.manual_seed(0)
    kept = drop(torch.ones(12000, 2), sample).view(4000, 6)
    assert (kept == kept[:, :1]).all()
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert (drop.eval()(torch.ones(12000, 2), sample) == 1).all()


def test_weights_survive_the_file(tmp_path: Path) -> None:
    config = NetworkConfig(width=48, depth=2, outputs=5)
    network = Segmenter(config).eval()
    (tmp_path / "w").write_bytes(weights.serialise(network, half=False))
    again = weights.load(tmp_path / "w", config)
    batch = collate([room(100, 9)], GRIDS)
    with torch.inference_mode():
        torch.testing.assert_close(again(batch), network(batch), atol=0, rtol=0)
    (tmp_path / "h").write_bytes(weights.serialise(network))
    assert (tmp_path / "h").stat().st_size < 0.7 * (tmp_path / "w").stat().st_size
    with torch.inference_mode():
        torch.testing.assert_close(weights.load(tmp_path / "h", config)(batch), network(batch), atol=0.05, rtol=0.05)


def test_what_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    config = NetworkConfig(width=8, depth=1, outputs=5)
    network = Segmenter(config)
    network.embed.norm.get_buffer("running_var")[0] = 1e6
    (tmp_path / "w").write_bytes(weights.serialise(network))
    assert weights.load(tmp_path / "w", config).embed.norm.get_buffer("running_var")[0] == 1e6


def test_every_fault_of_the_weights_is_named() -> None:
    state = published.state(depth=2)
    del state["waffleiron.channel_mix.1.mlp.0.bias"], state["embed.norm.running_var"]
    state["lpips.net"] = torch.zeros(3)
    state["embed.final.weight"] = torch.zeros(8, 9, 1)
    with pytest.raises(UserError) as error:
        build(state, width=8, depth=2, outputs=5)
    message = str(error.value)
    for fault in ("missing: embed.norm.running_var, waffleiron.channel_mix.1.mlp.0.bias", "unexpected: lpips.net"):
        assert fault in message
    assert "embed.final.weight is (8, 9, 1), not (8, 16)" in message
    assert "num_batches_tracked" not in message


@pytest.mark.parametrize("frozen", [False, True])
def test_the_neighbour_branch_in_pieces_is_the_plain_one(frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs, gradients of all parameters, and statistics of the norms."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 5, dtype=torch.float64, generator=generator)
    neighbours = torch.randint(0, 300, (300, 16), generator=generator)
    plain = Embedding(5, 10).double()
    for name, value in (*plain.named_parameters(), *plain.named_buffers()):
        if value.dtype == torch.float64:
            value.data.uniform_(0.5 if name.endswith("var") else -1, 2, generator=generator)
    pieces = deepcopy(plain)
    monkeypatch.setattr(pooling, "ROWS", 500)  # several pieces, the last one shorter
    outputs = []
    for network in (pieces, plain):
        network.train()
        for module in network.modules():
            module.training &= not (frozen and isinstance(module, torch.nn.BatchNorm1d))
        outputs.append(network(features, neighbours))
        outputs[-1].square().sum().backward()
        monkeypatch.setattr(pooling, "applies", lambda x: False)
    assert torch.allclose(outputs[0], outputs[1], rtol=0, atol=1e-11)
    scale = max(float(value.grad.abs().max()) for value in plain.parameters() if value.grad is not None)
    for (name, value), other in zip(pieces.named_parameters(), plain.parameters(), strict=True):
        assert value.grad is not None and other.grad is not None
        assert torch.allclose(value.grad, other.grad, rtol=1e-9, atol=1e-12 * scale), name
    for (name, found), expected in zip(pieces.named_buffers(), plain.buffers(), strict=True):
        assert torch.allclose(found, expected, rtol=1e-12), name

"""What is made of bundles: a run that starts with one, also where it is wider; their mean; and other decisions."""

from pathlib import Path

import golden
import numpy as np
import pytest
import torch
from engines import MakeBundle
from safetensors.numpy import load_file, save

from cmp_seg_ros import Segmenter as ScanSegmenter
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.training.average import average
from cmp_seg_ros.training.offsets import shift
from cmp_seg_ros.training.start import start_with
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.batch import collate
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.network import Segmenter
from cmp_seg_ros.waffleiron.preprocess import prepare

# A width that is also the number of classes and of input channels must not be mistaken for those.
NARROW = NetworkConfig(width=6, depth=3, outputs=6)
PREPROCESS = PreprocessConfig(
    voxel_size=0.2,
    fov_min=(-6, -6, -2),
    fov_max=(6, 6, 2),
    planes=["xy", "xz", "yz"],
    grids=[(40, 40), (40, 8), (40, 8)],
)


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Bundle:
    return make_bundle(PREPROCESS, **NARROW.model_dump())


def logits(network: Segmenter) -> torch.Tensor:
    rng = np.random.default_rng(0)
    voxels, _ = prepare(rng.uniform(-3, 3, (900, 3)).astype(np.float32), rng.random(900, np.float32), PREPROCESS)
    with torch.inference_mode():
        return network.eval()(collate([voxels], PREPROCESS.grids))


@pytest.mark.parametrize("times", [1, 2, 3])
def test_it_says_what_the_bundle_says(bundle: Bundle, times: int) -> None:
    network = Segmenter(NARROW.model_copy(update={"width": 6 * times}))
    before = logits(network)
    start_with(network, bundle, bundle.description.label_space)
    expected = logits(weights.load(bundle.weights_path, NARROW))
    assert torch.allclose(logits(network), expected, atol=1e-4 * float(expected.abs().max()))
    assert not torch.allclose(before, expected, atol=0.1 * float(expected.abs().max()))


def test_copies_of_a_channel_go_their_own_way(bundle: Bundle) -> None:
    network = Segmenter(NARROW.model_copy(update={"width": 12}))
    start_with(network, bundle, bundle.description.label_space)
    first = network.waffleiron.channel_mix[0].mlp[0].weight
    assert torch.allclose(first[:6, :6] + first[:6, 6:], first[6:, :6] + first[6:, 6:], atol=1e-6)  # the same sums
    assert (first[:6] - first[6:]).abs().max() > 0.01  # of different summands


@pytest.mark.parametrize(
    ("change", "space", "told"),
    [
        ({"width": 16}, None, "6 wide, which does not divide 16; use network.width: 18"),
        ({"depth": 4, "head": "probe"}, None, "another network than the run: depth 3, not 4; head linear, not probe"),
        ({"outputs": 4}, "structural4", "classes of test, the run those of structural4"),
    ],
)
def test_a_bundle_that_does_not_fit_is_refused(
    bundle: Bundle, change: dict[str, int], space: str | None, told: str
) -> None:
    ours = LabelSpace.load(space) if space else bundle.description.label_space
    with pytest.raises(UserError, match=told):
        start_with(Segmenter(NARROW.model_copy(update=change)), bundle, ours)


def test_the_mean_of_two_bundles(make_bundle: MakeBundle, tmp_path: Path) -> None:
    one = make_bundle()
    tripled = {name: (3 * value).astype(value.dtype) for name, value in load_file(one.weights_path).items()}
    description = one.description.model_dump(exclude={"weights_sha256"})
    other = Bundle.write(tmp_path / "other", save(tripled), **description)
    mean = average([one, other], tmp_path / "mean")
    before, found = load_file(one.weights_path), load_file(mean.weights_path)
    for name, value in before.items():
        np.testing.assert_allclose(found[name], 2.0 * value, rtol=2e-3, atol=1e-3)


def test_bundles_of_different_networks_have_none(make_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="different networks"):
        average([make_bundle(width=16), make_bundle(width=32)], tmp_path / "mean")


def test_an_offset_is_one_of_the_log_probabilities(tmp_path: Path) -> None:
    bundle, scan = Bundle.find("waffleiron24-128"), next(golden.scans()).scan
    moved = shift(bundle, {"wall": -2.0}, tmp_path / "moved")
    before, after = (ScanSegmenter(one, "cpu-fp32", probabilities=True)(scan).probabilities for one in (bundle, moved))
    assert before is not None and after is not None
    wall = bundle.description.label_space.names.index("wall")
    odds = [p[:, wall] / (1 - p[:, wall]) for p in (before, after)]
    sure = (before[:, wall] > 0.05) & (before[:, wall] < 0.95)
    assert sure.sum() > 100
    np.testing.assert_allclose(np.log(odds[1][sure] / odds[0][sure]), -2.0, atol=0.02)  # weights are in float16
    assert moved.description.training["offsets"] == {"wall": -2.0}


def test_an_unknown_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no class door"):
        shift(Bundle.find("waffleiron24-128"), {"door": 1.0}, tmp_path)

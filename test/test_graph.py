"""The exported graph: what it is made of; test_engine_variants.py compares it with the reference."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from engines import PREPROCESS, VARIANTS, MakeBundle, preprocess_with, truth, voxels_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.base import softmax
from cmp_seg_ros.engine.loading import network_of
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron import buckets, graph, layout
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import VoxelInputs, Voxels, prepare

# All supported natively by TensorRT 10.0's parser in FP32, FP16 and BF16 (onnx/onnx-tensorrt, docs/operators.md);
# Gather and Reshape also in INT32. LayerNormalization needs scale and bias.
OPERATORS = {
    "Add", "Cast", "Concat", "Conv", "Erf", "Gather", "Gemm", "LayerNormalization", "Max", "Mul", "ReduceMax",
    "ReduceSum", "Relu", "Reshape", "Slice", "Sub", "Transpose", "Unsqueeze",
}  # fmt: skip

Run = Callable[[layout.Feed], Float32]


def runtime(model: onnx.ModelProto) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)[0]


def model_of(bundle: Bundle, precision: graph.Precision = "fp32") -> onnx.ModelProto:
    return onnx.load_from_string(network_of(bundle).graph(precision))


def check(bundle: Bundle, voxels: Voxels) -> None:
    answer = runtime(model_of(bundle))(layout.arrange(voxels.inputs, bundle.points.preprocess))
    np.testing.assert_allclose(
        answer, wanted := truth(bundle, voxels), atol=3e-5 * max(1.0, float(np.abs(wanted).max()))
    )


@pytest.mark.parametrize("fields", VARIANTS)
@pytest.mark.parametrize("precision", get_args(graph.Precision))
def test_only_operators_that_tensorrt_takes(
    make_bundle: MakeBundle, fields: dict[str, Any], precision: graph.Precision
) -> None:
    model = model_of(make_bundle(**fields), precision)
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert all(node.domain == "" and node.op_type not in ("Loop", "If", "Scan") for node in model.graph.node)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", graph.OPSET)]
    for node in model.graph.node:  # restrictions of the parser
        if node.op_type == "LayerNormalization":
            assert len(node.input) == 3 and len(node.output) == 1
        if node.op_type in ("Reshape", "ReduceSum", "ReduceMax", "Unsqueeze", "Slice"):
            assert all(name in {c.name for c in model.graph.initializer} for name in node.input[1:]), node.name
        if node.op_type == "Conv":
            assert node.input[1] in {c.name for c in model.graph.initializer}


@pytest.mark.parametrize("precision", get_args(graph.Precision))
def test_types_are_those_of_the_precision(make_bundle: MakeBundle, precision: graph.Precision) -> None:
    """Strongly typed: every linear layer is of the precision, but the points' own branch and the head."""
    model = onnx.shape_inference.infer_shapes(model_of(make_bundle(), precision), strict_mode=True, data_prop=True)
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    low = graph.ONNX_TYPE[precision]
    for node in model.graph.node:
        if node.op_type == "Gemm":
            exact = node.name in ("embed/point", "logits")
            assert kinds[node.output[0]] == (onnx.TensorProto.FLOAT if exact else low), node.name
        if node.op_type == "Conv":
            assert kinds[node.output[0]] == (onnx.TensorProto.FLOAT if precision == "bf16" else low), node.name
        if node.name.endswith("/out") and node.op_type == "Add":
            assert kinds[node.output[0]] == onnx.TensorProto.FLOAT


def test_half_precision_answers_nearly_the_same(make_bundle: MakeBundle) -> None:
    for fields in ({}, {"norm": "layernorm", "activation": "gelu", "head": "mlp", "head_hidden": 40}):
        bundle, voxels = make_bundle(**fields), voxels_of(1500)
        answer = runtime(model_of(bundle, "fp16"))(layout.arrange(voxels.inputs, PREPROCESS))
        wanted = truth(bundle, voxels)
        assert 1e-7 < np.abs(softmax(answer) - softmax(wanted)).mean() < 1e-3


def test_crowded_cells_and_a_view_that_ends_in_the_room(make_bundle: MakeBundle) -> None:
    """Coarse cells of hundreds of voxels need all levels of the sums; occupied cells touch the grid's border."""
    preprocess = preprocess_with(fov_min=(-2, -2, -1), fov_max=(2, 2, 1), grids=[(3, 3), (3, 1), (3, 2)])
    random = np.random.default_rng(0)
    xyz = random.uniform(-3, 3, (30000, 3)).astype(np.float32)
    voxels = prepare(xyz, random.random(30000).astype(np.float32), preprocess)[0]
    feed = layout.arrange(voxels.inputs, preprocess)
    assert len(feed["members_1_3"]) > 1 and np.bincount(voxels.cells[1]).max() > 1024
    check(make_bundle(preprocess), voxels)


def crowd(count: int, extent: float, seed: int, preprocess: PreprocessConfig = PREPROCESS) -> VoxelInputs:
    random = np.random.default_rng(seed)
    xyz = random.uniform(-extent, extent, (count, 3)).astype(np.float32)
    return prepare(xyz, random.random(count).astype(np.float32), preprocess)[0].inputs


@pytest.mark.parametrize("norm", ["batchnorm", "layernorm"])
def test_padding_changes_no_answer(make_bundle: MakeBundle, norm: str) -> None:
    """Also where the occupied cells touch the border of the full grid, beyond which there must be no cells."""
    small = preprocess_with(fov_min=(-4, -4, -1), fov_max=(4, 4, 1), grids=[(40, 33), (40, 7), (33, 7)])
    for preprocess, extent in ((PREPROCESS, 5.0), (PREPROCESS, 0.5), (small, 6.0)):
        bundle = make_bundle(preprocess, norm=norm)
        network, run = network_of(bundle), runtime(model_of(bundle))
        for seed, count in enumerate((5, 700, 3000)):
            inputs = crowd(count, extent, seed, preprocess)._asdict()
            exact, padded = run(network.feed(inputs)), {"logits": run(network.feed(inputs, rounded=True))}
            atol = 2e-5 * max(1, np.abs(exact).max())
            np.testing.assert_allclose(network.trim(padded, inputs)["logits"], exact, atol=atol)


@settings(max_examples=40)
@given(st.integers(1, 6000), st.floats(0.2, 12.0), st.integers(0, 99))
def test_rounded_shapes_stay_in_the_profile(count: int, extent: float, seed: int) -> None:
    voxels = crowd(count, extent, seed)
    if len(voxels.features) == 0:
        return
    shapes, profile = buckets.shapes(voxels, PREPROCESS), buckets.profile(PREPROCESS)
    feed = layout.arrange(voxels, PREPROCESS, shapes)  # raises if something does not fit
    assert {name: values.shape for name, values in feed.items()} == shapes
    assert profile.keys() == shapes.keys() == {value.name for value in graph.inputs(PREPROCESS)}
    for name, shape in shapes.items():
        least, typical, most = profile[name]
        assert all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)), name
        assert all(low <= size <= high for low, size, high in zip(least, typical, most, strict=True)), name
    assert 0 <= shapes["features"][0] - len(voxels.features) < buckets.VOXELS


def test_scans_of_one_room_share_shapes() -> None:
    shapes = {tuple(buckets.shapes(voxels_of(1500, seed=seed).inputs, PREPROCESS).values()) for seed in range(12)}
    assert len(shapes) <= 3


def test_what_cannot_be_summed_is_an_error(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    network, inputs = network_of(make_bundle()), voxels_of(1500).inputs._asdict()
    most = max(int(np.bincount(cells).max()) for cells in inputs["cells"])
    monkeypatch.setattr(layout, "MAX_VOXELS", most)
    network.feed(inputs)  # of cells that fit there may be any number
    monkeypatch.setattr(layout, "MAX_VOXELS", most - 1)
    with pytest.raises(UserError, match=f"a cell of the scan holds {most} voxels.*use engine 'cpu'"):
        network.feed(inputs)
    monkeypatch.setattr(buckets, "MAX_VOXELS", len(inputs["features"]) - 1)
    with pytest.raises(UserError, match="larger voxel_size, or engine 'cpu'"):
        network.feed(inputs, rounded=True)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 24), st.integers(1, 200)), min_size=1, max_size=12), st.randoms())
def test_the_tree_of_sums_is_the_mean_of_each_cell(filled: list[tuple[int, int]], random: Any) -> None:
    """By plain numpy: rows of all levels, gathered into the grid, are the means; sizes are within the bounds."""
    index = np.concatenate([np.full(count, cell) for cell, count in filled])
    index = index[np.array(random.sample(range(len(index)), len(index)))]
    preprocess = PreprocessConfig(
        fov_min=(-1, -1, -1), fov_max=(1, 1, 1), grids=[(5, 5)], planes=["xy"], features=["intensity"]
    )
    count = len(index)
    features, neighbours = np.arange(count, dtype=np.float32)[:, None], np.zeros((count, 16), np.int64)
    feed = layout.arrange(VoxelInputs(features, neighbours, index[None]), preprocess)
    for name, shape in layout.bounds(count, preprocess).items():
        assert all(size <= most for size, most in zip(feed[name].shape, shape, strict=True)), name
    rows = np.concatenate([[0.0], np.arange(count)])
    levels = []
    for level in range(len(layout.LEVELS)):
        rows = rows[feed[f"members_0_{level}"]].sum(axis=1)
        rows = rows * feed["weight_0"][:, 0] if level == 0 else rows
        levels.append(rows)
    grid = np.concatenate([[0.0], *levels])[feed["grid_0"]].ravel()
    means = np.array([np.arange(count)[index == cell].mean() for cell in index])
    np.testing.assert_allclose(grid[feed["cell_0"]], means, rtol=1e-5)
    assert np.count_nonzero(feed["grid_0"]) == len(set(index.tolist()))

"""The exported graph: what it is made of, and that it answers as the reference does."""

from collections.abc import Callable
from itertools import product
from typing import Any, get_args

import numpy as np
import onnx
import onnxruntime
import pytest
from engines import PREPROCESS, MakeBundle, voxels_of
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import graph, layout, reference
from cmp_seg_ros.engine.base import PRECISIONS
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.segmenter import softmax
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

Run = Callable[[layout.Feed], Float32]


def runtime(model: onnx.ModelProto) -> Run:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda feed: session.run(None, feed)[0]


def close(answer: Float32, truth: Float32) -> None:
    np.testing.assert_allclose(answer, truth, atol=3e-5 * max(1.0, float(np.abs(truth).max())))


def check(bundle: Bundle, voxels: Voxels) -> None:
    answer = runtime(graph.build(bundle, "fp32"))(layout.arrange(voxels, bundle.description.preprocess))
    close(answer, reference.load(bundle)(voxels))


VARIANTS = list(product(("batchnorm", "layernorm"), ("relu", "gelu"), ("linear", "mlp", "probe")))


@pytest.mark.parametrize(("norm", "activation", "head"), VARIANTS)
def test_every_variant_answers_as_the_reference(make_bundle: MakeBundle, norm: str, activation: str, head: str) -> None:
    check(make_bundle(norm=norm, activation=activation, head=head, head_hidden=40), voxels_of(2000))


@pytest.mark.parametrize(("norm", "activation", "head"), VARIANTS)
@pytest.mark.parametrize("precision", get_args(graph.Precision))
def test_only_operators_that_tensorrt_takes(
    make_bundle: MakeBundle, norm: str, activation: str, head: str, precision: graph.Precision
) -> None:
    model = graph.build(make_bundle(norm=norm, activation=activation, head=head, head_hidden=40), precision)
    onnx.checker.check_model(model, full_check=True)
    assert {node.op_type for node in model.graph.node} <= graph.OPERATORS
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
    model = onnx.shape_inference.infer_shapes(graph.build(make_bundle(), precision), strict_mode=True, data_prop=True)
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
        answer = runtime(graph.build(bundle, "fp16"))(layout.arrange(voxels, PREPROCESS))
        truth = reference.load(bundle)(voxels)
        assert 1e-7 < np.abs(softmax(answer) - softmax(truth)).mean() < 1e-3


@pytest.mark.parametrize("points", [1, 2, 3, 17, 300])
def test_every_size(make_bundle: MakeBundle, points: int) -> None:
    check(make_bundle(), voxels_of(points))


@pytest.mark.parametrize("neighbours", [1, 3, 4, 7])
def test_every_number_of_neighbours(make_bundle: MakeBundle, neighbours: int) -> None:
    preprocess = PREPROCESS.model_copy(update={"neighbours": neighbours})
    check(make_bundle(preprocess), voxels_of(300, preprocess))


def test_crowded_cells_and_a_view_that_ends_in_the_room(make_bundle: MakeBundle) -> None:
    """Coarse cells of hundreds of voxels need all levels of the sums; occupied cells touch the grid's border."""
    fields = PREPROCESS.model_dump() | {
        "fov_min": (-2, -2, -1),
        "fov_max": (2, 2, 1),
        "grids": [(3, 3), (3, 1), (3, 2)],
    }
    preprocess = PreprocessConfig.model_validate(fields)
    random = np.random.default_rng(0)
    xyz = random.uniform(-3, 3, (30000, 3)).astype(np.float32)
    voxels = prepare(xyz, random.random(30000).astype(np.float32), preprocess)[0]
    feed = layout.arrange(voxels, preprocess)
    assert len(feed["members_1_3"]) > 1 and np.bincount(voxels.cells[1]).max() > 1024
    check(make_bundle(preprocess), voxels)


def test_padded_inputs_change_nothing(make_bundle: MakeBundle) -> None:
    bundle, voxels = make_bundle(), voxels_of(900)
    run = runtime(graph.build(bundle, "fp32"))
    exact = run(layout.arrange(voxels, PREPROCESS))
    shapes = layout.bounds(1200, PREPROCESS)
    for _ in range(2):
        padded = layout.arrange(voxels, PREPROCESS, shapes)
        assert {name: value.shape for name, value in padded.items()} == shapes
        np.testing.assert_allclose(run(padded)[: len(voxels)], exact, atol=1e-5)
        shapes = {name: (1, 30, min(30, shape[2])) if "grid" in name else shape for name, shape in shapes.items()}
    with pytest.raises(layout.DoesNotFit, match=f"needs {len(voxels)} rows, the shape has 200"):
        layout.arrange(voxels, PREPROCESS, layout.bounds(200, PREPROCESS))
    with pytest.raises(layout.DoesNotFit, match="the shape is 5 x 5"):
        layout.arrange(voxels, PREPROCESS, {"grid_0": (1, 5, 5)})


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
    voxels = Voxels(
        points=np.arange(count),
        xyz=np.zeros((count, 3), np.float32),
        features=np.arange(count, dtype=np.float32)[:, None],
        neighbours=np.zeros((count, 16), np.int64),
        cells=index[None],
    )
    feed = layout.arrange(voxels, preprocess)
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


def test_precisions_are_known() -> None:
    assert set(get_args(graph.Precision)) == set(graph.ONNX_TYPE) < set(PRECISIONS)

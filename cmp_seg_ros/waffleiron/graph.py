"""Exports a bundle's network as an ONNX graph for TensorRT, ONNX Runtime and OpenVINO.

The graph is built node by node, so that it contains only what the method needs. Pooling into cells is a tree of gathers
and sums (`layout.py`) instead of a scatter: no atomics, no plugin, a deterministic sum. The number of voxels and the
size of the cropped grids are dynamic. Norms and scales are folded into adjacent layers (`fold.py`).

Precision is set by casts in the graph, for runtimes that build it strongly typed. In every precision, tokens (the
residual stream), norms, the branch of the points' own coordinates and the head are float32.
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from cmp_seg_ros.kernels.network import EPSILON
from cmp_seg_ros.waffleiron import fold
from cmp_seg_ros.waffleiron.config import NetworkConfig, PreprocessConfig
from cmp_seg_ros.waffleiron.layout import LEVELS

Precision = Literal["fp32", "fp16", "bf16"]

OPSET = 18  # TensorRT's parser supports 9 to 20 since 10.0
IR_VERSION = 9
NEIGHBOURS_AT_ONCE = 4  # neighbours processed together: bounds the largest tensor, (M x this, F)

ONNX_TYPE = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def build(
    folding: fold.Folding,
    preprocess: PreprocessConfig,
    precision: Precision,
    output: str = "logits",
    name: str = "WaffleIron",
    properties: dict[str, str] | None = None,
) -> onnx.ModelProto:
    """The graph of a network; its inputs are those of `layout.arrange`, its output is (M, outputs) float32.

    Args:
        folding: its weights.
        preprocess: of its bundle.
        precision: of linear layers, pooling and filters; OPSET has no convolution in bf16, so filters are float32 then.
        output: name of the output.
        name, properties: metadata of the file.

    Raises:
        UserError: the weights do not fit the network.
    """
    config = folding.config
    nodes = _Nodes()
    spatial: Precision = "fp32" if precision == "bf16" else precision

    tokens = _embed(nodes, folding.embedding(), preprocess.neighbours, precision)
    for index in range(config.depth):
        layer, plane = folding.layer(index), index % config.planes
        tokens = _mix_space(nodes, f"layer{index}/spatial", layer, plane, tokens, config, spatial)
        tokens = _mix_channels(nodes, f"layer{index}/channel", layer, tokens, config, precision)
    _classify(nodes, folding.head(), tokens, output, precision)
    folding.check()

    model = helper.make_model(
        helper.make_graph(
            nodes.nodes,
            name,
            inputs(preprocess),
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["voxels", config.outputs])],
            list(nodes.constants.values()),
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="cmp_seg_ros",
    )
    helper.set_model_props(model, properties or {})
    return model


def inputs(preprocess: PreprocessConfig) -> list[onnx.ValueInfoProto]:
    """The graph's inputs; dimensions of the same name have the same size. See `layout.arrange`."""
    declared: list[tuple[str, int, list[str | int]]] = [
        ("features", TensorProto.FLOAT, ["voxels", preprocess.inputs]),
        ("neighbours", TensorProto.INT32, ["voxels", preprocess.neighbours]),
    ]
    for plane in range(len(preprocess.planes)):
        declared += [
            (f"cell_{plane}", TensorProto.INT32, ["voxels"]),
            (f"weight_{plane}", TensorProto.FLOAT, [f"rows_{plane}_0", 1]),
            (f"grid_{plane}", TensorProto.INT32, [1, f"height_{plane}", f"width_{plane}"]),
        ]
        declared += [
            (f"members_{plane}_{level}", TensorProto.INT32, [f"rows_{plane}_{level}", size])
            for level, size in enumerate(LEVELS)
        ]
    return [helper.make_tensor_value_info(*fields) for fields in declared]


class _Nodes:
    """Collects nodes and constants."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.names: set[str] = set()
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        self.names.add(output)
        return output

    def constant(self, name: str, values: npt.ArrayLike, precision: Precision) -> str:
        array = np.asarray(values, np.float32)
        if precision == "bf16":
            raw = fold.to_bfloat16(np.ascontiguousarray(array)).tobytes()
            self.constants[name] = helper.make_tensor(name, TensorProto.BFLOAT16, array.shape, raw, raw=True)
        else:
            kind = np.float16 if precision == "fp16" else np.float32
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(array, kind), name)
        return name

    def integers(self, name: str, values: Iterable[int]) -> str:
        self.constants[name] = numpy_helper.from_array(np.array(list(values), np.int64), name)
        return name

    def cast(self, value: str, to: Precision, source: Precision = "fp32") -> str:
        """`value` cast to a precision; `value` itself if it already has it."""
        name = f"{value}/{to}"
        if source != to and name not in self.names:
            self.add("Cast", [value], name, to=ONNX_TYPE[to])
        return value if source == to else name

    def linear(self, name: str, value: str, linear: fold.Linear, precision: Precision) -> str:
        """(rows, inputs) -> (rows, outputs), all in that precision."""
        weight = self.constant(f"{name}/weight", linear.weight.T, precision)
        bias = self.constant(f"{name}/bias", linear.bias, precision)
        return self.add("Gemm", [value, weight, bias], name)

    def activation(self, name: str, value: str, gelu: bool, precision: Precision) -> str:
        if not gelu:
            return self.add("Relu", [value], name)
        # exact GELU: x * (0.5 erf(x / sqrt 2) + 0.5)
        scaled = self.add("Mul", [value, self.constant(f"{name}/slope", [0.5**0.5], precision)], f"{name}/scaled")
        error = self.add("Erf", [scaled], f"{name}/erf")
        half = self.constant(f"{name}/half", [0.5], precision)
        halved = self.add("Mul", [error, half], f"{name}/halved")
        return self.add("Mul", [value, self.add("Add", [halved, half], f"{name}/share")], name)

    def affine(self, name: str, value: str, affine: fold.Affine) -> str:
        scaled = self.add("Mul", [value, self.constant(f"{name}/factor", affine.factor, "fp32")], f"{name}/scaled")
        return self.add("Add", [scaled, self.constant(f"{name}/shift", affine.shift, "fp32")], name)

    def layer_norm(self, name: str, value: str, affine: fold.Affine) -> str:
        factor = self.constant(f"{name}/factor", affine.factor, "fp32")
        shift = self.constant(f"{name}/shift", affine.shift, "fp32")
        return self.add("LayerNormalization", [value, factor, shift], name, axis=-1, epsilon=float(EPSILON))


def _embed(nodes: _Nodes, embedding: fold.Embedding, neighbours: int, precision: Precision) -> str:
    """tokens (M, F) <- merge(max over neighbours j of out(relu(into(x_j - x_i)))) + point @ x_i"""
    width, inputs = embedding.into.weight.shape
    into = [
        nodes.constant("embed/into/weight", embedding.into.weight.T, precision),
        nodes.constant("embed/into/bias", embedding.into.bias, precision),
    ]
    out = nodes.constant("embed/out/weight", embedding.out.T, precision)
    here = nodes.add("Unsqueeze", ["features", nodes.integers("axis_1", [1])], "embed/here")  # (M, 1, C)
    best = ""
    for first in range(0, neighbours, NEIGHBOURS_AT_ONCE):
        name, count = f"embed/from{first}", min(NEIGHBOURS_AT_ONCE, neighbours - first)
        span = [nodes.integers(f"at_{place}", [place]) for place in (first, first + count)]
        chosen = nodes.add("Slice", ["neighbours", *span, "axis_1"], f"{name}/chosen")  # (M, k)
        there = nodes.add("Gather", ["features", chosen], f"{name}/there", axis=0)  # (M, k, C)
        difference = nodes.add("Sub", [there, here], f"{name}/difference")  # (M, k, C), exact in float32
        flat = nodes.add("Reshape", [difference, nodes.integers("pairs", [-1, inputs])], f"{name}/flat")  # (M k, C)
        hidden = nodes.add("Gemm", [nodes.cast(flat, precision), *into], f"{name}/into")  # (M k, F)
        hidden = nodes.add("Relu", [hidden], f"{name}/relu")
        hidden = nodes.add("Gemm", [hidden, out], f"{name}/out")
        shape = nodes.integers(f"by_{count}", [-1, count, width])
        hidden = nodes.add("Reshape", [hidden, shape], f"{name}/pairs")  # (M, k, F)
        greatest = nodes.add("ReduceMax", [hidden, "axis_1"], f"{name}/max", keepdims=0)  # (M, F)
        best = nodes.add("Max", [best, greatest], f"{name}/best") if best else greatest
    merged = nodes.cast(nodes.linear("embed/merge", best, embedding.merge, precision), "fp32", precision)
    point = nodes.add(
        "Gemm", ["features", nodes.constant("embed/point/weight", embedding.point.T, "fp32")], "embed/point"
    )  # coordinates of tens of metres: float32
    return nodes.add("Add", [merged, point], "embed/tokens")


def _mix_space(
    nodes: _Nodes, name: str, layer: fold.Layer, plane: int, tokens: str, config: NetworkConfig, precision: Precision
) -> str:
    """tokens <- tokens + filters(mean of norm(tokens) in each cell), at each token's cell"""
    width = config.width
    pooled = tokens
    if config.norm == "layernorm":
        pooled = nodes.layer_norm(f"{name}/norm", tokens, layer.spatial_norm)
    nothing = nodes.constant("nothing", np.zeros((1, width)), precision)
    rows = nodes.add("Concat", [nothing, nodes.cast(pooled, precision)], f"{name}/tokens", axis=0)  # (1 + M, F)
    sums = []
    for level in range(len(LEVELS)):
        members = nodes.add("Gather", [rows, f"members_{plane}_{level}"], f"{name}/members{level}", axis=0)  # (r, k, F)
        rows = nodes.add("ReduceSum", [members, "axis_1"], f"{name}/sum{level}", keepdims=0)  # (r, F)
        if level == 0:  # from here on partial means, which fit into float16
            rows = nodes.add("Mul", [rows, nodes.cast(f"weight_{plane}", precision)], f"{name}/mean")
        sums.append(rows)
    means = nodes.add("Concat", sums, f"{name}/rows", axis=0)
    if config.norm == "batchnorm":  # applied to the mean instead of all tokens
        means = nodes.cast(means, "fp32", precision)
        means = nodes.cast(nodes.affine(f"{name}/norm", means, layer.spatial_norm), precision)
    means = nodes.add("Concat", [nothing, means], f"{name}/means", axis=0)
    grid = nodes.add("Gather", [means, f"grid_{plane}"], f"{name}/grid", axis=0)  # (1, H, W, F)
    grid = nodes.add("Transpose", [grid], f"{name}/channels_first", perm=[0, 3, 1, 2])  # (1, F, H, W)
    for place, (taps, bias) in enumerate(layer.filters):
        weights = [
            nodes.constant(f"{name}/filter{place}/taps", taps.reshape(width, 1, 3, 3), precision),
            nodes.constant(f"{name}/filter{place}/bias", bias, precision),
        ]
        grid = nodes.add(
            "Conv", [grid, *weights], f"{name}/filter{place}", group=width, kernel_shape=[3, 3], pads=[1, 1, 1, 1]
        )
        if place == 0:
            grid = nodes.activation(f"{name}/activation", grid, config.activation == "gelu", precision)
    grid = nodes.add("Transpose", [grid], f"{name}/channels_last", perm=[0, 2, 3, 1])
    cells = nodes.add("Reshape", [grid, nodes.integers("cells", [-1, width])], f"{name}/cells")  # (H W, F)
    residual = nodes.add("Gather", [cells, f"cell_{plane}"], f"{name}/residual", axis=0)  # (M, F)
    return nodes.add("Add", [tokens, nodes.cast(residual, "fp32", precision)], f"{name}/out")


def _mix_channels(
    nodes: _Nodes, name: str, layer: fold.Layer, tokens: str, config: NetworkConfig, precision: Precision
) -> str:
    """tokens <- tokens + second(activation(first(norm(tokens))))"""
    first, second = layer.mixes
    if config.norm == "layernorm":
        normed = nodes.layer_norm(f"{name}/norm", tokens, layer.channel_norm)
    elif precision == "fp32":
        normed = tokens
        bias = first.bias + first.weight @ layer.channel_norm.shift
        first = fold.Linear(first.weight * layer.channel_norm.factor, bias)
    else:  # centres the values that are then rounded
        normed = nodes.affine(f"{name}/norm", tokens, layer.channel_norm)
    hidden = nodes.linear(f"{name}/first", nodes.cast(normed, precision), first, precision)
    hidden = nodes.activation(f"{name}/activation", hidden, config.activation == "gelu", precision)
    residual = nodes.linear(f"{name}/second", hidden, second, precision)
    return nodes.add("Add", [tokens, nodes.cast(residual, "fp32", precision)], f"{name}/out")


def _classify(nodes: _Nodes, head: fold.Head, tokens: str, output: str, precision: Precision) -> None:
    """output <- last(relu(hidden(norm(tokens))))"""
    last = head.last
    if head.norm is not None:
        last = fold.Linear(last.weight * head.norm.factor, last.bias + last.weight @ head.norm.shift)
    if head.hidden is not None:
        hidden = nodes.linear("head/hidden", nodes.cast(tokens, precision), head.hidden, precision)
        tokens = nodes.cast(nodes.add("Relu", [hidden], "head/relu"), "fp32", precision)
    nodes.linear(output, tokens, last, "fp32")

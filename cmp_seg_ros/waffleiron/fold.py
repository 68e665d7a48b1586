"""Folds the norms and scales of a bundle's weights into adjacent layers, and packs them for the CPU kernels.

Folding is exact algebra, done in float64; the exported graph (`graph.py`) uses the same folded weights. A norm before a
matrix product is kept, since it centres the values that are then rounded.
"""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from cmp_seg_ros.errors import UserError, require_fit
from cmp_seg_ros.kernels.network import EPSILON, Product, Weights
from cmp_seg_ros.kernels.vector import COLUMNS, LANES
from cmp_seg_ros.waffleiron.config import NetworkConfig

Float64 = npt.NDArray[np.float64]
Precision = Literal["int8", "bf16", "fp32"]


def load(path: Path, config: NetworkConfig, precision: Precision) -> Weights:
    """Read and pack the weights of a safetensors file. Raises UserError naming every missing or wrong key."""
    folding = Folding(path, config)
    weights = _pack_all(folding, precision)
    folding.check()
    return weights


class Linear(NamedTuple):
    """weight @ x + bias; (outputs, inputs) and (outputs,)."""

    weight: Float64
    bias: Float64


class Affine(NamedTuple):
    """factor * x + shift, (F,) each."""

    factor: Float64
    shift: Float64


class Embedding(NamedTuple):
    """merge(max over neighbours j of out(relu(into(x_j - x_i)))) + point @ x_i, x raw features; C inputs, F width."""

    into: Linear  # (F, C)
    out: Float64  # (F, F)
    merge: Linear  # (F, F)
    point: Float64  # (F, C)


class Layer(NamedTuple):
    """Both mixes of a layer, with their scales folded into the second filter and the second linear layer.

    Args:
        spatial_norm, channel_norm: before each mix; applied after a layer norm's own mean and deviation.
        filters: two of (F, 9) taps and (F,) bias.
        mixes: two of (F, F).
    """

    spatial_norm: Affine
    filters: tuple[Linear, Linear]
    channel_norm: Affine
    mixes: tuple[Linear, Linear]


class Head(NamedTuple):
    """last(relu(hidden(norm(x)))); norm and hidden layer are optional."""

    norm: Affine | None
    hidden: Linear | None
    last: Linear


class Folding:
    """The folded weights of a safetensors file, one part at a time, so that only one is in float64.

    Raises:
        UserError: the file cannot be read; from `check`: keys are missing, unexpected or of another shape.
    """

    def __init__(self, path: Path, config: NetworkConfig) -> None:
        try:
            tensors = safetensors.numpy.load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"weights file {path} cannot be read: {error}") from error
        self.config = config
        self._source = str(path)
        self._tensors = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
        self._asked: set[str] = set()
        self._misshapen: list[str] = []

    def check(self) -> None:
        """Raise UserError for wrong keys. Call it after all parts were read."""
        faults = {
            "missing": sorted(self._asked - self._tensors.keys()),
            "unexpected": sorted(self._tensors.keys() - self._asked),
            "of another shape": self._misshapen,
        }
        require_fit(self._source, faults)

    def _tensor(self, key: str, *shape: int) -> Float64:
        """A tensor; zeros of that shape if it is missing or of another shape, which `check` reports."""
        self._asked.add(key)
        found = self._tensors.get(key, np.zeros(shape))
        if [size for size in found.shape if size != 1] != [size for size in shape if size != 1]:
            self._misshapen.append(f"{key} is {found.shape}, not {shape}")
            found = np.zeros(shape)
        return found.astype(np.float64).reshape(shape)

    def _batch_norm(self, key: str, width: int) -> Affine:
        deviation = np.sqrt(np.maximum(self._tensor(f"{key}.running_var", width), 0) + np.float64(EPSILON))
        factor = self._tensor(f"{key}.weight", width) / deviation
        return Affine(factor, self._tensor(f"{key}.bias", width) - self._tensor(f"{key}.running_mean", width) * factor)

    def _norm(self, key: str) -> Affine:
        """A norm of the backbone as an affine map; a layer norm's own mean and deviation are applied before."""
        width = self.config.width
        if self.config.norm == "batchnorm":
            return self._batch_norm(key, width)
        return Affine(self._tensor(f"{key}.weight", width), self._tensor(f"{key}.bias", width))

    def embedding(self) -> Embedding:
        tensor, width, inputs = self._tensor, self.config.width, self.config.inputs
        # in(x_j - x_i) = norm(W norm(norm(x_j) - norm(x_i))): the first norm's shift cancels
        input_factor, input_shift = self._batch_norm("embed.norm", inputs)
        difference_factor, difference_shift = self._batch_norm("embed.conv2.0", inputs)
        width_factor, width_shift = self._batch_norm("embed.conv2.2", width)
        neighbour = width_factor[:, None] * tensor("embed.conv2.1.weight", width, inputs)  # (F, C)
        neighbour_shift = neighbour @ difference_shift + width_shift
        # merge([point(norm(x)), n]) = merge_left point(norm(x)) + merge_right n
        merge, merge_bias = tensor("embed.final.weight", width, 2 * width), tensor("embed.final.bias", width)
        point = merge[:, :width] @ tensor("embed.conv1.weight", width, inputs)  # (F, C)
        merge_bias = merge_bias + merge[:, :width] @ tensor("embed.conv1.bias", width) + point @ input_shift
        return Embedding(
            into=Linear(neighbour * difference_factor * input_factor, neighbour_shift),
            out=tensor("embed.conv2.4.weight", width, width),
            merge=Linear(merge[:, width:], merge_bias),
            point=point * input_factor,
        )

    def layer(self, layer: int) -> Layer:
        tensor, width = self._tensor, self.config.width
        spatial, channel = f"waffleiron.spatial_mix.{layer}", f"waffleiron.channel_mix.{layer}"
        spatial_scale, channel_scale = (tensor(f"{mix}.scale.weight", width) for mix in (spatial, channel))

        def filter3x3(step: int, scale: Float64) -> Linear:
            taps = tensor(f"{spatial}.ffn.{step}.weight", width, 3, 3).reshape(width, 9)
            return Linear(scale[:, None] * taps, scale * tensor(f"{spatial}.ffn.{step}.bias", width))

        def linear(step: int, scale: Float64) -> Linear:
            weight = scale[:, None] * tensor(f"{channel}.mlp.{step}.weight", width, width)
            return Linear(weight, scale * tensor(f"{channel}.mlp.{step}.bias", width))

        return Layer(
            spatial_norm=self._norm(f"{spatial}.norm"),
            filters=(filter3x3(0, np.ones(width)), filter3x3(2, spatial_scale)),
            channel_norm=self._norm(f"{channel}.norm"),
            mixes=(linear(0, np.ones(width)), linear(2, channel_scale)),
        )

    def head(self) -> Head:
        tensor, config = self._tensor, self.config
        norm = hidden = None
        last, inputs = "classif", config.width
        if config.head == "probe":
            norm = self._batch_norm("classif.0", config.width)
            last = "classif.1"
        if config.head == "mlp":
            last, inputs = "classif.2", config.head_hidden
            hidden = Linear(tensor("classif.0.weight", inputs, config.width), tensor("classif.0.bias", inputs))
        linear = Linear(tensor(f"{last}.weight", config.outputs, inputs), tensor(f"{last}.bias", config.outputs))
        return Head(norm, hidden, linear)


def _pack_all(folding: Folding, precision: Precision) -> Weights:
    config = folding.config
    width, depth = config.width, config.depth
    padded = -(-width // COLUMNS) * COLUMNS
    embedding = folding.embedding()

    norms = np.zeros((depth, 2, 2, padded), np.float32)
    filters = np.zeros((depth, 2, 10, padded), np.float32)
    mixes = []
    for index in range(depth):
        layer = folding.layer(index)
        norms[index, 0, :, :width] = layer.spatial_norm
        norms[index, 1, :, :width] = layer.channel_norm
        for place, (taps, bias) in enumerate(layer.filters):
            filters[index, place, :9, :width] = taps.T
            filters[index, place, 9, :width] = bias
        mixes += [pack(*mix, precision) for mix in layer.mixes]

    head = folding.head()
    head_norm = np.zeros((2, padded), np.float32)
    head_norm[0] = 1
    if head.norm is not None:
        head_norm[:, :width] = head.norm
    hidden = head.hidden or Linear(np.zeros((0, width)), np.zeros(0))

    return Weights(
        neighbour_in=_columns(embedding.into.weight, padded),
        neighbour_shift=_columns(embedding.into.bias[:, None], padded)[0],
        neighbour_out=pack(embedding.out, np.zeros(width), precision),
        point=_columns(embedding.point, padded),
        merge=pack(*embedding.merge, precision),
        norms=norms,
        filters=aligned(filters.reshape(depth, 2, 10, -1, LANES).transpose(0, 3, 1, 2, 4)),
        mix=aligned(np.stack([mix.weight for mix in mixes]).reshape(depth, 2, *mixes[0].weight.shape)),
        mix_columns=aligned(np.stack([mix.columns for mix in mixes]).reshape(depth, 2, 3, padded)),
        low=np.empty(0, {"int8": np.uint8, "bf16": np.uint16, "fp32": np.float32}[precision]),
        head_norm=head_norm,
        hidden=pack(*hidden, precision),
        head=pack(*head.last, precision),
        width=width,
        layer_norm=config.norm == "layernorm",
        gelu=config.activation == "gelu",
    )


def _columns(weight: Float64, padded: int) -> npt.NDArray[np.float32]:
    """(F, C) -> (C, padded)"""
    columns = np.zeros((weight.shape[1], padded), np.float32)
    columns[:, : len(weight)] = weight.T
    return aligned(columns)


def pack(weight: Float64, bias: Float64, precision: Precision, multiple: int = COLUMNS) -> Product:
    """A linear layer of (outputs, inputs) in panels of COLUMNS outputs, inputs padded with zeros to a multiple."""
    outputs, inputs = -(-weight.shape[0] // COLUMNS) * COLUMNS, -(-weight.shape[1] // multiple) * multiple
    full = np.zeros((inputs, outputs))
    full[: weight.shape[1], : weight.shape[0]] = weight.T
    columns = np.zeros((3, outputs), np.float32)
    columns[0, : len(bias)] = bias
    packed: npt.NDArray[Any] = full.astype(np.float32)
    if precision == "int8":
        step = np.abs(full).max(axis=0) / 127  # quantisation step of each output's weights
        packed = np.rint(full / np.where(step > 0, step, 1)).astype(np.int8)
        columns[1:] = step, step * packed.sum(axis=0)
    elif precision == "bf16":
        packed = to_bfloat16(packed)
    side_by_side = 4 // packed.itemsize  # inputs that share 32 bits
    steps, panels = inputs // side_by_side, outputs // COLUMNS
    packed = packed.reshape(steps, side_by_side, panels, COLUMNS).transpose(2, 0, 3, 1)
    return Product(aligned(packed.reshape(panels, steps, COLUMNS * side_by_side)), aligned(columns))


def to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper 16 bits of float32, rounded to nearest even."""
    bits = values.view(np.uint32)
    rounded: npt.NDArray[np.uint16] = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return rounded


def aligned(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A C-contiguous copy that starts at a cache line."""
    room = np.empty(values.nbytes + 64, np.uint8)
    first = -room.ctypes.data % 64
    copy: npt.NDArray[Any] = room[first : first + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy

"""A bundle's weights as the CPU kernels take them: norms and scales folded into their neighbours, matrices packed.

Folding is exact algebra, done in float64. A norm in front of a product is left there, since it centres what is then
rounded.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels.network import EPSILON, Product, Weights
from cmp_seg_ros.kernels.vector import COLUMNS, LANES
from cmp_seg_ros.waffleiron.config import NetworkConfig

Float64 = npt.NDArray[np.float64]
Precision = Literal["int8", "bf16", "fp32"]


def load(path: Path, config: NetworkConfig, precision: Precision) -> Weights:
    """Weights in a safetensors file. Raises UserError naming every key that is missing, unexpected or misshapen."""
    try:
        tensors = safetensors.numpy.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"weights file {path} cannot be read: {error}") from error
    state = _State(tensors)
    weights = _fold(state, config, precision)
    state.check(str(path))
    return weights


class _State:
    """Tensors by name, in float64; remembers which were asked for."""

    def __init__(self, tensors: dict[str, npt.NDArray[Any]]) -> None:
        self.tensors = {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
        self.asked: set[str] = set()
        self.misshapen: list[str] = []

    def __call__(self, key: str, *shape: int) -> Float64:
        """The tensor; zeros of its shape where it is not as it should be, for `check` to tell."""
        self.asked.add(key)
        found = self.tensors.get(key, np.zeros(shape))
        if [size for size in found.shape if size != 1] != [size for size in shape if size != 1]:
            self.misshapen.append(f"{key} is {found.shape}, not {shape}")
            found = np.zeros(shape)
        return found.astype(np.float64).reshape(shape)

    def check(self, source: str) -> None:
        faults = {
            "missing": sorted(self.asked - self.tensors.keys()),
            "unexpected": sorted(self.tensors.keys() - self.asked),
            "of another shape": self.misshapen,
        }
        if any(faults.values()):
            told = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in faults.items() if keys)
            raise UserError(f"weights in {source} do not fit the network: {told}")

    def batch_norm(self, key: str, width: int) -> tuple[Float64, Float64]:
        """Factor and shift."""
        deviation = np.sqrt(np.maximum(self(f"{key}.running_var", width), 0) + np.float64(EPSILON))
        factor = self(f"{key}.weight", width) / deviation
        return factor, self(f"{key}.bias", width) - self(f"{key}.running_mean", width) * factor

    def norm(self, key: str, config: NetworkConfig) -> tuple[Float64, Float64]:
        """Factor and shift of a norm of the backbone; a layer norm's own mean and deviation come before."""
        if config.norm == "batchnorm":
            return self.batch_norm(key, config.width)
        return self(f"{key}.weight", config.width), self(f"{key}.bias", config.width)


def _fold(state: _State, config: NetworkConfig, precision: Precision) -> Weights:
    width, inputs, depth = config.width, config.inputs, config.depth
    padded = -(-width // COLUMNS) * COLUMNS

    # in(x_j - x_i) = norm(W norm(norm(x_j) - norm(x_i))): the first norm's shift cancels
    input_factor, input_shift = state.batch_norm("embed.norm", inputs)
    difference_factor, difference_shift = state.batch_norm("embed.conv2.0", inputs)
    width_factor, width_shift = state.batch_norm("embed.conv2.2", width)
    neighbour = width_factor[:, None] * state("embed.conv2.1.weight", width, inputs)  # (F, C)
    neighbour_shift = neighbour @ difference_shift + width_shift
    # merge([point(norm(x)), n]) = merge_left point(norm(x)) + merge_right n
    merge, merge_bias = state("embed.final.weight", width, 2 * width), state("embed.final.bias", width)
    point = merge[:, :width] @ state("embed.conv1.weight", width, inputs)  # (F, C)
    merge_bias = merge_bias + merge[:, :width] @ state("embed.conv1.bias", width) + point @ input_shift

    norms = np.zeros((depth, 2, 2, padded), np.float32)
    filters = np.zeros((depth, 2, 10, padded), np.float32)
    mixes = []
    for layer in range(depth):
        spatial, channel = f"waffleiron.spatial_mix.{layer}", f"waffleiron.channel_mix.{layer}"
        spatial_scale, channel_scale = (state(f"{mix}.scale.weight", width) for mix in (spatial, channel))
        norms[layer, 0, :, :width] = state.norm(f"{spatial}.norm", config)
        norms[layer, 1, :, :width] = state.norm(f"{channel}.norm", config)
        for place, (step, scale) in enumerate(((0, np.ones(width)), (2, spatial_scale))):
            taps = state(f"{spatial}.ffn.{step}.weight", width, 3, 3).reshape(width, 9)
            filters[layer, place, :9, :width] = (scale[:, None] * taps).T
            filters[layer, place, 9, :width] = scale * state(f"{spatial}.ffn.{step}.bias", width)
        for step, scale in ((0, np.ones(width)), (2, channel_scale)):
            weight = scale[:, None] * state(f"{channel}.mlp.{step}.weight", width, width)
            mixes.append(_pack(weight, scale * state(f"{channel}.mlp.{step}.bias", width), precision))

    head_norm = np.zeros((2, padded), np.float32)
    head_norm[0] = 1
    hidden = _pack(np.zeros((0, width)), np.zeros(0), precision)
    last, last_inputs = "classif", width
    if config.head == "probe":
        head_norm[:, :width] = state.batch_norm("classif.0", width)
        last = "classif.1"
    if config.head == "mlp":
        last, last_inputs = "classif.2", config.head_hidden
        hidden = _pack(state("classif.0.weight", last_inputs, width), state("classif.0.bias", last_inputs), precision)
    head = state(f"{last}.weight", config.outputs, last_inputs), state(f"{last}.bias", config.outputs)

    return Weights(
        neighbour_in=_columns(neighbour * difference_factor * input_factor, padded),
        neighbour_shift=_columns(neighbour_shift[:, None], padded)[0],
        neighbour_out=_pack(state("embed.conv2.4.weight", width, width), np.zeros(width), precision),
        point=_columns(point * input_factor, padded),
        merge=_pack(merge[:, width:], merge_bias, precision),
        norms=norms,
        filters=aligned(filters.reshape(depth, 2, 10, -1, LANES).transpose(0, 3, 1, 2, 4)),
        mix=aligned(np.stack([mix.weight for mix in mixes]).reshape(depth, 2, *mixes[0].weight.shape)),
        mix_columns=aligned(np.stack([mix.columns for mix in mixes]).reshape(depth, 2, 3, padded)),
        low=np.empty(0, {"int8": np.uint8, "bf16": np.uint16, "fp32": np.float32}[precision]),
        head_norm=head_norm,
        hidden=hidden,
        head=_pack(*head, precision),
        width=width,
        layer_norm=config.norm == "layernorm",
        gelu=config.activation == "gelu",
    )


def _columns(weight: Float64, padded: int) -> npt.NDArray[np.float32]:
    """(F, C) -> (C, padded)"""
    columns = np.zeros((weight.shape[1], padded), np.float32)
    columns[:, : len(weight)] = weight.T
    return aligned(columns)


def _pack(weight: Float64, bias: Float64, precision: Precision) -> Product:
    """A linear layer of (outputs, inputs) in panels of COLUMNS outputs, both padded with zeros."""
    outputs, inputs = (-(-size // COLUMNS) * COLUMNS for size in weight.shape)
    full = np.zeros((inputs, outputs))
    full[: weight.shape[1], : weight.shape[0]] = weight.T
    columns = np.zeros((3, outputs), np.float32)
    columns[0, : len(bias)] = bias
    packed: npt.NDArray[Any] = full.astype(np.float32)
    if precision == "int8":
        step = np.abs(full).max(axis=0) / 127  # what one step of each output's weights is worth
        packed = np.rint(full / np.where(step > 0, step, 1)).astype(np.int8)
        columns[1:] = step, step * packed.sum(axis=0)
    elif precision == "bf16":
        packed = _to_bfloat16(packed)
    side_by_side = 4 // packed.itemsize  # inputs that share 32 bits
    steps, panels = inputs // side_by_side, outputs // COLUMNS
    packed = packed.reshape(steps, side_by_side, panels, COLUMNS).transpose(2, 0, 3, 1)
    return Product(aligned(packed.reshape(panels, steps, COLUMNS * side_by_side)), aligned(columns))


def _to_bfloat16(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint16]:
    """The upper halves of float32, rounded to nearest even."""
    bits = values.view(np.uint32)
    rounded: npt.NDArray[np.uint16] = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(np.uint16)
    return rounded


def aligned(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy that lies row by row from the start of a cache line."""
    room = np.empty(values.nbytes + 64, np.uint8)
    first = -room.ctypes.data % 64
    copy: npt.NDArray[Any] = room[first : first + values.nbytes].view(values.dtype).reshape(values.shape)
    copy[...] = values
    return copy

"""Initialise a network with the weights of a bundle of the same width, or of a divisor of it."""

import torch
from torch import Tensor

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.label_space import LabelSpace
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.config import NetworkConfig
from cmp_seg_ros.waffleiron.network import Segmenter


def start_with(network: Segmenter, bundle: Bundle, space: LabelSpace) -> None:
    """Load the bundle's weights; a wider network initially computes the same outputs as the bundle.

    Raises:
        UserError: the bundle has another label space or architecture, or a width that does not divide the network's.
    """
    description, width = bundle.description, network.config.width
    theirs = bundle.points.network.width
    if description.label_space.names != space.names:
        raise UserError(
            f"bundle {bundle.path} has the classes of {description.label_space.name}, the run those of {space.name}; "
            "start with another bundle, or with none"
        )
    different = _differences(bundle.points.network, network.config)
    if different:
        raise UserError(
            f"bundle {bundle.path} has another network than the run: {'; '.join(different)}; give `network` the "
            "bundle's values, or start with another bundle"
        )
    if width % theirs:
        raise UserError(
            f"bundle {bundle.path} is {theirs} wide, which does not divide {width}; "
            f"use network.width: {theirs * max(1, round(width / theirs))}, or start with another bundle"
        )
    state = weights.load(bundle.weights_path, bundle.points.network).state_dict()
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    weights.load_state(network, widened(state, theirs, shapes), str(bundle.weights_path))


def start_backbone(network: Segmenter, bundle: Bundle) -> None:
    """Load the bundle's weights but for its head; a linear head begins at zero, as published (ScaLR).

    Raises:
        UserError: the bundle has another architecture or width.
    """
    theirs = bundle.points.network
    head = {"head": theirs.head, "outputs": theirs.outputs, "head_hidden": theirs.head_hidden}
    different = _differences(theirs, network.config.model_copy(update=head))
    if theirs.width != network.config.width:
        different.append(f"width {theirs.width}, not {network.config.width}")
    if different:
        raise UserError(
            f"bundle {bundle.path} has another network than the run: {'; '.join(different)}; start with another bundle"
        )
    state = weights.load(bundle.weights_path, theirs).state_dict()
    own = network.state_dict()
    kept = {key: value for key, value in state.items() if not key.startswith("classif.")}
    weights.load_state(network, {key: kept.get(key, value) for key, value in own.items()}, str(bundle.weights_path))
    if network.config.head == "probe":
        for name in ("1.weight", "1.bias"):
            torch.nn.init.zeros_(network.classif.get_parameter(name))


def _differences(theirs: NetworkConfig, ours: NetworkConfig) -> list[str]:
    """The settings, besides the width, that decide shapes or outputs and differ."""
    free = {"width", "drop_path"} | ({"head_hidden"} if ours.head != "mlp" else set())
    own = ours.model_dump(exclude=free)
    return [
        f"{name} {value}, not {own[name]}"
        for name, value in theirs.model_dump(exclude=free).items()
        if value != own[name]
    ]


def widened(state: dict[str, Tensor], width: int, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Widen weights from `width` channels to the given shapes, whose width is a multiple; outputs stay the same.

    Each channel is repeated. Weights that read its copies are split among them at random; equal shares would always get
    equal gradients (Net2WiderNet, Chen et al., ICLR 2016).
    """
    return {key: _widened(value, width, shapes.get(key, value.shape)) for key, value in state.items()}


def _widened(value: Tensor, width: int, shape: torch.Size) -> Tensor:
    if value.ndim and shape[0] != len(value):  # channels out, or statistics and factors of them
        value = value.repeat(shape[0] // len(value), *[1] * (value.ndim - 1))
    if value.ndim == 2 and shape[1] != value.shape[1]:  # channels in; two sets of them in the merge
        sets = value.unflatten(1, (-1, 1, width))  # (out, sets, 1, width)
        shares = torch.rand(*sets.shape[:2], shape[1] // value.shape[1], width)
        value = (sets * (shares / shares.sum(dim=2, keepdim=True))).flatten(1)
    return value

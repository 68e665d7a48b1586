"""Reads and writes the weights of a network as safetensors."""

from pathlib import Path

import safetensors.torch
from torch import Tensor

from cmp_seg_ros.errors import UserError
from cmp_seg_ros.waffleiron.config import NetworkConfig
from cmp_seg_ros.waffleiron.network import Segmenter


def serialise(network: Segmenter, half: bool = True) -> bytes:
    """Weights and running statistics as safetensors, without batch counters.

    In float16 (float32 if a value exceeds its range, such as a variance of raw intensities) unless `half` is false.
    """
    state = network.state_dict()
    kept = {key: value.detach().contiguous() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    return safetensors.torch.save({key: _half(value) if half else value.float() for key, value in kept.items()})


def _half(value: Tensor) -> Tensor:
    return value.half() if value.half().isfinite().all() else value.float()


def load(path: Path, config: NetworkConfig) -> Segmenter:
    """The network in evaluation mode, float32. Raises UserError naming every missing, unexpected or wrong key."""
    try:
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"weights file {path} cannot be read: {error}") from error
    network = Segmenter(config)
    load_state(network, state, str(path))
    return network.eval().requires_grad_(False)


def load_state(network: Segmenter, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into the network; 1x1 convolutions may have the published trailing dimensions of size 1.

    Raises:
        UserError: names `source` and every key that is missing, unexpected or of another shape.
    """
    own = network.state_dict()
    optional = {key for key in own if key.endswith("num_batches_tracked")}
    missing = sorted(own.keys() - state.keys() - optional)
    unexpected = sorted(state.keys() - own.keys())
    misshapen = [
        f"{key} is {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and _squeezed(value) != _squeezed(own[key])
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(faults.values()):
        details = "; ".join(f"{what}: {', '.join(keys)}" for what, keys in faults.items() if keys)
        raise UserError(f"weights in {source} do not fit the network: {details}")
    network.load_state_dict({key: state[key].reshape(own[key].shape) if key in state else own[key] for key in own})


def _squeezed(value: Tensor) -> list[int]:
    return [size for size in value.shape if size != 1]

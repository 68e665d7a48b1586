"""Reads and writes the weights of a network as safetensors."""

from pathlib import Path

from cmp_seg_ros.network_weights import load_state, read_safetensors, serialise
from cmp_seg_ros.waffleiron.config import NetworkConfig
from cmp_seg_ros.waffleiron.network import Segmenter

__all__ = ["load", "load_state", "serialise"]


def load(path: Path, config: NetworkConfig) -> Segmenter:
    """The network in evaluation mode, float32. Raises UserError naming every missing, unexpected or wrong key."""
    network = Segmenter(config)
    load_state(network, read_safetensors(path), str(path))
    return network.eval().requires_grad_(False)

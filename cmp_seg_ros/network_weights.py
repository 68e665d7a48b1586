"""Weights of networks: safetensors of bundles, and PyTorch checkpoints of others."""

import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from cmp_seg_ros.errors import UserError, describe, require_fit


def serialise(network: nn.Module, half: bool = True) -> bytes:
    """Weights and running statistics as safetensors, without batch counters.

    In float16 (float32 if a value exceeds its range, such as a variance of raw intensities) unless `half` is false.
    """
    state = network.state_dict()
    kept = {key: value.detach().contiguous() for key, value in state.items() if not key.endswith("num_batches_tracked")}
    return safetensors.torch.save({key: _half(value) if half else value.float() for key, value in kept.items()})


def _half(value: Tensor) -> Tensor:
    return value.half() if value.half().isfinite().all() else value.float()


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Raises UserError."""
    try:
        return safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f"weights file {path} cannot be read: {error}") from error


def load_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
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
    require_fit(source, faults)
    network.load_state_dict({key: state[key].reshape(own[key].shape) if key in state else own[key] for key in own})


def _squeezed(value: Tensor) -> list[int]:
    return [size for size in value.shape if size != 1]


def read_checkpoint(path: Path) -> Any:
    """A file of torch.save: tensors, numbers and plain containers only, so that no code can run. Raises UserError."""
    scalar: Any = np.float64(0).__reduce__()[0]  # scores and learning rates are numpy's
    trusted: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    trusted += [np.dtype, *(type(np.dtype(name)) for name in ("f4", "f8", "i4", "i8"))]
    try:
        with torch.serialization.safe_globals(trusted):
            return torch.load(path, "cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except OSError as error:
        raise UserError(
            f"checkpoint {path} cannot be read: {error.strerror or error}; give the published .pth, unpacked"
        ) from error
    except pickle.UnpicklingError as error:
        refused = re.search(r"(?:GLOBAL|global) ([\w.]+)", str(error))
        reason = f"it refers to {refused[1]}" if refused and "." in refused[1] else "not a checkpoint, or damaged"
        raise UserError(
            f"checkpoint {path} is not loaded, since it must contain only tensors and numbers ({reason}); unpack it "
            "from its archive again, or save its weights with torch.save({'net': network.state_dict()}, FILE)"
        ) from error
    except Exception as error:  # a damaged pickle can end in any error
        reason = describe(error).splitlines()[0]
        raise UserError(f"checkpoint {path} is damaged or not from PyTorch ({reason}); download it again") from error

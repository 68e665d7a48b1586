"""The interface of an engine, and how one is chosen."""

from importlib import import_module
from typing import TYPE_CHECKING, Protocol

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.preprocess import Voxels

if TYPE_CHECKING:
    from cmp_seg_ros.engine.exported import Runtime

PRECISIONS = ("int8", "bf16", "fp16", "fp32")

# One file per runtime beside this one, each with a function `load(bundle, precision) -> Engine`.
ENGINES = ("reference", "cpu", "onnxruntime", "openvino", "tensorrt")


class Engine(Protocol):
    """Evaluates the network of one bundle."""

    name: str
    precision: str

    def __call__(self, voxels: Voxels) -> Float32:
        """M voxels of one scan -> (M, C) float32 logits."""
        ...


def module_of(name: str) -> str:
    """The file of the engine `name`, which may end in a precision as in `cpu-bf16`. Raises UserError.

    `auto` is the fastest that this machine runs.
    """
    engine = name.partition("-")[0]
    if engine == "auto":
        return "cpu"
    if engine not in ENGINES:
        raise UserError(f"no engine '{name}'; known: auto, {', '.join(ENGINES)}")
    return engine


def load_engine(bundle: Bundle, name: str = "auto") -> Engine:
    """The engine `name` of a bundle, in the precision that the name ends in, or else that the engine thinks best.

    Raises UserError.
    """
    engine: Engine = import_module(f"cmp_seg_ros.engine.{module_of(name)}").load(bundle, name.partition("-")[2])
    return engine


def runtime_of(name: str, precision: str = "") -> "tuple[Runtime, str]":
    """What runs the engine `name` here, and the precision that is asked for, by itself or at the end of the name.

    Raises:
        UserError: no such engine; its runtime is not installed; it has nothing to export; two precisions.
    """
    module, options = import_module(f"cmp_seg_ros.engine.{module_of(name)}"), name.split("-")[1:]
    if not hasattr(module, "runtime"):
        raise UserError(f"engine '{name}' runs the bundle as it is: there is nothing to export")
    if options and options[-1] in PRECISIONS:
        if precision not in ("", options[-1]):
            raise UserError(f"engine '{name}' names another precision than {precision}; name one")
        precision = options.pop()
    if len(options) > (module_of(name) == "onnxruntime"):  # which has providers
        raise UserError(f"no engine '{name}'; precisions are {', '.join(PRECISIONS)}")
    return module.runtime(*options), precision


def softmax(logits: Float32) -> Float32:
    """(M, C) probabilities."""
    columns = np.ascontiguousarray(logits.T)  # (C, M): numpy is slow along short rows
    columns = np.exp(columns - columns.max(axis=0))
    columns /= columns.sum(axis=0)
    return np.ascontiguousarray(columns.T)  # (M, C)

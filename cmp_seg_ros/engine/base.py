"""Interfaces of engines and runtimes.

A Runtime (such as ONNX Runtime) turns the network of a bundle into an Engine, which maps named input arrays to named
output arrays. A runtime is one file in `runtimes/`.
"""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from cmp_seg_ros.engine import cache
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Arrays, Float32
from cmp_seg_ros.waffleiron.model import WaffleIron


class Engine(Protocol):
    """Runs the network of one bundle, with the network's inputs and outputs."""

    name: str
    precision: str

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run the network. Raises UserError if the inputs are too large or the device fails."""
        ...


class Missing(NamedTuple):
    """A requirement that this machine does not meet, and how to fix that."""

    what: str
    remedy: str


class Stale(UserError):
    """A built engine can no longer be used and must be rebuilt."""


class Runtime(ABC):
    """A library or device that runs networks.

    Attributes:
        name: name of its engines; begins with the name of its file.
        packages: required Python modules, by their pip names.
        colour: of its lines in the plot of `cmp-seg bench`.
        on_gpu: whether it runs on an NVIDIA GPU.
        exact: whether other engines are checked against its float32.
        builds: whether engines are built and cached.
        compiled: folder of the code compiled when an engine is opened, if any.
    """

    name: str
    packages: Sequence[str] = ()
    colour: str = "C5"
    on_gpu = False
    exact = False
    builds = True
    compiled: Path | None = None

    @abstractmethod
    def precisions(self) -> list[str]:
        """Precisions on this machine, fastest first, fp32 last. This and the methods below need an empty `missing`."""

    @abstractmethod
    def open(self, network: WaffleIron, built: bytes, precision: str) -> Engine:
        """An engine, ready to run. Raises Stale if `built` must be rebuilt, and UserError."""

    def version(self) -> str:
        """Version of the library, by default of the first package."""
        return version(self.packages[0])

    def hardware(self) -> str:
        """Short name of the hardware that it runs on, by default the processor."""
        return cache.processor()

    def build(self, network: WaffleIron, precision: str) -> bytes:
        """Build the input of `open`, by default the graph; may take minutes. Raises UserError."""
        return network.graph(precision)

    def missing(self) -> list[Missing]:
        """Requirements that this machine does not meet."""
        absent = [name for name in self.packages if find_spec(name) is None]
        return [Missing(f"no {' and no '.join(absent)}", f"pip install {' '.join(self.packages)}")] if absent else []

    def reason(self) -> str:
        """Why it cannot run here, and what to do; empty if it can."""
        return "; ".join(f"{lack.what}: {lack.remedy}" for lack in self.missing())

    @property
    def sources(self) -> list[Path]:
        """Source files of ours that a built engine depends on, besides those of the network."""
        return [Path(inspect.getfile(type(self)))]


class GraphEngine:
    """Runs the exported graph of a network.

    Args:
        name, precision: of the engine, as the user selects it.
        network: the network of the graph.
        run: maps the graph's inputs to its outputs, which must be new arrays at each call.
    """

    def __init__(self, name: str, precision: str, network: WaffleIron, run: Callable[[Arrays], Arrays]) -> None:
        self.name, self.precision = name, precision
        self._network, self._run = network, run

    def __call__(self, inputs: Arrays) -> Arrays:
        return self._network.trim(self._run(self._network.feed(inputs)), inputs)


def load_package(name: str, engine: str) -> Any:
    """Import a package that an engine needs. Raises UserError if it is installed but cannot be imported."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"engine '{engine}' needs the package {name}, which cannot be imported: {error}") from error


def softmax(logits: Float32) -> Float32:
    """(M, C) logits -> (M, C) probabilities."""
    columns = np.ascontiguousarray(logits.T)  # (C, M): numpy is slow along short rows
    columns = np.exp(columns - columns.max(axis=0))
    columns /= columns.sum(axis=0)
    return np.ascontiguousarray(columns.T)  # (M, C)

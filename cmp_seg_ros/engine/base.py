"""What engines, runtimes and networks are to each other.

A Runtime (ONNX Runtime, say) makes an Engine of a Network (that of a bundle), which turns named arrays into named
arrays. A runtime is one file in `runtimes/`; a network is one class, such as `waffleiron.model.WaffleIron`.
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
import numpy.typing as npt

from cmp_seg_ros.engine import cache
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Arrays, Float32

Shape = tuple[int, ...]


class Engine(Protocol):
    """Evaluates the network of one bundle. Its inputs and outputs are those of the network."""

    name: str
    precision: str

    def __call__(self, inputs: Arrays) -> Arrays:
        """Raises UserError where the inputs are more than it can take, or where a device fails."""
        ...


class Network(Protocol):
    """The network of a bundle."""

    @property
    def sources(self) -> Sequence[Path]:
        """Files of ours that what is built depends on."""
        ...

    @property
    def samples_version(self) -> str:
        """Another one when `samples` change."""
        ...

    def samples(self) -> list[dict[str, Arrays]]:
        """Inputs to check engines with, by name, in groups that are judged one by one."""
        ...

    def plain(self) -> Callable[[Arrays], Arrays]:
        """The network in PyTorch and float32, as it was trained."""
        ...

    def graph(self, precision: str) -> bytes:
        """An ONNX model, serialised; its casts are those of "fp32", "fp16" or "bf16"."""
        ...

    def feed(self, inputs: Arrays, rounded: bool = False) -> dict[str, npt.NDArray[Any]]:
        """The inputs of the graph; `rounded` pads them to shapes that repeat. Raises UserError for too large a scan."""
        ...

    def profile(self) -> dict[str, tuple[Shape, Shape, Shape]]:
        """Least, typical and greatest shape of each input of the graph, where it is rounded."""
        ...

    def trim(self, outputs: Arrays, inputs: Arrays) -> Arrays:
        """The outputs without what belongs to padding."""
        ...


class Lack(NamedTuple):
    """Something that this machine does not have."""

    what: str
    remedy: str


class Stale(UserError):
    """What was built cannot be used any more and must be built again."""


class Runtime(ABC):
    """A library or device that evaluates networks.

    Attributes:
        name: of its engines; begins with the name of its file.
        packages: Python modules that it needs, by the names that pip knows.
        colour: of its lines in the picture of `cmp-seg bench`.
        on_gpu: whether it runs on an NVIDIA GPU.
        exact: whether its float32 is what others are checked against.
        builds: whether it has something to build, which is kept in the cache.
        compiled: folder of the code that opening an engine compiles, where it does.
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
        """Those that it has here, fastest first and fp32 last. Call this and what follows where nothing is missing."""

    @abstractmethod
    def open(self, network: Network, built: bytes, precision: str) -> Engine:
        """An engine, ready to run. Raises Stale where what was built must be built again; UserError."""

    def version(self) -> str:
        """Of the library; by default that of the first package."""
        return version(self.packages[0])

    def hardware(self) -> str:
        """That it runs on, in a word; by default the processor."""
        return cache.processor()

    def build(self, network: Network, precision: str) -> bytes:
        """What `open` takes; may take minutes. By default the graph itself. Raises UserError."""
        return network.graph(precision)

    def missing(self) -> list[Lack]:
        """What it needs and this machine does not have."""
        absent = [name for name in self.packages if find_spec(name) is None]
        return [Lack(f"no {' and no '.join(absent)}", f"pip install {' '.join(self.packages)}")] if absent else []

    def reason(self) -> str:
        """Why it cannot run here, and what to do; empty where it can."""
        return "; ".join(f"{lack.what}: {lack.remedy}" for lack in self.missing())

    def require(self) -> None:
        """Raises UserError where it cannot run here."""
        if reason := self.reason():
            raise UserError(f"engine '{self.name}' cannot run here: {reason}")

    @property
    def sources(self) -> list[Path]:
        """Files of ours that what is built depends on, beside those of the network."""
        return [Path(inspect.getfile(type(self)))]


class GraphEngine:
    """Runs the exported graph of a network.

    Args:
        name, precision: as one asks for it.
        network: whose graph it is.
        run: takes the graph's inputs, gives its outputs, which are not written to again.
    """

    def __init__(self, name: str, precision: str, network: Network, run: Callable[[Arrays], Arrays]) -> None:
        self.name, self.precision = name, precision
        self._network, self._run = network, run

    def __call__(self, inputs: Arrays) -> Arrays:
        return self._network.trim(self._run(self._network.feed(inputs)), inputs)


def load_package(name: str, engine: str) -> Any:
    """A package that an engine needs. Raises UserError where it is there and yet cannot be imported."""
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(f"engine '{engine}' needs the package {name}, which cannot be imported: {error}") from error


def softmax(logits: Float32) -> Float32:
    """(M, C) probabilities."""
    columns = np.ascontiguousarray(logits.T)  # (C, M): numpy is slow along short rows
    columns = np.exp(columns - columns.max(axis=0))
    columns /= columns.sum(axis=0)
    return np.ascontiguousarray(columns.T)  # (M, C)

"""From a bundle to an engine of some runtime: build it or take it from the cache, check it, choose a precision."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.digest import digest
from cmp_seg_ros.engine import cache, parity
from cmp_seg_ros.engine.base import Engine
from cmp_seg_ros.engine.layout import DoesNotFit, Feed, arrange
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.preprocess import Voxels

INSTALL_ONNX = "pip install onnx"
GRAPH_SOURCES = tuple(Path(__file__).parent / name for name in ("graph.py", "layout.py", "fold.py"))

logger = logging.getLogger(__name__)


class Stale(UserError):
    """What was built does not serve any more and must be built again."""


@dataclass(frozen=True)
class Runtime:
    """What evaluates networks on this machine.

    Args:
        name: of the engine, as one asks for it.
        version: of the runtime.
        hardware: that it runs on, in a word.
        precisions: that it has here, fastest first and fp32 last.
        sources: files of ours that what is built depends on.
        open: makes an engine of what was built. Raises Stale where that must be built again.
        build: makes what is kept of a bundle in a precision; None where there is nothing to keep.
        compiled: folder of the code that opening an engine compiles, where it does.
    """

    name: str
    version: str
    hardware: str
    precisions: Sequence[str]
    sources: Sequence[Path]
    open: Callable[[Bundle, bytes, str], Engine]
    build: Callable[[Bundle, str], bytes] | None = None
    compiled: Path | None = None

    def key(self, bundle: Bundle, precision: str) -> cache.Key:
        return cache.Key(bundle.hash, self.name, self.version, digest(self.sources), precision, self.hardware)

    def keep(self, bundle: Bundle, precision: str, fresh: bool = False, must_keep: bool = True) -> bytes:
        """What is kept of a bundle, built where need be.

        Raises:
            UserError: this machine lacks the precision; what was built cannot be kept and must be.
        """
        if precision not in self.precisions:
            known = ", ".join(self.precisions)
            raise UserError(f"this machine has no {precision} for engine '{self.name}'; it has {known}")
        if must_keep and self.compiled is not None:
            cache.require_writable(self.compiled)
        if self.build is None:
            return b""
        build = self.build
        return cache.obtain(self.key(bundle, precision), lambda: build(bundle, precision), fresh, must_keep)

    def engine(self, bundle: Bundle, precision: str) -> Engine:
        """Ready to run, unchecked. Raises UserError."""
        try:
            return self.open(bundle, self.keep(bundle, precision, must_keep=False), precision)
        except Stale as error:
            logger.warning("%s", error)
            return self.open(bundle, self.keep(bundle, precision, fresh=True, must_keep=False), precision)

    def load(self, bundle: Bundle, precision: str = "") -> Engine:
        """The engine in the fastest precision that answers as float32 does, or in the named one, which may not.

        Raises:
            UserError: this machine lacks the precision; none is named, and not even float32 answers as it should.
        """
        exact = parity.Exact("cpu-fp32", bundle)  # not PyTorch, which takes its time to import
        if precision:
            return self._named(bundle, precision, exact)
        for candidate in self.precisions:
            known = parity.Agreement.recall(self.key(bundle, candidate))
            if known is not None and not self.takes(known, candidate):
                continue
            engine = self.engine(bundle, candidate)
            known = known or self._check_at_start(bundle, engine, exact)
            if known is None or self.takes(known, candidate):
                return engine
        raise self.no_precision_left()

    def _named(self, bundle: Bundle, precision: str, exact: parity.Exact) -> Engine:
        """Checked like any other where the bundle is trained, but taken whatever comes of it."""
        engine = self.engine(bundle, precision)
        known = parity.Agreement.recall(self.key(bundle, precision))
        if known is None and bundle.description.training:
            known = self._check_at_start(bundle, engine, exact)
        if known is not None and not self._sound(known, precision):
            logger.warning("%s-%s is taken since it is asked for, but %s", self.name, precision, known)
        return engine

    def _check_at_start(self, bundle: Bundle, engine: Engine, exact: parity.Exact) -> parity.Agreement | None:
        """None for the exact engine itself."""
        return None if f"{self.name}-{engine.precision}" == exact.name else self.check(bundle, engine, exact)

    def check(self, bundle: Bundle, engine: Engine, exact: parity.Exact) -> parity.Agreement:
        """How the engine answers on sample scans; remembered."""
        found = parity.agreement(bundle, engine, exact)
        found.remember(self.key(bundle, engine.precision))
        return found

    def takes(self, found: parity.Agreement, precision: str) -> bool:
        """Whether an engine that answers so is taken; where not, that is said."""
        taken = self._sound(found, precision)
        if not taken:
            logger.warning("%s-%s is not taken: %s", self.name, precision, found)
        return taken

    @staticmethod
    def _sound(found: parity.Agreement, precision: str) -> bool:
        """Whether it answers as it should; of float32 that is believed where the bundle sees no sample scan."""
        return found.passes or (precision == "fp32" and not found.scans)

    def no_precision_left(self) -> UserError:
        return UserError(
            f"engine '{self.name}' answers otherwise than the reference in every precision; take engine "
            f"'{'reference' if self.name == 'cpu' else 'cpu'}', and report this"
        )


class GraphEngine:
    """Runs the exported graph on one scan after the other.

    Args:
        name, precision: as one asks for it.
        bundle: the model.
        run: takes the inputs of `layout.arrange`, gives (M, outputs) float32 that are free for the taking.
    """

    def __init__(self, name: str, precision: str, bundle: Bundle, run: Callable[[Feed], Float32]) -> None:
        self.name, self.precision = name, precision
        self._preprocess = bundle.description.preprocess
        self._outputs = bundle.description.network.outputs
        self._run = run

    def __call__(self, voxels: Voxels) -> Float32:
        """Raises UserError where a cell holds more voxels than the graph can sum."""
        if len(voxels) == 0:
            return np.empty((0, self._outputs), np.float32)
        try:
            feed = arrange(voxels, self._preprocess)
        except DoesNotFit as error:
            raise UserError(f"engine '{self.name}' cannot take a scan: {error}; take engine 'cpu'") from error
        return self._run(feed)


def serialised_graph(bundle: Bundle, precision: str) -> bytes:
    """The ONNX graph in "fp32", "fp16" or "bf16". Raises UserError where package onnx is not installed."""
    try:
        from cmp_seg_ros.engine import graph
    except ModuleNotFoundError as error:
        raise UserError(f"exporting a bundle needs the package {error.name}: {INSTALL_ONNX}") from error
    return graph.build(bundle, cast(graph.Precision, precision)).SerializeToString()

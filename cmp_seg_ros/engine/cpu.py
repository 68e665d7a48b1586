"""The network on this machine's processor, with kernels of our own; the default. Does not need PyTorch."""

import logging
from pathlib import Path
from typing import cast

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import cache, fold
from cmp_seg_ros.engine.base import Engine
from cmp_seg_ros.engine.exported import Runtime
from cmp_seg_ros.kernels import network
from cmp_seg_ros.kernels.launch import aside, cache_folder, is_cached, launch
from cmp_seg_ros.kernels.vector import HAS_BFLOAT16, HAS_INT8
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

logger = logging.getLogger(__name__)


class CpuEngine:
    """Occupied cells only, memory kept from scan to scan.

    Args:
        bundle: the model.
        precision: of the products.

    Raises:
        UserError: the weights cannot be read or do not fit the bundle's network.
    """

    name = "cpu"

    def __init__(self, bundle: Bundle, precision: fold.Precision) -> None:
        self.precision: str = precision
        self.config = bundle.description.network
        self.preprocess = bundle.description.preprocess
        self.weights = fold.load(bundle.weights_path, self.config, precision)
        self._tokens = self._scratch = self._statistics = np.empty((0, 0), np.float32)
        self._warm_up()

    def __call__(self, voxels: Voxels) -> Float32:
        logits = np.empty((len(voxels), self.config.outputs), np.float32)
        if len(voxels) == 0:
            return logits
        self._reserve(len(voxels))
        planes = tuple(
            network.Plane(*network.lay_out(cells, *grid))
            for cells, grid in zip(voxels.cells, self.preprocess.grids, strict=True)
        )
        launch(
            network.evaluate,
            self.weights,
            np.ascontiguousarray(voxels.features),
            np.ascontiguousarray(voxels.neighbours),
            planes,
            self._tokens[: len(voxels)],
            self._scratch[: len(voxels)],
            self._statistics[: len(voxels)],
            logits,
            blocks=-(-len(voxels) // network.BLOCK),
            phases=network.phases(self.config.depth),
        )
        return logits

    def _reserve(self, voxels: int) -> None:
        """Memory for so many voxels, and some more."""
        if voxels > len(self._tokens):
            rows, width = voxels * 5 // 4, self.weights.norms.shape[-1]
            self._tokens, self._scratch = (fold.aligned(np.zeros((rows, width), np.float32)) for _ in range(2))
            self._statistics = np.zeros((rows, 2), np.float32)

    def _warm_up(self) -> None:
        """Have everything compiled before the first scan comes."""
        if is_cached(network.evaluate):
            self._first()
        else:
            told = "compiling for this processor; this takes about half a minute, once"
            logger.warning(told, extra=cache.PROGRESS)
            aside(self._first, finish=False)  # LLVM would pass over a Ctrl-C, or fail of it

    def _first(self) -> None:
        middle = (np.array(self.preprocess.fov_min) + self.preprocess.fov_max) / 2
        self(prepare(middle.astype(np.float32)[None], np.zeros(1, np.float32), self.preprocess)[0])


def precisions() -> list[fold.Precision]:
    """Those that this processor has, fastest first."""
    has: dict[fold.Precision, bool] = {"int8": HAS_INT8, "bf16": HAS_BFLOAT16, "fp32": True}
    return [precision for precision, there in has.items() if there]


def runtime() -> Runtime:
    return Runtime(
        name="cpu",
        version=cache_folder().name,
        hardware=cache.processor(),
        precisions=precisions(),
        sources=[Path(__file__), Path(fold.__file__)],
        open=lambda bundle, _, precision: CpuEngine(bundle, cast(fold.Precision, precision)),
        compiled=cache_folder(),
    )


def load(bundle: Bundle, precision: str = "") -> Engine:
    """The engine in the named precision, or in the fastest that answers as float32 does. Raises UserError."""
    return runtime().load(bundle, precision)

"""WaffleIron on the CPU with our own kernels; the default. Does not need PyTorch."""

import logging
from typing import cast

import numpy as np

from cmp_seg_ros.engine import cache
from cmp_seg_ros.engine.base import Engine, Runtime
from cmp_seg_ros.kernels import network as kernels
from cmp_seg_ros.kernels.launch import cache_folder, compile_in_background, is_cached, launch
from cmp_seg_ros.kernels.vector import HAS_BFLOAT16, HAS_INT8
from cmp_seg_ros.scan import Arrays
from cmp_seg_ros.waffleiron import fold
from cmp_seg_ros.waffleiron.model import WaffleIron
from cmp_seg_ros.waffleiron.preprocess import prepare

logger = logging.getLogger(__name__)


class CpuEngine:
    """Computes occupied cells only, and reuses its memory from scan to scan.

    Args:
        network: the network to run.
        precision: of the matrix products.

    Raises:
        UserError: the weights cannot be read or do not fit the bundle's network.
    """

    name = "cpu"

    def __init__(self, network: WaffleIron, precision: str) -> None:
        self.precision = precision
        self.output, self.config, self.preprocess = network.output, network.config, network.preprocess
        self.weights = fold.load(network.weights, self.config, cast(fold.Precision, precision))
        self._tokens = self._scratch = self._statistics = np.empty((0, 0), np.float32)
        self._warm_up()

    def __call__(self, inputs: Arrays) -> Arrays:
        features, voxels = inputs["features"], len(inputs["features"])
        logits = np.empty((voxels, self.config.outputs), np.float32)
        self._reserve(voxels)
        planes = tuple(
            kernels.Plane(*kernels.locate_cells(cells, *grid))
            for cells, grid in zip(inputs["cells"], self.preprocess.grids, strict=True)
        )
        launch(
            kernels.evaluate,
            self.weights,
            np.ascontiguousarray(features),
            np.ascontiguousarray(inputs["neighbours"]),
            planes,
            self._tokens[:voxels],
            self._scratch[:voxels],
            self._statistics[:voxels],
            logits,
            blocks=-(-voxels // kernels.BLOCK),
            phases=kernels.phases(self.config.depth),
        )
        return {self.output: logits}

    def _reserve(self, voxels: int) -> None:
        """Allocate memory for so many voxels, and some more."""
        if voxels > len(self._tokens):
            rows, width = voxels * 5 // 4, self.weights.norms.shape[-1]
            self._tokens, self._scratch = (fold.aligned(np.zeros((rows, width), np.float32)) for _ in range(2))
            self._statistics = np.zeros((rows, 2), np.float32)

    def _warm_up(self) -> None:
        """Compile all kernels before the first scan."""
        if is_cached(kernels.evaluate):
            self._first()
        else:
            logger.warning("compiling for this processor; this takes about half a minute, once", extra=cache.PROGRESS)
            compile_in_background(self._first)

    def _first(self) -> None:
        middle = (np.array(self.preprocess.fov_min) + self.preprocess.fov_max) / 2
        voxels, _ = prepare(middle.astype(np.float32)[None], np.zeros(1, np.float32), self.preprocess)
        self(voxels.inputs._asdict())


class Cpu(Runtime):
    name = "cpu"
    colour = "C0"
    exact = True
    builds = False
    compiled = cache_folder()

    def precisions(self) -> list[str]:
        has = {"int8": HAS_INT8, "bf16": HAS_BFLOAT16, "fp32": True}
        return [precision for precision, there in has.items() if there]

    def version(self) -> str:
        return cache_folder().name

    def open(self, network: WaffleIron, built: bytes, precision: str) -> Engine:
        return CpuEngine(network, precision)


RUNTIMES = (Cpu(),)

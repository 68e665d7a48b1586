"""PyTorch in float32: the reference for all other engines."""

from cmp_seg_ros.engine.base import Engine, Runtime
from cmp_seg_ros.scan import Arrays
from cmp_seg_ros.waffleiron.model import WaffleIron


class ReferenceEngine:
    """The network in PyTorch."""

    name = "reference"
    precision = "fp32"

    def __init__(self, network: WaffleIron) -> None:
        self._run = network.plain()

    def __call__(self, inputs: Arrays) -> Arrays:
        return self._run(inputs)


class Reference(Runtime):
    name = "reference"
    packages = ("torch",)
    colour = "C3"
    exact = True
    builds = False

    def precisions(self) -> list[str]:
        return ["fp32"]

    def open(self, network: WaffleIron, built: bytes, precision: str) -> Engine:
        return ReferenceEngine(network)


RUNTIMES = (Reference(),)

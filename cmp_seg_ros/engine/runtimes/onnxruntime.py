"""ONNX Runtime: `onnxruntime-cuda` on an NVIDIA GPU, `onnxruntime-cpu` on the CPU.

On x86 CPUs ONNX Runtime has no faster matrix product below float32 without calibration, so only fp32 is offered.

The CUDA provider has not been run by us.
"""

from importlib.util import find_spec
from typing import Any

from cmp_seg_ros.engine import cuda
from cmp_seg_ros.engine.base import Engine, GraphEngine, Missing, Runtime, Stale, load_package
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.scan import Arrays
from cmp_seg_ros.waffleiron.model import WaffleIron


class OnnxRuntime(Runtime):
    """One execution provider of ONNX Runtime."""

    packages = ("onnxruntime", "onnx")
    colour = "C1"

    def __init__(self, provider: str, options: dict[str, str], precisions: list[str], on_gpu: bool) -> None:
        self.provider, self.options, self._precisions, self.on_gpu = provider, options, precisions, on_gpu
        self.name = f"onnxruntime-{'cuda' if on_gpu else 'cpu'}"

    def missing(self) -> list[Missing]:
        lacks = super().missing()
        if not find_spec("onnxruntime") or self.provider in _package().get_available_providers():
            return lacks
        remedy = "pip uninstall onnxruntime, then pip install onnxruntime-gpu"
        return [*lacks, Missing(f"ONNX Runtime has no {self.provider}", remedy)]

    def precisions(self) -> list[str]:
        return self._precisions

    def version(self) -> str:
        return str(_package().__version__)

    def hardware(self) -> str:
        return str(cuda.gpu() or "gpu") if self.on_gpu else super().hardware()

    def open(self, network: WaffleIron, built: bytes, precision: str) -> Engine:
        """Raises Stale if the model cannot be read, UserError if the provider does not start."""
        package = _package()
        options = package.SessionOptions()
        options.intra_op_num_threads = threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        options.add_session_config_entry("session.force_spinning_stop", "1")  # other stages need the cores between runs
        try:
            session = package.InferenceSession(built, options, providers=[(self.provider, self.options)])
        except Exception as error:  # its exceptions have no common base class
            reason = " ".join(str(error).split())
            raise Stale(f"ONNX Runtime cannot read the built model: {reason}") from error
        if session.get_providers()[0] != self.provider:
            raise UserError(
                f"ONNX Runtime's {self.provider} does not start on this machine; see its message above, or use engine "
                "'onnxruntime-cpu'"
            )
        names = [output.name for output in session.get_outputs()]

        def run(feed: Arrays) -> Arrays:
            return dict(zip(names, session.run(names, feed), strict=True))

        return GraphEngine(self.name, precision, network, run)


def _package() -> Any:
    return load_package("onnxruntime", "onnxruntime")


RUNTIMES = (
    OnnxRuntime(
        "CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}, ["fp16", "fp32"], on_gpu=True
    ),
    OnnxRuntime("CPUExecutionProvider", {}, ["fp32"], on_gpu=False),
)

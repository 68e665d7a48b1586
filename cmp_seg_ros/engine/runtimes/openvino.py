"""OpenVINO on the CPU.

Lower precision comes from the casts in the graph; OpenVINO's own hint would also round the tokens and change labels.
"""

import functools
import io
from typing import Any

from cmp_seg_ros.engine.base import Engine, GraphEngine, Runtime, Stale, load_package
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.scan import Arrays
from cmp_seg_ros.waffleiron.model import WaffleIron


class OpenVino(Runtime):
    name = "openvino"
    packages = ("openvino", "onnx")
    colour = "C2"

    def precisions(self) -> list[str]:
        has = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return [*(["bf16"] if "BF16" in has else []), "fp32"]

    def build(self, network: WaffleIron, precision: str) -> bytes:
        """The graph compiled by OpenVINO for this processor."""
        model = core().read_model(io.BytesIO(network.graph(precision)))
        blob = io.BytesIO()
        core().compile_model(model, "CPU", _options()).export_model(blob)
        return blob.getvalue()

    def open(self, network: WaffleIron, built: bytes, precision: str) -> Engine:
        try:
            request = core().import_model(io.BytesIO(built), "CPU", _options()).create_infer_request()
        except RuntimeError as error:
            raise Stale(f"OpenVINO cannot read the built model: {' '.join(str(error).split())}") from error

        def run(feed: Arrays) -> Arrays:
            outputs = request.infer(feed, share_inputs=True)  # copies, unless shared
            return {port.any_name: values for port, values in outputs.items()}

        return GraphEngine(self.name, precision, network, run)


def _options() -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",  # only the casts in the graph round
        "INFERENCE_NUM_THREADS": threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # other stages and programs use these cores, too
    }


@functools.cache
def core() -> Any:
    """The OpenVINO core of this process. Never freed, since that would free the thread's alternate signal stack.

    The next signal, such as Ctrl-C, would then crash the process.
    """
    return load_package("openvino", "openvino").Core()


RUNTIMES = (OpenVino(),)

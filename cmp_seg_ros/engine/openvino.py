"""The network on this machine's processor by OpenVINO, from the graph of `graph.py`.

Lower precision is what the graph's casts say; OpenVINO's own hint would also round the tokens, which costs labels.
"""

import functools
import io
from pathlib import Path
from typing import Any

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import cache, packages
from cmp_seg_ros.engine.base import Engine
from cmp_seg_ros.engine.exported import GRAPH_SOURCES, GraphEngine, Runtime, Stale, serialised_graph
from cmp_seg_ros.engine.layout import Feed
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.scan import Float32

PACKAGES = ("openvino", "onnx")
INSTALL = f"pip install {' '.join(PACKAGES)}"


def precisions() -> list[str]:
    """Those that this processor has, fastest first. Raises UserError where OpenVINO is not installed."""
    has = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return [*(["bf16"] if "BF16" in has else []), "fp32"]


def runtime() -> Runtime:
    """Raises UserError where OpenVINO is not installed."""
    return Runtime(
        name="openvino",
        version=_package().__version__.partition("-")[0],
        hardware=cache.processor(),
        precisions=precisions(),
        sources=[Path(__file__), *GRAPH_SOURCES],
        build=build,
        open=open_blob,
    )


def load(bundle: Bundle, precision: str = "") -> Engine:
    """The engine in the named precision, or in the fastest that answers as float32 does. Raises UserError."""
    return runtime().load(bundle, precision)


def build(bundle: Bundle, precision: str) -> bytes:
    """What OpenVINO makes of the graph, compiled for this processor."""
    model = core().read_model(io.BytesIO(serialised_graph(bundle, precision)))
    blob = io.BytesIO()
    core().compile_model(model, "CPU", _options()).export_model(blob)
    return blob.getvalue()


def open_blob(bundle: Bundle, blob: bytes, precision: str) -> GraphEngine:
    """Raises Stale for what is no blob of this version."""
    try:
        request = core().import_model(io.BytesIO(blob), "CPU", _options()).create_infer_request()
    except RuntimeError as error:
        raise Stale(f"OpenVINO cannot read what it built: {' '.join(str(error).split())}") from error

    def run(feed: Feed) -> Float32:
        logits: Float32 = request.infer(feed, share_inputs=True)["logits"]  # a copy, unless shared
        return logits

    return GraphEngine("openvino", precision, bundle, run)


def _options() -> dict[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": "f32",  # nothing is rounded but what the graph casts
        "INFERENCE_NUM_THREADS": threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # other stages and programs use these cores, too
    }


def _package() -> Any:
    return packages.need("openvino", "openvino", INSTALL)


@functools.cache
def core() -> Any:
    """The one of this process, never freed: with it would go the stack on which it has the thread handle signals.

    The next signal, a Ctrl-C say, would then end the process with a segmentation fault.
    """
    return _package().Core()

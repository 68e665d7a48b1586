"""The network by ONNX Runtime, on an NVIDIA GPU where it has the CUDA provider, else on the processor.

A precision may name the provider before it, as in `onnxruntime-cpu-fp32` or `onnxruntime-cuda-fp16`. On x86 processors
ONNX Runtime has no product below float32 that is faster than it without calibration, so there is fp32 alone.

The CUDA provider has not been run by us.
"""

from pathlib import Path
from typing import Any

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import cache, cuda, packages
from cmp_seg_ros.engine.base import Engine
from cmp_seg_ros.engine.exported import GRAPH_SOURCES, GraphEngine, Runtime, Stale, serialised_graph
from cmp_seg_ros.engine.layout import Feed
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels.launch import threads
from cmp_seg_ros.scan import Float32

PACKAGES = ("onnxruntime", "onnx")
INSTALL = f"pip install {' '.join(PACKAGES)}"
INSTALL_GPU = "pip install onnxruntime-gpu"
PRECISIONS = {"cuda": ["fp16", "fp32"], "cpu": ["fp32"]}
PROVIDERS: dict[str, Any] = {
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}),
    "cpu": "CPUExecutionProvider",
}


def precisions() -> list[str]:
    """Those of all providers that are here, fastest first. Raises UserError where ONNX Runtime is not installed."""
    return [f"{provider}-{precision}" for provider in _providers() for precision in PRECISIONS[provider]]


def runtime(provider: str = "") -> Runtime:
    """Of a provider, "cpu" or "cuda", or of the fastest. Raises UserError where it is not there."""
    there = _providers()
    provider = provider or there[0]
    if provider not in PRECISIONS:
        raise UserError(f"no provider '{provider}' for engine 'onnxruntime'; known: {', '.join(PRECISIONS)}")
    if provider not in there:
        raise UserError(f"ONNX Runtime has no CUDA provider here: {INSTALL_GPU} (in place of onnxruntime)")
    return Runtime(
        name=f"onnxruntime-{provider}",
        version=_package().__version__,
        hardware=cache.processor() if provider == "cpu" else cuda.gpu(),
        precisions=PRECISIONS[provider],
        sources=[Path(__file__), *GRAPH_SOURCES],
        build=serialised_graph,
        open=lambda bundle, model, precision: _open(bundle, model, provider, precision),
    )


def load(bundle: Bundle, precision: str = "") -> Engine:
    """The engine in the named precision, or in the fastest that answers as float32 does. Raises UserError."""
    provider, _, named = precision.rpartition("-")
    if precision in PRECISIONS:
        provider, named = precision, ""
    return runtime(provider).load(bundle, named)


def _open(bundle: Bundle, model: bytes, provider: str, precision: str) -> GraphEngine:
    """Raises Stale for what is no model; UserError where the provider does not start."""
    package = _package()
    options = package.SessionOptions()
    options.intra_op_num_threads = threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    options.add_session_config_entry("session.force_spinning_stop", "1")  # other stages need the cores between scans
    try:
        session = package.InferenceSession(model, options, providers=[PROVIDERS[provider]])
    except Exception as error:  # its exceptions share no base of their own
        reason = " ".join(str(error).split())
        raise Stale(f"ONNX Runtime cannot read what was built: {reason}") from error
    wanted = PROVIDERS[provider][0] if provider == "cuda" else PROVIDERS[provider]
    if session.get_providers()[0] != wanted:
        raise UserError(
            "ONNX Runtime's CUDA provider does not start on this machine; see its message above, or take engine "
            "'onnxruntime-cpu'"
        )

    def run(feed: Feed) -> Float32:
        logits: Float32 = session.run(["logits"], feed)[0]
        return logits

    return GraphEngine(f"onnxruntime-{provider}", precision, bundle, run)


def _providers() -> list[str]:
    """Those that the installed package has, fastest first."""
    return ["cuda", "cpu"] if "CUDAExecutionProvider" in _package().get_available_providers() else ["cpu"]


def _package() -> Any:
    return packages.need("onnxruntime", "onnxruntime", INSTALL)

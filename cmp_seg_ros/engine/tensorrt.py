"""The network on an NVIDIA GPU by TensorRT 10 or 11, from the graph of `graph.py`.

Strongly typed: precision is what the graph's casts say. Inputs are padded to few shapes (`buckets.py`); each has an
execution context of its own, which is recorded as a CUDA graph when the shape comes again. All of them share one block
of pinned memory, one on the GPU and one for activations.

No GPU has run this yet; tests go as far as the calls of TensorRT and of the CUDA runtime.
"""

import logging
import re
import time
from collections import OrderedDict
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import buckets, cache, cuda, layout, packages
from cmp_seg_ros.engine.base import Engine
from cmp_seg_ros.engine.exported import GRAPH_SOURCES, Runtime, Stale, serialised_graph
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels

if TYPE_CHECKING:
    import tensorrt

OLDEST = (10, 3)  # TensorRT, of JetPack 6.1; memory is managed by what came with 10.1
LEAST_CAPABILITY = (7, 5)  # of a GPU, for TensorRT 10.5 on
BFLOAT16_CAPABILITY = (8, 0)
DRIVERS = {12: "525", 13: "580"}  # oldest for each CUDA
KEPT = 32  # shapes that stay prepared
OUTPUT = "logits"
SOURCES = [Path(__file__), *(Path(__file__).parent / name for name in ("buckets.py", "cuda.py")), *GRAPH_SOURCES]
ALIGNMENT = 256  # bytes
REPORT_EVERY = 10.0  # seconds, while building

logger = logging.getLogger(__name__)


class Lack(NamedTuple):
    """Something that this machine has not got."""

    what: str
    remedy: str


class Device(NamedTuple):
    """A GPU."""

    name: str
    capability: tuple[int, int]


def missing() -> list[Lack]:
    """What this machine lacks for this engine; nothing where it has it all."""
    lacks = []
    if find_spec("onnx") is None:
        lacks.append(Lack("package onnx is not installed", "pip install onnx"))
    tensorrt, fault = packages.find("tensorrt")
    if fault or not hasattr(tensorrt, "__version__"):  # nothing but type stubs
        remedy = "pip install tensorrt; on a Jetson it comes with JetPack"
        lacks.append(Lack(f"package tensorrt {fault or 'is not installed'}", remedy))
    elif tuple(map(int, tensorrt.__version__.split(".")[:2])) < OLDEST:
        lacks.append(
            Lack(f"TensorRT {tensorrt.__version__} is too old", f"install {'.'.join(map(str, OLDEST))} or newer")
        )
    runtime, fault = packages.find(cuda.RUNTIME)
    if fault:
        return [*lacks, Lack(f"package cuda-bindings {fault}", "pip install cuda-bindings")]
    found = runtime.cudaDriverGetVersion()[1]
    if not found:
        return [*lacks, Lack("no NVIDIA driver", "install it, or take engine 'cpu'; in a container: --gpus all")]
    wanted = max(runtime.cudaRuntimeGetVersion()[1] // 1000, _cuda_of_tensorrt())
    if found // 1000 < wanted:
        what = f"the driver is for CUDA {found // 1000}.{found % 1000 // 10}, the packages are for {wanted}"
        older = f"pip install tensorrt-cu{found // 1000} 'cuda-bindings<{found // 1000 + 1}'"
        return [*lacks, Lack(what, f"update the driver to {DRIVERS.get(wanted, 'its newest')} or newer, or {older}")]
    status, count = runtime.cudaGetDeviceCount()
    if int(status) != 0 or not count:
        reason = cuda.describe(status) if int(status) != 0 else "the driver shows none"
        return [*lacks, Lack(f"no GPU: {reason}", "see `nvidia-smi` and CUDA_VISIBLE_DEVICES, or take engine 'cpu'")]
    gpu = device()
    if gpu.capability < LEAST_CAPABILITY:
        what = f"{gpu.name} has compute capability {_dotted(gpu.capability)}; {_dotted(LEAST_CAPABILITY)} is the least"
        lacks.append(Lack(what, "take engine 'cpu'"))
    return lacks


def device() -> Device:
    """The first GPU that this process sees. Raises UserError."""
    properties = cuda.call("cudaGetDeviceProperties", 0)
    name = properties.name
    text = name.decode() if isinstance(name, bytes) else str(name)
    return Device(text.strip("\0 "), (int(properties.major), int(properties.minor)))


def require() -> None:
    """Raises UserError naming everything that is missing."""
    lacks = missing()
    if lacks:
        told = "; ".join(f"{lack.what} ({lack.remedy})" for lack in lacks)
        raise UserError(f"engine 'tensorrt' cannot run here: {told}; {cuda.ADVICE}")


def release() -> str:
    """Version of TensorRT. Call where nothing is missing."""
    import tensorrt

    return str(tensorrt.__version__)


def precisions() -> list[str]:
    """Those of the GPU, fastest first. Raises UserError where something is missing."""
    require()
    return ["fp16", *(["bf16"] if device().capability >= BFLOAT16_CAPABILITY else []), "fp32"]


def runtime() -> Runtime:
    """TensorRT on this GPU. Raises UserError where something is missing."""
    known, gpu = precisions(), device()
    hardware = f"{gpu.name}.{_dotted(gpu.capability)}"

    def build_for(bundle: Bundle, precision: str) -> bytes:
        timing = cache.folder() / re.sub(r"[^\w.-]+", "_", f"tensorrt-{release()}-{hardware}.timing")
        return build(serialised_graph(bundle, precision), bundle.description.preprocess, timing)

    return Runtime(
        name="tensorrt",
        version=release(),
        hardware=hardware,
        precisions=known,
        sources=SOURCES,
        open=TensorRtEngine,
        build=build_for,
    )


def load(bundle: Bundle, precision: str = "") -> Engine:
    """The engine in the named precision, or in the fastest that answers as float32 does. Raises UserError."""
    return runtime().load(bundle, precision)


def build(model: bytes, preprocess: PreprocessConfig, timing: Path | None = None) -> bytes:
    """TensorRT's plan of an ONNX model, for this GPU. Takes minutes, and logs how far it is.

    Args:
        model: of `graph.build`, serialised.
        preprocess: of its bundle.
        timing: file to keep in what was measured while building, for the next build; None keeps nothing.

    Raises:
        UserError: TensorRT refuses the model.
    """
    import tensorrt as trt

    log = _log()
    trt.init_libnvinfer_plugins(log, "")
    builder = trt.Builder(log)
    network = builder.create_network(_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        faults = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise UserError(
            f"TensorRT {trt.__version__} does not take the graph: {faults}; take engine 'cpu', and report this"
        )
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # what the graph calls float32 is float32
    resize = getattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
    if resize is not None:  # a context then asks for the memory of its own shapes, and not of the greatest
        config.set_preview_feature(resize, True)
    monitor = _monitor()  # must outlive the configuration
    config.progress_monitor = monitor
    profile = builder.create_optimization_profile()
    for name, shapes in buckets.profile(preprocess).items():
        least, typical, most = (trt.Dims(list(shape)) for shape in shapes)
        profile.set_shape(name, least, typical, most)
    if config.add_optimization_profile(profile) < 0:
        raise UserError(
            f"TensorRT {trt.__version__} does not take the shapes: {log.last()}; take engine 'cpu', and report this"
        )
    _set_timing_cache(config, timing)
    logger.warning("TensorRT %s takes minutes for this", trt.__version__, extra=cache.PROGRESS)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        remedy = "free memory of the GPU, or take engine 'cpu'"
        raise UserError(f"TensorRT {trt.__version__} could not build the engine: {log.last()}; {remedy}")
    _keep_timing_cache(config, timing)
    return bytes(plan)


class TensorRtEngine:
    """A plan, ready to run.

    Args:
        bundle: the model.
        plan: that `build` made of it.
        precision: of the graph that it was made of.

    Raises:
        Stale: the plan is damaged, or of another bundle, version or GPU.
        UserError: the GPU has no memory left.
    """

    name = "tensorrt"

    def __init__(self, bundle: Bundle, plan: bytes, precision: str) -> None:
        import tensorrt as trt

        self.precision = precision
        self.preprocess = bundle.description.preprocess
        self.outputs = bundle.description.network.outputs
        self._log = _log()
        trt.init_libnvinfer_plugins(self._log, "")
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise Stale(f"TensorRT {trt.__version__} cannot read its plan: {self._log.last()}; it is built again")
        self._check()
        self._stream = cuda.Stream()
        most = {name: shapes[2] for name, shapes in buckets.profile(self.preprocess).items()}
        size = sum(_aligned(4 * int(np.prod(shape))) for shape in most.values())
        size += _aligned(4 * most["features"][0] * self.outputs)
        self._host, self._device = cuda.Memory(size, pinned=True), cuda.Memory(size)
        self._activations: cuda.Memory | None = None
        self._records = True
        self._passes: OrderedDict[tuple[buckets.Shape, ...], _Pass] = OrderedDict()

    def __call__(self, voxels: Voxels) -> Float32:
        """Raises UserError for a scan beyond layout.MAX_VOXELS, or where the GPU fails."""
        if len(voxels) == 0:
            return np.empty((0, self.outputs), np.float32)
        if len(voxels) > layout.MAX_VOXELS:
            raise UserError(
                f"a scan of {len(voxels):,} voxels is more than the {layout.MAX_VOXELS:,} that engine 'tensorrt' is "
                "built for; take a greater voxel_size, or engine 'cpu'"
            )
        feed = layout.arrange(voxels, self.preprocess, buckets.shapes(voxels, self.preprocess))
        key = tuple(values.shape for values in feed.values())
        prepared = self._passes.get(key) or self._prepare(key, feed)
        self._passes.move_to_end(key)
        for name, values in feed.items():
            prepared.inputs[name][...] = values
        self._run(prepared)
        return prepared.logits[: len(voxels)].copy()

    def _run(self, prepared: "_Pass") -> None:
        """A shape's first scan runs as it is, its second is recorded, all others are replayed."""
        if prepared.graph is None and prepared.scans and self._records:
            try:
                prepared.graph = self._stream.record(lambda: self._enqueue(prepared))
            except UserError as error:
                logger.warning("TensorRT's work cannot be recorded as a CUDA graph, so launches cost more: %s", error)
                self._records = False
        if prepared.graph is None:
            self._enqueue(prepared)
        else:
            prepared.graph.launch()
        self._stream.wait()
        prepared.scans += 1

    def _enqueue(self, prepared: "_Pass") -> None:
        self._stream.upload(self._device, self._host, prepared.start)
        if not prepared.context.execute_async_v3(int(self._stream.handle)):
            raise UserError(f"TensorRT failed: {self._log.last()}; {cuda.ADVICE}")
        at, size = prepared.start, prepared.logits.nbytes
        self._stream.download(self._host.address + at, self._device.address + at, size)

    def _prepare(self, key: tuple[buckets.Shape, ...], feed: layout.Feed) -> "_Pass":
        """A context for these shapes, which takes the place of the one longest unused."""
        import tensorrt as trt

        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise UserError(f"TensorRT has no context for another shape: {self._log.last()}; take engine 'cpu'")
        prepared = _Pass(context, feed, self.outputs, self._host, self._device)
        needed = context.update_device_memory_size_for_shapes()
        if self._activations is None or needed > self._activations.size:
            self._passes.clear()  # their graphs point into the memory that goes now
            self._activations = None
            self._activations = cuda.Memory(needed * 5 // 4)
        context.set_device_memory(self._activations.address, self._activations.size)
        while len(self._passes) >= KEPT:
            self._passes.popitem(last=False)
        self._passes[key] = prepared
        return prepared

    def _check(self) -> None:
        """That the plan is of this bundle's shapes. Raises Stale."""
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        wanted = buckets.profile(self.preprocess)
        found = {name: tuple(map(_shape, engine.get_tensor_profile_shape(name, 0))) for name in names if name != OUTPUT}
        if OUTPUT not in names or found != wanted or _shape(engine.get_tensor_shape(OUTPUT))[1:] != (self.outputs,):
            raise Stale("the TensorRT plan is of another bundle or of other shapes; it is built again")


class _Pass:
    """One shape, ready to run.

    Args:
        context: takes these shapes from now on.
        feed: inputs of that shape.
        outputs: channels of the answer.
        host, device: where inputs lie one after the other, and the answer behind them.
    """

    def __init__(
        self,
        context: "tensorrt.IExecutionContext",
        feed: layout.Feed,
        outputs: int,
        host: cuda.Memory,
        device: cuda.Memory,
    ) -> None:
        self.context = context
        self.graph: cuda.Graph | None = None
        self.scans = 0
        self.inputs: dict[str, np.ndarray[Any, Any]] = {}
        offset, taken = 0, True
        for name, values in feed.items():
            taken &= context.set_input_shape(name, values.shape)
            taken &= context.set_tensor_address(name, device.address + offset)
            self.inputs[name] = host.array(offset, values.shape, values.dtype)
            offset += _aligned(values.nbytes)
        self.start = offset  # of the answer
        taken &= context.set_tensor_address(OUTPUT, device.address + offset)
        shape = (len(feed["features"]), outputs)
        if not taken or context.infer_shapes() or _shape(context.get_tensor_shape(OUTPUT)) != shape:
            sizes = ", ".join(f"{name} {values.shape}" for name, values in feed.items())
            raise UserError(f"TensorRT does not take inputs of {sizes}; take engine 'cpu', and report this")
        self.logits: Float32 = host.array(offset, shape, np.float32)


def _flags(trt: Any) -> int:
    """Strongly typed; where a release knows no such flag, it is so always."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _cuda_of_tensorrt() -> int:
    """The CUDA that the TensorRT wheel is made for; 0 where it is no wheel."""
    for major in sorted(DRIVERS, reverse=True):
        try:
            version(f"tensorrt-cu{major}")
        except PackageNotFoundError:
            continue
        return major
    return 0


def _set_timing_cache(config: "tensorrt.IBuilderConfig", path: Path | None) -> None:
    """That of an earlier build; a new one where there is none, or it is of another GPU or version."""
    if path is None:
        return
    try:
        kept = path.read_bytes()
    except OSError:
        kept = b""
    if not config.set_timing_cache(config.create_timing_cache(kept), False):
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _keep_timing_cache(config: "tensorrt.IBuilderConfig", path: Path | None) -> None:
    if path is None:
        return
    temporary = path.with_suffix(f".{time.monotonic_ns()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(bytes(config.get_timing_cache().serialize()))
        temporary.replace(path)
    except OSError as error:
        logger.info("what was measured while building cannot be kept in %s: %s", path, error)


@lru_cache
def _log() -> Any:
    """TensorRT's messages as log records; one for the process, which must outlive all that TensorRT makes."""
    import tensorrt as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._last = "it does not say why"

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self._last = " ".join(msg.split())
            logger.debug("%s", msg)

        def last(self) -> str:
            """The last error."""
            return self._last

    return Log()


def _monitor() -> Any:
    """Logs how far the build is."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._told = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if time.monotonic() - self._told > REPORT_EVERY:
                self._told = time.monotonic()
                logger.info("TensorRT: %s, step %d of %d", phase_name, step + 1, self._steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _shape(dims: "tensorrt.Dims") -> buckets.Shape:
    return tuple(int(dims[axis]) for axis in range(len(dims)))


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))

"""TensorRT 10 or 11 on an NVIDIA GPU.

Strongly typed: precision comes from the casts in the graph. Inputs are padded to few shapes (`WaffleIron.feed`); each
shape has its own execution context, which is recorded as a CUDA graph when the shape is seen again. All contexts share
one block of pinned memory, one of GPU memory and one for activations. Memory, streams and graphs are those of PyTorch.

Not yet run on a GPU; the tests check the calls of TensorRT and of PyTorch.
"""

import logging
import re
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.engine import cache, cuda
from cmp_seg_ros.engine.base import Engine, Missing, Runtime, Stale, load_package
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.outputs import write_whole
from cmp_seg_ros.scan import Arrays
from cmp_seg_ros.waffleiron.layout import Shape
from cmp_seg_ros.waffleiron.model import WaffleIron

if TYPE_CHECKING:  # the doctor imports this file, but not PyTorch
    import tensorrt
    import torch

OLDEST = (10, 3)  # TensorRT of JetPack 6.1; the memory management needs 10.1
LEAST_CAPABILITY = (7, 5)  # of a GPU, for TensorRT 10.5 on
BFLOAT16_CAPABILITY = (8, 0)
DRIVERS = {12: "525", 13: "580"}  # oldest driver for each CUDA version
KEPT = 32  # prepared shapes kept at a time
ALIGNMENT = 256  # bytes
REPORT_EVERY = 10.0  # seconds, while building

ADVICE = "run `cmp-seg doctor` to check this machine"

logger = logging.getLogger(__name__)


class TensorRt(Runtime):
    name = "tensorrt"
    packages = ("tensorrt",)
    colour = "C4"
    on_gpu = True

    def missing(self) -> list[Missing]:
        lacks = [] if find_spec("onnx") else [Missing("no onnx", "pip install onnx")]
        remedy = "pip install tensorrt; on a Jetson it comes with JetPack"
        try:
            # Type stubs alone have no version.
            release = getattr(load_package("tensorrt", self.name), "__version__", "")
            if not release:
                lacks.append(Missing("no tensorrt", remedy))
            elif tuple(map(int, release.split(".")[:2])) < OLDEST:
                lacks.append(Missing(f"TensorRT {release} is too old", f"install {_dotted(OLDEST)} or newer"))
        except UserError as error:
            lacks.append(Missing(str(error), remedy))
        return [*lacks, *_gpu_missing()]

    def precisions(self) -> list[str]:
        gpu = cuda.gpu()
        return ["fp16", *(["bf16"] if gpu and gpu.capability >= BFLOAT16_CAPABILITY else []), "fp32"]

    def version(self) -> str:
        return str(load_package("tensorrt", self.name).__version__)

    def hardware(self) -> str:
        return str(cuda.gpu())

    def build(self, network: WaffleIron, precision: str) -> bytes:
        timing = re.sub(r"[^\w.-]+", "_", f"tensorrt-{self.version()}-{self.hardware()}.timing")
        return build(network.graph(precision), network.profile(), cache.folder() / timing)

    def open(self, network: WaffleIron, built: bytes, precision: str) -> Engine:
        return TensorRtEngine(network, built, precision)


def _gpu_missing() -> list[Missing]:
    """Unmet requirements on driver and GPU."""
    gpu, wanted = cuda.gpu(), _cuda_of_tensorrt()
    if gpu is None:
        remedy = "install NVIDIA's driver, see `nvidia-smi` and CUDA_VISIBLE_DEVICES, or use engine 'cpu'"
        return [Missing("no NVIDIA driver, or it shows no GPU", f"{remedy}; in a container: --gpus all")]
    if gpu.cuda[0] < wanted:
        what = f"the driver is for CUDA {_dotted(gpu.cuda)}, TensorRT is for {wanted}"
        remedy = f"update the driver to {DRIVERS[wanted]} or newer, or pip install tensorrt-cu{gpu.cuda[0]}"
        return [Missing(what, remedy)]
    if gpu.capability < LEAST_CAPABILITY:
        what = f"{gpu.name} has compute capability {_dotted(gpu.capability)}; {_dotted(LEAST_CAPABILITY)} is required"
        return [Missing(what, "use engine 'cpu'")]
    if not _torch_has_cuda():
        return [Missing("PyTorch is installed without CUDA", "install it as https://pytorch.org says")]
    return []


def _torch_has_cuda() -> bool:
    """Whether PyTorch was built for GPUs. It is not imported: the doctor does without."""
    found = find_spec("torch")
    return found is not None and any(Path(found.origin or "").parent.glob("lib/libtorch_cuda*"))


def build(model: bytes, shapes: dict[str, tuple[Shape, Shape, Shape]], timing: Path) -> bytes:
    """Build TensorRT's plan of an ONNX model for this GPU. Takes minutes, and logs its progress.

    Args:
        model: the serialised ONNX model.
        shapes: minimum, typical and maximum shape of each input.
        timing: file of TensorRT's timing cache, for the next build.

    Raises:
        UserError: TensorRT rejects the model.
    """
    import tensorrt as trt

    log = _log()
    trt.init_libnvinfer_plugins(log, "")
    builder = trt.Builder(log)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # releases without the flag always are
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        faults = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise UserError(f"TensorRT {trt.__version__} rejects the graph: {faults}; use engine 'cpu', and report this")
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 must stay float32
    resize = getattr(trt.PreviewFeature, "RUNTIME_ACTIVATION_RESIZE_10_10", None)
    if resize is not None:  # a context then needs the memory of its own shapes, not of the largest
        config.set_preview_feature(resize, True)
    monitor = _monitor()  # must outlive the configuration
    config.progress_monitor = monitor
    profile = builder.create_optimization_profile()
    for name, sizes in shapes.items():
        profile.set_shape(name, *(trt.Dims(list(shape)) for shape in sizes))
    if config.add_optimization_profile(profile) < 0:
        raise UserError(
            f"TensorRT {trt.__version__} rejects the shapes: {log.last()}; use engine 'cpu', and report this"
        )
    kept = timing.read_bytes() if timing.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(kept), False):  # of another GPU or version
        config.set_timing_cache(config.create_timing_cache(b""), False)
    logger.warning("TensorRT %s needs some minutes to build the engine", trt.__version__, extra=cache.PROGRESS)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        remedy = "free GPU memory, or use engine 'cpu'"
        raise UserError(f"TensorRT {trt.__version__} could not build the engine: {log.last()}; {remedy}")
    try:
        timing.parent.mkdir(parents=True, exist_ok=True)
        write_whole(timing, bytes(config.get_timing_cache().serialize()))
    except OSError as error:
        logger.info("TensorRT's timing cache cannot be written to %s: %s", timing, error)
    return bytes(plan)


class TensorRtEngine:
    """A plan, ready to run.

    Args:
        network: the network of the plan.
        plan: made by `build`.
        precision: of the graph.

    Raises:
        Stale: the plan is damaged, or of another network, version or GPU.
        UserError: PyTorch cannot use the GPU.
    """

    name = "tensorrt"

    def __init__(self, network: WaffleIron, plan: bytes, precision: str) -> None:
        import tensorrt as trt
        import torch

        self.precision = precision
        self.network = network
        self._log = _log()
        trt.init_libnvinfer_plugins(self._log, "")
        self._runtime = trt.Runtime(self._log)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise Stale(f"TensorRT {trt.__version__} cannot read its plan: {self._log.last()}; it is rebuilt")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        shapes = network.profile()
        self._outputs = [name for name in names if name not in shapes]
        profile = {
            name: tuple(map(_shape, self._engine.get_tensor_profile_shape(name, 0))) for name in names if name in shapes
        }
        if profile != shapes:
            raise Stale("the TensorRT plan belongs to another network or other shapes; it is rebuilt")
        try:
            self._stream = torch.cuda.Stream()
        except RuntimeError as error:
            raise _failed(error) from error
        self._memory: _Memory | None = None
        self._records = True
        self._passes: OrderedDict[tuple[Shape, ...], _Pass] = OrderedDict()

    def __call__(self, inputs: Arrays) -> Arrays:
        """Run the network. Raises UserError if the scan is too large or the GPU fails."""
        feed = self.network.feed(inputs, rounded=True)
        key = tuple(values.shape for values in feed.values())
        try:
            prepared = self._passes.get(key) or self._prepare(key, feed)
            self._passes.move_to_end(key)
            for name, values in feed.items():
                prepared.arrays[name][...] = values
            self._run(prepared)
        except RuntimeError as error:
            raise _failed(error) from error
        outputs = self.network.trim({name: prepared.arrays[name] for name in self._outputs}, inputs)
        return {name: values.copy() for name, values in outputs.items()}

    def _run(self, prepared: "_Pass") -> None:
        """The first scan of a shape runs directly, the second is recorded as a CUDA graph, later ones replay it."""
        import torch

        with torch.cuda.stream(self._stream):
            if prepared.graph is None and prepared.has_run and self._records:
                self._record(prepared)
            if prepared.graph is None:
                self._enqueue(prepared)
            else:
                prepared.graph.replay()
        self._stream.synchronize()
        prepared.has_run = True

    def _record(self, prepared: "_Pass") -> None:
        import torch

        graph = torch.cuda.CUDAGraph()
        try:
            graph.capture_begin(capture_error_mode="thread_local")
            try:
                self._enqueue(prepared)
            finally:  # or the stream becomes unusable
                graph.capture_end()
            prepared.graph = graph
        except (RuntimeError, UserError) as error:
            logger.warning("TensorRT cannot be recorded as a CUDA graph, so launches are slower: %s", error)
            self._records = False

    def _enqueue(self, prepared: "_Pass") -> None:
        host, device = prepared.memory.host, prepared.memory.device
        inputs, outputs = slice(prepared.start), slice(prepared.start, prepared.end)
        device[inputs].copy_(host[inputs], non_blocking=True)
        if not prepared.context.execute_async_v3(self._stream.cuda_stream):
            raise UserError(f"TensorRT failed: {self._log.last()}; {ADVICE}")
        host[outputs].copy_(device[outputs], non_blocking=True)

    def _prepare(self, key: tuple[Shape, ...], feed: Arrays) -> "_Pass":
        """A context for these shapes, bound to memory; replaces the least recently used one."""
        import tensorrt as trt

        context = self._engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        if context is None:
            raise UserError(f"TensorRT cannot create a context for a new shape: {self._log.last()}; use engine 'cpu'")
        taken = [context.set_input_shape(name, values.shape) for name, values in feed.items()]
        if not all(taken) or context.infer_shapes():
            sizes = ", ".join(f"{name} {values.shape}" for name, values in feed.items())
            raise UserError(f"TensorRT rejects inputs of {sizes}; use engine 'cpu', and report this")
        tensors = {name: (values.shape, values.dtype) for name, values in feed.items()}
        tensors |= {name: (_shape(context.get_tensor_shape(name)), np.dtype(np.float32)) for name in self._outputs}
        *offsets, end = np.cumsum([0, *(_size(*tensor) for tensor in tensors.values())]).tolist()
        memory = self._reserve(end, context.update_device_memory_size_for_shapes())
        host, arrays = memory.host.numpy(), {}
        for (name, (shape, kind)), offset in zip(tensors.items(), offsets, strict=True):
            context.set_tensor_address(name, memory.device.data_ptr() + offset)
            arrays[name] = np.ndarray(shape, kind, host, offset)
        context.set_device_memory(memory.activations.data_ptr(), len(memory.activations))
        while len(self._passes) >= KEPT:
            self._passes.popitem(last=False)
        self._passes[key] = _Pass(context, memory, arrays, offsets[len(feed)], end)
        return self._passes[key]

    def _reserve(self, size: int, activations: int) -> "_Memory":
        """Memory of at least so many bytes. If it has to grow, all passes go, since their graphs point into it."""
        import torch

        memory = self._memory
        if memory is None or size > len(memory.host) or activations > len(memory.activations):
            self._passes.clear()
            self._memory = memory = None  # freed before there is more
            size, activations = size * 5 // 4, max(1, activations * 5 // 4)
            self._memory = memory = _Memory(
                torch.empty(size, dtype=torch.uint8, pin_memory=True),
                torch.empty(size, dtype=torch.uint8, device="cuda"),
                torch.empty(activations, dtype=torch.uint8, device="cuda"),
            )
        return memory


class _Memory(NamedTuple):
    """Bytes shared by all passes: inputs and outputs on both sides, and activations."""

    host: "torch.Tensor"
    device: "torch.Tensor"
    activations: "torch.Tensor"


@dataclass(eq=False)
class _Pass:
    """One shape, ready to run.

    Args:
        context: execution context for these shapes.
        memory: of its inputs, then its outputs.
        arrays: inputs and outputs by name, in the memory of the host.
        start, end: of the outputs in the memory.
        graph: once it is recorded.
    """

    context: "tensorrt.IExecutionContext"
    memory: _Memory
    arrays: dict[str, npt.NDArray[Any]]
    start: int
    end: int
    graph: "torch.cuda.CUDAGraph | None" = None
    has_run: bool = False


def _failed(error: RuntimeError) -> UserError:
    """For an error of PyTorch on the GPU."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    remedy = "use larger voxels, or engine 'cpu'" if "out of memory" in reason else ADVICE
    return UserError(f"the GPU failed: {reason}; {remedy}")


def _cuda_of_tensorrt() -> int:
    """Major CUDA version of the TensorRT wheel; 0 if it was not installed as a wheel."""
    for major in sorted(DRIVERS, reverse=True):
        try:
            version(f"tensorrt-cu{major}")
        except PackageNotFoundError:
            continue
        return major
    return 0


@lru_cache
def _log() -> Any:
    """Logger that forwards TensorRT's messages; one per process, since it must outlive all TensorRT objects."""
    import tensorrt as trt

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._last = "no reason given"

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                self._last = " ".join(msg.split())
            logger.debug("%s", msg)

        def last(self) -> str:
            """The last error."""
            return self._last

    return Log()


def _monitor() -> Any:
    """Logs the progress of a build."""
    import tensorrt as trt

    class Monitor(trt.IProgressMonitor):
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}
            self._reported = time.monotonic()

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
            self._steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if time.monotonic() - self._reported > REPORT_EVERY:
                self._reported = time.monotonic()
                logger.info("TensorRT: %s, step %d of %d", phase_name, step + 1, self._steps.get(phase_name, 0))
            return True

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()


def _shape(dims: "tensorrt.Dims") -> Shape:
    return tuple(int(dims[axis]) for axis in range(len(dims)))


def _size(shape: Shape, kind: np.dtype[Any]) -> int:
    """Bytes, rounded up to ALIGNMENT."""
    return -(-int(np.prod(shape)) * kind.itemsize // ALIGNMENT) * ALIGNMENT


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))


RUNTIMES = (TensorRt(),)

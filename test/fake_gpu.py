"""Stand-ins for TensorRT 10 and the CUDA runtime that compute on the processor and count what is asked of them.

A "plan" is the ONNX model, and running it is running ONNX Runtime, so that answers are real. What a GPU would not
forgive is an error here: memory used after it was freed or beyond its end, other shapes than the profile's, a context
without memory, a graph whose context has gone or has changed, work other than launches while recording.
"""

import ctypes
import weakref
from collections import Counter
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest


class Error(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorStreamCaptureUnsupported = 900


class FakeGpu:
    """State of both modules. Set the fields to make things fail."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.live: dict[int, Any] = {}  # address -> buffer
        self.fail: dict[str, Error] = {}  # function of the runtime -> what it answers
        self.driver, self.runtime_version = 12080, 12090
        self.device = SimpleNamespace(name=b"NVIDIA A40", major=8, minor=6)
        self.devices = 1
        self.streams = self.graphs = 0  # alive
        self.recording: list[Callable[[], None]] | None = None
        self.version = "10.13.0.35"
        self.capturable = True
        self.refuse: str = ""  # what TensorRT refuses: parse, profile, build, plan, timing, execute, context, shape
        self.wrong = ""  # a precision that this GPU computes wrongly
        self.plugins = 0
        self.network_flags: list[int] = []
        self.cleared: list[str] = []
        self.previews: dict[str, bool] = {}
        self.profile: dict[str, tuple[tuple[int, ...], ...]] = {}
        self.timing: list[bytes] = []
        self.steps: list[bool] = []
        self.contexts: list[Any] = []
        self.plans: list[bytes] = []

    # --- the CUDA runtime

    def allocate(self, size: int) -> int:
        buffer = (ctypes.c_ubyte * (size + 256))()
        address = -(-ctypes.addressof(buffer) // 256) * 256
        self.live[address] = (buffer, size)
        return address

    def free(self, address: int) -> tuple[Error]:
        assert address in self.live, "freed twice, or never allocated"
        del self.live[address]
        return (Error.cudaSuccess,)

    def check(self, address: int, size: int) -> None:
        """That the memory is there."""
        assert any(start <= address and address + size <= start + length for start, (_, length) in self.live.items()), (
            "memory that was not allocated, or is freed"
        )

    def do(self, work: Callable[[], None]) -> None:
        """Now, or when the graph is launched."""
        if self.recording is None:
            work()
        else:
            self.recording.append(work)

    def copy(self, target: int, source: int, size: int, kind: str, stream: Any) -> tuple[Error]:
        def work() -> None:
            self.check(target, size)
            self.check(source, size)
            ctypes.memmove(target, source, size)

        self.calls[f"copy {kind}"] += 1
        self.do(work)
        return (Error.cudaSuccess,)

    def begin(self, stream: Any, mode: Any) -> tuple[Error]:
        assert self.recording is None
        self.recording = []
        return (Error.cudaSuccess,)

    def end(self, stream: Any) -> tuple[Error, Any]:
        assert self.recording is not None
        recorded, self.recording = self.recording, None
        if _spoiled in recorded:
            return Error.cudaErrorStreamCaptureUnsupported, None
        self.graphs += 1
        return Error.cudaSuccess, recorded

    def gone(self, what: str) -> Callable[[Any], tuple[Error]]:
        def destroy(handle: Any) -> tuple[Error]:
            setattr(self, what, getattr(self, what) - 1)
            return (Error.cudaSuccess,)

        return destroy

    def instantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[Error, Any]:
        assert flags == 0
        self.graphs += 1
        return Error.cudaSuccess, list(graph)

    def launch(self, graph: list[Callable[[], None]], stream: Any) -> tuple[Error]:
        assert self.recording is None
        for work in graph:
            work()
        return (Error.cudaSuccess,)

    def stream(self, flags: int) -> tuple[Error, int]:
        assert flags == 1, "the default stream cannot be recorded"
        self.streams += 1
        return Error.cudaSuccess, 77

    def runtime(self) -> ModuleType:
        functions: dict[str, Callable[..., Any]] = {
            "cudaDriverGetVersion": lambda: (Error.cudaSuccess, self.driver),
            "cudaRuntimeGetVersion": lambda: (Error.cudaSuccess, self.runtime_version),
            "cudaGetDeviceCount": lambda: (
                (Error.cudaSuccess, self.devices) if self.devices else (Error.cudaErrorNoDevice, None)
            ),
            "cudaGetDeviceProperties": lambda index: (Error.cudaSuccess, self.device),
            "cudaGetErrorString": lambda error: (Error.cudaSuccess, f"it is {Error(error).name}".encode()),
            "cudaGetLastError": lambda: (Error.cudaSuccess,),
            "cudaMalloc": lambda size: (Error.cudaSuccess, self.allocate(size)),
            "cudaMallocHost": lambda size: (Error.cudaSuccess, self.allocate(size)),
            "cudaFree": self.free,
            "cudaFreeHost": self.free,
            "cudaStreamCreateWithFlags": self.stream,
            "cudaStreamDestroy": self.gone("streams"),
            "cudaStreamSynchronize": lambda stream: (Error.cudaSuccess,),
            "cudaMemcpyAsync": self.copy,
            "cudaStreamBeginCapture": self.begin,
            "cudaStreamEndCapture": self.end,
            "cudaGraphInstantiate": self.instantiate,
            "cudaGraphLaunch": self.launch,
            "cudaGraphDestroy": self.gone("graphs"),
            "cudaGraphExecDestroy": self.gone("graphs"),
        }

        def counted(name: str) -> Callable[..., Any]:
            def call(*args: Any) -> Any:
                self.calls[name] += 1
                return (self.fail[name], None) if name in self.fail else functions[name](*args)

            return call

        module = ModuleType("cuda.bindings.runtime")
        for name in functions:
            setattr(module, name, counted(name))
        module.cudaStreamNonBlocking = 1  # type: ignore[attr-defined]
        module.cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice="up", cudaMemcpyDeviceToHost="down")  # type: ignore[attr-defined]
        module.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # type: ignore[attr-defined]
        return module

    # --- TensorRT

    def tensorrt(self) -> ModuleType:
        gpu = self
        module = ModuleType("tensorrt")
        module.__version__ = self.version  # type: ignore[attr-defined]

        class ILogger:
            class Severity(IntEnum):
                INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

        class NetworkDefinitionCreationFlag(IntEnum):
            STRONGLY_TYPED = 1

        class BuilderFlag(IntEnum):  # those of 11.x: no FP16
            TF32 = 6

        class PreviewFeature(IntEnum):
            RUNTIME_ACTIVATION_RESIZE_10_10 = 2

        class ExecutionContextAllocationStrategy(IntEnum):
            STATIC, ON_PROFILE_CHANGE, USER_MANAGED = range(3)

        class IProgressMonitor:
            pass

        class Dims(tuple):
            pass

        class Builder:
            def __init__(self, log: Any) -> None:
                assert gpu.plugins, "plugins come first"
                self.log = log

            def create_network(self, flags: int = 0) -> Any:
                gpu.network_flags.append(flags)
                return SimpleNamespace()

            def create_builder_config(self) -> Any:
                return Config()

            def create_optimization_profile(self) -> Any:
                return Profile()

            def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
                monitor = config.progress_monitor
                monitor.phase_start("tactics", "", 3)
                gpu.steps += [monitor.step_complete("tactics", step) for step in range(3)]
                monitor.phase_finish("tactics")
                if gpu.refuse == "build":
                    self.log.log(ILogger.Severity.ERROR, "out of\n memory")
                    return None
                return network.model

        class Config:
            progress_monitor: Any = None

            def clear_flag(self, flag: BuilderFlag) -> None:
                gpu.cleared.append(flag.name)

            def set_preview_feature(self, feature: PreviewFeature, enable: bool) -> None:
                gpu.previews[feature.name] = enable

            def add_optimization_profile(self, profile: Any) -> int:
                return -1 if gpu.refuse == "profile" else 0

            def create_timing_cache(self, kept: bytes) -> Any:
                return SimpleNamespace(kept=kept, serialize=lambda: kept + b"timed")

            def set_timing_cache(self, timing: Any, ignore_mismatch: bool) -> bool:
                assert not ignore_mismatch
                if gpu.refuse == "timing" and timing.kept:
                    return False
                gpu.timing.append(timing.kept)
                self.timing = timing
                return True

            def get_timing_cache(self) -> Any:
                return self.timing

        class Profile:
            def set_shape(self, name: str, *shapes: Dims) -> None:
                least, typical, most = shapes
                assert all(low <= at <= high for low, at, high in zip(least, typical, most, strict=True)), name
                gpu.profile[name] = tuple(map(tuple, shapes))

        class OnnxParser:
            num_errors = 2

            def __init__(self, network: Any, log: Any) -> None:
                self.network = network

            def parse(self, model: bytes) -> bool:
                self.network.model = model
                return gpu.refuse != "parse"

            def get_error(self, index: int) -> str:
                return f"fault {index}"

        class Runtime:
            def __init__(self, log: Any) -> None:
                self.log = log

            def deserialize_cuda_engine(self, plan: bytes) -> Any:
                gpu.plans.append(plan)
                if gpu.refuse == "plan":
                    self.log.log(ILogger.Severity.ERROR, "magic tag does not match")
                    return None
                return Engine(plan, gpu)

        def init(log: Any, namespace: str) -> bool:
            gpu.plugins += 1
            return True

        for kind in (
            ILogger,
            NetworkDefinitionCreationFlag,
            BuilderFlag,
            PreviewFeature,
            ExecutionContextAllocationStrategy,
            IProgressMonitor,
            Dims,
            Builder,
            OnnxParser,
            Runtime,
        ):
            setattr(module, kind.__name__, kind)
        module.init_libnvinfer_plugins = init  # type: ignore[attr-defined]
        return module

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "FakeGpu":
        """As if both were installed."""
        package, bindings, runtime = ModuleType("cuda"), ModuleType("cuda.bindings"), self.runtime()
        package.bindings, bindings.runtime = bindings, runtime  # type: ignore[attr-defined]
        for name, module in (
            ("cuda", package),
            ("cuda.bindings", bindings),
            ("cuda.bindings.runtime", runtime),
            ("tensorrt", self.tensorrt()),
        ):
            monkeypatch.setitem(__import__("sys").modules, name, module)
        return self


def _spoiled() -> None:
    raise AssertionError("a recording that failed is not launched")


class Engine:
    """A plan: its model run by ONNX Runtime, with the profile that was set last."""

    def __init__(self, plan: bytes, gpu: FakeGpu) -> None:
        self.gpu = gpu
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(plan, options, providers=["CPUExecutionProvider"])
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.names = [*self.inputs, "logits"]
        self.num_io_tensors = len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_profile_shape(self, name: str, index: int) -> list[tuple[int, ...]]:
        assert index == 0
        return list(self.gpu.profile[name])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return -1, self.session.get_outputs()[0].shape[1]

    def create_execution_context(self, strategy: Any) -> Any:
        assert strategy.name == "USER_MANAGED"
        if self.gpu.refuse == "context":
            return None
        context = Context(self)
        self.gpu.contexts.append(weakref.ref(context))
        return context


class Context:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.gpu = engine, engine.gpu
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory: tuple[int, int] | None = None
        self.runs = 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.gpu.profile[name]
        self.shapes[name] = tuple(shape)
        inside = all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
        return inside and self.gpu.refuse != "shape"

    def set_tensor_address(self, name: str, address: int) -> bool:
        assert address % 256 == 0
        self.addresses[name] = address
        return True

    def infer_shapes(self) -> list[str]:
        return [name for name in self.engine.inputs if name not in self.shapes]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["features"][0], self.engine.get_tensor_shape(name)[1]

    def update_device_memory_size_for_shapes(self) -> int:
        return self.shapes["features"][0] * 100

    def set_device_memory(self, address: int, size: int) -> None:
        self.memory = address, size

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        if self.gpu.recording is not None:
            assert self.runs, "the shape must have been run before it is recorded"
            if not self.gpu.capturable:
                self.gpu.recording.append(_spoiled)
                return True
        if self.gpu.refuse == "execute":
            return False
        shapes, addresses, memory = dict(self.shapes), dict(self.addresses), self.memory
        alive = weakref.ref(self)

        def work() -> None:
            context = alive()
            assert context is not None, "the context of the graph has gone"
            assert (context.shapes, context.addresses, context.memory) == (shapes, addresses, memory), "it has changed"
            assert memory is not None and memory[1] >= context.update_device_memory_size_for_shapes()
            self.gpu.check(*memory)
            feed = {}
            for name, value in context.engine.inputs.items():
                kind = np.float32 if "float" in value.type else np.int32
                count = int(np.prod(shapes[name]))
                self.gpu.check(addresses[name], 4 * count)
                place = (ctypes.c_ubyte * (4 * count)).from_address(addresses[name])
                feed[name] = np.frombuffer(place, kind).reshape(shapes[name])
            logits = np.ascontiguousarray(context.engine.session.run(None, feed)[0])
            if context.engine.session.get_modelmeta().custom_metadata_map["precision"] == context.gpu.wrong:
                logits = -logits
            self.gpu.check(addresses["logits"], logits.nbytes)
            ctypes.memmove(addresses["logits"], logits.ctypes.data, logits.nbytes)
            context.runs += 1

        self.gpu.calls["execute"] += 1
        self.gpu.do(work)
        return True

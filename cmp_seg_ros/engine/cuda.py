"""The parts of the CUDA runtime that engines need, through NVIDIA's `cuda-bindings`."""

from collections.abc import Callable
from ctypes import CDLL, byref, c_int, c_ubyte, create_string_buffer
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError

ADVICE = "run `cmp-seg doctor` to check this machine"
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
RUNTIME = "cuda.bindings.runtime"
DRIVER = "libcuda.so.1"
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def runtime() -> Any:
    """The CUDA runtime module. Raises ImportError."""
    return import_module(RUNTIME)


def call(name: str, *args: Any) -> Any:
    """Call a function of the runtime; returns its result: None, a value, or a tuple. Raises UserError."""
    error, *values = getattr(runtime(), name)(*args)
    if int(error) != 0:
        remedy = "use larger voxels, or engine 'cpu'" if int(error) == OUT_OF_MEMORY else ADVICE
        raise UserError(f"{name} failed on the GPU: {describe(error)}; {remedy}")
    return values[0] if len(values) == 1 else tuple(values) or None


def gpu() -> str:
    """Name and compute capability of the first GPU, from the driver library alone; empty if it gives none."""
    try:
        driver = CDLL(DRIVER)
    except OSError:
        return ""
    device, name, numbers = c_int(), create_string_buffer(256), (c_int(), c_int())
    faults = [driver.cuInit(0), driver.cuDeviceGet(byref(device), 0), driver.cuDeviceGetName(name, 256, device)]
    for number, attribute in zip(numbers, CAPABILITY, strict=True):
        faults.append(driver.cuDeviceGetAttribute(byref(number), attribute, device))
    return "" if any(faults) else f"{name.value.decode()}.{'.'.join(str(number.value) for number in numbers)}"


def describe(error: Any) -> str:
    """Message of an error code of the runtime."""
    text = runtime().cudaGetErrorString(error)[1]
    return text.decode() if isinstance(text, bytes) else str(text)


class Memory:
    """Memory of the GPU, or pinned memory of the processor. Freed with the object."""

    def __init__(self, size: int, pinned: bool = False) -> None:
        self.size = max(size, 1)
        self.address = int(call("cudaMallocHost" if pinned else "cudaMalloc", self.size))
        self._free: Callable[..., Any] = runtime().cudaFreeHost if pinned else runtime().cudaFree

    def __del__(self) -> None:
        if hasattr(self, "_free"):
            self._free(self.address)

    def array(self, offset: int, shape: tuple[int, ...], kind: npt.DTypeLike) -> npt.NDArray[Any]:
        """Array view of pinned memory, from byte `offset` on. Keep this object as long as the array."""
        count = int(np.prod(shape)) * np.dtype(kind).itemsize
        if offset + count > self.size:
            raise ValueError(f"{count} bytes at offset {offset} exceed the {self.size} bytes of this memory")
        place: Any = (c_ubyte * count).from_address(self.address + offset)
        return np.frombuffer(place, kind).reshape(shape)


class Stream:
    """A CUDA stream. Destroyed with the object."""

    def __init__(self) -> None:
        self.handle = call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking)
        self._destroy: Callable[..., Any] = runtime().cudaStreamDestroy

    def __del__(self) -> None:
        if hasattr(self, "_destroy"):
            self._destroy(self.handle)

    def upload(self, target: Memory, source: Memory, size: int) -> None:
        """Copy the first `size` bytes to the GPU."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        call("cudaMemcpyAsync", target.address, source.address, size, kind, self.handle)

    def download(self, target: int, source: int, size: int) -> None:
        """Copy `size` bytes from an address on the GPU to a pinned one."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        call("cudaMemcpyAsync", target, source, size, kind, self.handle)

    def wait(self) -> None:
        """Wait for all work of the stream. Raises UserError for any error since the last call."""
        call("cudaStreamSynchronize", self.handle)

    def record(self, work: Callable[[], None]) -> "Graph":
        """Capture the calls of `work` as a graph, without running them. Raises UserError if that fails."""
        call("cudaStreamBeginCapture", self.handle, runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        except Exception:  # end the capture, or the stream becomes unusable
            error, graph = runtime().cudaStreamEndCapture(self.handle)
            if int(error) == 0 and graph is not None:
                runtime().cudaGraphDestroy(graph)
            runtime().cudaGetLastError()
            raise
        graph = call("cudaStreamEndCapture", self.handle)
        try:
            return Graph(graph, self)
        finally:
            call("cudaGraphDestroy", graph)


class Graph:
    """A captured CUDA graph. Destroyed with the object."""

    def __init__(self, graph: Any, stream: Stream) -> None:
        self._handle = call("cudaGraphInstantiate", graph, 0)
        self._stream = stream
        self._destroy: Callable[..., Any] = runtime().cudaGraphExecDestroy

    def __del__(self) -> None:
        if hasattr(self, "_destroy"):
            self._destroy(self._handle)

    def launch(self) -> None:
        call("cudaGraphLaunch", self._handle, self._stream.handle)

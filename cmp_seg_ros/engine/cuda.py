"""What an engine needs of the CUDA runtime, by way of NVIDIA's `cuda-bindings`."""

from collections.abc import Callable
from ctypes import CDLL, byref, c_int, c_ubyte, create_string_buffer
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.errors import UserError

ADVICE = "`cmp-seg doctor` shows what this machine has"
OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
RUNTIME = "cuda.bindings.runtime"
DRIVER = "libcuda.so.1"
CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def runtime() -> Any:
    """The module. Raises ImportError."""
    return import_module(RUNTIME)


def call(name: str, *args: Any) -> Any:
    """What the function `name` of the runtime gives: nothing, a value, or several. Raises UserError."""
    error, *values = getattr(runtime(), name)(*args)
    if int(error) != 0:
        remedy = "give it fewer voxels, or take engine 'cpu'" if int(error) == OUT_OF_MEMORY else ADVICE
        raise UserError(f"the GPU refuses {name}: {describe(error)}; {remedy}")
    return values[0] if len(values) == 1 else tuple(values) or None


def gpu() -> str:
    """Name and compute capability of the first GPU, from its driver, without any package; else nothing."""
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
    """An error of the runtime in words."""
    text = runtime().cudaGetErrorString(error)[1]
    return text.decode() if isinstance(text, bytes) else str(text)


class Memory:
    """Memory of the GPU, or of the processor where the GPU reads it directly. Freed with the object."""

    def __init__(self, size: int, pinned: bool = False) -> None:
        self.size = max(size, 1)
        self.address = int(call("cudaMallocHost" if pinned else "cudaMalloc", self.size))
        self._free: Callable[..., Any] = runtime().cudaFreeHost if pinned else runtime().cudaFree

    def __del__(self) -> None:
        if hasattr(self, "_free"):
            self._free(self.address)

    def array(self, offset: int, shape: tuple[int, ...], kind: npt.DTypeLike) -> npt.NDArray[Any]:
        """Pinned memory from a byte on, as an array. Keep this object as long as the array."""
        count = int(np.prod(shape)) * np.dtype(kind).itemsize
        if offset + count > self.size:
            raise ValueError(f"{count} bytes from {offset} on are beyond the {self.size} that there are")
        place: Any = (c_ubyte * count).from_address(self.address + offset)
        return np.frombuffer(place, kind).reshape(shape)


class Stream:
    """Work for the GPU, one thing after the other. Destroyed with the object."""

    def __init__(self) -> None:
        self.handle = call("cudaStreamCreateWithFlags", runtime().cudaStreamNonBlocking)
        self._destroy: Callable[..., Any] = runtime().cudaStreamDestroy

    def __del__(self) -> None:
        if hasattr(self, "_destroy"):
            self._destroy(self.handle)

    def upload(self, target: Memory, source: Memory, size: int) -> None:
        """The first `size` bytes to the GPU."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyHostToDevice
        call("cudaMemcpyAsync", target.address, source.address, size, kind, self.handle)

    def download(self, target: int, source: int, size: int) -> None:
        """`size` bytes from an address of the GPU to a pinned one."""
        kind = runtime().cudaMemcpyKind.cudaMemcpyDeviceToHost
        call("cudaMemcpyAsync", target, source, size, kind, self.handle)

    def wait(self) -> None:
        """Until all is done. Raises UserError for what went wrong since the last time."""
        call("cudaStreamSynchronize", self.handle)

    def record(self, work: Callable[[], None]) -> "Graph":
        """What `work` gives the stream to do, not done but kept. Raises UserError where that cannot be."""
        call("cudaStreamBeginCapture", self.handle, runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        try:
            work()
        except Exception:  # capturing must end, or the stream is of no more use
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
    """Recorded work, to be launched at once. Destroyed with the object."""

    def __init__(self, graph: Any, stream: Stream) -> None:
        self._handle = call("cudaGraphInstantiate", graph, 0)
        self._stream = stream
        self._destroy: Callable[..., Any] = runtime().cudaGraphExecDestroy

    def __del__(self) -> None:
        if hasattr(self, "_destroy"):
            self._destroy(self._handle)

    def launch(self) -> None:
        call("cudaGraphLaunch", self._handle, self._stream.handle)

"""The TensorRT engine as far as one gets without a GPU: its calls in their order, and that both libraries take them.

The graph that it is built of is tested in test_graph.py.
"""

import ctypes
import re
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from engines import PREPROCESS, MakeBundle, voxels_of

from cmp_seg_ros.engine import cuda
from cmp_seg_ros.engine.base import Stale
from cmp_seg_ros.engine.loading import network_of
from cmp_seg_ros.engine.runtimes import tensorrt
from cmp_seg_ros.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[1]


class Gpu:
    """Stand-ins for TensorRT and the CUDA runtime that note what is called. Nothing is computed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.trt, self.cuda, self.context = MagicMock(), MagicMock(), MagicMock()
        self.trt.__version__ = "10.13.0.35"
        self.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 1
        self.trt.ILogger = type("ILogger", (), {"Severity": MagicMock()})
        self.trt.IProgressMonitor = object
        self.trt.Dims = tuple
        self.config = self.trt.Builder.return_value.create_builder_config.return_value
        self.builder, self.profile = self.trt.Builder.return_value, {}
        self.builder.create_optimization_profile.return_value.set_shape = lambda name, *sizes: self.profile.update(
            {name: tuple(map(tuple, sizes))}
        )
        self.config.add_optimization_profile.return_value = 0
        self.builder.build_serialized_network.return_value = b"plan"
        self.config.get_timing_cache.return_value.serialize.return_value = b"measured"
        self.engine = self.trt.Runtime.return_value.deserialize_cuda_engine.return_value
        self.engine.create_execution_context.return_value = self.context
        self.engine.get_tensor_profile_shape = lambda name, _: self.profile[name]
        self.context.infer_shapes.return_value = []
        self.context.update_device_memory_size_for_shapes.return_value = 1000
        for name in ("Malloc", "MallocHost", "Free", "FreeHost", "MemcpyAsync", "StreamSynchronize", "StreamDestroy"):
            self._note(f"cuda{name}")
        for name in ("BeginCapture", "EndCapture", "CreateWithFlags"):
            self._note(f"cudaStream{name}")
        for name in ("Instantiate", "Launch", "Destroy", "ExecDestroy"):
            self._note(f"cudaGraph{name}")
        self.blocks: list[Any] = []
        self.cuda.cudaMallocHost = self._allocate
        self.context.execute_async_v3 = lambda stream: self.calls.append("execute") or True
        self.cuda.cudaGetDeviceProperties.return_value = (0, MagicMock(name="gpu", major=8, minor=6))
        monkeypatch.setitem(sys.modules, "tensorrt", self.trt)
        monkeypatch.setattr(cuda, "runtime", lambda: self.cuda)
        tensorrt._log.cache_clear()

    def _note(self, name: str) -> None:
        handles = count(1 << 20, 256)

        def call(*_: Any) -> tuple[int, int]:
            self.calls.append(name.removeprefix("cuda"))
            return 0, next(handles)

        setattr(self.cuda, name, call)

    def _allocate(self, size: int) -> tuple[int, int]:
        """Real memory, since arrays lie in it."""
        self.blocks.append((ctypes.c_ubyte * size)())
        return 0, ctypes.addressof(self.blocks[-1])

    def load(self, network: Any) -> tensorrt.TensorRtEngine:
        """An engine whose plan has the network's shapes."""
        self.profile = network.profile()
        names = [*self.profile, "logits"]
        self.engine.num_io_tensors = len(names)
        self.engine.get_tensor_name = names.__getitem__
        shapes: dict[str, tuple[int, ...]] = {}
        self.context.set_input_shape = lambda name, shape: shapes.update({name: shape}) or True
        self.context.get_tensor_shape = lambda name: (shapes["features"][0], 6)
        return tensorrt.TensorRtEngine(network, b"plan", "fp32")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


def test_building_a_plan(gpu: Gpu, make_bundle: MakeBundle, tmp_path: Path) -> None:
    shapes, timing = network_of(make_bundle()).profile(), tmp_path / "folder" / "timing"
    assert tensorrt.build(b"model", shapes, timing) == b"plan"
    assert gpu.profile == shapes
    gpu.builder.create_network.assert_called_once_with(1 << 1)
    gpu.config.clear_flag.assert_called_once_with(gpu.trt.BuilderFlag.TF32)
    tensorrt.build(b"model", shapes, timing)
    assert [call.args[0] for call in gpu.config.create_timing_cache.mock_calls if call.args] == [b"", b"measured"]


def test_a_shape_is_run_then_recorded_then_replayed(gpu: Gpu, make_bundle: MakeBundle) -> None:
    engine = gpu.load(network_of(make_bundle()))
    inputs = voxels_of(1500).inputs._asdict()
    run = ["MemcpyAsync", "execute", "MemcpyAsync"]
    record = ["StreamBeginCapture", *run, "StreamEndCapture", "GraphInstantiate", "GraphDestroy"]
    for calls in (run, [*record, "GraphLaunch"], ["GraphLaunch"], ["GraphLaunch"]):
        gpu.calls.clear()
        answer = engine(inputs)["logits"]
        assert [call for call in gpu.calls if not call.startswith("Malloc")] == [*calls, "StreamSynchronize"]
        assert answer.shape == (len(inputs["features"]), 6) and answer.dtype == np.float32
    addresses = [call.args[1] for call in gpu.context.set_tensor_address.mock_calls]
    assert addresses == sorted(set(addresses)) and all(address % tensorrt.ALIGNMENT == 0 for address in addresses)
    (prepared,) = engine._passes.values()
    for name, values in engine.network.feed(inputs, rounded=True).items():
        np.testing.assert_array_equal(prepared.inputs[name], values)


def test_memory_grows_with_the_scan_and_old_recordings_go(gpu: Gpu, make_bundle: MakeBundle) -> None:
    engine = gpu.load(network_of(make_bundle()))
    small, large = (voxels_of(points).inputs._asdict() for points in (300, 4000))
    engine(small), engine(small)
    gpu.calls.clear()
    engine(large)
    assert gpu.calls.index("GraphExecDestroy") < gpu.calls.index("Free") < gpu.calls.index("Malloc")
    gpu.calls.clear()
    engine(small)
    assert "Malloc" not in gpu.calls and len(engine._passes) == 2


def test_a_plan_of_other_shapes_is_built_again(gpu: Gpu, make_bundle: MakeBundle) -> None:
    gpu.load(network_of(make_bundle()))
    other = network_of(make_bundle(PREPROCESS.model_copy(update={"neighbours": 8})))
    with pytest.raises(Stale, match="or other shapes"):
        tensorrt.TensorRtEngine(other, b"plan", "fp32")


@pytest.mark.parametrize(
    ("versions", "what", "remedy"),
    [
        ((0, 12080), "no NVIDIA driver", "--gpus all"),
        ((11080, 12080), "driver is for CUDA 11.8, the packages are for 12", "update the driver to 525"),
        ((12080, 12080), "", ""),
    ],
)
def test_what_is_missing_has_a_remedy(gpu: Gpu, versions: tuple[int, int], what: str, remedy: str) -> None:
    gpu.cuda.cudaDriverGetVersion.return_value, gpu.cuda.cudaRuntimeGetVersion.return_value = ((0, v) for v in versions)
    gpu.cuda.cudaGetDeviceCount.return_value = (0, 1)
    reason = tensorrt.TensorRt().reason()
    assert what in reason and remedy in reason and bool(reason) == bool(what)


def test_arguments_are_such_as_the_real_bindings_take() -> None:
    """Without a driver each function says that there is none, once it has understood its arguments."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings (the dev extra)")
    if runtime.cudaDriverGetVersion()[1]:
        pytest.skip("a driver is here: these addresses are none")
    stream = runtime.cudaStream_t(7)
    for name, *args in (
        ("cudaMalloc", 64),
        ("cudaMallocHost", 64),
        ("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking),
        ("cudaMemcpyAsync", 256, 512, 64, runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, stream),
        ("cudaStreamBeginCapture", stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
        ("cudaStreamEndCapture", stream),
        ("cudaGraphInstantiate", runtime.cudaGraph_t(7), 0),
        ("cudaGraphLaunch", runtime.cudaGraphExec_t(7), stream),
        ("cudaStreamSynchronize", stream),
        ("cudaGetDeviceProperties", 0),
    ):
        with pytest.raises(UserError, match=rf"{name} failed on the GPU: CUDA driver version is insufficient"):
            cuda.call(name, *args)


def test_the_calls_fit_the_api_of_tensorrt_10() -> None:
    """By mypy against tensorrt-stubs, of which three slips that no checker reads are mended in a copy."""
    stubs = pytest.importorskip("tensorrt_stubs", reason="needs tensorrt-stubs, as make setup installs it")
    pytest.importorskip("mypy")
    site, work = Path(stubs.__file__).resolve().parents[1], CHECKOUT / ".mypy_cache" / "tensorrt"
    for name in ("tensorrt/__init__.pyi", "tensorrt_bindings/__init__.pyi", "tensorrt_bindings/tensorrt.pyi"):
        text = re.sub(r"(?<=[(,] )in: ", "in_: ", (site / name).read_text())
        text = re.sub(r"(power: Weights = None, channel_axis: int)\)", r"\1 = 0)", text)
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(re.sub(r"^bool: DataType.*$", "", text, flags=re.M))
    source, wrong = Path("cmp_seg_ros/engine/runtimes/tensorrt.py"), work / "wrong.py"
    wrong.write_text((CHECKOUT / source).read_text().replace("execute_async_v3(", "execute_async_v2("))
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--follow-imports=silent"]
    done = subprocess.run(
        [*command, "--cache-dir", work / "cache", source, wrong],
        cwd=CHECKOUT,
        env={"MYPYPATH": str(work), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    faults = [line.partition(":")[0] for line in done.stdout.splitlines() if ": error:" in line and ".pyi:" not in line]
    assert faults == [str(wrong.relative_to(CHECKOUT))], done.stdout

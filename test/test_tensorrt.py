"""The TensorRT engine as far as one gets without a GPU: its calls in their order, and that TensorRT's API takes them.

The graph that it is built of is tested in test_graph.py.
"""

import ctypes
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from engines import PREPROCESS, MakeBundle, voxels_of

from cmp_seg_ros.engine import cuda
from cmp_seg_ros.engine.base import Stale
from cmp_seg_ros.engine.loading import network_of
from cmp_seg_ros.engine.runtimes import tensorrt
from cmp_seg_ros.errors import UserError

CHECKOUT = Path(__file__).resolve().parents[1]
empty, copy_ = torch.empty, torch.Tensor.copy_


class Gpu:
    """Stand-ins for TensorRT and PyTorch's CUDA that note what is called; memory of the GPU is this process's.

    The network's answer is the inverse of the first feature, so that it shows what went to and fro.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[str] = []
        self.trt, self.context = MagicMock(), MagicMock()
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
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.context.set_input_shape = lambda name, shape: self.shapes.update({name: shape}) or True
        self.context.get_tensor_shape = lambda name: (self.shapes["features"][0], 6)
        self.context.set_tensor_address = lambda name, address: self.addresses.update({name: address})
        self.context.execute_async_v3 = self._execute
        self.stream = SimpleNamespace(cuda_stream=7, synchronize=lambda: self.calls.append("synchronize"))
        monkeypatch.setitem(sys.modules, "tensorrt", self.trt)
        monkeypatch.setattr(torch.cuda, "Stream", lambda: self.stream)
        monkeypatch.setattr(torch.cuda, "stream", nullcontext)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: Graph(self.calls))
        monkeypatch.setattr(torch, "empty", self._empty)
        monkeypatch.setattr(torch.Tensor, "copy_", lambda *given, **_: self.calls.append("copy") or copy_(*given))
        monkeypatch.setattr(cuda, "gpu", lambda: cuda.Gpu("gpu", (8, 6), (12, 8)))
        monkeypatch.setattr(tensorrt, "_torch_has_cuda", lambda: True)
        tensorrt._log.cache_clear()

    def _empty(self, *size: Any, pin_memory: bool = False, device: Any = None, **options: Any) -> torch.Tensor:
        if pin_memory or device == "cuda":
            self.calls.append("allocate")
        return empty(*size, **options)

    def _array(self, name: str, shape: tuple[int, ...]) -> Any:
        memory = (ctypes.c_float * int(np.prod(shape))).from_address(self.addresses[name])
        return np.frombuffer(memory, np.float32).reshape(shape)

    def _execute(self, stream: int) -> bool:
        assert stream == self.stream.cuda_stream
        self.calls.append("execute")
        features = self._array("features", self.shapes["features"])
        self._array("logits", (len(features), 6))[...] = -features[:, :1]
        return True

    def load(self, network: Any) -> tensorrt.TensorRtEngine:
        """An engine whose plan has the network's shapes."""
        self.profile = network.profile()
        names = [*self.profile, "logits"]
        self.engine.num_io_tensors = len(names)
        self.engine.get_tensor_name = names.__getitem__
        return tensorrt.TensorRtEngine(network, b"plan", "fp32")


class Graph:
    """Notes what is called, and its end."""

    def __init__(self, calls: list[str]) -> None:
        self.calls = calls

    def __del__(self) -> None:
        self.calls.append("free graph")

    def capture_begin(self, capture_error_mode: str) -> None:
        self.calls.append(f"begin {capture_error_mode}")

    def capture_end(self) -> None:
        self.calls.append("end")

    def replay(self) -> None:
        self.calls.append("replay")


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
    run = ["copy", "execute", "copy"]
    record = ["begin thread_local", *run, "end"]
    for calls in (run, [*record, "replay"], ["replay"], ["replay"]):
        gpu.calls.clear()
        answer = engine(inputs)["logits"]
        assert [call for call in gpu.calls if call != "allocate"] == [*calls, "synchronize"]
        assert answer.dtype == np.float32
        np.testing.assert_array_equal(answer, np.repeat(-inputs["features"][:, :1], 6, axis=1))
    addresses = list(gpu.addresses.values())
    assert addresses == sorted(set(addresses))
    assert all((address - addresses[0]) % tensorrt.ALIGNMENT == 0 for address in addresses)
    (prepared,) = engine._passes.values()
    for name, values in engine.network.feed(inputs, rounded=True).items():
        np.testing.assert_array_equal(prepared.arrays[name], values)


def test_memory_grows_with_the_scan_and_old_recordings_go(gpu: Gpu, make_bundle: MakeBundle) -> None:
    engine = gpu.load(network_of(make_bundle()))
    small, large = (voxels_of(points).inputs._asdict() for points in (300, 4000))
    engine(small), engine(small)
    gpu.calls.clear()
    engine(large)
    assert gpu.calls.index("free graph") < gpu.calls.index("allocate")
    gpu.calls.clear()
    engine(small)
    assert "allocate" not in gpu.calls and len(engine._passes) == 2


def test_what_cannot_be_recorded_runs_without(
    gpu: Gpu, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def capture_end(_: Graph) -> None:
        raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(Graph, "capture_end", capture_end)
    engine, inputs = gpu.load(network_of(make_bundle())), voxels_of(300).inputs._asdict()
    for _ in range(3):
        gpu.calls.clear()
        engine(inputs)
    assert gpu.calls == ["copy", "execute", "copy", "synchronize"]
    assert caplog.text.count("cannot be recorded as a CUDA graph") == 1


@pytest.mark.parametrize(
    ("error", "remedy"), [("CUDA out of memory. Tried", "use larger voxels"), ("CUDA error: lost", "cmp-seg doctor")]
)
def test_errors_of_the_gpu_have_a_remedy(
    gpu: Gpu, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, error: str, remedy: str
) -> None:
    engine = gpu.load(network_of(make_bundle()))

    def fail() -> None:
        raise RuntimeError(f"{error}\nmore of it")

    monkeypatch.setattr(gpu.stream, "synchronize", fail)
    with pytest.raises(UserError, match=f"the GPU failed: {error}; .*{remedy}"):
        engine(voxels_of(300).inputs._asdict())


def test_a_plan_of_other_shapes_is_built_again(gpu: Gpu, make_bundle: MakeBundle) -> None:
    gpu.load(network_of(make_bundle()))
    other = network_of(make_bundle(PREPROCESS.model_copy(update={"neighbours": 8})))
    with pytest.raises(Stale, match="or other shapes"):
        tensorrt.TensorRtEngine(other, b"plan", "fp32")


GPU = cuda.Gpu("gpu", (8, 6), (12, 8))


@pytest.mark.parametrize(
    ("gpu_found", "has_cuda", "what", "remedy"),
    [
        (None, True, "no NVIDIA driver", "--gpus all"),
        (
            GPU._replace(cuda=(11, 8)),
            True,
            "driver is for CUDA 11.8, TensorRT is for 12",
            "update the driver to 525",
        ),
        (GPU._replace(capability=(6, 1)), True, "capability 6.1; 7.5 is required", "engine 'cpu'"),
        (GPU, False, "PyTorch is installed without CUDA", "pytorch.org"),
        (GPU, True, "", ""),
    ],
)
def test_what_is_missing_has_a_remedy(
    gpu: Gpu, monkeypatch: pytest.MonkeyPatch, gpu_found: cuda.Gpu | None, has_cuda: bool, what: str, remedy: str
) -> None:
    monkeypatch.setattr(cuda, "gpu", lambda: gpu_found)
    monkeypatch.setattr(tensorrt, "_torch_has_cuda", lambda: has_cuda)
    monkeypatch.setattr(tensorrt, "_cuda_of_tensorrt", lambda: 12)
    reason = tensorrt.TensorRt().reason()
    assert what in reason and remedy in reason and bool(reason) == bool(what)


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

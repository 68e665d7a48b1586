"""The TensorRT engine up to the calls of TensorRT and CUDA, and the shapes it pads to. No GPU has run it."""

import gc
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from engines import PREPROCESS, MakeBundle, voxels_of
from fake_gpu import Error, FakeGpu
from hypothesis import given, settings
from hypothesis import strategies as st

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import buckets, cache, cuda, graph, layout, reference, tensorrt
from cmp_seg_ros.engine.base import load_engine
from cmp_seg_ros.engine.exported import Stale
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> FakeGpu:
    tensorrt._log.cache_clear()
    return FakeGpu().install(monkeypatch)


def engine_of(bundle: Bundle, precision: graph.Precision = "fp32") -> tensorrt.TensorRtEngine:
    model = graph.build(bundle, precision).SerializeToString()
    plan = tensorrt.build(model, bundle.description.preprocess)
    return tensorrt.TensorRtEngine(bundle, plan, precision)


# --- shapes


def crowd(count: int, extent: float, preprocess: PreprocessConfig, seed: int) -> Voxels:
    random = np.random.default_rng(seed)
    xyz = random.uniform(-extent, extent, (count, 3)).astype(np.float32)
    return prepare(xyz, random.random(count).astype(np.float32), preprocess)[0]


@settings(max_examples=40)
@given(st.integers(1, 6000), st.floats(0.2, 12.0), st.integers(0, 99))
def test_shapes_hold_every_scan_and_stay_in_the_profile(count: int, extent: float, seed: int) -> None:
    voxels = crowd(count, extent, PREPROCESS, seed)
    if len(voxels) == 0:
        return
    shapes, profile = buckets.shapes(voxels, PREPROCESS), buckets.profile(PREPROCESS)
    feed = layout.arrange(voxels, PREPROCESS, shapes)  # raises if something does not fit
    assert {name: values.shape for name, values in feed.items()} == shapes
    assert profile.keys() == shapes.keys() == {value.name for value in graph.inputs(PREPROCESS)}
    for name, shape in shapes.items():
        least, typical, most = profile[name]
        assert all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)), name
        assert all(low <= size <= high for low, size, high in zip(least, typical, most, strict=True)), name
    waste = shapes["features"][0] - len(voxels)
    assert 0 <= waste < buckets.VOXELS


@pytest.mark.parametrize("norm", ["batchnorm", "layernorm"])
def test_padding_changes_no_label(make_bundle: MakeBundle, norm: str) -> None:
    """Also where the occupied cells touch the border of the full grid, beyond which there must be no cells."""
    fields = PREPROCESS.model_dump() | {
        "fov_min": (-4, -4, -1),
        "fov_max": (4, 4, 1),
        "grids": [(40, 33), (40, 7), (33, 7)],
    }
    for preprocess, extent in ((PREPROCESS, 5.0), (PREPROCESS, 0.5), (PreprocessConfig.model_validate(fields), 6.0)):
        bundle = make_bundle(preprocess, norm=norm)
        session = onnxruntime.InferenceSession(graph.build(bundle, "fp32").SerializeToString())
        for seed, count in enumerate((5, 700, 3000)):
            voxels = crowd(count, extent, preprocess, seed)
            exact = session.run(None, layout.arrange(voxels, preprocess))[0]
            feed = layout.arrange(voxels, preprocess, buckets.shapes(voxels, preprocess))
            padded = session.run(None, feed)[0][: len(voxels)]
            np.testing.assert_allclose(padded, exact, atol=2e-5 * max(1, np.abs(exact).max()))
            np.testing.assert_array_equal(padded.argmax(axis=1), exact.argmax(axis=1))


def test_shapes_depend_on_the_scan_alone_and_repeat() -> None:
    """Scans of one room from slightly different places share a shape."""
    shapes = [buckets.shapes(voxels_of(1500, seed=seed), PREPROCESS) for seed in range(12)]
    assert shapes[0] == buckets.shapes(voxels_of(1500, seed=0), PREPROCESS)
    assert len({tuple(shape.values()) for shape in shapes}) <= 3


# --- building


def test_the_network_is_strongly_typed_with_plugins_and_a_profile(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    model = graph.build(make_bundle(), "fp16").SerializeToString()
    assert tensorrt.build(model, PREPROCESS) == model  # what the stand-in calls a plan
    assert gpu.plugins == 1
    assert gpu.network_flags == [1 << 1]
    assert gpu.cleared == ["TF32"]
    assert gpu.previews == {"RUNTIME_ACTIVATION_RESIZE_10_10": True}
    assert gpu.profile == buckets.profile(PREPROCESS)
    assert gpu.profile["features"][2] == (layout.MAX_VOXELS, PREPROCESS.inputs)
    assert gpu.steps == [True] * 3, "the build goes on"
    assert gpu.timing == []


def test_a_release_without_the_flag_is_strongly_typed_anyway(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    """As of TensorRT 11, should it drop the flag, and the preview of what is there by now."""
    sys.modules["tensorrt"].NetworkDefinitionCreationFlag = object()  # type: ignore[attr-defined]
    sys.modules["tensorrt"].PreviewFeature = object()  # type: ignore[attr-defined]
    tensorrt.build(graph.build(make_bundle(), "fp32").SerializeToString(), PREPROCESS)
    assert gpu.network_flags == [0]


def test_what_was_measured_while_building_serves_the_next_build(
    gpu: FakeGpu, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    model, timing = graph.build(make_bundle(), "fp32").SerializeToString(), tmp_path / "folder" / "timing.bin"
    tensorrt.build(model, PREPROCESS, timing)
    tensorrt.build(model, PREPROCESS, timing)
    assert gpu.timing == [b"", b"timed"]
    assert timing.read_bytes() == b"timedtimed"
    gpu.refuse = "timing"  # of another GPU
    tensorrt.build(model, PREPROCESS, timing)
    assert gpu.timing[2:] == [b""]
    assert timing.read_bytes() == b"timed"
    assert [path.name for path in timing.parent.iterdir()] == ["timing.bin"]
    (tmp_path / "file").touch()
    tensorrt.build(model, PREPROCESS, tmp_path / "file" / "timing.bin")  # cannot be kept: no reason to fail


@pytest.mark.parametrize(
    ("refuse", "told"),
    [("parse", "fault 0; fault 1"), ("profile", "does not take the shapes"), ("build", "out of memory")],
)
def test_what_tensorrt_refuses_is_told_in_one_message(
    gpu: FakeGpu, make_bundle: MakeBundle, refuse: str, told: str
) -> None:
    gpu.refuse = refuse
    with pytest.raises(UserError, match=told) as refused:
        tensorrt.build(graph.build(make_bundle(), "fp32").SerializeToString(), PREPROCESS)
    assert "engine 'cpu'" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_long_build_tells_how_far_it_is(
    gpu: FakeGpu, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tensorrt, "REPORT_EVERY", -1.0)
    with caplog.at_level(logging.INFO, "cmp_seg_ros"):
        tensorrt.build(graph.build(make_bundle(), "fp32").SerializeToString(), PREPROCESS)
    assert "takes minutes" in caplog.text
    assert "tactics, step 2 of 3" in caplog.text


# --- running


def test_answers_are_those_of_the_reference_first_recorded_and_replayed(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    engine, truth = engine_of(bundle), reference.load(bundle)
    scans = [voxels_of(1500, seed=seed) for seed in range(5)]
    assert len({tuple(buckets.shapes(scan, PREPROCESS).values()) for scan in scans}) == 1
    launches = []
    for scan in scans:
        answer = engine(scan)
        assert answer.shape == (len(scan), 6)
        assert answer.dtype == np.float32
        np.testing.assert_allclose(answer, truth(scan), atol=1e-3)
        launches.append((gpu.calls["execute"], gpu.calls["cudaGraphInstantiate"], gpu.calls["cudaGraphLaunch"]))
    # the first as it is, the second recorded and replayed, then replayed only
    assert launches == [(1, 0, 0), (2, 1, 1), (2, 1, 2), (2, 1, 3), (2, 1, 4)]
    assert gpu.calls["copy up"] == gpu.calls["copy down"] == 2, "copies are part of the graph"
    assert len(gpu.contexts) == 1


def test_each_shape_has_a_context_and_a_graph_in_the_same_memory(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    engine, truth = engine_of(bundle), reference.load(bundle)
    large, small = voxels_of(2500), voxels_of(300)
    engine(large)
    blocks, allocations = set(gpu.live), gpu.calls["cudaMalloc"] + gpu.calls["cudaMallocHost"]
    for _ in range(3):
        for scan in (small, large):
            np.testing.assert_allclose(engine(scan), truth(scan), atol=1e-3)
    assert set(gpu.live) == blocks, "no memory was taken or given back"
    assert gpu.calls["cudaMalloc"] + gpu.calls["cudaMallocHost"] == allocations == 3
    assert gpu.calls["cudaGraphInstantiate"] == 2
    assert len(gpu.contexts) == 2
    assert gpu.calls["cudaStreamSynchronize"] == 7


def test_more_activations_take_a_new_block_and_forget_the_graphs_of_the_old(
    gpu: FakeGpu, make_bundle: MakeBundle
) -> None:
    bundle = make_bundle()
    engine, truth = engine_of(bundle), reference.load(bundle)
    small, large = voxels_of(300), voxels_of(4000)
    engine(small), engine(small)
    assert gpu.calls["cudaGraphInstantiate"] == 1
    np.testing.assert_allclose(engine(large), truth(large), atol=1e-3)
    assert gpu.contexts[0]() is None
    assert gpu.graphs == 0
    assert len(gpu.live) == 3, "the old block was freed"
    np.testing.assert_allclose(engine(small), truth(small), atol=1e-3)


def test_few_shapes_stay_prepared(gpu: FakeGpu, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorrt, "KEPT", 2)
    engine = engine_of(make_bundle())
    scans = [voxels_of(points) for points in (3000, 1400, 300)]
    for scan in (scans[0], scans[1], scans[0], scans[2]):  # the second is the one longest unused
        engine(scan)
    assert [context() is not None for context in gpu.contexts] == [True, False, True]


def test_what_cannot_be_recorded_runs_without_a_graph(
    gpu: FakeGpu, make_bundle: MakeBundle, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.capturable = False
    bundle, scan = make_bundle(), voxels_of(900)
    engine, truth = engine_of(bundle), reference.load(bundle)(scan)
    for _ in range(4):
        np.testing.assert_allclose(engine(scan), truth, atol=1e-3)
    assert gpu.calls["cudaStreamBeginCapture"] == gpu.calls["cudaStreamEndCapture"] == 1, "it is tried once"
    assert gpu.calls["cudaGraphLaunch"] == gpu.graphs == 0
    assert caplog.text.count("cannot be recorded") == 1


def test_everything_is_given_back(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    engine, scan = engine_of(make_bundle()), voxels_of(600)
    engine(scan), engine(scan)
    assert gpu.streams == gpu.graphs == 1
    del engine
    gc.collect()
    assert (gpu.streams, gpu.graphs, gpu.live) == (0, 0, {})
    assert all(context() is None for context in gpu.contexts)


def test_no_voxels_and_too_many(gpu: FakeGpu, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, scan = engine_of(make_bundle()), voxels_of(600)
    nothing = Voxels(scan.points[:0], scan.xyz[:0], scan.features[:0], scan.neighbours[:0], scan.cells[:, :0])
    assert engine(nothing).shape == (0, 6)
    assert gpu.calls["execute"] == 0
    monkeypatch.setattr(layout, "MAX_VOXELS", len(scan) - 1)
    with pytest.raises(UserError, match="greater voxel_size, or engine 'cpu'"):
        engine(scan)
    assert gpu.calls["execute"] == 0


@pytest.mark.parametrize(("refuse", "told"), [("context", "no context"), ("shape", "does not take inputs of")])
def test_a_shape_that_tensorrt_refuses_is_an_error_and_never_a_label(
    gpu: FakeGpu, make_bundle: MakeBundle, refuse: str, told: str
) -> None:
    engine = engine_of(make_bundle())
    gpu.refuse = refuse
    with pytest.raises(UserError, match=told):
        engine(voxels_of(600))
    gpu.refuse = ""
    assert engine(voxels_of(600)).shape[1] == 6


def test_a_gpu_that_fails_while_it_runs_is_told(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    bundle, scan = make_bundle(), voxels_of(600)
    engine = engine_of(bundle)
    gpu.refuse = "execute"
    with pytest.raises(UserError, match="TensorRT failed"):
        engine(scan)
    gpu.refuse = ""
    gpu.fail = {"cudaStreamSynchronize": Error.cudaErrorInvalidValue}
    with pytest.raises(UserError, match="cudaStreamSynchronize: it is cudaErrorInvalidValue"):
        engine(scan)
    gpu.fail = {"cudaMemcpyAsync": Error.cudaErrorInvalidValue}  # while it would be recorded
    with pytest.raises(UserError, match="cudaMemcpyAsync"):
        engine(scan)
    gpu.fail = {}
    np.testing.assert_allclose(engine(scan), reference.load(bundle)(scan), atol=1e-3)


def test_no_memory_left_is_told_with_a_remedy_and_can_be_got_over(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    engine = engine_of(make_bundle())
    engine(voxels_of(300))
    gpu.fail = {"cudaMalloc": Error.cudaErrorMemoryAllocation}
    with pytest.raises(UserError, match="fewer voxels, or take engine 'cpu'"):
        engine(voxels_of(4000))
    gpu.fail = {}
    assert len(engine(voxels_of(4000)))
    assert len(gpu.live) == 3


def test_a_plan_that_is_damaged_or_of_another_bundle_is_refused(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    bundle = make_bundle()
    plan = graph.build(bundle, "fp32").SerializeToString()
    tensorrt.build(plan, PREPROCESS)
    gpu.refuse = "plan"
    with pytest.raises(UserError, match="magic tag does not match; it is built again"):
        tensorrt.TensorRtEngine(bundle, plan, "fp32")
    gpu.refuse = ""
    for other in (make_bundle(outputs=4), make_bundle(PREPROCESS.model_copy(update={"neighbours": 8}))):
        with pytest.raises(Stale, match="of another bundle or of other shapes"):
            tensorrt.TensorRtEngine(other, plan, "fp32")
    assert gpu.calls["cudaMalloc"] == 0


def test_pinned_memory_is_not_overrun(gpu: FakeGpu) -> None:
    memory = cuda.Memory(64, pinned=True)
    memory.array(32, (8,), np.float32)[...] = 1
    with pytest.raises(ValueError, match="beyond the 64"):
        memory.array(32, (9,), np.float32)


# --- from bundle to engine


@pytest.fixture
def engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of built engines, empty."""
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    return tmp_path


def test_the_fastest_precision_that_agrees_is_built_once_and_kept(
    gpu: FakeGpu, make_bundle: MakeBundle, engines: Path
) -> None:
    bundle = make_bundle()
    assert load_engine(bundle, "tensorrt").precision == "fp16"
    (kept,) = engines.glob("*.engine")
    for part in (bundle.hash, "tensorrt", gpu.version, "fp16", "NVIDIA_A40.8.6"):
        assert part in kept.name
    assert len(list(engines.glob("*.timing"))) == 1
    assert len(gpu.network_flags) == 1
    engine = load_engine(bundle, "tensorrt")
    assert len(gpu.network_flags) == 1, "not built again"
    scan = voxels_of(800)
    np.testing.assert_allclose(engine(scan), reference.load(bundle)(scan), atol=0.3)
    assert load_engine(bundle, "tensorrt-fp32").precision == "fp32"
    assert len(gpu.network_flags) == 2


def test_another_gpu_release_or_damage_builds_anew(gpu: FakeGpu, make_bundle: MakeBundle, engines: Path) -> None:
    bundle = make_bundle()
    for builds, change in enumerate((lambda: None, lambda: setattr(gpu.device, "name", b"Orin"), _new_release), 1):
        change()
        load_engine(bundle, "tensorrt-fp32")
        assert len(gpu.network_flags) == builds
    for path in engines.glob("*.engine"):
        path.write_bytes(path.read_bytes()[:-1])
    load_engine(bundle, "tensorrt-fp32")
    assert len(gpu.network_flags) == 4


def _new_release() -> None:
    sys.modules["tensorrt"].__version__ = "11.4.0.106"  # type: ignore[attr-defined]


def test_a_precision_that_answers_otherwise_is_not_taken(
    gpu: FakeGpu, make_bundle: MakeBundle, engines: Path, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.device.major = 7
    gpu.wrong = "fp16"
    bundle = make_bundle()
    assert load_engine(bundle, "tensorrt").precision == "fp32"
    assert "tensorrt-fp16 is not taken" in caplog.text


# --- what is missing


def test_nothing_is_missing_where_everything_is_there(gpu: FakeGpu) -> None:
    assert tensorrt.missing() == []
    tensorrt.require()
    assert tensorrt.precisions() == ["fp16", "bf16", "fp32"]
    assert tensorrt.device() == ("NVIDIA A40", (8, 6))
    assert tensorrt.release() == gpu.version


@pytest.mark.parametrize(
    ("change", "what", "remedy"),
    [
        ({"driver": 0}, "no NVIDIA driver", "--gpus all"),
        ({"driver": 11080}, "driver is for CUDA 11.8, the packages are for 12", "update the driver to 525"),
        ({"runtime_version": 13010}, "driver is for CUDA 12.8, the packages are for 13", "update the driver to 580"),
        ({"devices": 0}, "no GPU: it is cudaErrorNoDevice", "CUDA_VISIBLE_DEVICES"),
        (
            {"device": type("P", (), {"name": "Tesla P4\0", "major": 6, "minor": 1})},
            "Tesla P4 has compute capability 6.1",
            "'cpu'",
        ),
        ({"version": "8.6.1"}, "TensorRT 8.6.1 is too old", "10.3 or newer"),
    ],
)
def test_each_lack_is_named_with_its_remedy(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], what: str, remedy: str
) -> None:
    gpu = FakeGpu()
    vars(gpu).update(change)
    gpu.install(monkeypatch)
    (lack,) = tensorrt.missing()
    assert what in lack.what
    assert remedy in lack.remedy
    with pytest.raises(UserError, match="cmp-seg doctor") as refused:
        tensorrt.require()
    assert what in str(refused.value)


def test_an_old_gpu_has_no_bf16(gpu: FakeGpu, make_bundle: MakeBundle) -> None:
    gpu.device.major, gpu.device.minor = 7, 5
    assert tensorrt.precisions() == ["fp16", "fp32"]
    with pytest.raises(UserError, match="no bf16 for engine 'tensorrt'; it has fp16, fp32"):
        tensorrt.load(make_bundle(), "bf16")


@pytest.mark.parametrize("stubs", [True, False], ids=["type_stubs_only", "nothing"])
def test_packages_that_are_not_installed_are_named_all_at_once(monkeypatch: pytest.MonkeyPatch, stubs: bool) -> None:
    """Type stubs leave a package without content, which is no TensorRT."""
    monkeypatch.setitem(sys.modules, "tensorrt", type(sys)("tensorrt") if stubs else None)
    for name in ("onnx", "cuda", "cuda.bindings", "cuda.bindings.runtime"):
        monkeypatch.setitem(sys.modules, name, None)
    lacks = tensorrt.missing()
    assert [lack.what.split()[1] for lack in lacks] == ["onnx", "tensorrt", "cuda-bindings"]
    assert all("is not installed" in lack.what for lack in lacks)
    assert all("pip install" in lack.remedy for lack in lacks)
    with pytest.raises(UserError, match=r"onnx.*tensorrt.*cuda-bindings"):
        tensorrt.require()


# --- types


def test_arguments_are_such_as_the_real_bindings_take() -> None:
    """Without a driver each function says that there is none, once it has understood its arguments."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="needs cuda-bindings (the dev extra)")
    if runtime.cudaDriverGetVersion()[1]:
        pytest.skip("a driver is here: these addresses are none")
    up, down = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice, runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    stream = runtime.cudaStream_t(7)
    assert int(stream) == 7
    for name, *args in (
        ("cudaMalloc", 64),
        ("cudaMallocHost", 64),
        ("cudaStreamCreateWithFlags", runtime.cudaStreamNonBlocking),
        ("cudaMemcpyAsync", 256, 512, 64, up, stream),
        ("cudaMemcpyAsync", 256, 512, 64, down, stream),
        ("cudaStreamBeginCapture", stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal),
        ("cudaStreamEndCapture", stream),
        ("cudaGraphInstantiate", runtime.cudaGraph_t(7), 0),
        ("cudaGraphLaunch", runtime.cudaGraphExec_t(7), stream),
        ("cudaStreamSynchronize", stream),
        ("cudaGetDeviceProperties", 0),
    ):
        with pytest.raises(UserError, match=rf"refuses {name}: CUDA driver version is insufficient"):
            cuda.call(name, *args)
    for name, *args in (
        ("cudaFree", 256),
        ("cudaFreeHost", 256),
        ("cudaStreamDestroy", stream),
        ("cudaGraphDestroy", runtime.cudaGraph_t(7)),
        ("cudaGraphExecDestroy", runtime.cudaGraphExec_t(7)),
        ("cudaGetLastError",),
    ):
        assert int(getattr(runtime, name)(*args)[0]) != 0
    assert "no NVIDIA driver" in [lack.what for lack in tensorrt.missing()]
    with pytest.raises(UserError, match="no NVIDIA driver"):
        tensorrt.require()


def test_the_calls_fit_the_api_of_tensorrt_10() -> None:
    """By mypy against tensorrt-stubs, of which three slips that no checker reads are mended in a copy."""
    stubs = pytest.importorskip("tensorrt_stubs", reason="needs tensorrt-stubs, as make setup installs it")
    pytest.importorskip("mypy")
    site, work = Path(stubs.__file__).resolve().parents[1], CHECKOUT / ".mypy_cache" / "tensorrt"
    for name in ("tensorrt/__init__.pyi", "tensorrt_bindings/__init__.pyi", "tensorrt_bindings/tensorrt.pyi"):
        text = (site / name).read_text()
        text = re.sub(r"(?<=[(,] )in: ", "in_: ", text)
        text = text.replace(
            "power: Weights = None, channel_axis: int)", "power: Weights = None, channel_axis: int = ...)"
        )
        text = re.sub(r"^bool: DataType.*$", "", text, flags=re.M)
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)

    source, wrong = Path("cmp_seg_ros/engine/tensorrt.py"), work / "wrong.py"
    text = (CHECKOUT / source).read_text().replace("execute_async_v3(", "execute_async_v2(")  # what must be noticed
    wrong.write_text(text.replace("trt.OnnxParser(network, log)", "trt.OnnxParser(network)"))
    options = ["--config-file", "pyproject.toml", "--follow-imports=silent", "--cache-dir", work / "cache"]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, source, wrong],
        cwd=CHECKOUT,
        env=os.environ | {"MYPYPATH": str(work)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "prevented further checking" not in done.stdout, done.stdout
    faults = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line for line in faults if line.startswith(str(source))] == []
    assert len([line for line in faults if "wrong.py:" in line]) == 2, "the stubs were not read"

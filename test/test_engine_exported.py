"""Engines by other runtimes: they answer as the reference does, and are not taken where they do not."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import PREPROCESS, MakeBundle, voxels_of

from cmp_seg_ros.bundle import Bundle, IntensityConfig
from cmp_seg_ros.engine import cache, cpu, cuda, exported, layout, onnxruntime, openvino, packages, parity, reference
from cmp_seg_ros.engine.base import ENGINES, load_engine, runtime_of, softmax
from cmp_seg_ros.engine.exported import Runtime, Stale
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron.config import PreprocessConfig
from cmp_seg_ros.waffleiron.preprocess import Voxels, prepare

RUNTIMES = ("openvino", "onnxruntime-cpu")
EVERY = [f"openvino-{precision}" for precision in openvino.precisions()] + ["onnxruntime-cpu-fp32"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    "fields", [{}, {"norm": "layernorm", "activation": "gelu", "head": "mlp", "head_hidden": 40}, {"head": "probe"}]
)
def test_answers_as_the_reference(make_bundle: MakeBundle, name: str, fields: dict[str, Any]) -> None:
    bundle = make_bundle(**fields)
    engine = load_engine(bundle, name)
    assert f"{engine.name}-{engine.precision}" == name
    for points in (1500, 1, 40, 1501):  # of changing size
        voxels = voxels_of(points)
        answer, truth = engine(voxels), reference.load(bundle)(voxels)
        if name.endswith("fp32"):
            np.testing.assert_allclose(answer, truth, atol=5e-5 * max(1.0, float(np.abs(truth).max())))
        elif points > 1000:
            assert 1e-6 < np.abs(softmax(answer) - softmax(truth)).mean() < 0.01
        assert answer.dtype == np.float32


@pytest.mark.parametrize("name", EVERY)
def test_answers_stay_when_the_next_scan_comes(make_bundle: MakeBundle, name: str) -> None:
    engine = load_engine(make_bundle(), name)
    first = engine(voxels_of(500))
    kept = first.copy()
    engine(voxels_of(500, seed=1))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(engine(voxels_of(500)), kept)


@pytest.mark.parametrize("name", EVERY)
def test_no_voxels(make_bundle: MakeBundle, name: str) -> None:
    voxels = prepare(np.full((4, 3), 50, np.float32), np.zeros(4, np.float32), PREPROCESS)[0]
    assert load_engine(make_bundle(), name)(voxels).shape == (0, 6)


@pytest.mark.parametrize("name", RUNTIMES)
def test_more_voxels_in_a_cell_than_can_be_summed(
    make_bundle: MakeBundle, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never a wrong label: an error. Where all fits in cells, the number of voxels has no bound."""
    bundle = make_bundle()
    engine, voxels = load_engine(bundle, f"{name}-fp32"), voxels_of(1500)
    most = max(int(np.bincount(cells).max()) for cells in voxels.cells)
    monkeypatch.setattr(layout, "MAX_VOXELS", most)
    np.testing.assert_allclose(engine(voxels), reference.load(bundle)(voxels), atol=1e-3)
    monkeypatch.setattr(layout, "MAX_VOXELS", most - 1)
    with pytest.raises(UserError, match=rf"'{name}' cannot take a scan: a cell .* holds {most} voxels.*engine 'cpu'"):
        engine(voxels)


@pytest.mark.parametrize("precision", openvino.precisions())
def test_openvino_computes_in_the_precision_asked_for(make_bundle: MakeBundle, precision: str) -> None:
    blob = openvino.build(make_bundle(width=32), precision)
    compiled = openvino.core().import_model(BytesIO(blob), "CPU", openvino._options())
    used: dict[str, set[str]] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        kind, number = (str(node.get_rt_info()[name].astype(str)) for name in ("layerType", "runtimePrecision"))
        used.setdefault(kind, set()).add(number)
    assert used["FullyConnected"] == ({"f32"} if precision == "fp32" else {"f32", precision})
    assert used["Convolution"] == {"f32"}


def test_engines_of_different_bundles_are_kept_apart(make_bundle: MakeBundle, folder: Path) -> None:
    voxels = voxels_of(400)
    for bundle in (make_bundle(), make_bundle(depth=3), make_bundle()):
        answer = load_engine(bundle, "onnxruntime-cpu-fp32")(voxels)
        np.testing.assert_allclose(answer, reference.load(bundle)(voxels), atol=1e-3)
    assert len(list(folder.glob("*.engine"))) == 2


@pytest.mark.parametrize("name", RUNTIMES)
def test_what_the_runtime_cannot_read_is_built_anew(make_bundle: MakeBundle, name: str, tmp_path: Path) -> None:
    """Whole by its checksum, but nothing that the runtime knows.

    In a process of its own: OpenVINO gives it a stack for signals, and where that were gone the next would kill it.
    """
    bundle = make_bundle()
    script = f"""if True:
        import logging, os, signal, numpy as np
        from pathlib import Path
        from cmp_seg_ros.bundle import Bundle
        from cmp_seg_ros.engine import cache
        from cmp_seg_ros.engine.base import load_engine, runtime_of
        from engines import voxels_of
        cache.folder = lambda: Path({str(tmp_path)!r})
        logging.basicConfig()
        bundle = Bundle.find({str(bundle.path)!r})
        cache.obtain(runtime_of({name!r})[0].key(bundle, "fp32"), lambda: b"nonsense")
        np.save({str(tmp_path / "logits.npy")!r}, load_engine(bundle, {name + "-fp32"!r})(voxels_of(300)))
        signal.signal(signal.SIGINT, lambda *_: print("handled"))
        os.kill(os.getpid(), signal.SIGINT)
    """
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert "cannot read what" in done.stderr, done.stderr
    assert done.returncode == 0 and done.stdout == "handled\n"
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_allclose(logits, reference.load(bundle)(voxels_of(300)), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openvino-fp16", "this machine has no fp16 for engine 'openvino'; it has .*fp32"),
        ("openvino-int4", "this machine has no int4"),
        ("onnxruntime-bf16", "this machine has no bf16 for engine 'onnxruntime-cpu'; it has fp32"),
        ("onnxruntime-npu-fp32", "no provider 'npu' for engine 'onnxruntime'; known: cuda, cpu"),
        ("onnxruntime-cuda", "no CUDA provider here: pip install onnxruntime-gpu"),
        ("cpu-fp16", "this machine has no fp16 for engine 'cpu'"),
        ("onnxruntime-cpu-fp64", "this machine has no fp64 for engine 'onnxruntime-cpu'; it has fp32"),
    ],
)
def test_what_this_machine_lacks_is_said(make_bundle: MakeBundle, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_engine(make_bundle(), name)


@pytest.mark.parametrize("package", ["openvino", "onnxruntime"])
def test_a_runtime_that_is_not_installed(
    make_bundle: MakeBundle, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"needs the package {package}, which .*: pip install {package} onnx"):
        load_engine(make_bundle(), package)


def test_a_runtime_that_cannot_be_loaded_is_not_called_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is there, and what it imports is not; or its library is broken."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lame.py").write_text("import no_such_package")
    (tmp_path / "broken.py").write_text("raise ImportError('undefined symbol')")
    assert packages.find("lame") == (None, "cannot be loaded: No module named 'no_such_package'")
    assert packages.find("broken") == (None, "cannot be loaded: undefined symbol")
    assert packages.find("no_such.package") == (None, "is not installed")
    assert packages.find("json")[0].__name__ == "json"
    with pytest.raises(
        UserError, match=r"engine 'x' needs the package lame, which cannot be loaded: .*: pip install lame"
    ):
        packages.need("lame", "x", "pip install lame")


class Driver:
    """libcuda, as far as it tells of GPUs."""

    def __init__(self, fault: int = 0) -> None:
        self.fault = fault

    def cuInit(self, flags: int) -> int:
        return self.fault

    def cuDeviceGet(self, device: Any, number: int) -> int:
        device._obj.value = 3
        return number

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:
        assert size == len(name) and device.value == 3
        name.value = b"NVIDIA A40"
        return 0

    def cuDeviceGetAttribute(self, number: Any, attribute: int, device: Any) -> int:
        number._obj.value = {75: 8, 76: 6}[attribute]
        return 0


def test_engines_for_a_gpu_are_kept_by_its_name_and_compute_capability(
    make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda, "CDLL", lambda name: Driver())
    assert cuda.gpu() == "NVIDIA A40.8.6"
    monkeypatch.setattr(onnxruntime, "_providers", lambda: ["cuda", "cpu"])
    assert str(onnxruntime.runtime("cuda").key(make_bundle(), "fp16")).endswith("-fp16-NVIDIA_A40.8.6")
    monkeypatch.setattr(cuda, "CDLL", lambda name: Driver(fault=100))  # CUDA_ERROR_NO_DEVICE
    assert cuda.gpu() == "gpu"

    def absent(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(cuda, "CDLL", absent)
    assert cuda.gpu() == "gpu"


def test_building_without_the_package_onnx(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cmp_seg_ros.engine.graph", raising=False)
    monkeypatch.delattr("cmp_seg_ros.engine.graph", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="needs the package onnx: pip install onnx"):
        load_engine(make_bundle(), "onnxruntime-cpu-fp32")


@pytest.mark.parametrize(
    ("name", "precision", "said"),
    [
        ("reference", "", "nothing to export"),
        ("openvino-fp32", "bf16", "another precision"),
        ("openvino-half", "", "no engine 'openvino-half'"),
        ("nothing", "", "known: auto, reference, cpu"),
        ("onnxruntime-cpu-fp64", "", "no engine 'onnxruntime-cpu-fp64'; precisions are int8, bf16, fp16, fp32"),
    ],
)
def test_names_that_cannot_be_exported(name: str, precision: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        runtime_of(name, precision)
    assert runtime_of("onnxruntime-cpu-fp32", "fp32")[1] == "fp32" and runtime_of("auto")[0].name == "cpu"


# ---- choosing a precision


class Wrong:
    """Answers as the exact engine, but for a share of the voxels."""

    name = "wrong"

    def __init__(self, bundle: Bundle, precision: str, share: float, seen: list[str]) -> None:
        self.exact, self.precision, self.share, self.seen = cpu.CpuEngine(bundle, "fp32"), precision, share, seen

    def __call__(self, voxels: Voxels) -> Float32:
        self.seen.append(self.precision)
        logits = self.exact(voxels)
        logits[: round(self.share * len(logits))] *= -1
        return logits


def wrong(shares: dict[str, float], seen: list[str]) -> Runtime:
    return Runtime(
        name="wrong",
        version="1",
        hardware="here",
        precisions=list(shares),
        sources=[],
        open=lambda bundle, _, precision: Wrong(bundle, precision, shares[precision], seen),
        build=lambda bundle, precision: precision.encode(),
    )


@pytest.fixture
def trained(make_bundle: MakeBundle) -> Callable[..., Bundle]:
    def make(**training: Any) -> Bundle:
        bundle = make_bundle(depth=2)
        bundle.description = bundle.description.model_copy(update={"training": training})
        return bundle

    return make


def test_the_fastest_precision_that_answers_alike_is_taken(
    trained: Callable[..., Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, seen = trained(steps=1), []
    runtime = wrong({"int8": 0.03, "bf16": 0.005, "fp32": 0.0}, seen)
    assert runtime.load(bundle).precision == "bf16"
    assert seen == ["int8"] * 6 + ["bf16"] * 6  # three scans with two sizes of voxels
    assert "wrong-int8 is not taken: 97.0" in caplog.text and "wrong-bf16 is not taken" not in caplog.text
    opened: list[str] = []
    watched = replace(runtime, build=lambda _, precision: opened.append(precision) or b"")
    cache.path_of(runtime.key(bundle, "int8")).unlink()
    assert watched.load(bundle).precision == "bf16" and len(seen) == 12  # remembered,
    assert not opened  # and what is not taken is not built again
    with pytest.raises(UserError, match=r"no fp8 .* it has int8, bf16, fp32"):
        runtime.load(bundle, "fp8")


def test_a_named_precision_is_checked_once_and_taken_all_the_same(
    trained: Callable[..., Bundle], caplog: pytest.LogCaptureFixture
) -> None:
    bundle, seen = trained(steps=1), []
    runtime = wrong({"int8": 0.03, "bf16": 0.005, "fp32": 0.0}, seen)
    for _ in range(2):
        caplog.clear()
        assert runtime.load(bundle, "int8").precision == "int8" and seen == ["int8"] * 6
        assert "wrong-int8 is taken since it is asked for, but 97.0" in caplog.text
    caplog.clear()
    assert runtime.load(bundle, "bf16").precision == "bf16" and len(seen) == 12
    assert "asked for" not in caplog.text
    assert runtime.load(trained(), "int8").precision == "int8" and len(seen) == 12  # no labels to be wrong about
    with pytest.raises(UserError, match=r"no fp8 .* it has int8, bf16, fp32"):
        runtime.load(bundle, "fp8")


def test_our_own_float32_is_held_to_what_pytorch_said_of_it(
    trained: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a start it is not compared with itself; what `cmp-seg export` found by the plain network counts."""
    bundle = trained(steps=1)
    monkeypatch.setattr(cpu, "precisions", lambda: ["fp32"])
    assert cpu.load(bundle).precision == "fp32"
    runtime = cpu.runtime()
    found = runtime.check(bundle, runtime.engine(bundle, "fp32"), parity.Exact("reference-fp32", bundle))
    assert found.passes and found.exact == "reference-fp32" and cpu.load(bundle).precision == "fp32"
    replace(found, labels=0.5).remember(runtime.key(bundle, "fp32"))
    with pytest.raises(UserError, match=r"'cpu' answers otherwise .* take engine 'reference'"):
        cpu.load(bundle)


def test_what_is_wrong_with_coarser_voxels_alone_is_found(trained: Callable[..., Bundle]) -> None:
    """The rate keeper makes voxels coarser, so the precision must serve there, too."""
    bundle = trained(steps=1)
    fine = {len(voxels) for voxels in parity.samples(bundle.description)[0].values()}

    class WrongWhereCoarse(Wrong):
        def __call__(self, voxels: Voxels) -> Float32:
            self.share = 0.0 if len(voxels) in fine else 0.1
            return super().__call__(voxels)

    found = parity.agreement(bundle, WrongWhereCoarse(bundle, "int8", 0, []), parity.Exact("cpu-fp32", bundle))
    assert found.scans["room, 0.1 m"] == 1 and found.scans["room, 0.2 m"] == pytest.approx(0.9, abs=0.01)
    assert found.labels == pytest.approx(0.9, abs=0.01) and found.probabilities > 0 and not found.passes


def test_float32_that_answers_otherwise_is_an_error(trained: Callable[..., Bundle]) -> None:
    with pytest.raises(UserError, match="'wrong' answers otherwise than the reference in every precision"):
        wrong({"bf16": 0.5, "fp32": 0.5}, []).load(trained(steps=1))


def test_untrained_bundles_are_held_to_their_probabilities(
    trained: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = trained()
    runtime = wrong({"bf16": 0.03, "fp32": 0.0}, [])
    found = parity.agreement(bundle, runtime.engine(bundle, "bf16"), parity.Exact("cpu-fp32", bundle))
    assert found.labels < 0.99 and not found.trained
    for most, passes in ((found.probabilities * 1.01, True), (found.probabilities * 0.99, False)):
        monkeypatch.setattr(parity, "PROBABILITIES", most)
        assert found.passes == passes
        assert not replace(found, trained=True).passes


def test_answers_that_are_no_numbers_do_not_pass(trained: Callable[..., Bundle]) -> None:
    bundle = trained(steps=1)

    class Nan(Wrong):
        def __call__(self, voxels: Voxels) -> Float32:
            return np.full((len(voxels), 6), np.nan, np.float32)

    found = parity.agreement(bundle, Nan(bundle, "fp16", 0, []), parity.Exact("cpu-fp32", bundle))
    assert found.probabilities == 1 and not found.passes


def test_a_bundle_that_sees_nothing_of_the_samples(make_bundle: MakeBundle, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing can be checked: float32 is taken, and no lower precision."""
    fields = PREPROCESS.model_dump() | {"fov_min": (500, 500, 0), "fov_max": (520, 520, 5)}
    bundle, seen = make_bundle(PreprocessConfig.model_validate(fields)), []
    assert wrong({"bf16": 0.0, "fp32": 0.0}, seen).load(bundle).precision == "fp32"
    assert "nothing was checked" in caplog.text


def test_a_stale_engine_is_built_again_once(trained: Callable[..., Bundle]) -> None:
    builds: list[str] = []

    def open_once(bundle: Bundle, built: bytes, precision: str) -> Wrong:
        if built == b"0":
            raise Stale("stale")
        return Wrong(bundle, precision, 0, [])

    def build(bundle: Bundle, precision: str) -> bytes:
        builds.append(precision)
        return str(len(builds) - 1).encode()

    runtime = replace(wrong({"fp32": 0.0}, []), open=open_once, build=build)
    runtime.engine(trained(), "fp32")
    runtime.engine(trained(), "fp32")
    assert len(builds) == 2


def test_where_nothing_can_be_kept_there_is_an_engine_all_the_same(
    make_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(cache, "folder", lambda: tmp_path / "file")
    engine = load_engine(make_bundle(), "onnxruntime")
    assert len(engine(voxels_of(100))) and "is built at every start" in caplog.text


def test_exact_engines() -> None:
    assert parity.Exact.best(None).name == "reference-fp32"  # type: ignore[arg-type]


def test_a_check_that_was_damaged_is_made_again(trained: Callable[..., Bundle], folder: Path) -> None:
    bundle, seen = trained(steps=1), []
    runtime = wrong({"fp32": 0.0}, seen)
    for damage in ("{}", '{"key": "x"}', "none", None):
        runtime.load(bundle)
        (memory,) = folder.glob("*.json")
        text = memory.read_text()
        memory.write_text(text.replace("1.0", '"much"', 1) if damage is None else damage)
    runtime.load(bundle)
    assert len(seen) == 5 * 6


def test_the_sample_scans_are_three_places_with_two_sizes_of_voxels(tiny_bundle: Path) -> None:
    description = Bundle(tiny_bundle).description
    fine, coarse = parity.samples(description)
    for scans, again, size in zip((fine, coarse), parity.samples(description), (0.1, 0.2), strict=True):
        room, corridor, hall = scans.values()
        assert list(scans) == [f"{name}, {size} m" for name in ("room", "corridor", "hall")]
        for name, voxels in scans.items():
            np.testing.assert_array_equal(voxels.xyz, again[name].xyz)
            np.testing.assert_array_equal(voxels.features, again[name].features)
        assert np.ptp(corridor.xyz, axis=0).max() > 2 * np.ptp(room.xyz, axis=0).max()
        assert np.ptp(hall.xyz[:, 2]) > np.ptp(room.xyz[:, 2])
    for many, few in zip(fine.values(), coarse.values(), strict=True):
        assert 1000 < len(few) < 0.8 * len(many) < 12000
    preprocess = description.preprocess.model_copy(update={"voxel_size": 0.25})
    coarsest = description.model_copy(update={"preprocess": preprocess})
    assert [list(scans) for scans in parity.samples(coarsest)] == [["room, 0.25 m", "corridor, 0.25 m", "hall, 0.25 m"]]


@pytest.mark.parametrize("mode", ["raw", "fixed", "per_sensor"])
def test_intensities_of_the_samples_are_such_as_the_bundle_sees(tiny_bundle: Path, mode: str) -> None:
    config = IntensityConfig.model_validate({"mode": mode, "mean": 100, "std": 20})
    description = Bundle(tiny_bundle).description.model_copy(update={"intensity": config})
    values = np.concatenate([voxels.features[:, 0] for voxels in parity.samples(description)[0].values()])
    if mode == "raw":
        assert values.min() >= 0 and 100 < np.median(values) < 156 and 60000 < values.max() < 1 << 16
        assert 0.005 < (values > 255).mean() < 0.02
    else:
        assert abs(values.mean()) < 0.1 and values.std() == pytest.approx(1, abs=0.05)


def test_the_second_start_needs_neither_pytorch_nor_onnx(tiny_bundle: Path, tmp_path: Path) -> None:
    code = f"""
import sys, numpy as np
from pathlib import Path
from cmp_seg_ros.engine import cache
cache.folder = lambda: Path({str(tmp_path)!r})
from cmp_seg_ros import Scan, Segmenter
for name in ("openvino", "onnxruntime"):
    labels = Segmenter.from_bundle({str(tiny_bundle)!r}, name)(Scan(np.random.default_rng(0).normal(size=(500, 3)) * 3))
    assert (labels.label < 6).all()
print(sorted({{"torch", "onnx", "scipy.spatial", "matplotlib"}} & set(sys.modules)))
"""
    heavy = [
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert heavy[0].stdout == "['onnx']\n" and heavy[1].stdout == "[]\n"
    assert "once" in heavy[0].stderr and heavy[1].stderr == ""


def test_every_engine_is_a_file_with_load() -> None:
    folder = Path(exported.__file__).parent
    assert all((folder / f"{name}.py").is_file() for name in ENGINES)
    assert onnxruntime.precisions()[-1] == "cpu-fp32"

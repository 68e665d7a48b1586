"""Engines by other runtimes: they answer as the reference does, and are not used where they do not."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import PREPROCESS, MakeBundle, answer, changed, opened, preprocess_with, truth, voxels_of

from cmp_seg_ros.bundle import Bundle, IntensityConfig
from cmp_seg_ros.engine import cache, parity, registry
from cmp_seg_ros.engine.base import Engine, Runtime, Stale, softmax
from cmp_seg_ros.engine.loading import Loader, exact_engine, load_engine, network_of
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.scan import Arrays
from cmp_seg_ros.waffleiron import samples
from cmp_seg_ros.waffleiron.model import WaffleIron

EVERY = [f"openvino-{precision}" for precision in registry.find("openvino")[0].precisions()] + ["onnxruntime-cpu-fp32"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cache, "folder", lambda: tmp_path)
    return tmp_path


# ---- by name


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
        found, wanted = answer(engine, voxels), truth(bundle, voxels)
        if name.endswith("fp32"):
            np.testing.assert_allclose(found, wanted, atol=5e-5 * max(1.0, float(np.abs(wanted).max())))
        elif points > 1000:
            assert 1e-6 < np.abs(softmax(found) - softmax(wanted)).mean() < 0.01
        assert found.dtype == np.float32


@pytest.mark.parametrize("name", [*EVERY, "cpu-fp32"])
def test_answers_stay_when_the_next_scan_comes(make_bundle: MakeBundle, name: str) -> None:
    engine = opened(make_bundle(), name)
    first = answer(engine, voxels_of(500))
    kept = first.copy()
    answer(engine, voxels_of(500, seed=1))
    np.testing.assert_array_equal(first, kept)


def test_features_come_by_their_own_name(make_bundle: MakeBundle) -> None:
    """A bundle of kind `features`: every engine gives them, and is checked by their direction."""
    labels = make_bundle(outputs=24, head="mlp", head_hidden=40)
    bundle = Bundle.write(
        labels.path.with_name("features"),
        labels.weights_path.read_bytes(),
        name="features",
        kind="features",
        features=labels.points,
        training={"steps": 1},
    )
    inputs = voxels_of(300).inputs._asdict()
    wanted = opened(bundle, "reference-fp32")(inputs)["point_features"]
    for name in ("cpu-fp32", *EVERY):
        found = load_engine(bundle, name)(inputs)
        assert list(found) == ["point_features"]
        np.testing.assert_allclose(found["point_features"], wanted, atol=0.1 if "bf16" in name else 1e-3)
    alike, _ = parity.compare({"f": wanted}, {"f": np.roll(wanted, 1, axis=1)})
    assert alike.mean() < 0.5


def test_engines_of_different_bundles_are_kept_apart(make_bundle: MakeBundle, folder: Path) -> None:
    voxels = voxels_of(400)
    for bundle in (make_bundle(), make_bundle(depth=3), make_bundle()):
        found = answer(load_engine(bundle, "onnxruntime-cpu-fp32"), voxels)
        np.testing.assert_allclose(found, truth(bundle, voxels), atol=1e-3)
    assert len(list(folder.glob("*.engine"))) == 2


@pytest.mark.parametrize("name", ["openvino", "onnxruntime-cpu"])
def test_what_the_runtime_cannot_read_is_built_anew(make_bundle: MakeBundle, name: str, tmp_path: Path) -> None:
    """Whole by its checksum, but nothing that the runtime knows.

    In a process of its own: OpenVINO gives it a stack for signals, and where that were gone the next would kill it.
    """
    bundle = make_bundle()
    script = f"""if True:
        import logging, os, signal, numpy as np
        from pathlib import Path
        from cmp_seg_ros.bundle import Bundle
        from cmp_seg_ros.engine import cache, registry
        from cmp_seg_ros.engine.loading import Loader, load_engine
        from engines import answer, voxels_of
        cache.folder = lambda: Path({str(tmp_path)!r})
        logging.basicConfig()
        bundle = Bundle.find({str(bundle.path)!r})
        cache.obtain(Loader(bundle, registry.find({name!r})[0]).key("fp32"), lambda: b"nonsense")
        np.save({str(tmp_path / "logits.npy")!r}, answer(load_engine(bundle, {name + "-fp32"!r}), voxels_of(300)))
        signal.signal(signal.SIGINT, lambda *_: print("handled"))
        os.kill(os.getpid(), signal.SIGINT)
    """
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120
    )
    assert "cannot read the built model" in done.stderr, done.stderr
    assert done.returncode == 0 and done.stdout == "handled\n"
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), truth(bundle, voxels_of(300)), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("openvino-fp16", "'openvino' has no precision 'fp16' on this machine; it has .*fp32"),
        ("onnxruntime-bf16", "'onnxruntime-cpu' has no precision 'bf16' on this machine; it has fp32"),
        ("onnxruntime-cuda", "no CUDAExecutionProvider: .*pip install onnxruntime-gpu"),
        ("reference-bf16", "'reference' has no precision 'bf16' on this machine; it has fp32"),
        ("steam", "no engine 'steam'; known: auto, cpu, onnxruntime, openvino, reference, tensorrt"),
    ],
)
def test_what_this_machine_lacks_is_said(make_bundle: MakeBundle, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_engine(make_bundle(), name)


def test_names_of_engines() -> None:
    for name, runtime, precision in (
        ("auto", "cpu", ""),
        ("cpu-int8", "cpu", "int8"),
        ("onnxruntime-fp32", "onnxruntime-cpu", "fp32"),  # CUDA is not here
        ("onnxruntime-cuda-fp16", "onnxruntime-cuda", "fp16"),
    ):
        found, named = registry.find(name)
        assert (found.name, named) == (runtime, precision)
    assert [runtime.name for runtime in registry.find_all("onnxruntime")[0]] == ["onnxruntime-cuda", "onnxruntime-cpu"]


@pytest.mark.parametrize("package", ["openvino", "onnxruntime", "onnx"])
def test_a_package_that_is_not_installed(
    make_bundle: MakeBundle, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmp_seg_ros.engine.base.find_spec", lambda name: None if name == package else name)
    engine = "openvino" if package == "openvino" else "onnxruntime"
    with pytest.raises(UserError, match=f"cannot run here: no {package}: pip install {engine} onnx"):
        Loader(make_bundle(), registry.find_all(engine)[0][-1])


# ---- choosing a precision


class Wrong:
    """Answers as the exact engine, but for a share of the voxels."""

    name = "wrong"

    def __init__(self, network: WaffleIron, precision: str, share: float, seen: list[str]) -> None:
        self.exact = registry.find("cpu")[0].open(network, b"", "fp32")
        self.precision, self.share, self.seen = precision, share, seen

    def __call__(self, inputs: Arrays) -> Arrays:
        self.seen.append(self.precision)
        logits = self.exact(inputs)["logits"]
        logits[: round(self.share * len(logits))] *= -1
        return {"logits": logits}


class WrongRuntime(Runtime):
    """Wrong by precision."""

    name = "wrong"

    def __init__(self, **shares: float) -> None:
        self.shares, self.seen, self.builds_made = shares, [], []  # type: ignore[var-annotated]

    def precisions(self) -> list[str]:
        return list(self.shares)

    def version(self) -> str:
        return "1"

    def build(self, network: WaffleIron, precision: str) -> bytes:
        self.builds_made.append(precision)
        return str(len(self.builds_made)).encode()

    def open(self, network: WaffleIron, built: bytes, precision: str) -> Engine:
        return Wrong(network, precision, self.shares[precision], self.seen)


@pytest.fixture
def bundle(make_bundle: MakeBundle) -> Bundle:
    """Trained, or so it says."""
    return changed(make_bundle(depth=2), trained=True)


def test_the_fastest_precision_that_answers_alike_is_used(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    runtime = WrongRuntime(int8=0.03, bf16=0.005, fp32=0.0)
    loader = Loader(bundle, runtime)
    assert loader.load().precision == "bf16"
    assert runtime.seen == ["int8"] * 6 + ["bf16"] * 6  # three scans with two sizes of voxels
    assert "wrong-int8 is not used: 97.0" in caplog.text and "wrong-bf16 is not used" not in caplog.text
    cache.path_of(loader.key("int8")).unlink()
    assert loader.load().precision == "bf16" and len(runtime.seen) == 12  # remembered,
    assert runtime.builds_made == ["int8", "bf16"]  # and what is not used is not built again
    with pytest.raises(UserError, match=r"no precision 'fp8' .* it has int8, bf16, fp32"):
        loader.load("fp8")


def test_a_named_precision_is_checked_once_and_used_in_any_case(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    runtime = WrongRuntime(int8=0.03, bf16=0.005, fp32=0.0)
    for _ in range(2):
        caplog.clear()
        assert Loader(bundle, runtime).load("int8").precision == "int8" and runtime.seen == ["int8"] * 6
        assert "wrong-int8 is used as asked, but 97.0" in caplog.text
    caplog.clear()
    assert Loader(bundle, runtime).load("bf16").precision == "bf16" and len(runtime.seen) == 12
    assert "as asked" not in caplog.text


def test_our_own_float32_is_held_to_what_pytorch_said_of_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a start it is not compared with itself; what `cmp-seg export` found by the plain network counts."""
    runtime = registry.find("cpu")[0]
    monkeypatch.setattr(runtime, "precisions", lambda: ["fp32"])
    loader = Loader(bundle, runtime)
    engine = loader.load()
    assert loader.known("fp32") is None
    found = loader.check(engine, exact_engine(bundle, pytorch=True))
    assert found.passes(trained=True) and found.exact == "reference-fp32" and loader.load().precision == "fp32"
    replace(found, labels=0.5).remember(loader.key("fp32"), loader.network)
    with pytest.raises(UserError, match=r"'cpu' differs .* use engine 'reference'"):
        loader.load()


def test_what_is_wrong_with_coarser_voxels_alone_is_found(bundle: Bundle) -> None:
    """The rate keeper makes voxels coarser, so the precision must serve there, too."""
    network = network_of(bundle)
    fine = {len(inputs["features"]) for inputs in network.samples()[0].values()}

    class WrongWhereCoarse(Wrong):
        def __call__(self, inputs: Arrays) -> Arrays:
            self.share = 0.0 if len(inputs["features"]) in fine else 0.1
            return super().__call__(inputs)

    found = parity.agreement(WrongWhereCoarse(network, "int8", 0, []), exact_engine(bundle))
    assert found.scans["room, 0.1 m"] == 1 and found.scans["room, 0.2 m"] == pytest.approx(0.9, abs=0.01)
    assert found.labels == pytest.approx(0.9, abs=0.01) and found.probabilities > 0 and not found.passes(trained=True)


def test_float32_that_answers_otherwise_is_an_error(bundle: Bundle) -> None:
    with pytest.raises(UserError, match="'wrong' differs from the reference in every precision"):
        Loader(bundle, WrongRuntime(bf16=0.5, fp32=0.5)).load()


def test_untrained_bundles_are_held_to_their_probabilities(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parity.agreement(Wrong(network_of(bundle), "bf16", 0.03, []), exact_engine(bundle))
    assert found.labels < 0.99
    for most, passes in ((found.probabilities * 1.01, True), (found.probabilities * 0.99, False)):
        monkeypatch.setattr(parity, "PROBABILITIES", most)
        assert found.passes(trained=False) == passes
        assert not found.passes(trained=True)


def test_nan_does_not_pass(bundle: Bundle) -> None:
    alike, difference = parity.compare({"logits": np.full((5, 6), np.nan)}, {"logits": np.ones((5, 6), np.float32)})
    assert len(alike) == 5 and (difference == 1).all()


def test_a_bundle_that_sees_nothing_of_the_samples(make_bundle: MakeBundle, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing can be checked: float32 is used, and no lower precision."""
    bundle = make_bundle(preprocess_with(fov_min=(500, 500, 0), fov_max=(520, 520, 5)))
    assert Loader(bundle, WrongRuntime(bf16=0.0, fp32=0.0)).load().precision == "fp32"
    assert "not checked: no sample scan has points in" in caplog.text


def test_a_stale_engine_is_built_again_once(bundle: Bundle) -> None:
    class StaleOnce(WrongRuntime):
        def open(self, network: WaffleIron, built: bytes, precision: str) -> Engine:
            if built == b"1":
                raise Stale("stale")
            return super().open(network, built, precision)

    runtime = StaleOnce(fp32=0.0)
    Loader(bundle, runtime).engine("fp32")
    Loader(bundle, runtime).engine("fp32")
    assert len(runtime.builds_made) == 2


def test_a_check_that_was_damaged_is_made_again(bundle: Bundle, folder: Path) -> None:
    runtime = WrongRuntime(fp32=0.0)
    for damage in (b"", b"{", b"[]", b"\xff\xfe", None):
        Loader(bundle, runtime).load()
        (memory,) = folder.glob("*.json")
        memory.write_bytes(memory.read_bytes().replace(b"1.0", b'"much"', 1) if damage is None else damage)
    Loader(bundle, runtime).load()
    assert len(runtime.seen) == 6 * 6


# ---- samples


def test_the_sample_scans_are_three_places_with_two_sizes_of_voxels(make_bundle: Callable[..., Bundle]) -> None:
    fine, coarse = samples.scans(PREPROCESS, raw_intensity=False)
    assert [list(group) for group in (fine, coarse)] == [
        [f"{name}, {size} m" for name in ("room", "corridor", "hall")] for size in (0.1, 0.2)
    ]
    for name, voxels in samples.scans(PREPROCESS, raw_intensity=False)[0].items():
        np.testing.assert_array_equal(voxels.features, fine[name].features)
    for many, few in zip(fine.values(), coarse.values(), strict=True):
        assert 1000 < len(few) < 0.8 * len(many) < 12000
    coarsest = samples.scans(PREPROCESS.model_copy(update={"voxel_size": 0.25}), raw_intensity=False)
    assert [list(group) for group in coarsest] == [["room, 0.25 m", "corridor, 0.25 m", "hall, 0.25 m"]]


@pytest.mark.parametrize("mode", ["raw", "fixed", "per_sensor"])
def test_intensities_of_the_samples_are_such_as_the_bundle_sees(tiny_bundle: Path, mode: str) -> None:
    config = IntensityConfig.model_validate({"mode": mode, "mean": 100, "std": 20})
    network = network_of(changed(Bundle(tiny_bundle), intensity=config))
    values = np.concatenate([inputs["features"][:, 0] for inputs in network.samples()[0].values()])
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
for name in ("openvino", "onnxruntime", "auto"):
    labels = Segmenter.from_bundle({str(tiny_bundle)!r}, name)(Scan(np.random.default_rng(0).uniform(-2, 2, (500, 3))))
    assert (labels.label < 6).all()
print(sorted({{"torch", "onnx", "scipy.spatial", "matplotlib"}} & set(sys.modules)))
"""
    heavy = [
        subprocess.run([sys.executable, "-c", code], check=True, timeout=300, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert heavy[0].stdout == "['onnx']\n" and heavy[1].stdout == "[]\n"
    assert "once" in heavy[0].stderr and heavy[1].stderr == ""

"""The CPU engine: its memory, its threads, its cells; test_engine_variants.py compares it with the reference."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from engines import MakeBundle, answer, opened, truth, voxels_of

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine import registry
from cmp_seg_ros.engine.base import softmax
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels import network as kernels
from cmp_seg_ros.kernels import vector
from cmp_seg_ros.kernels.launch import compile_in_background
from cmp_seg_ros.waffleiron import fold
from cmp_seg_ros.waffleiron.preprocess import Voxels

*LOWER, _ = PRECISIONS = registry.find("cpu")[0].precisions()
# Mean and greatest difference of probabilities that a precision may bring to these networks.
TOLERANCE = {"bf16": (0.005, 0.1), "int8": (0.015, 0.25)}


def check(bundle: Bundle, voxels: Voxels) -> None:
    """In float32 as the reference; in other precisions the same labels except where two classes are almost equal."""
    wanted = truth(bundle, voxels)
    exact = answer(opened(bundle, "cpu-fp32"), voxels)
    np.testing.assert_allclose(exact, wanted, atol=2e-5 * max(1.0, float(np.abs(wanted).max())))
    best = np.sort(softmax(wanted), axis=1)
    for precision in LOWER:
        rounded = answer(opened(bundle, f"cpu-{precision}"), voxels)
        difference = np.abs(softmax(rounded) - softmax(wanted))
        mean, greatest = TOLERANCE[precision]
        assert difference.mean() < mean and difference.max() < greatest, precision
        clear = best[:, -1] - best[:, -2:-1].max(axis=1, initial=0) > 2 * difference.max()
        np.testing.assert_array_equal(rounded.argmax(axis=1)[clear], wanted.argmax(axis=1)[clear])


def test_memory_of_the_last_scan_does_not_show(make_bundle: MakeBundle) -> None:
    """Large, small, large: each scan is answered as by a fresh engine, bit for bit."""
    bundle = make_bundle(norm="layernorm")
    engine = opened(bundle, "cpu-fp32")
    for points, seed in ((1500, 0), (40, 1), (1200, 2), (1, 3), (1500, 0)):
        voxels = voxels_of(points, seed=seed)
        np.testing.assert_array_equal(answer(engine, voxels), answer(opened(bundle, "cpu-fp32"), voxels))


def test_threads_do_not_change_the_answer(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, voxels, answers = opened(make_bundle(), f"cpu-{PRECISIONS[0]}"), voxels_of(1500), []
    for count in ("1", "2", "5"):
        monkeypatch.setenv("OMP_NUM_THREADS", count)
        answers.append(answer(engine, voxels))
    np.testing.assert_array_equal(answers[0], answers[1])
    np.testing.assert_array_equal(answers[0], answers[2])


def test_cells_of_a_plane() -> None:
    """By hand: two tokens in a corner cell, one beside it, one in the corner far away."""
    plane = kernels.Plane(*kernels.locate_cells(np.array([0, 1, 19, 0]), 4, 5))
    assert plane.cell.tolist() == [0, 1, 2, 0]
    assert plane.order.tolist() == [0, 3, 1, 2]
    assert plane.start.tolist() == [0, 2, 3, 4]
    assert len(plane.near) == 6 + 4  # rows 0..1 of columns 0..2, rows 2..3 of columns 3..4
    assert plane.near[0].tolist() == [3, 3, 3, 3, 0, 1, 3, 3, 3]
    assert plane.around[0].tolist() == [10, 10, 10, 10, 0, 1, 10, 3, 4]
    assert plane.around[2].tolist() == [6, 7, 10, 8, 9, 10, 10, 10, 10]


def test_weights_that_do_not_fit_are_named(make_bundle: MakeBundle, tmp_path: Path) -> None:
    bundle = make_bundle()
    other = make_bundle(width=16, depth=5)
    with pytest.raises(UserError, match="do not fit the network") as caught:
        fold.load(other.weights_path, bundle.points.network, "fp32")
    assert "unexpected: " in str(caught.value) and "embed.final.weight is (16, 32), not (24, 48)" in str(caught.value)
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(UserError, match="cannot be read"):
        fold.load(tmp_path / "weights.safetensors", bundle.points.network, "fp32")


def test_what_compiling_raises_is_raised() -> None:
    done: list[int] = []
    compile_in_background(lambda: done.append(1))
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        compile_in_background(lambda: 1 / 0)


@pytest.mark.skipif(vector.COLUMNS == 16, reason="this processor has none: every other test runs them")
def test_a_processor_without_avx512(make_bundle: MakeBundle, tmp_path: Path) -> None:
    """The narrow tiles, compiled for an older processor (half a minute, once), answer as the reference does."""
    bundle, voxels = make_bundle(), voxels_of(500)
    np.save(tmp_path / "truth.npy", truth(bundle, voxels))
    np.savez(tmp_path / "voxels.npz", **voxels.inputs._asdict())
    code = f"""
import numpy as np
from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.loading import load_engine
from cmp_seg_ros.kernels import vector
assert vector.COLUMNS == 16
engine = load_engine(Bundle({str(bundle.path)!r}))
assert engine.precision == "fp32"
logits = engine(np.load({str(tmp_path / "voxels.npz")!r}))["logits"]
np.testing.assert_allclose(logits, np.load({str(tmp_path / "truth.npy")!r}), atol=1e-3)
"""
    older = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+popcnt"}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=900, env=os.environ | older)

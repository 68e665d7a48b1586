"""The estimate for GPUs: its arithmetic against figures counted elsewhere, and its tables against the docs."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPT = CHECKOUT / "benchmarks" / "roofline.py"


@pytest.fixture(scope="module")
def roofline() -> ModuleType:
    spec = importlib.util.spec_from_file_location("roofline", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["roofline"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("width", "voxels", "embedding", "channel", "filters"),
    [
        (256, 8192, 19.7, 51.5, 6.0),
        (384, 4096, 22.0, 58.0, 9.1),
        (768, 16384, 350, 928, 18.1),
        (768, 4096, 87.5, 232, 18.1),
    ],
)
def test_operations_are_those_counted_in_the_published_network(
    roofline: ModuleType, width: int, voxels: int, embedding: float, channel: float, filters: float
) -> None:
    """GFLOP of 24 layers on full grids of 256 x 256 and twice 256 x 32, of which some were counted by PyTorch."""
    grids = tuple(roofline.Plane(256, columns, 1) for columns in (256, 32, 32))
    kernels = roofline.network(width, voxels, "fp16", grids)

    def gigaflop(*names: str) -> float:
        return sum(k.flops * k.count for k in kernels if k.name.startswith(names)) / 1e9

    assert gigaflop("embedding") == pytest.approx(embedding, rel=0.01)
    assert gigaflop("channel: product") == pytest.approx(channel, rel=0.01)
    assert gigaflop("spatial: 3x3 filter") == pytest.approx(filters, rel=0.01)


def test_a_kernel_takes_the_slower_of_arithmetic_and_memory_and_a_launch(roofline: ModuleType) -> None:
    gpu = roofline.Gpu("made up", products=1e12, vector=1e11, bandwidth=1e9, launch=1e-6, source="")
    arithmetic = roofline.Kernel("a", flops=1e9, bytes=1e3, product=True, count=2)
    assert gpu.seconds(arithmetic, "fp16") == pytest.approx(2 * (1e-3 + 1e-6))
    assert gpu.seconds(arithmetic, "fp32") == pytest.approx(2 * (1e-2 + 1e-6))  # not on tensor cores
    memory = roofline.Kernel("m", flops=1e6, bytes=1e6)
    assert gpu.seconds(memory, "fp16") == pytest.approx(1e-3 + 1e-6)
    assert roofline.seconds(gpu, [arithmetic, memory], "fp16") == pytest.approx(3e-3 + 3e-6)
    # 3 x 4 by 4 x 5 halves: inputs, weights and outputs, once each
    product = roofline.product("p", 3, 4, 5, 2)
    assert (product.flops, product.bytes) == (2 * 3 * 4 * 5, 2 * (12 + 20 + 15))


def test_every_layer_has_its_kernels(roofline: ModuleType) -> None:
    count = {kernel.name: 0 for kernel in roofline.network(256, 5000, "fp16")}
    for kernel in roofline.network(256, 5000, "fp16"):
        count[kernel.name] += kernel.count
    assert count["channel: product"] == count["spatial: 3x3 filter"] == 48
    assert count["spatial: gather groups"] == count["channel: add"] == 24
    assert count["head"] == 1


def test_more_work_takes_longer_and_halves_are_faster(roofline: ModuleType) -> None:
    for gpu in roofline.GPUS:
        times = {
            (width, voxels, precision): roofline.seconds(gpu, roofline.network(width, voxels, precision), precision)
            for width in roofline.WIDTHS
            for voxels in roofline.VOXELS
            for precision in ("fp16", "fp32")
        }
        for width in roofline.WIDTHS:
            for voxels in roofline.VOXELS:
                assert times[width, voxels, "fp16"] < times[width, voxels, "fp32"]
            assert times[width, 5000, "fp16"] < times[width, 16000, "fp16"] < 4 * times[width, 5000, "fp16"]


def test_the_documented_tables_are_those_of_the_script() -> None:
    shown = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=True).stdout
    page = (CHECKOUT / "docs" / "performance.md").read_text()
    assert shown.count("\n| ") > 12
    assert all(line in page for line in shown.splitlines())
    section = page.partition("## On a GPU, on paper")[2].partition("\n## ")[0]
    assert "nothing here was measured" in section


def test_parts_add_up_and_wrong_arguments_are_refused() -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--parts", "--width", "128", "--precision", "fp32"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "fp32, width 128, 5,000 voxels" in done.stdout
    for wrong in (["--width", "0"], ["--precision", "int8"], ["--voxels", "many"]):
        refused = subprocess.run([sys.executable, SCRIPT, *wrong], capture_output=True, text=True, check=False)
        assert refused.returncode == 2
        assert "error:" in refused.stderr

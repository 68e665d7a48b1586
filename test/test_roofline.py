"""The estimate for GPUs: its arithmetic against figures counted elsewhere, and its tables against the docs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
SCRIPT = CHECKOUT / "benchmarks" / "roofline.py"


@pytest.fixture(scope="module")
def roofline(benchmark: Callable[[str], ModuleType]) -> ModuleType:
    return benchmark("roofline")


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

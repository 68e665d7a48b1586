"""How fast a GPU could run the network, on paper: nothing here is measured.

    python benchmarks/roofline.py             # the tables of docs/performance.md
    python benchmarks/roofline.py --parts     # and where the time goes, kernel by kernel

The exported graph (cmp_seg_ros/waffleiron/graph.py) is taken kernel by kernel. Each kernel reads its inputs and writes
its output once, and takes as long as the slower of arithmetic at the published peak and memory at the published
bandwidth, plus a launch. That is wrong in both directions: no kernel reaches either peak; but TensorRT may fuse more
than the element-wise operations that are taken together here, and what stays in a large cache need not come from
memory.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from cmp_seg_ros.waffleiron.layout import LEVELS

Precision = Literal["fp16", "fp32"]

DEPTH, INPUTS, NEIGHBOURS, CLASSES = 24, 5, 16, 6
WIDTHS, VOXELS = (128, 256, 768), (5_000, 16_000)
GROUP = LEVELS[0]  # voxels that are summed at once in a cell


@dataclass(frozen=True)
class Plane:
    """One plane of a scan: the cropped grid, and how many of its cells hold voxels."""

    height: int
    width: int
    occupied: int

    @property
    def cells(self) -> int:
        return self.height * self.width


# A real XT-32 scan of a 15 x 8 m room on the grids of the shipped bundles (0.3 m).
ROOM = (Plane(76, 55, 590), Plane(76, 15, 394), Plane(55, 15, 280))


@dataclass(frozen=True)
class Gpu:
    """Published peaks, and one guess."""

    name: str
    products: float  # FLOP/s of dense matrix products in FP16, with sums in FP32
    vector: float  # FLOP/s in FP32 without tensor cores
    bandwidth: float  # B/s
    launch: float  # seconds that a kernel takes at least, launched by a CUDA graph: assumed, not published
    source: str

    def rate(self, kernel: "Kernel", precision: Precision) -> float:
        return self.products if kernel.product and precision == "fp16" else self.vector

    def seconds(self, kernel: "Kernel", precision: Precision) -> float:
        """Of all launches of a kernel."""
        work = max(kernel.flops / self.rate(kernel, precision), kernel.bytes / self.bandwidth)
        return kernel.count * (work + self.launch)


GPUS = (
    Gpu(
        "Jetson AGX Orin 64 GB",
        42.5e12,
        5.3e12,
        204.8e9,
        5e-6,
        "Jetson AGX Orin Series Technical Brief: 5.3 FP32 TFLOPS; 170 sparse INT8 TOPS of the GPU, so 85 dense, and "
        "half of that in FP16; 204.8 GB/s",
    ),
    Gpu(
        "A40",
        149.7e12,
        37.4e12,
        696e9,
        2e-6,
        "NVIDIA A40 datasheet: 37.4 FP32 TFLOPS, 149.7 FP16 tensor TFLOPS dense, 696 GB/s",
    ),
    Gpu(
        "RTX 4090",
        165.2e12,
        82.6e12,
        1008e9,
        2e-6,
        "NVIDIA Ada GPU Architecture whitepaper, appendix A: 82.6 FP32 TFLOPS, 165.2 FP16 tensor TFLOPS dense with "
        "FP32 accumulate, 1008 GB/s",
    ),
)


@dataclass(frozen=True)
class Kernel:
    """One kernel of the network: what it computes and moves in one launch."""

    name: str
    flops: float
    bytes: float
    product: bool = False  # a matrix product, which tensor cores take
    count: int = 1


def product(name: str, rows: int, inputs: int, outputs: int, size: int, count: int = 1) -> Kernel:
    """(rows, inputs) @ (inputs, outputs), of elements of `size` bytes."""
    moved = rows * inputs + inputs * outputs + rows * outputs
    return Kernel(name, 2.0 * rows * inputs * outputs, float(size * moved), True, count)


def embedding(width: int, voxels: int, size: int) -> list[Kernel]:
    """tokens <- merge(max over neighbours j of out(relu(into(x_j - x_i)))) + point(x_i)"""
    pairs = NEIGHBOURS * voxels
    return [
        Kernel("embedding: differences", pairs * INPUTS, pairs * (4 + (4 + size) * INPUTS)),
        product("embedding: first layer of pairs", pairs, INPUTS, width, size),
        product("embedding: second layer of pairs", pairs, width, width, size),
        Kernel("embedding: maximum", pairs * width, (pairs + voxels) * width * size),
        product("embedding: merge", voxels, 2 * width, width, size),  # as published; the graph folds half of it away
        product("embedding: point", voxels, INPUTS, width, 4),
    ]


def spatial(width: int, voxels: int, size: int, plane: Plane, count: int) -> list[Kernel]:
    """tokens <- tokens + filters(cell means), `count` layers on this plane"""
    rows = plane.occupied + voxels // GROUP  # a cell's last group is not full
    grid = plane.cells * width * size
    return [
        Kernel("spatial: round tokens", 0, voxels * width * (4 + size), count=count),
        Kernel("spatial: gather groups", 0, (voxels + rows * GROUP) * width * size, count=count),
        Kernel("spatial: sum groups", rows * GROUP * width, (rows * GROUP + rows) * width * size, count=count),
        # the other levels together have as many rows as there are occupied cells at most
        Kernel(
            "spatial: sum sums",
            0,
            2 * plane.occupied * GROUP * width * size / (len(LEVELS) - 1),
            count=2 * (len(LEVELS) - 1) * count,
        ),
        Kernel("spatial: weigh and norm means", 4 * rows * width, 2 * rows * width * size, count=2 * count),
        Kernel("spatial: cells into grid", 0, 2 * grid, count=count),
        Kernel("spatial: transpose", 0, 2 * grid, count=2 * count),
        Kernel("spatial: 3x3 filter", 18.0 * plane.cells * width, 2 * grid, count=2 * count),
        Kernel("spatial: back to tokens, norm", 4 * voxels * width, voxels * width * (2 * 4 + 2 * size), count=count),
    ]


def channel(width: int, voxels: int, size: int) -> list[Kernel]:
    """tokens <- tokens + second(relu(first(norm(tokens)))), all layers"""
    return [
        product("channel: product", voxels, width, width, size, 2 * DEPTH),
        Kernel("channel: add", voxels * width, voxels * width * (2 * 4 + size), count=DEPTH),
    ]


def network(width: int, voxels: int, precision: Precision, planes: tuple[Plane, ...] = ROOM) -> list[Kernel]:
    """All kernels; tokens are float32 in either precision."""
    size = 4 if precision == "fp32" else 2
    kernels = embedding(width, voxels, size)
    for index, plane in enumerate(planes):
        kernels += spatial(width, voxels, size, plane, len(range(index, DEPTH, len(planes))))
    return [*kernels, *channel(width, voxels, size), product("head", voxels, width, CLASSES, 4)]


def total(kernels: list[Kernel]) -> tuple[float, float, int]:
    """FLOP, bytes and launches."""
    return (
        sum(kernel.flops * kernel.count for kernel in kernels),
        sum(kernel.bytes * kernel.count for kernel in kernels),
        sum(kernel.count for kernel in kernels),
    )


def seconds(gpu: Gpu, kernels: list[Kernel], precision: Precision) -> float:
    """The least time of the network."""
    return sum(gpu.seconds(kernel, precision) for kernel in kernels)


def markdown(header: list[str], rows: Iterable[list[str]]) -> str:
    """A table."""
    first, *others = (f"| {' | '.join(row)} |" for row in (header, *rows))
    return "\n".join([first, "|" + "---|" * len(header), *others])


def rates() -> str:
    """The table of all cases, in Markdown."""
    rows = []
    for precision, width, voxels in itertools.product(get_args(Precision), WIDTHS, VOXELS):
        kernels = network(width, voxels, precision)
        flops, moved, launches = total(kernels)
        times = [seconds(gpu, kernels, precision) for gpu in GPUS]
        row = [precision, f"{width}", f"{voxels:,}", f"{flops / 1e9:.0f}", f"{moved / 1e9:.2f}", f"{launches}"]
        rows.append([*row, *(f"{1e3 * time:.1f} ms ({1 / time:.0f} Hz)" for time in times)])
    header = ["precision", "width", "voxels", "GFLOP", "GB", "launches", *(gpu.name for gpu in GPUS)]
    return markdown(header, rows)


def peaks() -> str:
    """The table of the GPUs, in Markdown."""
    rows = [
        [
            gpu.name,
            *(f"{peak / 1e12:.1f} TFLOP/s" for peak in (gpu.products, gpu.vector)),
            f"{gpu.bandwidth / 1e9:.0f} GB/s",
            f"{1e6 * gpu.launch:.0f} us",
            gpu.source,
        ]
        for gpu in GPUS
    ]
    return markdown(["GPU", "FP16 products", "FP32", "memory", "a launch (assumed)", "source"], rows)


def parts(width: int, voxels: int, precision: Precision) -> str:
    """Arithmetic, memory and launches of each kind of kernel in milliseconds, in Markdown."""
    kinds = defaultdict(list)
    for kernel in network(width, voxels, precision):
        kinds[kernel.name].append(kernel)
    rows = []
    for name, kernels in kinds.items():
        flops, moved, launches = total(kernels)
        row = [name, f"{flops / 1e9:.1f}", f"{moved / 1e9:.3f}", f"{launches}"]
        for gpu in GPUS:
            bounds = {
                "launches": launches * gpu.launch,
                "memory": moved / gpu.bandwidth,
                "arithmetic": sum(k.count * k.flops / gpu.rate(k, precision) for k in kernels),
            }
            bound = max(bounds, key=lambda name: bounds[name])
            row.append(f"{1e3 * seconds(gpu, kernels, precision):.2f} ms, {bound}")
        rows.append(row)
    case = f"{precision}, width {width}, {voxels:,} voxels"
    return markdown([case, "GFLOP", "GB", "launches", *(gpu.name for gpu in GPUS)], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", action="store_true", help="also where the time goes, for one case")
    parser.add_argument("--width", type=int, default=256, help="width of that case")
    parser.add_argument("--voxels", type=int, default=5_000, help="voxels of that case")
    parser.add_argument("--precision", choices=["fp16", "fp32"], default="fp16", help="precision of that case")
    arguments = parser.parse_args()
    if arguments.width < 1 or arguments.voxels < 1:
        parser.error("--width and --voxels are at least 1")
    print(peaks(), rates(), sep="\n\n")
    if arguments.parts:
        print("\n" + parts(arguments.width, arguments.voxels, arguments.precision))


if __name__ == "__main__":
    main()

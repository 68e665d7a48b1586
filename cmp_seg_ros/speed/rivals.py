"""What an engine is compared with: the bare matrix products of the network, and the plain network on full grids."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from cmp_seg_ros.bundle import Bundle
from cmp_seg_ros.engine.registry import find
from cmp_seg_ros.engine.runtimes.openvino import core
from cmp_seg_ros.errors import UserError
from cmp_seg_ros.kernels.launch import kernel, launch, next_block, threads
from cmp_seg_ros.kernels.network import BLOCK
from cmp_seg_ros.kernels.vector import COLUMNS, HAS_BFLOAT16, HAS_INT8, ROWS, tile
from cmp_seg_ros.scan import Float32
from cmp_seg_ros.waffleiron import weights
from cmp_seg_ros.waffleiron.batch import PlaneCells, collate
from cmp_seg_ros.waffleiron.config import NetworkConfig
from cmp_seg_ros.waffleiron.fold import aligned
from cmp_seg_ros.waffleiron.preprocess import Voxels

Timed = Callable[[], Any]
Product = tuple[int, int]  # rows, inputs; outputs are the network's width

MOST_ROWS = 1 << 17  # of a product


def plain_network(bundle: Bundle, voxels: Voxels) -> Timed:
    """The reference on the whole grid of each plane, as published, in float32."""
    network, grids = weights.load(bundle.weights_path, bundle.points.network), bundle.points.preprocess.grids
    cropped = collate([voxels], grids)
    planes = [PlaneCells.of(cells, (1, *grid)) for cells, grid in zip(voxels.cells, grids, strict=True)]
    batch = dataclasses.replace(cropped, planes=planes)

    @torch.inference_mode()
    def run() -> Float32:
        logits: Float32 = network(batch).numpy()
        return logits

    return run


def products_of(config: NetworkConfig, neighbours: int, voxels: int) -> list[Product]:
    """The matrix products of N voxels: 2 x depth of N x F x F, one of K N x F x F, one of N x 2F x F.

    That of the neighbours is cut where it would fill the memory.
    """
    width = config.width
    whole, rest = divmod(neighbours * voxels, MOST_ROWS)
    pieces = [(MOST_ROWS, width)] * whole + ([(rest, width)] if rest else [])
    return [(voxels, width)] * (2 * config.depth) + pieces + [(voxels, 2 * width)]


def libraries(
    products: list[Product], width: int, precision: str, on_gpu: bool = False
) -> Iterator[tuple[str, Callable[[], Timed]]]:
    """Names of libraries that have products in the precision, and what readies them.

    That raises UserError where this processor has no such products, ImportError where the library is not installed.
    """
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    if on_gpu:
        if kind is not None and torch.cuda.is_available():
            yield "torch", lambda: _torch(products, width, kind, "cuda")
        return
    if kind is not None:
        yield "torch", lambda: _torch(products, width, kind)
    if precision in ("fp32", "bf16"):
        yield "onednn", lambda: _onednn(products, width, kind)
        yield "openvino", lambda: _openvino(products, width, precision)
    if precision == "int8":
        yield "torch", lambda: _torch_int8(products, width)
    if {"fp32": True, "bf16": HAS_BFLOAT16, "int8": HAS_INT8}.get(precision):
        yield "own", lambda: _own(products, width, precision)


def _random(
    products: list[Product], width: int, kind: torch.dtype | None, device: str = "cpu"
) -> tuple[dict[Product, Any], list[Any]]:
    """Inputs by shape, and a matrix (inputs, width) for each product."""

    def draw(*shape: int) -> torch.Tensor:
        values = torch.randint(-127, 127, shape, dtype=kind) if kind == torch.int8 else torch.randn(shape)
        return values.to(device, kind)

    return {shape: draw(*shape) for shape in set(products)}, [draw(inputs, width) for _, inputs in products]


def _torch(products: list[Product], width: int, kind: torch.dtype | None, device: str = "cpu") -> Timed:
    inputs, matrices = _random(products, width, kind, device)
    run = _each(products, inputs, [matrix.t().contiguous() for matrix in matrices], torch.nn.functional.linear)
    if device == "cpu":
        return run

    def finished() -> None:
        run()
        torch.cuda.synchronize()

    return finished


def _onednn(products: list[Product], width: int, kind: torch.dtype | None) -> Timed:
    """oneDNN with weights packed beforehand, as TorchInductor calls it."""
    if kind == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        raise UserError("oneDNN has bf16 products on processors with AVX-512 only")
    inputs, matrices = _random(products, width, kind)
    with torch.inference_mode():
        packed = [
            torch.ops.mkldnn._reorder_linear_weight(matrix.t().contiguous(), rows)
            for matrix, (rows, _) in zip(matrices, products, strict=True)
        ]
    linear = torch.ops.mkldnn._linear_pointwise
    return _each(products, inputs, packed, lambda rows, matrix: linear(rows, matrix, None, "none", [], ""))


def _torch_int8(products: list[Product], width: int) -> Timed:
    return _each(products, *_random(products, width, torch.int8), torch._int_mm)


def _each(
    products: list[Product], inputs: dict[Product, Any], matrices: list[Any], multiply: Callable[..., Any]
) -> Timed:
    """All products, one after the other."""

    @torch.inference_mode()
    def run() -> None:
        for shape, matrix in zip(products, matrices, strict=True):
            multiply(inputs[shape], matrix)

    return run


def _openvino(products: list[Product], width: int, precision: str) -> Timed:
    runtime, _ = find("openvino")
    if reason := runtime.reason():
        raise ImportError(reason)
    if precision not in runtime.precisions():  # it would compute in float32 and not say so
        raise UserError(f"OpenVINO has no {precision} products on this processor")
    import openvino
    from openvino import opset13 as op

    rng = np.random.default_rng(0)
    options = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == "fp32" else "bf16",
        "INFERENCE_NUM_THREADS": threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    requests = []
    for shape in sorted(set(products)):  # those of one shape are a chain, so that its values stay in the library
        first = op.parameter(list(shape), np.float32)
        last: Any = first
        for _ in range(products.count(shape)):
            matrix = rng.normal(size=(width, shape[1])).astype(np.float32) / width**0.5
            last = op.matmul(last, op.constant(matrix), False, True)
        compiled = core().compile_model(openvino.Model([last], [first]), "CPU", options)
        requests.append((compiled.create_infer_request(), rng.normal(size=shape).astype(np.float32)))

    def run() -> None:
        for request, values in requests:
            request.infer([values], share_inputs=True, share_outputs=True)

    return run


def _own(products: list[Product], width: int, precision: str) -> Timed:
    """Our own tiles, on inputs that are already of the precision; the outputs are not kept."""
    kind = {"fp32": np.float32, "bf16": np.uint16, "int8": np.uint8}[precision]
    rng = np.random.default_rng(0)
    together, panels = 4 // np.dtype(kind).itemsize, -(-width // COLUMNS)

    def draw(*shape: int) -> npt.NDArray[Any]:
        if precision == "int8":
            return aligned(rng.integers(1, 100, shape, kind))
        values = rng.random(shape, np.float32) + np.float32(1)  # no denormals, which are slow
        return aligned(values if precision == "fp32" else (values.view(np.uint32) >> 16).astype(kind))

    sizes = {(rows, inputs): (-(-rows // BLOCK) * BLOCK, -(-inputs // 4) * 4) for rows, inputs in products}
    inputs = {shape: draw(*sizes[shape]) for shape in set(products)}
    matrices = [draw(panels, sizes[shape][1] // together, COLUMNS * together) for shape in products]
    if precision == "int8":
        matrices = [matrix.view(np.int8) for matrix in matrices]
    columns = np.zeros((3, panels * COLUMNS), np.float32)
    most = max(rows for rows, _ in sizes.values())
    ranges = np.zeros((most, 2), np.float32)
    groups = {shape: [m for m, s in zip(matrices, products, strict=True) if s == shape] for shape in set(products)}
    stacked = {shape: aligned(np.stack(found)) for shape, found in groups.items()}

    def run() -> None:
        for shape, stack in stacked.items():
            blocks = len(inputs[shape]) // BLOCK
            launch(_tiles, inputs[shape], ranges, stack, columns, blocks=blocks, phases=len(stack))

    return run


@kernel
def _tiles(rows: Any, ranges: Any, weights: Any, columns: Any, sync: Any, threads: int) -> None:
    """rows (N, K) times each of weights (P, panels, steps, .), block by block; N is a multiple of BLOCK."""
    out = np.empty((BLOCK, columns.shape[1]), np.float32)
    for product in range(len(weights)):
        while True:
            first = next_block(sync, product) * BLOCK
            if first >= len(rows):
                break
            block = rows[first : first + BLOCK]
            for panel in range(weights.shape[1]):
                for row in range(0, BLOCK, ROWS):
                    tile(block, ranges, row, weights[product, panel], columns, panel * COLUMNS, out)

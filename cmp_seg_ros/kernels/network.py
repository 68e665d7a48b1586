"""WaffleIron on one scan, on all cores, at occupied cells only.

Tokens are (M, F) float32, F padded to whole tiles. A block of tokens goes through a whole mix while it is in the cache;
products have int8, bfloat16 or float32 inputs and float32 outputs. Results do not depend on the number of threads.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cmp_seg_ros.kernels.launch import barrier, inlined, kernel, next_block
from cmp_seg_ros.kernels.vector import COLUMNS, LANES, ROWS, filter3x3, lower, sum_rows, tile

BLOCK = 8 * ROWS  # tokens per block of work
CELLS = 4  # cells per block of work
EPSILON = np.float32(1e-5)  # of the layer norms

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]


class Product(NamedTuple):
    """A linear layer, packed for `tile`.

    Args:
        weight: (panels, steps, .) with COLUMNS outputs per panel: float32, bfloat16 as uint16, or int8.
        columns: (3, panels * COLUMNS) bias, and for int8 the scales that `tile` needs.
    """

    weight: npt.NDArray[Any]
    columns: Float32


class Weights(NamedTuple):
    """The network, with norms and scales folded where that is exact. C inputs, F padded width, L layers.

    Args:
        neighbour_in: (C, F) first linear layer of the neighbour branch with the norms around it.
        neighbour_shift: (F,) shift of these norms.
        neighbour_out: second linear layer of that branch.
        point: (C, F) the point branch with its part of the merge.
        merge: the neighbours' part of the merge, with all biases.
        norms: (L, 2, 2, F) factor and shift of the norms before the spatial and the channel mix.
        filters: (L, F / LANES, 2, 10, LANES) taps and bias of the two 3x3 filters, the layer scale in the second.
        mix, mix_columns: (L, 2, panels, ...), (L, 2, 3, F) linear layers of the channel mix as in Product, the layer
            scale in the second.
        low: empty array of the input type of products.
        head_norm: (2, F) factor and shift before the head.
        hidden: hidden layer of the head; without panels if there is none.
        head: last layer.
        width: F without padding.
        layer_norm: whether tokens are first normalised by their own mean and variance.
        gelu: GELU instead of ReLU.
    """

    neighbour_in: Float32
    neighbour_shift: Float32
    neighbour_out: Product
    point: Float32
    merge: Product
    norms: Float32
    filters: Float32
    mix: npt.NDArray[Any]
    mix_columns: Float32
    low: npt.NDArray[Any]
    head_norm: Float32
    hidden: Product
    head: Product
    width: int
    layer_norm: bool
    gelu: bool


class Plane(NamedTuple):
    """Cells of M tokens on one plane: n occupied cells, and a active cells, which are occupied or next to one.

    Args:
        cell: (M,) occupied cell of each token.
        order: (M,) tokens sorted by cell.
        start: (n + 1,) index in `order` of the first token of each occupied cell.
        near: (a, 9) occupied cells in the 3x3 window of each active cell; n for none.
        around: (n, 9) active cells in the 3x3 window of each occupied cell; a beyond the grid.
    """

    cell: Int32
    order: Int32
    start: Int32
    near: Int32
    around: Int32


class Workspace(NamedTuple):
    """Buffers of one thread."""

    low: npt.NDArray[Any]  # (rows, columns) inputs of a product, in its type
    ranges: Float32  # (rows, 2) step and minimum of these, for int8
    high: Float32  # (rows, columns) outputs of a product
    pooled: Float32  # (rows, columns)
    mean: Float32  # (n + 1, LANES)
    hidden: Float32  # (a + 1, LANES)


def phases(depth: int) -> int:
    """Number of phases of `evaluate`."""
    return 3 * depth + 3


@kernel
def locate_cells(index: Any, height: int, width: int) -> Any:
    """The fields of a Plane for (M,) flat cells of a grid of height x width; M > 0."""
    top, bottom, left, right = height, 0, width, 0
    for token in range(len(index)):
        row, column = index[token] // width, index[token] % width
        top, bottom, left, right = min(top, row), max(bottom, row), min(left, column), max(right, column)
    wide = right - left + 5  # a margin of two cells, so that every window is inside
    places = (bottom - top + 5) * wide
    corner = (top - 2) * wide + left - 2

    count = np.zeros(places, np.int32)
    for token in range(len(index)):
        count[index[token] // width * wide + index[token] % width - corner] += 1
    occupied, active = np.full(places, -1, np.int32), np.full(places, -1, np.int32)
    cells, reached = 0, 0
    for row in range(max(top - 1, 0), min(bottom + 1, height - 1) + 1):
        for column in range(max(left - 1, 0), min(right + 1, width - 1) + 1):
            place, beside = row * wide + column - corner, 0
            for tap in range(9):
                beside += count[place + (tap // 3 - 1) * wide + tap % 3 - 1]
            if beside:
                active[place] = reached
                reached += 1
            if count[place]:
                occupied[place] = cells
                cells += 1

    start = np.zeros(cells + 1, np.int32)
    near, around = np.empty((reached, 9), np.int32), np.empty((cells, 9), np.int32)
    for place in range(places):
        if active[place] >= 0:
            for tap in range(9):
                cell = occupied[place + (tap // 3 - 1) * wide + tap % 3 - 1]
                near[active[place], tap] = cell if cell >= 0 else cells
        if occupied[place] >= 0:
            start[occupied[place] + 1] = start[occupied[place]] + count[place]
            for tap in range(9):
                cell = active[place + (tap // 3 - 1) * wide + tap % 3 - 1]
                around[occupied[place], tap] = cell if cell >= 0 else reached

    cell_of, order = np.empty(len(index), np.int32), np.empty(len(index), np.int32)
    filled = np.zeros(cells, np.int32)
    for token in range(len(index)):
        cell = occupied[index[token] // width * wide + index[token] % width - corner]
        cell_of[token] = cell
        order[start[cell] + filled[cell]] = token
        filled[cell] += 1
    return cell_of, order, start, near, around


@kernel
def evaluate(
    weights: Weights,
    features: Any,
    neighbours: Any,
    planes: Any,
    tokens: Any,
    scratch: Any,
    statistics: Any,
    logits: Any,
    sync: Any,
    threads: int,
) -> None:
    """logits (M, outputs) <- the network on features (M, C), neighbours (M, K) and the planes.

    tokens, scratch: (M, F) float32; scratch holds the first layer of the neighbour branch, then a plane's cells.
    statistics: (M, 2) float32, for layer norms: 1 / deviation and -mean / deviation of each token.
    """
    workspace = _make_workspace(weights, neighbours.shape[1], planes)
    phase = 0
    _project(weights, features, scratch, sync, phase)
    barrier(sync, phase, threads)
    phase += 1
    _embed(weights, features, neighbours, scratch, tokens, statistics, workspace, sync, phase)
    for layer in range(weights.mix.shape[0]):
        barrier(sync, phase, threads)
        phase += 1
        plane = planes[layer % len(planes)]
        _average(weights, layer, plane, tokens, statistics, scratch, sync, phase)
        barrier(sync, phase, threads)
        phase += 1
        _filter(weights, layer, plane, scratch, workspace, sync, phase)
        barrier(sync, phase, threads)
        phase += 1
        _mix_channels(weights, layer, plane, scratch, tokens, statistics, workspace, sync, phase)
    barrier(sync, phase, threads)
    phase += 1
    _classify(weights, tokens, logits, workspace, sync, phase)


@kernel
def _project(weights: Weights, features: Any, projected: Any, sync: Any, phase: int) -> None:
    """projected <- first linear layer of the neighbour branch; being linear, it maps x_j - x_i to the difference."""
    while True:
        first = next_block(sync, phase) * BLOCK
        if first >= len(features):
            return
        for i in range(first, min(first + BLOCK, len(features))):
            projected[i] = 0
            _add_linear(projected[i], features[i], weights.neighbour_in)


@kernel
def _embed(
    weights: Weights,
    features: Any,
    neighbours: Any,
    projected: Any,
    tokens: Any,
    statistics: Any,
    workspace: Workspace,
    sync: Any,
    phase: int,
) -> None:
    """tokens <- merge([point, max over neighbours j of out(relu(in(x_j - x_i)))])"""
    count = neighbours.shape[1]
    together = max(1, BLOCK // count)  # tokens whose neighbours are in one product
    width = tokens.shape[1]
    shift = weights.neighbour_shift
    while True:
        first = next_block(sync, phase) * BLOCK
        if first >= len(tokens):
            return
        end = min(first + BLOCK, len(tokens))
        for i0 in range(first, end, together):
            i1 = min(i0 + together, end)
            row = 0
            for i in range(i0, i1):
                here = projected[i]
                for k in range(count):
                    there, rectified = projected[neighbours[i, k]], workspace.high[row]
                    for c in range(width):
                        rectified[c] = max(there[c] - here[c] + shift[c], np.float32(0))
                    row += 1
            multiply(workspace, workspace.high, row, width, weights.neighbour_out)
            row = 0
            for i in range(i0, i1):
                best = workspace.pooled[i - first]
                for c in range(width):
                    best[c] = workspace.high[row, c]
                for k in range(1, count):
                    other = workspace.high[row + k]
                    for c in range(width):
                        best[c] = max(best[c], other[c])
                row += count
        multiply(workspace, workspace.pooled, end - first, width, weights.merge)
        for i in range(first, end):
            token, merged = tokens[i], workspace.high[i - first]
            for c in range(width):
                token[c] = merged[c]
            _add_linear(token, features[i], weights.point)
            if weights.layer_norm:
                _normalise(token, weights.width, statistics[i])


@kernel
def _average(
    weights: Weights, layer: int, plane: Plane, tokens: Any, statistics: Any, cells: Any, sync: Any, phase: int
) -> None:
    """cells <- mean of norm(tokens) in each occupied cell"""
    occupied, width = len(plane.around), tokens.shape[1]
    factor, shift = weights.norms[layer, 0, 0], weights.norms[layer, 0, 1]
    while True:
        block = next_block(sync, phase) * CELLS
        if block >= occupied:
            return
        for cell in range(block, min(block + CELLS, occupied)):
            first, end = plane.start[cell], plane.start[cell + 1]
            for column in range(0, width, COLUMNS):
                if weights.layer_norm:
                    sum_rows(tokens, column, statistics, plane.order, first, end, cells, cell)
                else:
                    sum_rows(tokens, column, None, plane.order, first, end, cells, cell)
            count, mean = np.float32(end - first), cells[cell]
            weight = np.float32(1) / (count + np.float32(1e-6))  # as published
            for c in range(width):
                mean[c] = weight * (mean[c] * factor[c] + count * shift[c])


@kernel
def _filter(
    weights: Weights, layer: int, plane: Plane, cells: Any, workspace: Workspace, sync: Any, phase: int
) -> None:
    """cells <- filter(activation(filter(cells))), LANES channels at a time"""
    occupied, active = len(plane.around), len(plane.near)
    mean, hidden = workspace.mean, workspace.hidden
    while True:
        block = next_block(sync, phase)
        column = block * LANES
        if column >= cells.shape[1]:
            return
        for cell in range(occupied):
            for c in range(LANES):
                mean[cell, c] = cells[cell, column + c]
        mean[occupied] = 0
        for cell in range(active):
            filter3x3(mean, plane.near, cell, weights.filters[layer, block, 0], hidden, 0)
        _activate(hidden, active, LANES, weights.gelu)
        hidden[active] = 0
        for cell in range(occupied):
            filter3x3(hidden, plane.around, cell, weights.filters[layer, block, 1], cells, column)


@kernel
def _mix_channels(
    weights: Weights,
    layer: int,
    plane: Plane,
    cells: Any,
    tokens: Any,
    statistics: Any,
    workspace: Workspace,
    sync: Any,
    phase: int,
) -> None:
    """tokens <- tokens + cells at the token; tokens <- tokens + second(activation(first(norm(tokens))))"""
    width = tokens.shape[1]
    factor, shift = weights.norms[layer, 1, 0], weights.norms[layer, 1, 1]
    first_layer = Product(weights.mix[layer, 0], weights.mix_columns[layer, 0])
    second_layer = Product(weights.mix[layer, 1], weights.mix_columns[layer, 1])
    norm = np.array([1, 0], np.float32)
    while True:
        first = next_block(sync, phase) * BLOCK
        if first >= len(tokens):
            return
        end = min(first + BLOCK, len(tokens))
        for i in range(first, end):
            token, cell, normed = tokens[i], cells[plane.cell[i]], workspace.high[i - first]
            for c in range(width):
                token[c] += cell[c]
            if weights.layer_norm:
                _normalise(token, weights.width, norm)
            for c in range(width):
                normed[c] = (token[c] * norm[0] + norm[1]) * factor[c] + shift[c]
        multiply(workspace, workspace.high, end - first, width, first_layer)
        _activate(workspace.high, end - first, width, weights.gelu)
        multiply(workspace, workspace.high, end - first, width, second_layer)
        for i in range(first, end):
            token, residual = tokens[i], workspace.high[i - first]
            for c in range(width):
                token[c] += residual[c]
            if weights.layer_norm:
                _normalise(token, weights.width, statistics[i])


@kernel
def _classify(weights: Weights, tokens: Any, logits: Any, workspace: Workspace, sync: Any, phase: int) -> None:
    """logits <- head(tokens)"""
    width, outputs = tokens.shape[1], logits.shape[1]
    factor, shift = weights.head_norm[0], weights.head_norm[1]
    while True:
        first = next_block(sync, phase) * BLOCK
        if first >= len(tokens):
            return
        count = min(BLOCK, len(tokens) - first)
        for i in range(count):
            token, normed = tokens[first + i], workspace.high[i]
            for c in range(width):
                normed[c] = token[c] * factor[c] + shift[c]
        if len(weights.hidden.weight):
            hidden = weights.hidden.columns.shape[1]
            multiply(workspace, workspace.high, count, width, weights.hidden)
            _activate(workspace.high, count, hidden, False)
            multiply(workspace, workspace.high, count, hidden, weights.head)
        else:
            multiply(workspace, workspace.high, count, width, weights.head)
        for i in range(count):
            for c in range(outputs):
                logits[first + i, c] = workspace.high[i, c]


@kernel
def _make_workspace(weights: Weights, neighbours: int, planes: Any) -> Workspace:
    rows = max(BLOCK, -(-neighbours // ROWS) * ROWS)
    columns = max(weights.norms.shape[3], weights.hidden.columns.shape[1], weights.head.columns.shape[1])
    occupied, active = 0, 0
    for plane in planes:
        occupied, active = max(occupied, len(plane.around)), max(active, len(plane.near))
    return Workspace(
        aligned(rows, columns, weights.low),
        aligned(rows, 2, weights.norms),
        aligned(rows, columns, weights.norms),
        aligned(rows, columns, weights.norms),
        aligned(occupied + 1, LANES, weights.norms),
        aligned(active + 1, LANES, weights.norms),
    )


@kernel
def aligned(rows: int, columns: int, like: Any) -> Any:
    """(rows, columns) of zeros that begin with a cache line."""
    memory = np.zeros(rows * columns + 64, like.dtype)
    first = -memory.ctypes.data % 64 // like.itemsize
    return memory[first : first + rows * columns].reshape(rows, columns)


@kernel
def multiply(workspace: Workspace, values: Any, count: int, width: int, product: Product) -> None:
    """workspace.high <- the first `count` rows of values (rows, width) @ product; values may be workspace.high"""
    for row in range(count):
        lower(values, row, width, workspace.low, workspace.ranges)
    for panel in range(len(product.weight)):
        for row in range(0, count, ROWS):
            tile(
                workspace.low,
                workspace.ranges,
                row,
                product.weight[panel],
                product.columns,
                panel * COLUMNS,
                workspace.high,
            )


@inlined
def _add_linear(out: Any, values: Any, weight: Any) -> None:
    """out (F,) <- out + values (C,) @ weight (C, F)"""
    for k in range(len(values)):
        for c in range(len(out)):
            out[c] += values[k] * weight[k, c]


@inlined
def _normalise(token: Any, width: int, norm: Any) -> None:
    """norm (2,) <- the factor and the shift that give the token mean 0 and variance 1"""
    mean, square = np.float32(0), np.float32(0)
    for c in range(width):
        mean += token[c]
    mean /= np.float32(width)
    for c in range(width):
        square += (token[c] - mean) ** 2
    norm[0] = np.float32(1) / np.sqrt(square / np.float32(width) + EPSILON)
    norm[1] = -mean * norm[0]


@inlined
def _activate(values: Any, rows: int, columns: int, gelu: bool) -> None:
    for r in range(rows):
        row = values[r]
        if gelu:
            for c in range(columns):
                row[c] = np.float32(0.5) * row[c] * (np.float32(1) + _erf(row[c] * np.float32(np.sqrt(0.5))))
        else:
            for c in range(columns):
                row[c] = max(row[c], np.float32(0))


@inlined
def _erf(x: Any) -> Any:
    """erf(x) to 4e-7, as x P(x^2) / Q(x^2) fitted to |x| <= 4, beyond which it is 1. Runs on whole vectors."""
    x = min(max(x, np.float32(-4)), np.float32(4))
    s = x * x
    p = np.float32(1.9747714834898257e-06) * s + np.float32(0.0002880370671387724)
    p = p * s + np.float32(0.004003632056921064)
    p = p * s + np.float32(0.05346739965081253)
    p = p * s + np.float32(0.19624917212386267)
    p = p * s + np.float32(1.1283789765061871)
    q = np.float32(3.748003535667312e-05) * s + np.float32(0.0012163494992450392)
    q = q * s + np.float32(0.015444389626185138)
    q = q * s + np.float32(0.11647641309317809)
    q = q * s + np.float32(0.5072524599251177)
    q = q * s + np.float32(1)
    return x * p / q

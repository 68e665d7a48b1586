"""What a compiler does not make of plain loops: matrix products, sums of rows and 3x3 filters on vectors of 16 float32.

LLVM splits the vectors where the processor's are shorter. Matrices lie row by row.
"""

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils

from cmp_seg_ros.kernels.launch import config, intrinsic

llvm.initialize_native_asmparser()

LANES = 16
_FEATURES = config.CPU_FEATURES or llvm.get_host_cpu_features().flatten()
HAS_BFLOAT16 = "+avx512bf16" in _FEATURES
# A tile of ROWS x COLUMNS sums stays in registers: 24 of 32 with AVX-512, 12 of 16 with AVX2, 24 of 32 with NEON.
ROWS = 6
VECTORS = 4 if "+avx512f" in _FEATURES else 1
COLUMNS = VECTORS * LANES

_BYTES = 4 * LANES  # of a vector
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)


@intrinsic
def tile(typing: Any, rows: Any, row: Any, weight: Any, bias: Any, column: Any, out: Any) -> tuple[Any, Any]:
    """out[row:+ROWS, column:+COLUMNS] <- rows[row:+ROWS] @ weight + bias[column:+COLUMNS]

    weight (K, COLUMNS) float32, or (K / 2, 2 COLUMNS) uint16 where the bfloat16 of two inputs stand side by side;
    rows of the same type. Bias and out are float32.
    """
    multiply_add = _dot_bfloat16 if rows.dtype == types.uint16 else _fma

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        rows, weight, bias, out = (_Matrix(context, builder, signature.args[i], args[i]) for i in (0, 2, 3, 5))
        row, column = args[1], args[4]
        inputs = [rows.at(builder.add(row, _I64(r))) for r in range(ROWS)]
        outputs = [out.at(builder.add(row, _I64(r)), column) for r in range(ROWS)]
        biases = [_load(builder, bias.at(column), _BYTES * v) for v in range(VECTORS)]
        grid = [(r, v) for r in range(ROWS) for v in range(VECTORS)]
        with _Loop(builder, _I64(0), weight.shape[0]) as k:
            sums = {at: k.variable(biases[at[1]]) for at in grid}
            panel = weight.at(k.index)
            weights = [_load(builder, panel, _BYTES * v) for v in range(VECTORS)]
            for r in range(ROWS):
                value = _splat(builder, _load(builder, builder.add(inputs[r], builder.shl(k.index, _I64(2))), 0, _F32))
                for v in range(VECTORS):
                    k.set(sums[r, v], multiply_add(builder, sums[r, v], weights[v], value))
        for r, v in grid:
            _store(builder, k.last(sums[r, v]), outputs[r], _BYTES * v)
        return context.get_dummy_value()

    return types.void(rows, types.intp, weight, bias, types.intp, out), generate


@intrinsic
def sum_rows(
    typing: Any, x: Any, column: Any, norms: Any, order: Any, first: Any, end: Any, out: Any, place: Any
) -> tuple[Any, Any]:
    """out[place, column:+LANES] <- sum over e in first..end of x[order[e], column:+LANES]; end > first

    With norms (M, 2) instead of None: of x * norms[., 0] + norms[., 1].
    """
    normalised = norms != types.none

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        x, order, out = (_Matrix(context, builder, signature.args[i], args[i]) for i in (0, 3, 6))
        column, first, end, place = args[1], args[4], args[5], args[7]
        with _Loop(builder, first, end) as e:
            total = e.variable(_VECTOR([0.0] * LANES))
            row = builder.sext(_load(builder, order.at(e.index), 0, _I32), _I64)
            value = _load(builder, x.at(row, column), 0)
            if normalised:
                norm = _Matrix(context, builder, signature.args[2], args[2]).at(row)
                factor, shift = (_splat(builder, _load(builder, norm, offset, _F32)) for offset in (0, 4))
                value = _fma(builder, shift, value, factor)
            e.set(total, builder.fadd(total, value))
        _store(builder, e.last(total), out.at(place, column), 0)
        return context.get_dummy_value()

    return types.void(x, types.intp, norms, order, types.intp, types.intp, out, types.intp), generate


@intrinsic
def filter3x3(typing: Any, cells: Any, taps: Any, cell: Any, weights: Any, out: Any, column: Any) -> tuple[Any, Any]:
    """out[cell, column:+LANES] <- weights[9] + sum over t < 9 of weights[t] * cells[taps[cell, t]]

    cells (n, LANES), weights (10, LANES), taps int32.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        cells, taps, weights, out = (_Matrix(context, builder, signature.args[i], args[i]) for i in (0, 1, 3, 4))
        cell, column = args[2], args[5]
        total = _load(builder, weights.at(_I64(9)), 0, constant=True)
        for t in range(9):
            tap = builder.sext(_load(builder, taps.at(cell), 4 * t, _I32), _I64)
            weight = _load(builder, weights.at(_I64(t)), 0, constant=True)
            total = _fma(builder, total, weight, _load(builder, cells.at(tap), 0))
        _store(builder, total, out.at(cell, column), 0)
        return context.get_dummy_value()

    return types.void(cells, taps, types.intp, weights, out, types.intp), generate


@intrinsic
def rounded(typing: Any, value: Any, like: Any) -> tuple[Any, Any]:
    """A float32 as an element of `like`: itself, or the nearest bfloat16 (ties to even) in an uint16."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if like.dtype == types.float32:
            return args[0]
        bits = builder.bitcast(args[0], _I32)
        odd = builder.and_(builder.lshr(bits, _I32(16)), _I32(1))
        return builder.trunc(builder.lshr(builder.add(builder.add(bits, _I32(0x7FFF)), odd), _I32(16)), ir.IntType(16))

    return like.dtype(types.float32, like), generate


class _Matrix:
    """An array as the code generator sees it: where its elements are."""

    def __init__(self, context: Any, builder: ir.IRBuilder, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder = builder
        self.address = builder.ptrtoint(array.data, _I64)
        self.shape = cgutils.unpack_tuple(builder, array.shape)
        self.strides = cgutils.unpack_tuple(builder, array.strides)

    def at(self, *index: Any) -> Any:
        """Address of an element, or of the first of a row."""
        address = self.address
        for i, stride in zip(index, self.strides, strict=False):
            address = self.builder.add(address, self.builder.mul(i, stride))
        return address


class _Loop:
    """A loop over first <= index < end, run at least once, that carries variables from turn to turn in registers."""

    def __init__(self, builder: ir.IRBuilder, first: Any, end: Any) -> None:
        self.builder, self.first, self.end = builder, first, end
        self.following: dict[Any, Any] = {}

    def __enter__(self) -> "_Loop":
        self.before, self.body = self.builder.block, self.builder.append_basic_block()
        self.builder.branch(self.body)
        self.builder.position_at_end(self.body)
        self.index = self.variable(self.first)
        return self

    def variable(self, start: Any) -> Any:
        phi = self.builder.phi(start.type)
        phi.add_incoming(start, self.before)
        return phi

    def set(self, variable: Any, value: Any) -> None:
        """The variable's value in the next turn."""
        variable.add_incoming(value, self.body)
        self.following[variable] = value

    def last(self, variable: Any) -> Any:
        """Its value after the loop."""
        return self.following[variable]

    def __exit__(self, *error: object) -> None:
        self.set(self.index, self.builder.add(self.index, _I64(1)))
        after = self.builder.append_basic_block()
        self.builder.cbranch(self.builder.icmp_signed("<", self.last(self.index), self.end), self.body, after)
        self.builder.position_at_end(after)


def _load(builder: ir.IRBuilder, address: Any, offset: int, kind: ir.Type = _VECTOR, constant: bool = False) -> Any:
    pointer = builder.inttoptr(builder.add(address, _I64(offset)), kind.as_pointer())
    value = builder.load(pointer, align=4)
    if constant:  # may stay in a register whatever is stored meanwhile
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


def _store(builder: ir.IRBuilder, value: Any, address: Any, offset: int) -> None:
    builder.store(value, builder.inttoptr(builder.add(address, _I64(offset)), value.type.as_pointer()), align=4)


def _splat(builder: ir.IRBuilder, value: Any) -> Any:
    """The value in every lane."""
    empty = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(empty, value, _I32(0))
    return builder.shuffle_vector(one, empty, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


def _fma(builder: ir.IRBuilder, total: Any, a: Any, b: Any) -> Any:
    """total + a * b"""
    name = f"llvm.fma.v{LANES}f32"
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    return builder.call(builder.module.globals.get(name) or ir.Function(builder.module, kind, name), [a, b, total])


def _dot_bfloat16(builder: ir.IRBuilder, total: Any, a: Any, b: Any) -> Any:
    """total + a0 * b0 + a1 * b1 for the two bfloat16 in each lane; LLVM's own name for it differs by version."""
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    return builder.asm(kind, "vdpbf16ps $3, $2, $0", "=v,0,v,v", [total, a, b], False)

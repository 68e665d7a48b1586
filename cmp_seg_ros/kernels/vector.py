"""Vector code that compilers do not generate from loops: matrix products, sums of rows, 3x3 filters on 16 float32.

LLVM splits the vectors if the processor's are shorter. Matrices are row-major.
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
HAS_INT8 = "+avx512vnni" in _FEATURES
HAS_BFLOAT16 = "+avx512bf16" in _FEATURES
# A tile of ROWS x COLUMNS sums fits into the registers: 24 of 32 with AVX-512, 12 of 16 with AVX2, 24 of 32 with NEON.
ROWS = 6
VECTORS = 4 if "+avx512f" in _FEATURES else 1
COLUMNS = VECTORS * LANES

_BYTES = 4 * LANES  # of a vector
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR, _INTEGERS = ir.VectorType(_F32, LANES), ir.VectorType(_I32, LANES)


@intrinsic
def tile(
    typing: Any, rows: Any, ranges: Any, row: Any, weight: Any, columns: Any, column: Any, out: Any
) -> tuple[Any, Any]:
    """out[row:+ROWS, column:+COLUMNS] <- rows[row:+ROWS] @ weight + bias

    Rows and ranges are those of `lower`. weight is (K, COLUMNS) float32, (K / 2, 2 COLUMNS) uint16 or
    (K / 4, 4 COLUMNS) int8: two bfloat16 or four int8 of one output are adjacent. columns (3, .): bias, and for int8
    the quantisation step of the weights, and the sum of the dequantised weights. Sums are float32 or int32.
    """
    int8 = rows.dtype == types.uint8
    multiply_add = _dot_int8 if int8 else _dot_bfloat16 if rows.dtype == types.uint16 else _fma

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        rows, ranges, weight, columns, out = (
            _Matrix(context, builder, signature.args[i], args[i]) for i in (0, 1, 3, 4, 6)
        )
        row, column = args[2], args[5]
        numbers = [builder.add(row, _I64(r)) for r in range(ROWS)]
        inputs = [rows.at(number) for number in numbers]
        outputs = [out.at(number, column) for number in numbers]
        biases, steps, worths = (
            [_load(builder, columns.at(_I64(kind), column), _BYTES * v) for v in range(VECTORS)] for kind in range(3)
        )
        grid = [(r, v) for r in range(ROWS) for v in range(VECTORS)]
        with _Loop(builder, _I64(0), weight.shape[0]) as k:
            sums = {(r, v): k.variable(_INTEGERS([0] * LANES) if int8 else biases[v]) for r, v in grid}
            panel = weight.at(k.index)
            weights = [_load(builder, panel, _BYTES * v, sums[0, v].type) for v in range(VECTORS)]
            for r in range(ROWS):
                at = builder.add(inputs[r], builder.shl(k.index, _I64(2)))
                value = _splat(builder, _load(builder, at, 0, sums[r, 0].type.element))
                for v in range(VECTORS):
                    k.set(sums[r, v], multiply_add(builder, sums[r, v], value, weights[v]))
        for r, v in grid:
            result = k.last(sums[r, v])
            if int8:  # x ~ low + factor q: x w ~ low sum(w) + factor q w
                factor, low = (_splat(builder, _load(builder, ranges.at(numbers[r]), at, _F32)) for at in (0, 4))
                constant = _fma(builder, biases[v], low, worths[v])
                counted = builder.sitofp(result, _VECTOR)
                result = _fma(builder, constant, builder.fmul(counted, steps[v]), factor)
            _store(builder, result, outputs[r], _BYTES * v)
        return context.get_dummy_value()

    return types.void(rows, ranges, types.intp, weight, columns, types.intp, out), generate


@intrinsic
def lower(typing: Any, values: Any, row: Any, width: Any, rows: Any, ranges: Any) -> tuple[Any, Any]:
    """rows[row] <- the first `width` of values[row], rounded to the type of rows.

    The type is float32, bfloat16 as uint16, or uint8, in equal steps from the minimum to the maximum;
    ranges[row] <- that step, the minimum. `width` is a multiple of LANES.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        values, rows, ranges = (_Matrix(context, builder, signature.args[i], args[i]) for i in (0, 3, 4))
        source, target, row_range = values.at(args[1]), rows.at(args[1]), ranges.at(args[1])
        vectors = builder.udiv(args[2], _I64(LANES))

        def vector(index: Any) -> Any:
            return _load(builder, builder.add(source, builder.mul(index, _I64(_BYTES))), 0)

        if signature.args[3].dtype == types.uint8:
            first = vector(_I64(0))
            with _Loop(builder, _I64(0), vectors) as i:
                least, greatest = i.variable(first), i.variable(first)
                value = vector(i.index)
                i.set(least, builder.select(builder.fcmp_ordered("<", value, least), value, least))
                i.set(greatest, builder.select(builder.fcmp_ordered(">", value, greatest), value, greatest))
            low = _reduce(builder, "fmin", i.last(least))
            span = builder.fsub(_reduce(builder, "fmax", i.last(greatest)), low)
            steps_in_one = builder.fdiv(_F32(255), span)
            steps_in_one = builder.select(builder.fcmp_ordered(">", span, _F32(1e-30)), steps_in_one, _F32(0))
            _store(builder, builder.fmul(span, _F32(1 / 255)), row_range, 0)
            _store(builder, low, row_range, 4)
            lows, factors = _splat(builder, low), _splat(builder, steps_in_one)
        with _Loop(builder, _I64(0), vectors) as i:
            value, size = vector(i.index), 4
            if signature.args[3].dtype == types.uint8:
                counted = _fma(builder, _VECTOR([0.5] * LANES), builder.fsub(value, lows), factors)
                value, size = builder.trunc(builder.fptosi(counted, _INTEGERS), ir.VectorType(ir.IntType(8), LANES)), 1
            elif signature.args[3].dtype == types.uint16:
                bits, sixteen = builder.bitcast(value, _INTEGERS), _INTEGERS([16] * LANES)
                odd = builder.and_(builder.lshr(bits, sixteen), _INTEGERS([1] * LANES))
                bits = builder.add(builder.add(bits, _INTEGERS([0x7FFF] * LANES)), odd)  # ties to even
                value, size = builder.trunc(builder.lshr(bits, sixteen), ir.VectorType(ir.IntType(16), LANES)), 2
            _store(builder, value, builder.add(target, builder.mul(i.index, _I64(size * LANES))), 0)
        return context.get_dummy_value()

    return types.void(values, types.intp, types.intp, rows, ranges), generate


@intrinsic
def sum_rows(
    typing: Any, x: Any, column: Any, norms: Any, order: Any, first: Any, end: Any, out: Any, place: Any
) -> tuple[Any, Any]:
    """out[place, column:+COLUMNS] <- sum over e in first..end of x[order[e], column:+COLUMNS]; end > first

    With norms (M, 2) instead of None: the sum of x * norms[., 0] + norms[., 1].
    """
    normalised = norms != types.none

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        x, order, out = (_Matrix(context, builder, signature.args[i], args[i]) for i in (0, 3, 6))
        column, first, end, place = args[1], args[4], args[5], args[7]
        with _Loop(builder, first, end) as e:
            totals = [e.variable(_VECTOR([0.0] * LANES)) for _ in range(VECTORS)]
            row = builder.sext(_load(builder, order.at(e.index), 0, _I32), _I64)
            values = [_load(builder, x.at(row, column), _BYTES * v) for v in range(VECTORS)]
            if normalised:
                norm = _Matrix(context, builder, signature.args[2], args[2]).at(row)
                factor, shift = (_splat(builder, _load(builder, norm, offset, _F32)) for offset in (0, 4))
                values = [_fma(builder, shift, value, factor) for value in values]
            for total, value in zip(totals, values, strict=True):
                e.set(total, builder.fadd(total, value))
        for v, total in enumerate(totals):
            _store(builder, e.last(total), out.at(place, column), _BYTES * v)
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
def widened(typing: Any, value: Any) -> tuple[Any, Any]:
    """The float32 of a bfloat16, given as uint16; float32 as it is."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        if signature.args[0] == types.float32:
            return args[0]
        return builder.bitcast(builder.shl(builder.zext(args[0], _I32), _I32(16)), _F32)

    return types.float32(value), generate


class _Matrix:
    """Address arithmetic of an array in generated code."""

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
    """A loop over first <= index < end, at least one iteration, with loop-carried variables in registers."""

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
        """Set the variable's value in the next iteration."""
        variable.add_incoming(value, self.body)
        self.following[variable] = value

    def last(self, variable: Any) -> Any:
        """The variable's value after the loop."""
        return self.following[variable]

    def __exit__(self, *error: object) -> None:
        self.set(self.index, self.builder.add(self.index, _I64(1)))
        after = self.builder.append_basic_block()
        self.builder.cbranch(self.builder.icmp_signed("<", self.last(self.index), self.end), self.body, after)
        self.builder.position_at_end(after)


def _load(builder: ir.IRBuilder, address: Any, offset: int, kind: ir.Type = _VECTOR, constant: bool = False) -> Any:
    pointer = builder.inttoptr(builder.add(address, _I64(offset)), kind.as_pointer())
    value = builder.load(pointer, align=4)
    if constant:  # not changed by stores, so it may stay in a register
        value.set_metadata("invariant.load", builder.module.add_metadata([]))
    return value


def _store(builder: ir.IRBuilder, value: Any, address: Any, offset: int) -> None:
    builder.store(value, builder.inttoptr(builder.add(address, _I64(offset)), value.type.as_pointer()), align=4)


def _splat(builder: ir.IRBuilder, value: Any) -> Any:
    """The value in every lane."""
    kind = ir.VectorType(value.type, LANES)
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _I32(0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), _INTEGERS([0] * LANES))


def _reduce(builder: ir.IRBuilder, how: str, vector: Any) -> Any:
    """Minimum (fmin) or maximum (fmax) of the lanes."""
    return _call(builder, f"llvm.vector.reduce.{how}.v{LANES}f32", _F32, vector)


def _fma(builder: ir.IRBuilder, total: Any, a: Any, b: Any) -> Any:
    """total + a * b"""
    return _call(builder, f"llvm.fma.v{LANES}f32", _VECTOR, a, b, total)


def _call(builder: ir.IRBuilder, name: str, kind: ir.Type, *args: Any) -> Any:
    known = builder.module.globals.get(name)
    function = known or ir.Function(builder.module, ir.FunctionType(kind, [a.type for a in args]), name)
    return builder.call(function, args, fastmath=("nnan",))


# Inline assembly for these two, since LLVM's intrinsics differ between versions.


def _dot_bfloat16(builder: ir.IRBuilder, total: Any, a: Any, b: Any) -> Any:
    """total + a0 * b0 + a1 * b1 for the two bfloat16 in each lane."""
    return builder.asm(
        ir.FunctionType(_VECTOR, [_VECTOR] * 3), "vdpbf16ps $3, $2, $0", "=v,0,v,v", [total, a, b], False
    )


def _dot_int8(builder: ir.IRBuilder, total: Any, a: Any, b: Any) -> Any:
    """total + a0 * b0 + ... + a3 * b3 for the four uint8 of a and int8 of b in each lane, in int32."""
    kind = ir.FunctionType(_INTEGERS, [_INTEGERS] * 3)
    return builder.asm(kind, "vpdpbusd $3, $2, $0", "=v,0,v,v", [total, a, b], False)

"""Several vectors at once, for Numba: sums of many vectors' lanes, and rows of jets turned into columns."""

# Numba's and llvmlite's own interfaces carry no types.
# mypy: disable-error-code="import-untyped, no-untyped-call"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from jsc_explore.training.simd import FAST, FLOAT, INT, INTEGERS, ROW, VECTOR, WIDTH, vector


def _shared_sums(builder: Any, parts: list[Any], count: int) -> list[Any]:
    """Add up the lanes of ``count`` vectors, sharing the additions; the sums lie in order in the vectors returned."""
    while len(parts) * WIDTH > max(count, WIDTH):
        parts = [_pairs(builder, one, two) for one, two in zip(parts[::2], parts[1::2], strict=True)]
    while parts[0].type.count * len(parts) > count:
        half = parts[0].type.count // 2
        none = ir.Constant(parts[0].type, ir.Undefined)
        whole = _pairs(builder, parts[0], none)
        lanes_ = ir.Constant(ir.VectorType(INT, half), list(range(half)))
        parts = [builder.shuffle_vector(whole, none, lanes_)]
    return parts


def _pairs(builder: Any, a: Any, b: Any) -> Any:
    """Return the sums of neighbouring lanes, first those of ``a``, then those of ``b``."""
    count = a.type.count
    even, odd = (
        builder.shuffle_vector(
            a, b, ir.Constant(ir.VectorType(INT, count), [first + 2 * lane for lane in range(count)])
        )
        for first in (0, 1)
    )
    return builder.fadd(even, odd, flags=FAST)


def _store_fours(context: Any, builder: Any, signature: Any, args: Any, values: Any, stride: Any) -> Any:
    """Write the lane sums of ``values``, four in a row, rows ``stride`` apart."""
    sums = _shared_sums(builder, list(values), len(values))
    data = args[0]
    long, four, row = ir.IntType(64), ir.VectorType(FLOAT, 4), 0
    for part in sums:
        for first in range(0, part.type.count, 4):
            picks = ir.Constant(ir.VectorType(INT, 4), list(range(first, first + 4)))
            value = builder.shuffle_vector(part, ir.Constant(part.type, ir.Undefined), picks)
            place = builder.add(args[1], builder.mul(stride, long(row)))
            builder.store(value, builder.bitcast(builder.gep(data, [place]), four.as_pointer()), align=4)
            row += 1
    return context.get_dummy_value()


@intrinsic
def store_four(typing: Any, array: Any, offset: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Write the lane sums of four vectors to ``array[offset : offset + 4]``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _store_fours(context, builder, signature, args, args[2:], ir.IntType(64)(4))

    return types.void(array, types.intp, *[vector] * 4), build


@intrinsic
def store_sixteen(
    typing: Any, array: Any, offset: Any, stride: Any,
    a0: Any, a1: Any, a2: Any, a3: Any, b0: Any, b1: Any, b2: Any, b3: Any,
    c0: Any, c1: Any, c2: Any, c3: Any, d0: Any, d1: Any, d2: Any, d3: Any,
) -> Any:  # fmt: skip
    """Write the lane sums of sixteen vectors, four in a row; rows lie ``stride`` apart from ``offset`` on."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _store_fours(context, builder, signature, args, args[3:], args[2])

    return types.void(array, types.intp, types.intp, *[vector] * 16), build


@intrinsic
def store_transposed(typing: Any, source: Any, rows: Any, start: Any, target: Any, offset: Any, stride: Any) -> Any:
    """Gather ``WIDTH`` rows of 16 float32 and write them as columns.

    ``target[offset + f * stride + i] = source[rows[start + i] * 16 + f]`` for f < 16, i < ``WIDTH``.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source_, rows_, start_, target_, offset_, stride_ = args
        long = ir.IntType(64)
        first, index, out = source_, rows_, target_
        bases = []
        for i in range(WIDTH):
            row = builder.load(builder.gep(index, [builder.add(start_, long(i))]))
            bases.append(builder.gep(first, [builder.mul(builder.sext(row, long), long(ROW))]))
        for half in range(0, ROW, WIDTH):
            block = []
            for base in bases:
                at = builder.bitcast(builder.gep(base, [long(half)]), VECTOR.as_pointer())
                block.append(builder.load(at, align=4))
            for column, value in enumerate(_transposed(builder, block)):
                place = builder.add(offset_, builder.mul(stride_, long(half + column)))
                builder.store(value, builder.bitcast(builder.gep(out, [place]), VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(source, rows, types.intp, target, types.intp, types.intp), build


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square of vectors: swap blocks of half the size between rows that far apart, then of a quarter, …"""
    size, distance = len(rows), len(rows) // 2
    while distance:
        done = list(rows)
        for i in range(size):
            if i & distance:
                continue
            low = [lane if not lane & distance else size + lane - distance for lane in range(size)]
            high = [lane + distance if not lane & distance else size + lane for lane in range(size)]
            one, two = rows[i], rows[i + distance]
            done[i] = builder.shuffle_vector(one, two, ir.Constant(INTEGERS, low))
            done[i + distance] = builder.shuffle_vector(one, two, ir.Constant(INTEGERS, high))
        rows, distance = done, distance // 2
    return rows

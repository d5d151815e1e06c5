"""Tiles of matrix products for Numba, whose accumulators stay in registers over a whole loop.

A tile uses each loaded value for several sums, so that multiplications and not loads limit the speed. An addition waits
for the previous one of its sum; eight or more sums hide this latency. The order of the additions of a sum does not
depend on the tile, so that the result does not depend on the tiling.
"""

# Numba and llvmlite are untyped.
# mypy: disable-error-code="import-untyped, no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from jsc_explore.training.backends.cpu.simd import FAST, FLOAT, INT, INTEGERS, VECTOR, WIDTH, call_intrinsic, vector
from jsc_explore.training.backends.cpu.simd_reduce import sum_lanes

LONG = ir.IntType(64)
# Vectors of jets in a tile: with five rows, 20 accumulators, 4 inputs and a weight fit in the 32 registers of AVX-512
# or ARM, and half as many in the 16 of AVX2.
TILE_VECTORS = 2 if WIDTH == 8 else 4
_ZEROS = ir.Constant(VECTOR, [ir.Constant(FLOAT, 0.0)] * WIDTH)


class _Memory:
    """Load and store at offsets from a base address."""

    def __init__(self, builder: Any, base: Any) -> None:
        self.builder, self.base = builder, base

    def at(self, offset: Any, to: ir.Type) -> Any:
        return self.builder.bitcast(self.builder.gep(self.base, [offset]), to.as_pointer())

    def load(self, offset: Any) -> Any:
        return self.builder.load(self.at(offset, VECTOR), align=4)

    def store(self, value: Any, offset: Any) -> None:
        self.builder.store(value, self.at(offset, value.type), align=4)

    def load_splat(self, offset: Any) -> Any:
        value = self.builder.load(self.at(offset, FLOAT))
        first = self.builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, INT(0))
        return self.builder.shuffle_vector(first, first, ir.Constant(INTEGERS, [0] * WIDTH))


def _offset(builder: Any, start: Any, step: Any, times: int) -> Any:
    return builder.add(start, builder.mul(step, LONG(times)))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return call_intrinsic(builder, f"llvm.fma.v{WIDTH}f32", VECTOR, [a, b, c])


def _accumulators(builder: Any, start: list[Any]) -> list[Any]:
    """Allocate accumulators with these initial values; LLVM keeps them in registers."""
    sums = [cgutils.alloca_once(builder, VECTOR) for _ in start]
    for accumulator, value in zip(sums, start, strict=True):
        builder.store(value, accumulator)
    return sums


def make_matmul_tile(rows: int, vectors: int, *, back: bool = False) -> Any:
    """Return an intrinsic for a tile of ``rows`` outputs and ``vectors`` vectors of jets; ``back``: of gradients."""

    @intrinsic
    def matmul_tile(
        typing: Any, a: Any, w: Any, row_step: Any, step: Any, terms: Any, bias: Any, x: Any, y: Any, stride: Any,
        floor: Any,
    ) -> Any:  # fmt: skip
        """Write ``y[r, i] = max(floor, a[bias + r] + Σ_k w[r · row_step + k · step] x[k, i])``.

        The sum has ``terms`` terms. With ``back`` there is no bias, and the activation ``y[r, i]`` is replaced by the
        sum, or by 0 where it is at the floor of a ReLU.
        """

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base, w_, row_step_, step_, terms_, bias_, x_, y_, stride_, floor_ = args
            memory, starts = _Memory(builder, base), []
            for row in range(rows):
                starts += [_ZEROS if back else memory.load_splat(_offset(builder, bias_, LONG(1), row))] * vectors
            sums = _accumulators(builder, starts)
            with cgutils.for_range(builder, terms_) as loop:
                line = builder.add(x_, builder.mul(loop.index, stride_))
                values = [memory.load(_offset(builder, line, LONG(WIDTH), part)) for part in range(vectors)]
                column = builder.add(w_, builder.mul(loop.index, step_))
                for row in range(rows):
                    weight = memory.load_splat(_offset(builder, column, row_step_, row))
                    for part, value in enumerate(values):
                        accumulator = sums[row * vectors + part]
                        builder.store(_fma(builder, weight, value, builder.load(accumulator)), accumulator)
            for row in range(rows):
                for part in range(vectors):
                    total = builder.load(sums[row * vectors + part])
                    to = _offset(builder, _offset(builder, y_, stride_, row), LONG(WIDTH), part)
                    if back:
                        passed = builder.fcmp_ordered(">", memory.load(to), floor_)
                        memory.store(builder.select(passed, total, _ZEROS), to)
                    else:
                        cut = builder.fcmp_ordered(">", floor_, total)
                        memory.store(builder.select(cut, floor_, total), to)
            return context.get_dummy_value()

        return types.void(a, *[types.intp] * 8, vector), build

    return matmul_tile


def make_dot_tile(rows: int, columns: int) -> Any:
    """Return an intrinsic for a tile of ``rows`` × ``columns`` dot products; ``columns`` is 4 or 1."""

    @intrinsic
    def dot_tile(typing: Any, a: Any, d: Any, x: Any, stride: Any, blocks: Any, to: Any, row_step: Any) -> Any:
        """Write ``to[r · row_step + c] = Σ_i d[r, i] x[c, i]`` over whole vectors."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base, d_, x_, stride_, blocks_, to_, row_step_ = args
            memory = _Memory(builder, base)
            sums = _accumulators(builder, [_ZEROS] * (rows * columns))
            with cgutils.for_range(builder, blocks_) as loop:
                here = builder.mul(loop.index, LONG(WIDTH))
                lines = [
                    memory.load(builder.add(_offset(builder, x_, stride_, column), here)) for column in range(columns)
                ]
                for row in range(rows):
                    value = memory.load(builder.add(_offset(builder, d_, stride_, row), here))
                    for column, line in enumerate(lines):
                        accumulator = sums[row * columns + column]
                        builder.store(_fma(builder, value, line, builder.load(accumulator)), accumulator)
            totals = [builder.load(accumulator) for accumulator in sums]
            if columns == 1:
                for row in range(rows):
                    memory.store(_reduce_add(builder, totals[row]), _offset(builder, to_, row_step_, row))
            for first in range(0, rows, 4) if columns == 4 else ():
                row_sums = sum_lanes(builder, totals[4 * first : 4 * min(first + 4, rows)])
                for number, four in enumerate(_groups_of_four(builder, row_sums)):
                    memory.store(four, _offset(builder, to_, row_step_, first + number))
            return context.get_dummy_value()

        return types.void(a, *[types.intp] * 6), build

    return dot_tile


def _reduce_add(builder: Any, a: Any) -> Any:
    start = ir.Constant(FLOAT, -0.0)
    return call_intrinsic(builder, f"llvm.vector.reduce.fadd.v{WIDTH}f32", FLOAT, [start, a], FAST)


def _groups_of_four(builder: Any, parts: list[Any]) -> Iterator[Any]:
    """Split vectors into groups of four lanes."""
    for part in parts:
        for first in range(0, part.type.count, 4):
            picks = ir.Constant(ir.VectorType(INT, 4), list(range(first, first + 4)))
            yield builder.shuffle_vector(part, part, picks)


@intrinsic
def lane_sums(typing: Any, a: Any, offset: Any) -> Any:
    """Return the horizontal sums of the ``WIDTH`` vectors at an offset, as one vector."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(builder, args[0])
        return sum_lanes(builder, [memory.load(_offset(builder, args[1], LONG(WIDTH), row)) for row in range(WIDTH)])[0]

    return vector(a, types.intp), build

"""Products of matrices for Numba, a tile at a time: many running sums stay in registers over a whole loop.

A tile reads each value once for several sums, which keeps the multipliers busy instead of the loads; and each sum waits
for its own last addition, so that eight or more of them are needed to hide that wait. Every sum is taken in the same
order whatever the tile, so that a result does not depend on how a layer was cut up.
"""

# Numba's and llvmlite's own interfaces carry no types.
# mypy: disable-error-code="import-untyped, no-untyped-call"

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from jsc_explore.training.backends.cpu.simd import FAST, FLOAT, INT, INTEGERS, VECTOR, WIDTH, vector
from jsc_explore.training.backends.cpu.simd_reduce import summed

LONG = ir.IntType(64)
# Vectors of jets side by side in a tile: with five rows twenty sums, four inputs and a weight in 32 registers of
# AVX-512 or ARM, and half of it in the 16 of AVX2.
ACROSS = 2 if WIDTH == 8 else 4
_NOTHING = ir.Constant(VECTOR, [ir.Constant(FLOAT, 0.0)] * WIDTH)


class _Memory:
    """Loads and stores at offsets from a base."""

    def __init__(self, builder: Any, base: Any) -> None:
        self.builder, self.base = builder, base

    def at(self, offset: Any, to: ir.Type) -> Any:
        return self.builder.bitcast(self.builder.gep(self.base, [offset]), to.as_pointer())

    def load(self, offset: Any) -> Any:
        return self.builder.load(self.at(offset, VECTOR), align=4)

    def store(self, value: Any, offset: Any) -> None:
        self.builder.store(value, self.at(offset, value.type), align=4)

    def splat(self, offset: Any) -> Any:
        value = self.builder.load(self.at(offset, FLOAT))
        first = self.builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, INT(0))
        return self.builder.shuffle_vector(first, first, ir.Constant(INTEGERS, [0] * WIDTH))


def _plus(builder: Any, start: Any, step: Any, times: int) -> Any:
    return builder.add(start, builder.mul(step, LONG(times)))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fma.v{WIDTH}f32"), [a, b, c])


def _sums(builder: Any, start: list[Any]) -> list[Any]:
    """Place running sums; LLVM keeps them in registers."""
    places = [cgutils.alloca_once(builder, VECTOR) for _ in start]
    for place, value in zip(places, start, strict=True):
        builder.store(value, place)
    return places


def mixing(rows: int, across: int, *, back: bool = False) -> Any:
    """Make the tile of ``rows`` outputs and ``across`` vectors of a product of matrices; ``back``: of gradients."""

    @intrinsic
    def mix_tile(
        typing: Any, a: Any, w: Any, row_step: Any, step: Any, inner: Any, bias: Any, x: Any, y: Any, stride: Any,
        floor: Any,
    ) -> Any:  # fmt: skip
        """Write ``y[r, i] = max(floor, a[bias + r] + Σ_k w[r · row_step + k · step] x[k, i])``.

        With ``back`` there is no bias, and the sum takes the place of the activation ``y[r, i]``, or zero where a ReLU
        had cut that off at the floor.
        """

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base, w_, row_step_, step_, inner_, bias_, x_, y_, stride_, floor_ = args
            memory, starts = _Memory(builder, base), []
            for row in range(rows):
                starts += [_NOTHING if back else memory.splat(_plus(builder, bias_, LONG(1), row))] * across
            places = _sums(builder, starts)
            with cgutils.for_range(builder, inner_) as loop:
                line = builder.add(x_, builder.mul(loop.index, stride_))
                values = [memory.load(_plus(builder, line, LONG(WIDTH), part)) for part in range(across)]
                column = builder.add(w_, builder.mul(loop.index, step_))
                for row in range(rows):
                    weight = memory.splat(_plus(builder, column, row_step_, row))
                    for part, value in enumerate(values):
                        place = places[row * across + part]
                        builder.store(_fma(builder, weight, value, builder.load(place)), place)
            for row in range(rows):
                for part in range(across):
                    total = builder.load(places[row * across + part])
                    to = _plus(builder, _plus(builder, y_, stride_, row), LONG(WIDTH), part)
                    if back:
                        passed = builder.fcmp_ordered(">", memory.load(to), floor_)
                        memory.store(builder.select(passed, total, _NOTHING), to)
                    else:
                        cut = builder.fcmp_ordered(">", floor_, total)
                        memory.store(builder.select(cut, floor_, total), to)
            return context.get_dummy_value()

        return types.void(a, *[types.intp] * 8, vector), build

    return mix_tile


def dotting(rows: int, columns: int) -> Any:
    """Make the tile of ``rows`` × ``columns`` products of lines; the columns are four or one."""

    @intrinsic
    def dot_tile(typing: Any, a: Any, d: Any, x: Any, stride: Any, blocks: Any, to: Any, row_step: Any) -> Any:
        """Write ``to[r · row_step + c] = Σ_i d[r, i] x[c, i]`` over whole vectors."""

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            base, d_, x_, stride_, blocks_, to_, row_step_ = args
            memory = _Memory(builder, base)
            places = _sums(builder, [_NOTHING] * (rows * columns))
            with cgutils.for_range(builder, blocks_) as loop:
                here = builder.mul(loop.index, LONG(WIDTH))
                lines = [
                    memory.load(builder.add(_plus(builder, x_, stride_, column), here)) for column in range(columns)
                ]
                for row in range(rows):
                    value = memory.load(builder.add(_plus(builder, d_, stride_, row), here))
                    for column, line in enumerate(lines):
                        place = places[row * columns + column]
                        builder.store(_fma(builder, value, line, builder.load(place)), place)
            totals = [builder.load(place) for place in places]
            if columns == 1:
                for row in range(rows):
                    memory.store(_total(builder, totals[row]), _plus(builder, to_, row_step_, row))
            for first in range(0, rows, 4) if columns == 4 else ():
                sums = summed(builder, totals[4 * first : 4 * min(first + 4, rows)])
                for number, four in enumerate(_fours(builder, sums)):
                    memory.store(four, _plus(builder, to_, row_step_, first + number))
            return context.get_dummy_value()

        return types.void(a, *[types.intp] * 6), build

    return dot_tile


def _total(builder: Any, a: Any) -> Any:
    name, kind = f"llvm.vector.reduce.fadd.v{WIDTH}f32", ir.FunctionType(FLOAT, [FLOAT, VECTOR])
    function = cgutils.get_or_insert_function(builder.module, kind, name)
    return builder.call(function, [ir.Constant(FLOAT, -0.0), a], fastmath=FAST)


def _fours(builder: Any, parts: list[Any]) -> Iterator[Any]:
    """Cut vectors into groups of four lanes."""
    for part in parts:
        for first in range(0, part.type.count, 4):
            picks = ir.Constant(ir.VectorType(INT, 4), list(range(first, first + 4)))
            yield builder.shuffle_vector(part, part, picks)


@intrinsic
def lane_sums(typing: Any, a: Any, offset: Any) -> Any:
    """Return the sums of the ``WIDTH`` vectors that lie at an offset, as one vector."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(builder, args[0])
        return summed(builder, [memory.load(_plus(builder, args[1], LONG(WIDTH), row)) for row in range(WIDTH)])[0]

    return vector(a, types.intp), build

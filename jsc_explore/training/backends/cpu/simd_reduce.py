"""Operations on several SIMD vectors for Numba: horizontal sums, and the transposition of rows of jets."""

# Numba and llvmlite are untyped.
# mypy: disable-error-code="import-untyped, no-untyped-call"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from jsc_explore.training.backends.cpu.simd import FAST, INT, ROW, VECTOR, WIDTH


def sum_lanes(builder: Any, parts: list[Any]) -> list[Any]:
    """Return the horizontal sums of four, ``WIDTH`` or more vectors, in order; the additions are shared.

    Every shuffle stays within groups of four lanes or moves whole groups: these are the cheapest on wide machines.
    """
    four = range(0, WIDTH, 4)
    parts = _add_shuffled(builder, parts, [q + i for q in four for i in (0, WIDTH, 1, WIDTH + 1)], 2)
    parts = _add_shuffled(builder, parts, [q + i for q in four for i in (0, 1, WIDTH, WIDTH + 1)], 2)
    groups = WIDTH // 4
    while groups > 1 and len(parts) > 1:
        parts, groups = _add_shuffled(builder, parts, _even_group_lanes(), 4), groups // 2
    if groups == 1:
        return parts
    # Fewer sums than lanes: the partial sums are in several groups of four lanes.
    (whole,) = parts
    while (half := whole.type.count // 2) >= 4:
        low, high = (_shuffle(builder, whole, whole, list(range(first, first + half))) for first in (0, half))
        whole = builder.fadd(low, high, flags=FAST)
    return [whole]


def _add_shuffled(builder: Any, parts: list[Any], picks: list[int], step: int) -> list[Any]:
    """Add the lanes ``picks`` of each pair of vectors to those ``step`` lanes further."""
    return [
        builder.fadd(
            _shuffle(builder, a, b, picks), _shuffle(builder, a, b, [pick + step for pick in picks]), flags=FAST
        )
        for a, b in zip(parts[::2], parts[1::2], strict=True)
    ]


def _even_group_lanes() -> list[int]:
    """Return the lanes of every other group of four lanes of two vectors."""
    return [first + lane for first in range(0, 2 * WIDTH, 8) for lane in range(4)]


def _shuffle(builder: Any, a: Any, b: Any, picks: list[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(INT, len(picks)), picks))


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
            for column, value in enumerate(_transpose(builder, block)):
                place = builder.add(offset_, builder.mul(stride_, long(half + column)))
                builder.store(value, builder.bitcast(builder.gep(out, [place]), VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(source, rows, types.intp, target, types.intp, types.intp), build


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square of vectors: first blocks of four rows and four lanes, then the blocks."""
    four, blocks = range(0, WIDTH, 4), []
    for first in range(0, WIDTH, 4):
        low, high = (
            [
                _shuffle(
                    builder, rows[row], rows[row + 1], [q + i + lane for q in four for i in (0, WIDTH, 1, WIDTH + 1)]
                )
                for row in (first, first + 2)
            ]
            for lane in (0, 2)
        )
        blocks.append(
            [
                _shuffle(builder, pair[0], pair[1], [q + i + lane for q in four for i in (0, 1, WIDTH, WIDTH + 1)])
                for pair in (low, high)
                for lane in (0, 2)
            ]
        )
    columns = [_transpose_groups(builder, [block[column] for block in blocks]) for column in range(4)]
    return [columns[column % 4][column // 4] for column in range(WIDTH)]


def _transpose_groups(builder: Any, vectors: list[Any]) -> list[Any]:
    """Transpose a square of groups of four lanes."""
    if len(vectors) == 1:
        return vectors
    pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
    even = _transpose_groups(builder, [_shuffle(builder, a, b, _even_group_lanes()) for a, b in pairs])
    odd = _transpose_groups(builder, [_shuffle(builder, a, b, [i + 4 for i in _even_group_lanes()]) for a, b in pairs])
    return [group for pair in zip(even, odd, strict=True) for group in pair]

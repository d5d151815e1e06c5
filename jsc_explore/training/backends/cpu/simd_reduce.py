"""Several vectors at once, for Numba: sums of many vectors' lanes, and rows of jets turned into columns."""

# Numba's and llvmlite's own interfaces carry no types.
# mypy: disable-error-code="import-untyped, no-untyped-call"

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from jsc_explore.training.backends.cpu.simd import FAST, INT, ROW, VECTOR, WIDTH


def summed(builder: Any, parts: list[Any]) -> list[Any]:
    """Add up the lanes of four or ``WIDTH`` vectors or more, sharing the additions; the sums come in order.

    Every shuffle is one that stays within, or moves, groups of four lanes: wide machines have no cheaper ones.
    """
    four = range(0, WIDTH, 4)
    parts = _added(builder, parts, [q + i for q in four for i in (0, WIDTH, 1, WIDTH + 1)], 2)
    parts = _added(builder, parts, [q + i for q in four for i in (0, 1, WIDTH, WIDTH + 1)], 2)
    groups = WIDTH // 4
    while groups > 1 and len(parts) > 1:
        parts, groups = _added(builder, parts, _even_groups(), 4), groups // 2
    if groups == 1:
        return parts
    # Fewer sums than lanes: what is left of each lies in several groups of four.
    (whole,) = parts
    while (half := whole.type.count // 2) >= 4:
        low, high = (_shuffled(builder, whole, whole, list(range(first, first + half))) for first in (0, half))
        whole = builder.fadd(low, high, flags=FAST)
    return [whole]


def _added(builder: Any, parts: list[Any], picks: list[int], step: int) -> list[Any]:
    """Add what ``picks`` takes of each pair of vectors to what lies ``step`` lanes further."""
    return [
        builder.fadd(
            _shuffled(builder, a, b, picks), _shuffled(builder, a, b, [pick + step for pick in picks]), flags=FAST
        )
        for a, b in zip(parts[::2], parts[1::2], strict=True)
    ]


def _even_groups() -> list[int]:
    """Return the lanes of every other group of four of two vectors."""
    return [first + lane for first in range(0, 2 * WIDTH, 8) for lane in range(4)]


def _shuffled(builder: Any, a: Any, b: Any, picks: list[int]) -> Any:
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
            for column, value in enumerate(_transposed(builder, block)):
                place = builder.add(offset_, builder.mul(stride_, long(half + column)))
                builder.store(value, builder.bitcast(builder.gep(out, [place]), VECTOR.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(source, rows, types.intp, target, types.intp, types.intp), build


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose a square of vectors: first within groups of four rows and four lanes, then the groups."""
    four, blocks = range(0, WIDTH, 4), []
    for first in range(0, WIDTH, 4):
        low, high = (
            [
                _shuffled(
                    builder, rows[row], rows[row + 1], [q + i + lane for q in four for i in (0, WIDTH, 1, WIDTH + 1)]
                )
                for row in (first, first + 2)
            ]
            for lane in (0, 2)
        )
        blocks.append(
            [
                _shuffled(builder, pair[0], pair[1], [q + i + lane for q in four for i in (0, 1, WIDTH, WIDTH + 1)])
                for pair in (low, high)
                for lane in (0, 2)
            ]
        )
    columns = [_groups_transposed(builder, [block[column] for block in blocks]) for column in range(4)]
    return [columns[column % 4][column // 4] for column in range(WIDTH)]


def _groups_transposed(builder: Any, vectors: list[Any]) -> list[Any]:
    """Transpose a square of groups of four lanes."""
    if len(vectors) == 1:
        return vectors
    pairs = list(zip(vectors[::2], vectors[1::2], strict=True))
    even = _groups_transposed(builder, [_shuffled(builder, a, b, _even_groups()) for a, b in pairs])
    odd = _groups_transposed(builder, [_shuffled(builder, a, b, [i + 4 for i in _even_groups()]) for a, b in pairs])
    return [group for pair in zip(even, odd, strict=True) for group in pair]

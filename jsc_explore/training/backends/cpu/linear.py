"""The linear layer of the kernel: outputs, gradient of the inputs and gradient of the weights, as matrix products."""

# Numba infers types from the signature of the kernel; there are no annotations.
# mypy: ignore-errors

from __future__ import annotations

from jsc_explore.training.backends.cpu.jit import ZERO, inline
from jsc_explore.training.backends.cpu.simd import WIDTH, load, put, reduce_add, splat
from jsc_explore.training.backends.cpu.simd_matmul import TILE_VECTORS, make_dot_tile, make_matmul_tile

# Tiles by number of rows. The last layer of every network has five outputs, one per class, hence the tile of five.
_FOUR_WIDE, _FIVE_WIDE, _ONE_WIDE = (make_matmul_tile(rows, TILE_VECTORS) for rows in (4, 5, 1))
_EIGHT, _FIVE, _FOUR, _ONE = (make_matmul_tile(rows, 1) for rows in (8, 5, 4, 1))
_FOUR_BACK_WIDE, _ONE_BACK_WIDE = (make_matmul_tile(rows, TILE_VECTORS, back=True) for rows in (4, 1))
_EIGHT_BACK, _ONE_BACK = (make_matmul_tile(rows, 1, back=True) for rows in (8, 1))
_FOUR_BY_FOUR, _FIVE_BY_FOUR, _ONE_BY_FOUR = (make_dot_tile(rows, 4) for rows in (4, 5, 1))
_ONE_BY_ONE = make_dot_tile(1, 1)


@inline
def _tile_rows(remaining, limit):
    """Return the number of rows of the next tile."""
    if remaining == 5 or remaining < 4:
        return 5 if remaining == 5 else 1
    return 8 if limit == 8 and remaining >= 8 and remaining != 9 else 4


@inline
def linear_forward(a, at, inputs, outputs, x, y, stride, blocks, floor):
    """Write ``y[o] = max(floor, bias[o] + Σ_f weight[o, f] x[f])``."""
    bias, o, wide = at + inputs * outputs, 0, blocks // TILE_VECTORS * TILE_VECTORS * WIDTH
    while o < outputs:
        rows, w, to = _tile_rows(outputs - o, 4), at + o * inputs, y + o * stride
        for i in range(0, wide, TILE_VECTORS * WIDTH):
            if rows == 4:
                _FOUR_WIDE(a, w, inputs, 1, inputs, bias + o, x + i, to + i, stride, floor)
            elif rows == 5:
                _FIVE_WIDE(a, w, inputs, 1, inputs, bias + o, x + i, to + i, stride, floor)
            else:
                _ONE_WIDE(a, w, inputs, 1, inputs, bias + o, x + i, to + i, stride, floor)
        o += rows
    for i in range(wide, blocks * WIDTH, WIDTH):
        o = 0
        while o < outputs:
            rows, w, to = _tile_rows(outputs - o, 8), at + o * inputs, y + o * stride + i
            if rows == 8:
                _EIGHT(a, w, inputs, 1, inputs, bias + o, x + i, to, stride, floor)
            elif rows == 5:
                _FIVE(a, w, inputs, 1, inputs, bias + o, x + i, to, stride, floor)
            elif rows == 4:
                _FOUR(a, w, inputs, 1, inputs, bias + o, x + i, to, stride, floor)
            else:
                _ONE(a, w, inputs, 1, inputs, bias + o, x + i, to, stride, floor)
            o += rows


@inline
def linear_backward_input(a, at, inputs, outputs, x, d, stride, blocks, floor):
    """Replace ``x[f]`` by its gradient ``Σ_o weight[o, f] d[o]``, or by 0 where ``x[f]`` is at the floor of a ReLU."""
    f, wide = 0, blocks // TILE_VECTORS * TILE_VECTORS * WIDTH
    while f < inputs:
        rows, w, to = 4 if inputs - f >= 4 else 1, at + f, x + f * stride
        for i in range(0, wide, TILE_VECTORS * WIDTH):
            if rows == 4:
                _FOUR_BACK_WIDE(a, w, 1, inputs, outputs, 0, d + i, to + i, stride, floor)
            else:
                _ONE_BACK_WIDE(a, w, 1, inputs, outputs, 0, d + i, to + i, stride, floor)
        f += rows
    for i in range(wide, blocks * WIDTH, WIDTH):
        f = 0
        while f < inputs:
            rows, w, to = 8 if inputs - f >= 8 else 1, at + f, x + f * stride + i
            if rows == 8:
                _EIGHT_BACK(a, w, 1, inputs, outputs, 0, d + i, to, stride, floor)
            else:
                _ONE_BACK(a, w, 1, inputs, outputs, 0, d + i, to, stride, floor)
            f += rows


@inline
def linear_backward_weights(a, grad, inputs, outputs, x, d, stride, blocks, has_bias):
    """Write ``grad[o, f] = Σ_i d[o, i] x[f, i]`` and, if there is a bias, its gradient ``Σ_i d[o, i]``."""
    if has_bias:
        for o in range(outputs):
            s = splat(ZERO)
            for block in range(blocks):
                s = s + load(a, d + o * stride + block * WIDTH)
            put(a, grad + inputs * outputs + o, reduce_add(s))
    o = 0
    while o < outputs:
        rows, source, to = _tile_rows(outputs - o, 4), d + o * stride, grad + o * inputs
        for f in range(0, inputs - 3, 4):
            if rows == 4:
                _FOUR_BY_FOUR(a, source, x + f * stride, stride, blocks, to + f, inputs)
            elif rows == 5:
                _FIVE_BY_FOUR(a, source, x + f * stride, stride, blocks, to + f, inputs)
            else:
                _ONE_BY_FOUR(a, source, x + f * stride, stride, blocks, to + f, inputs)
        for f in range(inputs - inputs % 4, inputs):
            for row in range(rows):
                _ONE_BY_ONE(a, source + row * stride, x + f * stride, stride, blocks, to + row * inputs + f, inputs)
        o += rows

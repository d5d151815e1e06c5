"""The kernel's linear layer: outputs, gradient of the inputs, gradient of the weights, each a product of matrices."""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

from jsc_explore.training.backends.cpu.jit import ZERO, inline
from jsc_explore.training.backends.cpu.simd import WIDTH, fill, load, put, total
from jsc_explore.training.backends.cpu.simd_matmul import ACROSS, dotting, mixing

# The last layer has five outputs, one a class: a tile of their own, in every network.
_FOUR_WIDE, _FIVE_WIDE, _ONE_WIDE = mixing(4, ACROSS), mixing(5, ACROSS), mixing(1, ACROSS)
_EIGHT, _FIVE, _FOUR, _ONE = mixing(8, 1), mixing(5, 1), mixing(4, 1), mixing(1, 1)
_FOUR_BACK, _ONE_BACK = mixing(4, ACROSS, back=True), mixing(1, ACROSS, back=True)
_EIGHT_BACK_THIN, _ONE_BACK_THIN = mixing(8, 1, back=True), mixing(1, 1, back=True)
_FOUR_BY_FOUR, _FIVE_BY_FOUR, _FOUR_DOTS, _DOT = dotting(4, 4), dotting(5, 4), dotting(1, 4), dotting(1, 1)


@inline
def _rows_of_tile(left, most):
    """Return how many of the rows left the next tile takes."""
    if left == 5 or left < 4:
        return 5 if left == 5 else 1
    return 8 if most == 8 and left >= 8 and left != 9 else 4


@inline
def linear_forward(a, at, inputs, outputs, x, y, stride, blocks, floor):
    """Write ``y[o] = max(floor, bias[o] + Σ_f weight[o, f] x[f])``."""
    bias, o, wide = at + inputs * outputs, 0, blocks // ACROSS * ACROSS * WIDTH
    while o < outputs:
        take, w, to = _rows_of_tile(outputs - o, 4), at + o * inputs, y + o * stride
        for i in range(0, wide, ACROSS * WIDTH):
            if take == 4:
                _FOUR_WIDE(a, w, inputs, 1, inputs, bias + o, x + i, to + i, stride, floor)
            elif take == 5:
                _FIVE_WIDE(a, w, inputs, 1, inputs, bias + o, x + i, to + i, stride, floor)
            else:
                _ONE_WIDE(a, w, inputs, 1, inputs, bias + o, x + i, to + i, stride, floor)
        o += take
    for i in range(wide, blocks * WIDTH, WIDTH):
        o = 0
        while o < outputs:
            take, w, to = _rows_of_tile(outputs - o, 8), at + o * inputs, y + o * stride + i
            if take == 8:
                _EIGHT(a, w, inputs, 1, inputs, bias + o, x + i, to, stride, floor)
            elif take == 5:
                _FIVE(a, w, inputs, 1, inputs, bias + o, x + i, to, stride, floor)
            elif take == 4:
                _FOUR(a, w, inputs, 1, inputs, bias + o, x + i, to, stride, floor)
            else:
                _ONE(a, w, inputs, 1, inputs, bias + o, x + i, to, stride, floor)
            o += take


@inline
def linear_input(a, at, inputs, outputs, x, d, stride, blocks, floor):
    """Write ``Σ_o weight[o, f] d[o]`` in place of ``x[f]``, zero where a ReLU had cut that off at the floor."""
    f, wide = 0, blocks // ACROSS * ACROSS * WIDTH
    while f < inputs:
        take, w, to = 4 if inputs - f >= 4 else 1, at + f, x + f * stride
        for i in range(0, wide, ACROSS * WIDTH):
            if take == 4:
                _FOUR_BACK(a, w, 1, inputs, outputs, 0, d + i, to + i, stride, floor)
            else:
                _ONE_BACK(a, w, 1, inputs, outputs, 0, d + i, to + i, stride, floor)
        f += take
    for i in range(wide, blocks * WIDTH, WIDTH):
        f = 0
        while f < inputs:
            take, w, to = 8 if inputs - f >= 8 else 1, at + f, x + f * stride + i
            if take == 8:
                _EIGHT_BACK_THIN(a, w, 1, inputs, outputs, 0, d + i, to, stride, floor)
            else:
                _ONE_BACK_THIN(a, w, 1, inputs, outputs, 0, d + i, to, stride, floor)
            f += take


@inline
def linear_weights(a, grad, inputs, outputs, x, d, stride, blocks, has_bias):
    """Write ``grad[o, f] = Σ_i d[o, i] x[f, i]`` and, where it has one, the bias's ``Σ_i d[o, i]``."""
    if has_bias:
        for o in range(outputs):
            s = fill(ZERO)
            for block in range(blocks):
                s = s + load(a, d + o * stride + block * WIDTH)
            put(a, grad + inputs * outputs + o, total(s))
    o = 0
    while o < outputs:
        take, from_, to = _rows_of_tile(outputs - o, 4), d + o * stride, grad + o * inputs
        for f in range(0, inputs - 3, 4):
            if take == 4:
                _FOUR_BY_FOUR(a, from_, x + f * stride, stride, blocks, to + f, inputs)
            elif take == 5:
                _FIVE_BY_FOUR(a, from_, x + f * stride, stride, blocks, to + f, inputs)
            else:
                _FOUR_DOTS(a, from_, x + f * stride, stride, blocks, to + f, inputs)
        for f in range(inputs - inputs % 4, inputs):
            for row in range(take):
                _DOT(a, from_ + row * stride, x + f * stride, stride, blocks, to + row * inputs + f, inputs)
        o += take

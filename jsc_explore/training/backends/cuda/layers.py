"""The layers of the CUDA kernel: linear, batch norm, activations, dropout. One thread block works on one replica.

Activations ``a`` and gradients ``d`` are feature-major: feature ``f`` of jet ``j`` is at ``f * stride + j``. The inputs
and outputs of a layer start at ``x`` and ``y`` in ``a``, their gradients at ``dx`` and ``dy`` in ``d``.

Inner loops use ``while``: the GPU compiler does not recognize a ``range`` of Numba as a counted loop, and would compute
the address of every access by a multiplication.
"""

# Numba infers types from the signature of the kernel; there are no annotations.
# mypy: ignore-errors

from __future__ import annotations

import math

import numpy as np

from jsc_explore.training.backends.cpu.layer_table import LEAKY, RELU, SILU, TANH
from jsc_explore.training.backends.cuda.jit import (
    HALF,
    ONE,
    TILE,
    ZERO,
    device,
    item,
    minimum,
    padded,
    put,
    relu_if,
    sum_parts,
    sync,
    threads_per_sum,
)

# Defaults of torch.
NORM_EPS, NORM_MOMENTUM, LEAK = np.float32(1e-5), np.float32(0.1), np.float32(0.01)
_SQRT_HALF, _INV_SQRT_2PI = np.float32(0.7071067811865476), np.float32(0.3989422804014327)


@device
def linear_forward(w, at, inputs, outputs, a, x, y, stride, count, relu, ids):
    """Apply the weights ``(outputs, inputs)`` at offset ``at`` and the biases behind them."""
    _, _, lane, span, group, groups = ids
    bias, last = at + inputs * outputs, outputs - 1
    if outputs < TILE * groups:
        for o in range(group, outputs, groups):
            row, j = at + o * inputs, lane
            while j < count:
                s, u, i = item(w, bias + o), x + j, 0
                while i < inputs:
                    s += item(a, u) * item(w, row + i)
                    u += stride
                    i += 1
                put(a, y + o * stride + j, relu_if(s, relu))
                j += span
    else:
        for o in range(group * TILE, outputs, groups * TILE):
            # Beyond the last output, the last one is computed and written again.
            o1, o2, o3 = minimum(o + 1, last), minimum(o + 2, last), minimum(o + 3, last)
            r0, r1, r2, r3 = at + o * inputs, at + o1 * inputs, at + o2 * inputs, at + o3 * inputs
            j = lane
            while j < count:
                s0, s1, s2, s3 = item(w, bias + o), item(w, bias + o1), item(w, bias + o2), item(w, bias + o3)
                i, at_u = 0, x + j
                while i < inputs:
                    u = item(a, at_u)
                    s0 += u * item(w, r0 + i)
                    s1 += u * item(w, r1 + i)
                    s2 += u * item(w, r2 + i)
                    s3 += u * item(w, r3 + i)
                    at_u += stride
                    i += 1
                put(a, y + o * stride + j, relu_if(s0, relu))
                put(a, y + o1 * stride + j, relu_if(s1, relu))
                put(a, y + o2 * stride + j, relu_if(s2, relu))
                put(a, y + o3 * stride + j, relu_if(s3, relu))
                j += span
    sync()


@device
def relu_backward(a, y, d, dy, width, stride, count, ids):
    """Set the gradient to zero where a ReLU set the output to zero."""
    _, _, lane, span, group, groups = ids
    for o in range(group, width, groups):
        j, end = o * stride + lane, o * stride + count
        while j < end:
            if not item(a, y + j) > ZERO:
                put(d, dy + j, ZERO)
            j += span
    sync()


@device
def linear_backward_weights(g, at, inputs, outputs, a, x, d, dy, scratch, stride, count, has_bias, ids):
    """Write the gradient of weights and biases; the caller must ``sync``."""
    thread, size = ids[0], ids[1]
    sums = inputs * outputs
    if sums < TILE * size:
        # The bias is the weight of an input that is always 1.
        columns = inputs + 1 if has_bias else inputs
        terms = outputs * columns
        parts = threads_per_sum(terms, size)
        for k in range(thread, terms * parts, size):
            o, i, s = k % terms // columns, k % columns, ZERO
            row, column, j = dy + o * stride, x + i * stride, k // terms
            if i == inputs:
                while j < count:
                    s += item(d, row + j)
                    j += parts
            else:
                while j < count:
                    s += item(d, row + j) * item(a, column + j)
                    j += parts
            if parts > 1:
                put(scratch, k, s)
            else:
                put(g, _weight_index(at, o, i, inputs, sums), s)
        if parts > 1:
            sync()
            for k in range(thread, terms, size):
                index = _weight_index(at, k // columns, k % columns, inputs, sums)
                put(g, index, sum_parts(scratch, k, terms, parts))
    else:
        _weights_in_tiles(g, at, inputs, outputs, a, x, d, dy, stride, count, thread, size)
        if has_bias:
            for o in range(thread, outputs, size):
                s, row, j = ZERO, dy + o * stride, 0
                while j < count:
                    s += item(d, row + j)
                    j += 1
                put(g, at + sums + o, s)


@device
def _weight_index(at, o, i, inputs, sums):
    return at + (sums + o if i == inputs else o * inputs + i)


@device
def _weights_in_tiles(g, at, inputs, outputs, a, x, d, dy, stride, count, thread, size):
    """Write the gradient of more weights than there are threads; a thread computes four outputs at a time."""
    last = outputs - 1
    for k in range(thread, (outputs + TILE - 1) // TILE * inputs, size):
        i, o = k % inputs, k // inputs * TILE
        o1, o2, o3 = minimum(o + 1, last), minimum(o + 2, last), minimum(o + 3, last)
        r0, r1, r2, r3 = dy + o * stride, dy + o1 * stride, dy + o2 * stride, dy + o3 * stride
        s0, s1, s2, s3, column, j = ZERO, ZERO, ZERO, ZERO, x + i * stride, 0
        while j < count:
            u = item(a, column + j)
            s0 += u * item(d, r0 + j)
            s1 += u * item(d, r1 + j)
            s2 += u * item(d, r2 + j)
            s3 += u * item(d, r3 + j)
            j += 1
        put(g, at + o * inputs + i, s0)
        put(g, at + o1 * inputs + i, s1)
        put(g, at + o2 * inputs + i, s2)
        put(g, at + o3 * inputs + i, s3)


@device
def linear_backward_input(w, at, inputs, outputs, d, dy, dx, stride, count, ids):
    """Write the gradient of the inputs; the caller must ``sync``."""
    _, _, lane, span, group, groups = ids
    last = inputs - 1
    for i in range(group * TILE, inputs, groups * TILE):
        i1, i2, i3 = minimum(i + 1, last), minimum(i + 2, last), minimum(i + 3, last)
        j = lane
        while j < count:
            s0, s1, s2, s3, o, at_u, row = ZERO, ZERO, ZERO, ZERO, 0, dy + j, at
            while o < outputs:
                u = item(d, at_u)
                s0 += u * item(w, row + i)
                s1 += u * item(w, row + i1)
                s2 += u * item(w, row + i2)
                s3 += u * item(w, row + i3)
                at_u += stride
                row += inputs
                o += 1
            put(d, dx + i * stride + j, s0)
            put(d, dx + i1 * stride + j, s1)
            put(d, dx + i2 * stride + j, s2)
            put(d, dx + i3 * stride + j, s3)
            j += span


@device
def norm_statistics(saved, s, width, running, r, scratch, a, x, stride, count, ids):
    """Write mean and 1/std of the batch, and update the running statistics."""
    thread, size = ids[0], ids[1]
    step, jets, parts = padded(width), np.float32(count), threads_per_sum(width, size)
    for k in range(thread, width * parts, size):
        total, row, j = ZERO, x + k % width * stride, k // width
        while j < count:
            total += item(a, row + j)
            j += parts
        put(scratch, k, total)
    sync()
    for f in range(thread, width, size):
        put(saved, s + f, sum_parts(scratch, f, width, parts) / jets)
    sync()
    for k in range(thread, width * parts, size):
        total, row, mean, j = ZERO, x + k % width * stride, item(saved, s + k % width), k // width
        while j < count:
            u = item(a, row + j) - mean
            total += u * u
            j += parts
        put(scratch, k, total)
    sync()
    unbias = jets / np.float32(count - 1 if count > 1 else 1)
    for f in range(thread, width, size):
        variance = sum_parts(scratch, f, width, parts) / jets
        put(saved, s + step + f, ONE / math.sqrt(variance + NORM_EPS))
        old = item(running, r + f)
        put(running, r + f, old + NORM_MOMENTUM * (item(saved, s + f) - old))
        old = item(running, r + step + f)
        put(running, r + step + f, old + NORM_MOMENTUM * (variance * unbias - old))
    if thread == 0:
        # num_batches_tracked of torch.
        put(running, r + 2 * step, item(running, r + 2 * step) + ONE)


@device
def norm_forward(w, at, width, running, r, saved, s, scratch, a, x, y, stride, count, training, relu, ids):
    """Normalize with the mean and variance of the batch in training, with the running ones in evaluation.

    ``saved`` keeps mean, 1/std, scale and shift (output = scale · input + shift) for the backward pass.
    """
    thread, size, lane, span, group, groups = ids
    step = padded(width)
    if training:
        norm_statistics(saved, s, width, running, r, scratch, a, x, stride, count, ids)
    else:
        for f in range(thread, width, size):
            put(saved, s + f, item(running, r + f))
            put(saved, s + step + f, ONE / math.sqrt(item(running, r + step + f) + NORM_EPS))
    # No sync: each thread reads only those values of ``saved`` that it wrote itself.
    for f in range(thread, width, size):
        scale = item(w, at + f) * item(saved, s + step + f)
        put(saved, s + 2 * step + f, scale)
        put(saved, s + 3 * step + f, item(w, at + step + f) - item(saved, s + f) * scale)
    sync()
    for f in range(group, width, groups):
        scale, shift = item(saved, s + 2 * step + f), item(saved, s + 3 * step + f)
        j, end = f * stride + lane, f * stride + count
        while j < end:
            put(a, y + j, relu_if(item(a, x + j) * scale + shift, relu))
            j += span
    sync()


@device
def norm_backward(w, g, at, width, saved, s, scratch, a, x, y, d, dy, dx, stride, count, relu, needs_input, ids):
    """Write the gradients of weight and bias and, if ``needs_input``, of the inputs."""
    thread, size, lane, span, group, groups = ids
    step, inv_count, parts = padded(width), ONE / np.float32(count), threads_per_sum(width, size)
    terms = width * parts
    for k in range(thread, terms, size):
        f = k % width
        mean, weight_sum, bias_sum = item(saved, s + f), ZERO, ZERO
        j, end = f * stride + k // width, f * stride + count
        while j < end:
            u = item(d, dy + j)
            if relu and not item(a, y + j) > ZERO:
                u = ZERO
                put(d, dy + j, u)
            weight_sum += u * (item(a, x + j) - mean)
            bias_sum += u
            j += parts
        put(scratch, k, weight_sum)
        put(scratch, terms + k, bias_sum)
    sync()
    # dx = weight / std · (d - mean(d) - x̂ · mean(d · x̂)), x̂ = (x - mean) / std; it is scale d + slope x + shift.
    for f in range(thread, width, size):
        inv_std = item(saved, s + step + f)
        d_weight, d_bias = sum_parts(scratch, f, width, parts) * inv_std, sum_parts(scratch, terms + f, width, parts)
        put(g, at + f, d_weight)
        put(g, at + step + f, d_bias)
        scale = item(w, at + f) * inv_std
        slope = scale * inv_count * d_weight * inv_std
        put(saved, s + 2 * step + f, -slope)
        put(saved, s + 3 * step + f, item(saved, s + f) * slope - scale * inv_count * d_bias)
        put(saved, s + 4 * step + f, scale)
    sync()
    if needs_input:
        for f in range(group, width, groups):
            slope, shift = item(saved, s + 2 * step + f), item(saved, s + 3 * step + f)
            scale = item(saved, s + 4 * step + f)
            j, end = f * stride + lane, f * stride + count
            while j < end:
                put(d, dx + j, item(d, dy + j) * scale + (item(a, x + j) * slope + shift))
                j += span
        sync()


@device
def activate(kind, a, x, y, width, stride, count, ids):
    """Apply an activation."""
    _, _, lane, span, group, groups = ids
    for f in range(group, width, groups):
        j, end = f * stride + lane, f * stride + count
        while j < end:
            u = item(a, x + j)
            if kind == RELU:
                v = relu_if(u, True)
            elif kind == LEAKY:
                v = u * LEAK if u < ZERO else u
            elif kind == TANH:
                v = math.tanh(u)
            elif kind == SILU:
                v = u / (ONE + math.exp(-u))
            else:
                # erfc keeps its relative precision in the tails; 1 + erf does not.
                v = u * HALF * math.erfc(-u * _SQRT_HALF)
            put(a, y + j, v)
            j += span
    sync()


@device
def activate_backward(kind, a, x, y, d, dy, dx, width, stride, count, ids):
    """Write the gradient of the inputs of an activation."""
    _, _, lane, span, group, groups = ids
    for f in range(group, width, groups):
        j, end = f * stride + lane, f * stride + count
        while j < end:
            u, slope = item(a, x + j), ONE
            if kind == RELU:
                slope = ONE if item(a, y + j) > ZERO else ZERO
            elif kind == LEAKY:
                slope = ONE if u > ZERO else LEAK
            elif kind == TANH:
                v = item(a, y + j)
                slope = ONE - v * v
            elif kind == SILU:
                s = ONE / (ONE + math.exp(-u))
                slope = s * (ONE + u * (ONE - s))
            else:
                slope = HALF * math.erfc(-u * _SQRT_HALF) + u * _INV_SQRT_2PI * math.exp(-HALF * u * u)
            put(d, dx + j, item(d, dy + j) * slope)
            j += span
    sync()


@device
def dropout(masks, at, a, x, y, width, stride, count, ids):
    """Multiply by the dropout mask ``(count, width)`` at offset ``at``."""
    _, _, lane, span, group, groups = ids
    for f in range(group, width, groups):
        j, factor = lane, at + lane * width + f
        while j < count:
            put(a, y + f * stride + j, item(a, x + f * stride + j) * item(masks, factor))
            j += span
            factor += span * width
    sync()

"""The GPU kernel's layers: linear, batch norm, activations, dropout. One thread block works on one replica.

Activations ``a`` and gradients ``d`` lie feature-major: feature ``f`` of jet ``j`` at ``f * stride + j``. A layer's
inputs and outputs begin at ``x`` and ``y`` in ``a``, their gradients at ``dx`` and ``dy`` in ``d``.

Loops are written with ``while`` where they matter: of Numba's ``range`` the GPU's compiler does not see that it counts,
and multiplies anew for each access.
"""

# What Numba compiles is typed by the kernel's signature, not by annotations.
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
    clip,
    device,
    folded,
    item,
    lesser,
    padded,
    parts_of,
    put,
    sync,
)

# torch's defaults.
NORM_EPS, NORM_MOMENTUM, LEAK = np.float32(1e-5), np.float32(0.1), np.float32(0.01)
_ROOT_HALF, _GAUSS_PEAK = np.float32(0.7071067811865476), np.float32(0.3989422804014327)


@device
def linear_forward(w, at, inputs, outputs, a, x, y, stride, count, relu, who):
    """Multiply by weights ``(outputs, inputs)`` from ``at``, behind which the biases lie."""
    _, _, lane, span, group, groups = who
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
                put(a, y + o * stride + j, clip(s, relu))
                j += span
    else:
        for o in range(group * TILE, outputs, groups * TILE):
            # Beyond the last output it is taken again, and written again, the same.
            o1, o2, o3 = lesser(o + 1, last), lesser(o + 2, last), lesser(o + 3, last)
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
                put(a, y + o * stride + j, clip(s0, relu))
                put(a, y + o1 * stride + j, clip(s1, relu))
                put(a, y + o2 * stride + j, clip(s2, relu))
                put(a, y + o3 * stride + j, clip(s3, relu))
                j += span
    sync()


@device
def masked(a, y, d, dy, width, stride, count, who):
    """Make zero the gradients of outputs that a ReLU made zero."""
    _, _, lane, span, group, groups = who
    for o in range(group, width, groups):
        j, end = o * stride + lane, o * stride + count
        while j < end:
            if not item(a, y + j) > ZERO:
                put(d, dy + j, ZERO)
            j += span
    sync()


@device
def linear_weights(g, at, inputs, outputs, a, x, d, dy, scratch, stride, count, has_bias, who):
    """Write the gradient of weights and biases; the caller waits for the other threads."""
    thread, size = who[0], who[1]
    sums = inputs * outputs
    if sums < TILE * size:
        # The bias is the weight of an input that is always one.
        columns = inputs + 1 if has_bias else inputs
        terms = outputs * columns
        parts = parts_of(terms, size)
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
                put(g, _weight(at, o, i, inputs, sums), s)
        if parts > 1:
            sync()
            for k in range(thread, terms, size):
                place = _weight(at, k // columns, k % columns, inputs, sums)
                put(g, place, folded(scratch, k, terms, parts))
    else:
        _many_weights(g, at, inputs, outputs, a, x, d, dy, stride, count, thread, size)
        if has_bias:
            for o in range(thread, outputs, size):
                s, row, j = ZERO, dy + o * stride, 0
                while j < count:
                    s += item(d, row + j)
                    j += 1
                put(g, at + sums + o, s)


@device
def _weight(at, o, i, inputs, sums):
    return at + (sums + o if i == inputs else o * inputs + i)


@device
def _many_weights(g, at, inputs, outputs, a, x, d, dy, stride, count, thread, size):
    """Write the gradient of more weights than there are threads, four outputs a thread at a time."""
    last = outputs - 1
    for k in range(thread, (outputs + TILE - 1) // TILE * inputs, size):
        i, o = k % inputs, k // inputs * TILE
        o1, o2, o3 = lesser(o + 1, last), lesser(o + 2, last), lesser(o + 3, last)
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
def linear_input(w, at, inputs, outputs, d, dy, dx, stride, count, who):
    """Write the gradient of the inputs; the caller waits for the other threads."""
    _, _, lane, span, group, groups = who
    last = inputs - 1
    for i in range(group * TILE, inputs, groups * TILE):
        i1, i2, i3 = lesser(i + 1, last), lesser(i + 2, last), lesser(i + 3, last)
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
def norm_statistics(saved, s, width, running, r, scratch, a, x, stride, count, who):
    """Write the batch's mean and 1/deviation; the running ones move by a tenth."""
    thread, size = who[0], who[1]
    wide, jets, parts = padded(width), np.float32(count), parts_of(width, size)
    for k in range(thread, width * parts, size):
        total, row, j = ZERO, x + k % width * stride, k // width
        while j < count:
            total += item(a, row + j)
            j += parts
        put(scratch, k, total)
    sync()
    for f in range(thread, width, size):
        put(saved, s + f, folded(scratch, f, width, parts) / jets)
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
        variance = folded(scratch, f, width, parts) / jets
        put(saved, s + wide + f, ONE / math.sqrt(variance + NORM_EPS))
        old = item(running, r + f)
        put(running, r + f, old + NORM_MOMENTUM * (item(saved, s + f) - old))
        old = item(running, r + wide + f)
        put(running, r + wide + f, old + NORM_MOMENTUM * (variance * unbias - old))
    if thread == 0:
        # torch's num_batches_tracked.
        put(running, r + 2 * wide, item(running, r + 2 * wide) + ONE)


@device
def norm_forward(w, at, width, running, r, saved, s, scratch, a, x, y, stride, count, training, relu, who):
    """Batch norm: with the batch's own mean and variance in training, with the running ones otherwise.

    ``saved`` keeps mean, 1/deviation, slope and shift for the way back.
    """
    thread, size, lane, span, group, groups = who
    wide = padded(width)
    if training:
        norm_statistics(saved, s, width, running, r, scratch, a, x, stride, count, who)
    else:
        for f in range(thread, width, size):
            put(saved, s + f, item(running, r + f))
            put(saved, s + wide + f, ONE / math.sqrt(item(running, r + wide + f) + NORM_EPS))
    # Each of these is read by the thread that wrote what it needs.
    for f in range(thread, width, size):
        rise = item(w, at + f) * item(saved, s + wide + f)
        put(saved, s + 2 * wide + f, rise)
        put(saved, s + 3 * wide + f, item(w, at + wide + f) - item(saved, s + f) * rise)
    sync()
    for f in range(group, width, groups):
        rise, level = item(saved, s + 2 * wide + f), item(saved, s + 3 * wide + f)
        j, end = f * stride + lane, f * stride + count
        while j < end:
            put(a, y + j, clip(item(a, x + j) * rise + level, relu))
            j += span
    sync()


@device
def norm_backward(w, g, at, width, saved, s, scratch, a, x, y, d, dy, dx, stride, count, relu, deep, who):
    """Write the gradients of scale and shift and, below other weights, of the inputs."""
    thread, size, lane, span, group, groups = who
    wide, share, parts = padded(width), ONE / np.float32(count), parts_of(width, size)
    terms = width * parts
    for k in range(thread, terms, size):
        f = k % width
        mean, lean, lift = item(saved, s + f), ZERO, ZERO
        j, end = f * stride + k // width, f * stride + count
        while j < end:
            u = item(d, dy + j)
            if relu and not item(a, y + j) > ZERO:
                u = ZERO
                put(d, dy + j, u)
            lean += u * (item(a, x + j) - mean)
            lift += u
            j += parts
        put(scratch, k, lean)
        put(scratch, terms + k, lift)
    sync()
    # dx = scale (d - mean(d) - normalised x · mean(d · normalised x)), sorted by what varies over the batch.
    for f in range(thread, width, size):
        narrow = item(saved, s + wide + f)
        slope, shift = folded(scratch, f, width, parts) * narrow, folded(scratch, terms + f, width, parts)
        put(g, at + f, slope)
        put(g, at + wide + f, shift)
        scale = item(w, at + f) * narrow
        lean = scale * share * slope * narrow
        put(saved, s + 2 * wide + f, -lean)
        put(saved, s + 3 * wide + f, item(saved, s + f) * lean - scale * share * shift)
        put(saved, s + 4 * wide + f, scale)
    sync()
    if deep:
        for f in range(group, width, groups):
            lean, level = item(saved, s + 2 * wide + f), item(saved, s + 3 * wide + f)
            scale = item(saved, s + 4 * wide + f)
            j, end = f * stride + lane, f * stride + count
            while j < end:
                put(d, dx + j, item(d, dy + j) * scale + (item(a, x + j) * lean + level))
                j += span
        sync()


@device
def activate(kind, a, x, y, width, stride, count, who):
    """Apply an activation."""
    _, _, lane, span, group, groups = who
    for f in range(group, width, groups):
        j, end = f * stride + lane, f * stride + count
        while j < end:
            u = item(a, x + j)
            if kind == RELU:
                v = clip(u, True)
            elif kind == LEAKY:
                v = u * LEAK if u < ZERO else u
            elif kind == TANH:
                v = math.tanh(u)
            elif kind == SILU:
                v = u / (ONE + math.exp(-u))
            else:
                # The complementary error function is right, relatively, also far out, where 1 + erf is not.
                v = u * HALF * math.erfc(-u * _ROOT_HALF)
            put(a, y + j, v)
            j += span
    sync()


@device
def activate_backward(kind, a, x, y, d, dy, dx, width, stride, count, who):
    """Write the gradient of an activation's inputs from that of its outputs."""
    _, _, lane, span, group, groups = who
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
                slope = HALF * math.erfc(-u * _ROOT_HALF) + u * _GAUSS_PEAK * math.exp(-HALF * u * u)
            put(d, dx + j, item(d, dy + j) * slope)
            j += span
    sync()


@device
def drop(factors, at, a, x, y, width, stride, count, who):
    """Multiply by the factors of dropout, ``(count, width)`` from ``at``."""
    _, _, lane, span, group, groups = who
    for f in range(group, width, groups):
        j, factor = lane, at + lane * width + f
        while j < count:
            put(a, y + f * stride + j, item(a, x + f * stride + j) * item(factors, factor))
            j += span
            factor += span * width
    sync()

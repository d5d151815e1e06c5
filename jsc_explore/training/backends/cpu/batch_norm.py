"""The kernel's batch norm, four features at a time."""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from jsc_explore.training.backends.cpu.jit import ONE, ZERO, clip, gated, inline, padded_width
from jsc_explore.training.backends.cpu.simd import (
    WIDTH,
    fill,
    fused,
    item,
    lanes,
    load,
    put,
    root,
    select,
    splat,
    store,
)
from jsc_explore.training.backends.cpu.simd_matmul import lane_sums

# torch.nn.BatchNorm1d's defaults.
NORM_EPS, NORM_MOMENTUM = np.float32(1e-5), np.float32(0.1)


@inline
def _keep(a, to, s0, s1, s2, s3):
    """Write whole vectors, whose lanes are added up later: parts of a vector, read together soon, cost a wait."""
    store(a, to, s0)
    store(a, to + WIDTH, s1)
    store(a, to + 2 * WIDTH, s2)
    store(a, to + 3 * WIDTH, s3)


@inline
def norm_forward(a, at, width, running, saved, sums, x, y, stride, blocks, count, tail, training, floor):
    """Batch norm: with the batch's own mean and variance in training, with the running ones otherwise.

    ``saved`` keeps mean, 1/deviation, slope and shift for the way back; running statistics move by a tenth.
    """
    size, one, last = padded_width(width), fill(ONE), (blocks - 1) * WIDTH
    share, unbias = fill(ONE / np.float32(count)), fill(np.float32(count) / np.float32(max(count - 1, 1)))
    mean, inverse, slope, shift = saved, saved + size, saved + 2 * size, saved + 3 * size
    if training:
        _moments(a, width, x, stride, last, tail, sums, sums + size * WIDTH, mean)
        tenth = fill(NORM_MOMENTUM)
        for f in range(0, size, WIDTH):
            offset = lane_sums(a, sums + f * WIDTH) * share
            variance = lane_sums(a, sums + (size + f) * WIDTH) * share - offset * offset
            centre = load(a, mean + f) + offset
            store(a, mean + f, centre)
            store(a, inverse + f, one / root(variance + fill(NORM_EPS)))
            old = load(a, running + f)
            store(a, running + f, fused(tenth, centre - old, old))
            old = load(a, running + size + f)
            store(a, running + size + f, fused(tenth, variance * unbias - old, old))
        # torch's num_batches_tracked.
        put(a, running + 2 * size, item(a, running + 2 * size) + ONE)
    else:
        for f in range(0, size, WIDTH):
            store(a, mean + f, load(a, running + f))
            store(a, inverse + f, one / root(load(a, running + size + f) + fill(NORM_EPS)))
    for f in range(0, size, WIDTH):
        rise = load(a, at + f) * load(a, inverse + f)
        store(a, slope + f, rise)
        store(a, shift + f, load(a, at + size + f) - load(a, mean + f) * rise)
    for f in range(width):
        rise, level, x0, y0 = splat(a, slope + f), splat(a, shift + f), x + f * stride, y + f * stride
        for i in range(0, blocks * WIDTH, WIDTH):
            store(a, y0 + i, clip(fused(load(a, x0 + i), rise, level), floor))


@inline
def _moments(a, width, x, stride, last, tail, sums, squares, first):
    """Add up each feature's distances from its value in the batch's first jet, kept in ``first``, and their squares.

    Taken from a value of its own, a feature's mean and variance come of one pass without cancelling out (Chan, Golub,
    LeVeque, Algorithms for computing the sample variance, 1983).
    """
    for f in range(0, width, 4):
        # Beyond the last feature it is taken again, and its sum lands in the padding.
        x0, x1 = x + f * stride, x + min(f + 1, width - 1) * stride
        x2, x3 = x + min(f + 2, width - 1) * stride, x + min(f + 3, width - 1) * stride
        m0, m1, m2, m3 = splat(a, x0), splat(a, x1), splat(a, x2), splat(a, x3)
        s0, s1 = (load(a, x0 + last) - m0) * tail, (load(a, x1 + last) - m1) * tail
        s2, s3 = (load(a, x2 + last) - m2) * tail, (load(a, x3 + last) - m3) * tail
        t0, t1, t2, t3 = s0 * s0, s1 * s1, s2 * s2, s3 * s3
        for i in range(0, last, WIDTH):
            u0, u1 = load(a, x0 + i) - m0, load(a, x1 + i) - m1
            u2, u3 = load(a, x2 + i) - m2, load(a, x3 + i) - m3
            s0, s1, s2, s3 = s0 + u0, s1 + u1, s2 + u2, s3 + u3
            t0, t1, t2, t3 = fused(u0, u0, t0), fused(u1, u1, t1), fused(u2, u2, t2), fused(u3, u3, t3)
        _keep(a, sums + f * WIDTH, s0, s1, s2, s3)
        _keep(a, squares + f * WIDTH, t0, t1, t2, t3)
        put(a, first + f, item(a, x0))
        put(a, first + f + 1, item(a, x1))
        put(a, first + f + 2, item(a, x2))
        put(a, first + f + 3, item(a, x3))


@inline
def norm_backward(a, at, grad, width, saved, sums, x, d, stride, blocks, count, tail, floor, deep):
    """Write the gradients of scale and shift and, below other weights, of the inputs, in their place."""
    size, zero, share = padded_width(width), fill(ZERO), fill(ONE / np.float32(count))
    mean, inverse, tilt, lift, factor = saved, saved + size, saved + 2 * size, saved + 3 * size, saved + 4 * size
    more = sums + size * WIDTH
    for f in range(0, width, 4):
        f1, f2, f3 = min(f + 1, width - 1) * stride, min(f + 2, width - 1) * stride, min(f + 3, width - 1) * stride
        f0, s0, s1, s2, s3, t0, t1, t2, t3 = f * stride, zero, zero, zero, zero, zero, zero, zero, zero
        m0, m1, m2, m3 = splat(a, mean + f), splat(a, mean + f + 1), splat(a, mean + f + 2), splat(a, mean + f + 3)
        for i in range(0, blocks * WIDTH, WIDTH):
            u, v = load(a, d + f0 + i), load(a, d + f1 + i)
            s0, s1 = fused(u, load(a, x + f0 + i) - m0, s0), fused(v, load(a, x + f1 + i) - m1, s1)
            t0, t1 = t0 + u, t1 + v
            u, v = load(a, d + f2 + i), load(a, d + f3 + i)
            s2, s3 = fused(u, load(a, x + f2 + i) - m2, s2), fused(v, load(a, x + f3 + i) - m3, s3)
            t2, t3 = t2 + u, t3 + v
        _keep(a, sums + f * WIDTH, s0, s1, s2, s3)
        _keep(a, more + f * WIDTH, t0, t1, t2, t3)
    # dx = scale (d - mean(d) - normalised x · mean(d · normalised x)), sorted by what varies over the batch.
    for f in range(0, size, WIDTH):
        real = fill(np.float32(width - f)) > lanes()
        narrow = load(a, inverse + f)
        slope, shift = lane_sums(a, sums + f * WIDTH) * narrow, lane_sums(a, more + f * WIDTH)
        store(a, grad + f, select(real, slope, zero))
        store(a, grad + size + f, select(real, shift, zero))
        scale = load(a, at + f) * narrow
        lean = scale * share * slope * narrow
        store(a, factor + f, scale)
        store(a, tilt + f, zero - lean)
        store(a, lift + f, load(a, mean + f) * lean - scale * share * shift)
    if deep:
        last = (blocks - 1) * WIDTH
        for f in range(width):
            scale, lean, level = splat(a, factor + f), splat(a, tilt + f), splat(a, lift + f)
            x0, d0 = x + f * stride, d + f * stride
            for i in range(0, blocks * WIDTH, WIDTH):
                u = load(a, x0 + i)
                store(a, x0 + i, gated(u, floor, fused(load(a, d0 + i), scale, fused(u, lean, level))))
            # What pads the last vector belongs to no jet and must not reach the sums of the layers below.
            store(a, x0 + last, load(a, x0 + last) * tail)

"""The batch norm of the kernel, four features at a time."""

# Numba infers types from the signature of the kernel; there are no annotations.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from jsc_explore.training.backends.cpu.jit import ONE, ZERO, inline, maximum, padded_size, relu_gradient
from jsc_explore.training.backends.cpu.simd import (
    WIDTH,
    fma,
    item,
    lane_indices,
    load,
    load_splat,
    put,
    select,
    splat,
    sqrt,
    store,
)
from jsc_explore.training.backends.cpu.simd_matmul import lane_sums

# torch.nn.BatchNorm1d's defaults.
NORM_EPS, NORM_MOMENTUM = np.float32(1e-5), np.float32(0.1)


@inline
def _store_four(a, to, s0, s1, s2, s3):
    """Store four vectors, whose lanes are added later: reading a vector soon after storing parts of it would stall."""
    store(a, to, s0)
    store(a, to + WIDTH, s1)
    store(a, to + 2 * WIDTH, s2)
    store(a, to + 3 * WIDTH, s3)


@inline
def norm_forward(a, at, width, running, saved, sums, x, y, stride, blocks, count, tail, training, floor):
    """Normalize with the mean and variance of the batch in training, with the running ones in evaluation.

    ``saved`` keeps mean, 1/std, scale and shift (output = scale · input + shift) for the backward pass.
    """
    size, one, last = padded_size(width), splat(ONE), (blocks - 1) * WIDTH
    inv_count, unbias = splat(ONE / np.float32(count)), splat(np.float32(count) / np.float32(max(count - 1, 1)))
    mean, inv_std, scale, shift = saved, saved + size, saved + 2 * size, saved + 3 * size
    if training:
        _moments(a, width, x, stride, last, tail, sums, sums + size * WIDTH, mean)
        momentum = splat(NORM_MOMENTUM)
        for f in range(0, size, WIDTH):
            delta = lane_sums(a, sums + f * WIDTH) * inv_count
            variance = lane_sums(a, sums + (size + f) * WIDTH) * inv_count - delta * delta
            batch_mean = load(a, mean + f) + delta
            store(a, mean + f, batch_mean)
            store(a, inv_std + f, one / sqrt(variance + splat(NORM_EPS)))
            old = load(a, running + f)
            store(a, running + f, fma(momentum, batch_mean - old, old))
            old = load(a, running + size + f)
            store(a, running + size + f, fma(momentum, variance * unbias - old, old))
        # num_batches_tracked of torch.
        put(a, running + 2 * size, item(a, running + 2 * size) + ONE)
    else:
        for f in range(0, size, WIDTH):
            store(a, mean + f, load(a, running + f))
            store(a, inv_std + f, one / sqrt(load(a, running + size + f) + splat(NORM_EPS)))
    for f in range(0, size, WIDTH):
        factor = load(a, at + f) * load(a, inv_std + f)
        store(a, scale + f, factor)
        store(a, shift + f, load(a, at + size + f) - load(a, mean + f) * factor)
    for f in range(width):
        c1, c0, x0, y0 = load_splat(a, scale + f), load_splat(a, shift + f), x + f * stride, y + f * stride
        for i in range(0, blocks * WIDTH, WIDTH):
            store(a, y0 + i, maximum(fma(load(a, x0 + i), c1, c0), floor))


@inline
def _moments(a, width, x, stride, last, tail, sums, squares, first):
    """Sum the differences of each feature from its value in the first jet, stored in ``first``, and their squares.

    With the data shifted by one of its values, mean and variance need a single pass without cancellation (Chan, Golub,
    LeVeque, Algorithms for computing the sample variance, 1983).
    """
    for f in range(0, width, 4):
        # Beyond the last feature, the last one is repeated; its sum lands in the padding.
        x0, x1 = x + f * stride, x + min(f + 1, width - 1) * stride
        x2, x3 = x + min(f + 2, width - 1) * stride, x + min(f + 3, width - 1) * stride
        m0, m1, m2, m3 = load_splat(a, x0), load_splat(a, x1), load_splat(a, x2), load_splat(a, x3)
        s0, s1 = (load(a, x0 + last) - m0) * tail, (load(a, x1 + last) - m1) * tail
        s2, s3 = (load(a, x2 + last) - m2) * tail, (load(a, x3 + last) - m3) * tail
        t0, t1, t2, t3 = s0 * s0, s1 * s1, s2 * s2, s3 * s3
        for i in range(0, last, WIDTH):
            u0, u1 = load(a, x0 + i) - m0, load(a, x1 + i) - m1
            u2, u3 = load(a, x2 + i) - m2, load(a, x3 + i) - m3
            s0, s1, s2, s3 = s0 + u0, s1 + u1, s2 + u2, s3 + u3
            t0, t1, t2, t3 = fma(u0, u0, t0), fma(u1, u1, t1), fma(u2, u2, t2), fma(u3, u3, t3)
        _store_four(a, sums + f * WIDTH, s0, s1, s2, s3)
        _store_four(a, squares + f * WIDTH, t0, t1, t2, t3)
        put(a, first + f, item(a, x0))
        put(a, first + f + 1, item(a, x1))
        put(a, first + f + 2, item(a, x2))
        put(a, first + f + 3, item(a, x3))


@inline
def norm_backward(a, at, grad, width, saved, sums, x, d, stride, blocks, count, tail, floor, needs_input):
    """Write the gradients of weight and bias; replace the inputs by their gradient if ``needs_input``."""
    size, zero, inv_count = padded_size(width), splat(ZERO), splat(ONE / np.float32(count))
    mean, inv_std, coef_x, coef_1, coef_d = saved, saved + size, saved + 2 * size, saved + 3 * size, saved + 4 * size
    d_sums = sums + size * WIDTH
    for f in range(0, width, 4):
        f1, f2, f3 = min(f + 1, width - 1) * stride, min(f + 2, width - 1) * stride, min(f + 3, width - 1) * stride
        f0, s0, s1, s2, s3, t0, t1, t2, t3 = f * stride, zero, zero, zero, zero, zero, zero, zero, zero
        m0, m1 = load_splat(a, mean + f), load_splat(a, mean + f + 1)
        m2, m3 = load_splat(a, mean + f + 2), load_splat(a, mean + f + 3)
        for i in range(0, blocks * WIDTH, WIDTH):
            u, v = load(a, d + f0 + i), load(a, d + f1 + i)
            s0, s1 = fma(u, load(a, x + f0 + i) - m0, s0), fma(v, load(a, x + f1 + i) - m1, s1)
            t0, t1 = t0 + u, t1 + v
            u, v = load(a, d + f2 + i), load(a, d + f3 + i)
            s2, s3 = fma(u, load(a, x + f2 + i) - m2, s2), fma(v, load(a, x + f3 + i) - m3, s3)
            t2, t3 = t2 + u, t3 + v
        _store_four(a, sums + f * WIDTH, s0, s1, s2, s3)
        _store_four(a, d_sums + f * WIDTH, t0, t1, t2, t3)
    # dx = weight / std · (d - mean(d) - x̂ · mean(d · x̂)), x̂ = (x - mean) / std; it is coef_d d + coef_x x + coef_1.
    for f in range(0, size, WIDTH):
        real = splat(np.float32(width - f)) > lane_indices()
        inverse = load(a, inv_std + f)
        d_weight, d_bias = lane_sums(a, sums + f * WIDTH) * inverse, lane_sums(a, d_sums + f * WIDTH)
        store(a, grad + f, select(real, d_weight, zero))
        store(a, grad + size + f, select(real, d_bias, zero))
        scale = load(a, at + f) * inverse
        slope = scale * inv_count * d_weight * inverse
        store(a, coef_d + f, scale)
        store(a, coef_x + f, zero - slope)
        store(a, coef_1 + f, load(a, mean + f) * slope - scale * inv_count * d_bias)
    if needs_input:
        last = (blocks - 1) * WIDTH
        for f in range(width):
            cd, cx, c1 = load_splat(a, coef_d + f), load_splat(a, coef_x + f), load_splat(a, coef_1 + f)
            x0, d0 = x + f * stride, d + f * stride
            for i in range(0, blocks * WIDTH, WIDTH):
                u = load(a, x0 + i)
                store(a, x0 + i, relu_gradient(u, floor, fma(load(a, d0 + i), cd, fma(u, cx, c1))))
            # The padding of the last vector must not enter the sums of the layers below.
            store(a, x0 + last, load(a, x0 + last) * tail)

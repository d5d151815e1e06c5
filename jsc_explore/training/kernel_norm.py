"""The kernel's batch norm, four features at a time."""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from jsc_explore.training.kernel_inner import ONE, ZERO, clip, floor_of, inner, masked, padded_width
from jsc_explore.training.simd import WIDTH, choose, fill, fused, item, lanes, load, put, root, splat, store
from jsc_explore.training.simd_blocks import store_four

# torch.nn.BatchNorm1d's defaults.
NORM_EPS, NORM_MOMENTUM = np.float32(1e-5), np.float32(0.1)


@inner
def norm_forward(a, at, width, running, saved, x, y, stride, blocks, count, tail, training, relu):
    """Batch norm: with the batch's own mean and variance in training, with the running ones otherwise.

    ``saved`` keeps mean, 1/deviation, slope and shift for the way back; running statistics move by a tenth.
    """
    size, one, last, floor = padded_width(width), fill(ONE), (blocks - 1) * WIDTH, floor_of(relu)
    share, unbias = fill(ONE / np.float32(count)), fill(np.float32(count) / np.float32(max(count - 1, 1)))
    mean, inverse, slope, shift = saved, saved + size, saved + 2 * size, saved + 3 * size
    if training:
        # Four features at a time; beyond the last one it is taken again, and its sum lands in the padding.
        for f in range(0, width, 4):
            x0, x1 = x + f * stride, x + min(f + 1, width - 1) * stride
            x2, x3 = x + min(f + 2, width - 1) * stride, x + min(f + 3, width - 1) * stride
            s0, s1 = load(a, x0 + last) * tail, load(a, x1 + last) * tail
            s2, s3 = load(a, x2 + last) * tail, load(a, x3 + last) * tail
            for i in range(0, last, WIDTH):
                s0, s1 = s0 + load(a, x0 + i), s1 + load(a, x1 + i)
                s2, s3 = s2 + load(a, x2 + i), s3 + load(a, x3 + i)
            store_four(a, mean + f, s0, s1, s2, s3)
        for f in range(0, size, WIDTH):
            store(a, mean + f, load(a, mean + f) * share)
        for f in range(0, width, 4):
            x0, x1 = x + f * stride, x + min(f + 1, width - 1) * stride
            x2, x3 = x + min(f + 2, width - 1) * stride, x + min(f + 3, width - 1) * stride
            m0, m1, m2, m3 = splat(a, mean + f), splat(a, mean + f + 1), splat(a, mean + f + 2), splat(a, mean + f + 3)
            u, v = (load(a, x0 + last) - m0) * tail, (load(a, x1 + last) - m1) * tail
            s0, s1 = u * u, v * v
            u, v = (load(a, x2 + last) - m2) * tail, (load(a, x3 + last) - m3) * tail
            s2, s3 = u * u, v * v
            for i in range(0, last, WIDTH):
                u, v = load(a, x0 + i) - m0, load(a, x1 + i) - m1
                s0, s1 = fused(u, u, s0), fused(v, v, s1)
                u, v = load(a, x2 + i) - m2, load(a, x3 + i) - m3
                s2, s3 = fused(u, u, s2), fused(v, v, s3)
            store_four(a, inverse + f, s0, s1, s2, s3)
        tenth = fill(NORM_MOMENTUM)
        for f in range(0, size, WIDTH):
            centre, variance = load(a, mean + f), load(a, inverse + f) * share
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


@inner
def norm_backward(a, at, grad, width, saved, x, y, d, dx, stride, blocks, count, tail, relu, deep):
    """Write the gradients of scale and shift and, below other weights, of the inputs."""
    size, zero, share, floor = padded_width(width), fill(ZERO), fill(ONE / np.float32(count)), floor_of(relu)
    mean, inverse, tilt, lift, factor = saved, saved + size, saved + 2 * size, saved + 3 * size, saved + 4 * size
    for f in range(0, width, 4):
        f1, f2, f3 = min(f + 1, width - 1) * stride, min(f + 2, width - 1) * stride, min(f + 3, width - 1) * stride
        f0, s0, s1, s2, s3, t0, t1, t2, t3 = f * stride, zero, zero, zero, zero, zero, zero, zero, zero
        m0, m1, m2, m3 = splat(a, mean + f), splat(a, mean + f + 1), splat(a, mean + f + 2), splat(a, mean + f + 3)
        for i in range(0, blocks * WIDTH, WIDTH):
            u, v = masked(a, y + f0 + i, d + f0 + i, floor), masked(a, y + f1 + i, d + f1 + i, floor)
            s0, s1 = fused(u, load(a, x + f0 + i) - m0, s0), fused(v, load(a, x + f1 + i) - m1, s1)
            t0, t1 = t0 + u, t1 + v
            u, v = masked(a, y + f2 + i, d + f2 + i, floor), masked(a, y + f3 + i, d + f3 + i, floor)
            s2, s3 = fused(u, load(a, x + f2 + i) - m2, s2), fused(v, load(a, x + f3 + i) - m3, s3)
            t2, t3 = t2 + u, t3 + v
        store_four(a, tilt + f, s0, s1, s2, s3)
        store_four(a, lift + f, t0, t1, t2, t3)
    # dx = scale (d - mean(d) - normalised x · mean(d · normalised x)), sorted by what varies over the batch.
    for f in range(0, size, WIDTH):
        real = fill(np.float32(width - f)) > lanes()
        narrow = load(a, inverse + f)
        slope, shift = load(a, tilt + f) * narrow, load(a, lift + f)
        store(a, grad + f, choose(real, slope, zero))
        store(a, grad + size + f, choose(real, shift, zero))
        scale = load(a, at + f) * narrow
        lean = scale * share * slope * narrow
        store(a, factor + f, scale)
        store(a, tilt + f, zero - lean)
        store(a, lift + f, load(a, mean + f) * lean - scale * share * shift)
    if deep:
        last = (blocks - 1) * WIDTH
        for f in range(width):
            scale, lean, level = splat(a, factor + f), splat(a, tilt + f), splat(a, lift + f)
            for i in range(f * stride, f * stride + blocks * WIDTH, WIDTH):
                store(a, dx + i, fused(load(a, d + i), scale, fused(load(a, x + i), lean, level)))
            # What pads the last vector belongs to no jet and must not reach the sums of the layers below.
            i = dx + f * stride + last
            store(a, i, load(a, i) * tail)

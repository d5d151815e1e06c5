"""The kernel's linear layer: outputs, gradient of the inputs, gradient of the weights; tiles of four by four."""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

from jsc_explore.training.kernel_inner import ZERO, clip, floor_of, inner
from jsc_explore.training.simd import WIDTH, fill, fused, load, put, splat, store, total
from jsc_explore.training.simd_blocks import store_sixteen


@inner
def linear_forward(a, at, inputs, outputs, x, y, stride, blocks, relu):
    """Write ``y[o] = bias[o] + Σ_f weight[o, f] x[f]``, then ReLU; four outputs and two vectors of jets at a time."""
    bias, zero, floor = at + inputs * outputs, fill(ZERO), floor_of(relu)
    for o in range(0, outputs - 3, 4):
        w0 = at + o * inputs
        w1, w2, w3 = w0 + inputs, w0 + 2 * inputs, w0 + 3 * inputs
        b0, b1, b2, b3 = splat(a, bias + o), splat(a, bias + o + 1), splat(a, bias + o + 2), splat(a, bias + o + 3)
        y0 = y + o * stride
        for i in range(0, blocks // 2 * 2 * WIDTH, 2 * WIDTH):
            s0, s1, s2, s3, t0, t1, t2, t3 = b0, b1, b2, b3, b0, b1, b2, b3
            at_x = x + i
            for f in range(inputs):
                u, v = load(a, at_x), load(a, at_x + WIDTH)
                at_x += stride
                w = splat(a, w0 + f)
                s0, t0 = fused(w, u, s0), fused(w, v, t0)
                w = splat(a, w1 + f)
                s1, t1 = fused(w, u, s1), fused(w, v, t1)
                w = splat(a, w2 + f)
                s2, t2 = fused(w, u, s2), fused(w, v, t2)
                w = splat(a, w3 + f)
                s3, t3 = fused(w, u, s3), fused(w, v, t3)
            to = y0 + i
            store(a, to, clip(s0, floor))
            store(a, to + stride, clip(s1, floor))
            store(a, to + 2 * stride, clip(s2, floor))
            store(a, to + 3 * stride, clip(s3, floor))
            to += WIDTH
            store(a, to, clip(t0, floor))
            store(a, to + stride, clip(t1, floor))
            store(a, to + 2 * stride, clip(t2, floor))
            store(a, to + 3 * stride, clip(t3, floor))
        if blocks % 2:
            i = (blocks - 1) * WIDTH
            s0, s1, s2, s3 = b0, b1, b2, b3
            for f in range(inputs):
                u = load(a, x + f * stride + i)
                s0, s1 = fused(splat(a, w0 + f), u, s0), fused(splat(a, w1 + f), u, s1)
                s2, s3 = fused(splat(a, w2 + f), u, s2), fused(splat(a, w3 + f), u, s3)
            to = y0 + i
            store(a, to, clip(s0, floor))
            store(a, to + stride, clip(s1, floor))
            store(a, to + 2 * stride, clip(s2, floor))
            store(a, to + 3 * stride, clip(s3, floor))
    for o in range(outputs - outputs % 4, outputs):
        w0 = at + o * inputs
        for block in range(blocks):
            i = block * WIDTH
            s0, s1 = splat(a, bias + o), zero
            for f in range(0, inputs - 1, 2):
                s0 = fused(splat(a, w0 + f), load(a, x + f * stride + i), s0)
                s1 = fused(splat(a, w0 + f + 1), load(a, x + (f + 1) * stride + i), s1)
            if inputs % 2:
                s0 = fused(splat(a, w0 + inputs - 1), load(a, x + (inputs - 1) * stride + i), s0)
            store(a, y + o * stride + i, clip(s0 + s1, floor))


@inner
def linear_input(a, at, inputs, outputs, d, dx, stride, blocks):
    """Write ``dx[f] = Σ_o weight[o, f] d[o]``."""
    zero = fill(ZERO)
    for f in range(0, inputs - 3, 4):
        for i in range(0, blocks // 2 * 2 * WIDTH, 2 * WIDTH):
            s0, s1, s2, s3, t0, t1, t2, t3 = zero, zero, zero, zero, zero, zero, zero, zero
            for o in range(outputs):
                u, v, w0 = load(a, d + o * stride + i), load(a, d + o * stride + i + WIDTH), at + o * inputs + f
                w = splat(a, w0)
                s0, t0 = fused(w, u, s0), fused(w, v, t0)
                w = splat(a, w0 + 1)
                s1, t1 = fused(w, u, s1), fused(w, v, t1)
                w = splat(a, w0 + 2)
                s2, t2 = fused(w, u, s2), fused(w, v, t2)
                w = splat(a, w0 + 3)
                s3, t3 = fused(w, u, s3), fused(w, v, t3)
            to = dx + f * stride + i
            store(a, to, s0)
            store(a, to + stride, s1)
            store(a, to + 2 * stride, s2)
            store(a, to + 3 * stride, s3)
            store(a, to + WIDTH, t0)
            store(a, to + stride + WIDTH, t1)
            store(a, to + 2 * stride + WIDTH, t2)
            store(a, to + 3 * stride + WIDTH, t3)
        if blocks % 2:
            i = (blocks - 1) * WIDTH
            s0, s1, s2, s3 = zero, zero, zero, zero
            for o in range(outputs):
                u, w0 = load(a, d + o * stride + i), at + o * inputs + f
                s0, s1 = fused(splat(a, w0), u, s0), fused(splat(a, w0 + 1), u, s1)
                s2, s3 = fused(splat(a, w0 + 2), u, s2), fused(splat(a, w0 + 3), u, s3)
            to = dx + f * stride + i
            store(a, to, s0)
            store(a, to + stride, s1)
            store(a, to + 2 * stride, s2)
            store(a, to + 3 * stride, s3)
    for f in range(inputs - inputs % 4, inputs):
        for block in range(blocks):
            i, s0 = block * WIDTH, zero
            for o in range(outputs):
                s0 = fused(splat(a, at + o * inputs + f), load(a, d + o * stride + i), s0)
            store(a, dx + f * stride + i, s0)


@inner
def linear_weights(a, grad, inputs, outputs, x, d, stride, blocks, has_bias):
    """Write ``grad[o, f] = Σ_i d[o, i] x[f, i]`` and, where it has one, the bias's ``Σ_i d[o, i]``."""
    zero = fill(ZERO)
    whole_o, whole_f = outputs - outputs % 4, inputs - inputs % 4
    if has_bias:
        for o in range(outputs):
            s = zero
            for block in range(blocks):
                s = s + load(a, d + o * stride + block * WIDTH)
            put(a, grad + inputs * outputs + o, total(s))
    for o in range(0, whole_o, 4):
        d0 = d + o * stride
        for f in range(0, whole_f, 4):
            x0 = x + f * stride
            a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
            c0, c1, c2, c3, e0, e1, e2, e3 = zero, zero, zero, zero, zero, zero, zero, zero
            for block in range(blocks):
                i = block * WIDTH
                p, q = load(a, x0 + i), load(a, x0 + stride + i)
                r, s = load(a, x0 + 2 * stride + i), load(a, x0 + 3 * stride + i)
                u = load(a, d0 + i)
                a0, a1, a2, a3 = fused(u, p, a0), fused(u, q, a1), fused(u, r, a2), fused(u, s, a3)
                u = load(a, d0 + stride + i)
                b0, b1, b2, b3 = fused(u, p, b0), fused(u, q, b1), fused(u, r, b2), fused(u, s, b3)
                u = load(a, d0 + 2 * stride + i)
                c0, c1, c2, c3 = fused(u, p, c0), fused(u, q, c1), fused(u, r, c2), fused(u, s, c3)
                u = load(a, d0 + 3 * stride + i)
                e0, e1, e2, e3 = fused(u, p, e0), fused(u, q, e1), fused(u, r, e2), fused(u, s, e3)
            to = grad + o * inputs + f
            store_sixteen(a, to, inputs, a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, e0, e1, e2, e3)
        for row in range(o, o + 4):
            for f in range(whole_f, inputs):
                put(a, grad + row * inputs + f, _dot(a, d + row * stride, x + f * stride, blocks))
    for o in range(whole_o, outputs):
        u, to, f = d + o * stride, grad + o * inputs, 0
        while f + 15 < inputs:
            _sixteen_dots(a, u, x + f * stride, stride, blocks, to + f)
            f += 16
        while f < inputs:
            put(a, to + f, _dot(a, u, x + f * stride, blocks))
            f += 1


@inner
def _dot(a, one, two, blocks):
    s = fill(ZERO)
    for block in range(blocks):
        s = fused(load(a, one + block * WIDTH), load(a, two + block * WIDTH), s)
    return total(s)


@inner
def _sixteen_dots(a, d, x, stride, blocks, to):
    z = fill(ZERO)
    a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, e0, e1, e2, e3 = z, z, z, z, z, z, z, z, z, z, z, z, z, z, z, z
    for block in range(blocks):
        u, at = load(a, d + block * WIDTH), x + block * WIDTH
        a0, a1 = fused(u, load(a, at), a0), fused(u, load(a, at + stride), a1)
        a2, a3 = fused(u, load(a, at + 2 * stride), a2), fused(u, load(a, at + 3 * stride), a3)
        at += 4 * stride
        b0, b1 = fused(u, load(a, at), b0), fused(u, load(a, at + stride), b1)
        b2, b3 = fused(u, load(a, at + 2 * stride), b2), fused(u, load(a, at + 3 * stride), b3)
        at += 4 * stride
        c0, c1 = fused(u, load(a, at), c0), fused(u, load(a, at + stride), c1)
        c2, c3 = fused(u, load(a, at + 2 * stride), c2), fused(u, load(a, at + 3 * stride), c3)
        at += 4 * stride
        e0, e1 = fused(u, load(a, at), e0), fused(u, load(a, at + stride), e1)
        e2, e3 = fused(u, load(a, at + 2 * stride), e2), fused(u, load(a, at + 3 * stride), e3)
    store_sixteen(a, to, 4, a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, e0, e1, e2, e3)

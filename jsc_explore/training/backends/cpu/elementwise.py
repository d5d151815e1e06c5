"""What the kernel does element by element: activations, dropout, the loss, the optimizer's step."""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from jsc_explore.training.backends.cpu.jit import HALF, ONE, TWO, ZERO, clip, gated, inline, inner
from jsc_explore.training.backends.cpu.layer_table import (
    ADAMW,
    FIRST,
    GRADIENT,
    LEAKY,
    RELU,
    SECOND,
    SGD,
    SILU,
    TANH,
    WEIGHTS,
)
from jsc_explore.training.backends.cpu.simd import (
    WIDTH,
    exponential,
    fill,
    fused,
    item,
    load,
    logarithm,
    put,
    root,
    select,
    store,
    total,
)

# torch.optim.Adam's and torch.nn.LeakyReLU's defaults.
BETA1, BETA2, ADAM_EPS = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
LEAK = np.float32(0.01)


@inline
def _sigmoid(x):
    return fill(ONE) / (fill(ONE) + exponential(fill(ZERO) - x))


@inline
def _gauss(x):
    """Return the normal distribution function and its density.

    Chebyshev's fit to the complementary error function (Press et al., Numerical Recipes, 6.2): its *relative* error is
    1.2e-7 also far out, where an optimizer such as Adam would magnify a wrong gradient, however small.
    """
    zero, one = fill(ZERO), fill(ONE)
    size = select(x > zero, x, zero - x) * fill(np.float32(0.7071067811865476))
    t = one / fused(size, fill(HALF), one)
    p = fused(t, fill(np.float32(0.17087277)), fill(np.float32(-0.82215223)))
    p = fused(p, t, fill(np.float32(1.48851587)))
    p = fused(p, t, fill(np.float32(-1.13520398)))
    p = fused(p, t, fill(np.float32(0.27886807)))
    p = fused(p, t, fill(np.float32(-0.18628806)))
    p = fused(p, t, fill(np.float32(0.09678418)))
    p = fused(p, t, fill(np.float32(0.37409196)))
    p = fused(p, t, fill(np.float32(1.00002368)))
    p = fused(p, t, fill(np.float32(-1.26551223)))
    upper = fill(HALF) * t * exponential(p - size * size)
    density = exponential(zero - size * size) * fill(np.float32(0.3989422804014327))
    return select(x > zero, one - upper, upper), density


@inner
def activate(a, kind, x, y, size):
    """Apply an activation to ``size`` values."""
    zero, one = fill(ZERO), fill(ONE)
    for i in range(0, size, WIDTH):
        u = load(a, x + i)
        if kind == RELU:
            v = clip(u, zero)
        elif kind == LEAKY:
            v = select(zero > u, u * fill(LEAK), u)
        elif kind == TANH:
            v = one - fill(TWO) / (exponential(fill(TWO) * u) + one)
        elif kind == SILU:
            v = u * _sigmoid(u)
        else:
            v = u * _gauss(u)[0]
        store(a, y + i, v)


@inner
def activate_backward(a, kind, x, d, size, floor):
    """Write the gradient of an activation's inputs in their place; ``d`` is that of its outputs."""
    zero, one = fill(ZERO), fill(ONE)
    for i in range(0, size, WIDTH):
        u, slope = load(a, x + i), one
        if kind == RELU:
            slope = select(u > zero, one, zero)
        elif kind == LEAKY:
            slope = select(u > zero, one, fill(LEAK))
        elif kind == TANH:
            v = one - fill(TWO) / (exponential(fill(TWO) * u) + one)
            slope = one - v * v
        elif kind == SILU:
            s = _sigmoid(u)
            slope = s * (one + u * (one - s))
        else:
            share, density = _gauss(u)
            slope = share + u * density
        store(a, x + i, gated(u, floor, load(a, d + i) * slope))


@inner
def drop(a, factors, at, width, count, x, y, stride):
    """Multiply by the factors of dropout, ``(count, width)`` from ``at``; the padding becomes zero."""
    for f in range(width):
        for i in range(stride):
            factor = ZERO
            if i < count:
                factor = item(factors, at + i * width + f)
            put(a, y + f * stride + i, item(a, x + f * stride + i) * factor)


@inner
def drop_backward(a, factors, at, width, count, x, d, stride, floor):
    """Write the gradient of dropout's inputs in their place."""
    for i in range(0, width * stride, WIDTH):
        store(a, x + i, gated(load(a, x + i), floor, fill(ONE)))
    drop(a, factors, at, width, count, x, x, stride)
    for i in range(0, width * stride, WIDTH):
        store(a, x + i, load(a, x + i) * load(a, d + i))


@inline
def entropy(a, z, labels, stride, blocks, count, tail, floor):
    """Softmax and cross-entropy: write the gradient of the mean loss in place of the logits, which a ReLU may have cut
    off at the floor; return the mean loss and the number of hits.
    """
    one, zero, share = fill(ONE), fill(ZERO), fill(ONE / np.float32(count))
    second, third, fourth = fill(ONE), fill(TWO), fill(np.float32(3))
    fifth, losses, hits = fill(np.float32(4)), zero, zero
    last, z1, z2, z3, z4 = (blocks - 1) * WIDTH, z + stride, z + 2 * stride, z + 3 * stride, z + 4 * stride
    for i in range(0, blocks * WIDTH, WIDTH):
        label, valid = load(a, labels + i), one
        if i == last:
            valid = tail
        # Five classes, held in registers throughout.
        u0, u1, u2, u3, u4 = load(a, z + i), load(a, z1 + i), load(a, z2 + i), load(a, z3 + i), load(a, z4 + i)
        peak, guess = select(u1 > u0, u1, u0), select(u1 > u0, one, zero)
        peak, guess = select(u2 > peak, u2, peak), select(u2 > peak, third, guess)
        peak, guess = select(u3 > peak, u3, peak), select(u3 > peak, fourth, guess)
        peak, guess = select(u4 > peak, u4, peak), select(u4 > peak, fifth, guess)
        is0, is1, is2, is3, is4 = label == zero, label == second, label == third, label == fourth, label == fifth
        own = select(is1, u1, select(is2, u2, select(is3, u3, select(is4, u4, u0)))) - peak
        e0, e1, e2 = exponential(u0 - peak), exponential(u1 - peak), exponential(u2 - peak)
        e3, e4 = exponential(u3 - peak), exponential(u4 - peak)
        mass = e0 + e1 + e2 + e3 + e4
        weight = share * valid
        scale = weight / mass
        store(a, z + i, gated(u0, floor, e0 * scale - select(is0, weight, zero)))
        store(a, z1 + i, gated(u1, floor, e1 * scale - select(is1, weight, zero)))
        store(a, z2 + i, gated(u2, floor, e2 * scale - select(is2, weight, zero)))
        store(a, z3 + i, gated(u3, floor, e3 * scale - select(is3, weight, zero)))
        store(a, z4 + i, gated(u4, floor, e4 * scale - select(is4, weight, zero)))
        losses = fused(logarithm(mass) - own, valid, losses)
        hits = fused(select(guess == label, one, zero), valid, hits)
    return total(losses) / np.float32(count), total(hits)


@inline
def update(a, places, kind, rate, scale, correction, momentum, decay):
    """Take one optimizer step; ``scale`` is Adam's corrected rate, ``correction`` 1/sqrt(1 - beta2**t)."""
    w0, g0, m0, v0 = item(places, WEIGHTS), item(places, GRADIENT), item(places, FIRST), item(places, SECOND)
    fade = fill(decay)
    if kind == SGD:
        mu, step = fill(momentum), fill(-rate)
        for i in range(0, g0 - w0, WIDTH):
            w = load(a, w0 + i)
            g = fused(w, fade, load(a, g0 + i))
            kept = fused(load(a, m0 + i), mu, g)
            store(a, m0 + i, kept)
            store(a, w0 + i, fused(step, fused(mu, kept, g), w))
        return
    first, second, keep, eps = fill(ONE - BETA1), fill(ONE - BETA2), fill(BETA2), fill(ADAM_EPS)
    step, lift, shrink = fill(-scale), fill(correction), fill(ONE)
    if kind == ADAMW:
        shrink, fade = fill(ONE - rate * decay), fill(ZERO)
    for i in range(0, g0 - w0, WIDTH):
        w = load(a, w0 + i) * shrink
        g = fused(w, fade, load(a, g0 + i))
        old = load(a, m0 + i)
        m, v = fused(g - old, first, old), fused(g * g, second, load(a, v0 + i) * keep)
        store(a, m0 + i, m)
        store(a, v0 + i, v)
        store(a, w0 + i, fused(step, m / fused(root(v), lift, eps), w))

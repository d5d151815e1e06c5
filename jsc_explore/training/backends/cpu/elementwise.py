"""The elementwise parts of the kernel: activations, dropout, loss and optimizer step."""

# Numba infers types from the signature of the kernel; there are no annotations.
# mypy: ignore-errors

from __future__ import annotations

import numpy as np

from jsc_explore.training.backends.cpu.jit import HALF, ONE, TWO, ZERO, inline, inner, maximum, relu_gradient
from jsc_explore.training.backends.cpu.layer_table import (
    ADAMW,
    GRADIENT,
    LEAKY,
    MOMENT_1,
    MOMENT_2,
    RELU,
    SGD,
    SILU,
    TANH,
    WEIGHTS,
)
from jsc_explore.training.backends.cpu.simd import (
    WIDTH,
    exp,
    fma,
    item,
    load,
    log,
    put,
    reduce_add,
    select,
    splat,
    sqrt,
    store,
)

# Defaults of torch.optim.Adam and torch.nn.LeakyReLU.
BETA1, BETA2, ADAM_EPS = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
LEAK = np.float32(0.01)


@inline
def _sigmoid(x):
    return splat(ONE) / (splat(ONE) + exp(splat(ZERO) - x))


@inline
def _normal_cdf_pdf(x):
    """Return the cumulative distribution function and the density of the standard normal distribution.

    Chebyshev approximation of erfc (Press et al., Numerical Recipes, 6.2). Its *relative* error is 1.2e-7 also in the
    tails, where Adam would amplify a wrong gradient, however small.
    """
    zero, one = splat(ZERO), splat(ONE)
    size = select(x > zero, x, zero - x) * splat(np.float32(0.7071067811865476))
    t = one / fma(size, splat(HALF), one)
    p = fma(t, splat(np.float32(0.17087277)), splat(np.float32(-0.82215223)))
    p = fma(p, t, splat(np.float32(1.48851587)))
    p = fma(p, t, splat(np.float32(-1.13520398)))
    p = fma(p, t, splat(np.float32(0.27886807)))
    p = fma(p, t, splat(np.float32(-0.18628806)))
    p = fma(p, t, splat(np.float32(0.09678418)))
    p = fma(p, t, splat(np.float32(0.37409196)))
    p = fma(p, t, splat(np.float32(1.00002368)))
    p = fma(p, t, splat(np.float32(-1.26551223)))
    tail = splat(HALF) * t * exp(p - size * size)
    density = exp(zero - size * size) * splat(np.float32(0.3989422804014327))
    return select(x > zero, one - tail, tail), density


@inner
def activate(a, kind, x, y, size):
    """Apply an activation to ``size`` values."""
    zero, one = splat(ZERO), splat(ONE)
    for i in range(0, size, WIDTH):
        u = load(a, x + i)
        if kind == RELU:
            v = maximum(u, zero)
        elif kind == LEAKY:
            v = select(zero > u, u * splat(LEAK), u)
        elif kind == TANH:
            v = one - splat(TWO) / (exp(splat(TWO) * u) + one)
        elif kind == SILU:
            v = u * _sigmoid(u)
        else:
            v = u * _normal_cdf_pdf(u)[0]
        store(a, y + i, v)


@inner
def activate_backward(a, kind, x, d, size, floor):
    """Replace the inputs of an activation by their gradient; ``d`` is the gradient of its outputs."""
    zero, one = splat(ZERO), splat(ONE)
    for i in range(0, size, WIDTH):
        u, slope = load(a, x + i), one
        if kind == RELU:
            slope = select(u > zero, one, zero)
        elif kind == LEAKY:
            slope = select(u > zero, one, splat(LEAK))
        elif kind == TANH:
            v = one - splat(TWO) / (exp(splat(TWO) * u) + one)
            slope = one - v * v
        elif kind == SILU:
            s = _sigmoid(u)
            slope = s * (one + u * (one - s))
        else:
            cdf, density = _normal_cdf_pdf(u)
            slope = cdf + u * density
        store(a, x + i, relu_gradient(u, floor, load(a, d + i) * slope))


@inner
def dropout(a, masks, at, width, count, x, y, stride):
    """Multiply by the dropout mask ``(count, width)`` at offset ``at``; set the padding to zero."""
    for f in range(width):
        for i in range(stride):
            factor = ZERO
            if i < count:
                factor = item(masks, at + i * width + f)
            put(a, y + f * stride + i, item(a, x + f * stride + i) * factor)


@inner
def dropout_backward(a, masks, at, width, count, x, d, stride, floor):
    """Replace the inputs of dropout by their gradient."""
    for i in range(0, width * stride, WIDTH):
        store(a, x + i, relu_gradient(load(a, x + i), floor, splat(ONE)))
    dropout(a, masks, at, width, count, x, x, stride)
    for i in range(0, width * stride, WIDTH):
        store(a, x + i, load(a, x + i) * load(a, d + i))


@inline
def cross_entropy(a, z, labels, stride, blocks, count, tail, floor):
    """Replace the logits by the gradient of the mean cross-entropy, 0 where they are at the floor of a ReLU.

    Return the mean loss and the number of correctly classified jets.
    """
    one, zero, inv_count = splat(ONE), splat(ZERO), splat(ONE / np.float32(count))
    two, three, four, losses, correct = splat(TWO), splat(np.float32(3)), splat(np.float32(4)), zero, zero
    last, z1, z2, z3, z4 = (blocks - 1) * WIDTH, z + stride, z + 2 * stride, z + 3 * stride, z + 4 * stride
    for i in range(0, blocks * WIDTH, WIDTH):
        label, valid = load(a, labels + i), one
        if i == last:
            valid = tail
        # The five logits stay in registers.
        u0, u1, u2, u3, u4 = load(a, z + i), load(a, z1 + i), load(a, z2 + i), load(a, z3 + i), load(a, z4 + i)
        max_u, predicted = select(u1 > u0, u1, u0), select(u1 > u0, one, zero)
        max_u, predicted = select(u2 > max_u, u2, max_u), select(u2 > max_u, two, predicted)
        max_u, predicted = select(u3 > max_u, u3, max_u), select(u3 > max_u, three, predicted)
        max_u, predicted = select(u4 > max_u, u4, max_u), select(u4 > max_u, four, predicted)
        is0, is1, is2, is3, is4 = label == zero, label == one, label == two, label == three, label == four
        label_z = select(is1, u1, select(is2, u2, select(is3, u3, select(is4, u4, u0)))) - max_u
        e0, e1, e2 = exp(u0 - max_u), exp(u1 - max_u), exp(u2 - max_u)
        e3, e4 = exp(u3 - max_u), exp(u4 - max_u)
        exp_sum = e0 + e1 + e2 + e3 + e4
        weight = inv_count * valid
        scale = weight / exp_sum
        store(a, z + i, relu_gradient(u0, floor, e0 * scale - select(is0, weight, zero)))
        store(a, z1 + i, relu_gradient(u1, floor, e1 * scale - select(is1, weight, zero)))
        store(a, z2 + i, relu_gradient(u2, floor, e2 * scale - select(is2, weight, zero)))
        store(a, z3 + i, relu_gradient(u3, floor, e3 * scale - select(is3, weight, zero)))
        store(a, z4 + i, relu_gradient(u4, floor, e4 * scale - select(is4, weight, zero)))
        losses = fma(log(exp_sum) - label_z, valid, losses)
        correct = fma(select(predicted == label, one, zero), valid, correct)
    return reduce_add(losses) / np.float32(count), reduce_add(correct)


@inline
def optimizer_step(a, offsets, kind, rate, scale, correction, momentum, decay):
    """Take one optimizer step; ``scale`` is rate / (1 - beta1**t), ``correction`` is 1 / sqrt(1 - beta2**t)."""
    w0, g0, m0, v0 = item(offsets, WEIGHTS), item(offsets, GRADIENT), item(offsets, MOMENT_1), item(offsets, MOMENT_2)
    weight_decay = splat(decay)
    if kind == SGD:
        beta, step = splat(momentum), splat(-rate)
        for i in range(0, g0 - w0, WIDTH):
            w = load(a, w0 + i)
            g = fma(w, weight_decay, load(a, g0 + i))
            velocity = fma(load(a, m0 + i), beta, g)
            store(a, m0 + i, velocity)
            store(a, w0 + i, fma(step, fma(beta, velocity, g), w))
        return
    first, second, keep, eps = splat(ONE - BETA1), splat(ONE - BETA2), splat(BETA2), splat(ADAM_EPS)
    step, inv_root, keep_share = splat(-scale), splat(correction), splat(ONE)
    if kind == ADAMW:
        keep_share, weight_decay = splat(ONE - rate * decay), splat(ZERO)
    for i in range(0, g0 - w0, WIDTH):
        w = load(a, w0 + i) * keep_share
        g = fma(w, weight_decay, load(a, g0 + i))
        old = load(a, m0 + i)
        m, v = fma(g - old, first, old), fma(g * g, second, load(a, v0 + i) * keep)
        store(a, m0 + i, m)
        store(a, v0 + i, v)
        store(a, w0 + i, fma(step, m / fma(sqrt(v), inv_root, eps), w))

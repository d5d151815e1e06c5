"""The kernel's twin for GPUs: a thread block trains a replica, many steps in one launch, hundreds of them in a grid.

It reads the same table of layers as ``backends.cpu.kernel`` and does the same arithmetic. What a replica owns
(``backends.cuda.memory_layout``) lies in shared memory as far as it fits; jets, their order and the factors of
dropout are read from where they lie on the device. Sums are taken in an order that follows from the shape of the work
alone, without atomics: running twice gives identical results, whoever else is in the grid.
"""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numba import cuda, float32, float64, int8, int32, int64, types, void

from jsc_explore.training.backends.cpu.layer_table import (
    ADAMW,
    CLASSES,
    DROPOUT,
    HAS_BIAS,
    HAS_RELU,
    IN_AT,
    INPUTS,
    KIND,
    LINEAR,
    NEEDS_INPUT,
    NORM,
    OUT_AT,
    OUTPUTS,
    RUNNING_AT,
    SAVED_AT,
    SGD,
    WEIGHTS_AT,
)
from jsc_explore.training.backends.cpu.simd import ROW
from jsc_explore.training.backends.cuda.jit import KERNEL_OPTIONS, ONE, ZERO, device, folded, item, lesser, put, sync
from jsc_explore.training.backends.cuda.layers import (
    activate,
    activate_backward,
    drop,
    linear_forward,
    linear_input,
    linear_weights,
    masked,
    norm_backward,
    norm_forward,
)

# torch.optim.Adam's defaults.
BETA1, BETA2, ADAM_EPS = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
# So many threads add up the loss of a batch before the last one does; a power of two.
_FOLDED = 16


@device
def _forward(table, parts, stride, count, training, factors, factors_at, who):
    w, _, _, _, running, saved, a, _, _, scratch = parts
    for k in range(table.shape[0]):
        kind, inputs, outputs = table[k, KIND], table[k, INPUTS], table[k, OUTPUTS]
        x, y, at, relu = table[k, IN_AT] * stride, table[k, OUT_AT] * stride, table[k, WEIGHTS_AT], table[k, HAS_RELU]
        if kind == LINEAR:
            linear_forward(w, at, inputs, outputs, a, x, y, stride, count, relu != 0, who)
        elif kind == NORM:
            r, s = table[k, RUNNING_AT], table[k, SAVED_AT]
            norm_forward(w, at, inputs, running, r, saved, s, scratch, a, x, y, stride, count, training, relu != 0, who)
        elif kind != DROPOUT:
            activate(kind, a, x, y, inputs, stride, count, who)
        elif training:
            drop(factors, factors_at, a, x, y, inputs, stride, count, who)
            factors_at += count * inputs
        else:
            _, _, lane, span, group, groups = who
            for f in range(group, inputs, groups):
                for j in range(f * stride + lane, f * stride + count, span):
                    put(a, y + j, item(a, x + j))
            sync()


@device
def _backward(table, parts, wide, stride, count, factors, factors_end, who):
    """Go back through the layers; gradients of outputs and inputs take turns in the two halves of the deltas."""
    w, g, _, _, _, saved, a, d, _, scratch = parts
    for k in range(table.shape[0] - 1, -1, -1):
        kind, inputs, outputs, deep = table[k, KIND], table[k, INPUTS], table[k, OUTPUTS], table[k, NEEDS_INPUT] != 0
        x, y, at, relu = table[k, IN_AT] * stride, table[k, OUT_AT] * stride, table[k, WEIGHTS_AT], table[k, HAS_RELU]
        dy, dx = k % 2 * wide * stride, (k + 1) % 2 * wide * stride
        if kind == LINEAR:
            if relu != 0:
                masked(a, y, d, dy, outputs, stride, count, who)
            linear_weights(g, at, inputs, outputs, a, x, d, dy, scratch, stride, count, table[k, HAS_BIAS] != 0, who)
            if deep:
                linear_input(w, at, inputs, outputs, d, dy, dx, stride, count, who)
            sync()
        elif kind == NORM:
            s = table[k, SAVED_AT]
            norm_backward(w, g, at, inputs, saved, s, scratch, a, x, y, d, dy, dx, stride, count, relu != 0, deep, who)
        elif kind == DROPOUT:
            factors_end -= count * inputs
            drop(factors, factors_end, d, dy, dx, inputs, stride, count, who)
        else:
            activate_backward(kind, a, x, y, d, dy, dx, inputs, stride, count, who)


@device
def _gather(a, labels, stride, x, y, order, begin, count, thread, size):
    """Bring ``count`` jets from ``order[begin]`` on, feature-major, and their labels."""
    k = thread
    while k < count * ROW:
        j, f = k // ROW, k % ROW
        put(a, f * stride + j, item(x, int64(item(order, begin + j)) * ROW + f))
        k += size
    j = thread
    while j < count:
        put(labels, j, np.float32(item(y, item(order, begin + j))))
        j += size
    sync()


@device
def _entropy(a, z0, d, d0, labels, scratch, stride, count, thread, size):
    """Softmax and cross-entropy: write the gradient of the mean loss; return loss and hits, which thread 0 knows."""
    share, losses, hits = ONE / np.float32(count), ZERO, ZERO
    for j in range(thread, count, size):
        label, peak, guess = int(item(labels, j)), item(a, z0 + j), 0
        for c in range(1, CLASSES):
            z = item(a, z0 + c * stride + j)
            if z > peak:
                peak, guess = z, c
        mass, own = ZERO, ZERO
        for c in range(CLASSES):
            z = item(a, z0 + c * stride + j) - peak
            e = math.exp(z)
            mass += e
            if c == label:
                own = z
            put(d, d0 + c * stride + j, e)
        scale = share / mass
        for c in range(CLASSES):
            to = d0 + c * stride + j
            put(d, to, item(d, to) * scale - (share if c == label else ZERO))
        losses += math.log(mass) - own
        if guess == label:
            hits += ONE
    put(scratch, thread, losses)
    put(scratch, size + thread, hits)
    sync()
    few = lesser(size, _FOLDED)
    if thread < few:
        # What a thread reads here nobody else does, and it writes over some of that.
        losses, hits = folded(scratch, thread, few, size // few), folded(scratch, size + thread, few, size // few)
        put(scratch, thread, losses)
        put(scratch, size + thread, hits)
    sync()
    if thread == 0:
        losses, hits = folded(scratch, 0, 1, few), folded(scratch, size, 1, few)
    # The backward pass writes to the scratch memory.
    sync()
    return losses * share, hits


@device
def _update(parts, kind, rate, scale, correction, momentum, decay, weights, thread, size):
    """Take one optimizer step; ``scale`` is Adam's corrected rate, ``correction`` 1/sqrt(1 - beta2**t)."""
    w, gradient, first, second, i = parts[0], parts[1], parts[2], parts[3], thread
    if kind == SGD:
        while i < weights:
            u = item(w, i)
            g = u * decay + item(gradient, i)
            kept = item(first, i) * momentum + g
            put(first, i, kept)
            put(w, i, u - rate * (momentum * kept + g))
            i += size
    else:
        shrink, fade = ONE, decay
        if kind == ADAMW:
            shrink, fade = ONE - rate * decay, ZERO
        while i < weights:
            u = item(w, i) * shrink
            g = u * fade + item(gradient, i)
            old = item(first, i)
            m, v = (g - old) * (ONE - BETA1) + old, g * g * (ONE - BETA2) + item(second, i) * BETA2
            put(first, i, m)
            put(second, i, v)
            put(w, i, u - scale * (m / (math.sqrt(v) * correction + ADAM_EPS)))
            i += size
    sync()


@device
def _spread(part, places, flat, thread, size, total):
    """Bring one replica's values to their places in its part of memory, whose padding becomes zero."""
    for i in range(thread, total, size):
        put(part, i, ZERO)
    sync()
    for i in range(thread, places.shape[0], size):
        put(part, item(places, i), item(flat, i))


@device
def _collect(part, places, flat, thread, size):
    for i in range(thread, places.shape[0], size):
        put(flat, i, item(part, item(places, i)))


@device
def _steps(table, parts, x, y, order, rates, settings, factors, losses, hits, sizes, who):
    """Take the steps of one replica."""
    wide, stride, weights, rows, start, stop, batch, kind = sizes
    thread, size, final = who[0], who[1], table.shape[0] - 1
    a, d, labels, scratch = parts[6], parts[7], parts[8], parts[9]
    z0, d0, drops, factors_at = table[final, OUT_AT] * stride, final % 2 * wide * stride, int64(0), int64(0)
    for k in range(table.shape[0]):
        if table[k, KIND] == DROPOUT:
            drops += table[k, INPUTS]
    for step in range(start, stop):
        begin, at = step * batch, step - start
        count = lesser(batch, rows - begin)
        _gather(a, labels, stride, x, y, order, begin, count, thread, size)
        _forward(table, parts, stride, count, True, factors, factors_at, who)
        loss, hit = _entropy(a, z0, d, d0, labels, scratch, stride, count, thread, size)
        if thread == 0:
            losses[at], hits[at] = loss, hit
        factors_at += drops * count
        _backward(table, parts, wide, stride, count, factors, factors_at, who)
        _update(parts, kind, rates[0, at], rates[1, at], rates[2, at], settings[0], settings[1], weights, thread, size)


@device
def _judge(a, z0, labels, counts, logits, stride, begin, count, thread, size):
    """Return this thread's sum of losses; add the jets of the block to ``counts (25,)``, true class first."""
    loss = 0.0
    for j in range(thread, count, size):
        label, peak, guess, mass, own = int(item(labels, j)), item(a, z0 + j), 0, ZERO, ZERO
        for c in range(1, CLASSES):
            z = item(a, z0 + c * stride + j)
            if z > peak:
                peak, guess = z, c
        for c in range(CLASSES):
            z = item(a, z0 + c * stride + j)
            if logits.shape[0]:
                logits[begin + j, c] = z
            mass += math.exp(z - peak)
            if c == label:
                own = z - peak
        loss += math.log(mass) - own
        put(labels, j, np.float32(label * CLASSES + guess))
    sync()
    for cell in range(thread, CLASSES * CLASSES, size):
        seen = 0
        for j in range(count):
            if int(item(labels, j)) == cell:
                seen += 1
        counts[cell] += seen
    sync()
    return loss


def train_source(shared: tuple[bool, ...]) -> Callable[..., None]:
    """Return the kernel whose parts lie in shared memory where ``shared`` says so."""
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 = shared

    def train(
        table, weights_at, running_at, places, flat, first, second, running, spare, x, y, orders, order_of, rates,
        settings, factors, losses, hits, sizes, span,
    ):  # fmt: skip
        k, thread, size = int64(cuda.blockIdx.x), int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
        who = thread, size, thread % span, span, thread // span, size // span
        fast, slow, p = cuda.shared.array(0, float32), spare[k], places
        # Constants choose: the compiler then knows which memory it is, and needs no generic address.
        parts = (
            (fast if s0 else slow)[p[0, 0] : p[0, 1]], (fast if s1 else slow)[p[1, 0] : p[1, 1]],
            (fast if s2 else slow)[p[2, 0] : p[2, 1]], (fast if s3 else slow)[p[3, 0] : p[3, 1]],
            (fast if s4 else slow)[p[4, 0] : p[4, 1]], (fast if s5 else slow)[p[5, 0] : p[5, 1]],
            (fast if s6 else slow)[p[6, 0] : p[6, 1]], (fast if s7 else slow)[p[7, 0] : p[7, 1]],
            (fast if s8 else slow)[p[8, 0] : p[8, 1]], (fast if s9 else slow)[p[9, 0] : p[9, 1]],
        )  # fmt: skip
        weights = sizes[2]
        for i in range(thread, weights, size):
            put(parts[1], i, ZERO)
        _spread(parts[0], weights_at, flat[k], thread, size, weights)
        _spread(parts[2], weights_at, first[k], thread, size, weights)
        _spread(parts[3], weights_at, second[k], thread, size, weights)
        _spread(parts[4], running_at, running[k], thread, size, p[4, 1] - p[4, 0])
        sync()
        order, drawn = orders[order_of[k]], factors[order_of[k] % factors.shape[0]]
        _steps(table, parts, x, y, order, rates[k], settings[k], drawn, losses[k], hits[k], sizes, who)
        _collect(parts[0], weights_at, flat[k], thread, size)
        _collect(parts[2], weights_at, first[k], thread, size)
        _collect(parts[3], weights_at, second[k], thread, size)
        _collect(parts[4], running_at, running[k], thread, size)

    return train


def evaluate_source(shared: tuple[bool, ...]) -> Callable[..., None]:
    """Return the kernel that measures; a replica's rows are cut into pieces, which the blocks take in turn."""
    s0, s4, s5, s6, s8, s9 = (shared[part] for part in (0, 4, 5, 6, 8, 9))

    def evaluate(
        table, weights_at, running_at, places, flat, running, spare, x, y, rows_in_order, losses, counts, logits,
        rows, stride, tile, pieces, span,
    ):  # fmt: skip
        thread, size = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
        who = thread, size, thread % span, span, thread // span, size // span
        fast, slow, p = cuda.shared.array(0, float32), spare[cuda.blockIdx.x], places
        w, run = (fast if s0 else slow)[p[0, 0] : p[0, 1]], (fast if s4 else slow)[p[4, 0] : p[4, 1]]
        saved, a = (fast if s5 else slow)[p[5, 0] : p[5, 1]], (fast if s6 else slow)[p[6, 0] : p[6, 1]]
        labels, scratch = (fast if s8 else slow)[p[8, 0] : p[8, 1]], (fast if s9 else slow)[p[9, 0] : p[9, 1]]
        parts = w, w, w, w, run, saved, a, a, labels, scratch
        z0 = table[table.shape[0] - 1, OUT_AT] * stride
        for job in range(cuda.blockIdx.x, flat.shape[0] * pieces, cuda.gridDim.x):
            k, piece, loss = job // pieces, job % pieces, 0.0
            _spread(w, weights_at, flat[k], thread, size, p[0, 1] - p[0, 0])
            _spread(run, running_at, running[k], thread, size, p[4, 1] - p[4, 0])
            sync()
            for begin in range(piece * tile, rows, pieces * tile):
                count = lesser(tile, rows - begin)
                _gather(a, labels, stride, x, y, rows_in_order, begin, count, thread, size)
                _forward(table, parts, stride, count, False, spare[0], 0, who)
                wanted = logits[k % logits.shape[0]]
                loss += _judge(a, z0, labels, counts[job], wanted, stride, begin, count, thread, size)
            losses[job, thread] = loss

    return evaluate


_INTS, _FLOATS, _TABLE, _ROWS = int32[::1], float32[::1], int32[:, ::1], float32[:, ::1]
TRAIN_TYPES = void(
    _TABLE, _INTS, _INTS, _TABLE, _ROWS, _ROWS, _ROWS, _ROWS, _ROWS, _FLOATS, int8[::1], _TABLE, _INTS,
    float32[:, :, ::1], _ROWS, _ROWS, _ROWS, _ROWS, types.UniTuple(int64, 8), int64,
)  # fmt: skip
EVALUATE_TYPES = void(
    _TABLE, _INTS, _INTS, _TABLE, _ROWS, _ROWS, _ROWS, _FLOATS, int8[::1], _INTS, float64[:, ::1], _TABLE,
    float32[:, :, ::1], int64, int64, int64, int64, int64,
)  # fmt: skip


@lru_cache(maxsize=32)
def train_kernel(shared: tuple[bool, ...]) -> Any:
    """Return the training kernel, compiled for the device, whose parts lie in shared memory where ``shared`` says so.

    Raises what Numba raises where it has no device, or no compiler for it.
    """
    return cuda.jit(TRAIN_TYPES, **KERNEL_OPTIONS)(train_source(shared))


@lru_cache(maxsize=32)
def evaluate_kernel(shared: tuple[bool, ...]) -> Any:
    """Return the evaluation kernel, compiled likewise."""
    return cuda.jit(EVALUATE_TYPES, **KERNEL_OPTIONS)(evaluate_source(shared))

"""The CUDA kernel: a thread block trains one replica, many steps in one launch, hundreds of replicas in a grid.

It reads the same layer table as ``backends.cpu.kernel`` and does the same arithmetic. The state of a replica
(``backends.cuda.memory_layout``) is in shared memory as far as it fits; jets, batch order and dropout masks are read
from global memory. The order of additions depends on the shape of the work alone, and there are no atomics: results are
identical to the bit in every launch, with any other replicas in the grid.
"""

# Numba infers types from the signature of the kernel; there are no annotations.
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
from jsc_explore.training.backends.cuda.jit import (
    KERNEL_OPTIONS,
    ONE,
    ZERO,
    device,
    item,
    minimum,
    put,
    sum_parts,
    sync,
)
from jsc_explore.training.backends.cuda.layers import (
    activate,
    activate_backward,
    dropout,
    linear_backward_input,
    linear_backward_weights,
    linear_forward,
    norm_backward,
    norm_forward,
    relu_backward,
)

# Defaults of torch.optim.Adam.
BETA1, BETA2, ADAM_EPS = np.float32(0.9), np.float32(0.999), np.float32(1e-8)
# Threads that add partial sums of the loss before one thread adds theirs; a power of two.
_PARTIAL_SUMS = 16


@device
def _forward(table, sections, stride, count, training, masks, mask_at, ids):
    w, _, _, _, running, saved, a, _, _, scratch = sections
    for k in range(table.shape[0]):
        kind, inputs, outputs = table[k, KIND], table[k, INPUTS], table[k, OUTPUTS]
        x, y, at, relu = table[k, IN_AT] * stride, table[k, OUT_AT] * stride, table[k, WEIGHTS_AT], table[k, HAS_RELU]
        if kind == LINEAR:
            linear_forward(w, at, inputs, outputs, a, x, y, stride, count, relu != 0, ids)
        elif kind == NORM:
            r, s = table[k, RUNNING_AT], table[k, SAVED_AT]
            norm_forward(w, at, inputs, running, r, saved, s, scratch, a, x, y, stride, count, training, relu != 0, ids)
        elif kind != DROPOUT:
            activate(kind, a, x, y, inputs, stride, count, ids)
        elif training:
            dropout(masks, mask_at, a, x, y, inputs, stride, count, ids)
            mask_at += count * inputs
        else:
            _, _, lane, span, group, groups = ids
            for f in range(group, inputs, groups):
                for j in range(f * stride + lane, f * stride + count, span):
                    put(a, y + j, item(a, x + j))
            sync()


@device
def _backward(table, sections, max_width, stride, count, masks, mask_end, ids):
    """Go back through the layers; gradients of outputs and inputs alternate between the two halves of DELTAS."""
    w, g, _, _, _, saved, a, d, _, scratch = sections
    for k in range(table.shape[0] - 1, -1, -1):
        kind, inputs, outputs = table[k, KIND], table[k, INPUTS], table[k, OUTPUTS]
        needs_input, has_bias = table[k, NEEDS_INPUT] != 0, table[k, HAS_BIAS] != 0
        x, y, at, relu = table[k, IN_AT] * stride, table[k, OUT_AT] * stride, table[k, WEIGHTS_AT], table[k, HAS_RELU]
        dy, dx = k % 2 * max_width * stride, (k + 1) % 2 * max_width * stride
        if kind == LINEAR:
            if relu != 0:
                relu_backward(a, y, d, dy, outputs, stride, count, ids)
            linear_backward_weights(g, at, inputs, outputs, a, x, d, dy, scratch, stride, count, has_bias, ids)
            if needs_input:
                linear_backward_input(w, at, inputs, outputs, d, dy, dx, stride, count, ids)
            sync()
        elif kind == NORM:
            s = table[k, SAVED_AT]
            norm_backward(
                w, g, at, inputs, saved, s, scratch, a, x, y, d, dy, dx, stride, count, relu != 0, needs_input, ids
            )
        elif kind == DROPOUT:
            mask_end -= count * inputs
            dropout(masks, mask_end, d, dy, dx, inputs, stride, count, ids)
        else:
            activate_backward(kind, a, x, y, d, dy, dx, inputs, stride, count, ids)


@device
def _load_batch(a, labels, stride, x, y, order, begin, count, thread, size):
    """Load ``count`` jets from ``order[begin]`` on, feature-major, and their labels."""
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
def _cross_entropy(a, z0, d, d0, labels, scratch, stride, count, thread, size):
    """Write the gradient of the mean cross-entropy; return mean loss and correct jets, valid in thread 0 only."""
    inv_count, losses, correct = ONE / np.float32(count), ZERO, ZERO
    for j in range(thread, count, size):
        label, max_z, predicted = int(item(labels, j)), item(a, z0 + j), 0
        for c in range(1, CLASSES):
            z = item(a, z0 + c * stride + j)
            if z > max_z:
                max_z, predicted = z, c
        exp_sum, label_z = ZERO, ZERO
        for c in range(CLASSES):
            z = item(a, z0 + c * stride + j) - max_z
            e = math.exp(z)
            exp_sum += e
            if c == label:
                label_z = z
            put(d, d0 + c * stride + j, e)
        scale = inv_count / exp_sum
        for c in range(CLASSES):
            to = d0 + c * stride + j
            put(d, to, item(d, to) * scale - (inv_count if c == label else ZERO))
        losses += math.log(exp_sum) - label_z
        if predicted == label:
            correct += ONE
    put(scratch, thread, losses)
    put(scratch, size + thread, correct)
    sync()
    few = minimum(size, _PARTIAL_SUMS)
    if thread < few:
        # No thread reads what another one reads here, so that it may overwrite its input.
        losses = sum_parts(scratch, thread, few, size // few)
        correct = sum_parts(scratch, size + thread, few, size // few)
        put(scratch, thread, losses)
        put(scratch, size + thread, correct)
    sync()
    if thread == 0:
        losses, correct = sum_parts(scratch, 0, 1, few), sum_parts(scratch, size, 1, few)
    # The backward pass writes to SCRATCH.
    sync()
    return losses * inv_count, correct


@device
def _optimizer_step(sections, kind, rate, scale, correction, momentum, decay, weights, thread, size):
    """Take one optimizer step; ``scale`` is rate / (1 - beta1**t), ``correction`` is 1 / sqrt(1 - beta2**t)."""
    w, gradient, first, second, i = sections[0], sections[1], sections[2], sections[3], thread
    if kind == SGD:
        while i < weights:
            u = item(w, i)
            g = u * decay + item(gradient, i)
            velocity = item(first, i) * momentum + g
            put(first, i, velocity)
            put(w, i, u - rate * (momentum * velocity + g))
            i += size
    else:
        keep_share, weight_decay = ONE, decay
        if kind == ADAMW:
            keep_share, weight_decay = ONE - rate * decay, ZERO
        while i < weights:
            u = item(w, i) * keep_share
            g = u * weight_decay + item(gradient, i)
            old = item(first, i)
            m, v = (g - old) * (ONE - BETA1) + old, g * g * (ONE - BETA2) + item(second, i) * BETA2
            put(first, i, m)
            put(second, i, v)
            put(w, i, u - scale * (m / (math.sqrt(v) * correction + ADAM_EPS)))
            i += size
    sync()


@device
def _scatter(section, indices, flat, thread, size, total):
    """Copy a flat state tensor to its padded section, and set the padding to zero."""
    for i in range(thread, total, size):
        put(section, i, ZERO)
    sync()
    for i in range(thread, indices.shape[0], size):
        put(section, item(indices, i), item(flat, i))


@device
def _gather(section, indices, flat, thread, size):
    """Copy a padded section back to its flat state tensor."""
    for i in range(thread, indices.shape[0], size):
        put(flat, i, item(section, item(indices, i)))


@device
def _steps(table, sections, x, y, order, rates, settings, masks, losses, correct, sizes, ids):
    """Take the steps of one replica."""
    max_width, stride, weights, rows, start, stop, batch, kind = sizes
    thread, size, final = ids[0], ids[1], table.shape[0] - 1
    a, d, labels, scratch = sections[6], sections[7], sections[8], sections[9]
    z0, d0, mask_values, mask_at = table[final, OUT_AT] * stride, final % 2 * max_width * stride, int64(0), int64(0)
    for k in range(table.shape[0]):
        if table[k, KIND] == DROPOUT:
            mask_values += table[k, INPUTS]
    for step in range(start, stop):
        begin, at = step * batch, step - start
        count = minimum(batch, rows - begin)
        _load_batch(a, labels, stride, x, y, order, begin, count, thread, size)
        _forward(table, sections, stride, count, True, masks, mask_at, ids)
        loss, hits = _cross_entropy(a, z0, d, d0, labels, scratch, stride, count, thread, size)
        if thread == 0:
            losses[at], correct[at] = loss, hits
        mask_at += mask_values * count
        _backward(table, sections, max_width, stride, count, masks, mask_at, ids)
        _optimizer_step(
            sections, kind, rates[0, at], rates[1, at], rates[2, at], settings[0], settings[1], weights, thread, size
        )


@device
def _evaluate_tile(a, z0, labels, counts, logits, stride, begin, count, thread, size):
    """Return the sum of losses of this thread; add the jets of the batch to ``counts (25,)``, true class first."""
    loss = 0.0
    for j in range(thread, count, size):
        label, max_z, predicted, exp_sum, label_z = int(item(labels, j)), item(a, z0 + j), 0, ZERO, ZERO
        for c in range(1, CLASSES):
            z = item(a, z0 + c * stride + j)
            if z > max_z:
                max_z, predicted = z, c
        for c in range(CLASSES):
            z = item(a, z0 + c * stride + j)
            if logits.shape[0]:
                logits[begin + j, c] = z
            exp_sum += math.exp(z - max_z)
            if c == label:
                label_z = z - max_z
        loss += math.log(exp_sum) - label_z
        put(labels, j, np.float32(label * CLASSES + predicted))
    sync()
    for cell in range(thread, CLASSES * CLASSES, size):
        jets = 0
        for j in range(count):
            if int(item(labels, j)) == cell:
                jets += 1
        counts[cell] += jets
    sync()
    return loss


def train_source(shared: tuple[bool, ...]) -> Callable[..., None]:
    """Return the training kernel for the sections in shared memory given by ``shared``."""
    s0, s1, s2, s3, s4, s5, s6, s7, s8, s9 = shared

    def train(
        table, weights_at, running_at, bounds, flat, first, second, running, gmem_rows, x, y, orders, order_of, rates,
        settings, masks, losses, correct, sizes, span,
    ):  # fmt: skip
        k, thread, size = int64(cuda.blockIdx.x), int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
        ids = thread, size, thread % span, span, thread // span, size // span
        smem, gmem, p = cuda.shared.array(0, float32), gmem_rows[k], bounds
        # The conditions are constants: the compiler knows which memory it is, and needs no generic addresses.
        sections = (
            (smem if s0 else gmem)[p[0, 0] : p[0, 1]], (smem if s1 else gmem)[p[1, 0] : p[1, 1]],
            (smem if s2 else gmem)[p[2, 0] : p[2, 1]], (smem if s3 else gmem)[p[3, 0] : p[3, 1]],
            (smem if s4 else gmem)[p[4, 0] : p[4, 1]], (smem if s5 else gmem)[p[5, 0] : p[5, 1]],
            (smem if s6 else gmem)[p[6, 0] : p[6, 1]], (smem if s7 else gmem)[p[7, 0] : p[7, 1]],
            (smem if s8 else gmem)[p[8, 0] : p[8, 1]], (smem if s9 else gmem)[p[9, 0] : p[9, 1]],
        )  # fmt: skip
        weights = sizes[2]
        for i in range(thread, weights, size):
            put(sections[1], i, ZERO)
        _scatter(sections[0], weights_at, flat[k], thread, size, weights)
        _scatter(sections[2], weights_at, first[k], thread, size, weights)
        _scatter(sections[3], weights_at, second[k], thread, size, weights)
        _scatter(sections[4], running_at, running[k], thread, size, p[4, 1] - p[4, 0])
        sync()
        order, drawn = orders[order_of[k]], masks[order_of[k] % masks.shape[0]]
        _steps(table, sections, x, y, order, rates[k], settings[k], drawn, losses[k], correct[k], sizes, ids)
        _gather(sections[0], weights_at, flat[k], thread, size)
        _gather(sections[2], weights_at, first[k], thread, size)
        _gather(sections[3], weights_at, second[k], thread, size)
        _gather(sections[4], running_at, running[k], thread, size)

    return train


def evaluate_source(shared: tuple[bool, ...]) -> Callable[..., None]:
    """Return the evaluation kernel; a block takes every n-th task, a piece of the rows of one replica."""
    s0, s4, s5, s6, s8, s9 = (shared[part] for part in (0, 4, 5, 6, 8, 9))

    def evaluate(
        table, weights_at, running_at, bounds, flat, running, gmem_rows, x, y, row_order, losses, counts, logits,
        rows, stride, tile, pieces, span,
    ):  # fmt: skip
        thread, size = int64(cuda.threadIdx.x), int64(cuda.blockDim.x)
        ids = thread, size, thread % span, span, thread // span, size // span
        smem, gmem, p = cuda.shared.array(0, float32), gmem_rows[cuda.blockIdx.x], bounds
        w, run = (smem if s0 else gmem)[p[0, 0] : p[0, 1]], (smem if s4 else gmem)[p[4, 0] : p[4, 1]]
        saved, a = (smem if s5 else gmem)[p[5, 0] : p[5, 1]], (smem if s6 else gmem)[p[6, 0] : p[6, 1]]
        labels, scratch = (smem if s8 else gmem)[p[8, 0] : p[8, 1]], (smem if s9 else gmem)[p[9, 0] : p[9, 1]]
        sections = w, w, w, w, run, saved, a, a, labels, scratch
        z0 = table[table.shape[0] - 1, OUT_AT] * stride
        for task in range(cuda.blockIdx.x, flat.shape[0] * pieces, cuda.gridDim.x):
            k, piece, loss = task // pieces, task % pieces, 0.0
            _scatter(w, weights_at, flat[k], thread, size, p[0, 1] - p[0, 0])
            _scatter(run, running_at, running[k], thread, size, p[4, 1] - p[4, 0])
            sync()
            for begin in range(piece * tile, rows, pieces * tile):
                count = minimum(tile, rows - begin)
                _load_batch(a, labels, stride, x, y, row_order, begin, count, thread, size)
                _forward(table, sections, stride, count, False, gmem_rows[0], 0, ids)
                outputs = logits[k % logits.shape[0]]
                loss += _evaluate_tile(a, z0, labels, counts[task], outputs, stride, begin, count, thread, size)
            losses[task, thread] = loss

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
    """Return the compiled training kernel for the sections in shared memory given by ``shared``.

    Exceptions of Numba pass if it has no device, or no compiler for it.
    """
    return cuda.jit(TRAIN_TYPES, **KERNEL_OPTIONS)(train_source(shared))


@lru_cache(maxsize=32)
def evaluate_kernel(shared: tuple[bool, ...]) -> Any:
    """Return the compiled evaluation kernel."""
    return cuda.jit(EVALUATE_TYPES, **KERNEL_OPTIONS)(evaluate_source(shared))

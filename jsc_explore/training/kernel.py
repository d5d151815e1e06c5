"""The kernel: a fully connected network trained by one compiled function that interprets a table of layers.

Activations lie feature-major, so that every inner loop runs over the jets of a minibatch, a vector of them at a time;
rows are padded to whole vectors. Weights are ``(outputs, inputs)`` as in torch. One call trains many optimizer steps
(gather, forward, backward, update) without returning to Python and without allocating: everything lies in one array,
the arena, whose parts ``jsc_explore.training.program`` lays out; that module also names the columns of the table.

Offsets count float32 from the start of the arena.
"""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import __version__, config, float32, float64, int8, int32, int64, njit

from jsc_explore.paths import cache_dir
from jsc_explore.training import program, simd
from jsc_explore.training.kernel_elements import activate, activate_backward, drop, entropy, update
from jsc_explore.training.kernel_inner import ONE, ZERO, inner, masked
from jsc_explore.training.kernel_linear import linear_forward, linear_input, linear_weights
from jsc_explore.training.kernel_norm import norm_backward, norm_forward
from jsc_explore.training.program import (
    ACTIVATIONS,
    CLASSES,
    DELTAS,
    DROPOUT,
    GRADIENT,
    HAS_BIAS,
    HAS_RELU,
    IN_AT,
    INPUTS,
    KIND,
    LABELS,
    LINEAR,
    NEEDS_INPUT,
    NORM,
    OUT_AT,
    OUTPUTS,
    RUNNING,
    RUNNING_AT,
    SAVED,
    SAVED_AT,
    WEIGHTS,
    WEIGHTS_AT,
)
from jsc_explore.training.simd import (
    ROW,
    WIDTH,
    choose,
    exponential,
    fill,
    lanes,
    load,
    logarithm,
    prefetch,
    store,
    store_transposed,
)

# Rows asked for ahead of their use, so that the memory's latency passes while others are worked on.
_AHEAD = 64


@inner
def _forward(ops, a, places, stride, blocks, count, tail, training, factors, factors_at):
    acts = places[ACTIVATIONS]
    for k in range(ops.shape[0]):
        kind, inputs, outputs = ops[k, KIND], ops[k, INPUTS], ops[k, OUTPUTS]
        x, y = acts + ops[k, IN_AT] * stride, acts + ops[k, OUT_AT] * stride
        at, relu = places[WEIGHTS] + ops[k, WEIGHTS_AT], ops[k, HAS_RELU] != 0
        if kind == LINEAR:
            linear_forward(a, at, inputs, outputs, x, y, stride, blocks, relu)
        elif kind == NORM:
            running, saved = places[RUNNING] + ops[k, RUNNING_AT], places[SAVED] + ops[k, SAVED_AT]
            norm_forward(a, at, inputs, running, saved, x, y, stride, blocks, count, tail, training, relu)
        elif kind != DROPOUT:
            activate(a, kind, x, y, inputs * stride)
        elif training:
            drop(a, factors, factors_at, inputs, count, x, y, stride)
            factors_at += count * inputs
        else:
            for i in range(0, inputs * stride, WIDTH):
                store(a, y + i, load(a, x + i))


@inner
def _backward(ops, a, places, wide, stride, blocks, count, tail, factors, factors_end):
    """Go back through the layers; gradients of outputs and inputs take turns in the two halves of the deltas."""
    acts, step = places[ACTIVATIONS], places[GRADIENT] - places[WEIGHTS]
    for k in range(ops.shape[0] - 1, -1, -1):
        kind, inputs, outputs, deep = ops[k, KIND], ops[k, INPUTS], ops[k, OUTPUTS], ops[k, NEEDS_INPUT] != 0
        x, y = acts + ops[k, IN_AT] * stride, acts + ops[k, OUT_AT] * stride
        at, relu = places[WEIGHTS] + ops[k, WEIGHTS_AT], ops[k, HAS_RELU] != 0
        d, dx = places[DELTAS] + (k % 2) * wide * stride, places[DELTAS] + ((k + 1) % 2) * wide * stride
        if kind == LINEAR:
            if relu:
                for o in range(0, outputs * stride, stride):
                    for i in range(o, o + blocks * WIDTH, WIDTH):
                        masked(a, y + i, d + i, fill(ZERO))
            linear_weights(a, at + step, inputs, outputs, x, d, stride, blocks, ops[k, HAS_BIAS] != 0)
            if deep:
                linear_input(a, at, inputs, outputs, d, dx, stride, blocks)
        elif kind == NORM:
            saved = places[SAVED] + ops[k, SAVED_AT]
            norm_backward(a, at, at + step, inputs, saved, x, y, d, dx, stride, blocks, count, tail, relu, deep)
        elif kind == DROPOUT:
            factors_end -= count * inputs
            drop(a, factors, factors_end, inputs, count, d, dx, stride)
        else:
            activate_backward(a, kind, x, y, d, dx, inputs * stride)


_TABLE, _ARENA, _PLACES = int64[:, ::1], float32[::1], int64[::1]
_TRAIN = (
    _TABLE, _ARENA, _PLACES, int64, int64, float32[::1], int8[::1], int32[::1], int64, int64, int64, int64,
    int64, float32[::1], float32[::1], float32[::1], float32, float32, float32[::1], float32[::1], float32[::1],
)  # fmt: skip
_EVALUATE = (_TABLE, _ARENA, _PLACES, float32[::1], int8[::1], int64, int64, int64, int64[:, ::1], float32[:, ::1])


def _train(
    ops, a, places, wide, stride, x, y, order, rows, start, stop, batch,
    kind, rates, scales, corrections, momentum, decay, factors, losses, hits,
):  # fmt: skip
    final = ops.shape[0] - 1
    acts, labels = places[ACTIVATIONS], places[LABELS]
    z0, d0 = acts + ops[final, OUT_AT] * stride, places[DELTAS] + (final % 2) * wide * stride
    drops, factors_at = 0, 0
    for k in range(ops.shape[0]):
        if ops[k, KIND] == DROPOUT:
            drops += ops[k, INPUTS]
    for step in range(start, stop):
        begin = step * batch
        count = min(batch, rows - begin)
        blocks = (count + WIDTH - 1) // WIDTH
        tail = choose(fill(np.float32(count - (blocks - 1) * WIDTH)) > lanes(), fill(ONE), fill(ZERO))
        for i in range(0, blocks * WIDTH, WIDTH):
            for row in range(begin + i + _AHEAD, min(begin + i + _AHEAD + WIDTH, rows)):
                prefetch(x, order[row] * ROW)
            store_transposed(x, order, begin + i, a, acts + i, stride)
            for lane in range(WIDTH):
                a[labels + i + lane] = np.float32(y[order[begin + i + lane]])
        _forward(ops, a, places, stride, blocks, count, tail, True, factors, factors_at)
        loss, hit = entropy(a, z0, d0, labels, stride, blocks, count, tail)
        factors_at += drops * count
        _backward(ops, a, places, wide, stride, blocks, count, tail, factors, factors_at)
        at = step - start
        update(a, places, kind, rates[at], scales[at], corrections[at], momentum, decay)
        losses[at], hits[at] = loss, hit


def _evaluate(ops, a, places, x, y, rows, batch, stride, confusion, logits):
    z0 = places[ACTIVATIONS] + ops[ops.shape[0] - 1, OUT_AT] * stride
    one, zero, loss = fill(ONE), fill(ZERO), 0.0
    guesses, entropies, nothing = np.empty(WIDTH, np.float32), np.empty(WIDTH, np.float32), np.empty(0, np.float32)
    index = np.empty(batch, np.int32)
    for begin in range(0, rows, batch):
        count = min(batch, rows - begin)
        blocks = (count + WIDTH - 1) // WIDTH
        for i in range(blocks * WIDTH):
            index[i] = min(begin + i, rows - 1)
        for i in range(0, blocks * WIDTH, WIDTH):
            store_transposed(x, index, i, a, places[ACTIVATIONS] + i, stride)
        _forward(ops, a, places, stride, blocks, count, one, False, nothing, 0)
        part = 0.0
        for i in range(0, blocks * WIDTH, WIDTH):
            peak, guess, mass = load(a, z0 + i), zero, zero
            for c in range(1, CLASSES):
                z = load(a, z0 + c * stride + i)
                higher = z > peak
                peak, guess = choose(higher, z, peak), choose(higher, fill(np.float32(c)), guess)
            for c in range(CLASSES):
                mass = mass + exponential(load(a, z0 + c * stride + i) - peak)
            store(guesses, 0, guess)
            store(entropies, 0, logarithm(mass) + peak)
            for lane in range(min(WIDTH, count - i)):
                true = y[begin + i + lane]
                part += entropies[lane] - a[z0 + true * stride + i + lane]
                confusion[true, int(guesses[lane])] += 1
        loss += part
        if logits.shape[0]:
            for i in range(count):
                for c in range(CLASSES):
                    logits[begin + i, c] = a[z0 + c * stride + i]
    return loss


@dataclass(frozen=True)
class Kernel:
    """The two compiled functions; both release Python's lock."""

    train: Callable[..., None]
    evaluate: Callable[..., float]


@lru_cache(maxsize=1)
def kernel() -> Kernel:
    """Return the compiled functions: seconds on a machine that never had them, a fifth of one from the cache on disk.

    Processes that need them at once wait for the first to compile, instead of each compiling its own.
    """
    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    config.CACHE_DIR = str(folder)
    options: Any = {"nogil": True, "error_model": "numpy", "cache": True}
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return Kernel(njit(_TRAIN, **options)(_train), njit(float64(*_EVALUATE), **options)(_evaluate))


def _cache_folder() -> Path:
    """Return a folder of this very kernel: Numba itself would only notice a change of this one file."""
    digest = hashlib.sha256(__version__.encode())
    for path in [*sorted(Path(__file__).parent.glob("kernel*.py")), Path(program.__file__), Path(simd.__file__)]:
        digest.update(path.read_bytes())
    return cache_dir() / "kernel" / digest.hexdigest()[:16]

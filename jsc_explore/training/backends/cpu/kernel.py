"""The kernel: a fully connected network trained by one compiled function that interprets a table of layers.

Activations lie feature-major, so that every inner loop runs over the jets of a minibatch, a vector of them at a time;
rows are padded to whole vectors. Weights are ``(outputs, inputs)`` as in torch. One call trains many optimizer steps
(gather, forward, backward, update) without returning to Python and without allocating: everything lies in one array,
the arena, whose parts ``layer_table`` lays out; that module also names the columns of the table.

Offsets count float32 from the start of the arena.
"""

# What Numba compiles is typed by the kernel's signature, not by annotations.
# mypy: ignore-errors

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numba import __version__, config, float32, float64, int8, int32, int64, njit
from numba.core import entrypoints
from numba.core.codegen import CPUCodeLibrary, JITCPUCodegen
from numba.core.compiler_lock import global_compiler_lock

from jsc_explore.paths import cache_dir
from jsc_explore.training.backends.cpu.batch_norm import norm_backward, norm_forward
from jsc_explore.training.backends.cpu.elementwise import (
    activate,
    activate_backward,
    drop,
    drop_backward,
    entropy,
    update,
)
from jsc_explore.training.backends.cpu.jit import ONE, ZERO, column, floor_of, inner
from jsc_explore.training.backends.cpu.layer_table import (
    ACTIVATIONS,
    CLASSES,
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
    SUMS,
    WEIGHTS,
    WEIGHTS_AT,
)
from jsc_explore.training.backends.cpu.linear import linear_forward, linear_input, linear_weights
from jsc_explore.training.backends.cpu.simd import (
    ROW,
    WIDTH,
    address,
    exponential,
    fill,
    fused,
    item,
    lanes,
    load,
    logarithm,
    prefetch,
    put,
    select,
    store,
)
from jsc_explore.training.backends.cpu.simd_reduce import store_transposed

# Every file that the compiled function is made of; a change of any of them compiles it anew.
SOURCES = (
    "batch_norm.py", "elementwise.py", "jit.py", "kernel.py", "layer_table.py", "linear.py",
    "simd.py", "simd_matmul.py", "simd_reduce.py",
)  # fmt: skip


@inner
def _forward(ops, layers, a, places, stride, blocks, count, tail, training, factors, factors_at):
    acts = item(places, ACTIVATIONS)
    for k in range(layers):
        kind, inputs, outputs = column(ops, k, KIND), column(ops, k, INPUTS), column(ops, k, OUTPUTS)
        x, y = acts + column(ops, k, IN_AT) * stride, acts + column(ops, k, OUT_AT) * stride
        at, floor = item(places, WEIGHTS) + column(ops, k, WEIGHTS_AT), floor_of(column(ops, k, HAS_RELU) != 0)
        if kind == LINEAR:
            linear_forward(a, at, inputs, outputs, x, y, stride, blocks, floor)
        elif kind == NORM:
            running, saved = item(places, RUNNING) + column(ops, k, RUNNING_AT), item(places, SAVED)
            saved, sums = saved + column(ops, k, SAVED_AT), item(places, SUMS)
            norm_forward(a, at, inputs, running, saved, sums, x, y, stride, blocks, count, tail, training, floor)
        elif kind != DROPOUT:
            activate(a, kind, x, y, inputs * stride)
        elif training:
            drop(a, factors, factors_at, inputs, count, x, y, stride)
            factors_at += count * inputs
        else:
            for i in range(0, inputs * stride, WIDTH):
                store(a, y + i, load(a, x + i))


@inner
def _backward(ops, layers, a, places, stride, blocks, count, tail, factors, factors_end):
    """Go back through the layers.

    The gradient of an activation takes its place, as soon as that has been read for the last time: a batch and its
    gradients so fit into the nearest cache. Who writes a gradient applies the ReLU that made the activation.
    """
    acts, step = item(places, ACTIVATIONS), item(places, GRADIENT) - item(places, WEIGHTS)
    for k in range(layers - 1, -1, -1):
        kind, inputs, outputs = column(ops, k, KIND), column(ops, k, INPUTS), column(ops, k, OUTPUTS)
        x, d = acts + column(ops, k, IN_AT) * stride, acts + column(ops, k, OUT_AT) * stride
        at, deep = item(places, WEIGHTS) + column(ops, k, WEIGHTS_AT), column(ops, k, NEEDS_INPUT) != 0
        floor = floor_of(k > 0 and column(ops, max(k - 1, 0), HAS_RELU) != 0)
        if kind == LINEAR:
            linear_weights(a, at + step, inputs, outputs, x, d, stride, blocks, column(ops, k, HAS_BIAS) != 0)
            if deep:
                linear_input(a, at, inputs, outputs, x, d, stride, blocks, floor)
        elif kind == NORM:
            saved, sums = item(places, SAVED) + column(ops, k, SAVED_AT), item(places, SUMS)
            norm_backward(a, at, at + step, inputs, saved, sums, x, d, stride, blocks, count, tail, floor, deep)
        elif kind == DROPOUT:
            factors_end -= count * inputs
            drop_backward(a, factors, factors_end, inputs, count, x, d, stride, floor)
        else:
            activate_backward(a, kind, x, d, inputs * stride, floor)


@inner
def _gather(a, to, labels, stride, x, y, order, begin, blocks, first, last):
    """Bring jets ``order[begin:]`` and their labels into the arena; ask for those from ``first`` to ``last``."""
    for i in range(0, blocks * WIDTH, WIDTH):
        store_transposed(x, order, begin + i, a, to + i, stride)
        for lane in range(WIDTH):
            put(a, labels + i + lane, np.float32(item(y, item(order, begin + i + lane))))
    for row in range(first, last):
        prefetch(x, item(order, row) * ROW)
        prefetch(y, item(order, row))


_ROWS, _FLOATS = (float32[::1], int8[::1], int32[::1]), float32[::1]
_TRAIN = (
    int64[:, ::1], _FLOATS, int64[::1], int64, *_ROWS, int64, int64, int64, int64,
    int64, _FLOATS, _FLOATS, _FLOATS, float32, float32, _FLOATS, _FLOATS, _FLOATS,
)  # fmt: skip
_EVALUATE = (
    int64[:, ::1], _FLOATS, int64[::1], *_ROWS, int64, int64, int64, int64[:, ::1], float32[:, ::1],
)  # fmt: skip


def _train(
    table, arena, parts, stride, features, classes, rows_in_order, rows, start, stop, batch,
    kind, rates, scales, corrections, momentum, decay, drawn, losses, hits,
):  # fmt: skip
    ops, layers, a, places, factors = address(table), table.shape[0], address(arena), address(parts), address(drawn)
    x, y, order = address(features), address(classes), address(rows_in_order)
    acts, labels, final = item(places, ACTIVATIONS), item(places, LABELS), layers - 1
    z, floor = acts + column(ops, final, OUT_AT) * stride, floor_of(column(ops, final, HAS_RELU) != 0)
    drops, factors_at = 0, 0
    for k in range(layers):
        if column(ops, k, KIND) == DROPOUT:
            drops += column(ops, k, INPUTS)
    for step in range(start, stop):
        begin = step * batch
        count = min(batch, rows - begin)
        blocks = (count + WIDTH - 1) // WIDTH
        tail = select(fill(np.float32(count - (blocks - 1) * WIDTH)) > lanes(), fill(ONE), fill(ZERO))
        # The batches that come next lie all over memory: it has the time of a whole step, or of 64 jets, to fetch them.
        soon = begin + max(count, 64)
        _gather(a, acts, labels, stride, x, y, order, begin, blocks, soon, min(soon + count, rows))
        _forward(ops, layers, a, places, stride, blocks, count, tail, True, factors, factors_at)
        loss, hit = entropy(a, z, labels, stride, blocks, count, tail, floor)
        factors_at += drops * count
        _backward(ops, layers, a, places, stride, blocks, count, tail, factors, factors_at)
        at = step - start
        update(a, places, kind, rates[at], scales[at], corrections[at], momentum, decay)
        losses[at], hits[at] = loss, hit


def _evaluate(table, arena, parts, features, classes, rows_in_order, rows, batch, stride, confusion, logits):
    ops, layers, a, places = address(table), table.shape[0], address(arena), address(parts)
    x, y, order = address(features), address(classes), address(rows_in_order)
    acts, labels = item(places, ACTIVATIONS), item(places, LABELS)
    z0 = acts + column(ops, layers - 1, OUT_AT) * stride
    one, zero, loss = fill(ONE), fill(ZERO), 0.0
    for begin in range(0, rows, batch):
        count = min(batch, rows - begin)
        blocks = (count + WIDTH - 1) // WIDTH
        _gather(a, acts, labels, stride, x, y, order, begin, blocks, 0, 0)
        _forward(ops, layers, a, places, stride, blocks, count, one, False, a, 0)
        part = 0.0
        for i in range(0, blocks * WIDTH, WIDTH):
            peak, guess, mass, own = load(a, z0 + i), zero, zero, zero
            label = load(a, labels + i)
            for c in range(1, CLASSES):
                z = load(a, z0 + c * stride + i)
                higher = z > peak
                peak, guess = select(higher, z, peak), select(higher, fill(np.float32(c)), guess)
            for c in range(CLASSES):
                z = load(a, z0 + c * stride + i) - peak
                mass = mass + exponential(z)
                own = select(label == fill(np.float32(c)), z, own)
            # The first row of activations has been read; what is to be counted jet by jet takes its place.
            store(a, acts + i, logarithm(mass) - own)
            store(a, labels + i, fused(label, fill(np.float32(CLASSES)), guess))
        for i in range(count):
            part += item(a, acts + i)
            cell = int(item(a, labels + i))
            confusion[cell // CLASSES, cell % CLASSES] += 1
        loss += part
        if logits.shape[0]:
            for i in range(count):
                for c in range(CLASSES):
                    logits[begin + i, c] = item(a, z0 + c * stride + i)
    return loss


@dataclass(frozen=True)
class Kernel:
    """The two compiled functions; both release Python's lock."""

    train: Callable[..., None]
    evaluate: Callable[..., float]


@lru_cache(maxsize=1)
def kernel() -> Kernel:
    """Return the compiled functions: seconds on a machine that never had them, a fifth of one from the cache on disk.

    Of processes that need them at once, on a machine that never had them, one compiles and the others wait for it.
    """
    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    config.CACHE_DIR = str(folder)
    options: Any = {"nogil": True, "error_model": "numpy", "cache": True}
    made: dict[Any, Any] = {}
    compiled = folder / "compiled"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if compiled.exists() else fcntl.LOCK_EX)
        for function, signature in ((_train, _TRAIN), (_evaluate, float64(*_EVALUATE))):
            with _parts_left_to_the_whole(function.__name__):
                made[function] = njit(signature, **options)(function)
        compiled.touch()
    return Kernel(made[_train], made[_evaluate])


@contextmanager
def _parts_left_to_the_whole(name: str) -> Iterator[None]:
    """Have LLVM optimise and translate the function of this name alone, with everything that it inlines.

    Numba optimises each of the forty parts first, and all of them again within the whole, and makes machine code of
    each, which nobody calls: half of the compiling. Nor does the kernel need the types that other packages add to
    Numba, which would be imported now: a second.
    """
    library, extended = CPUCodeLibrary, entrypoints._already_initialized
    prepare, optimise = library._optimize_functions, library._optimize_final_module
    finalise, tell = library._finalize_final_module, JITCPUCodegen.set_env

    def prepare_whole(part, module):
        if part.name == name:
            prepare(part, module)
        else:
            module.data_layout = part._codegen._data_layout

    def optimise_whole(part):
        if part.name == name:
            optimise(part)

    def finalise_whole(part):
        if part.name == name:
            finalise(part)
        part._finalized = True

    def tell_whole(codegen, environment, value):
        if codegen._engine.is_symbol_defined(environment):
            tell(codegen, environment, value)

    with global_compiler_lock:
        library._optimize_functions, library._optimize_final_module = prepare_whole, optimise_whole
        library._finalize_final_module, JITCPUCodegen.set_env = finalise_whole, tell_whole
        entrypoints._already_initialized = True
        try:
            yield
        finally:
            library._optimize_functions, library._optimize_final_module = prepare, optimise
            library._finalize_final_module, JITCPUCodegen.set_env = finalise, tell
            entrypoints._already_initialized = extended


def _cache_folder() -> Path:
    """Return a folder of this very kernel: Numba itself would only notice a change of this one file."""
    digest = hashlib.sha256(__version__.encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return cache_dir() / "kernel" / digest.hexdigest()[:16]

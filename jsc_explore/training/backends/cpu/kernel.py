"""The kernel: one compiled function that trains a fully connected network by interpreting its layer table.

Activations are stored feature-major, so that the inner loops run over the jets of a minibatch, one SIMD vector at a
time; rows are padded to whole vectors. Weights are ``(outputs, inputs)`` as in torch. One call takes many optimizer
steps (load the batch, forward, backward, update) without returning to Python and without allocating: all state is in
one array, the arena. ``layer_table`` defines the columns of the table and the sections of the arena.

In the functions, ``a`` is the address of the arena, and all offsets count float32 from there. ``ops`` is the address of
the layer table, ``offsets`` that of the sections' offsets. A batch of ``count`` jets fills ``blocks`` vectors; ``tail``
is 1 in the lanes of the last vector that hold a jet, and 0 in its padding.
"""

# Numba infers types from the signature of the kernel; there are no annotations.
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
    cross_entropy,
    dropout,
    dropout_backward,
    optimizer_step,
)
from jsc_explore.training.backends.cpu.jit import ONE, ZERO, column, inner, relu_floor
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
from jsc_explore.training.backends.cpu.linear import linear_backward_input, linear_backward_weights, linear_forward
from jsc_explore.training.backends.cpu.simd import (
    ROW,
    WIDTH,
    address,
    exp,
    fma,
    item,
    lane_indices,
    load,
    log,
    prefetch,
    put,
    select,
    splat,
    store,
)
from jsc_explore.training.backends.cpu.simd_reduce import store_transposed

# The files of the compiled functions; a change of any of them compiles the functions again.
SOURCES = (
    "batch_norm.py", "elementwise.py", "jit.py", "kernel.py", "layer_table.py", "linear.py",
    "simd.py", "simd_matmul.py", "simd_reduce.py",
)  # fmt: skip


@inner
def _forward(ops, layers, a, offsets, stride, blocks, count, tail, training, masks, mask_at):
    acts = item(offsets, ACTIVATIONS)
    for k in range(layers):
        kind, inputs, outputs = column(ops, k, KIND), column(ops, k, INPUTS), column(ops, k, OUTPUTS)
        x, y = acts + column(ops, k, IN_AT) * stride, acts + column(ops, k, OUT_AT) * stride
        at, floor = item(offsets, WEIGHTS) + column(ops, k, WEIGHTS_AT), relu_floor(column(ops, k, HAS_RELU) != 0)
        if kind == LINEAR:
            linear_forward(a, at, inputs, outputs, x, y, stride, blocks, floor)
        elif kind == NORM:
            running, saved = item(offsets, RUNNING) + column(ops, k, RUNNING_AT), item(offsets, SAVED)
            saved, sums = saved + column(ops, k, SAVED_AT), item(offsets, SUMS)
            norm_forward(a, at, inputs, running, saved, sums, x, y, stride, blocks, count, tail, training, floor)
        elif kind != DROPOUT:
            activate(a, kind, x, y, inputs * stride)
        elif training:
            dropout(a, masks, mask_at, inputs, count, x, y, stride)
            mask_at += count * inputs
        else:
            for i in range(0, inputs * stride, WIDTH):
                store(a, y + i, load(a, x + i))


@inner
def _backward(ops, layers, a, offsets, stride, blocks, count, tail, masks, mask_end):
    """Go back through the layers.

    The gradient of an activation replaces it after its last use, so that a batch and its gradients fit in the L1 cache.
    The function that writes a gradient also applies the ReLU of that activation.
    """
    acts, step = item(offsets, ACTIVATIONS), item(offsets, GRADIENT) - item(offsets, WEIGHTS)
    for k in range(layers - 1, -1, -1):
        kind, inputs, outputs = column(ops, k, KIND), column(ops, k, INPUTS), column(ops, k, OUTPUTS)
        x, d = acts + column(ops, k, IN_AT) * stride, acts + column(ops, k, OUT_AT) * stride
        at, needs_input = item(offsets, WEIGHTS) + column(ops, k, WEIGHTS_AT), column(ops, k, NEEDS_INPUT) != 0
        floor = relu_floor(k > 0 and column(ops, max(k - 1, 0), HAS_RELU) != 0)
        if kind == LINEAR:
            linear_backward_weights(a, at + step, inputs, outputs, x, d, stride, blocks, column(ops, k, HAS_BIAS) != 0)
            if needs_input:
                linear_backward_input(a, at, inputs, outputs, x, d, stride, blocks, floor)
        elif kind == NORM:
            saved, sums = item(offsets, SAVED) + column(ops, k, SAVED_AT), item(offsets, SUMS)
            norm_backward(a, at, at + step, inputs, saved, sums, x, d, stride, blocks, count, tail, floor, needs_input)
        elif kind == DROPOUT:
            mask_end -= count * inputs
            dropout_backward(a, masks, mask_end, inputs, count, x, d, stride, floor)
        else:
            activate_backward(a, kind, x, d, inputs * stride, floor)


@inner
def _load_batch(a, to, labels, stride, x, y, order, begin, blocks, first, last):
    """Copy jets ``order[begin:]`` and their labels to the arena; prefetch those of ``order[first:last]``."""
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
    table, arena, section_offsets, stride, features, classes, row_order, rows, start, stop, batch,
    kind, rates, scales, corrections, momentum, decay, dropout_masks, losses, correct,
):  # fmt: skip
    ops, layers, a, offsets = address(table), table.shape[0], address(arena), address(section_offsets)
    x, y, order, masks = address(features), address(classes), address(row_order), address(dropout_masks)
    acts, labels, final = item(offsets, ACTIVATIONS), item(offsets, LABELS), layers - 1
    z0, floor = acts + column(ops, final, OUT_AT) * stride, relu_floor(column(ops, final, HAS_RELU) != 0)
    mask_values, mask_at = 0, 0
    for k in range(layers):
        if column(ops, k, KIND) == DROPOUT:
            mask_values += column(ops, k, INPUTS)
    for step in range(start, stop):
        begin = step * batch
        count = min(batch, rows - begin)
        blocks = (count + WIDTH - 1) // WIDTH
        tail = select(splat(np.float32(count - (blocks - 1) * WIDTH)) > lane_indices(), splat(ONE), splat(ZERO))
        # The jets of the next batch are scattered in memory: prefetch them one step, or at least 64 jets, ahead.
        next_rows = begin + max(count, 64)
        _load_batch(a, acts, labels, stride, x, y, order, begin, blocks, next_rows, min(next_rows + count, rows))
        _forward(ops, layers, a, offsets, stride, blocks, count, tail, True, masks, mask_at)
        loss, hits = cross_entropy(a, z0, labels, stride, blocks, count, tail, floor)
        mask_at += mask_values * count
        _backward(ops, layers, a, offsets, stride, blocks, count, tail, masks, mask_at)
        at = step - start
        optimizer_step(a, offsets, kind, rates[at], scales[at], corrections[at], momentum, decay)
        losses[at], correct[at] = loss, hits


def _evaluate(table, arena, section_offsets, features, classes, row_order, rows, batch, stride, confusion, logits):
    ops, layers, a, offsets = address(table), table.shape[0], address(arena), address(section_offsets)
    x, y, order = address(features), address(classes), address(row_order)
    acts, labels = item(offsets, ACTIVATIONS), item(offsets, LABELS)
    z0 = acts + column(ops, layers - 1, OUT_AT) * stride
    one, zero, loss = splat(ONE), splat(ZERO), 0.0
    for begin in range(0, rows, batch):
        count = min(batch, rows - begin)
        blocks = (count + WIDTH - 1) // WIDTH
        _load_batch(a, acts, labels, stride, x, y, order, begin, blocks, 0, 0)
        _forward(ops, layers, a, offsets, stride, blocks, count, one, False, a, 0)
        batch_loss = 0.0
        for i in range(0, blocks * WIDTH, WIDTH):
            max_z, predicted, exp_sum, label_z = load(a, z0 + i), zero, zero, zero
            label = load(a, labels + i)
            for c in range(1, CLASSES):
                z = load(a, z0 + c * stride + i)
                higher = z > max_z
                max_z, predicted = select(higher, z, max_z), select(higher, splat(np.float32(c)), predicted)
            for c in range(CLASSES):
                z = load(a, z0 + c * stride + i) - max_z
                exp_sum = exp_sum + exp(z)
                label_z = select(label == splat(np.float32(c)), z, label_z)
            # The first row of activations is no longer needed: it holds the losses, and the labels the confusion cells.
            store(a, acts + i, log(exp_sum) - label_z)
            store(a, labels + i, fma(label, splat(np.float32(CLASSES)), predicted))
        for i in range(count):
            batch_loss += item(a, acts + i)
            cell = int(item(a, labels + i))
            confusion[cell // CLASSES, cell % CLASSES] += 1
        loss += batch_loss
        if logits.shape[0]:
            for i in range(count):
                for c in range(CLASSES):
                    logits[begin + i, c] = item(a, z0 + c * stride + i)
    return loss


@dataclass(frozen=True)
class Kernel:
    """The two compiled functions; both release the GIL."""

    train: Callable[..., None]
    evaluate: Callable[..., float]


@lru_cache(maxsize=1)
def load_kernel() -> Kernel:
    """Return the compiled functions: compiling takes seconds, loading them from the cache on disk 0.2 s.

    If several processes need them and the cache is empty, one compiles and the others wait for it.
    """
    folder = _cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    config.CACHE_DIR = str(folder)
    options: Any = {"nogil": True, "error_model": "numpy", "cache": True}
    functions: dict[Any, Any] = {}
    compiled = folder / "compiled"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if compiled.exists() else fcntl.LOCK_EX)
        for function, signature in ((_train, _TRAIN), (_evaluate, float64(*_EVALUATE))):
            with _optimize_only(function.__name__):
                functions[function] = njit(signature, **options)(function)
        compiled.touch()
    return Kernel(functions[_train], functions[_evaluate])


@contextmanager
def _optimize_only(name: str) -> Iterator[None]:
    """Let LLVM optimize and compile only the function of this name, with everything that it inlines.

    By default Numba optimizes each of the forty inner functions, then all of them again within the outer one, and
    generates machine code of each that is never called: half of the compile time. The Numba types that other packages
    register are not needed either; importing them would take a second.
    """
    library, initialized = CPUCodeLibrary, entrypoints._already_initialized
    optimize_functions, optimize_module = library._optimize_functions, library._optimize_final_module
    finalize_module, set_env = library._finalize_final_module, JITCPUCodegen.set_env

    def optimize_functions_of_one(part, module):
        if part.name == name:
            optimize_functions(part, module)
        else:
            module.data_layout = part._codegen._data_layout

    def optimize_module_of_one(part):
        if part.name == name:
            optimize_module(part)

    def finalize_module_of_one(part):
        if part.name == name:
            finalize_module(part)
        part._finalized = True

    def set_env_of_one(codegen, environment, value):
        if codegen._engine.is_symbol_defined(environment):
            set_env(codegen, environment, value)

    with global_compiler_lock:
        library._optimize_functions, library._optimize_final_module = optimize_functions_of_one, optimize_module_of_one
        library._finalize_final_module, JITCPUCodegen.set_env = finalize_module_of_one, set_env_of_one
        entrypoints._already_initialized = True
        try:
            yield
        finally:
            library._optimize_functions, library._optimize_final_module = optimize_functions, optimize_module
            library._finalize_final_module, JITCPUCodegen.set_env = finalize_module, set_env
            entrypoints._already_initialized = initialized


def _cache_folder() -> Path:
    """Return a folder named by the hash of all sources: Numba itself notices changes of this file only."""
    digest = hashlib.sha256(__version__.encode())
    for name in SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return cache_dir() / "kernel" / digest.hexdigest()[:16]

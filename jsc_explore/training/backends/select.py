"""The rules that select a backend for a run. Without torch and Numba: the planning of jobs uses them, too."""

from __future__ import annotations

from math import prod

from jsc_explore.config import RunConfig

# Layer kinds that the kernels implement.
_KERNEL_LAYERS = ("linear", "batchnorm", "activation", "dropout")
# Seconds that a compiled program saves per step, and per jet of the batch if there are convolutions (`python -m bench
# stack`, rounded down). Constants, because the decision must be the same on every machine.
_SAVED_PER_STEP_S, _SAVED_PER_JET_S = 6e-4, 2.5e-6
# Compiling a program takes one core about 25 s, once: it serves every seed, learning rate and schedule. A run that
# saves this much is worth it: two configs of five such runs save the 25 s.
_MIN_SAVED_S = 2.5

# Parameters × batch size that one thread block processes while PyTorch launches the hundreds of small kernels of an
# eager step (about 3 ms), at a third of the bandwidth of its shared memory. Calculated, not measured.
_MAX_PRODUCTS = 16_000_000


def why_not_kernel(run: RunConfig) -> str | None:
    """Return why the CPU and GPU kernels cannot train this run, in a few words; None if they can."""
    if run.precision != "32-true":
        return f"precision {run.precision}"
    unknown = [layer.kind for layer in run.network.layers if layer.kind not in _KERNEL_LAYERS]
    return f"layer {unknown[0]}" if unknown else None


def why_not_gpu_kernel(run: RunConfig) -> str | None:
    """Return why the GPU kernel cannot or should not train this run, in a few words; None if it should."""
    if reason := why_not_kernel(run):
        return reason
    if run.network.parameters * run.batch_size <= _MAX_PRODUCTS:
        return None
    return f"{run.network.parameters:,} parameters at batch {run.batch_size} are much for a thread block"


def compiled_from(run: RunConfig, steps_per_epoch: int, device: str) -> int | None:
    """Return the epoch (from 0) from which a compiled program trains the run in the vmap backend; None: never.

    ``steps_per_epoch`` counts whole batches. The result depends on the run and its data alone, so that a run gives the
    same bits when it is repeated, resumed, or trained with other replicas in its stack. The first epoch is eager: its
    points come at once, while the program is compiled.
    """
    if device != "cpu":
        return None
    convolves = any(layer.kind in ("conv1d", "residual") for layer in run.network.layers)
    saved_per_step_s = _SAVED_PER_STEP_S + _SAVED_PER_JET_S * run.batch_size * convolves
    return 1 if (run.max_epochs - 1) * steps_per_epoch * saved_per_step_s >= _MIN_SAVED_S else None


# Replicas that one GPU trains at once: three blocks of 256 threads on each of an H200's 132 multiprocessors, rounded
# up. More would wait for a free multiprocessor, which delays the first point of every curve.
MAX_ON_GPU = 512
# GPU memory of a process other than its replicas: the CUDA context, a million jets, ten batch orders, an evaluation.
_GPU_RESERVE_BYTES = 1 << 30
# Copies of a replica's parameters: weights, gradient, two moments, best weights, and as many temporaries.
_COPIES = 16
# Copies of each activation that torch holds for the backward pass and as temporaries; the kernel holds one.
_TORCH_COPIES = 6


def max_gpu_replicas(run: RunConfig, memory_bytes: int) -> int:
    """Return the number of replicas of ``run`` to train at once on a GPU with ``memory_bytes`` for them."""
    sizes = [run.network.layers[0].shape_in, *(layer.shape_out for layer in run.network.layers)]
    values = sum(map(prod, sizes)) + 2 * max(map(prod, sizes))
    copies = _TORCH_COPIES if why_not_gpu_kernel(run) else 1
    each = 4 * (_COPIES * run.network.parameters + copies * values * (run.batch_size + 1))
    return max(1, min(MAX_ON_GPU, (memory_bytes - _GPU_RESERVE_BYTES) // each))

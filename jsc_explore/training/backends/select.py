"""Which engine trains what. No torch and no Numba here: whoever plans the work asks too."""

from __future__ import annotations

from math import prod

from jsc_explore.config import RunConfig

# What the kernel can say, in the words of the layer language.
_KERNEL_LAYERS = ("linear", "batchnorm", "activation", "dropout")
# Seconds that a compiled program saves a step, against a fifth of an eager stack of five, and a jet in it where there
# are convolutions (`python -m bench stack`, rounded down). They decide and must not follow the machine of the moment.
_SAVED_A_STEP_S, _SAVED_A_JET_S = 4e-4, 7e-6
# Making a program takes one core about 25 s, once: every seed, learning rate and schedule is stepped by the same one.
# Two configs of five seeds that each save this much have paid for it.
_REPAYS_S = 2.5

# Parameters × jets of a batch that one thread block takes in the time in which PyTorch launches the hundreds of small
# kernels of an eager step (some 3 ms), at a third of what its shared memory could deliver. Reckoned, not measured.
_MOST_PRODUCTS = 16_000_000


def why_not_kernel(run: RunConfig) -> str | None:
    """Return why neither kernel, the CPU's or the GPU's, can train this run, in a few words; None if one can."""
    if run.precision != "32-true":
        return f"precision {run.precision}"
    unknown = [layer.kind for layer in run.network.layers if layer.kind not in _KERNEL_LAYERS]
    return f"layer {unknown[0]}" if unknown else None


def why_not_gpu_kernel(run: RunConfig) -> str | None:
    """Return why the GPU's kernel cannot or should not train this run, in a few words; None if it should."""
    if reason := why_not_kernel(run):
        return reason
    wide = run.network.parameters * run.batch_size > _MOST_PRODUCTS
    return (
        f"{run.network.parameters:,} parameters at batch {run.batch_size} are much for a thread block" if wide else None
    )


def compiled_from(run: RunConfig, steps_per_epoch: int, device: str) -> int | None:
    """Return the epoch (from 0) at whose beginning a compiled program takes over in the stack; None: never.

    ``steps_per_epoch`` counts whole batches. The answer follows from the run and its data alone, so that a run that
    is repeated, resumed, or trained with other neighbours is stepped the same way. The first epoch is eager: its points
    come at once, and the program is made meanwhile.
    """
    if device != "cpu":
        return None
    convolves = any(layer.kind in ("conv1d", "residual") for layer in run.network.layers)
    a_step_s = _SAVED_A_STEP_S + _SAVED_A_JET_S * run.batch_size * convolves
    return 1 if (run.max_epochs - 1) * steps_per_epoch * a_step_s >= _REPAYS_S else None


# Replicas that one GPU trains at once: three blocks of 256 threads on each of an H200's 132 multiprocessors, rounded
# up; more would wait for their turn, and the first point of a curve with them.
_MOST_ON_GPU = 512
# What a process has on a GPU beside its replicas: CUDA itself, a million jets, ten orders of them, an evaluation.
_GPU_RESERVE_BYTES = 1 << 30
# Copies of a replica's parameters: weights, gradient, two moments, the best epoch's, and as many on their way.
_COPIES = 16
# What torch keeps of each activation for the way back, and makes on the way, where the kernel keeps one value.
_TORCH_COPIES = 6


def gpu_replicas(run: RunConfig, memory_bytes: int) -> int:
    """Return how many replicas of ``run`` shall train at once on a GPU that has ``memory_bytes`` for them."""
    sizes = [run.network.layers[0].shape_in, *(layer.shape_out for layer in run.network.layers)]
    values = sum(map(prod, sizes)) + 2 * max(map(prod, sizes))
    copies = _TORCH_COPIES if why_not_gpu_kernel(run) else 1
    each = 4 * (_COPIES * run.network.parameters + copies * values * (run.batch_size + 1))
    return max(1, min(_MOST_ON_GPU, (memory_bytes - _GPU_RESERVE_BYTES) // each))

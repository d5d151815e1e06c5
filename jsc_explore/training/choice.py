"""Which engine trains what. No torch and no Numba here: whoever plans the work asks too."""

from __future__ import annotations

from jsc_explore.config import RunConfig

# What the kernel can say, in the words of the layer language.
_KERNEL_LAYERS = ("linear", "batchnorm", "activation", "dropout")
# Seconds that a compiled program saves a step, against a fifth of an eager stack of five, and a jet in it where there
# are convolutions (`python -m bench stack`, rounded down). They decide and must not follow the machine of the moment.
_SAVED_A_STEP_S, _SAVED_A_JET_S = 4e-4, 7e-6
# Making a program takes one core about 25 s, once: every seed, learning rate and schedule is stepped by the same one.
# Two configs of five seeds that each save this much have paid for it.
_REPAYS_S = 2.5


def why_not_kernel(run: RunConfig) -> str | None:
    """Return why the kernel cannot train this run on a CPU, in a few words; None if it can."""
    if run.precision != "32-true":
        return f"precision {run.precision}"
    unknown = [layer.kind for layer in run.network.layers if layer.kind not in _KERNEL_LAYERS]
    return f"layer {unknown[0]}" if unknown else None


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

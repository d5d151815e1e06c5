"""Which engine trains what. No torch and no Numba here: whoever plans the work asks too."""

from __future__ import annotations

from jsc_explore.config import RunConfig

# What the kernel can say, in the words of the layer language.
_KERNEL_LAYERS = ("linear", "batchnorm", "activation", "dropout")


def why_not_kernel(run: RunConfig) -> str | None:
    """Return why the kernel cannot train this run on a CPU, in a few words; None if it can."""
    if run.precision != "32-true":
        return f"precision {run.precision}"
    unknown = [layer.kind for layer in run.network.layers if layer.kind not in _KERNEL_LAYERS]
    return f"layer {unknown[0]}" if unknown else None


def compiled_from(run: RunConfig, steps_per_epoch: int, device: str) -> int | None:
    """Return the epoch (from 0) at whose beginning a compiled program takes over in the stack; None: never.

    It follows from the run and its data alone, so that a run repeated or resumed is stepped the same way.
    """
    return 1 if device == "cpu" else None

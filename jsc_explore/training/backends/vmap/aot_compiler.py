"""Compile a program of the vmap backend in a subprocess: ``python -m …backends.vmap.aot_compiler SPEC PATH``.

Training starts it and continues meanwhile. It also finishes when that training is cancelled, for the next one.
"""

from __future__ import annotations

import fcntl
import json
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops import while_loop
from torch.fx.experimental.proxy_tensor import make_fx

from jsc_explore.config import RunConfig
from jsc_explore.training.backends.base import DeviceSplit
from jsc_explore.training.backends.vmap.aot import allocate_buffers
from jsc_explore.training.backends.vmap.backend import VmapBackend
from jsc_explore.training.backends.vmap.program import ProgramSpec, failure_marker
from jsc_explore.training.backends.vmap.step import Batch, Settings, State

# A compiler that hangs is killed after this time, which counts as a failure.
_TIMEOUT_S = 900
_STATE, _SETTINGS = len(State._fields), len(Settings._fields)


class _Steps(nn.Module):
    """A loop over the first ``count`` batches; ``step`` is the traced step of ``(*batch, *settings, *state)``."""

    def __init__(self, step: nn.Module, shape: tuple[int, int]) -> None:
        super().__init__()
        self.step, self.shape = step, shape

    def forward(self, count: Tensor, *tensors: Tensor) -> Sequence[Tensor]:
        batches, settings, state = _split(tensors)

        def is_unfinished(done: Tensor, *_: Tensor) -> Tensor:
            return done < count

        def body(done: Tensor, *carried: Tensor) -> Sequence[Tensor]:
            *state, losses, correct = carried
            index = done.view(1)
            batch = [tensor.index_select(0, index).squeeze(0) for tensor in batches]
            *updated, loss, hits = self.step(*batch, *settings, *state)
            return done + 1, *updated, losses.index_copy(0, index, loss[None]), correct.index_copy(0, index, hits[None])

        results = [torch.zeros(self.shape, device=count.device) for _ in range(2)]
        first = torch.zeros((), dtype=torch.int64, device=count.device)
        looped: Sequence[Tensor] = while_loop(  # type: ignore[no-untyped-call]
            is_unfinished, body, (first, *state, *results)
        )
        return looped[1:]


def compile_program(spec: ProgramSpec, path: Path) -> None:
    """Trace the eager step of one replica and write its loop as machine code to ``path``."""
    run = RunConfig(
        model=spec.model,
        final_relu=spec.final_relu,
        optimizer=spec.optimizer,
        precision=spec.precision,
        batch_size=spec.batch_size,
    )
    x, y = torch.zeros(2, 16, device=spec.device), torch.zeros(2, dtype=torch.int64, device=spec.device)
    backend = VmapBackend([run], DeviceSplit(x, y, x, y, x, y))
    jets, labels, rates, masks = allocate_buffers(spec)
    batches = [jets, labels, rates, *masks]
    # Copies: views of one tensor would be taken for one argument.
    inputs = [tensor.clone() for tensor in (*backend.settings([0]), *backend.state([0]))]

    def step(*tensors: Tensor) -> Sequence[Tensor]:
        (x, y, rate, *masks), settings, state = _split(tensors)
        updated, loss, correct = backend.step(State(*state), Settings(*settings), Batch(x, y, rate, masks))
        # Copies: a tensor that the step does not change would be both argument and result.
        return *(new.clone() for new in updated), loss.detach(), correct.float()

    with torch.no_grad():
        # Trace down to ATen first: export cannot trace gradients inside a loop.
        traced = make_fx(step, tracing_mode="fake")(*(tensor[0] for tensor in batches), *inputs)
        loop = _Steps(traced, (spec.steps, 1))
        count = torch.tensor(spec.steps, device=spec.device)
        exported = torch.export.export(loop, (count, *batches, *inputs), strict=False)
        partial = path.with_suffix(".partial.pt2")
        torch._inductor.aoti_compile_and_package(exported, package_path=str(partial))
    partial.replace(path)


def _split(tensors: Sequence[Tensor]) -> tuple[Any, Any, Any]:
    batches = len(tensors) - _SETTINGS - _STATE
    return tensors[:batches], tensors[batches:-_STATE], tensors[-_STATE:]


def main() -> None:
    """Compile one program; processes that need the same one wait for the first."""
    spec, path = ProgramSpec(**json.loads(sys.argv[1])), Path(sys.argv[2])
    torch.set_num_threads(1)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        signal.alarm(_TIMEOUT_S)
        try:
            compile_program(spec, path)
        except Exception:
            failure_marker(spec).write_text(traceback.format_exc(), encoding="utf-8")
            raise


if __name__ == "__main__":
    main()

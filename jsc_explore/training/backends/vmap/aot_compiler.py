"""Compile a program of the stack in a process of its own: ``python -m …backends.vmap.aot_compiler SPEC PATH``.

It begins where training is under way already, and its work goes on, and counts, when that training is cancelled.
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
from jsc_explore.training.backends.vmap.aot import Spec, buffers, failed
from jsc_explore.training.backends.vmap.stack import Stack
from jsc_explore.training.backends.vmap.step import Batch, Settings, State

# Nobody waits for ever: a compiler that hangs ends like one that fails.
_DEADLINE_S = 900
_STATE, _SETTINGS = len(State._fields), len(Settings._fields)


class _Steps(nn.Module):
    """A loop over the first ``count`` batches; ``step`` is the traced step ``(*batch, *settings, *state)``."""

    def __init__(self, step: nn.Module, shape: tuple[int, int]) -> None:
        super().__init__()
        self.step, self.shape = step, shape

    def forward(self, count: Tensor, *tensors: Tensor) -> Sequence[Tensor]:
        batches, settings, state = _cut(tensors)

        def more(done: Tensor, *_: Tensor) -> Tensor:
            return done < count

        def body(done: Tensor, *carried: Tensor) -> Sequence[Tensor]:
            *state, losses, hits = carried
            at = done.view(1)
            batch = [tensor.index_select(0, at).squeeze(0) for tensor in batches]
            *moved, loss, hit = self.step(*batch, *settings, *state)
            return done + 1, *moved, losses.index_copy(0, at, loss[None]), hits.index_copy(0, at, hit[None])

        seen = [torch.zeros(self.shape, device=count.device) for _ in range(2)]
        first = torch.zeros((), dtype=torch.int64, device=count.device)
        looped: Sequence[Tensor] = while_loop(  # type: ignore[no-untyped-call]
            more, body, (first, *state, *seen)
        )
        return looped[1:]


def compile_program(spec: Spec, path: Path) -> None:
    """Trace the eager step of a stack of one and write its loop as machine code to ``path``."""
    run = RunConfig(
        model=spec.model,
        final_relu=spec.final_relu,
        optimizer=spec.optimizer,
        precision=spec.precision,
        batch_size=spec.batch_size,
    )
    x, y = torch.zeros(2, 16, device=spec.device), torch.zeros(2, dtype=torch.int64, device=spec.device)
    stack = Stack([run], DeviceSplit(x, y, x, y, x, y))
    # One program for replicas with weight decay and without.
    stack.step.decays = True
    jets, labels, rate, masks = buffers(spec)
    batches = [jets, labels, rate, *masks]
    # Copies: neighbours in one tensor's storage must not look like one argument.
    given = [tensor.clone() for tensor in (*stack.settings([0]), *stack.state([0]))]

    def step(*tensors: Tensor) -> Sequence[Tensor]:
        (x, y, rate, *masks), settings, state = _cut(tensors)
        moved, loss, hits = stack.step(State(*state), Settings(*settings), Batch(x, y, rate, masks))
        # What is handed on unchanged would be argument and result in one.
        return *(new.clone() for new in moved), loss.detach(), hits.float()

    with torch.no_grad():
        # First down to ATen: export cannot trace torch.func within a loop.
        traced = make_fx(step, tracing_mode="fake")(*(tensor[0] for tensor in batches), *given)
        loop = _Steps(traced, (spec.steps, 1))
        count = torch.tensor(spec.steps, device=spec.device)
        exported = torch.export.export(loop, (count, *batches, *given), strict=False)
        partial = path.with_suffix(".partial.pt2")
        torch._inductor.aoti_compile_and_package(exported, package_path=str(partial))
    partial.replace(path)


def _cut(tensors: Sequence[Tensor]) -> tuple[Any, Any, Any]:
    batches = len(tensors) - _SETTINGS - _STATE
    return tensors[:batches], tensors[batches:-_STATE], tensors[-_STATE:]


def main() -> None:
    """Make one program; processes that want the same wait for the first."""
    spec, path = Spec(**json.loads(sys.argv[1])), Path(sys.argv[2])
    torch.set_num_threads(1)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        signal.alarm(_DEADLINE_S)
        try:
            compile_program(spec, path)
        except Exception:
            failed(spec).write_text(traceback.format_exc(), encoding="utf-8")
            raise


if __name__ == "__main__":
    main()

"""One optimizer step of one or more replicas as a pure function: run eagerly, or traced into a compiled program."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.nn import functional

from jsc_explore.config import RunConfig
from jsc_explore.training import optimizers
from jsc_explore.training.backends.base import unflatten
from jsc_explore.training.optimizers import Moments

_HALF_DTYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
# Steps without overflow until the loss scale doubles, as in torch.amp.GradScaler.
_SCALE_INTERVAL = 2000


class State(NamedTuple):
    """The state that a step changes, one row per replica; ``Backend`` and ``FlatOptimizer`` give the shapes."""

    flat: Tensor
    m: Tensor
    v: Tensor
    t: Tensor
    scale: Tensor
    clean_steps: Tensor
    running: Tensor


class Settings(NamedTuple):
    """The inputs that no step changes: ``has_gradient (P,)``, 0 for constant parameters; the others ``(K, 1)``."""

    has_gradient: Tensor
    weight_decay: Tensor
    momentum: Tensor


class Batch(NamedTuple):
    """The jets ``(K, batch, 16)``, labels ``(K, batch)``, learning rates ``(K, 1)`` and dropout masks of one step."""

    x: Tensor
    y: Tensor
    rate: Tensor
    masks: Sequence[Tensor]


class Step:
    """The step of one network, optimizer and precision, for any number of replicas and any batch size.

    A single replica is stepped by plain autograd, several by ``vmap``. The results differ in the last bits: matrix
    products and convolutions of a stack add in an order that depends on its size.
    """

    def __init__(
        self,
        run: RunConfig,
        module: nn.Module,
        shapes: dict[str, torch.Size],
        statistics: dict[str, torch.Size],
        *,
        dropouts: Sequence[str],
    ) -> None:
        self.kind, self.shapes, self.statistics = run.optimizer, shapes, statistics
        self.half, self.scaled = _HALF_DTYPES.get(run.precision), run.precision == "16-mixed"
        self.mask_names = [f"{name}.mask" for name in dropouts]
        self.base = copy.deepcopy(module).to("meta")
        self._stack_gradient = vmap(grad_and_value(self._loss, has_aux=True), in_dims=(0, 0, 0, 0, 0, 0))
        self._stack_logits = vmap(self._logits, in_dims=(0, 0, None))

    def __call__(self, state: State, settings: Settings, batch: Batch) -> tuple[State, Tensor, Tensor]:
        """Return the state after the step, mean losses ``(K,)`` and numbers of correctly classified jets ``(K,)``."""
        self.base.train()
        masks = dict(zip(self.mask_names, batch.masks, strict=True))
        gradient = self._single_gradient if len(state.flat) == 1 else self._stack_gradient
        grad, (loss, (logits, running)) = gradient(state.flat, state.running, masks, batch.x, batch.y, state.scale)
        grad = grad * settings.has_gradient
        correct = (logits.argmax(2) == batch.y).sum(1)
        moments = Moments(state.flat, state.m, state.v, state.t)
        if not self.scaled:
            updated = optimizers.step(self.kind, settings.weight_decay, settings.momentum, moments, grad, batch.rate)
            return _state(updated, state.scale, state.clean_steps, running), loss, correct
        # The rule of torch.amp.GradScaler, with a scale for each replica. A replica that overflows keeps its state.
        grad = grad / state.scale
        finite = grad.isfinite().all(1, keepdim=True)
        grad = torch.where(finite, grad, 0.0)
        updated = optimizers.step(self.kind, settings.weight_decay, settings.momentum, moments, grad, batch.rate)
        kept = Moments(*(torch.where(finite, new, old) for new, old in zip(updated, moments, strict=True)))
        clean = torch.where(finite, state.clean_steps + 1, 0.0)
        grown = clean >= _SCALE_INTERVAL
        scale = torch.where(finite, torch.where(grown, state.scale * 2, state.scale), state.scale / 2)
        clean = torch.where(grown, 0.0, clean)
        return _state(kept, scale, clean, running), loss / state.scale.squeeze(1), correct

    def compute_logits(self, x: Tensor, flat: Tensor, running: Tensor) -> Tensor:
        """Return ``(K, n, 5) float32`` outputs for ``(n, 16)`` jets in evaluation mode."""
        self.base.eval()
        with torch.no_grad():
            if len(flat) == 1:
                output = self._logits(flat[0], running[0], x)[0][None]
            else:
                output = self._stack_logits(flat, running, x)[0]
        return output.float()

    def _single_gradient(
        self, flat: Tensor, running: Tensor, masks: Mapping[str, Tensor], x: Tensor, y: Tensor, scale: Tensor
    ) -> tuple[Tensor, tuple[Tensor, tuple[Tensor, Tensor]]]:
        """Return what ``_stack_gradient`` returns, for one replica: gradients, loss, outputs, statistics."""
        with torch.enable_grad():
            weights = flat[0].detach().requires_grad_()
            single_masks = {name: mask[0] for name, mask in masks.items()}
            loss, (logits, updated) = self._loss(weights, running[0], single_masks, x[0], y[0], scale[0])
            (grad,) = torch.autograd.grad(loss, weights)
        return grad[None], (loss.detach()[None], (logits[None], updated[None]))

    def _logits(
        self, flat: Tensor, running: Tensor, x: Tensor, masks: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return outputs and batch-norm statistics, updated in training mode."""
        # Copies: batch norm writes into them, and views of one tensor would all count as changed.
        statistics = {name: piece.clone() for name, piece in unflatten(running, self.statistics).items()}
        device = flat.device.type
        with torch.autocast(device, dtype=self.half, enabled=self.half is not None):
            state = (unflatten(flat, self.shapes), statistics | dict(masks or {}))
            output = functional_call(self.base, state, (x,))
        return output, torch.cat([tensor.flatten() for tensor in statistics.values()]) if statistics else running

    def _loss(
        self, flat: Tensor, running: Tensor, masks: Mapping[str, Tensor], x: Tensor, y: Tensor, scale: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        logits, updated = self._logits(flat, running, x, masks)
        loss = functional.cross_entropy(logits.float(), y)
        return (loss * scale.squeeze() if self.scaled else loss), (logits.detach(), updated.detach())


def _state(moments: Moments, scale: Tensor, clean_steps: Tensor, running: Tensor) -> State:
    return State(moments.flat, moments.m, moments.v, moments.t, scale, clean_steps, running)

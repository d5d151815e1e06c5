"""The lab's code: Lightning's Trainer, a DataLoader over a TensorDataset, torchmetrics logged at every step.

After DeepWok/mase, January 2024 (machop/chop/plt_wrapper/base.py), in float32 on the CPU. Left out, all in its favour:
logger files, progress bar, checkpoints and the validation over the training part.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from bench.peers import task
from bench.peers.task import RATE, Task

# Batches before the timer starts: setting up the Trainer and starting the workers is not counted.
SKIPPED = 20
# Steps to choose the number of workers with.
_TRIED_STEPS = 60


class Loop(task.Loop):
    """See ``task.Loop``; loads in this process or in one worker per core (mase's default), whichever is faster."""

    def __init__(self, work: Task) -> None:
        torch.set_num_threads(1)
        super().__init__(work)
        self.workers = 0
        steps = min(_TRIED_STEPS, work.steps_per_epoch - SKIPPED)
        if steps > 0:
            self.workers = min((0, os.cpu_count() or 1), key=lambda workers: self._fit_all(steps, workers))
            self.is_warm = True

    def train(self, steps: int) -> float:
        """Train each replica for ``SKIPPED`` untimed steps and ``steps`` timed ones; return the seconds of the latter.

        Where the epoch is too short for both, fewer are skipped.
        """
        return self._fit_all(steps, self.workers)

    def _fit_all(self, steps: int, workers: int) -> float:
        self.modules = self.task.modules()
        extra = min(SKIPPED, self.task.steps_per_epoch - steps)
        seconds = 0.0
        for module, order in zip(self.modules, self.task.orders(steps + extra), strict=True):
            # shuffle=True also builds a sampler that yields a permutation as Python integers.
            loader = DataLoader(
                TensorDataset(*self.task.jets), self.task.batch_size, sampler=order.flatten().tolist(),
                num_workers=workers,
            )  # fmt: skip
            seconds += _fit(_Lab(module), loader, extra)
        return seconds


class _Lab(LightningModule):
    """The lab's wrapper, reduced to training."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.loss_fn, self.acc_train = model, nn.CrossEntropyLoss(), MulticlassAccuracy(5, average="micro")

    def training_step(self, batch: list[Tensor], _index: int) -> Tensor:
        x, y = batch
        y_hat = self.model(x)
        loss: Tensor = self.loss_fn(y_hat, y)
        self.acc_train(y_hat, y)
        self.log("train_acc_step", self.acc_train)
        self.log("train_loss_step", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam([p for p in self.model.parameters() if p.requires_grad], RATE)


class _Clock(Callback):
    def __init__(self, first: int) -> None:
        self.first, self.begin, self.end = first, 0.0, 0.0

    def on_train_batch_start(self, trainer: Trainer, _module: LightningModule, _batch: Any, index: int) -> None:
        if index == self.first:
            self.begin = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, _module: LightningModule) -> None:
        self.end = time.perf_counter()


def _fit(lab: _Lab, loader: DataLoader[Any], skipped: int) -> float:
    clock = _Clock(skipped)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=1, callbacks=[clock], logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(lab, loader)
    return clock.end - clock.begin

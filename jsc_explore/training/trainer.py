"""Train a stack under Lightning's Trainer and tell an observer of every point, pulse and finished replica."""

from __future__ import annotations

import importlib.util
import logging
import platform
import resource
import sys
import time
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import lightning
import numba
import numpy as np
import torch
from lightning import LightningModule, Trainer
from safetensors.torch import save
from torch import Tensor

from jsc_explore import __version__
from jsc_explore.config import RunConfig
from jsc_explore.data import Split
from jsc_explore.data.jets import CLASSES
from jsc_explore.errors import JscError
from jsc_explore.results import Outcome
from jsc_explore.training.backends.base import ChunkResult, DeviceSplit, Replicas
from jsc_explore.training.backends.cpu.backend import KernelReplicas
from jsc_explore.training.backends.select import why_not_gpu_kernel, why_not_kernel
from jsc_explore.training.backends.vmap.stack import Stack
from jsc_explore.training.callbacks import Callback
from jsc_explore.training.checkpoint import Best, Resume, from_bytes, restore, to_bytes
from jsc_explore.training.chunks import CHUNK_SECONDS, Chunk, Plan
from jsc_explore.training.history import History
from jsc_explore.training.metrics import Scores, roc_summary

log = logging.getLogger("jsc_explore.training")
# A crash loses at most this much work and the epoch under way; writing fifty replicas of jsc-s takes 0.05 s. The first
# comes sooner, then at twice the distance each time: where workers live for seconds only, runs get on nevertheless.
CHECKPOINT_EVERY_S, FIRST_CHECKPOINT_S = 5.0, 1.0
# A class is silent if less than this share of its jets has an output above zero, and less is recognised.
DEAD_SHARE = 0.01
# How often a stack that waits for its program looks whether it is wanted still.
_LOOK_S = 0.05


def train_stack(
    runs: Mapping[str, RunConfig],
    split: Split | DeviceSplit,
    observer: Callback,
    *,
    device: str = "auto",
    checkpoints: MutableMapping[str, bytes] | None = None,
) -> None:
    """Train the runs side by side to their ends; outcomes go to ``observer.finished`` as they come.

    ``runs`` must share one ``stack_key``. With ``checkpoints``, by key, the runs go on exactly where an earlier call
    left them, if all of them can; new ones are put there every few seconds, and whoever stores the outcomes drops them.
    """
    where = device_of(device)
    data = split if isinstance(split, DeviceSplit) else DeviceSplit.of(split, where)
    module = StackTraining(dict(runs), data, observer, checkpoints)
    with warnings.catch_warnings():
        # Lightning expects a DataLoader with workers, a logger and optimizers; a chunk plan needs none of them.
        warnings.filterwarnings("ignore", module=r"lightning\..*|torch\.jit.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = Trainer(
            accelerator=where.type,
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module)


class StackTraining(LightningModule):
    """A stack as a LightningModule: one ``training_step`` is many optimizer steps (manual optimization)."""

    def __init__(
        self,
        runs: dict[str, RunConfig],
        data: DeviceSplit,
        observer: Callback,
        checkpoints: MutableMapping[str, bytes] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.keys, self.observer, self.checkpoints = list(runs), observer, checkpoints
        self.replicas = len(runs)
        self.stack = replicas_for(list(runs.values()), data)
        self.best = Best(self.stack.flat.clone(), self.stack.running.clone())
        self.most_steps, self.epochs_at_once = self.stack.first_chunk(), 1
        self._epoch_began, self._epoch_s, self._epoch_steps = 0.0, 0.0, 0
        self.ledgers = [History() for _ in runs]
        self.start_epoch = 0
        self._resume()
        self._began = time.perf_counter()
        self._earlier_s = self.ledgers[0].wall_time_s
        self._saved, self._patience_s = time.perf_counter(), FIRST_CHECKPOINT_S

    def train_dataloader(self) -> Plan:
        """Return the chunks of all epochs."""
        epochs = range(self.start_epoch, max(run.max_epochs for run in self.stack.runs))
        return Plan(epochs, self.stack.steps_per_epoch, lambda: self.most_steps, lambda: self.epochs_at_once)

    def transfer_batch_to_device(self, batch: list[Chunk], _device: torch.device, _index: int) -> list[Chunk]:
        """Leave the chunks as they are: they hold step numbers, the data lie on the device already."""
        return batch

    def configure_optimizers(self) -> None:
        """The stack holds its own optimizer state."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare the epoch's batch order and rates; the very first one begins with a point before any step."""
        if epoch == 0:
            self._measure(0, 0.0, with_rate=False)
        while self.keys and not self.stack.ready(epoch):
            self._tell(epoch * self.stack.steps_per_epoch)
            time.sleep(_LOOK_S)
        self._epoch_began, self._epoch_s, self._epoch_steps = time.perf_counter(), 0.0, 0
        if self.keys:
            self.stack.begin_epoch(epoch)

    def training_step(self, batch: list[Chunk], _index: int = 0) -> None:
        """Take the steps of each chunk while anything trains, then tell how far it is and look for cancellations."""
        for chunk in batch:
            if chunk.start == 0:
                self.begin_epoch(chunk.epoch)
            if self.keys:
                self._take(chunk)
        self._tell(batch[-1].epoch * self.stack.steps_per_epoch + batch[-1].stop)
        if not self.keys:
            self.trainer.should_stop = True

    def _tell(self, step: int) -> None:
        """Tell the observer how far the training is, and let go of what it has cancelled."""
        totals = [run.max_epochs * self.stack.steps_per_epoch for run in self.stack.runs]
        self.observer.progress(self.keys, step, totals)
        self._drop(sorted(self._rows(self.observer.cancelled())))

    def _take(self, chunk: Chunk) -> None:
        """Take the chunk's steps, then look: divergence, point, end of epoch."""
        began = time.perf_counter()
        taken = self.stack.advance(chunk)
        # Of the whole epoch: its last chunk may hold a few steps alone, which say little of what a step takes.
        self._epoch_s += time.perf_counter() - began
        self._epoch_steps += chunk.stop - chunk.start
        most = round(CHUNK_SECONDS * self._epoch_steps / self._epoch_s)
        self.most_steps = max(1, min(most, self.stack.steps_per_epoch))
        bad = self._count(chunk, taken)
        step = chunk.epoch * self.stack.steps_per_epoch + chunk.stop
        if bad:
            self._end_diverged(bad, chunk)
        if self.keys and chunk.point:
            self._measure(step, chunk.epoch + chunk.stop / self.stack.steps_per_epoch, rate_row=chunk.stop - 1)
        if self.keys and chunk.ends_epoch:
            self._end_epoch(chunk.epoch + 1)
            self.epochs_at_once = max(1, int(CHUNK_SECONDS / (time.perf_counter() - self._epoch_began)))

    def _resume(self) -> None:
        if self.checkpoints is None:
            return
        found = [from_bytes(self.checkpoints.get(key)) for key in self.keys]
        resumes: list[Resume] = [resume for resume in found if resume is not None]
        # Replicas of a stack walk in step: they go on together or start together.
        if len(resumes) == len(self.keys) and len({resume.epoch for resume in resumes}) == 1:
            restore(self.stack, self.best, resumes)
            self.ledgers = [resume.ledger for resume in resumes]
            self.start_epoch = resumes[0].epoch

    def _count(self, chunk: Chunk, taken: ChunkResult) -> dict[int, int]:
        """Enter the chunk in every ledger; return the step, within the chunk, at which a row stopped being finite."""
        for row, ledger in enumerate(self.ledgers):
            ledger.count(taken.losses[:, row], taken.hits[:, row], taken.sizes, taken.seconds[row])
        finite = np.isfinite(taken.losses)
        bad = {row: int(np.argmin(finite[:, row])) + 1 for row in range(len(self.keys)) if not finite[:, row].all()}
        if chunk.ends_epoch:
            # Weights without a loss that shows them are looked at where every run looks, however its epoch was cut.
            lost = (~self.stack.flat.isfinite().all(1)).nonzero().flatten().tolist()
            bad = {row: len(finite) for row in lost} | bad
        return bad

    def _measure(self, step: int, epoch: float, rate_row: int = 0, with_rate: bool = True) -> None:
        metrics = self.stack.evaluate(self.stack.data.val_x, self.stack.data.val_y)
        rates = self.stack.rates[rate_row].tolist() if with_rate else [None] * len(self.keys)
        losses, accuracies, recalls = metrics.loss.tolist(), metrics.accuracy.tolist(), metrics.recall.tolist()
        for row, (key, ledger) in enumerate(zip(self.keys, self.ledgers, strict=True)):
            val = (losses[row], accuracies[row], recalls[row])
            self.observer.point(key, ledger.add_point(step, epoch, rates[row], val))

    def _end_epoch(self, epochs_done: int) -> None:
        better = [row for row, ledger in enumerate(self.ledgers) if ledger.judge_epoch(epochs_done)]
        self.best.take(torch.tensor(better, dtype=torch.long), self.stack)
        wall = self._earlier_s + time.perf_counter() - self._began
        ended: dict[int, str] = {}
        for row, (run, ledger) in enumerate(zip(self.stack.runs, self.ledgers, strict=True)):
            ledger.wall_time_s = wall
            if reason := ledger.stop_reason(run, epochs_done):
                ended[row] = reason
        if ended:
            self._finish(ended, epochs_done)
        due = time.perf_counter() - self._saved > min(self._patience_s, CHECKPOINT_EVERY_S)
        if self.checkpoints is not None and self.keys and due:
            for row, (key, ledger) in enumerate(zip(self.keys, self.ledgers, strict=True)):
                self.checkpoints[key] = to_bytes(epochs_done, row, self.stack, self.best, ledger)
            self._saved, self._patience_s = time.perf_counter(), 2 * self._patience_s

    def _finish(self, ended: dict[int, str], epochs_done: int) -> None:
        rows, x, y = torch.tensor(list(ended), dtype=torch.long), self.stack.data.test_x, self.stack.data.test_y
        last_weights, best_weights = self.stack.flat[rows], self.best.flat[rows]
        last_running, best_running = self.stack.running[rows], self.best.running[rows]
        last = self.stack.evaluate(x, y, last_weights, last_running)
        best = self.stack.evaluate(x, y, best_weights, best_running)
        final_relu = self.stack.runs[0].final_relu
        for index, (row, reason) in enumerate(ended.items()):
            one = slice(index, index + 1)
            metrics = self.stack.logits(x, best_weights[one], best_running[one])[0]
            output = self.stack.logits(x, last_weights[one], last_running[one])[0]
            outcome = self._outcome(row, reason, epochs_done, _Test(last, best, index, metrics, output, final_relu))
            self.observer.finished(self.keys[row], outcome)
        self._drop(list(ended))

    def _end_diverged(self, bad: dict[int, int], chunk: Chunk) -> None:
        """End the rows whose loss or weights left the finite numbers; their curve keeps what was measured."""
        for row, offset in bad.items():
            ledger = self.ledgers[row]
            ledger.wall_time_s = self._earlier_s + time.perf_counter() - self._began
            step = chunk.epoch * self.stack.steps_per_epoch + chunk.start + offset
            outcome = self._outcome(row, "diverged", chunk.epoch, None, diverged_step=step)
            self.observer.finished(self.keys[row], outcome)
        self._drop(list(bad))

    def _outcome(
        self, row: int, reason: str, epochs: int, test: _Test | None, diverged_step: int | None = None
    ) -> Outcome:
        ledger, data = self.ledgers[row], self.stack.data
        last: Mapping[str, Any] = ledger.points[-1] if ledger.points and diverged_step is None else {}
        return Outcome(
            status="done" if diverged_step is None else "diverged",
            stop_reason=reason,
            points=ledger.points,
            epochs_run=epochs,
            steps=epochs * self.stack.steps_per_epoch if diverged_step is None else diverged_step,
            diverged_step=diverged_step,
            best_epoch=ledger.best_epoch,
            train_loss=last.get("train_loss"),
            train_acc=last.get("train_acc"),
            val_loss=last.get("val_loss"),
            val_acc=last.get("val_acc"),
            best_val_loss=ledger.best_val_loss,
            best_val_acc=ledger.best_val_acc,
            **(test.figures(data.test_y) if test else {}),
            train_rows=len(data.train_y),
            val_rows=len(data.val_y),
            test_rows=len(data.test_y),
            train_time_s=ledger.time_s,
            wall_time_s=ledger.wall_time_s,
            replicas=self.replicas,
            peak_memory_mb=peak_memory_mb(self.stack.device),
            device=device_name(self.stack.device),
            backend=self.stack.backend_name(row),
            versions=versions(),
            weights=save(self.stack.state_dict(self.best.flat[row], self.best.running[row])),
        )

    def _rows(self, keys: set[str]) -> list[int]:
        return [row for row, key in enumerate(self.keys) if key in keys]

    def _drop(self, rows: Sequence[int]) -> None:
        if not rows:
            return
        keep = [row for row in range(len(self.keys)) if row not in set(rows)]
        self.stack.select(keep)
        self.best.select(torch.tensor(keep, dtype=torch.long))
        self.keys = [self.keys[row] for row in keep]
        self.ledgers = [self.ledgers[row] for row in keep]


class _Test:
    """The test figures of one replica, from the metrics of those that ended together."""

    def __init__(
        self, last: Scores, best: Scores, index: int, metrics: Tensor, output: Tensor, final_relu: bool
    ) -> None:
        self.last, self.best, self.index = last, best, index
        self.metrics, self.output, self.final_relu = metrics, output, final_relu

    def figures(self, labels: Tensor) -> dict[str, Any]:
        """Return the fields of an Outcome that come from the test part."""
        # A class's metrics lie beside each other: they are sorted.
        probabilities, truth = self.metrics.float().softmax(1).T.contiguous().cpu().numpy(), labels.cpu().numpy()
        roc = [roc_summary(probabilities[c], truth == c) for c in range(len(CLASSES))]
        recall = self.last.recall[self.index].tolist()
        own = [float((self.output[labels == c, c] > 0).double().mean()) for c in range(len(CLASSES))]
        return {
            "test_loss": float(self.last.loss[self.index]),
            "test_acc": float(self.last.accuracy[self.index]),
            "best_test_loss": float(self.best.loss[self.index]),
            "best_test_acc": float(self.best.accuracy[self.index]),
            "auc": [one.area for one in roc],
            "rejection": [one.rejection for one in roc],
            "roc": [share for one in roc for share in one.background],
            "confusion": self.best.confusion[self.index].flatten().tolist(),
            # The last ReLU gives zero for nearly all jets of the class: no gradient comes through.
            "silent_classes": [
                c for c, alive, r in zip(CLASSES, own, recall, strict=True) if alive < DEAD_SHARE and r < DEAD_SHARE
            ]
            if self.final_relu
            else [],
        }


def replicas_for(runs: Sequence[RunConfig], data: DeviceSplit) -> Replicas:
    """Return the replicas in the hands of the fastest engine that can train them; a slower one says why."""
    device = data.train_x.device.type
    reason = why_not_kernel(runs[0]) if device == "cpu" else why_not_gpu_kernel(runs[0])
    if reason is None and device == "cpu":
        return KernelReplicas(list(runs), data)
    if reason is None and device == "cuda":
        twin = cuda_replicas(list(runs), data)
        if isinstance(twin, Replicas):
            return twin
        reason = twin
    return Stack(list(runs), data, reason or f"device {device}")


def cuda_replicas(runs: list[RunConfig], data: DeviceSplit) -> Replicas | str:
    """Return the replicas in the hands of the GPU's kernel, or in a few words why it cannot take them."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed"
    if data.train_x.device.index:
        # Numba stays with the context that it met first in a thread, and torch goes between devices.
        return f"device {data.train_x.device}; the kernel takes the first one"
    try:
        # Imported only where there is a GPU: numba.cuda takes a worker 0.16 s.
        from jsc_explore.training.backends.cuda.backend import CudaReplicas

        return CudaReplicas(runs, data)
    except (JscError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Driver, compiler and package each raise their own; the record of the run says which.
        log.warning("the kernel for GPUs: %s", error)
        return f"{type(error).__name__} of numba-cuda"


@lru_cache(maxsize=8)
def device_of(name: str) -> torch.device:
    """Return the training device: ``auto`` takes a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def peak_memory_mb(device: torch.device) -> float:
    """Return the peak memory of the GPU, or of this process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def device_name(device: torch.device) -> str:
    """Return what a reader of the record needs to know of the device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu ({platform.machine()})"


def versions() -> dict[str, str]:
    """Return the versions that a result depends on."""
    return {
        "jsc_explore": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a subclass of str that msgpack refuses
        "lightning": lightning.__version__,
        "numpy": np.__version__,
        "numba": numba.__version__,
    } | ({"numba-cuda": version("numba-cuda")} if importlib.util.find_spec("numba_cuda") else {})

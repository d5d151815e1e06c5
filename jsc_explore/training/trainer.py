"""The trainer: run a backend under Lightning's Trainer and report points, progress and outcomes to a callback."""

from __future__ import annotations

import importlib.util
import logging
import time
import warnings
from collections.abc import Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from safetensors.torch import save

from jsc_explore.config import RunConfig
from jsc_explore.data import Split
from jsc_explore.errors import JscError
from jsc_explore.results import Outcome
from jsc_explore.training import checkpoint
from jsc_explore.training.backends.base import Backend, ChunkResult, DeviceSplit
from jsc_explore.training.backends.cpu.backend import CpuBackend
from jsc_explore.training.backends.select import why_not_gpu_kernel, why_not_kernel
from jsc_explore.training.backends.vmap.backend import VmapBackend
from jsc_explore.training.callbacks import Callback
from jsc_explore.training.chunks import CHUNK_SECONDS, Chunk, ChunkLoader
from jsc_explore.training.history import History
from jsc_explore.training.lightning_core import LightningModule, Trainer
from jsc_explore.training.outcome import device_name, metric_fields, peak_memory_mb, versions

log = logging.getLogger("jsc_explore.training")
# Interval at which a stack that waits for a compiled program checks for cancellation.
_POLL_S = 0.05


def train_stack(
    runs: Mapping[str, RunConfig],
    split: Split | DeviceSplit,
    callback: Callback,
    *,
    device: str = "auto",
    checkpoints: MutableMapping[str, bytes] | None = None,
) -> None:
    """Train the runs side by side to their ends and report each outcome to ``callback.on_finished`` when it is ready.

    The runs must share one ``stack_key``. If ``checkpoints``, by key, holds one of every run, all taken after the same
    epoch, training resumes there to the bit. New checkpoints are written to it every few seconds; the caller deletes
    those of the runs whose outcomes it has stored.
    """
    target = resolve_device(device)
    data = split if isinstance(split, DeviceSplit) else DeviceSplit.of(split, target)
    module = StackModule(dict(runs), data, callback, checkpoints)
    with warnings.catch_warnings():
        # Lightning expects a DataLoader with workers, a logger and optimizers; chunks need none of them.
        warnings.filterwarnings("ignore", module=r"lightning\..*|torch\.jit.*")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        trainer = Trainer(
            accelerator=target.type,
            devices=1,
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module)


class StackModule(LightningModule):
    """Train a stack as a LightningModule: one ``training_step`` is many optimizer steps (manual optimization)."""

    def __init__(
        self,
        runs: dict[str, RunConfig],
        data: DeviceSplit,
        callback: Callback,
        checkpoints: MutableMapping[str, bytes] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.keys, self.callback, self.checkpoints = list(runs), callback, checkpoints
        self.replicas = len(runs)
        self.backend = create_backend(list(runs.values()), data)
        self.best = checkpoint.BestWeights(self.backend.flat.clone(), self.backend.running.clone())
        self.max_chunk_steps, self.epochs_per_batch = self.backend.initial_chunk_steps(), 1
        self._epoch_start, self._epoch_s, self._epoch_steps = 0.0, 0.0, 0
        self.histories = [History() for _ in runs]
        self.start_epoch = 0
        self._resume()
        self._start = self._shared_until = time.perf_counter()
        self._earlier_s = self.histories[0].wall_time_s
        self._last_checkpoint, self._checkpoint_interval_s = time.perf_counter(), checkpoint.FIRST_CHECKPOINT_S

    def train_dataloader(self) -> ChunkLoader:
        """Return the chunks of all epochs."""
        epochs = range(self.start_epoch, max(run.max_epochs for run in self.backend.runs))
        steps = self.backend.steps_per_epoch
        return ChunkLoader(epochs, steps, lambda: self.max_chunk_steps, lambda: self.epochs_per_batch)

    def transfer_batch_to_device(self, batch: list[Chunk], _device: torch.device, _index: int) -> list[Chunk]:
        """Return the chunks unchanged: they hold step numbers only, and the data are on the device."""
        return batch

    def configure_optimizers(self) -> None:
        """Return none: the backend holds the optimizer state."""

    def begin_epoch(self, epoch: int) -> None:
        """Prepare batch order and learning rates of an epoch; the first one starts with a point before any step."""
        if epoch == 0:
            self._add_points(0, 0.0, rate_row=None)
        while self.keys and not self.backend.prepare(epoch):
            self._share_wall_time(range(len(self.keys)))
            self._report_progress(epoch * self.backend.steps_per_epoch)
            time.sleep(_POLL_S)
            # A run's share is what it costs to train it again, when its program is compiled.
            self._shared_until = time.perf_counter()
        self._epoch_start, self._epoch_s, self._epoch_steps = time.perf_counter(), 0.0, 0
        if self.keys:
            self.backend.begin_epoch(epoch)

    def training_step(self, batch: list[Chunk], _index: int = 0) -> None:
        """Take the steps of each chunk while a replica is left, then report progress and handle cancellations."""
        for chunk in batch:
            if chunk.start == 0:
                self.begin_epoch(chunk.epoch)
            if self.keys:
                self._train_chunk(chunk)
        self._report_progress(batch[-1].epoch * self.backend.steps_per_epoch + batch[-1].stop)
        if not self.keys:
            self.trainer.should_stop = True

    def _report_progress(self, step: int) -> None:
        """Report the steps done, and drop the replicas that were cancelled."""
        totals = [run.max_epochs * self.backend.steps_per_epoch for run in self.backend.runs]
        self.callback.on_progress(self.keys, step, totals)
        cancelled = self.callback.cancelled_keys()
        if rows := [row for row, key in enumerate(self.keys) if key in cancelled]:
            self._share_wall_time(range(len(self.keys)))
            self._drop(rows)

    def _share_wall_time(self, rows: Sequence[int]) -> None:
        """Divide the wall time since the last call equally among these rows, on which it was spent."""
        now = time.perf_counter()
        for row in rows:
            self.histories[row].wall_share_s += (now - self._shared_until) / len(rows)
            self.histories[row].wall_time_s = self._earlier_s + now - self._start
        self._shared_until = now

    def _train_chunk(self, chunk: Chunk) -> None:
        """Take the chunk's steps, then handle divergence, a point of the curve and the end of the epoch."""
        start = time.perf_counter()
        result = self.backend.train_chunk(chunk)
        # Averaged over the epoch: its last chunk may hold a few steps only, too few to time a step by.
        self._epoch_s += time.perf_counter() - start
        self._epoch_steps += chunk.stop - chunk.start
        steps = round(CHUNK_SECONDS * self._epoch_steps / self._epoch_s)
        self.max_chunk_steps = max(1, min(steps, self.backend.steps_per_epoch))
        diverged = self._record(chunk, result)
        step = chunk.epoch * self.backend.steps_per_epoch + chunk.stop
        if diverged:
            self._end_diverged(diverged, chunk)
        if self.keys and chunk.has_point:
            self._add_points(step, chunk.epoch + chunk.stop / self.backend.steps_per_epoch, rate_row=chunk.stop - 1)
        if self.keys and chunk.ends_epoch:
            self._end_epoch(chunk.epoch + 1)
            self.epochs_per_batch = max(1, int(CHUNK_SECONDS / (time.perf_counter() - self._epoch_start)))

    def _resume(self) -> None:
        if self.checkpoints is None:
            return
        found = [checkpoint.from_bytes(self.checkpoints.get(key)) for key in self.keys]
        saved = [one for one in found if one is not None]
        # The replicas of a stack are always at the same step: they resume together or start together.
        if len(saved) == len(self.keys) and len({one.epoch for one in saved}) == 1:
            checkpoint.restore(self.backend, self.best, saved)
            self.histories = [one.history for one in saved]
            self.start_epoch = saved[0].epoch

    def _record(self, chunk: Chunk, result: ChunkResult) -> dict[int, int]:
        """Add the chunk to every history; return the step within the chunk at which each diverged row diverged."""
        for row, history in enumerate(self.histories):
            history.add_chunk(result.losses[:, row], result.correct[:, row], result.sizes, result.seconds[row])
        finite = np.isfinite(result.losses)
        bad = {row: int(np.argmin(finite[:, row])) + 1 for row in range(len(self.keys)) if not finite[:, row].all()}
        if chunk.ends_epoch:
            # Weights may diverge without a loss that shows it. They are checked at the end of an epoch only: the
            # result must not depend on where the epoch was cut into chunks.
            lost = (~self.backend.flat.isfinite().all(1)).nonzero().flatten().tolist()
            bad = {row: len(finite) for row in lost} | bad
        return bad

    def _add_points(self, step: int, epoch: float, rate_row: int | None) -> None:
        """Evaluate all replicas and add a point to each curve; ``rate_row`` is the step of the learning rates.

        Training jets are evaluated after whole epochs only: at each point of the first epoch, too, they would double
        the time of its evaluations.
        """
        data = self.backend.data
        metrics = self.backend.evaluate(data.val_x, data.val_y)
        train_eval: Sequence[tuple[float, float] | None] = [None] * len(self.keys)
        if data.is_validated_on_train or epoch.is_integer():
            on_train = metrics if data.is_validated_on_train else self.backend.evaluate(*data.train_sample)
            train_eval = list(zip(on_train.loss.tolist(), on_train.accuracy.tolist(), strict=True))
        rates = [None] * len(self.keys) if rate_row is None else self.backend.rates[rate_row].tolist()
        losses, accuracies, recalls = metrics.loss.tolist(), metrics.accuracy.tolist(), metrics.recall.tolist()
        for row, (key, history) in enumerate(zip(self.keys, self.histories, strict=True)):
            val = (losses[row], accuracies[row], recalls[row])
            point = history.add_point(step, epoch, rates[row], val, train_eval[row])
            self.callback.on_point(key, point)

    def _end_epoch(self, epochs_done: int) -> None:
        """Update the best weights, finish the replicas whose training is over and write checkpoints if they are due."""
        better = [row for row, history in enumerate(self.histories) if history.update_best(epochs_done)]
        self.best.update(torch.tensor(better, dtype=torch.long), self.backend)
        self._share_wall_time(range(len(self.keys)))
        ended: dict[int, str] = {}
        for row, (run, history) in enumerate(zip(self.backend.runs, self.histories, strict=True)):
            if reason := history.stop_reason(run, epochs_done):
                ended[row] = reason
        if ended:
            self._finish(ended, epochs_done)
        interval = min(self._checkpoint_interval_s, checkpoint.CHECKPOINT_EVERY_S)
        due = time.perf_counter() - self._last_checkpoint > interval
        if self.checkpoints is not None and self.keys and due:
            for row, (key, history) in enumerate(zip(self.keys, self.histories, strict=True)):
                self.checkpoints[key] = checkpoint.to_bytes(epochs_done, row, self.backend, self.best, history)
            self._last_checkpoint, self._checkpoint_interval_s = time.perf_counter(), 2 * self._checkpoint_interval_s

    def _finish(self, ended: dict[int, str], epochs_done: int) -> None:
        """Test the rows that ended, with their last and best weights, and report their outcomes."""
        backend, data = self.backend, self.backend.data
        rows, final_relu = torch.tensor(list(ended), dtype=torch.long), backend.runs[0].final_relu
        last_state = backend.flat[rows], backend.running[rows]
        best_state = self.best.flat[rows], self.best.running[rows]
        last = backend.evaluate(data.test_x, data.test_y, *last_state)
        best = backend.evaluate(data.test_x, data.test_y, *best_state)
        self._share_wall_time(list(ended))
        for index, (row, reason) in enumerate(ended.items()):
            # One replica at a time, so that memory holds the logits of one only.
            last_logits, best_logits = (
                backend.compute_logits(data.test_x, *(part[index : index + 1] for part in state))[0]
                for state in (last_state, best_state)
            )
            test = metric_fields(last, best, index, last_logits, best_logits, data.test_y, final_relu)
            self._share_wall_time([row])
            self.callback.on_finished(self.keys[row], self._outcome(row, reason, epochs_done, test))
        self._drop(list(ended))

    def _end_diverged(self, diverged: dict[int, int], chunk: Chunk) -> None:
        """End the rows whose loss or weights are no longer finite; the points measured before remain."""
        self._share_wall_time(range(len(self.keys)))
        for row, offset in diverged.items():
            step = chunk.epoch * self.backend.steps_per_epoch + chunk.start + offset
            outcome = self._outcome(row, "diverged", chunk.epoch, {}, diverged_step=step)
            self.callback.on_finished(self.keys[row], outcome)
        self._drop(list(diverged))

    def _outcome(
        self, row: int, reason: str, epochs: int, test: dict[str, Any], diverged_step: int | None = None
    ) -> Outcome:
        history, data = self.histories[row], self.backend.data
        last: Mapping[str, Any] = history.points[-1] if history.points and diverged_step is None else {}
        return Outcome(
            status="done" if diverged_step is None else "diverged",
            stop_reason=reason,
            points=history.points,
            epochs_run=epochs,
            steps=epochs * self.backend.steps_per_epoch if diverged_step is None else diverged_step,
            diverged_step=diverged_step,
            best_epoch=history.best_epoch,
            train_loss=last.get("train_loss"),
            train_acc=last.get("train_acc"),
            train_eval_loss=last.get("train_eval_loss"),
            train_eval_acc=last.get("train_eval_acc"),
            val_loss=last.get("val_loss"),
            val_acc=last.get("val_acc"),
            best_val_loss=history.best_val_loss,
            best_val_acc=history.best_val_acc,
            **test,
            train_rows=len(data.train_y),
            val_rows=len(data.val_y),
            test_rows=len(data.test_y),
            train_time_s=history.time_s,
            wall_share_s=history.wall_share_s,
            wall_time_s=history.wall_time_s,
            replicas=self.replicas,
            peak_memory_mb=peak_memory_mb(self.backend.device),
            device=device_name(self.backend.device),
            backend=self.backend.backend_name(row),
            versions=versions(),
            weights=save(self.backend.state_dict(self.best.flat[row], self.best.running[row])),
        )

    def _drop(self, rows: Sequence[int]) -> None:
        if not rows:
            return
        keep = [row for row in range(len(self.keys)) if row not in set(rows)]
        self.backend.select(keep)
        self.best.select(torch.tensor(keep, dtype=torch.long))
        self.keys = [self.keys[row] for row in keep]
        self.histories = [self.histories[row] for row in keep]


def create_backend(runs: Sequence[RunConfig], data: DeviceSplit) -> Backend:
    """Return the fastest backend that can train the runs; the name of a slower one includes the reason."""
    device = data.train_x.device.type
    reason = why_not_kernel(runs[0]) if device == "cpu" else why_not_gpu_kernel(runs[0])
    if reason is None and device == "cpu":
        return CpuBackend(list(runs), data)
    if reason is None and device == "cuda":
        backend = create_cuda_backend(list(runs), data)
        if isinstance(backend, Backend):
            return backend
        reason = backend
    return VmapBackend(list(runs), data, reason or f"device {device}")


def create_cuda_backend(runs: list[RunConfig], data: DeviceSplit) -> Backend | str:
    """Return the CUDA backend, or the reason in a few words if it cannot be created."""
    if importlib.util.find_spec("numba_cuda") is None:
        return "numba-cuda is not installed"
    if data.train_x.device.index:
        # Numba keeps the first CUDA context that it sees in a thread, while torch switches between devices.
        return f"device {data.train_x.device}; the kernel takes the first one"
    try:
        # Imported only where there is a GPU: numba.cuda costs a worker 0.16 s.
        from jsc_explore.training.backends.cuda.backend import CudaBackend

        return CudaBackend(runs, data)
    except (JscError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # Driver, compiler and package each raise their own; the stored run names the type.
        log.warning("the kernel for GPUs: %s", error)
        return f"{type(error).__name__} of numba-cuda"


@lru_cache(maxsize=8)
def resolve_device(name: str) -> torch.device:
    """Return the training device; ``auto`` is a GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)

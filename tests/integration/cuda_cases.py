"""Tests of the CUDA kernel, run by test_cuda_kernel.py in a subprocess: in Numba's simulator, or on a GPU if there is
one. The simulator is slow, so batches are small."""

import itertools
import sys
import threading

import numpy as np
import pytest
import torch
from torch.nn import functional

from jsc_explore.config import RunConfig
from jsc_explore.training import trainer as training
from jsc_explore.training.backends.base import DeviceSplit, batch_order
from jsc_explore.training.backends.cuda import jit, kernel, layers
from jsc_explore.training.backends.cuda.backend import CudaBackend
from jsc_explore.training.backends.cuda.jit import SIMULATED, relu_if
from jsc_explore.training.backends.vmap.backend import VmapBackend
from jsc_explore.training.callbacks import CollectingCallback
from jsc_explore.training.chunks import Chunk, stream_seed
from jsc_explore.training.models import MaskedDropout, biases_before_batch_norm, build
from jsc_explore.training.schedules import learning_rates
from jsc_explore.training.trainer import train_stack

DEVICE = torch.device("cpu" if SIMULATED else "cuda")
# Six whole batches of eight and a short one of four.
ROWS, BATCH, STEPS = 52, 8, 7
EVERY_ACTIVATION = "16-7/gelu-9b/tanh-6/silu-3/leaky-5"
DROPOUT = "16-6d0.5-8/tanhd0.1-5"


def jets(rows, seed=7):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 5
    x = 0.6 * torch.randn(5, 16, generator=generator)[labels] + torch.randn(rows, 16, generator=generator)
    return x.to(DEVICE), labels.to(DEVICE)


@pytest.fixture(scope="module")
def data():
    return DeviceSplit(*jets(ROWS), *jets(70, 8), *jets(30, 9))


def epoch(backend, number=0, cuts=(0, STEPS)):
    """Train an epoch in pieces; return the losses of every step."""
    backend.begin_epoch(number)
    chunks = [Chunk(number, a, b, False, b == STEPS) for a, b in itertools.pairwise(cuts)]
    return np.concatenate([backend.train_chunk(chunk).losses for chunk in chunks])


def state(backend):
    tensors = backend.flat, backend.running, backend.optimizer.m, backend.optimizer.v
    return [tensor.cpu().numpy().copy() for tensor in tensors]


def train_with_torch(run, data, epochs):
    """Train in plain PyTorch; return the module and the loss of every step."""
    module, losses = build(run.network, run.seed), []
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    if run.optimizer == "sgd":
        options = {"momentum": run.momentum, "nesterov": run.momentum > 0, "weight_decay": run.weight_decay}
        optimizer = torch.optim.SGD(module.parameters(), lr=1.0, **options)
    else:
        optimizer = kinds[run.optimizer](module.parameters(), lr=1.0, weight_decay=run.weight_decay)
    x, y = data.train_x.cpu(), data.train_y.cpu()
    constants = [p for name, p in module.named_parameters() if name in biases_before_batch_norm(module)]
    dropouts = [m for m in module.modules() if isinstance(m, MaskedDropout)]
    for number in range(epochs):
        order = batch_order(run.seed, number, len(y))
        generator = torch.Generator().manual_seed(stream_seed("dropout", run.seed, number))
        for step, rate in enumerate(learning_rates(run, number, STEPS)):
            rows = order[step * run.batch_size : (step + 1) * run.batch_size]
            for dropout in dropouts:
                keep = 1 - dropout.rate
                dropout.mask = (torch.rand(len(rows), *dropout.shape, generator=generator) < keep).float() / keep
            optimizer.param_groups[0]["lr"] = rate
            optimizer.zero_grad()
            loss = functional.cross_entropy(module(x[rows]), y[rows])
            loss.backward()
            for parameter in constants:
                parameter.grad.zero_()
            optimizer.step()
            losses.append(loss.item())
    return module, losses


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("model", ["jsc-tiny", "jsc-toy", EVERY_ACTIVATION, DROPOUT])
def test_training_equals_torch(data, model, optimizer):
    run = RunConfig(
        model=model, optimizer=optimizer, batch_size=BATCH, scheduler="onecycle", max_epochs=2, weight_decay=1e-2,
        learning_rate=3e-2 if optimizer == "sgd" else 3e-3, final_relu=model == "jsc-tiny", seed=1,
    )  # fmt: skip
    epochs = 1 if model == EVERY_ACTIVATION else 2
    backend = CudaBackend([run], data, threads=4 if SIMULATED else None)
    losses = np.concatenate([epoch(backend, number) for number in range(epochs)])[:, 0]
    module, expected = train_with_torch(run, data, epochs)
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    theirs = module.state_dict()
    ours = backend.state_dict(backend.flat[0], backend.running[0])
    assert {name: tensor.dtype for name, tensor in ours.items()} == {
        name: tensor.dtype for name, tensor in theirs.items() if not name.endswith(".mask")
    }
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], atol=1e-4, err_msg=name)


# The first numbers of threads have most along the batch, the last along features, where threads share sums.
@pytest.mark.parametrize(("threads", "batch"), [(1, 8), (8, 8), (32, 2)])
def test_the_result_does_not_depend_on_the_number_of_threads(data, threads, batch):
    run = RunConfig(model="16-9b/tanh-2-5", batch_size=batch, weight_decay=1e-3)
    backend = CudaBackend([run], data, threads=threads)
    backend.begin_epoch(0)
    losses = backend.train_chunk(Chunk(0, 0, 6, False, False)).losses[:, 0]
    reference = VmapBackend([run], data)
    reference.begin_epoch(0)
    expected = reference.train_chunk(Chunk(0, 0, 6, False, False)).losses[:, 0]
    np.testing.assert_allclose(losses, expected, atol=1e-5)
    np.testing.assert_allclose(backend.flat.cpu(), reference.flat.cpu(), atol=2e-5)


def test_the_bits_do_not_depend_on_other_replicas_chunks_or_memory(data):
    runs = [RunConfig(model="16b-5d0.2-5", batch_size=BATCH, seed=seed, learning_rate=10**-rate) for seed, rate in
            ((0, 2), (1, 3), (1, 2))]  # fmt: skip
    threads = 4 if SIMULATED else None

    def trained(*chosen, cuts=(0, STEPS), **options):
        backend = CudaBackend([runs[i] for i in chosen], data, threads=threads, **options)
        return [epoch(backend, 0, cuts), *(array.swapaxes(0, 1) for array in state(backend))]

    whole = trained(0, 1, 2)
    for other in (trained(0, 1, 2), trained(0, 1, 2, cuts=(0, 1, 4, STEPS)), trained(0, 1, 2, shared_bytes=0)):
        assert all(np.array_equal(a, b) for a, b in zip(whole, other, strict=True))
    alone = trained(2)
    assert all(np.array_equal(a[:, 2:], b) for a, b in zip(whole, alone, strict=True))
    assert not np.array_equal(whole[0][:, 1], whole[0][:, 2])


def test_remaining_replicas_do_not_depend_on_dropped_ones(data):
    runs = [RunConfig(model=DROPOUT, batch_size=BATCH, seed=seed) for seed in (3, 4, 3)]
    threads = 4 if SIMULATED else None
    backend, alone = CudaBackend(runs, data, threads=threads), CudaBackend(runs[2:], data, threads=threads)
    for one in (backend, alone):
        one.begin_epoch(0)
        one.train_chunk(Chunk(0, 0, 3, False, False))
    backend.select([2])
    rest = Chunk(0, 3, STEPS, False, True)
    assert np.array_equal(backend.train_chunk(rest).losses, alone.train_chunk(rest).losses)
    assert all(np.array_equal(a, b) for a, b in zip(state(backend), state(alone), strict=True))


@pytest.mark.parametrize("model", ["jsc-toy", DROPOUT])
def test_evaluation_equals_torch(data, model):
    runs = [RunConfig(model=model, batch_size=BATCH, seed=seed) for seed in (0, 1)]
    backend = CudaBackend(runs, data, threads=4 if SIMULATED else None)
    epoch(backend)
    metrics = backend.evaluate(data.val_x, data.val_y)
    outputs = backend.compute_logits(data.val_x, backend.flat, backend.running).cpu()
    for row, run in enumerate(runs):
        module = build(run.network, run.seed)
        module.load_state_dict(backend.state_dict(backend.flat[row], backend.running[row]), strict=False)
        module.eval()
        with torch.no_grad():
            theirs = module(data.val_x.cpu())
        np.testing.assert_allclose(outputs[row], theirs, atol=1e-5)
        labels = data.val_y.cpu()
        assert float(metrics.loss[row]) == pytest.approx(functional.cross_entropy(theirs, labels).item(), abs=1e-6)
        cells = torch.bincount(labels * 5 + theirs.argmax(1), minlength=25).view(5, 5)
        assert torch.equal(metrics.confusion[row].cpu(), cells)


class RaceDetector:
    """Record which threads access which value between two syncs, and the lines where one writes what another accesses.

    The threads of the simulator take turns, so that a missing sync seldom shows in its results; on a GPU it would.
    """

    def __init__(self, monkeypatch):
        self.here, self.lock = threading.local(), threading.Lock()
        self.accesses, self.races, self.writes = {}, set(), 0
        for module in (jit, layers, kernel):
            for name, watched in (("item", self.item), ("put", self.put), ("sync", self.sync)):
                monkeypatch.setattr(module, name, watched)

    def sync(self):
        threading.current_thread().syncthreads()
        self.here.syncs = self.syncs + 1

    def item(self, a, i):
        self.note(a, i, False)
        return a[i]

    def put(self, a, i, value):
        self.note(a, i, True)
        a[i] = value

    @property
    def syncs(self):
        return getattr(self.here, "syncs", 0)

    def note(self, a, i, writes):
        memory = a if isinstance(a, np.ndarray) else a._item._ary
        assert 0 <= i < len(memory), f"{i} is outside of {len(memory)} values"
        place, me = memory.__array_interface__["data"][0] + memory.itemsize * int(i), threading.current_thread()
        with self.lock:
            when, threads, written = self.accesses.get(place, (None, frozenset(), False))
            # Blocks and launches share memory one after the other: each has a manager of its own.
            now = me._manager, self.syncs
            if when != now:
                threads, written = frozenset(), False
            threads, written = threads | {me.threadIdx.x}, written or writes
            self.accesses[place] = now, threads, written
            self.writes += writes
            if written and len(threads) > 1:
                frame = sys._getframe(2)
                self.races.add(f"{frame.f_code.co_name}, line {frame.f_lineno}")


@pytest.mark.skipif(not SIMULATED, reason="looks into the simulator")
@pytest.mark.parametrize("shared_bytes", [0, 48 * 1024])
@pytest.mark.parametrize(
    ("model", "threads", "batch"),
    [("jsc-toy", 4, BATCH), (EVERY_ACTIVATION, 8, 3), ("16-6bd0.5-9-5", 8, BATCH), ("16b-2-5", 32, 2)],
)
def test_no_thread_accesses_what_another_writes_before_a_sync(data, monkeypatch, model, threads, batch, shared_bytes):
    run = RunConfig(model=model, batch_size=batch)
    backend = CudaBackend([run], data, threads=threads, shared_bytes=shared_bytes)
    backend.begin_epoch(0)
    detector = RaceDetector(monkeypatch)
    last = backend.steps_per_epoch
    backend.train_chunk(Chunk(0, last - 2, last, False, True))
    backend.evaluate(data.val_x, data.val_y)
    assert detector.writes > 1000
    assert detector.races == set()


@pytest.mark.skipif(not SIMULATED, reason="calls a function of the GPU from here")
def test_relu_passes_nan_so_that_divergence_is_noticed():
    assert np.isnan(relu_if(np.float32("nan"), True))
    assert relu_if(np.float32(-1), True) == 0
    assert relu_if(np.float32(-1), False) == -1


def test_a_whole_training_with_long_and_short_runs(data, monkeypatch):
    runs = {str(epochs): RunConfig(batch_size=BATCH, max_epochs=epochs, seed=epochs) for epochs in (1, 3)}
    ours, theirs = CollectingCallback(), CollectingCallback()
    monkeypatch.setattr(training, "create_backend", lambda runs, data: VmapBackend(list(runs), data))
    train_stack(runs, data, theirs, device=DEVICE.type)
    monkeypatch.setattr(training, "create_backend", lambda runs, data: CudaBackend(list(runs), data, threads=4))
    train_stack(runs, data, ours, device=DEVICE.type, checkpoints={})
    for key in runs:
        one, other = ours.outcomes[key], theirs.outcomes[key]
        assert one.backend == "kernel-cuda"
        assert [p["step"] for p in one.points] == [p["step"] for p in other.points]
        for name in ("val_loss", "train_eval_loss"):
            ours_on, theirs_on = ([p[name] for p in outcome.points if p[name] is not None] for outcome in (one, other))
            np.testing.assert_allclose(ours_on, theirs_on, rtol=1e-5)
            assert len(ours_on) == (len(one.points) if name == "val_loss" else 1 + one.epochs_run)
        assert (one.test_acc, one.confusion, one.stop_reason) == (other.test_acc, other.confusion, other.stop_reason)

"""Compiled programs of the vmap backend: equal to the eager step, the same bits each time, every fallback is named."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from runs import RecordingCallback, curve, fit, result_of

from jsc_explore.cli import main
from jsc_explore.config import RunConfig
from jsc_explore.training import checkpoint, precompile
from jsc_explore.training.backends import select
from jsc_explore.training.backends.base import DeviceSplit
from jsc_explore.training.backends.select import compiled_from
from jsc_explore.training.backends.vmap import aot, program
from jsc_explore.training.backends.vmap.aot import Build, CompileError
from jsc_explore.training.backends.vmap.backend import VmapBackend
from jsc_explore.training.backends.vmap.program import ProgramSpec, failure_marker, find_compiler
from jsc_explore.training.backends.vmap.step import State
from jsc_explore.training.chunks import Chunk

CONV = RunConfig(model="16-c4k3b-8d0.5-5", batch_size=96, max_epochs=3, scheduler="onecycle", learning_rate=1e-2)
SCALED = RunConfig(
    model="16-6b-5", batch_size=96, max_epochs=3, optimizer="sgd", weight_decay=1e-3, precision="16-mixed",
    scheduler="warmup", learning_rate=1e-2,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory):
    """A cache for this module, in which the programs of its tests are compiled once, in parallel."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JSC_EXPLORE_CACHE", str(tmp_path_factory.mktemp("cache")))
        assert find_compiler(), "these tests need a C++ compiler"
        builds = [Build.start(ProgramSpec.of(run, "cpu")) for run in (CONV, SCALED)]
        yield [build.load() for build in builds]


@pytest.fixture
def repaying(monkeypatch):
    """Let even a run of seconds be worth a compiled program."""
    monkeypatch.setattr(select, "_MIN_SAVED_S", 0.0)


def begun(runs, split, how):
    """Return a backend at the start of its second epoch, eager or compiled."""
    replicas = VmapBackend(runs, DeviceSplit.of(split, torch.device("cpu")), "some reason")
    if how == "eager":
        replicas.prepare = lambda epoch: True
    replicas.begin_epoch(1)
    return replicas


@pytest.mark.usefixtures("repaying")
@pytest.mark.parametrize("run", [CONV, SCALED], ids=lambda run: f"{run.precision}-{run.optimizer}")
def test_each_step_of_a_program_equals_the_eager_step(jets_split, run):
    """Step by step, because trajectories diverge where a jet is within rounding of the kink of a ReLU."""
    runs = [run.with_(seed=seed, learning_rate=rate) for seed, rate in ((0, 1e-3), (1, 1e-4), (0, 3e-4))]
    eager, ours = (begun(runs, jets_split, how) for how in ("eager", "compiled"))
    assert [eager.backend_name(0), ours.backend_name(2)] == [
        "stack-eager (some reason)",
        "stack-compiled (some reason)",
    ]
    tolerance = 2e-6 if run is CONV else 2e-3  # half precision rounds each activation to three digits
    apart = []
    # Two short epochs' worth of chunks: the last one ends with the short batch.
    for start, stop in ((0, 1), (1, 2), (2, 5), *((step, step + 1) for step in range(5, 41)), (41, 42)):
        ours._set_state(range(ours.size), State(*(part.clone() for part in eager.state(range(eager.size)))))
        chunk = Chunk(1, start, stop, False, False)
        expected, taken = eager.train_chunk(chunk), ours.train_chunk(chunk)
        assert taken.losses.shape == expected.losses.shape == (stop - start, 3)
        assert taken.losses == pytest.approx(expected.losses, abs=10 * tolerance)
        assert taken.sizes.tolist() == expected.sizes.tolist()
        assert np.abs(taken.correct - expected.correct).max() <= (0 if run is CONV else 2)
        apart += [
            float((mine - theirs).abs().max()) for mine, theirs in zip(ours.state([0]), eager.state([0]), strict=True)
        ]
        assert torch.equal(ours.optimizer.t, eager.optimizer.t)
    assert ours.whole_steps == 41
    assert np.quantile(apart, 0.97) < tolerance
    assert not torch.equal(ours.flat[0], ours.flat[2])


@pytest.mark.usefixtures("repaying")
def test_a_replica_that_overflows_halves_its_scale_and_keeps_its_state(jets_split):
    replicas = VmapBackend([SCALED, SCALED.with_(seed=1)], DeviceSplit.of(jets_split, torch.device("cpu")))
    replicas.begin_epoch(1)
    replicas.scale[0] = 1e30
    before, scale = replicas.flat.clone(), replicas.scale.clone()
    replicas.train_chunk(Chunk(1, 0, 1, False, False))
    assert replicas.compiled_rows == [0, 1]
    assert torch.equal(replicas.flat[0], before[0])
    assert not torch.equal(replicas.flat[1], before[1])
    assert (replicas.scale / scale).flatten().tolist() == [0.5, 1.0]
    assert replicas.optimizer.t.flatten().tolist() == [0, 1]


@pytest.mark.usefixtures("repaying")
def test_a_run_gives_the_same_bits_repeated_resumed_and_alone(jets_split, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_EVERY_S", -1.0)
    runs = {"a": CONV, "b": CONV.with_(seed=1), "short": CONV.with_(max_epochs=1)}
    whole = fit(runs, jets_split).outcomes
    assert whole["short"].backend == "stack-eager (layer conv1d)"
    assert whole["a"].backend == whole["b"].backend == "stack-compiled (layer conv1d)"
    kept = {}
    with pytest.raises(ConnectionError):
        fit(runs, jets_split, checkpoints=kept, callback=RecordingCallback(fail_after_epochs=1.5))
    # As after a restart of the engine: the finished run is not trained again, one of the others is cancelled at once.
    left = {"a": runs["a"], "b": runs["b"]}
    resumed = fit(left, jets_split, checkpoints=kept, callback=RecordingCallback(cancel_at={"b": 0}))
    assert resumed.points["a"][0]["epoch"] == 2
    assert list(resumed.outcomes) == ["a"]
    assert resumed.outcomes["a"].weights == whole["a"].weights
    assert curve(resumed.outcomes["a"], "val_loss").tolist() == curve(whole["a"], "val_loss").tolist()
    again = fit(runs, jets_split).outcomes
    assert [again[key].weights for key in runs] == [whole[key].weights for key in runs]


@pytest.mark.usefixtures("repaying")
@pytest.mark.parametrize("run", [CONV, SCALED], ids=lambda run: f"{run.precision}-{run.optimizer}")
def test_a_compiled_run_gives_the_same_bits_alone_and_in_a_stack_of_eight(jets_split, run):
    # Its first epoch and the last batch of each epoch are eager.
    runs = [run.with_(seed=i % 3, learning_rate=10.0 ** -(2 + i % 3), max_epochs=2 + i % 2) for i in range(8)]
    together = fit(runs, jets_split).outcomes
    for i in (0, 3, 6):
        alone = fit([runs[i]], jets_split).outcomes["0"]
        assert alone.backend.startswith("stack-compiled")
        assert result_of(dataclasses.replace(together[str(i)], replicas=1)) == result_of(alone)


def test_only_a_run_that_is_long_enough_gets_a_program(jets_split):
    conv = RunConfig(model="jsc-conv", max_epochs=10)
    assert compiled_from(conv, 800, "cpu") == 1
    assert compiled_from(conv, 80, "cpu") is None
    assert compiled_from(conv.with_(max_epochs=1), 10**6, "cpu") is None
    assert compiled_from(conv, 800, "cuda") is None
    mixed = RunConfig(precision="bf16-mixed", max_epochs=20)
    assert compiled_from(mixed, 800, "cpu") == 1
    assert compiled_from(mixed, 80, "cpu") is None
    assert fit([CONV], jets_split).outcomes["0"].backend == "stack-eager (layer conv1d)"


@pytest.mark.usefixtures("repaying")
def test_without_a_compiler_training_is_eager_and_the_backend_name_has_the_reason(jets_split, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    run = CONV.with_(batch_size=97, max_epochs=2)
    assert fit([run], jets_split).outcomes["0"].backend == "stack-eager (layer conv1d; no C++ compiler)"
    # A cached program needs no compiler.
    assert fit([CONV], jets_split).outcomes["0"].backend == "stack-compiled (layer conv1d)"


@pytest.mark.usefixtures("repaying")
def test_a_failed_compilation_is_named_and_only_precompile_tries_again(jets_split, monkeypatch):
    run = RunConfig(model="16-5", precision="bf16-mixed", batch_size=98, max_epochs=2)
    spec = ProgramSpec.of(run, "cpu")
    monkeypatch.setenv("CXX", shutil.which("false"))
    assert fit([run], jets_split).outcomes["0"].backend == "stack-eager (precision bf16-mixed; compiling failed)"
    assert "Error" in failure_marker(spec).read_text()
    with pytest.raises(CompileError, match="failed before"):
        Build.start(spec)

    def begin(asked):
        assert asked == spec
        raise CompileError("marker still there" if failure_marker(asked).exists() else "tried again")

    monkeypatch.setattr(Build, "start", begin)
    monkeypatch.setattr(precompile, "load_kernel", lambda: None)
    (_, no_fault, _), (name, fault, _) = precompile.precompile([RunConfig(), run])
    assert (no_fault, fault) == ("", "tried again")
    assert name == "16-5, batch 98, adam, bf16-mixed"


@pytest.mark.usefixtures("repaying")
def test_a_corrupt_program_is_named_in_the_backend(jets_split):
    run = CONV.with_(batch_size=99, max_epochs=2)
    ProgramSpec.of(run, "cpu").path.write_bytes(b"torn")
    outcome = fit([run], jets_split).outcomes["0"]
    assert outcome.backend == "stack-eager (layer conv1d; the compiled program cannot be loaded)"


@pytest.mark.usefixtures("repaying")
def test_a_stack_that_waits_for_its_program_can_be_cancelled(jets_split, monkeypatch):
    monkeypatch.setattr(VmapBackend, "prepare", lambda self, epoch: epoch == 0)
    callback = fit({"a": CONV}, jets_split, callback=RecordingCallback(cancel_at={"a": 42}))
    assert callback.outcomes == {}
    assert callback.progress_calls[-1][1] == 42


def test_a_program_is_for_one_network_optimizer_precision_and_batch_size(monkeypatch):
    paths = {ProgramSpec.of(run, "cpu").path for run in (CONV, SCALED, CONV.with_(batch_size=95))}
    assert len(paths) == 3
    other = CONV.with_(seed=7, learning_rate=1.0, scheduler="constant", weight_decay=0.1, max_epochs=9)
    assert ProgramSpec.of(other, "cpu").path == ProgramSpec.of(CONV, "cpu").path
    monkeypatch.setattr(program, "_environment", lambda: ["another torch"])
    assert ProgramSpec.of(CONV, "cpu").path not in paths


def test_precompile_compiles_what_the_kernel_cannot_train_and_prints_failures(monkeypatch, capsys):
    monkeypatch.setattr(precompile, "load_kernel", lambda: None)
    made = []
    monkeypatch.setattr(aot.Build, "start", lambda spec: made.append(spec) or Build(spec, None))
    monkeypatch.setattr(aot.Build, "load", lambda build: None)
    with pytest.raises(SystemExit, match="0"):
        main.main(["precompile"])
    assert [(spec.batch_size, spec.optimizer) for spec in made] == [(256, "adam")]
    assert "jsc-conv, batch 256, adam, 32-true: ready" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.setattr(precompile, "load_kernel", lambda: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(SystemExit, match="1"):
        main.main(["precompile", "--model", "16-c4k3-5", "--batch-size", "64"])
    assert "16-c4k3-5, batch 64, adam, 32-true: no C++ compiler" in capsys.readouterr().out

"""The engine over real workers: trained once, and nothing lost when a worker or the engine itself is killed."""

import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest
from runs import result_of, train_undisturbed
from servers import ROOT, eventually, workers_of

from jsc_explore.config import RunConfig
from jsc_explore.files import safetensors_metadata
from jsc_explore.jobs.queue import INTERACTIVE, Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store

SMALL = {"batch_size": 65536, "max_epochs": 2}
# Networks wide enough that a training still runs when the test reads its state.
LONG = {"model": "16-512-512-5", "batch_size": 8192, "max_epochs": 1000}
MEDIUM = {"model": "16-128-128-5", "batch_size": 8192}
PYTHON = [sys.executable, "-m", "jsc_explore"]
SAVES_OFTEN = [sys.executable, str(ROOT / "tests" / "engine_that_saves_often.py")]


class Served:
    """A store with an engine of its own: a process that can be killed and started again."""

    def __init__(self, directory, cache):
        self.directory, self.cache = directory, cache
        self.environment = {
            **os.environ, "JSC_EXPLORE_STORE": str(directory), "JSC_EXPLORE_CACHE": str(cache), "OMP_NUM_THREADS": "1",
            "JSC_EXPLORE_SNAPSHOT": str(directory / "none.parquet"), "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        self.queue = Queue(directory)
        self.store = Store(directory)
        self.engine = None

    def start(self):
        with (self.directory / "engine.log").open("ab") as log:
            command = [*SAVES_OFTEN, "engine", "--workers", "1"]
            self.engine = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def stop(self, how=signal.SIGTERM):
        """End the engine; return the processes of its family that outlived it."""
        family = psutil.Process(self.engine.pid).children(recursive=True)
        self.engine.send_signal(how)
        self.engine.wait(timeout=60)
        return psutil.wait_procs(family, timeout=10)[1]

    def command(self, *arguments):
        return subprocess.run(
            [*PYTHON, *map(str, arguments)], env=self.environment, capture_output=True, text=True, timeout=300
        )

    def submit(self, *runs, priority=INTERACTIVE):
        return submit(self.store, self.queue, runs, priority).run_ids

    def state(self, run_id):
        return self.queue.states([run_id]).get(run_id)

    def record(self, run_id):
        """Wait for a run to be stored and return it whole."""
        eventually(lambda: self.state(run_id) not in ("queued", "running"), 120)
        assert self.state(run_id) == "done", [job.error for job in self.queue.jobs(("failed",))]
        self.store.refresh()
        return self.store.record(run_id, weights=True)

    def busy_worker(self):
        """Return the worker that trains now."""
        workers = workers_of(psutil.Process(self.engine.pid))
        before = {worker: sum(worker.cpu_times()[:2]) for worker in workers}
        time.sleep(0.5)
        return max(before, key=lambda worker: sum(worker.cpu_times()[:2]) - before[worker])


@pytest.fixture(scope="module")
def served(tmp_path_factory, jets_cache):
    served = Served(tmp_path_factory.mktemp("served"), jets_cache)
    served.start()
    yield served
    if served.engine.poll() is None:
        served.stop()
    served.queue.close()
    served.store.close()


def test_the_command_trains_once_and_then_answers_from_the_store(served):
    line = ["train", "--batch-size", 65536, "--learning-rate", 1e-2, "--max-epochs", 2, "--json"]
    first = served.command(*line)
    assert (first.returncode, first.stderr) == (0, "")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    again = served.command(*line)
    took = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert (again.returncode, again.stderr) == (0, "")
    trained, answered = json.loads(first.stdout), json.loads(again.stdout)
    assert (trained.pop("from_store"), answered.pop("from_store")) == (False, True)
    assert answered == trained, "the same figures to the last digit"
    assert took < 3
    assert len(served.queue.jobs()) == 1
    assert served.queue.jobs()[0].attempt == 1
    assert trained["val_acc"] > 0.25


def test_a_worker_killed_in_the_middle_costs_only_time(served):
    run = RunConfig(**MEDIUM, max_epochs=20, seed=1)
    (run_id,) = served.submit(run)
    eventually(lambda: served.queue.live()[1].get(run_id))
    served.busy_worker().kill()
    record = served.record(run_id)
    assert record.outcome.epochs_run == 20
    assert [point["epoch"] for point in record.outcome.points][-20:] == [float(epoch) for epoch in range(1, 21)]
    assert sum(part.rows for part in served.store.catalog.parts()) == served.store.runs().num_rows


def test_a_worker_killed_while_it_starts_costs_no_run(tmp_path, jets_cache):
    served = Served(tmp_path, jets_cache)
    served.start()
    engine = psutil.Process(served.engine.pid)
    eventually(lambda: workers_of(engine), 60)
    for worker in workers_of(engine):
        worker.kill()
    (run_id,) = served.submit(RunConfig(**SMALL, seed=3))
    assert served.record(run_id).outcome.status == "done"
    assert served.engine.poll() is None, "the same engine"
    assert served.stop() == []
    served.queue.close()
    served.store.close()


def test_a_long_run_ends_when_it_is_cancelled_and_the_worker_is_free(served):
    (run_id,) = served.submit(RunConfig(**LONG))
    eventually(lambda: served.queue.live()[1].get(run_id))
    served.queue.cancel([run_id])
    eventually(lambda: served.state(run_id) == "cancelled", 15)
    (other,) = served.submit(RunConfig(**SMALL, seed=2))
    assert served.record(other).outcome.status == "done"
    assert served.store.existing([run_id]) == set()


def test_a_short_request_does_not_wait_for_a_long_one(served):
    """The engine has one worker for long runs, and the long run has it."""
    (long,) = served.submit(RunConfig(**LONG))
    eventually(lambda: served.queue.live()[1].get(long))
    (short,) = served.submit(RunConfig(**SMALL, seed=5))
    assert served.record(short).outcome.status == "done"
    assert served.state(long) == "running"
    served.queue.cancel([long])
    eventually(lambda: served.state(long) == "cancelled")


def test_an_exception_in_training_is_a_failed_run_with_its_traceback(served):
    run = RunConfig(dataset="openml", **SMALL)
    served.queue.request({"no-such-data": ("c" * 32, run)})
    eventually(lambda: served.state("no-such-data") == "failed")
    (job,) = served.queue.jobs(("failed",))
    assert job.error.startswith("Traceback (most recent call last)")
    assert "jsc-explore data fetch openml" in job.error
    served.queue.request({"no-such-data": ("c" * 32, run)})
    eventually(lambda: served.state("no-such-data") == "failed")
    assert served.queue.jobs(("failed",))[0].attempt == 2


def test_a_second_engine_process_leaves_the_store_to_the_first(served):
    refused = served.command("engine")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    assert "another engine" in refused.stderr


def test_a_killed_engine_leaves_no_worker_and_the_next_one_gets_the_same_result(served):
    """An undisturbed training elsewhere ends with the same bits; its checkpoint was whole, half written, torn."""
    run = RunConfig(**MEDIUM, max_epochs=25, seed=3)
    (run_id,) = served.submit(run)
    checkpoint = served.directory / "checkpoints" / f"{run_id}.safetensors"
    eventually(checkpoint.exists)
    assert served.stop(signal.SIGKILL) == []
    assert served.state(run_id) == "running", "nobody was left to say otherwise"
    whole = checkpoint.read_bytes()
    checkpoint.with_name(f".{checkpoint.name}.tmp").write_bytes(whole[: len(whole) // 2])
    began = int(safetensors_metadata(whole)["epoch"])
    served.start()
    eventually(lambda: checkpoint.exists() and checkpoint.read_bytes() != whole)
    assert served.stop(signal.SIGKILL) == []
    resumed = eventually(lambda: served.queue.live()[1].get(run_id))
    assert [point["epoch"] for point in resumed] == sorted({point["epoch"] for point in resumed})
    assert int(safetensors_metadata(checkpoint.read_bytes())["epoch"]) > began > 0, "it went on where it was"
    checkpoint.write_bytes(whole[: len(whole) // 2])
    served.start()
    record = served.record(run_id)
    assert [job.attempt for job in served.queue.jobs(("done",)) if job.run_id == run_id] == [3]
    assert result_of(record.outcome) == result_of(train_undisturbed(run, served.cache))
    assert list((served.directory / "checkpoints").iterdir()) == []


def test_a_terminated_engine_ends_its_workers_and_requeues_its_runs(served):
    (run_id,) = served.submit(RunConfig(**LONG))
    eventually(lambda: served.queue.live()[1].get(run_id))
    assert served.stop(signal.SIGTERM) == []
    assert served.engine.returncode == 0
    assert served.state(run_id) == "queued"
    assert served.queue.engine() is None

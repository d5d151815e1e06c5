"""The engine on a Dask cluster whose machines share no file with it: scheduler and workers are processes of their own,
each worker in a folder of its own, with an empty cache. Only the compiled kernel is lent to them, to spare ten seconds.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runs import result_of, train_undisturbed
from servers import ROOT, eventually

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.data import cache as canonical
from jsc_explore.data.sources import SourceData
from jsc_explore.errors import FieldError
from jsc_explore.jobs.cluster.client import Cluster
from jsc_explore.jobs.cluster.code_version import CodeVersion
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store

SAMPLE, JETS = "simulated-few", 6000
# While the brake is on, trainings wait at this epoch, so that a failure hits them in the middle.
BRAKED_AT = 20
LONG = {"dataset": SAMPLE, "model": "16-64-64-5", "batch_size": 256, "max_epochs": 40, "final_relu": False}
SHORT = {"dataset": SAMPLE, "batch_size": 1024, "max_epochs": 2}
# The real command with a shorter timeout, and the real worker with a brake.
ENGINE = """
from jsc_explore.cli.main import main
from jsc_explore.jobs.cluster import worker_registry
worker_registry.HEARTBEAT_TIMEOUT_S = 10.0
main()
"""
WORKER = f"""
import pathlib, time
import jsc_explore.training.trainer as train
train.checkpoint.CHECKPOINT_EVERY_S = 0.0
begin = train.StackModule.begin_epoch
def braked(self, epoch):
    while epoch == {BRAKED_AT} and pathlib.Path("../brake").exists():
        time.sleep(0.02)
    begin(self, epoch)
train.StackModule.begin_epoch = braked
# Report after each epoch: such short epochs would be reported several at a time, after the brake.
plan = train.ChunkLoader
train.ChunkLoader = lambda epochs, steps, most, at_once: plan(epochs, steps, most, lambda: 1)
from distributed.cli.dask_worker import main
main()
"""


class Harness:
    """A scheduler, an engine with a store, and workers by name, each in a process of its own."""

    def __init__(self, home, kernel):
        self.home, self.kernel, self.processes = home, kernel, {}
        # The command prefix that selects a process's host, by the process's name.
        self.hosts = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.cache = home / "cache"
        self.cache.mkdir()
        _lend(kernel, self.cache)
        _write_sample(self.cache)
        self.queue, self.store = Queue(home / "store"), Store(home / "store")

    def start(self, name, *command, cache, **environment):
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        variables = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "JSC_EXPLORE_CACHE": str(cache), **environment}
        with (folder / "log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.hosts.get(name, []), sys.executable, *command],
                cwd=folder, env={**os.environ, **variables}, stdout=log, stderr=log,
            )  # fmt: skip
        return self.processes[name]

    def start_engine(self):
        snapshot = str(self.home / "none.parquet")
        command = ["-c", ENGINE, "engine", "--scheduler", self.address, "--store", str(self.home / "store")]
        return self.start("engine", *command, cache=self.cache, JSC_EXPLORE_SNAPSHOT=snapshot)

    def start_scheduler(self):
        host, port = self.address.removeprefix("tcp://").split(":")
        command = ["-m", "distributed.cli.dask_scheduler", "--host", host, "--port", port, "--no-dashboard"]
        return self.start("scheduler", *command, cache=self.home / "no-cache")

    def start_worker(self, name, **environment):
        cache = self.home / name / "cache"
        if not cache.exists():
            cache.mkdir(parents=True)
            _lend(self.kernel, cache)
        command = ["-c", WORKER, self.address, "--name", name, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        return self.start(name, *command, cache=cache, **environment)

    def submit(self, *runs):
        return submit(self.store, self.queue, runs).run_ids

    def brake(self, on):
        (self.home / "brake").touch() if on else (self.home / "brake").unlink()

    def is_braked(self, run_ids):
        """Return whether these runs wait at the brake and their checkpoints are saved."""
        steps = self.steps()
        saved = {path.stem for path in (self.home / "store" / "checkpoints").glob("*.safetensors")}
        return set(run_ids) <= saved and all(steps.get(run_id, 0) >= 19 * BRAKED_AT for run_id in run_ids)

    def message(self):
        state = self.queue.engine()
        return state.message if state else ""

    def steps(self):
        return {job.run_id: job.step for job in self.queue.jobs(("running",))}

    def ended(self, run_ids):
        states = self.queue.states(run_ids)
        assert "failed" not in states.values(), [job.error for job in self.queue.jobs(("failed",))]
        return set(states.values()) == {"done"}

    def close(self):
        engine = self.processes.pop("engine")
        engine.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            process.kill()
            process.wait()
        engine.wait(timeout=60)
        self.queue.close()
        self.store.close()


def _lend(kernel, cache):
    (cache / "kernel").symlink_to(kernel, target_is_directory=True)


def _write_sample(cache):
    jets = data.load("simulated")
    release = SourceData(np.ascontiguousarray(jets.features[:JETS]), jets.labels[:JETS], "", "MIT", "")
    canonical.write(cache, SAMPLE, release)


@pytest.fixture
def harness(tmp_path, jets_cache, monkeypatch):
    kernel = jets_cache / "kernel"
    kernel.mkdir(exist_ok=True)
    harness = Harness(tmp_path, kernel)
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(harness.cache))
    yield harness
    harness.close()


@pytest.mark.timeout(1800)
def test_a_cluster_without_shared_files_loses_no_run(harness):
    """One worker is killed, one stopped until its heartbeat times out, one joins late, the scheduler is killed."""
    long, short = [RunConfig(**LONG, seed=seed) for seed in range(2)], [RunConfig(**SHORT, seed=7)]
    harness.brake(on=True)
    harness.start_engine()
    eventually(lambda: harness.message() == f"waiting for the scheduler at {harness.address}")
    ids, others = harness.submit(long[0]), harness.submit(*short)
    harness.start_scheduler()
    eventually(lambda: harness.message() == f"waiting for workers of the scheduler at {harness.address}")
    harness.start_worker("worker-a")
    eventually(lambda: harness.is_braked(ids))
    harness.start_worker("worker-b")
    ids += harness.submit(long[1])
    eventually(lambda: harness.is_braked(ids))

    harness.processes["worker-a"].kill()
    # On a busy machine a slow worker may miss its heartbeat: more attempts are no fault.
    eventually(lambda: max(job.attempt for job in harness.queue.jobs() if job.run_id in ids) > 1)
    harness.start_worker("worker-late")
    eventually(lambda: harness.is_braked(ids))
    harness.processes["worker-b"].send_signal(signal.SIGSTOP)
    eventually(lambda: "worker worker-b: no heartbeat for over 10 s" in harness.message())
    eventually(lambda: min(job.attempt for job in harness.queue.jobs() if job.run_id in ids) > 1)
    harness.processes["worker-b"].send_signal(signal.SIGCONT)
    eventually(lambda: harness.message() == "")
    harness.brake(on=False)
    eventually(lambda: harness.ended(ids + others))

    harness.brake(on=True)
    long.append(RunConfig(**LONG, seed=9))
    ids += harness.submit(long[-1])
    eventually(lambda: harness.is_braked(ids[-1:]))
    harness.processes["scheduler"].kill()
    harness.processes["scheduler"].wait()
    eventually(lambda: harness.message() == f"waiting for the scheduler at {harness.address}")
    eventually(lambda: harness.queue.states(ids[-1:]) == {ids[-1]: "queued"})
    harness.brake(on=False)
    harness.start_scheduler()
    harness.start_worker("worker-new")
    eventually(lambda: harness.ended(ids))

    assert harness.store.refresh()
    assert sum(part.rows for part in harness.store.catalog.parts()) == 4, "each was stored once"
    for run in (*long, *short):
        record = harness.store.record(run.run_id(data.digest(SAMPLE)), weights=True)
        assert result_of(record.outcome) | {"replicas": 1} == result_of(train_undisturbed(run, harness.cache))
    log = (harness.home / "engine" / "log").read_text().splitlines()
    sent = [line.split()[-1] for line in log if line.startswith(f"sent the jets of {SAMPLE} to worker")]
    assert len(sent) == len(set(sent)) >= 3, "once to each worker"
    assert list((harness.home / "store" / "checkpoints").iterdir()) == []


@pytest.mark.timeout(600)
def test_a_worker_with_other_code_is_refused_in_one_line(harness):
    other = harness.home / "other"
    shutil.copytree(ROOT / "jsc_explore", other / "jsc_explore")
    with (other / "jsc_explore" / "training" / "plan.py").open("a") as file:
        file.write("# trained otherwise\n")
    harness.start_scheduler()
    harness.start_engine()
    (run_id,) = harness.submit(RunConfig(**SHORT))
    harness.start_worker("worker-other", PYTHONPATH=str(other))
    message = eventually(lambda: "refused" in harness.message() and harness.message())
    assert message.startswith(f"worker worker-other on {socket.gethostname()} is refused: it has other files")
    assert message.count("\n") == 0
    assert harness.queue.states([run_id]) == {run_id: "queued"}
    log = (harness.home / "engine" / "log").read_text()
    assert "is refused" in log
    assert "Traceback" not in log
    harness.start_worker("worker-same")
    eventually(lambda: harness.ended([run_id]))


class Hosts:
    """Three hosts on one network: network namespaces with an address each, the first with the bridge."""

    def __init__(self):
        self.holders = [subprocess.Popen(["unshare", "--user", "--map-root-user", "--net", "sleep", "1000"])]
        try:
            eventually(lambda: self._is_apart(self.holders[0]), 10)
            self.run(0, "ip link set lo up", "ip link add br0 type bridge", "ip addr add 10.77.0.1/24 dev br0",
                     "ip link set br0 up")  # fmt: skip
            for host in (1, 2):
                self.holders.append(subprocess.Popen([*self.on(0), "unshare", "--net", "sleep", "1000"]))
                eventually(lambda: self._is_apart(self.holders[-1], self.holders[0]), 10)
                pid = self.holders[-1].pid
                self.run(
                    0, f"ip link add v{host} type veth peer name eth0 netns {pid}", f"ip link set v{host} master br0 up"
                )
                self.run(
                    host, f"ip addr add 10.77.0.{host + 1}/24 dev eth0", "ip link set eth0 up", "ip link set lo up"
                )
        except BaseException:
            self.close()
            raise

    def on(self, host):
        return ["nsenter", "--target", str(self.holders[host].pid), "--user", "--net", "--preserve-credentials", "--"]

    def run(self, host, *commands):
        for command in commands:
            subprocess.run([*self.on(host), *command.split()], check=True, capture_output=True, text=True)

    def close(self):
        for holder in self.holders:
            holder.kill()
            holder.wait()

    def _is_apart(self, holder, other=None):
        assert holder.poll() is None, "no namespace of its own is allowed here"

        def read(process):
            return (Path("/proc") / process / "ns" / "net").readlink()

        mine = read(str(holder.pid))
        return mine != read("self") and (other is None or mine != read(str(other.pid)))


@pytest.fixture
def hosts():
    try:
        hosts = Hosts()
    except (OSError, AssertionError, subprocess.CalledProcessError) as error:
        pytest.skip(f"three hosts on one machine: {getattr(error, 'stderr', '') or error}")
    yield hosts
    hosts.close()


@pytest.mark.timeout(1800)
def test_three_hosts_and_a_network_failure(harness, hosts):
    harness.address = "tcp://10.77.0.1:8786"
    for host, names in enumerate((("scheduler", "engine"), ("worker-a",), ("worker-b",))):
        harness.hosts |= dict.fromkeys(names, hosts.on(host))
    runs = [RunConfig(**LONG, seed=seed) for seed in range(2)]
    harness.brake(on=True)
    harness.start_scheduler()
    harness.start_engine()
    ids = []
    for run, name in zip(runs, ("worker-a", "worker-b"), strict=True):
        ids += harness.submit(run)
        harness.start_worker(name)
        eventually(lambda ids=ids: harness.is_braked(ids))
    hosts.run(0, "ip link set v1 down")
    eventually(lambda: "worker worker-a: no heartbeat" in harness.message())
    eventually(lambda: any(job.attempt > 1 for job in harness.queue.jobs(("queued", "running", "done"))))
    hosts.run(0, "ip link set v1 up")
    harness.brake(on=False)
    eventually(lambda: harness.ended(ids))
    assert harness.store.refresh()
    assert sum(part.rows for part in harness.store.catalog.parts()) == 2
    for run in runs:
        record = harness.store.record(run.run_id(data.digest(SAMPLE)), weights=True)
        assert result_of(record.outcome) | {"replicas": 1} == result_of(train_undisturbed(run, harness.cache))


def test_another_version_recipe_or_file_is_a_difference():
    own = CodeVersion("1.0", 3, "a" * 64)
    assert own.difference(own) == ""
    assert own.difference(CodeVersion("0.9", 2, "b" * 64)) == "has jsc-explore 0.9, the engine has 1.0"
    assert own.difference(CodeVersion("1.0", 2, "b" * 64)) == "trains by recipe version 2, the engine by 3"
    assert "bbbbbbbb" in own.difference(CodeVersion("1.0", 3, "b" * 64))
    first = CodeVersion.own()
    CodeVersion.own.cache_clear()
    assert CodeVersion.own() == first, "read again from the files"


def test_an_invalid_scheduler_address_is_refused_at_once():
    for address in ("nonsense://", "localhost", "tcp://host"):
        with pytest.raises(FieldError, match="is no address of a Dask scheduler; try 'tcp://host:8786'"):
            Cluster(scheduler=address)

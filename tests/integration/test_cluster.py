"""The engine on a Dask cluster whose machines share no file with it: scheduler and workers are processes of their own,
each worker in a folder of its own, with an empty cache. Only the compiled kernel is lent to them, to spare ten seconds.
"""

import os
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import psutil
import pytest
from distributed import Client
from runs import result_of, train_undisturbed
from servers import ROOT, eventually

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.data import cache as canonical
from jsc_explore.data.sources import SourceData
from jsc_explore.errors import FieldError
from jsc_explore.jobs.cluster.code_version import CodeVersion
from jsc_explore.jobs.cluster.connection import SchedulerConnection
from jsc_explore.jobs.limits import UNLIMITED
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import Requester, submit
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


# As docs/cluster.md sets it.
QUIET = ["--no-dashboard", "--dashboard-address", "127.0.0.1:0"]
WITHOUT_HTTP = {
    "DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION": "True",
    "DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES": "[]",
    "DASK_DISTRIBUTED__WORKER__HTTP__ROUTES": "[]",
}


def make_keys(folder):
    """Make a certificate and its key with the command of docs/cluster.md; return the options that name them."""
    folder.mkdir(exist_ok=True)
    text = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    (command,) = [line for line in text.splitlines() if line.startswith("openssl ")]
    subprocess.run(shlex.split(command), cwd=folder, check=True, capture_output=True)
    certificate, key = str(folder / "cert.pem"), str(folder / "key.pem")
    return ["--tls-ca-file", certificate, "--tls-cert", certificate, "--tls-key", key]


class Harness:
    """A scheduler, an engine with a store, and workers by name, each in a process of its own."""

    def __init__(self, home, kernel):
        self.home, self.kernel, self.processes = home, kernel, {}
        # The command prefix that selects a process's host, by the process's name.
        self.hosts = {}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tls://127.0.0.1:{free.getsockname()[1]}"
        self.cache = home / "cache"
        self.cache.mkdir()
        self.keys = make_keys(home)
        _lend(kernel, self.cache)
        _write_sample(self.cache)
        self.queue, self.store = Queue(home / "store"), Store(home / "store")

    def start(self, name, *command, cache, **environment):
        folder = self.home / name
        folder.mkdir(exist_ok=True)
        variables = {
            **WITHOUT_HTTP,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "JSC_EXPLORE_CACHE": str(cache),
            **environment,
        }
        with (folder / "log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [*self.hosts.get(name, []), sys.executable, *command],
                cwd=folder, env={**os.environ, **variables}, stdout=log, stderr=log,
            )  # fmt: skip
        return self.processes[name]

    def start_engine(self):
        snapshot = str(self.home / "none.parquet")
        command = ["-c", ENGINE, "engine", "--scheduler", self.address, "--store", str(self.home / "store"), *self.keys]
        return self.start("engine", *command, cache=self.cache, JSC_EXPLORE_SNAPSHOT=snapshot)

    def start_scheduler(self):
        host, port = self.address.removeprefix("tls://").split(":")
        command = ["-m", "distributed.cli.dask_scheduler", "--protocol", "tls", "--host", host, "--port", port]
        command += [*QUIET, *self.keys]
        return self.start("scheduler", *command, cache=self.home / "no-cache")

    def start_worker(self, name, **environment):
        cache = self.home / name / "cache"
        if not cache.exists():
            cache.mkdir(parents=True)
            _lend(self.kernel, cache)
        command = ["-c", WORKER, self.address, "--name", name, "--nthreads", "1", "--no-nanny", *QUIET, *self.keys]
        return self.start(name, *command, cache=cache, **environment)

    def submit(self, *runs):
        """Request runs in a session of their own: a second stack of the same one would leave the last slot free."""
        return submit(self.store, self.queue, runs, requester=Requester(uuid.uuid4().hex, UNLIMITED)).run_ids

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
    harness.address = "tls://10.77.0.1:8786"
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
    for address in ("nonsense://", "localhost", "tls://host"):
        with pytest.raises(FieldError, match="is no address of a Dask scheduler; try 'tls://head:8786'"):
            SchedulerConnection(address)


def test_a_scheduler_without_tls_is_refused_unless_that_is_asked_for():
    with pytest.raises(FieldError, match="can run code as you; use tls://, or --insecure-scheduler"):
        SchedulerConnection("tcp://head:8786")
    assert SchedulerConnection("tcp://head:8786", is_insecure=True).security() is None


def test_the_files_of_tls_are_checked_at_once(tmp_path):
    make_keys(tmp_path)
    certificate, key, text = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "text"
    text.write_text("no key")
    with pytest.raises(FieldError, match=r"tls_key.*is needed for tls://"):
        SchedulerConnection("tls://head:8786", certificate, certificate)
    with pytest.raises(FieldError, match=r"tls_cert.*cannot be read"):
        SchedulerConnection("tls://head:8786", certificate, tmp_path / "none", key, is_insecure=True)
    with pytest.raises(FieldError, match="are no certificate with its key"):
        SchedulerConnection("tls://head:8786", certificate, certificate, text).security()
    security = SchedulerConnection("tls://head:8786", certificate, certificate, key).security()
    assert security.require_encryption
    assert security.get_connection_args("client")["ssl_context"].verify_mode == ssl.CERT_REQUIRED
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def answer(address, context):
    """Return the first bytes that a scheduler sends of its own protocol, empty if it does not."""
    host, port = address.removeprefix("tls://").split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=10) as plain:
            if context is None:
                plain.sendall(bytes(64))
                return plain.recv(8)
            context.check_hostname = False
            # A refusal reaches the client of TLS 1.3 when it reads.
            with context.wrap_socket(plain) as secure:
                return secure.recv(8)
    except (ssl.SSLError, ConnectionError, TimeoutError):
        return b""


@pytest.mark.timeout(300)
def test_only_peers_with_the_key_are_talked_to(harness, tmp_path):
    """A stranger has no certificate, or one of its own making, or speaks no TLS; the engine itself listens nowhere."""
    harness.start_scheduler()
    harness.start_engine()
    eventually(lambda: harness.message() == f"waiting for workers of the scheduler at {harness.address}")
    engine = psutil.Process(harness.processes["engine"].pid)
    listening = [one for one in engine.net_connections() if one.status == psutil.CONN_LISTEN]
    assert [*listening, *engine.children()] == []
    make_keys(tmp_path / "stranger")
    without, own = (ssl.create_default_context(cafile=tmp_path / "cert.pem") for _ in range(2))
    own.load_cert_chain(tmp_path / "stranger" / "cert.pem", tmp_path / "stranger" / "key.pem")
    assert [answer(harness.address, context) for context in (None, without, own)] == [b"", b"", b""]
    own.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    assert answer(harness.address, own)
    known = SchedulerConnection(harness.address, *(tmp_path / name for name in ("cert.pem", "cert.pem", "key.pem")))
    with Client(harness.address, security=known.security(), timeout=20) as client:
        assert client.scheduler_info(n_workers=0)["address"] == harness.address

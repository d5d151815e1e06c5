"""Workers of this machine: forked when a stack needs one, ended when idle, reached by nothing but the engine's pipe."""

import os
import time

import psutil
import pytest
from servers import eventually

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.jobs.local import pool as local

DIGEST = data.digest("simulated")
SHORT = RunConfig(batch_size=65536, max_epochs=1)
# Trains until it is cancelled, in small steps.
LONG = RunConfig(model="16-512-512-5", batch_size=8192, max_epochs=1000)


@pytest.fixture
def pool():
    """A pool of one core's workers and the events that they sent."""
    pool = local.LocalPool(workers=1, extra=2)
    pool.events = []
    pool.start(pool.events.append)
    yield pool
    pool.close()


def submit(pool, run, bulk=False):
    return pool.submit(f"stack-{run.config_id(DIGEST)[:8]}", {"run": run.to_dict()}, DIGEST, {}, "cpu", bulk=bulk)


def fork_servers():
    return [one for one in psutil.Process().children() if "forkserver" in " ".join(one.cmdline())]


def workers():
    """Return the worker processes of this test: the children of its fork server."""
    found = [worker for server in fork_servers() for worker in server.children()]
    return [worker for worker in found if worker.status() != psutil.STATUS_ZOMBIE]


def test_a_stack_is_trained_and_reports_before_its_result(pool):
    task = submit(pool, SHORT)
    eventually(lambda: pool.is_done(task))
    assert [event["finished"] for event in pool.events if "finished" in event] == ["run"]
    assert pool.result(task)["outcomes"]["run"]["status"] == "done"
    assert any(event.get("points") for event in pool.events)


def test_bulk_stacks_take_the_cores_and_an_interactive_one_has_a_place_beside_them(pool):
    first = submit(pool, LONG, bulk=True)
    assert (pool.free_slots(bulk=True), pool.free_slots(bulk=False)) == (0, 2)
    second = submit(pool, SHORT)
    assert pool.free_slots(bulk=False) == 1
    eventually(lambda: pool.is_done(second))
    eventually(lambda: any(event.get("total_steps") and event["stack"] == first.stack for event in pool.events))
    assert not pool.is_done(first)
    niceness = sorted(worker.nice() for worker in workers())
    assert [value - os.nice(0) for value in niceness] == [local.INTERACTIVE_NICENESS, local.BULK_NICENESS]
    pool.cancel(first, ["run"])
    eventually(lambda: pool.is_done(first))
    assert pool.result(first)["outcomes"] == {}


def test_a_worker_that_is_killed_loses_its_stack_and_says_so(pool):
    task = submit(pool, LONG)
    eventually(lambda: pool.events)
    (worker,) = workers()
    worker.kill()
    eventually(lambda: pool.is_done(task))
    assert "exit code -9" in pool.result(task)["lost"]
    again = submit(pool, SHORT)
    eventually(lambda: pool.is_done(again))
    assert pool.result(again)["outcomes"]["run"]["status"] == "done"


def test_an_idle_worker_is_used_again_and_ends_after_a_while(pool, monkeypatch):
    for seed in (1, 2):
        task = submit(pool, SHORT.with_(seed=seed))
        eventually(lambda task=task: pool.is_done(task))
    assert len(workers()) == 1
    pool.update()
    assert len(workers()) == 1, "not before a minute"
    monkeypatch.setattr(local, "IDLE_S", 0.0)
    time.sleep(0.01)  # so that it was idle for longer than that
    pool.update()
    eventually(lambda: not workers())
    monkeypatch.undo()
    task = submit(pool, SHORT.with_(seed=3))
    eventually(lambda: pool.is_done(task))


def test_no_process_of_the_pool_listens_or_connects_over_the_network(pool):
    task = submit(pool, SHORT)
    eventually(lambda: pool.is_done(task))
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    assert len(family) >= 3
    assert [found for process in family for found in process.net_connections("inet")] == []


def test_a_pool_that_closes_ends_its_workers(pool):
    submit(pool, LONG)
    eventually(lambda: pool.events)
    assert workers()
    pool.close()
    eventually(lambda: not workers(), 10)


def test_the_fork_server_ends_when_nobody_looks_at_a_page_and_comes_back(pool, monkeypatch):
    task = submit(pool, SHORT)
    eventually(lambda: pool.is_done(task))
    monkeypatch.setattr(local, "IDLE_S", 0.0)
    time.sleep(0.01)
    pool.keep_ready(is_visited=False)
    assert len(fork_servers()) == 1, "a worker is left"
    pool.update()
    eventually(lambda: not workers())
    eventually(lambda: not pool._workers)
    pool.keep_ready(is_visited=False)
    assert fork_servers() == []
    pool.keep_ready(is_visited=True)
    assert len(fork_servers()) == 1
    again = submit(pool, SHORT.with_(seed=2))
    eventually(lambda: pool.is_done(again))
    assert pool.result(again)["outcomes"]["run"]["status"] == "done"


def test_a_stack_is_lost_if_no_worker_can_be_started(pool, monkeypatch):
    """The engine then queues its runs again, instead of leaving them as running with nobody to train them."""

    def refuse(*_):
        raise OSError("too many open files")

    monkeypatch.setattr(pool._context.Process, "start", refuse)
    task = submit(pool, SHORT)
    assert pool.is_done(task)
    assert pool.result(task)["lost"] == "a worker cannot be started (too many open files)"
    assert pool.free_slots(bulk=True) == 1, "no slot is taken"
    pool.warm_up("simulated", "train", DIGEST, "cpu")  # only a warning

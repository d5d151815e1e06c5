"""The engine: stored before announced, trained once, nothing lost to a full disk, a dead worker or a dead engine.

The first part drives the engine over a cluster whose stacks follow a script; the second over real workers.
"""

import dataclasses
import shutil
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import safetensors.numpy
from servers import eventually

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.errors import StoreError, StoreGoneError
from jsc_explore.jobs.engine.crash_tracker import MAX_CRASHES, SUSPECT_AFTER
from jsc_explore.jobs.engine.engine import Engine
from jsc_explore.jobs.queue import BULK, INTERACTIVE, Queue
from jsc_explore.results import Outcome
from jsc_explore.store import Store

DIGEST = data.digest("simulated")


def point(step):
    return {"step": step, "epoch": step / 10, "samples": step * 256, "val_acc": 0.5}


class Stack:
    """One stack on the scripted cluster: what it was given, what its worker would send, and its cancel list."""

    def __init__(self, name, runs, emit, bulk, checkpoints):
        self.name, self.runs, self.emit, self.bulk, self.checkpoints = name, runs, emit, bulk, checkpoints
        self.cancelled, self.outcomes, self.error, self.lost = [], {}, None, None

    def progress(self, step, run_ids=None, points=True):
        keys = list(self.runs) if run_ids is None else run_ids
        sent = [(key, point(step)) for key in keys] if points else []
        self.emit({"stack": self.name, "points": sent, "step": step, "total_steps": dict.fromkeys(keys, 100)})

    def finish(self, run_id, status="done"):
        values = {"status": status, "stop_reason": "max_epochs", "points": [point(100)], "epochs_run": 1, "steps": 100}
        self.outcomes[run_id] = dataclasses.asdict(Outcome(**values))
        self.emit({"stack": self.name, "finished": run_id, "outcome": self.outcomes[run_id]})


class Task:
    """Done when the script has run out; every question is one step of it."""

    def __init__(self, stack, script):
        self.stack, self.steps, self.ended = stack, script(stack), False

    def done(self):
        if not self.ended:
            self.ended = next(self.steps, "ended") == "ended"
        return self.ended


class ScriptedCluster:
    """A cluster without workers: each stack follows ``script(stack)``, a generator that yields between its deeds."""

    def __init__(self, script, bulk_slots=1, reserve_worker=1):
        self.script, self.bulk_slots, self.reserve_worker = script, bulk_slots, reserve_worker
        self.stacks, self.tasks, self.closed, self.problem, self.visited = [], [], False, "", []
        self.gpu_stacks = bulk_slots + reserve_worker

    def start(self, on_event):
        self.emit = on_event

    def warm_up(self, dataset, validation, digest, device):
        assert digest == DIGEST

    def update(self):
        return self.problem

    def keep_ready(self, is_visited):
        self.visited.append(is_visited)

    def free_slots(self, bulk):
        under_way = sum(not task.ended for task in self.tasks)
        return max(0, self.bulk_slots + (0 if bulk else self.reserve_worker) - under_way)

    def submit(self, name, runs, digest, checkpoints, device, *, bulk):
        self.stacks.append(Stack(name, runs, self.emit, bulk, checkpoints))
        self.tasks.append(Task(self.stacks[-1], self.script))
        return self.tasks[-1]

    def cancel(self, task, run_ids):
        task.stack.cancelled += run_ids

    def is_done(self, task):
        return task.done()

    def result(self, task):
        stack = task.stack
        return {"outcomes": stack.outcomes} | {
            name: found for name in ("error", "lost") if (found := getattr(stack, name))
        }

    def close(self):
        self.closed = True


def trains(stack):
    for step in (1, 50, 100):
        stack.progress(step)
        yield
    for run_id in stack.runs:
        stack.finish(run_id)
    yield  # the outcomes arrive as events first, and with the result of the task again


def trains_when(released):
    """Return a script whose stacks train once the list is no longer empty."""

    def script(stack):
        stack.progress(1)
        while not released:
            yield
        yield from trains(stack)

    return script


def fails(stack):
    stack.progress(1)
    yield
    stack.error = "Traceback (most recent call last):\nZeroDivisionError: no jets"


def runs_until_cancelled(stack):
    step = 0
    while True:
        step += 1
        going = [key for key in stack.runs if key not in stack.cancelled]
        if not going:
            return
        stack.progress(step, going)
        yield


@pytest.fixture
def request_runs(tmp_path, monkeypatch):
    """Put runs that differ in their seed into the queue; return their ids."""
    monkeypatch.setattr("jsc_explore.jobs.engine.engine.RETRY_S", 0.1)
    # As on a GPU: runs that differ in their seed share one stack, however many workers are free.
    monkeypatch.setattr("jsc_explore.jobs.engine.engine.gpu_bytes", lambda device: 1 << 40)
    queue = Queue(tmp_path)

    def request(*seeds, priority=INTERACTIVE, session="", address="", **changes):
        runs = [RunConfig(seed=seed, **changes) for seed in seeds]
        queue.request(
            {run.run_id(DIGEST): (run.config_id(DIGEST), run) for run in runs}, priority, session, address=address
        )
        return [run.run_id(DIGEST) for run in runs]

    request.queue = queue
    yield request
    queue.close()


@contextmanager
def serving(directory, script, **options):
    """Serve in a thread of this process; leaving ends it in order and raises what it raised."""
    engine = Engine(directory, None, ScriptedCluster(script, **options))
    raised = []

    def serve():
        try:
            engine.serve()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield engine
    finally:
        engine.stop()
        thread.join(timeout=30)
    if raised:
        raise raised[0]


def serve_until_idle(directory, script, **options):
    cluster = ScriptedCluster(script, **options)
    Engine(directory, None, cluster).serve(until_idle=True)
    return cluster


def stored(directory):
    store = Store(directory)
    ids = store.runs(columns=["run_id"])["run_id"].to_pylist()
    rows = sum(part.rows for part in store.catalog.parts())
    store.close()
    assert rows == len(ids), "no run lies in two parts"
    return set(ids)


# ---- over the scripted cluster


def test_a_requested_run_is_trained_stored_and_done(tmp_path, request_runs):
    ids = request_runs(0, 1, 2)
    cluster = serve_until_idle(tmp_path, trains)
    assert set(request_runs.queue.states(ids).values()) == {"done"}
    assert stored(tmp_path) == set(ids)
    assert [len(stack.runs) for stack in cluster.stacks] == [3], "one stack, its outcomes sent twice and stored once"
    assert cluster.closed
    assert request_runs.queue.engine() is None


def test_a_run_is_stored_before_its_request_is_done(tmp_path, request_runs, monkeypatch):
    (run_id,) = request_runs(0)
    finish, seen = Queue.finish, []

    def finish_and_check(queue, finished, *rest):
        seen.append(finished in stored(tmp_path))
        finish(queue, finished, *rest)

    monkeypatch.setattr(Queue, "finish", finish_and_check)
    serve_until_idle(tmp_path, trains)
    assert seen == [True]
    assert request_runs.queue.states([run_id]) == {run_id: "done"}


def test_a_session_with_many_urgent_runs_leaves_a_worker_to_the_next_session(tmp_path, request_runs):
    released = []
    many = [*request_runs(0, 1, 2, session="ada"), *request_runs(0, 1, 2, session="ada", batch_size=512)]
    with serving(tmp_path, trains_when(released)) as engine:
        eventually(lambda: request_runs.queue.live()[1])
        few = request_runs(3, session="bob")
        eventually(lambda: request_runs.queue.states(few) == {few[0]: "running"})
        assert [list(stack.runs) for stack in engine.cluster.stacks] == [many[:3], few]
        released.append(True)
        eventually(lambda: set(request_runs.queue.states([*many, *few]).values()) == {"done"})


def test_many_sessions_of_one_address_leave_a_worker_to_another_address(tmp_path, request_runs):
    released = []
    many = [request_runs(seed, session=f"tab {seed}", address="here")[0] for seed in range(6)]
    with serving(tmp_path, trains_when(released), bulk_slots=1, reserve_worker=3) as engine:
        eventually(lambda: len(engine.cluster.stacks) == 3)
        few = request_runs(9, session="bob", address="there")
        eventually(lambda: request_runs.queue.states(few) == {few[0]: "running"})
        assert len(engine.cluster.stacks) == 4
        released.append(True)
        eventually(lambda: set(request_runs.queue.states([*many, *few]).values()) == {"done"})


def test_points_and_progress_of_a_running_run_are_live(tmp_path, request_runs):
    def waits(stack):
        stack.progress(10)
        while True:
            yield

    (run_id,) = request_runs(0)
    with serving(tmp_path, waits):
        jobs, points = eventually(lambda: request_runs.queue.live() if request_runs.queue.live()[1] else None)
        assert (jobs[0].state, jobs[0].share_done) == ("running", 0.1)
        assert points == {run_id: [point(10)]}


def test_a_diverged_run_is_stored_with_that_state(tmp_path, request_runs):
    def diverges(stack):
        yield
        for run_id in stack.runs:
            stack.finish(run_id, "diverged")

    ids = request_runs(0)
    serve_until_idle(tmp_path, diverges)
    assert request_runs.queue.states(ids) == {ids[0]: "diverged"}
    assert stored(tmp_path) == set(ids)


def test_a_failed_run_keeps_its_traceback_and_can_be_tried_again(tmp_path, request_runs):
    ids = request_runs(0)
    serve_until_idle(tmp_path, fails)
    (job,) = request_runs.queue.jobs(("failed",))
    assert job.error.endswith("ZeroDivisionError: no jets")
    assert stored(tmp_path) == set()
    assert request_runs(0) == ids
    serve_until_idle(tmp_path, trains)
    assert [(job.state, job.attempt, job.error) for job in request_runs.queue.jobs()] == [("done", 2, None)]


def test_what_was_finished_before_an_exception_is_kept(tmp_path, request_runs):
    def half(stack):
        stack.finish(next(iter(stack.runs)))
        yield from fails(stack)

    request_runs(0, 1, 2)
    serve_until_idle(tmp_path, half)
    assert sorted(job.state for job in request_runs.queue.jobs()) == ["done", "failed", "failed"]
    assert len(stored(tmp_path)) == 1


def test_an_outcome_that_makes_no_record_is_a_failed_run_and_the_others_go_on(tmp_path, request_runs):
    def odd(stack):
        yield
        first, *rest = stack.runs
        stack.emit({"stack": stack.name, "finished": first, "outcome": {"status": "done", "from": "another version"}})
        for run_id in rest:
            stack.finish(run_id)

    ids = request_runs(0, 1)
    serve_until_idle(tmp_path, odd)
    assert sorted(request_runs.queue.states(ids).values()) == ["done", "failed"]


def test_one_run_of_a_stack_is_cancelled_and_the_others_go_on(tmp_path, request_runs):
    def long(stack):
        while victim not in stack.cancelled:
            stack.progress(1)
            yield
        others = [run_id for run_id in stack.runs if run_id != victim]
        stack.progress(60, others)
        yield
        for run_id in others:
            stack.finish(run_id)

    ids = request_runs(0, 1, 2)
    victim = ids[1]
    with serving(tmp_path, long) as engine:
        eventually(lambda: request_runs.queue.live()[1])
        request_runs.queue.cancel([victim])
        eventually(lambda: not request_runs.queue.jobs(("queued", "running")))
        assert len(engine.cluster.stacks) == 1
    assert request_runs.queue.states(ids) == {ids[0]: "done", victim: "cancelled", ids[2]: "done"}
    assert stored(tmp_path) == {ids[0], ids[2]}


def test_a_stack_whose_runs_are_all_cancelled_ends(tmp_path, request_runs):
    ids = request_runs(0, 1)
    with serving(tmp_path, runs_until_cancelled):
        eventually(lambda: request_runs.queue.live()[1])
        request_runs.queue.cancel(ids)
        eventually(lambda: set(request_runs.queue.states(ids).values()) == {"cancelled"})


def test_a_run_requested_again_during_its_cancellation_is_trained(tmp_path, request_runs):
    def cancels_late(stack):
        if len(draw_pending_notice) == 0:
            while not stack.cancelled:
                stack.progress(1)
                yield
            draw_pending_notice.append(stack.name)
            request_runs(0)
            return
        yield from trains(stack)

    draw_pending_notice = []
    ids = request_runs(0)
    with serving(tmp_path, cancels_late):
        eventually(lambda: request_runs.queue.live()[1])
        request_runs.queue.cancel(ids)
        eventually(lambda: stored(tmp_path) == set(ids))
    assert draw_pending_notice
    assert request_runs.queue.states(ids) == {ids[0]: "done"}


def test_a_run_cancelled_as_it_starts_is_not_trained(tmp_path, request_runs, monkeypatch):
    ids = request_runs(0, 1)
    start = Queue.start

    def cancel_then_start(queue, run_ids):
        request_runs.queue.cancel(ids[:1])
        return start(queue, run_ids)

    monkeypatch.setattr(Queue, "start", cancel_then_start)
    cluster = serve_until_idle(tmp_path, trains)
    assert [list(stack.runs) for stack in cluster.stacks] == [ids[1:]]


@contextmanager
def full_disk(engine):
    """Let the store refuse whatever is added, as long as this lasts."""
    add, refused = engine.store.add_all, []

    def refuse(records):
        refused.extend(record.run_id for record in records)
        raise StoreError(f"store {engine.directory}: a finished run could not be written (no space left); make room")

    engine.store.add_all = refuse
    try:
        yield refused
    finally:
        engine.store.add_all = add


def test_a_full_disk_is_reported_and_retried_and_loses_nothing(tmp_path, request_runs):
    ids = request_runs(0, 1)
    engine = Engine(tmp_path, None, ScriptedCluster(trains))
    thread = threading.Thread(target=engine.serve)
    with full_disk(engine) as refused:
        thread.start()
        found = eventually(lambda: (s := request_runs.queue.engine()) and s.message != "starting" and s.message)
        assert "no space left" in found
        assert "2 finished runs wait in memory" in found
        assert set(request_runs.queue.states(ids).values()) == {"running"}
        eventually(lambda: len(refused) >= 2)
    eventually(lambda: set(request_runs.queue.states(ids).values()) == {"done"})
    later = request_runs(2)
    eventually(lambda: request_runs.queue.states(later) == {later[0]: "done"})
    eventually(lambda: request_runs.queue.engine().message == "")
    engine.stop()
    thread.join()
    assert stored(tmp_path) == {*ids, *later}
    assert len(engine.cluster.stacks) == 2, "nothing was trained a second time"


def test_an_engine_stopped_on_a_full_disk_gives_its_finished_runs_back(tmp_path, request_runs):
    ids = request_runs(0)
    with serving(tmp_path, trains) as engine, full_disk(engine) as refused:
        eventually(lambda: refused)
        engine.stop()
        eventually(lambda: request_runs.queue.engine() is None)
    assert request_runs.queue.states(ids) == {ids[0]: "queued"}
    serve_until_idle(tmp_path, trains)
    assert stored(tmp_path) == set(ids)


def test_a_record_that_cannot_be_written_at_all_does_not_hold_up_the_others(tmp_path, request_runs, monkeypatch):
    ids = request_runs(0, 1, 2)
    add = Store.add_all

    def odd(store, records):
        if any(record.run_id == ids[0] for record in records):
            raise ValueError("cannot convert this to Arrow")
        add(store, records)

    monkeypatch.setattr(Store, "add_all", odd)
    serve_until_idle(tmp_path, trains)
    assert request_runs.queue.states(ids) == {ids[0]: "failed", ids[1]: "done", ids[2]: "done"}
    assert "cannot convert this to Arrow" in request_runs.queue.jobs(("failed",))[0].error


@pytest.mark.parametrize("method", ["record_progress", "finish", "start", "set_heartbeat", "cancelling", "has_waiting"])
def test_a_queue_that_fails_for_a_moment_loses_no_run(tmp_path, request_runs, monkeypatch, method):
    """Whatever the engine was doing with the queue, it does it again a second later."""
    ids = request_runs(0, 1)
    whole, failures = getattr(Queue, method), iter(range(1))

    def fails_once(queue, *values):
        if threading.current_thread() is not threading.main_thread() and next(failures, None) is not None:
            raise StoreError("queue: cannot be written (database or disk is full)")
        return whole(queue, *values)

    monkeypatch.setattr(Queue, method, fails_once)
    with serving(tmp_path, trains):
        eventually(lambda: set(request_runs.queue.states(ids).values()) == {"done"})
    assert next(failures, "used") == "used"
    assert stored(tmp_path) == set(ids)


def test_a_failure_that_cannot_be_recorded_is_recorded_later(tmp_path, request_runs, monkeypatch):
    ids = request_runs(0, 1)
    finish, failures = Queue.finish, iter(range(2))

    def fails_twice(queue, *values):
        if next(failures, None) is not None:
            raise StoreError("queue: cannot be written (database or disk is full)")
        finish(queue, *values)

    monkeypatch.setattr(Queue, "finish", fails_twice)
    serve_until_idle(tmp_path, fails)
    assert set(request_runs.queue.states(ids).values()) == {"failed"}


def test_an_engine_takes_over_from_a_crashed_one_and_trains_no_stored_run_again(tmp_path, request_runs):
    ids = request_runs(0, 1, 2)
    serve_until_idle(tmp_path, trains)
    queue = request_runs.queue
    request_runs(0, 1, 2, 3)
    (lost,) = {job.run_id for job in queue.jobs(("queued",))} - set(ids)
    queue.start([*ids, lost])
    queue.set_heartbeat(1, "")
    cluster = serve_until_idle(tmp_path, trains)
    assert [list(stack.runs) for stack in cluster.stacks] == [[lost]]
    assert {job.run_id: (job.state, job.attempt) for job in queue.jobs()} == {
        **dict.fromkeys(ids, ("done", 2)), lost: ("done", 2),
    }  # fmt: skip


def test_a_run_stored_after_the_request_is_not_trained(tmp_path, request_runs):
    request_runs(0)
    serve_until_idle(tmp_path, trains)
    ids = request_runs(0)
    assert serve_until_idle(tmp_path, trains).stacks == []
    assert request_runs.queue.states(ids) == {ids[0]: "done"}


def test_partial_files_of_a_crashed_writer_are_deleted(tmp_path, request_runs):
    run_id, other = request_runs(0, 1)
    for folder in ("parts", "checkpoints"):
        (tmp_path / folder).mkdir()
    wanted, torn = (tmp_path / "checkpoints" / f"{key}.safetensors" for key in (run_id, other))
    name = "0" * 32
    halves = [
        torn,
        tmp_path / "parts" / f".{name}.parquet.01234567.tmp",
        tmp_path / "parts" / f"{name}.parquet",
        tmp_path / "checkpoints" / f".{name}.safetensors.tmp",
        tmp_path / "checkpoints" / f"{name}.safetensors",
    ]
    others = [tmp_path / "parts" / "chapter1.tex", tmp_path / "parts" / "data.parquet",
              tmp_path / "checkpoints" / "best.ckpt", tmp_path / "checkpoints" / "mine.safetensors"]  # fmt: skip
    for path in (*halves, *others):
        path.write_bytes(checkpoint(3)[:-1])
    wanted.write_bytes(checkpoint(3))

    def looks(stack):
        seen.extend(path for path in (*halves, wanted) if path.exists())
        given.append((set(stack.runs), stack.checkpoints))
        return trains(stack)

    seen, given = [], []
    serve_until_idle(tmp_path, looks, bulk_slots=2)
    assert set(seen) == {wanted}
    assert all(path.exists() for path in others), "what the store did not make is left alone"
    assert given == [({run_id}, {run_id: checkpoint(3)}), ({other}, {})], "they stand at other epochs"
    assert not wanted.exists(), "a stored run needs no checkpoint"


@pytest.mark.parametrize("is_removed", [False, True])
def test_an_engine_whose_store_is_gone_ends_and_does_not_make_it_again(tmp_path, caplog, is_removed):
    directory = tmp_path / "store"
    engine = Engine(directory, None, ScriptedCluster(runs_until_cancelled))

    def leave():
        directory.rename(tmp_path / "elsewhere")
        if is_removed:
            shutil.rmtree(tmp_path / "elsewhere")

    thread = threading.Timer(0.3, leave)
    thread.start()
    with pytest.raises(StoreGoneError, match=r"store: is gone .*; put it back"):
        engine.serve()
    thread.join()
    assert not directory.exists()
    assert engine.cluster.closed
    assert "Traceback" not in caplog.text


def test_a_request_whose_id_is_not_that_of_its_run_fails_and_touches_no_file(tmp_path, request_runs):
    (tmp_path / "mine.safetensors").write_text("mine")
    request_runs.queue.request({"../mine": ("c" * 32, RunConfig()), "0" * 32: ("c" * 32, RunConfig(seed=1))})
    cluster = serve_until_idle(tmp_path, trains)
    assert cluster.stacks == []
    errors = {job.error for job in request_runs.queue.jobs(("failed",))}
    assert errors == {"its id does not belong to its config and these jets: request it again"}
    assert (tmp_path / "mine.safetensors").read_text() == "mine"


def checkpoint(epoch):
    return safetensors.numpy.save({"flat": np.arange(4, dtype=np.float32)}, {"epoch": str(epoch)})


def test_a_lost_workers_runs_go_on_from_their_latest_checkpoints(tmp_path, request_runs):
    def is_lost(stack):
        if stack.checkpoints:
            yield from trains(stack)
            return
        for epoch in (1, 2):
            stack.emit({"stack": stack.name, "checkpoints": dict.fromkeys(stack.runs, checkpoint(epoch))})
            stack.progress(50 * epoch)
            yield
        stack.lost = "worker a is gone"

    ids = request_runs(0, 1)
    cluster = serve_until_idle(tmp_path, is_lost)
    assert [stack.checkpoints for stack in cluster.stacks] == [{}, dict.fromkeys(ids, checkpoint(2))]
    assert {(job.state, job.attempt) for job in request_runs.queue.jobs()} == {("done", 2)}
    assert stored(tmp_path) == set(ids)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_an_engine_that_stops_leaves_checkpoints_to_the_next(tmp_path, request_runs):
    def saves(stack):
        given.append(stack.checkpoints)
        if stack.checkpoints:
            yield from trains(stack)
            return
        stack.emit({"stack": stack.name, "checkpoints": dict.fromkeys(stack.runs, checkpoint(1))})
        yield from runs_until_cancelled(stack)

    given = []
    ids = request_runs(0)
    with serving(tmp_path, saves):
        eventually(lambda: request_runs.queue.live()[1])
    serve_until_idle(tmp_path, saves)
    assert given == [{}, {ids[0]: checkpoint(1)}]


def test_a_run_that_kills_every_worker_it_meets_is_given_up(tmp_path, request_runs):
    def kills(stack):
        stack.progress(7)
        yield
        stack.lost = "worker a is gone"

    ids = request_runs(0)
    cluster = serve_until_idle(tmp_path, kills)
    assert len(cluster.stacks) == MAX_CRASHES
    (job,) = request_runs.queue.jobs(("failed",))
    assert job.run_id == ids[0]
    assert f"its worker was lost {MAX_CRASHES} times without progress, last: worker a is gone" in job.error


def test_of_runs_lost_together_the_one_to_blame_is_found_and_the_others_are_trained(tmp_path, request_runs):
    def kills(stack):
        seeds = {run["seed"] for run in stack.runs.values()}
        sizes.append(len(seeds))
        stack.progress(7)
        yield
        if 1 in seeds:
            stack.lost = "worker a is gone"
        else:
            for run_id in stack.runs:
                stack.finish(run_id)

    sizes = []
    ids = request_runs(0, 1, 2)
    serve_until_idle(tmp_path, kills)
    states = request_runs.queue.states(ids)
    assert [states[run_id] for run_id in ids] == ["done", "failed", "done"]
    assert sizes.count(3) == SUSPECT_AFTER
    assert sizes.count(1) == 2 + MAX_CRASHES - SUSPECT_AFTER


def test_a_run_that_gets_further_each_time_is_never_given_up(tmp_path, request_runs):
    def gets_further(stack):
        reached.append(10 * len(reached))
        stack.progress(reached[-1])
        yield
        if len(reached) > 3 * MAX_CRASHES:
            stack.finish(next(iter(stack.runs)))
        else:
            stack.lost = "worker a is gone"

    reached = []
    ids = request_runs(0)
    serve_until_idle(tmp_path, gets_further)
    assert request_runs.queue.states(ids) == {ids[0]: "done"}


def test_the_heartbeat_reports_a_problem_of_the_cluster(tmp_path, request_runs):
    with serving(tmp_path, trains) as engine:
        engine.cluster.problem = "waiting for the scheduler at tcp://a:1"
        eventually(lambda: (found := request_runs.queue.engine()) and found.message == engine.cluster.problem)
        engine.cluster.problem = ""
        eventually(lambda: request_runs.queue.engine().message == "")


def test_an_engine_that_stops_gives_its_work_back(tmp_path, request_runs):
    ids = request_runs(0)
    with serving(tmp_path, runs_until_cancelled):
        eventually(lambda: request_runs.queue.live()[1])
    assert [(job.state, job.attempt) for job in request_runs.queue.jobs()] == [("queued", 2)]
    serve_until_idle(tmp_path, trains)
    assert stored(tmp_path) == set(ids)


def test_a_second_engine_on_a_store_is_refused_in_one_line(tmp_path):
    with serving(tmp_path, trains):
        with pytest.raises(StoreError, match="another engine") as caught:
            Engine(tmp_path, None, ScriptedCluster(trains))
        assert "\n" not in str(caught.value)
    serve_until_idle(tmp_path, trains)


def test_an_engine_waits_for_the_one_before_it_to_close(tmp_path, request_runs, monkeypatch):
    ids = request_runs(0)
    monkeypatch.setattr(ScriptedCluster, "close", lambda _: time.sleep(1.0))
    with serving(tmp_path, runs_until_cancelled) as first:
        eventually(lambda: request_runs.queue.live()[1])
        first.stop()
        eventually(lambda: request_runs.queue.engine() is None)
        serve_until_idle(tmp_path, trains)
    assert stored(tmp_path) == set(ids)


def test_bulk_work_leaves_a_worker_to_those_who_wait_at_a_screen(tmp_path, request_runs):
    request_runs(*range(3), priority=BULK, batch_size=16)
    request_runs(*range(3), priority=BULK, batch_size=32)
    with serving(tmp_path, runs_until_cancelled, bulk_slots=1, reserve_worker=1) as engine:
        eventually(lambda: request_runs.queue.live()[1])
        urgent = request_runs(9)
        eventually(lambda: request_runs.queue.states(urgent) == {urgent[0]: "running"})
        assert [(len(stack.runs), stack.bulk) for stack in engine.cluster.stacks] == [(3, True), (1, False)]


def test_a_long_line_of_bulk_work_is_not_read_while_no_worker_is_free_for_it(tmp_path, request_runs, monkeypatch):
    request_runs(*range(200), priority=BULK)
    waiting, read = Queue.waiting, []

    def count(queue, *values, **named):
        jobs = waiting(queue, *values, **named)
        read.append(len(jobs))
        return jobs

    monkeypatch.setattr(Queue, "waiting", count)
    with serving(tmp_path, runs_until_cancelled):
        eventually(lambda: len(read) > 20)
    assert [n for n in read if n] == [1, 200]  # the first, to know which jets to load


def test_the_first_long_stack_of_a_session_does_not_wait_for_those_of_another(tmp_path, request_runs):
    """Whoever has clicked a run of half a minute shall not wait for the hours of somebody else."""
    queue = request_runs.queue

    def request(session, *sizes):
        runs = [RunConfig(batch_size=size, seed=len(session)) for size in sizes]
        queue.request({run.run_id(DIGEST): (run.config_id(DIGEST), run) for run in runs}, BULK, session=session)
        return [run.run_id(DIGEST) for run in runs]

    with serving(tmp_path, runs_until_cancelled, bulk_slots=1, reserve_worker=4) as engine:
        first = request("first", 16, 32, 64)
        eventually(lambda: len(queue.live()[1]) == 1)
        second, third, fourth = request("second", 128), request("third.", 256), request("fourth.", 512)
        eventually(lambda: {queue.states(ids)[ids[0]] for ids in (second, third)} == {"running"})
        quick = request_runs(9, batch_size=1024)
        eventually(lambda: queue.states(quick) == {quick[0]: "running"})
        assert sorted(queue.states(first).values()) == ["queued", "queued", "running"], (
            "one stack for the first session"
        )
        assert queue.states(fourth) == {fourth[0]: "queued"}, "two slots are kept for interactive stacks"
        assert len(engine.cluster.stacks) == 4


def test_the_cluster_is_kept_ready_while_somebody_looks_at_a_page(tmp_path, request_runs, monkeypatch):
    monkeypatch.setattr("jsc_explore.jobs.engine.engine.HEARTBEAT_INTERVAL_S", 0.0)
    with serving(tmp_path, trains) as engine:
        eventually(lambda: engine.cluster.visited)
        assert not any(engine.cluster.visited), "nobody has looked yet"
        request_runs.queue.record_visit()
        eventually(lambda: engine.cluster.visited[-1])
        monkeypatch.setattr("jsc_explore.jobs.engine.engine.VISIT_TIMEOUT_S", 0.0)
        eventually(lambda: not engine.cluster.visited[-1])

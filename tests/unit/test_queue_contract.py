"""The contract of the queue, tested with one connection and with two."""

import sqlite3
import threading
import time
from dataclasses import replace

import pytest

from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError, StoreError
from jsc_explore.jobs.limits import UNLIMITED, Limits
from jsc_explore.jobs.queue import BULK, INTERACTIVE, Queue
from jsc_explore.jobs.queue.fair_share import MAX_INTERACTIVE_S
from jsc_explore.jobs.queue.schema import QUEUE_VERSION, TRANSITIONS_KEPT_S
from jsc_explore.store.directory import open_directory

CONFIG = "c" * 32
ENDS = ("done", "diverged", "failed", "cancelled")


class TwoProcesses:
    """Alternates between two connections with each call, as app and engine do."""

    def __init__(self, directory):
        self._queues = [Queue(directory), Queue(directory)]

    def __getattr__(self, name):
        self._queues.reverse()
        return getattr(self._queues[0], name)

    def close(self):
        for queue in self._queues:
            queue.close()


@pytest.fixture(params=["one connection", "two connections"])
def queue(request, tmp_path):
    queue = TwoProcesses(tmp_path) if request.param == "two connections" else Queue(tmp_path)
    yield queue
    queue.close()


def wanted(*run_ids, **changes):
    return {run_id: (CONFIG, RunConfig(**changes)) for run_id in run_ids}


def submit(queue, session, *run_ids, priority=INTERACTIVE, limits=UNLIMITED, address="", expected_s=0.0, **changes):
    options = {"address": address, "expected_s": dict.fromkeys(run_ids, expected_s)}
    return queue.request(wanted(*run_ids, **changes), priority, session, limits, **options)


def bring_to(queue, run_id, state):
    queue.request(wanted(run_id))
    if state != "queued":
        queue.start([run_id])
    if state in ENDS:
        queue.finish(run_id, state, "Traceback …\nValueError: no" if state == "failed" else None)


def transitions(queue, run_id):
    return [(one.attempt, one.before, one.after) for one in queue.history(run_id)]


# ---- states


@pytest.mark.parametrize("end", ENDS)
def test_a_run_moves_forward_to_its_end_and_stays_there(queue, end):
    bring_to(queue, "a", end)
    for push in (
        lambda: queue.start(["a"]),
        lambda: queue.requeue(["a"]),
        lambda: queue.cancel(["a"]),
        *(lambda other=other: queue.finish("a", other) for other in ENDS),
    ):
        push()
        assert queue.states(["a"]) == {"a": end}
    assert transitions(queue, "a") == [(1, None, "queued"), (1, "queued", "running"), (1, "running", end)]


@pytest.mark.parametrize(("end", "other"), [(a, b) for a in ENDS for b in ("running", *ENDS) if a != b])
def test_the_database_rejects_a_backward_transition_of_any_writer(queue, tmp_path, end, other):
    bring_to(queue, "a", end)
    db = sqlite3.connect(tmp_path / "queue.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="can only be queued again"):
        db.execute("UPDATE requests SET state = ? WHERE run_id = 'a'", [other])
    db.close()


def test_each_transition_is_recorded_with_time_and_cause(queue):
    began = time.time()
    bring_to(queue, "a", "failed")
    queue.request(wanted("a"))
    queue.start(["a"])
    queue.requeue(["a"], "the worker died")
    queue.start(["a"])
    queue.finish("a", "done")
    assert [(m.attempt, m.before, m.after, m.cause) for m in queue.history("a")] == [
        (1, None, "queued", "requested"),
        (1, "queued", "running", "started by the engine"),
        (1, "running", "failed", "ValueError: no"),
        (2, "failed", "queued", "requested again"),
        (2, "queued", "running", "started by the engine"),
        (3, "running", "queued", "the worker died"),
        (3, "queued", "running", "started by the engine"),
        (3, "running", "done", "trained and stored"),
    ]
    times = [move.at for move in queue.history("a")]
    assert times == sorted(times)
    assert began - 1 <= times[0] <= times[-1] <= time.time() + 1


def test_the_cause_of_a_cancellation_says_whether_the_run_was_queued_or_running(queue):
    bring_to(queue, "waits", "queued")
    bring_to(queue, "runs", "running")
    queue.cancel(["waits", "runs"])
    queue.requeue(["runs"])
    assert queue.history("waits")[-1].cause == "cancelled while queued"
    assert (queue.history("runs")[-1].after, queue.history("runs")[-1].cause) == ("cancelled", "cancelled")


def test_joining_is_no_transition(queue):
    queue.request(wanted("a"))
    queue.request(wanted("a"))
    assert transitions(queue, "a") == [(1, None, "queued")]


def test_runs_of_one_request_have_one_request_time(queue):
    queue.request(wanted("a", "b", "c"))
    assert len({job.requested_at for job in queue.jobs()}) == 1


def test_a_transition_that_cannot_be_recorded_does_not_happen(queue, tmp_path):
    queue.request(wanted("a"))
    db = sqlite3.connect(tmp_path / "queue.sqlite")
    db.execute("CREATE TRIGGER broken BEFORE INSERT ON transitions BEGIN SELECT RAISE(ABORT, 'no room'); END")
    with pytest.raises(StoreError, match="nothing was changed"):
        queue.start(["a"])
    db.execute("DROP TRIGGER broken")
    db.close()
    assert (queue.states(["a"]), transitions(queue, "a")) == ({"a": "queued"}, [(1, None, "queued")])


def test_old_transitions_are_dropped_new_ones_stay(queue, tmp_path):
    bring_to(queue, "old", "done")
    db = sqlite3.connect(tmp_path / "queue.sqlite")
    db.execute("UPDATE transitions SET at = at - ?", [TRANSITIONS_KEPT_S + 60])
    db.commit()
    db.close()
    queue.request(wanted("new"))
    assert (queue.history("old"), len(queue.history("new"))) == ([], 1)


def test_the_number_of_kept_transitions_is_bounded(queue, monkeypatch):
    monkeypatch.setattr("jsc_explore.jobs.queue.schema.TRANSITIONS_KEPT", 5)
    for i in range(20):
        queue.request(wanted(f"run-{i}"))
    assert [bool(queue.history(f"run-{i}")) for i in range(20)] == [False] * 15 + [True] * 5


# ---- limits


def test_a_session_has_a_limit_of_runs_and_of_epochs(queue):
    few = Limits(session_runs=3, session_epochs=100, total_runs=None, total_epochs=None)
    assert submit(queue, "ada", "a", "b", limits=few) == ["a", "b"]
    with pytest.raises(FieldError, match=r"runs = 2: with 2 queued or running, you may have at most 3 runs"):
        submit(queue, "ada", "c", "d", limits=few)
    with pytest.raises(FieldError, match=r"epochs = 90: with 20 queued or running, you may have at most 100 epochs"):
        submit(queue, "ada", "c", limits=few, max_epochs=90)
    assert submit(queue, "ada", "a", "b", "c", limits=few) == ["c"], "joining costs nothing"
    assert submit(queue, "bob", "d", "e", "f", limits=few) == ["d", "e", "f"], "others have limits of their own"
    assert queue.states(["a", "b", "c", "d", "e", "f", "g"]).keys() == set("abcdef")


def test_an_address_has_limits_over_all_its_sessions(queue):
    few = replace(UNLIMITED, address_runs=3, address_epochs=100)
    submit(queue, "ada", "a", "b", limits=few, address="here")
    with pytest.raises(FieldError, match=r"runs = 2: with 2 queued .* your address together may have at most 3 runs"):
        submit(queue, "bob", "c", "d", limits=few, address="here")
    with pytest.raises(FieldError, match=r"your address together may have at most 100 epochs over all runs"):
        submit(queue, "bob", "c", limits=few, address="here", max_epochs=81)
    assert submit(queue, "bob", "a", "b", "c", limits=few, address="here") == ["c"], "joining costs nothing"
    assert submit(queue, "eve", "d", "e", "f", limits=few, address="there") == ["d", "e", "f"]
    assert submit(queue, "owner", "g", limits=few) == ["g"], "the machine itself has no address"


def test_the_cells_that_an_address_requests_within_a_minute_are_limited(queue, monkeypatch):
    few, clock = replace(UNLIMITED, address_cells=2), [1000.0]
    monkeypatch.setattr("jsc_explore.jobs.queue.fair_share.time.time", lambda: clock[0])

    def request(session, cell):
        return queue.request({cell: (cell, RunConfig())}, INTERACTIVE, session, few, address="here")

    request("ada", "a")
    request("bob", "b")
    queue.cancel(["a", "b"])
    with pytest.raises(FieldError, match=r"cells = 1: with 2 in the last 60 s, .* at most 2 cells in that time; wait"):
        request("eve", "c")
    clock[0] += 61
    assert request("eve", "c") == ["c"]


def test_all_sessions_together_have_a_limit(queue):
    few = Limits(session_runs=None, session_epochs=None, total_runs=3, total_epochs=1000)
    submit(queue, "ada", "a", "b", limits=few)
    with pytest.raises(FieldError, match="all users together may have at most 3 runs"):
        submit(queue, "bob", "c", "d", limits=few)
    with pytest.raises(FieldError, match=r"all users together may have at most 1,000 epochs"):
        submit(queue, "bob", "c", limits=few, max_epochs=1000)
    submit(queue, "command line", *(f"run-{i}" for i in range(50)))


def test_runs_that_ended_or_were_cancelled_do_not_count(queue):
    few = Limits(session_runs=2, session_epochs=None, total_runs=None, total_epochs=None)
    submit(queue, "ada", "a", "b", limits=few)
    queue.cancel(["a"])
    queue.start(["b"])
    with pytest.raises(FieldError):
        submit(queue, "ada", "c", "d", limits=few)
    queue.finish("b", "done")
    assert submit(queue, "ada", "c", "d", limits=few) == ["c", "d"]


def test_limits_hold_for_concurrent_requests(queue, tmp_path):
    """Limits are checked in the transaction that enters a request: eight threads request six runs each, 20 fit."""
    few = Limits(session_runs=None, session_epochs=None, total_runs=20, total_epochs=None)
    refused, gate = [], threading.Barrier(8)

    def work(number):
        own = Queue(tmp_path)
        gate.wait()
        try:
            submit(own, f"s{number}", *(f"{number}-{i}" for i in range(6)), limits=few)
        except FieldError:
            refused.append(number)
        own.close()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(refused), len(queue.jobs())) == (5, 18)


# ---- fair share


def order(queue, **options):
    return [job.run_id for job in queue.waiting(**options)]


def test_sessions_alternate_and_each_keeps_its_order(queue):
    submit(queue, "ada", "a1", "a2", "a3", "a4")
    submit(queue, "bob", "b1", "b2")
    submit(queue, "eve", "e1")
    assert order(queue) == ["a1", "b1", "e1", "a2", "b2", "a3", "a4"]


def test_a_new_session_is_next_and_gets_no_credit_for_idle_time(queue):
    submit(queue, "ada", *(f"a{i}" for i in range(10)))
    queue.start([f"a{i}" for i in range(6)])
    submit(queue, "bob", *(f"b{i}" for i in range(3)))
    assert order(queue) == ["a6", "b0", "a7", "b1", "a8", "b2", "a9"]


def test_a_large_request_does_not_starve_a_small_one(queue):
    submit(queue, "ada", *(f"a{i}" for i in range(50)))
    submit(queue, "bob", *(f"b{i}" for i in range(5)))
    taken = []
    for _ in range(12):
        (first,) = order(queue, limit=1)
        queue.start([first])
        taken.append(first)
    assert [name for name in taken if name[0] == "b"] == ["b0", "b1", "b2", "b3", "b4"]
    assert taken.index("b4") <= 10


def test_interactive_runs_come_before_bulk_ones(queue):
    submit(queue, "ada", "a1", "a2", priority=BULK)
    submit(queue, "bob", "b1", priority=BULK)
    submit(queue, "eve", "e1", "e2")
    assert order(queue) == ["e1", "e2", "a1", "b1", "a2"]
    assert order(queue, priority=INTERACTIVE) == ["e1", "e2"]


def test_a_run_that_takes_long_is_bulk_whoever_requests_it(queue):
    long = MAX_INTERACTIVE_S + 1
    submit(queue, "ada", "long", expected_s=long)
    submit(queue, "ada", "swept", priority=BULK, expected_s=long)
    submit(queue, "bob", "short", expected_s=MAX_INTERACTIVE_S)
    assert order(queue) == ["short", "long", "swept"]
    submit(queue, "eve", "long", "swept", expected_s=long)
    assert order(queue, priority=INTERACTIVE) == ["short"], "nor does a click promote it"
    assert {job.run_id: (job.session, job.expected_s) for job in queue.jobs()} == {
        "short": ("bob", MAX_INTERACTIVE_S), "long": ("ada", long), "swept": ("ada", long),
    }  # fmt: skip


def test_short_and_long_runs_of_one_request_take_the_turns_of_their_priority(queue):
    queue.request(wanted("a1", "a2", "a3", "a4"), INTERACTIVE, "ada", expected_s={"a1": 99.0, "a3": 99.0})
    submit(queue, "bob", "b1", priority=BULK)
    assert order(queue) == ["a2", "a4", "a1", "b1", "a3"]


def test_sessions_and_addresses_can_be_left_out(queue):
    submit(queue, "ada", *(f"a{i}" for i in range(500)))
    submit(queue, "bob", "b1", address="there")
    submit(queue, "eve", "e1", address="there")
    assert order(queue, sessions_left_out=["ada"]) == ["b1", "e1"]
    assert order(queue, sessions_left_out=["ada", "bob"], addresses_left_out=["there"]) == []


def test_a_promoted_bulk_run_is_scheduled_for_the_session_that_promoted_it(queue):
    submit(queue, "ada", "a1", "a2", "a3", priority=BULK)
    submit(queue, "bob", "b1", "b2")
    submit(queue, "eve", "a3")
    assert order(queue) == ["b1", "a3", "b2", "a1", "a2"]
    assert {job.run_id: job.session for job in queue.jobs()}["a3"] == "eve"


def test_a_requeued_run_keeps_its_place(queue):
    submit(queue, "ada", "a1", "a2", "a3")
    queue.start(["a1"])
    queue.requeue(["a1"])
    assert order(queue) == ["a1", "a2", "a3"]


# ---- the file


@pytest.mark.parametrize("version", [0, 1, QUEUE_VERSION + 1])
def test_a_file_of_another_version_is_refused_and_not_changed(tmp_path, version):
    open_directory(tmp_path)
    db = sqlite3.connect(tmp_path / "queue.sqlite")
    db.executescript(f"CREATE TABLE requests (run_id TEXT PRIMARY KEY); PRAGMA user_version = {version};")
    db.close()
    with pytest.raises(StoreError, match=rf"has version {version}, .* only version {QUEUE_VERSION}; .*--store"):
        Queue(tmp_path)
    db = sqlite3.connect(tmp_path / "queue.sqlite")
    assert db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall() == [("requests",)]
    db.close()


def test_many_may_create_the_file_at_once(tmp_path):
    errors, gate = [], threading.Barrier(8)

    def work():
        gate.wait()
        try:
            Queue(tmp_path).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_what_ended_is_listed_newest_first_up_to_a_limit(queue):
    for run_id, state in zip("abcd", ENDS, strict=True):
        bring_to(queue, run_id, state)
    bring_to(queue, "e", "running")
    assert [(job.run_id, job.state) for job in queue.ended(3)] == [
        ("d", "cancelled"), ("c", "failed"), ("b", "diverged"),
    ]  # fmt: skip
    queue.request(wanted("d"))
    assert [job.run_id for job in queue.ended(9)] == ["c", "b", "a"], "what is queued again has not ended"

"""Queue, packing, submission, estimates: each run is queued once, no request is lost, urgent runs start first."""

import itertools
import sqlite3
import threading
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import CONFIG, waiting

from jsc_explore import data, paths
from jsc_explore.config import RunConfig
from jsc_explore.errors import DataError, StoreError, UnconfirmedError
from jsc_explore.jobs.estimate import COMPILE_S, estimate_time, format_seconds
from jsc_explore.jobs.packing import MAX_REPLICAS, MAX_STACK_S, pack
from jsc_explore.jobs.queue import BULK, INTERACTIVE, EngineState, Queue
from jsc_explore.jobs.submit import Requester, identify, submit
from jsc_explore.results import Outcome, RunRecord
from jsc_explore.store import Store
from jsc_explore.store.directory import open_directory
from jsc_explore.training.backends.vmap.program import ProgramSpec


@pytest.fixture
def queue(tmp_path):
    queue = Queue(tmp_path)
    yield queue
    queue.close()


def wanted(*run_ids, **changes):
    return {run_id: (CONFIG, RunConfig(**changes)) for run_id in run_ids}


def state(queue, run_id):
    return queue.states([run_id]).get(run_id)


def job(queue, run_id):
    return next(job for job in queue.jobs() if job.run_id == run_id)


def point(step):
    return {"step": step, "epoch": step / 10, "val_acc": 0.5}


# ---- requests


def test_a_run_is_queued_once_for_repeated_requests(queue):
    assert queue.request(wanted("a", "b")) == ["a", "b"]
    assert queue.request(wanted("b", "c")) == ["c"]
    assert [job.run_id for job in queue.jobs()] == ["a", "b", "c"]
    queue.start(["a"])
    assert queue.request(wanted("a")) == []
    assert (state(queue, "a"), job(queue, "a").attempt) == ("running", 1)


def test_a_request_carries_its_configuration(queue):
    run = RunConfig(batch_size=64, learning_rate=3e-3, model="16-8-5", seed=7)
    queue.request({"a": (CONFIG, run)})
    assert (job(queue, "a").config, job(queue, "a").config_id) == (run, CONFIG)


@pytest.mark.parametrize("ended", ["failed", "cancelled", "done", "diverged"])
def test_a_run_that_ended_is_queued_again_by_a_new_request_and_restarts(queue, ended):
    queue.request(wanted("a"))
    queue.start(["a"])
    queue.record_progress([("a", point(1))], {"a": (5, 10)})
    queue.finish("a", ended, "Traceback …")
    assert queue.request(wanted("a")) == ["a"]
    again = job(queue, "a")
    assert (again.state, again.attempt, again.step, again.error, again.finished_at) == ("queued", 2, 0, None, None)
    queue.start(["a"])
    assert queue.live()[1] == {}


def test_urgent_requests_come_first_then_the_oldest(queue):
    queue.request(wanted("slow", "lifted"), BULK)
    queue.request(wanted("first", "second"), INTERACTIVE)
    queue.request(wanted("lifted"), INTERACTIVE)
    assert [job.run_id for job in queue.waiting()] == ["first", "second", "lifted", "slow"]
    assert [job.run_id for job in queue.waiting(INTERACTIVE)] == ["first", "second", "lifted"]
    assert [job.run_id for job in queue.waiting(limit=1)] == ["first"]
    queue.request(wanted("first"), BULK)
    assert job(queue, "first").priority == INTERACTIVE, "a bulk request does not push an urgent one back"


def test_a_waiting_run_is_cancelled_at_once_and_a_running_one_when_the_engine_looks(queue):
    queue.request(wanted("waits", "runs", "finished"))
    queue.start(["runs", "finished"])
    queue.finish("finished", "done")
    queue.cancel(["waits", "runs", "finished", "unknown"])
    assert queue.states(["waits", "runs", "finished"]) == {"waits": "cancelled", "runs": "running", "finished": "done"}
    assert queue.cancelling() == {"runs"}
    assert queue.start(["waits"]) == set(), "a run cancelled a moment ago is not started any more"


def test_a_new_request_withdraws_a_cancellation(queue):
    queue.request(wanted("a"))
    queue.start(["a"])
    queue.cancel(["a"])
    queue.request(wanted("a"))
    assert queue.cancelling() == set()


def test_a_run_whose_training_is_gone_waits_again_unless_it_was_cancelled(queue):
    queue.request(wanted("lost", "unwanted", "waits"))
    queue.start(["lost", "unwanted"])
    queue.record_progress([("unwanted", point(1))], {})
    queue.cancel(["unwanted"])
    queue.requeue(["lost", "unwanted", "waits"])
    assert queue.states(["lost", "unwanted", "waits"]) == {"lost": "queued", "unwanted": "cancelled", "waits": "queued"}
    assert [job(queue, name).attempt for name in ("lost", "waits")] == [2, 1]
    assert queue.cancelling() == set()


# ---- what happens to a run


def test_live_shows_running_jobs_with_their_points_in_order(queue):
    queue.request(wanted("a", "b", "c"))
    queue.start(["a", "b"])
    queue.record_progress(
        [("a", point(20)), ("a", point(3)), ("b", point(1)), ("c", point(1))], {"a": (20, 40), "c": (1, 9)}
    )
    jobs, points = queue.live()
    assert [(job.run_id, job.state, job.share_done) for job in jobs] == [
        ("a", "running", 0.5), ("b", "running", 0.0), ("c", "queued", 0.0),
    ]  # fmt: skip
    assert points == {"a": [point(3), point(20)], "b": [point(1)]}
    assert queue.progress(["a", "b", "nothing"]) == (2, 0.5)


def test_a_point_sent_twice_is_kept_once(queue):
    queue.request(wanted("a"))
    queue.start(["a"])
    queue.record_progress([("a", point(1)), ("a", {**point(1), "val_acc": 0.9})], {})
    assert queue.live()[1] == {"a": [{**point(1), "val_acc": 0.9}]}


def test_live_jobs_and_points_are_of_one_moment(queue, tmp_path):
    """While another thread ends and restarts runs, no job is shown running with the points of an ended one."""
    other, stop, torn = Queue(tmp_path), threading.Event(), []

    def look():
        while not stop.is_set():
            jobs, points = other.live()
            torn.extend(job for job in jobs if len(points.get(job.run_id, [])) != job.step)

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(300):
        queue.request(wanted("a"))
        queue.start(["a"])
        for step in (1, 2):
            queue.record_progress([("a", point(step))], {"a": (step, 2)})
        queue.finish("a", "done")
    stop.set()
    thread.join()
    other.close()
    assert torn == []


def test_the_points_of_an_ended_run_go_except_of_a_failed_one(queue, tmp_path):
    queue.request(wanted("done", "failed", "cancelled"))
    queue.start(["done", "failed", "cancelled"])
    queue.record_progress([(name, point(1)) for name in ("done", "failed", "cancelled")], {})
    for name in ("done", "failed", "cancelled"):
        queue.finish(name, name, "Traceback …" if name == "failed" else None)
    queue.record_progress([("done", point(2))], {"done": (2, 2)})
    with sqlite3.connect(tmp_path / "queue.sqlite") as db:
        assert db.execute("SELECT run_id FROM points").fetchall() == [("failed",)]
    db.close()
    assert job(queue, "failed").error == "Traceback …"
    assert job(queue, "done").step == 0, "progress that comes late changes nothing"


def test_states_only_move_forward(queue):
    queue.request(wanted("a"))
    queue.start(["a"])
    queue.finish("a", "done")
    queue.finish("a", "failed", "too late")
    queue.start(["a"])
    queue.requeue(["a"])
    assert (state(queue, "a"), job(queue, "a").error) == ("done", None)


def test_jobs_that_ended_long_ago_can_be_left_out(queue):
    queue.request(wanted("ended", "waits"))
    queue.finish("ended", "failed")
    assert [job.run_id for job in queue.jobs(since=time.time() + 1)] == ["waits"]
    assert [job.run_id for job in queue.jobs(("failed",), since=time.time() - 60)] == ["ended"]


def test_the_engine_is_alive_while_its_heartbeat_is_recent(queue):
    assert queue.engine() is None
    queue.set_heartbeat(42, "the disk is full")
    found = queue.engine()
    assert (found.pid, found.message, found.is_alive) == (42, "the disk is full", True)
    assert not EngineState(42, 10.5, "").is_alive
    queue.clear_heartbeat()
    assert queue.engine() is None


# ---- many at once, full disks, damaged files


def test_eight_threads_with_queues_of_their_own_open_write_and_lose_nothing(tmp_path):
    errors, gate = [], threading.Barrier(8)

    def work(number):
        try:
            gate.wait()
            queue = Queue(tmp_path)
            for i in range(10):
                name = f"{number}-{i}"
                queue.request(wanted(name, seed=i))
                queue.start([name])
                queue.record_progress([(name, point(i))], {name: (i, 10)})
            queue.close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queue = Queue(tmp_path)
    jobs, points = queue.live()
    queue.close()
    assert errors == []
    assert (len(jobs), len(points)) == (80, 80)


def test_a_full_disk_is_reported_in_one_line_and_changes_nothing(queue):
    queue.request(wanted("a", "b"))
    queue.start(["a"])
    pages = queue._db.execute("PRAGMA page_count").fetchone()[0]
    queue._db.execute(f"PRAGMA max_page_count = {pages}")
    for change in (
        lambda: queue.request(wanted(*(f"run-{i}" for i in range(500)))),
        lambda: queue.record_progress([("a", {"step": i, "text": "x" * 1000}) for i in range(200)], {"a": (9, 9)}),
        lambda: queue.finish("a", "failed", "x" * 100_000),
    ):
        with pytest.raises(StoreError, match=r"full.*nothing was changed") as caught:
            change()
        assert "\n" not in str(caught.value)
    assert queue.states(["a", "b", "run-0"]) == {"a": "running", "b": "queued"}
    assert queue.live()[1] == {}
    queue._db.execute("PRAGMA max_page_count = 100000")
    assert len(queue.request(wanted(*(f"run-{i}" for i in range(500))))) == 500


def test_a_disk_so_full_that_sqlite_rolls_back_by_itself_is_still_named(queue):
    def overflow():
        with queue._transaction() as db:
            db.execute("ROLLBACK")
            raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(StoreError, match="disk is full"):
        overflow()
    assert queue.request(wanted("a")) == ["a"]


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path):
    open_directory(tmp_path)
    (tmp_path / "queue.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreError, match="run `jsc-explore verify --repair`") as caught:
        Queue(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_database_damaged_under_the_reader_is_a_clear_line(queue):
    queue.request(wanted("a"))
    queue.start(["a"])
    queue._db.execute("DROP TABLE points")
    with pytest.raises(StoreError, match="cannot be read"):
        queue.live()
    with pytest.raises(StoreError, match="nothing was changed"):
        queue.finish("a", "done")
    assert state(queue, "a") == "running"


# ---- packing


CONFIGS = [
    RunConfig(model=model, batch_size=batch, optimizer=optimizer, max_epochs=epochs)
    for model in ("jsc-tiny", "16-8-5")
    for batch in (16, 4096)
    for optimizer in ("adam", "sgd")
    for epochs in (1, 7)
]
JOBS = st.lists(st.tuples(st.sampled_from(CONFIGS), st.sampled_from([INTERACTIVE, BULK])), max_size=120).map(
    lambda pairs: [waiting(run, number, priority) for number, (run, priority) in enumerate(pairs)]
)
SLOTS = st.integers(1, 6)


@settings(deadline=None)  # a shared machine may stall
@given(JOBS, SLOTS)
def test_every_waiting_run_is_in_exactly_one_stack(jobs, slots):
    packed = [job.run_id for plan in pack(jobs, slots) for job in plan.jobs]
    assert sorted(packed) == sorted(job.run_id for job in jobs)


@settings(deadline=None)
@given(JOBS, SLOTS, st.dictionaries(st.integers(0, 119).map("run-{}".format), st.integers(1, 3)))
def test_a_stack_is_trainable_side_by_side_and_never_too_large(jobs, slots, resumable):

    for plan in pack(jobs, slots, resumable):
        assert 1 <= len(plan.jobs) <= MAX_REPLICAS
        assert len({(job.config.dataset, job.config.validation, job.config.stack_key) for job in plan.jobs}) == 1
        assert len({resumable.get(job.run_id, 0) for job in plan.jobs}) == 1
        assert {job.priority for job in plan.jobs} == {plan.priority}


@settings(deadline=None)
@given(JOBS, SLOTS)
def test_urgent_stacks_come_first(jobs, slots):
    priorities = [plan.priority for plan in pack(jobs, slots)]
    assert priorities == sorted(priorities)


@pytest.mark.parametrize(
    "run", [RunConfig(), RunConfig(model="jsc-conv"), RunConfig(precision="bf16-mixed")], ids=lambda run: run.model
)
def test_work_goes_to_every_worker_and_runs_of_a_seed_stay_together(run):
    five = [waiting(run.with_(seed=seed), seed) for seed in range(5)]
    assert sorted(len(plan.jobs) for plan in pack(five, 3)) == [1, 2, 2]
    grid = [
        waiting(run.with_(learning_rate=rate, seed=seed), number)
        for number, (rate, seed) in enumerate(itertools.product((1e-4, 1e-3, 1e-2), range(5)))
    ]
    seeds = [{job.config.seed for job in plan.jobs} for plan in pack(grid, 5)]
    assert seeds == [{0}, {1}, {2}, {3}, {4}]
    assert max(len(plan.jobs) for plan in pack(grid, 1)) <= MAX_REPLICAS


def test_an_interactive_stack_takes_two_seconds_where_its_runs_allow(monkeypatch):
    def stacks(count, expected_s, priority=INTERACTIVE):
        runs = (RunConfig(seed=seed) for seed in range(count))
        jobs = [replace(waiting(run, run.seed, priority), expected_s=expected_s) for run in runs]
        return [sum(job.expected_s for job in plan.jobs) for plan in pack(jobs, 1)]

    assert max(stacks(8, 1.5)) <= MAX_STACK_S
    assert max(stacks(40, 0.3)) <= MAX_STACK_S
    assert stacks(3, 5.0) == [5.0] * 3
    assert stacks(5, 0.1) == [pytest.approx(0.5)]
    assert stacks(8, 1.5, BULK) == [12.0], "bulk work stays together"


def test_a_session_without_a_running_stack_goes_first():
    def jobs(session, *numbers):
        return [replace(waiting(RunConfig(batch_size=n), n, INTERACTIVE), session=session) for n in numbers]

    waits = [*jobs("ada", 16, 32, 64), *jobs("bob", 128), *jobs("eve", 256, 512)]
    sessions = [plan.session for plan in pack(waits, 1, running=["ada", "ada", "eve"])]
    assert sessions == ["bob", "eve", "ada", "eve", "ada", "ada"]


def test_five_thousand_waiting_runs_are_packed_in_a_fraction_of_a_second():
    jobs = [
        replace(waiting(RunConfig(batch_size=16 + n % 500, seed=n // 500), n, INTERACTIVE), expected_s=0.5)
        for n in range(5000)
    ]
    began = time.process_time()
    pack(jobs, 2)
    assert time.process_time() - began < 1.0


# ---- submission and estimates


SIZES = {"epochs_run": 2, "steps": 1250, "train_rows": 160_000, "val_rows": 160_000}


def store_run(store, run, **changes):
    digest = data.digest(run.dataset)
    values = {"status": "done", "stop_reason": "max_epochs", "points": []}
    outcome = Outcome(**{**values, "wall_time_s": 10.0, **SIZES, **changes})
    identity = (run.run_id(digest), run.config_id(digest), digest, 1, run.to_dict(), run.network.parameters)
    store.add(RunRecord(*identity, outcome, "2026-01-01T00:00:00+00:00"))


def estimate_seconds(store, runs, workers=None):
    return estimate_time(store, runs, workers).seconds


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path)
    yield store
    store.close()


def test_submit_returns_stored_runs_joins_active_ones_and_queues_the_rest(store, queue):
    runs = [RunConfig(seed=seed) for seed in range(4)]
    ids = list(identify(runs))
    store_run(store, runs[1])
    first = submit(store, queue, runs[2:3])
    assert (first.stored, first.queued, first.joined) == ([], [ids[2]], [])
    answer = submit(store, queue, [*runs, runs[0]], BULK)
    assert answer.run_ids == ids
    assert (answer.stored, answer.queued, answer.joined) == ([ids[1]], [ids[0], ids[3]], [ids[2]])
    assert [job.run_id for job in queue.jobs()] == [ids[2], ids[0], ids[3]]


def test_a_click_on_a_large_network_is_bulk_work_and_one_on_a_small_network_is_not(store, queue):
    large, small = RunConfig(model="16-4000-600-5", batch_size=16, max_epochs=1), RunConfig(max_epochs=1)
    submit(store, queue, [large, small])
    assert {job.config.model: job.priority for job in queue.jobs()} == {large.model: BULK, small.model: INTERACTIVE}


def test_submit_sees_runs_that_another_process_stored(store, queue, tmp_path):
    other = Store(tmp_path)
    store_run(other, RunConfig())
    other.close()
    assert submit(store, queue, [RunConfig()]).queued == []


def test_submit_without_the_data_set_queues_nothing(store, queue, tmp_path, monkeypatch):
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "empty"))
    with pytest.raises(DataError, match="jsc-explore data fetch openml"):
        submit(store, queue, [RunConfig(), RunConfig(dataset="openml")])
    assert queue.jobs() == []


def test_the_estimate_uses_the_most_similar_runs_of_the_same_backend(store):
    run = RunConfig(batch_size=256, max_epochs=2)
    assert estimate_seconds(store, []) == 0.0
    for batch, seconds in ((16, 80.0), (64, 22.0), (256, 8.0), (1024, 4.5)):
        store_run(store, run.with_(batch_size=batch), wall_time_s=seconds, backend="kernel")
    store_run(store, run.with_(seed=1), status="diverged", steps=0, wall_time_s=0.1, backend="kernel")
    store_run(store, run.with_(seed=2), wall_time_s=9999.0, backend="stack-eager")
    assert estimate_seconds(store, [run], 1) == pytest.approx(8.0, rel=0.1)
    assert estimate_seconds(store, [run.with_(batch_size=32)], 1) == pytest.approx(42.0, rel=0.15)
    assert estimate_seconds(store, [run.with_(max_epochs=20)], 1) == pytest.approx(75.0, rel=0.2)
    assert estimate_time(store, [run]).error < 0.3


@pytest.mark.parametrize(
    ("run", "backend"),
    [(RunConfig(batch_size=256, max_epochs=2), "kernel"),
     (RunConfig(model="jsc-conv", max_epochs=2), "stack-eager (layer conv1d)")],
    ids=["kernel", "eager"],
)  # fmt: skip
def test_on_a_cpu_runs_add_up_over_the_workers_and_no_run_is_shorter_than_alone(store, run, backend):
    store_run(store, run, wall_time_s=40.0, backend=backend, replicas=4)
    one, four = 10.0, [run.with_(seed=seed) for seed in range(4)]
    assert estimate_seconds(store, four, workers=1) == pytest.approx(4 * one)
    assert estimate_seconds(store, four, workers=2) == pytest.approx(2 * one)
    assert estimate_seconds(store, four, workers=8) == pytest.approx(one)
    longer = run.with_(max_epochs=4)
    alone = estimate_seconds(store, [longer], workers=1)
    assert alone > one
    assert estimate_seconds(store, [*four, longer], workers=1) == pytest.approx(4 * one + alone)
    assert estimate_seconds(store, [run, longer], workers=8) == pytest.approx(alone)


def test_on_a_gpu_a_stack_takes_as_long_as_its_longest_run(store):
    conv = RunConfig(model="jsc-conv", max_epochs=2)
    store_run(
        store, conv, wall_time_s=30.0, backend="stack-eager (layer conv1d)", replicas=2, device="NVIDIA H100"
    )  # fmt: skip
    pair = estimate_seconds(store, [conv, conv.with_(max_epochs=4)], workers=1)
    assert estimate_seconds(store, [conv, conv.with_(seed=1)], workers=1) == pytest.approx(30.0)
    assert pair > 30.0
    assert estimate_seconds(store, [conv, conv.with_(max_epochs=4)], workers=8) == pytest.approx(pair)


CONV = RunConfig(model="jsc-conv", max_epochs=37)


@pytest.fixture
def published(tmp_path, tmp_path_factory, monkeypatch):
    """A new store over the published runs, all of the kernel, on a machine that has compiled no program."""
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "cache"))
    store = Store(tmp_path_factory.mktemp("new"), paths.snapshot())
    yield store
    store.close()


@pytest.mark.parametrize(
    ("run", "low", "high"), [(CONV, 70, 630), (RunConfig(precision="bf16-mixed", max_epochs=10), 24, 96)]
)
def test_a_backend_that_trained_nothing_yet_gets_no_error_and_its_compiling_is_named(published, run, low, high):
    """Five seeds of these took 211 and 48 s on two cores; the kernel's runs alone predict 3 and 1 s."""
    found = estimate_time(published, [run.with_(seed=seed) for seed in range(5)], workers=2)
    assert found.error is None
    assert "usually" not in str(found)
    assert low < found.seconds < high
    assert str(found).endswith(", of it compiling, about 40 s")


def test_a_program_that_is_compiled_already_is_not_waited_for(published, monkeypatch):
    waiting_s = estimate_seconds(published, [CONV])
    path = ProgramSpec.of(CONV, "cpu").path
    path.parent.mkdir(parents=True)
    path.touch()
    found = estimate_time(published, [CONV])
    assert (found.seconds, found.compile_s) == (pytest.approx(waiting_s - COMPILE_S), 0.0)
    path.unlink()
    monkeypatch.setenv("CXX", "no-such-compiler")
    eager = estimate_time(published, [CONV])
    assert eager.compile_s == 0.0
    assert eager.seconds > found.seconds


# Seconds of one epoch on one core, from measured steps and evaluations (`bench estimates` trains the larger ones).
MEASURED = [
    ("jsc-tiny", 16, 0.04), ("jsc-tiny", 1024, 0.03), ("16-256-256-5", 16, 5.0), ("16-256-256-5", 1024, 2.4),
    ("16-1000-1000-5", 16, 59), ("16-1000-1000-5", 1024, 72), ("16-4000-600-5", 16, 288), ("16-4000-600-5", 1024, 266),
    ("16-1200-1200-1200-1200-5", 16, 1288), ("16-1200-1200-1200-1200-5", 1024, 234),
    ("16-600-4000-600-5", 16, 1615), ("16-600-4000-600-5", 1024, 377),
]  # fmt: skip


@pytest.mark.parametrize("known", ["store", "published"])
def test_a_network_that_nobody_trained_is_estimated_by_its_arithmetic(request, known):
    place = request.getfixturevalue(known)
    for model, batch_size, measured_s in MEASURED:
        found = estimate_seconds(place, [RunConfig(model=model, batch_size=batch_size, max_epochs=1)], workers=1)
        assert measured_s / 3 < found < 3 * measured_s, (model, batch_size)


@pytest.mark.parametrize("known", ["store", "published"])
def test_a_large_network_has_to_be_confirmed_also_where_nothing_was_trained(request, queue, known):
    runs = [RunConfig(model="16-4000-600-5", batch_size=16, seed=seed) for seed in range(5)]
    with pytest.raises(UnconfirmedError, match=r"5 runs are expected to take about [\d.]+ h"):
        submit(request.getfixturevalue(known), queue, runs, requester=Requester("ada"))
    assert queue.jobs() == []


def test_a_long_training_of_a_backend_without_runs_has_to_be_confirmed(published, queue, monkeypatch):
    monkeypatch.setattr(data, "digest", lambda name: "d" * 64)
    runs = [CONV.with_(max_epochs=1000, seed=seed) for seed in range(5)]
    with pytest.raises(UnconfirmedError, match=r"about [\d.]+ (h|min), of it compiling, about 40 s"):
        submit(published, queue, runs, requester=Requester("ada"))


def test_errors_are_those_of_the_backend_that_will_train(store):
    for batch, seconds in ((16, 80.0), (64, 22.0), (256, 8.0), (1024, 4.5)):
        store_run(store, RunConfig(batch_size=batch, max_epochs=2), wall_time_s=seconds, backend="kernel")
    for batch, seconds in ((64, 90.0), (256, 10.0), (1024, 200.0)):
        store_run(
            store, CONV.with_(batch_size=batch, max_epochs=2), wall_time_s=seconds,
            backend="stack-eager (layer conv1d)",
        )  # fmt: skip
    kernel, conv = RunConfig(batch_size=128, max_epochs=2), CONV.with_(batch_size=128, max_epochs=2)
    assert estimate_time(store, [kernel]).error < 0.3
    assert estimate_time(store, [conv]).error is None
    assert estimate_time(store, [kernel, conv]).error is None
    store_run(store, CONV.with_(batch_size=512, max_epochs=2), wall_time_s=8.0, backend="stack-eager (layer conv1d)")
    assert estimate_time(store, [conv]).error > 0.5
    assert estimate_time(store, [kernel]).error < 0.3


def test_published_runs_of_another_machine_claim_no_error_here(published):
    assert estimate_time(published, [RunConfig(batch_size=48)]).error is None


def test_a_share_of_wall_time_is_preferred_to_the_time_of_the_whole_stack(store):
    store_run(store, RunConfig(max_epochs=2), wall_time_s=40.0, wall_share_s=3.0, backend="kernel", replicas=4)
    assert estimate_seconds(store, [RunConfig(max_epochs=2)], workers=1) == pytest.approx(3.0)


@pytest.mark.parametrize(("seconds", "text"), [(0.2, "1 s"), (89, "89 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_formatted_for_people(seconds, text):
    assert format_seconds(seconds) == text


# ---- several requesters


def test_who_requested_a_run_withdraws_alone_and_it_goes_on_for_the_others(queue):
    queue.request(wanted("a"), session="ada")
    queue.request(wanted("a"), session="bob")
    assert job(queue, "a").requesters == {"ada", "bob"}
    queue.cancel(["a"], "eve")
    assert (state(queue, "a"), job(queue, "a").requesters) == ("queued", {"ada", "bob"})
    queue.start(["a"])
    queue.cancel(["a"], "ada")
    assert (job(queue, "a").cancel, job(queue, "a").requesters) == (False, {"bob"})
    queue.cancel(["a"], "bob")
    assert job(queue, "a").cancel


def test_whoever_runs_the_app_cancels_for_all_and_a_new_request_starts_with_its_own_requester(queue):
    queue.request(wanted("a"), session="ada")
    queue.request(wanted("a"), session="bob")
    queue.cancel(["a"])
    assert state(queue, "a") == "cancelled"
    queue.request(wanted("a"), session="eve")
    assert job(queue, "a").requesters == {"eve"}

"""The live snapshot: one reading of queue and store for all panels, of points only the new ones."""

from types import SimpleNamespace

import pytest
from runs import CONFIG

from jsc_explore.config import RunConfig
from jsc_explore.jobs.queue import Queue
from jsc_explore.web.state import live
from jsc_explore.web.state.live import LivePoller


@pytest.fixture
def queue(tmp_path):
    queue = Queue(tmp_path)
    yield queue
    queue.close()


def poller_of(queue):
    store = SimpleNamespace(version=3, refresh=lambda: False)
    return LivePoller(queue, store)


def start(queue, *run_ids):
    queue.request({run_id: (CONFIG, RunConfig(seed=i)) for i, run_id in enumerate(run_ids)})
    queue.start(run_ids)


def steps(snapshot, run_id):
    return [point["step"] for point in snapshot.points.get(run_id, ())]


def test_points_add_up_over_snapshots_and_each_is_read_once(queue, monkeypatch):
    start(queue, "a", "b")
    poller = poller_of(queue)
    read = []
    live = queue.live
    monkeypatch.setattr(queue, "live", lambda after: read.append(live(after)) or read[-1])
    queue.record_progress([("a", {"step": 1}), ("b", {"step": 2})], {})
    assert steps(poller.snapshot(max_age_s=-1), "a") == [1]
    queue.record_progress([("a", {"step": 5}), ("a", {"step": 9})], {"a": (9, 10)})
    snapshot = poller.snapshot(max_age_s=-1)
    assert (steps(snapshot, "a"), steps(snapshot, "b")) == ([1, 5, 9], [2])
    assert [len(points.get("a", [])) for _, points in read] == [1, 2]
    assert {job.run_id: job.share_done for job in snapshot.active} == {"a": 0.9, "b": 0.0}


def test_a_snapshot_is_shared_until_it_is_too_old_or_invalidated(queue):
    poller = poller_of(queue)
    first = poller.snapshot(max_age_s=60)
    start(queue, "a")
    assert poller.snapshot(max_age_s=60) is first
    poller.invalidate()
    assert [job.run_id for job in poller.snapshot(max_age_s=60).active] == ["a"]


def test_a_snapshot_never_changes_and_is_a_key_of_its_own(queue):
    poller = poller_of(queue)
    first, second = poller.snapshot(max_age_s=-1), poller.snapshot(max_age_s=-1)
    assert len({first, second}) == 2
    with pytest.raises(AttributeError):
        first.active = ()


def test_a_cancelled_run_keeps_its_partial_curve_until_it_is_requested_again(queue):
    start(queue, "a", "b")
    poller = poller_of(queue)
    queue.record_progress([("a", {"step": 1}), ("a", {"step": 5}), ("b", {"step": 1})], {})
    poller.snapshot(max_age_s=-1)
    queue.finish("a", "cancelled")
    for _ in range(3):
        snapshot = poller.snapshot(max_age_s=-1)
        assert [(job.run_id, job.state) for job in snapshot.cancelled] == [("a", "cancelled")]
        assert (steps(snapshot, "a"), steps(snapshot, "b")) == ([1, 5], [1])
    start(queue, "a")
    queue.record_progress([("a", {"step": 1})], {})
    snapshot = poller.snapshot(max_age_s=-1)
    assert (snapshot.cancelled, steps(snapshot, "a")) == ((), [1])


def test_the_number_of_partial_curves_in_memory_is_bounded(queue, monkeypatch):
    monkeypatch.setattr(live, "KEPT_CANCELLED", 2)
    poller = poller_of(queue)
    for i, run_id in enumerate("abc"):
        queue.request({run_id: (CONFIG, RunConfig(seed=i))})
        queue.start([run_id])
        queue.record_progress([(run_id, {"step": 1})], {})
        poller.snapshot(max_age_s=-1)
        queue.finish(run_id, "cancelled")
        snapshot = poller.snapshot(max_age_s=-1)
    assert [job.run_id for job in snapshot.cancelled] == ["b", "c"]
    assert set(snapshot.points) == {"b", "c"}


def test_jobs_that_end_leave_their_points_and_stay_for_a_while(queue):
    start(queue, "a", "b")
    poller = poller_of(queue)
    queue.record_progress([("a", {"step": 1}), ("b", {"step": 1})], {})
    poller.snapshot(max_age_s=-1)
    queue.finish("a", "done")
    queue.finish("b", "failed", "it broke")
    snapshot = poller.snapshot(max_age_s=-1)
    assert snapshot.active == ()
    assert snapshot.points == {}
    assert {job.run_id for job in snapshot.ended} == {"a", "b"}
    assert [job.run_id for job in snapshot.failed] == ["b"]
    assert snapshot.store_version == 3

"""The render queue: in which order waiting pages are drawn, and what becomes of those that are no longer needed."""

import threading
from types import SimpleNamespace

import pytest
from servers import eventually

from jsc_explore.web.state import render_queue
from jsc_explore.web.state.render_queue import RenderQueue


def start_threads(queue, delays, checks=None, order=None):
    """Start a thread for each delay, one after the other; return the list of served names, which fills, and threads."""
    order, threads = [] if order is None else order, []

    def wait(name, delay):
        try:
            queue.acquire(delay, (checks or {}).get(name, lambda: None))
        except RuntimeError:
            return
        order.append(name)
        queue.release()

    for name, delay in delays.items():
        waiting = len(queue._waiting)
        threads.append(threading.Thread(target=wait, args=(name, delay)))
        threads[-1].start()
        eventually(lambda waiting=waiting: len(queue._waiting) > waiting or not threads[-1].is_alive())
    return order, threads


def join(threads):
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_clicks_go_before_refreshes_and_equal_delays_keep_their_order():
    queue = RenderQueue(1)
    queue.acquire()
    order, threads = start_threads(
        queue, {"live": 5.0, "page": 10.0, "click": 0.0, "live too": 5.0, "another click": 0.0}
    )
    assert order == []
    queue.release()
    join(threads)
    assert order == ["click", "another click", "live", "live too", "page"]


def test_a_refresh_that_has_waited_for_its_delay_goes_before_later_clicks(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(render_queue, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    queue, order = RenderQueue(1), []
    queue.acquire()
    _, threads = start_threads(queue, {"live": 5.0}, order=order)
    clock[0] = 5.1
    _, more = start_threads(queue, {"click": 0.0}, order=order)
    queue.release()
    join(threads + more)
    assert order == ["live", "click"]


def test_as_many_threads_draw_as_there_are_slots():
    queue = RenderQueue(2)
    queue.acquire()
    queue.acquire()
    order, threads = start_threads(queue, {"third": 0.0})
    assert order == []
    queue.release()
    join(threads)
    assert order == ["third"]


@pytest.mark.parametrize("obsolete", ["first", "second"])
def test_an_obsolete_run_leaves_the_queue_and_blocks_no_other(obsolete):
    checked = threading.Event()

    def check():
        checked.set()
        raise RuntimeError("superseded")

    queue = RenderQueue(1)
    queue.acquire()
    order, threads = start_threads(queue, {"first": 0.0, "second": 0.0}, {obsolete: check})
    assert checked.wait(10)
    threads[["first", "second"].index(obsolete)].join(10)
    queue.release()
    join(threads)
    assert order == ["second" if obsolete == "first" else "first"]
    queue.acquire()  # The slot is free again.


def test_a_run_that_is_served_while_it_leaves_passes_its_slot_on():
    queue = RenderQueue(1)
    queue.acquire()
    served = threading.Event()

    def check():
        # The slot is given to the thread now, and the thread leaves without having noticed.
        queue.release()
        served.set()
        raise RuntimeError("superseded")

    order, threads = start_threads(queue, {"obsolete": 0.0}, {"obsolete": check})
    assert served.wait(10)
    join(threads)
    queue.acquire()
    queue.release()
    assert order == []

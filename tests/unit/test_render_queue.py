"""The render queue: in which order waiting pages are drawn, and what becomes of those that are no longer needed."""

import threading
import time

import pytest

from jsc_explore.web.state.render_queue import RenderQueue


def start_threads(queue, delays, checks=None):
    """Start a thread for each delay, one after the other; return the list of served names, which fills, and threads."""
    order, threads = [], []

    def wait(name, delay):
        try:
            queue.acquire(delay, (checks or {}).get(name, lambda: None))
        except RuntimeError:
            return
        order.append(name)
        queue.release()

    for name, delay in delays.items():
        threads.append(threading.Thread(target=wait, args=(name, delay)))
        threads[-1].start()
        time.sleep(0.02)
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


def test_a_refresh_does_not_wait_for_ever():
    queue = RenderQueue(1)
    queue.acquire()
    order, threads = start_threads(queue, {"live": 0.1})
    time.sleep(0.2)
    late, more = start_threads(queue, {"click": 0.0})
    queue.release()
    join(threads + more)
    assert order == ["live"]
    assert late == ["click"]


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
    def check():
        raise RuntimeError("superseded")

    queue = RenderQueue(1)
    queue.acquire()
    order, threads = start_threads(queue, {"first": 0.0, "second": 0.0}, {obsolete: check})
    time.sleep(0.4)
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

"""Who draws when: the line in which pages wait for their turn."""

import threading
import time

import pytest

from jsc_explore.web.state.render_queue import Line


def comers(line, patiences, looks=None):
    """Let one thread for each patience enter, one after the other; return who got a place, in that order."""
    order, threads = [], []

    def come(name, patience):
        try:
            line.enter(patience, (looks or {}).get(name, lambda: None))
        except RuntimeError:
            return
        order.append(name)
        line.leave()

    for name, patience in patiences.items():
        threads.append(threading.Thread(target=come, args=(name, patience)))
        threads[-1].start()
        time.sleep(0.02)
    return order, threads


def ended(threads):
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def test_a_click_goes_before_what_draws_itself_and_those_alike_keep_their_order():
    line = Line(1)
    line.enter()
    order, threads = comers(line, {"live": 5.0, "page": 10.0, "click": 0.0, "live too": 5.0, "another click": 0.0})
    assert order == []
    line.leave()
    ended(threads)
    assert order == ["click", "another click", "live", "live too", "page"]


def test_nobody_waits_for_ever():
    line = Line(1)
    line.enter()
    order, threads = comers(line, {"live": 0.1})
    time.sleep(0.2)
    late, more = comers(line, {"click": 0.0})
    line.leave()
    ended(threads + more)
    assert order == ["live"]
    assert late == ["click"]


def test_as_many_draw_as_there_are_places():
    line = Line(2)
    line.enter()
    line.enter()
    order, threads = comers(line, {"third": 0.0})
    assert order == []
    line.leave()
    ended(threads)
    assert order == ["third"]


@pytest.mark.parametrize("gone", ["first", "second"])
def test_who_is_no_longer_wanted_leaves_the_line_and_keeps_nobody_waiting(gone):
    def unwanted():
        raise RuntimeError("superseded")

    line = Line(1)
    line.enter()
    order, threads = comers(line, {"first": 0.0, "second": 0.0}, {gone: unwanted})
    time.sleep(0.4)
    line.leave()
    ended(threads)
    assert order == ["second" if gone == "first" else "first"]
    line.enter()  # The place is free again.


def test_one_called_at_the_moment_he_leaves_hands_his_place_on():
    line = Line(1)
    line.enter()
    called = threading.Event()

    def look():
        # The place is handed to him now, and he leaves without having noticed.
        line.leave()
        called.set()
        raise RuntimeError("superseded")

    order, threads = comers(line, {"gone": 0.0}, {"gone": look})
    assert called.wait(10)
    ended(threads)
    line.enter()
    line.leave()
    assert order == []

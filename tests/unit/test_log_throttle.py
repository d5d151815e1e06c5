"""The log of the page's server: forged messages are short lines, at most one a second."""

import logging
import sys

import pytest

from jsc_explore.web import log_throttle
from jsc_explore.web.log_throttle import MAX_KINDS, MAX_LINE, LogThrottle


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(log_throttle.time, "monotonic", lambda: now[0])
    return now


def record(error=None, level=logging.ERROR, text="Uncaught app execution"):
    info = None
    if error is not None:
        try:
            raise error
        except type(error):
            info = sys.exc_info()
    return logging.LogRecord("streamlit.error_util", level, __file__, 1, text, (), info)


def test_the_first_of_a_kind_has_its_traceback_and_the_others_are_lines_at_most_one_a_second(clock):
    throttle = LogThrottle()
    first = record(ValueError("first"))
    assert throttle.filter(first)
    assert first.exc_info is not None
    passed = [one for i in range(1000) if throttle.filter(one := record(ValueError(f"number {i}")))]
    assert [(one.getMessage(), one.exc_info) for one in passed] == [("ValueError: number 0", None)]
    clock[0] += 1.5
    later = record(ValueError("later"))
    assert throttle.filter(later)
    assert later.getMessage() == "ValueError: later (and 999 messages left out)"
    other = record(TypeError("another kind"))
    assert throttle.filter(other)
    assert other.exc_info is not None


def test_text_of_a_visitor_makes_no_line_of_its_own(clock):
    throttle = LogThrottle()
    throttle.filter(record(ValueError("")))
    forged = record(ValueError("a\n2026-01-01 all is well\r\x1b[31m" + "%s" * 500))
    assert throttle.filter(forged)
    assert len(forged.getMessage()) == MAX_LINE
    assert forged.getMessage().isprintable()


def test_kinds_are_bounded_and_messages_without_an_exception_count(clock):
    throttle = LogThrottle()
    kinds = [type(f"Error{i}", (Exception,), {}) for i in range(2 * MAX_KINDS)]
    shown = [one for kind in kinds if throttle.filter(one := record(kind("x")))]
    assert sum(one.exc_info is not None for one in shown) == MAX_KINDS
    assert len(shown) == MAX_KINDS + 1
    assert not throttle.filter(record(text='No handler for "x"', level=logging.WARNING))
    assert throttle.filter(record(level=logging.INFO))

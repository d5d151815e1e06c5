"""A page's state against the URLs that a browser reports: old ones are in flight, others are a navigation."""

import sys

import pytest
from streamlit.testing.v1 import AppTest

from jsc_explore.web.state import url


def page():
    import streamlit as st

    from jsc_explore.web.state.url import DATA

    DATA.restore()
    DATA.widget(st.toggle, "log_x", "Log x")
    DATA.widget(st.toggle, "log_y", "Log y")
    DATA.write()


@pytest.fixture
def app(monkeypatch):
    """The page in a session that has loaded a URL, and the clock of its state."""
    clock = [100.0]
    # Streamlit puts the page in place of the main module, which processes that later tests spawn would run.
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setattr(url.time, "monotonic", lambda: clock[0])
    test = AppTest.from_function(page, default_timeout=30)
    report(test, {"feature": "zlogz"})
    test.run()
    test.clock = clock
    return test


def report(test: AppTest, query: dict[str, str]) -> None:
    test.query_params.clear()
    for name, value in query.items():
        test.query_params[name] = value


def query(test: AppTest) -> dict[str, str]:
    return dict(test.query_params)


def test_a_url_that_was_just_replaced_undoes_no_change(app):
    app.toggle[0].set_value(True).run()
    assert query(app) == {"feature": "zlogz", "log_x": "yes"}
    # The browser asks for a run (a popover closed) before it has read the new URL.
    report(app, {"feature": "zlogz"})
    app.run()
    assert app.toggle[0].value is True
    assert query(app) == {"feature": "zlogz", "log_x": "yes"}


def test_a_change_that_comes_with_an_old_url_undoes_no_earlier_change(app):
    app.toggle[0].set_value(True).run()
    # A slow browser: long after, and the change brings the URL of before.
    app.clock[0] += 60
    report(app, {"feature": "zlogz"})
    app.toggle[1].set_value(True).run()
    assert query(app) == {"feature": "zlogz", "log_x": "yes", "log_y": "yes"}
    # A run that was stopped before it wrote its URL: the next report is of the change before.
    report(app, {"feature": "zlogz", "log_x": "yes"})
    app.run()
    assert [box.value for box in app.toggle] == [True, True]


def test_the_back_button_brings_the_earlier_view_back(app):
    app.toggle[0].set_value(True).run()
    app.clock[0] += url.IN_FLIGHT_S + 1
    report(app, {"feature": "zlogz"})
    app.run()
    assert app.toggle[0].value is False

"""The Queue page: who runs the app sees who asked for what, cancels it and reads what ended; nobody else does."""

import pytest
from page_session import texts
from servers import ROOT
from streamlit.testing.v1 import AppTest

from jsc_explore.config import RunConfig
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.jobs.submit import identify
from jsc_explore.web.pages import queue as queue_page
from jsc_explore.web.state import services, visitor

RESOURCES = (services.store, services.queue, services.live, services.supervisor)


@pytest.fixture
def page(tmp_path, monkeypatch):
    """The page as whoever runs the app sees it; two visitors and a command have asked for runs."""
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(ROOT / "results.parquet"))
    monkeypatch.setattr(Supervisor, "start", lambda self: None)
    monkeypatch.setattr(Supervisor, "stop", lambda self: None)
    monkeypatch.setattr(visitor, "is_owner", lambda: True)
    for resource in RESOURCES:
        resource.clear()
    script = "from jsc_explore.web.pages import queue\nqueue.page()\n"
    yield AppTest.from_string(script, default_timeout=60)
    for resource in RESOURCES:
        resource.clear()


def request(session, count, address="", **changes):
    runs = identify(RunConfig(seed=seed, **changes) for seed in range(count))
    services.queue().request(runs, session=session, address=address, expected_s=dict.fromkeys(runs, 30.0))
    services.live().invalidate()
    return list(runs)


def press(page, label):
    (button,) = [button for button in page.button if button.label.startswith(label)]
    return button.click().run()


def states():
    return {(job.session, job.state) for job in services.queue().jobs()}


def test_it_says_who_asked_how_much_and_how_long(page):
    first = request("page 0123456789ab", 5, "fedcba987654", batch_size=1024)
    request("command line", 1, model="jsc-s")
    services.queue().start(first[:2])
    services.live().invalidate()
    page.run()
    assert not page.exception
    said = texts(page.markdown)
    assert "6 runs, 2 in training, about 90 s left" in said.replace("2 min", "90 s")
    assert "page 0123 at address fedc, 1 s ago:" in said
    assert "network jsc-tiny, batch size 1024, learning rate 1e-3" in said
    assert "5 runs, 2 in training" in said
    assert "command line, 1 s ago:** network jsc-s" in said
    assert "0123456789" not in said, "a session's whole name would let others guess it"


def test_one_request_and_all_are_cancelled(page):
    request("page 0123456789ab", 2, batch_size=1024)
    request("page ba9876543210", 2, batch_size=512)
    page.run()
    cancel = [button for button in page.button if button.label == "Cancel"]
    assert len(cancel) == 2
    cancel[0].click().run()
    assert states() == {("page 0123456789ab", "cancelled"), ("page ba9876543210", "queued")}
    press(page, "Cancel 2 runs of everybody")
    assert {state for _, state in states()} == {"cancelled"}
    assert "Nothing is waiting or training." in texts(page.caption)


def test_what_ended_stands_in_the_history_with_the_reason(page):
    done = request("page 0123456789ab", 3, batch_size=1024)
    failed = request("page 0123456789ab", 1, batch_size=512)
    for run_id in done:
        services.queue().finish(run_id, "done")
    services.queue().finish(failed[0], "failed", "Traceback …\nValueError: a|b *no* memory")
    page.run()
    assert not page.exception
    said = texts(page.markdown)
    rows = [line for line in said.splitlines() if line.startswith("| 1 s ago")]
    assert len(rows) == 2
    assert "batch size 512, learning rate 1e-3 | 1 | failed: ValueError: a|b *no* memory |" in rows[0]
    assert "batch size 1024, learning rate 1e-3 | 3 | done |" in rows[1]


def test_others_read_in_one_line_that_it_is_not_for_them(page, monkeypatch):
    request("page 0123456789ab", 2)
    monkeypatch.setattr(visitor, "is_owner", lambda: False)
    page.run()
    assert not page.exception
    assert "for the person who runs the app" in texts(page.caption)
    assert not page.button
    assert "0123" not in texts(page.markdown)


@pytest.mark.parametrize(("is_owner", "shown"), [(True, "visible"), (False, "hidden")])
def test_only_who_runs_the_app_has_it_in_the_navigation(page, monkeypatch, is_owner, shown):
    monkeypatch.setattr(visitor, "is_owner", lambda: is_owner)
    listed = {}
    real = queue_page.st.navigation

    def navigation(pages, **options):
        listed.update({one.title: one.visibility for one in pages})
        return real(pages, **options)

    monkeypatch.setattr(queue_page.st, "navigation", navigation)
    assert not AppTest.from_file(str(ROOT / "app.py"), default_timeout=60).run().exception
    assert listed["Queue"] == shown
    assert set(listed.values()) - {shown} <= {"visible"}

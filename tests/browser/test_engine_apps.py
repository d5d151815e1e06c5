"""Several app processes on one store: both show the same run as it grows, and one engine serves them all."""

import contextlib
import functools
import re

import psutil
import pytest
from journeys import TIMEOUT_MS
from playwright.sync_api import expect
from servers import eventually, running_app

from jsc_explore.config import RunConfig
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store

pytestmark = pytest.mark.timeout(900)
LONG = RunConfig(model="16-256-256-5", batch_size=8192, max_epochs=1000)


@pytest.fixture
def home(tmp_path, jets_cache):
    (tmp_path / "store").mkdir()
    tmp_path.joinpath("cache").symlink_to(jets_cache, target_is_directory=True)
    return tmp_path


@pytest.fixture
def apps(home):
    with contextlib.ExitStack() as stack:
        cache = str(home / "cache")
        start = functools.partial(running_app, home / "store", streamlit=True, JSC_EXPLORE_CACHE=cache)
        yield [stack.enter_context(start()) for _ in range(2)]
    # An engine ends with its app, however that ends.
    eventually(lambda: engines(home / "store") == [])


def engines(store):
    """Return the engine processes that serve a store."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = process.info["cmdline"] or []
        if "jsc_explore" in line and "engine" in line and str(store) in line:
            found.append(process.pid)
    return found


def epoch_shown(page):
    shown = re.search(r"epoch (\d+) of 1000", page.locator("body").inner_text())
    return int(shown.group(1)) if shown else 0


def test_two_apps_show_one_run_that_one_engine_trains(home, apps, browser):
    expect.set_options(timeout=TIMEOUT_MS)
    queue, store = Queue(home / "store"), Store(home / "store")
    # A page at which nothing happens does not look for what others ask; one that is opened does.
    (run_id,) = submit(store, queue, [LONG]).run_ids
    pages = []
    for app in apps:
        page = browser.new_page()
        page.goto(app.url, timeout=TIMEOUT_MS)
        expect(page.locator(".st-key-grid")).to_be_visible()
        pages.append(page)
    first = [eventually(lambda page=page: epoch_shown(page)) for page in pages]
    for page, before in zip(pages, first, strict=True):
        eventually(lambda page=page, before=before: epoch_shown(page) > before)
    (engine,) = eventually(lambda: len(found := engines(home / "store")) == 1 and found)
    assert queue.engine().pid == engine

    owner = next(app for app in apps if app.process.pid == psutil.Process(engine).ppid())
    (other,) = (app for app in apps if app is not owner)
    owner.process.kill()
    owner.process.wait()
    page = pages[apps.index(other)]
    seen = epoch_shown(page)
    # Its engine ends with it; that of the other app goes on from the checkpoint.
    eventually(lambda: engines(home / "store") not in ([], [engine]))
    eventually(lambda: epoch_shown(page) > seen)
    queue.cancel([run_id])
    eventually(lambda: queue.states([run_id]) == {run_id: "cancelled"})
    (later,) = submit(store, queue, [LONG.with_(max_epochs=1, seed=1)]).run_ids
    eventually(lambda: queue.states([later]) == {later: "done"})
    eventually(lambda: engines(home / "store") not in ([], [engine]))
    queue.close()
    store.close()

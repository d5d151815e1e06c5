"""Fixtures of the journeys: a real app over a store of its own, and a page in Chromium."""

import pytest
from journeys import TIMEOUT_MS
from playwright.sync_api import expect
from servers import running_app

expect.set_options(timeout=TIMEOUT_MS)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The real app with an engine, on a store of its own above the published snapshot; its URL and the store."""
    home = tmp_path_factory.mktemp("home")
    with running_app(home / "store", JSC_EXPLORE_CACHE=str(home / "cache")) as app:
        yield app.url, app.store
    print(app.log.read_text()[-2000:])


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(TIMEOUT_MS)
    yield context.new_page()
    context.close()

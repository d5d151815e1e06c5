"""Journeys through the page in a real browser: Chromium, the real server, the real engine, real training.

Screenshots of every station go to ``screenshots/``, which git ignores; look at them after a change.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from jsc_explore import data
from jsc_explore.config import RunConfig
from jsc_explore.jobs import Queue
from jsc_explore.jobs.ask import identify
from jsc_explore.store import Store

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]
ROOT = Path(__file__).parent.parent
SHOTS = ROOT / "screenshots"
# A config that trains in seconds: large batches, few epochs.
QUICK = {"batch_size": 16384, "learning_rate": 1e-2, "max_epochs": 2}
# Machines are shared and slow at times; what must be quick is measured in bench, not here.
PATIENCE_MS = 120_000


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The real thing: `jsc-explore app` on a store of its own beneath the published snapshot."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "JSC_EXPLORE_STORE": str(home / "store"), "JSC_EXPLORE_CACHE": str(home / "cache")}
    environment.pop("JSC_EXPLORE_SNAPSHOT", None)
    command = [
        sys.executable,
        "-m",
        "jsc_explore",
        "app",
        "--headless",
        "--port",
        str(port),
        "--store",
        str(home / "store"),
    ]
    with (home / "app.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://localhost:{port}"
    try:
        _wait(lambda: _answers(f"{address}/_stcore/health"), 180)
        yield address, home / "store"
    finally:
        process.terminate()
        process.wait(timeout=60)
        print((home / "app.log").read_text()[-2000:])


@pytest.fixture(scope="module")
def browser():
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert path, "no Chromium found: install it, e.g. apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield context.new_page()
    context.close()


def _answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=2).status == 200
    except OSError:
        return False


def _wait(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def open_page(page: Page, address: str, query: str = "") -> None:
    page.goto(f"{address}/?{query}")
    expect(page.locator(".st-key-grid svg.marks")).to_be_visible()
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def cell_position(page: Page, column: str, row: str) -> tuple[float, float]:
    labels = page.locator(".st-key-grid svg.marks .role-axis-label text")
    x = labels.get_by_text(column, exact=True).first.bounding_box()
    y = labels.get_by_text(row, exact=True).last.bounding_box()
    return x["x"] + x["width"] / 2, y["y"] + y["height"] / 2


def click_cell(page: Page, column: str, row: str, **options) -> None:
    page.mouse.click(*cell_position(page, column, row), **options)


def grid_texts(page: Page) -> list[str]:
    return page.locator(".st-key-grid svg.marks .mark-text text").all_text_contents()


def visible_errors(page: Page) -> list[str]:
    return page.locator("[data-testid=stException], [data-testid=stAlertContentError]").all_text_contents()


def test_the_page_opens_on_the_published_grid(page, server):
    address, _ = server
    open_page(page, address)
    texts = grid_texts(page)
    assert sum(bool(re.fullmatch(r"\d\d\.\d%", text)) for text in texts) == 36
    assert texts.count("+") == 6
    expect(page.get_by_text("180 runs, 6 of 42 cells missing")).to_be_visible()
    expect(page.locator(".st-key-curves_panel svg.marks")).to_be_visible()
    assert visible_errors(page) == []
    shoot(page, "opened")


def test_a_missing_cell_is_clicked_trains_grows_and_is_there_after_a_reload_and_on_a_second_screen(
    page, browser, server
):
    address, store_directory = server
    query = f"max_epochs={QUICK['max_epochs']}&cells=16384:1e-2"
    open_page(page, address, query)
    engine = Queue(store_directory)
    _wait(lambda: (state := engine.engine()) is not None and state.message != "starting", 180)
    # The axis shows the value from the address; another click on the same cell trains it.
    click_cell(page, "16384", "1e-2")
    expect(page.get_by_text(re.compile("Batch size 16384, learning rate 1e-2: 5 seeds"))).to_be_visible()
    asked = identify(RunConfig(**QUICK, seed=seed) for seed in range(5))
    assert set(engine.states(list(asked))) == set(asked)
    shoot(page, "training")
    expect(page.get_by_text("Cancel")).to_have_count(0)
    expect(page.locator(".st-key-grid").get_by_text("n=5").first).to_be_visible()
    shoot(page, "trained")
    store = Store(store_directory)
    assert store.existing(asked) == set(asked)
    figure = f"{100 * _mean_accuracy(store, asked):.1f}%"
    assert figure in grid_texts(page)

    page.reload()
    expect(page.locator(".st-key-grid svg.marks")).to_contain_text(figure)
    expect(page.get_by_text("Batch size 16384, learning rate 1e-2").first).to_be_visible()
    second = browser.new_context().new_page()
    second.goto(page.url)
    expect(second.locator(".st-key-grid svg.marks")).to_contain_text(figure)
    assert all(state == "done" for state in engine.states(list(asked)).values())
    assert all(job.attempt == 1 for job in engine.jobs())
    second.context.close()
    store.close()
    engine.close()


def _mean_accuracy(store: Store, run_ids) -> float:
    rows = store.runs({"run_id": list(run_ids)}, ["val_acc"])["val_acc"].to_pylist()
    return sum(rows) / len(rows)


def test_a_long_training_shows_points_as_they_come_and_can_be_cancelled(page, server):
    address, store_directory = server
    open_page(page, address, "max_epochs=500&cells=1024:1e-3")
    click_cell(page, "1024", "1e-3")
    panel = page.get_by_text(re.compile(r"Batch size 1024, learning rate 1e-3: 5 seeds, epoch \d+ of 500"))
    expect(panel).to_be_visible()
    expect(page.locator(".st-key-curves_panel svg.marks .mark-line path").first).to_be_visible()
    queue = Queue(store_directory)
    _wait(lambda: sum(len(points) for points in queue.live()[1].values()) > 20, 180)
    shoot(page, "growing")
    page.get_by_role("button", name="Cancel").click()
    expect(panel).to_have_count(0)
    _wait(lambda: not queue.jobs(("queued", "running")), 180)
    assert {job.state for job in queue.jobs() if job.config.max_epochs == 500} == {"cancelled"}
    expect(page.locator(".st-key-grid").get_by_text("training 5")).to_have_count(0)
    shoot(page, "cancelled")
    queue.close()


def test_shift_click_compares_cells_and_the_url_holds_the_view(page, browser, server):
    address, _ = server
    open_page(page, address)
    click_cell(page, "256", "1e-3")
    expect(page.get_by_text("Batch size 256, learning rate 1e-3").first).to_be_visible()
    page.keyboard.down("Shift")
    click_cell(page, "16", "1e-3")
    page.keyboard.up("Shift")
    expect(page.get_by_text("Batch size 16, learning rate 1e-3").first).to_be_visible()
    assert "cells=256%3A1e-3~16%3A1e-3" in page.url
    page.get_by_label("Curve of").click()
    page.get_by_role("option", name="Validation loss").click()
    expect(page.locator(".st-key-curves_panel svg.marks")).to_contain_text("validation loss")
    shoot(page, "compared")
    second = browser.new_context(viewport={"width": 1440, "height": 900}).new_page()
    second.goto(page.url)
    expect(second.locator(".st-key-curves_panel svg.marks")).to_contain_text("validation loss")
    legend = second.locator(".st-key-curves_panel svg.marks .role-legend")
    expect(legend).to_contain_text("Batch size 256 (n=5)")
    expect(legend).to_contain_text("Batch size 16 (n=5)")
    # What came with the address can be added to and taken from, like what was clicked here.
    second.keyboard.down("Shift")
    click_cell(second, "64", "1e-3")
    expect(legend).to_contain_text("Batch size 64 (n=5)")
    expect(legend).to_contain_text("Batch size 16 (n=5)")
    click_cell(second, "256", "1e-3")
    second.keyboard.up("Shift")
    expect(legend).not_to_contain_text("Batch size 256 (n=5)")
    click_cell(second, "512", "1e-2")
    expect(legend).to_contain_text("Batch size 512, Learning rate 1e-2 (n=5)")
    expect(legend).not_to_contain_text("Batch size 16")
    second.context.close()


def test_a_filter_changes_what_is_seen_and_a_typed_network_is_taken_or_refused_in_one_line(page, server):
    address, _ = server
    open_page(page, address, "model=16-12-5")
    expect(page.get_by_text("0 runs, 42 of 42 cells missing")).to_be_visible()
    expect(page.get_by_text("Validation accuracy of 16-12-5")).to_be_visible()
    expect(page.get_by_text("No curve yet")).to_be_visible()
    shoot(page, "empty")
    open_page(page, address, "model=16-x-5&learning_rte=3&batch_size=abc")
    expect(page.get_by_text(re.compile(r"node 2 \('x'\) is not a layer")).first).to_be_visible()
    expect(page.get_by_text(re.compile("did you mean learning_rate"))).to_be_visible()
    expect(page.get_by_text(re.compile("batch_size = 'abc': must be a whole number"))).to_be_visible()
    expect(page.locator(".st-key-grid svg.marks")).to_be_visible()
    shoot(page, "bad-address")


def test_a_failed_job_shows_its_reason_and_can_be_tried_again(page, server):
    address, store_directory = server
    queue = Queue(store_directory)
    run = RunConfig(batch_size=2048, learning_rate=1e-3, max_epochs=1)
    (run_id, (config_id, _)), *_ = identify([run]).items()
    queue.request({run_id: (config_id, run)})
    queue.finish(run_id, "failed", "Traceback (most recent call last):\nMemoryError: 12 GB wanted, 8 GB there")
    open_page(page, address, "max_epochs=1&cells=2048:1e-3")
    expect(page.get_by_text("MemoryError: 12 GB wanted, 8 GB there").first).to_be_visible()
    shoot(page, "failed")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator(".st-key-grid").get_by_text("n=5").first).to_be_visible()
    assert queue.states([run_id]) == {run_id: "done"}
    queue.close()


@pytest.mark.parametrize(
    ("scheme", "width", "height"),
    [("dark", 1440, 900), ("light", 420, 900), ("light", 1024, 768), ("light", 1920, 1080)],
)
def test_it_is_readable_dark_narrow_and_projected(browser, server, scheme, width, height):
    address, _ = server
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{address}/?cells=256:1e-3~256:1e-2")
    expect(page.locator(".st-key-grid svg.marks")).to_be_visible(timeout=PATIENCE_MS)
    expect(page.locator(".st-key-curves_panel svg.marks")).to_be_visible(timeout=PATIENCE_MS)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    page.wait_for_timeout(500)
    shoot(page, f"{scheme}-{width}")
    context.close()


def test_the_digest_of_the_published_runs_is_that_of_the_data_shown(tmp_path):
    store = Store(tmp_path, ROOT / "results.parquet")
    digests = set(store.runs(columns=["data_digest"])["data_digest"].to_pylist())
    assert data.digest("simulated") in digests
    store.close()

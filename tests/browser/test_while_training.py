"""What holds while something trains: files arrive, dialogs stay, means and progress do not mislead, who may cancel."""

import re
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from journeys import assert_accessible, cell_position, click_cell, curve_names, idle, open_page, shoot, visible_errors
from playwright.sync_api import expect
from servers import eventually, running_app

from jsc_explore.config import RunConfig
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import identify, submit
from jsc_explore.results import POINT_FIELDS
from jsc_explore.store import Store

pytestmark = pytest.mark.timeout(900)
# Too long to end during a test.
LONG = RunConfig(model="jsc-s", batch_size=16, max_epochs=1000)
# Three seeds whose progress a test writes itself: one is at epoch 6 of 10, two are at epoch 3.
SEEDS = identify(RunConfig(batch_size=1024, learning_rate=1e-2, max_epochs=10, seed=seed) for seed in range(3))
FAST, *SLOW = SEEDS


def record(queue, run_id, epochs):
    """Record a point after each of these epochs, of ten steps."""
    known = [{"step": 10 * i, "epoch": float(i), "val_acc": 0.3 + 0.05 * i, "val_loss": 1.5} for i in epochs]
    points = [(run_id, dict.fromkeys(POINT_FIELDS) | point) for point in known]
    queue.record_progress(points, {run_id: (10 * max(epochs) + 5, 100)})


@pytest.fixture(scope="module")
def engineless(tmp_path_factory):
    """The URL of an app without an engine, and the queue that it shows."""
    home = tmp_path_factory.mktemp("observed")
    with (
        running_app(home / "store", "--read-only", JSC_EXPLORE_CACHE=str(home / "cache")) as app,
        closing(Queue(app.store)) as queue,
    ):
        yield app.url, queue


@pytest.fixture
def observed(engineless):
    """The same while ``SEEDS`` are running."""
    url, queue = engineless
    queue.request(SEEDS)
    queue.start(SEEDS)
    record(queue, FAST, range(7))
    for run_id in SLOW:
        record(queue, run_id, range(4))
    yield url, queue
    end(queue)


def end(queue):
    for run_id in SEEDS:
        queue.finish(run_id, "cancelled")


@pytest.fixture
def others_training(server):
    """A training of another session, under way: the queue and its run id."""
    _, directory = server
    with closing(Queue(directory)) as queue, closing(Store(directory)) as store:
        (run_id,) = submit(store, queue, [LONG]).run_ids
        eventually(lambda: queue.live()[1].get(run_id), 300)
        yield queue, run_id
        queue.cancel([job.run_id for job in queue.jobs(("queued", "running"))])
        eventually(lambda: not queue.jobs(("queued", "running")))


def texts_of_cell(page, column, row):
    x, y = cell_position(page, column, row)
    boxes = [(one.bounding_box(), one.text_content()) for one in page.locator(".st-key-grid svg .mark-text text").all()]
    return [text for box, text in boxes if abs(box["x"] + box["width"] / 2 - x) < 20 and abs(box["y"] - y) < 25]


def test_a_mean_ends_at_the_slowest_seed_and_progress_is_no_percentage(page, observed):
    address, queue = observed
    open_page(page, address, "max_epochs=10&cells=1024:1e-2")
    idle(page)
    assert texts_of_cell(page, "1024", "1e-2") == ["▶", "epoch 5/10"]
    expect(page.get_by_text("Batch size 1024, learning rate 1e-2: 3 seeds, epoch 5 of 10")).to_be_visible()
    chart = page.locator(".st-key-curves_panel svg.marks")
    mean = chart.locator(".mark-line path[stroke-width='2.5']")
    expect(mean).to_have_count(1)
    colour = mean.get_attribute("stroke")

    def widths(width):
        lines = chart.locator(f".mark-line path[stroke-width='{width}'][stroke='{colour}']")
        return sorted(lines.evaluate_all("lines => lines.map(line => line.getBBox().width)"))

    *slow, fast = widths(1)
    assert slow == pytest.approx([fast / 2] * 2, rel=0.01)
    assert widths(2.5) == pytest.approx([fast / 2], rel=0.01)
    for run_id in SLOW:
        record(queue, run_id, range(4, 6))
    eventually(lambda: widths(2.5) == pytest.approx([fast * 5 / 6], rel=0.01))
    assert visible_errors(page) == []


def test_the_warning_about_a_bad_address_stays_until_it_is_dismissed(page, observed):
    address, queue = observed
    # Several pages: the warning once vanished in half of the tries.
    pages = [page, *(page.context.new_page() for _ in range(2))]
    warnings = [one.get_by_text("did you mean learning_rate") for one in pages]
    for one, warning in zip(pages, warnings, strict=True):
        one.goto(f"{address}/?learning_rte=3&max_epochs=10")
        expect(warning).to_be_visible()
        expect(one).not_to_have_url(re.compile("learning_rte"))
    page.wait_for_timeout(5000)
    # The page is drawn again, as whenever a training begins or ends.
    end(queue)
    page.wait_for_timeout(5000)
    for one, warning in zip(pages, warnings, strict=True):
        expect(one.locator(".st-key-grid").get_by_text("▶")).to_have_count(0)
        assert warning.is_visible()
        one.get_by_role("button", name="Dismiss").click()
        expect(warning).to_have_count(0)


def test_no_page_asks_another_host(page, observed):
    address, _ = observed
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    open_page(page, address)
    page.get_by_role("button", name="Export").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    for name, drawn in (
        ("Compare", ".st-key-third-growth"), ("Overview", ".st-key-parallel"), ("Data", ".st-key-histogram_panel"),
    ):  # fmt: skip
        page.get_by_role("link", name=name, exact=True).click()
        expect(page.locator(f"{drawn} svg.marks").first).to_be_visible()
    assert any("/_stcore/stream" in url for url in asked)
    assert {urlsplit(url).hostname for url in asked} - {None} == {"localhost"}


def test_focus_returns_after_a_download_and_escape_closes_the_dialog(page, engineless):
    address, _ = engineless
    open_page(page, address)
    page.get_by_role("button", name="Export").click()
    dialog = page.get_by_role("dialog")
    idle(page)
    svg = dialog.get_by_role("button", name="SVG", exact=True).first
    with page.expect_download():
        svg.click()
    expect(svg).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_every_download_arrives_while_this_and_another_session_train(page, server, others_training):
    address, _ = server
    open_page(page, address, "max_epochs=1000&cells=16:1e-3")
    click_cell(page, "16", "1e-3")
    expect(page.get_by_text(re.compile(r"2 configurations: \d of 6 runs in training"))).to_be_visible()
    page.get_by_role("button", name="Export").click()
    buttons = page.get_by_role("dialog").get_by_role("button", name=re.compile("^(SVG|PNG|PDF|CSV|Parquet)$"))
    expect(buttons).to_have_count(5)
    sizes = []
    for i in range(10):
        with page.expect_download() as download:
            buttons.nth(i % 5).click()
        assert download.value.failure() is None
        sizes.append(Path(download.value.path()).stat().st_size)
    assert min(sizes) > 100
    assert visible_errors(page) == []


def test_a_dialog_stays_open_with_what_was_typed_when_a_training_ends(page, server, others_training):
    address, _ = server
    queue, run_id = others_training
    open_page(page, address, "max_epochs=1000")
    page.get_by_role("button", name="Train…").click()
    dialog = page.get_by_role("dialog")
    box = dialog.get_by_role("combobox", name="Network", exact=True)
    box.fill("16-12-5")
    box.press("Enter")
    expect(dialog.get_by_text("269 parameters")).to_be_visible()
    queue.cancel([run_id])
    expect(page.get_by_text("1 seed, cancelled")).to_be_attached()
    page.wait_for_timeout(3000)
    expect(dialog.get_by_text("269 parameters")).to_be_visible()
    expect(box).to_have_value("16-12-5")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)


def test_who_asked_and_who_runs_the_app_may_cancel_and_the_partial_curve_stays(browser, page, server):
    address, directory = server
    # As behind a proxy that does not name the visitors: their connections come from this machine.
    public = address.replace("localhost", "visitors.localhost")
    other, owner = browser.new_context().new_page(), browser.new_context().new_page()
    query = "max_epochs=1000&cells=32:1e-3"
    open_page(page, public, query)
    click_cell(page, "32", "1e-3")
    row = re.compile(r"Batch size 32, learning rate 1e-3: 5 seeds, epoch")
    cancel = page.get_by_role("button", name="Cancel")
    for one, url in ((other, public), (owner, address)):
        open_page(one, url, query)
    for one in (page, other, owner):
        expect(one.get_by_text(row)).to_be_visible()
    expect(other.get_by_role("button", name="Cancel")).to_be_disabled()
    expect(owner.get_by_role("button", name="Cancel")).to_be_enabled()
    # Another session of the same browser.
    page.reload()
    with closing(Queue(directory)) as queue:
        eventually(lambda: sum(len(points) for points in queue.live()[1].values()) > 20, 300)
    expect(cancel).to_be_enabled()
    cancel.click()
    expect(page.get_by_text("Batch size 32, learning rate 1e-3: 5 seeds, cancelled")).to_be_visible()
    for one in (page, other):
        chart = one.locator(".st-key-curves_panel svg.marks")
        expect(chart.get_by_text("cancelled").first).to_be_visible()
        expect(curve_names(one)).to_contain_text("32, 1e-3 (5 seeds)")
        expect(chart.locator(".mark-line path[stroke-width='1.5']").first).to_be_visible()
    page.reload()
    expect(page.locator(".st-key-grid svg.marks")).to_be_visible()
    idle(page)
    expect(page.locator(".st-key-curves_panel svg.marks").get_by_text("cancelled")).to_have_count(0)
    for one in (other, owner):
        one.context.close()


def test_who_runs_the_app_finds_what_others_asked_for_in_the_queue_and_cancels_it(browser, page, server):
    address, directory = server
    public = address.replace("localhost", "visitors.localhost")
    open_page(page, public, "max_epochs=1000&cells=64:1e-3")
    click_cell(page, "64", "1e-3")
    expect(page.get_by_text(re.compile("Batch size 64, learning rate 1e-3: 5 seeds"))).to_be_visible()
    expect(page.get_by_role("link", name="Queue")).to_have_count(0)
    page.goto(f"{public}/queue")
    expect(page.get_by_text("This page is for the person who runs the app")).to_be_visible()
    owner = browser.new_context(viewport={"width": 1280, "height": 720}).new_page()
    open_page(owner, address)
    owner.get_by_role("link", name="Queue").click()
    expect(
        owner.get_by_text(re.compile("page .{4} at address .{4}, .* ago: network jsc-tiny, batch size 64"))
    ).to_be_visible()
    expect(owner.get_by_text(re.compile("5 runs, .*about")).first).to_be_visible()
    assert_accessible(owner)
    shoot(owner, "queue")
    owner.get_by_role("button", name="Cancel", exact=True).click()
    expect(owner.get_by_text("Nothing is waiting or training.")).to_be_visible()
    expect(owner.get_by_role("row", name=re.compile("batch size 64.* 5 cancelled"))).to_be_visible()
    assert visible_errors(owner) == []
    owner.context.close()
    with closing(Queue(directory)) as queue:
        assert not queue.jobs(("queued", "running"))

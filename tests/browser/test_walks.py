"""Walks between the pages: whatever was chosen on a page is still chosen after a visit to any other page."""

import difflib
import itertools
import pprint
import re

import pytest
from journeys import TIMEOUT_MS, choose, click_cell, idle, open_page, visible_errors
from playwright.sync_api import expect
from servers import eventually, running_app

from jsc_explore.config import RunConfig
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import submit
from jsc_explore.store import Store

pytestmark = pytest.mark.timeout(900)
# Long enough for a whole walk, and in none of the cells that are looked at.
LONG = RunConfig(model="jsc-s", batch_size=16, max_epochs=1000)
# All that a visitor chose or sees chosen: parameters of the URL, values of widgets, headings, and texts of the grid.
STATE = """() => {
  const text = element => (element.innerText ?? element.textContent).replace(/\\s+/g, " ").trim();
  const texts = selector => [...document.querySelectorAll(selector)].map(text);
  const kinds = ["Selectbox", "MultiSelect", "TextInput", "Slider", "Checkbox", "Radio", "ButtonGroup", "Expander"];
  const widgets = [...document.querySelectorAll(kinds.map(kind => `[data-testid=st${kind}]`).join())];
  const value = input => input.ariaValueNow ?? input.ariaChecked
    ?? (["checkbox", "radio"].includes(input.type) ? input.checked : input.value);
  return {
    parameters: [...new URLSearchParams(location.search)].map(pair => pair.join("=")).sort(),
    widgets: widgets.map(widget => [
      text(widget), ...[...widget.querySelectorAll("input, [role=slider], [role=radio]")].map(value)].join(" | ")),
    headings: texts("h5, h6"),
    // What is predicted of missing cells comes a moment later.
    cells: texts(".st-key-grid svg.marks .mark-text text").filter(text => /^[\\dn]/.test(text)),
  };
}"""


def settled_state(page):
    """Return the state once it no longer changes by itself: predictions come a moment after the grid."""
    states = [page.evaluate(STATE)]

    def is_settled():
        page.wait_for_timeout(1000)
        idle(page)
        states.append(page.evaluate(STATE))
        return states[-1] == states[-2]

    eventually(is_settled, TIMEOUT_MS / 1000)
    return states[-1]


def select(page, key, option):
    choose(page, page.locator(f".st-key-{key} [role=combobox]"), option)
    settled_state(page)


def fill(page, key, text):
    box = page.locator(f".st-key-{key} input")
    box.fill(text)
    box.press("Enter")
    settled_state(page)


def choose_on_explore(page):
    click_cell(page, "256", "1e-2")
    expect(page.get_by_text("Batch size 256, learning rate 1e-2").first).to_be_visible()
    settled_state(page)
    page.keyboard.down("Shift")
    click_cell(page, "16", "1e-2")
    page.keyboard.up("Shift")
    expect(page.get_by_text("Batch size 16, learning rate 1e-2").first).to_be_visible()
    select(page, "explore-metric", "Test loss")
    fill(page, "explore-expression", "val_acc > 0.3")
    select(page, "explore-curve_x", "Optimizer step")
    expect(page.get_by_text("where val_acc > 0.3").first).to_be_visible()


def choose_on_compare(page):
    select(page, "compare-metric", "Test loss")
    page.get_by_role("radio", name="seed 1").click()
    page.get_by_role("button", name="Swap A and B").click()
    expect(page.get_by_role("radio", name="seed 1")).to_be_checked()


def choose_on_overview(page):
    select(page, "overview-metric", "Test loss")
    select(page, "overview-against", "Batch size")
    fill(page, "overview-expression", "val_acc > 0.4")
    expect(page.get_by_text("where val_acc > 0.4").first).to_be_visible()


def choose_on_data(page):
    page.get_by_role("radio", name="top").first.click()
    page.get_by_role("radio", name="heavy jet").click()
    expect(page.get_by_text("the mass stays 172.4 GeV")).to_be_visible()
    page.get_by_text("Log y").click()
    page.get_by_role("radio", name="gluon").last.click()


# What is drawn on each page when it has come, and the choices made there.
PAGES = {
    "Explore": (".st-key-grid svg.marks", choose_on_explore),
    "Compare": (".st-key-third-growth svg.marks", choose_on_compare),
    "Overview": (".st-key-parallel svg.marks", choose_on_overview),
    "Data": (".st-key-histogram_panel svg.marks", choose_on_data),
}


def go(page, name):
    """Go to a page through the navigation bar."""
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.locator(PAGES[name][0])).to_be_visible()
    idle(page)


def differences(before, after):
    """Return the lines that two states do not have in common: lost ones with -, new ones with +."""
    return [line for kind in before for line in difflib.ndiff(before[kind], after[kind]) if line[0] in "-+"]


@pytest.fixture(params=["quiet", "training"])
def running(request, server):
    """The run that is being trained during the walk, and the queue; None when the server is quiet."""
    if request.param == "quiet":
        yield None
        return
    _, directory = server
    queue, store = Queue(directory), Store(directory)
    (run_id,) = submit(store, queue, [LONG]).run_ids
    yield queue, run_id
    queue.cancel([run_id])
    queue.close()
    store.close()


def steps_of(running):
    queue, run_id = running
    return sum(job.step for job in queue.jobs(("running",)) if job.run_id == run_id)


def test_choices_on_a_page_outlive_a_visit_to_any_other_page(page, server, running):
    """Every ordered pair of pages, there through the navigation bar and back."""
    url, _ = server
    open_page(page, url)
    if running:
        eventually(lambda: steps_of(running), 300)
    chosen = {}
    for name, (_, make_choices) in PAGES.items():
        go(page, name)
        settled_state(page)
        make_choices(page)
        chosen[name] = settled_state(page)
    trained = sum(text.startswith("0.") or text.startswith("1.") for text in chosen["Explore"]["cells"])
    assert trained > 10, "the grid shows test losses"
    faults = {}
    for first, second in itertools.permutations(PAGES, 2):
        go(page, first)
        before = settled_state(page)
        go(page, second)
        go(page, first)
        after = settled_state(page)
        if changes := differences(chosen[first], before) + differences(before, after):
            faults[f"{first}, {second}, {first}"] = changes
        assert visible_errors(page) == []
        assert page.get_by_text("In the URL").count() == 0
    assert faults == {}, pprint.pformat(faults, width=150)
    if running:
        done = steps_of(running)
        eventually(lambda: steps_of(running) > done)


def test_back_returns_across_pages_to_what_was_seen(page, server):
    address, _ = server
    page.goto(f"{address}/?cells=64:1e-3")
    expect(page.locator("svg.marks").first).to_be_visible()
    page.get_by_role("link", name="Data").click()
    expect(page.get_by_text("jets of 5 kinds").first).to_be_visible()
    page.get_by_role("link", name="Overview").click()
    expect(page.get_by_text("Hyperparameter importance")).to_be_visible()
    page.go_back()
    expect(page.get_by_text("jets of 5 kinds").first).to_be_visible()
    page.go_back()
    expect(page.get_by_text("Validation accuracy · jsc-tiny · 10 epochs")).to_be_visible()
    expect(page).to_have_url(re.compile("cells=64"))


def test_a_lost_server_is_explained_in_the_words_of_this_app(page, tmp_path):
    with running_app(tmp_path / "store", "--read-only") as app:
        page.goto(app.url)
        expect(page.locator("svg.marks").first).to_be_visible()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("The server does not answer.")).to_be_visible()
    expect(dialog.get_by_text("jsc-explore app")).to_be_visible()
    for words in dialog.get_by_text(re.compile("streamlit", re.IGNORECASE)).all():
        expect(words).to_be_hidden()

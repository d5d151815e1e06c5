"""Journeys through Compare and Overview in a real browser; screenshots go to ``screenshots/``."""

import re
import zipfile
from pathlib import Path

import journeys
import pytest
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.timeout(900)
GROWTH, PARALLEL = ".st-key-third-growth svg.marks", ".st-key-parallel svg.marks"
# The second layer of the drawing holds the curves, one mark each.
CURVES = f"{PARALLEL} .layer_1_marks"


def test_two_cells_of_the_grid_are_compared_changed_swapped_and_found_again(page, browser, server):
    address, _ = server
    journeys.open_page(page, address)
    journeys.click_cell(page, "256", "1e-2")
    expect(page.get_by_text("Batch size 256, learning rate 1e-2").first).to_be_visible()
    page.keyboard.down("Shift")
    journeys.click_cell(page, "16", "1e-2")
    page.keyboard.up("Shift")
    expect(page.get_by_text("Batch size 16, learning rate 1e-2").first).to_be_visible()
    journeys.idle(page)
    page.get_by_role("link", name="Compare").click()
    expect(page.locator(GROWTH)).to_be_visible()
    expect(page.get_by_text("From A to B: Batch size 256 → 16.")).to_be_visible()

    page.locator(".st-key-side-b .stSelectbox").last.click()
    page.get_by_role("option", name="no").click()
    expect(page.get_by_text("Batch size 256 → 16, Final ReLU yes → no.")).to_be_visible()
    expect(page.get_by_text("No verdict: some class is silent, and 5 seeds do not show how often")).to_be_visible()
    expect(page.get_by_text(re.compile("is silent in . of 5 seeds")).first).to_be_visible()
    page.get_by_role("button", name="Swap A and B").click()
    expect(page.get_by_text("Final ReLU no → yes.")).to_be_visible()
    page.get_by_role("radio", name="seed 0").click()
    expect(page.locator(".st-key-third-A0 svg.marks .mark-text text").first).to_be_visible()
    journeys.idle(page)
    journeys.shoot(page, "compare")

    second = browser.new_context().new_page()
    second.goto(page.url)
    expect(second.get_by_text("Final ReLU no → yes.")).to_be_visible()
    second.context.close()
    page.get_by_role("link", name="Explore").click()
    expect(page.locator(".st-key-grid svg.marks")).to_be_visible()
    assert page.get_by_text("In the URL").count() == 0
    assert journeys.visible_errors(page) == []


def drag(page: Page, axis: str, top: float, bottom: float) -> None:
    """Drag straight down along an axis of the coordinates, between two shares of its length from above."""
    title = page.locator(f"{PARALLEL} .role-axis-label text").filter(has_text=axis).first.bounding_box()
    frame = page.locator(PARALLEL).bounding_box()
    x, length = title["x"] + title["width"] / 2, 0.42 * frame["height"]
    start = title["y"] + title["height"] + 4
    page.mouse.move(x, start + top * length)
    page.mouse.down()
    page.mouse.move(x, start + (top + bottom) / 2 * length, steps=4)
    page.mouse.move(x, start + bottom * length, steps=4)
    page.mouse.up()


def test_a_brush_on_an_axis_keeps_the_curves_that_pass_and_a_second_one_fewer(page, server):
    address, _ = server
    page.goto(f"{address}/overview")
    expect(page.locator(PARALLEL)).to_be_visible()
    expect(page.get_by_text("Calibration of predictions")).to_be_visible()
    journeys.idle(page)
    every = page.locator(CURVES).count()
    colours = {line.get_attribute("stroke") for line in page.locator(f"{CURVES} path").all()}
    handed = page.locator(".st-key-show-in-explore").get_by_role("button")
    expect(handed).to_have_text(re.compile(r"Show these \d+ in Explore"))
    # On the axis of the switch yes stands above no: the upper half keeps those with a final ReLU.
    drag(page, "ReLU", 0.0, 0.3)
    expect(page.locator(CURVES)).not_to_have_count(every)
    half = page.locator(CURVES).count()
    # About half: of more configs than can be drawn some are left out, of either kind.
    assert 0.4 * every < half < 0.6 * every
    drag(page, "Learning", 0.0, 0.5)
    expect(page.locator(CURVES)).not_to_have_count(half)
    assert 0 < page.locator(CURVES).count() < half
    brushed = {line.get_attribute("stroke") for line in page.locator(f"{CURVES} path").all()}
    assert brushed < colours, "a brush gives no line another colour"
    journeys.idle(page)
    journeys.shoot(page, "overview-brushed")
    page.mouse.dblclick(*(page.locator(PARALLEL).bounding_box()[side] + 300 for side in ("x", "y")))
    expect(page.locator(CURVES)).to_have_count(every)

    journeys.choose(page, "Metric against", "Learning rate")
    expect(page).to_have_url(re.compile("against=learning_rate"))
    expect(page.locator(".st-key-half-response svg.marks")).to_contain_text("Learning rate")
    expect(page.get_by_text(re.compile(r"\d+% of \d+ held-out configurations")).first).to_be_visible()

    # What matters, with its uncertainty, and what it costs.
    expect(page.locator(".st-key-half-importance svg.marks")).to_contain_text("Learning rate")
    expect(
        page.get_by_text(re.compile("^A random forest predicts an unseen configuration to .* about 95%"))
    ).to_be_visible()
    for cost in ("seconds", "parameters"):
        expect(page.locator(f".st-key-half-{cost} svg.marks .mark-symbol path").first).to_be_visible()
    expect(page.get_by_text(re.compile("^Ringed: the Pareto front"))).to_be_visible()
    assert journeys.visible_errors(page) == []


def test_a_brushed_set_is_shown_in_explore_whose_filters_hold_on_the_overview(page, server):
    address, _ = server
    page.goto(f"{address}/overview")
    shown = page.locator(".st-key-show-in-explore").get_by_role("button")
    expect(shown).to_have_text(re.compile(r"Show these \d+ in Explore"))
    expect(page.get_by_text("Calibration of predictions")).to_be_visible()
    journeys.idle(page)
    every = shown.text_content()
    drag(page, "ReLU", 0.7, 1.0)
    expect(shown).not_to_have_text(every)
    # Vega's own rectangle of the brush is as wide as the chart: the pointer reaches the axes below it, which can be
    # dragged and have no tooltip.
    title = page.locator(f"{PARALLEL} .role-axis-label text").filter(has_text="Batch").first.bounding_box()
    frame = page.locator(PARALLEL).bounding_box()
    place = (title["x"] + title["width"] / 2 + 5, title["y"] + title["height"] + 0.36 * frame["height"])
    page.mouse.move(*place)
    page.mouse.move(place[0] + 1, place[1])
    hit = page.evaluate("([x, y]) => getComputedStyle(document.elementFromPoint(x, y)).cursor", place)
    assert hit == "ns-resize"
    expect(page.locator("#vg-tooltip-element.visible")).to_have_count(0)
    count = re.search(r"\d+", shown.text_content())[0]
    shown.click()
    expect(page.locator(".st-key-grid svg.marks")).to_be_visible()
    expect(page).to_have_url(re.compile("final_relu=no"))
    expect(page).to_have_url(re.compile("model=any"))
    journeys.idle(page)
    page.get_by_role("link", name="Overview").click()
    expect(
        page.get_by_text(re.compile(rf"^[\d,]+ runs of {count} configurations, where final ReLU no:"))
    ).to_be_visible()
    expect(page).to_have_url(re.compile("final_relu=no"))
    expect(page.get_by_text("Filtered as on Explore.")).to_be_visible()
    page.get_by_role("button", name="Show all runs").click()
    expect(shown).to_have_text(every)
    expect(page).not_to_have_url(re.compile("final_relu"))
    assert journeys.visible_errors(page) == []


def test_the_overview_is_narrowed_by_keyboard_and_its_address_brings_the_same_view(page, browser, server):
    address, _ = server
    page.goto(f"{address}/overview?model=jsc-tiny")
    expect(page.get_by_text(re.compile(r"^\d+ runs of \d+ configurations, where network jsc-tiny:"))).to_be_visible()
    # What is drawn anew puts a slider back that has just been moved: first all that comes by itself.
    expect(page.get_by_text(re.compile(r"\d+% of \d+ held-out configurations")).first).to_be_visible()
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()
    page.get_by_role("slider").first.focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"batch_size=32\.\."))
    expect(page.get_by_text(re.compile("where network jsc-tiny and batch size 32 to"))).to_be_visible()
    words = page.get_by_role("textbox", name="Filter expression")
    words.fill("val_acc > 0.6")
    words.press("Enter")
    narrowed = page.get_by_text(re.compile(r"batch size 32 to \d+ and val_acc > 0\.6:"))
    expect(narrowed).to_be_visible()
    journeys.shoot(page, "overview-narrowed")
    expect(page).to_have_url(re.compile("filter="))
    second = browser.new_context().new_page()
    second.goto(page.url)
    expect(second.get_by_text(narrowed.text_content())).to_be_visible()
    second.context.close()
    page.get_by_role("button", name="Export").click()
    dialog = page.get_by_role("dialog")
    with page.expect_download() as download:
        dialog.locator(".st-key-download-coordinates-svg").get_by_role("button").click()
    assert Path(download.value.path()).read_bytes().startswith(b"<svg")
    assert journeys.visible_errors(page) == []


@pytest.mark.parametrize(
    ("scheme", "width", "height"), [("dark", 1440, 900), ("light", 420, 900), ("light", 1920, 1080)]
)
@pytest.mark.parametrize(("name", "chart"), [("compare", GROWTH), ("overview", PARALLEL)])
def test_both_are_readable_dark_narrow_and_projected(browser, server, name, chart, scheme, width, height):
    address, _ = server
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{address}/{name}")
    expect(page.locator(chart)).to_be_visible(timeout=journeys.TIMEOUT_MS)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.locator(chart).bounding_box()["width"] <= width
    journeys.idle(page)
    journeys.assert_accessible(page)
    journeys.shoot(page, f"{name}-{scheme}-{width}")
    context.close()


def test_a_side_that_is_missing_is_predicted_trained_and_compared(page, server):
    address, _ = server
    page.goto(f"{address}/compare?a=batch_size:16384~learning_rate:1e-2~max_epochs:2&b=batch_size:512")
    expect(page.get_by_text("A is not trained yet.")).to_be_visible()
    journeys.idle(page)
    page.get_by_role("button", name="Train 5 seeds").click()
    expect(page.get_by_text("A is being trained: 5 seeds")).to_be_visible()
    # An engine starts and trains in between.
    done = page.get_by_text(re.compile(r"A median of .*%.*; B median of "))
    expect(done).to_be_visible(timeout=3 * journeys.TIMEOUT_MS)
    expect(page.get_by_text("A is being trained")).to_have_count(0)
    # What was trained just now and what was published have their ROC curves, with the mark at one half.
    expect(page.get_by_text("Some runs have no stored ROC curve")).to_have_count(0)
    for name in "gqwzt":
        drawn = page.locator(f".st-key-fifth-roc-{name} svg.marks")
        expect(drawn.locator(".mark-line.role-mark path")).to_have_count(2)
        expect(drawn.locator(".mark-text.role-mark text")).to_have_count(2)
    journeys.idle(page)
    journeys.assert_accessible(page)
    journeys.shoot(page, "compare-roc")
    page.get_by_role("button", name="Export").click()
    dialog = page.get_by_role("dialog")
    with page.expect_download() as download:
        dialog.locator(".st-key-download-roc_w-pdf").get_by_role("button").click()
    assert Path(download.value.path()).read_bytes().startswith(b"%PDF")
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Everything in one ZIP").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        names = {name.split("/")[1] for name in archive.namelist()}
        commands = archive.read("jsc-explore-view/commands.sh").decode()
    assert {"curves.svg", "recall_g.png", "confusion_difference.pdf", "auc.svg", "seeds.csv"} <= names
    assert "jsc-explore train --batch-size 512 --seeds 5\n" in commands
    assert journeys.visible_errors(page) == []

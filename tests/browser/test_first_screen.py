"""The first screen: what is seen and held fixed, grid and curves in view, and where it leads."""

import re

import pytest
from journeys import TIMEOUT_MS, visible_errors
from playwright.sync_api import expect

GRID, CURVES = ".st-key-grid svg.marks", ".st-key-curves_panel svg.marks"


@pytest.fixture
def open_at(browser, server):
    """Open the page in a window of this size; return it once grid and curves are drawn."""
    address, _ = server
    contexts = []

    def open_window(width, height, query=""):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        contexts[-1].set_default_timeout(TIMEOUT_MS)
        page = contexts[-1].new_page()
        page.goto(f"{address}/{query}")
        for chart in (GRID, CURVES):
            expect(page.locator(chart).first).to_be_visible()
        return page

    yield open_window
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("width", "height", "query"),
    [(1024, 720, ""), (1280, 720, ""), (1440, 900, ""), (1920, 1080, ""), (1280, 720, "?presentation=yes")],
)
def test_grid_and_curves_are_whole_in_the_first_view(open_at, width, height, query):
    page = open_at(width, height, query)
    for chart in (GRID, CURVES):
        box = page.locator(chart).first.bounding_box()
        assert box["y"] + box["height"] <= height, f"{chart} ends at {box['y'] + box['height']:.0f}"
        assert box["x"] + box["width"] <= width
    # Side by side.
    grid, curves = (page.locator(chart).first.bounding_box() for chart in (GRID, CURVES))
    assert grid["x"] + grid["width"] <= curves["x"]


def test_the_first_screen_leads_from_silent_classes_to_grids_without_the_final_relu_and_to_the_questions(open_at):
    page = open_at(1280, 720)
    for text in ("JSC Explore", "Validation accuracy · jsc-tiny · 10 epochs", "In 119 of 180 runs a class is never"):
        expect(page.get_by_text(text).first).to_be_visible()
    page.get_by_role("button", name="Compare without the final ReLU").click()
    expect(page.get_by_text("Final ReLU: no")).to_be_visible()
    expect(page.get_by_text("Final ReLU: yes")).to_be_visible()
    page.get_by_role("button", name="Questions").click()
    page.get_by_role("button", name="How many epochs are enough?").click()
    expect(page).to_have_url(re.compile("x=max_epochs"))
    expect(page.get_by_text("Validation accuracy · jsc-tiny", exact=True)).to_be_visible()
    assert visible_errors(page) == []


def test_a_chip_opens_the_control_of_its_value(open_at):
    page = open_at(1280, 720)
    page.get_by_role("button", name="10 epochs").click()
    slider = page.get_by_role("slider", name=re.compile("end Epochs")).last
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(page).to_have_url(re.compile(r"max_epochs=10\.\.20"))
    expect(page.get_by_role("button", name="epochs 10 to 20")).to_be_visible()


def test_presentation_mode_hides_the_sidebar_and_is_left_by_its_button(open_at):
    page = open_at(1280, 720, "?presentation=yes")
    sidebar = page.get_by_test_id("stSidebar")
    expect(sidebar).to_be_hidden()
    page.get_by_role("button", name="End").click()
    expect(sidebar).to_be_visible()

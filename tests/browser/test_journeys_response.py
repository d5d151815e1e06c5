"""A journey through the chart of a metric against one hyperparameter, beside the curves, in a real browser."""

import re
from pathlib import Path

import journeys
from playwright.sync_api import expect

CHART = ".st-key-curves_panel svg.marks"


def test_one_click_shows_the_metric_by_one_hyperparameter_and_its_address_the_same(page, server):
    address, _ = server
    journeys.open_page(page, address, "final_relu=no&validation=holdout")
    page.get_by_role("radio", name="Metric by batch size").click()
    expect(page).to_have_url(re.compile("panel=response"))
    chart = page.locator(CHART)
    expect(chart).to_have_count(1)
    expect(chart).to_contain_text("Batch size")
    # The lines are named at their ends, and each point says what it is.
    for text in ("Learning rate", "1e-3", "1e-1"):
        expect(chart.get_by_text(text, exact=True).first).to_be_visible()
    point = chart.locator(".mark-symbol.role-mark path[aria-roledescription]").first
    expect(point).to_have_attribute("aria-label", re.compile(r"batch size 16, learning rate .*; median: [\d.]+%"))
    journeys.choose(page, "Metric against", "Learning rate")
    expect(chart).to_contain_text("Batch size")
    expect(page).to_have_url(re.compile("against=learning_rate"))
    journeys.idle(page)
    journeys.assert_accessible(page)
    journeys.shoot(page, "response")

    page.reload()
    expect(page.get_by_role("radio", name="Metric by learning rate")).to_be_checked()
    expect(page.locator(CHART)).to_contain_text("Learning rate")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("dialog").locator(".st-key-download-response-svg").get_by_role("button").click()
    assert "Learning rate" in Path(download.value.path()).read_text()
    assert journeys.visible_errors(page) == []

"""A journey through the Data page in a real browser; screenshots go to ``screenshots/``."""

import re
import zipfile
from pathlib import Path

import journeys
import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.timeout(900)
BIG = ".st-key-histogram_panel svg.marks"


def test_from_the_grid_to_a_feature_on_logarithmic_axes_and_back(page, server):
    address, _ = server
    journeys.open_page(page, address)
    page.get_by_role("link", name="Data").click()
    expect(page.get_by_text("270,000 jets of 5 kinds, 54,000 of each")).to_be_visible()
    expect(page.locator(BIG)).to_contain_text("mass_mmdt (GeV)")

    overview = page.locator(".st-key-overview svg.marks")
    overview.scroll_into_view_if_needed()
    name = overview.get_by_text("multiplicity", exact=True).bounding_box()
    page.mouse.click(name["x"] + name["width"] / 2, name["y"] + 40)
    expect(page.locator(BIG)).to_contain_text("multiplicity")
    # The tooltip over the overview says it too.
    expect(
        page.locator(".st-key-histogram_panel").get_by_text("The number of particles that the detector measured")
    ).to_be_visible()
    assert "feature=multiplicity" in page.url

    page.get_by_text("Log y").click()
    expect(page.locator(BIG)).to_contain_text("0.1%")
    page.get_by_text("Log x").click()
    expect(page).to_have_url(re.compile("log_x=yes"))
    journeys.shoot(page, "data-feature")

    page.get_by_role("radio", name="top").first.click()
    expect(page.get_by_text("A top quark (173 GeV) decays to a W and a b quark")).to_be_visible()
    page.get_by_role("radio", name="heavy jet").click()
    expect(page.get_by_text("the mass stays 172.4 GeV")).to_be_visible()
    assert journeys.visible_errors(page) == []

    view = page.url
    page.get_by_role("link", name="Explore").click()
    expect(page.locator(".st-key-grid svg.marks")).to_be_visible()
    assert page.get_by_text("In the URL").count() == 0
    page.goto(view)
    expect(page.locator(BIG)).to_contain_text("multiplicity")
    expect(page.get_by_text("A top quark (173 GeV) decays to a W and a b quark")).to_be_visible()


def test_charts_and_tables_of_the_jets_are_taken_away(page, server, tmp_path):
    address, _ = server
    page.goto(f"{address}/data?feature=multiplicity")
    expect(page.locator(BIG)).to_contain_text("multiplicity")
    page.get_by_role("button", name="Export").click()
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_text("Command lines")).to_have_count(0)
    with page.expect_download() as download:
        dialog.get_by_role("button", name="Everything in one ZIP").click()
    download.value.save_as(tmp_path / "view.zip")
    with zipfile.ZipFile(tmp_path / "view.zip") as bundle:
        names = {Path(name).name for name in bundle.namelist()}
        rows = bundle.read("jsc-explore-view/feature.csv").decode().splitlines()
    charts, tables = ("masses", "jet", "features", "feature", "correlations"), ("csv", "parquet")
    assert names == {"README.txt", "view.json"} | {
        f"{name}.{kind}" for name in charts for kind in ("svg", "png", "pdf", *tables)
    }
    assert len(rows) > 100
    journeys.shoot(page, "data-taken")
    assert journeys.visible_errors(page) == []


@pytest.mark.parametrize(
    ("scheme", "width", "height"),
    [("dark", 1440, 900), ("light", 420, 900), ("light", 1024, 768), ("light", 1920, 1080)],
)
def test_the_data_are_readable_dark_narrow_and_projected(browser, server, scheme, width, height):
    address, _ = server
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{address}/data")
    expect(page.locator(".st-key-correlation_panel svg.marks")).to_be_visible(timeout=journeys.TIMEOUT_MS)
    cone = page.locator(".st-key-jet_panel svg.marks .mark-line path").first.bounding_box()
    assert cone["width"] == pytest.approx(cone["height"], rel=0.02)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    journeys.idle(page)
    journeys.shoot(page, f"data-{scheme}-{width}")
    context.close()

"""An exported page opened in Chromium without a network: it draws, and its charts react."""

import pytest
from journeys import SHOTS
from servers import ROOT

from jsc_explore.export import export_page, parse_view
from jsc_explore.store import Store

VIEW = "facet=final_relu&final_relu=any&cells=16:1e-3:yes~64:1e-3:yes~256:1e-3:no&curve_facet=final_relu"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"), ROOT / "results.parquet")
    yield store
    store.close()


@pytest.fixture(scope="module")
def plain(store):
    return export_page(store, {})


@pytest.fixture(scope="module")
def faceted(store):
    return export_page(store, parse_view(VIEW), "Does the final ReLU <hurt>?")


def opened(browser, text, folder, **options):
    path = folder / "view.html"
    path.write_text(text, encoding="utf-8")
    context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
    context.set_offline(True)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.faults, page.fetched = [], []
    page.on("console", lambda message: page.faults.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("request", lambda request: page.fetched.append(request.url))
    page.goto(path.as_uri())
    return page


def drawn(page, key):
    page.wait_for_selector(f"#{key} svg .mark-line path, #{key} svg .mark-rect path")
    return page.locator(f"#{key} svg path").count()


def quiet(page):
    assert page.faults == []
    assert [url for url in page.fetched if not url.startswith(("file:", "data:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_offline_in_the_theme_of_the_screen(browser, plain, tmp_path, scheme):
    page = opened(browser, plain, tmp_path, color_scheme=scheme)
    assert drawn(page, "grid-0") > 42
    assert drawn(page, "curves-0") > 40
    theme = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert theme == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 22, 20)"}[scheme]
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"export_{scheme}.png", full_page=True)
    quiet(page)


def test_its_curves_react_to_switches_and_legend(browser, faceted, tmp_path):
    page = opened(browser, faceted, tmp_path)
    assert drawn(page, "curves-0")
    assert drawn(page, "curves-1")
    ticks = page.locator("#curves-0 svg .role-axis-label").first
    before = ticks.text_content()
    page.get_by_label("Log x axis").check()
    page.wait_for_function("before => document.querySelector('#curves-0 svg .role-axis-label').textContent != before",
                           arg=before)  # fmt: skip
    assert "1e-3" in ticks.text_content()
    y_axis = "Array.from(document.querySelectorAll('#curves-0 svg .role-axis-label')).at(-1).textContent"
    before = page.evaluate(y_axis)
    page.get_by_label("Log y axis").check()
    page.wait_for_function(f"before => {y_axis} !== before", arg=before)
    # A click on a name in the legend hides the other lines.
    lines = "() => document.querySelectorAll('#curves-0 svg .mark-line path[opacity=\"0\"]').length"
    # The invisible lines that carry the tooltips of the grey ones.
    unseen = page.evaluate(lines)
    page.locator("#curves-0 svg .role-legend-label text").last.click()
    page.wait_for_function(f"({lines})() > {unseen}")
    quiet(page)


def test_it_fits_a_phone_and_paper(browser, faceted, tmp_path):
    page = opened(browser, faceted, tmp_path, viewport={"width": 420, "height": 800})
    assert drawn(page, "grid-0")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / "export_phone.png", full_page=True)
    page.emulate_media(media="print")
    assert page.locator(".interactive").first.is_hidden()
    assert page.locator("img.static-image").first.evaluate("image => image.naturalWidth") > 300
    quiet(page)


def test_without_javascript_the_images_are_shown(browser, plain, tmp_path):
    page = opened(browser, plain, tmp_path, java_script_enabled=False)
    # The grid, its curves, and the metric against one hyperparameter.
    assert page.locator("img.static-image").count() == 3
    assert page.locator("img.static-image").first.is_visible()
    assert page.locator(".switches").is_hidden()

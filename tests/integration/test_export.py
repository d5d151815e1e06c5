"""The exported page: which views it accepts, that it overwrites nothing, that it works in Chromium offline."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jsc_explore.cli import main
from jsc_explore.errors import FieldError, JscError
from jsc_explore.export import export_page, parse_view, write_page
from jsc_explore.store import Store

ROOT = Path(__file__).parents[2]
SHOTS = ROOT / "screenshots"
VIEW = "http://room.example:8501/?facet=final_relu&final_relu=any&cells=16:1e-3:yes~256:1e-3:no&curve_facet=final_relu"


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


# ---- the view it is asked for


def test_a_view_is_a_url_its_query_or_a_saved_name():
    words = {"x": "max_epochs", "filter": "val_acc > 0.7"}
    assert parse_view("http://host:8501/explore?x=max_epochs&filter=val_acc+%3E+0.7") == words
    assert parse_view("?x=max_epochs&filter=val_acc%20%3E%200.7") == words
    assert parse_view("x=max_epochs&filter=val_acc > 0.7") == words
    assert parse_view("my view", {"my view": "x=max_epochs&filter=val_acc+%3E+0.7"}) == words
    assert parse_view("") == parse_view("http://host:8501/") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("?x=colour", "must be one of"),
        ("?tomatoes=3", "'tomatoes': is unknown"),
        ("?filter=val_acc >", "not the end at character 10"),
        ("?x=batch_size&y=batch_size", "two axes hold the same field"),
        ("http://host/compare?a=1", "is not a URL of the Explore page"),
        ("no such view", "is neither a URL nor a saved view"),
    ],
)
def test_a_view_that_no_page_would_understand_is_refused(text, said):
    with pytest.raises(JscError, match=re.escape(said)):
        parse_view(text)


# ---- the file


def test_a_file_that_is_there_is_replaced_only_when_asked(tmp_path):
    path = tmp_path / "a view.html"
    write_page("first", path)
    with pytest.raises(FieldError, match="exists already; choose another name or add --force"):
        write_page("second", path)
    assert path.read_text() == "first"
    write_page("second", path, force=True)
    assert path.read_text() == "second"
    assert [one.name for one in tmp_path.iterdir()] == ["a view.html"]


def test_a_file_that_cannot_be_written_is_one_line(tmp_path):
    with pytest.raises(FieldError, match="cannot be written"):
        write_page("text", tmp_path / "no such folder" / "view.html")


def test_the_command_writes_the_page_and_refuses_bad_parameters(tmp_path, capsys):
    path = tmp_path / "view.html"
    options = ["export", "html", str(path), "--store", str(tmp_path / "store")]
    with pytest.raises(SystemExit) as ended:
        main.main([*options, "--view", "?x=colour"])
    assert ended.value.code == 2
    assert "x = 'colour': must be one of" in capsys.readouterr().err
    assert not path.exists()
    with pytest.raises(SystemExit) as ended:
        main.main([*options, "--view", "?model=jsc-toy", "--title", "Toy"])
    assert ended.value.code == 0
    assert "Validation accuracy of jsc-toy" in path.read_text()


# ---- what stands in it


def test_it_says_what_is_seen_and_where_it_comes_from(plain, store):
    assert "180 runs, 6 of 42 cells missing" in plain
    assert re.search(r"simulated, digest [0-9a-f]{16}", plain)
    assert "jsc-explore train" in plain
    assert "torch 2." in plain
    assert plain.count("<tr><td>") == 42
    assert len(plain.encode()) < 3e6


def test_what_others_wrote_cannot_become_markup(faceted):
    assert "Does the final ReLU &lt;hurt&gt;?" in faceted
    # Inside the data nothing opens or closes a tag.
    for content in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', faceted):
        assert "<" not in content
        assert json.loads(content)["datasets"]


def test_it_allows_itself_no_network(plain):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', plain)[1]
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "http" not in policy
    head = plain.split("<script", 1)[0]
    assert "url(" not in head
    assert "<link" not in head


# ---- opened in a browser


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


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_draws_without_a_network_in_the_colours_of_the_screen(browser, plain, tmp_path, scheme):
    page = opened(browser, plain, tmp_path, color_scheme=scheme)
    assert drawn(page, "grid-0") > 42
    assert drawn(page, "curves-0") > 40
    theme = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert theme == {"light": "rgb(255, 255, 255)", "dark": "rgb(23, 22, 20)"}[scheme]
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"export_{scheme}.png", full_page=True)
    quiet(page)


@pytest.mark.browser
def test_its_curves_answer_to_the_reader(browser, faceted, tmp_path):
    page = opened(browser, faceted, tmp_path)
    assert drawn(page, "curves-0")
    assert drawn(page, "curves-1")
    ticks = page.locator("#curves-0 svg .role-axis-label").first
    before = ticks.text_content()
    page.get_by_label("Log x axis").check()
    page.wait_for_function("before => document.querySelector('#curves-0 svg .role-axis-label').textContent != before",
                           arg=before)  # fmt: skip
    assert "1e-3" in ticks.text_content()
    page.get_by_label("Log y axis").check()
    page.wait_for_timeout(300)
    # A name in the legend clicked: the other lines go.
    lines = "() => document.querySelectorAll('#curves-0 svg .mark-line path[opacity=\"0\"]').length"
    # Those by which the grey ones are hovered, which nobody sees at any time.
    unseen = page.evaluate(lines)
    page.locator("#curves-0 svg .role-legend-label text").last.click()
    page.wait_for_function(f"({lines})() > {unseen}")
    quiet(page)


@pytest.mark.browser
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


@pytest.mark.browser
def test_without_javascript_the_images_are_shown(browser, plain, tmp_path):
    page = opened(browser, plain, tmp_path, java_script_enabled=False)
    assert page.locator("img.static-image").count() == 2
    assert page.locator("img.static-image").first.is_visible()
    assert page.locator(".switches").is_hidden()


def test_the_page_needs_no_streamlit_and_no_torch():
    code = "import sys, jsc_explore.export; sys.exit(bool({'streamlit', 'torch'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

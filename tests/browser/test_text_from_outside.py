"""Text from outside as Streamlit shows it in Chromium, wherever the page uses Markdown."""

import sys

import pytest
from playwright.sync_api import expect
from servers import ROOT, free_port, running_process

OUTSIDE = [
    "w=64*4, heads=8*2", "_a_ __b__ ~~c~~ `d`", "![i](http://example.org/i.png)", "[text](http://example.org)",
    "http://example.org/a_b", "www.example.org", "ada@example.org", "<b>bold</b> <img src=http://example.org/i>",
    "$x^2$ and $y$", ":smile: :material/heart: :red[red] :red-background[x]", "a -> b <- c -- d >= e <= f ~= g",
    "# heading", "- item", "1. item", "> quoted", "    indented", "a|b", "&amp; &lt;", "C:\\path\\to", "***", "[^1]",
]  # fmt: skip
PLACES = ["st.error(text)", "st.caption(text)", "st.markdown('##### ' + text)", "st.button(text, key=key)"]


TEXT = "[data-testid=stMarkdownContainer], [data-testid=stCaptionContainer]"
TYPESET = "img, strong, em, code, del, b, li, blockquote, table, .katex, a:not([href^='#'])"
SCRIPT = f"""
import streamlit as st
from jsc_explore.web.plain_text import plain
for i, raw in enumerate({OUTSIDE}):
    for n, place in enumerate({PLACES}):
        with st.container(key=f"text-{{i}}-{{n}}"):
            exec(place, {{"st": st, "text": plain(raw), "key": f"button-{{i}}-{{n}}"}})
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    script = tmp_path_factory.mktemp("page") / "page.py"
    script.write_text(SCRIPT)
    url = f"http://localhost:{(port := free_port())}"
    options = ["--server.headless", "true", "--server.port", str(port)]
    command = [sys.executable, "-m", "streamlit", "run", str(script), *options]
    with running_process(command, url, script.parent, PYTHONPATH=str(ROOT)):
        yield url


def test_text_from_outside_is_shown_as_it_is_and_asks_no_other_host(page, address):
    asked, wrong = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    expect(page.locator(f".st-key-text-{len(OUTSIDE) - 1}-{len(PLACES) - 1}")).to_be_visible()
    for i, raw in enumerate(OUTSIDE):
        for n, place in enumerate(PLACES):
            shown = page.locator(f".st-key-text-{i}-{n}").locator(TEXT).first
            text = shown.evaluate("element => element.innerText").replace("\u2060", "").strip()
            if text != raw.strip() or shown.locator(TYPESET).count():
                wrong.append((place, raw, text, shown.inner_html()))
    assert wrong == []
    assert [url for url in asked if "localhost" not in url] == []

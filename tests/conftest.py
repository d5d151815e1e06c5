"""Shared fixtures: a small split that trains in moments, a cache directory of the test session's own."""

import os
import re

# Tiny steps gain nothing from a second thread and wait for it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from servers import chromium_path


@pytest.fixture(scope="session")
def jets_split():
    """A learnable split of 6,000 made-up jets: 4,000 train, 1,000 validation, 1,000 test."""
    from jsc_explore.data import Split

    rng = np.random.default_rng(7)
    labels = rng.integers(0, 5, 6000).astype(np.uint8)
    centres = rng.normal(size=(5, 16))
    x = (0.6 * centres[labels] + rng.normal(size=(6000, 16))).astype(np.float32)
    a, b = 4000, 5000
    return Split(
        train_x=x[:a], train_y=labels[:a], val_x=x[a:b], val_y=labels[a:b], test_x=x[b:], test_y=labels[b:],
        mean=np.zeros(16), scale=np.ones(16), validation="holdout", digest="d" * 64,
    )  # fmt: skip


@pytest.fixture(scope="session")
def jets_cache(tmp_path_factory):
    """A cache folder with the simulated jets in it, made once a session."""
    from jsc_explore import data

    folder = tmp_path_factory.mktemp("jets-cache")
    data.fetch("simulated", cache=folder, progress=False)
    return folder


@pytest.fixture
def texts_drawn():
    """A function that checks a chart against Vega-Lite's schema, draws it, and returns the texts in the picture."""
    import altair as alt
    import vl_convert

    def draw(spec):
        alt.Chart.from_dict(spec)
        return re.findall(r"<text[^>]*>([^<]*)<", vl_convert.vegalite_to_svg(spec))

    return draw


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium, the machine's own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=quiet)
        yield browser
        browser.close()

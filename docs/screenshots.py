"""Draw the pictures of the README: the app over the shipped snapshot, in a headless Chromium, as docs/images/*.png.

``make screenshots`` runs it. Pictures are light, 1600 pixels wide, and have 256 colours, so that each stays small.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "docs" / "images"
WIDTH = 1600
GRID, CURVES, CHARTS = ".st-key-grid svg.marks", ".st-key-curves_panel svg.marks", "svg.marks, canvas.marks"
TIMEOUT_MS, SETTLE_MS = 120_000, 2000


def explore(page: Page, url: str) -> None:
    """Show three selected cells of the grid and their curves, once predictions fill the missing cells."""
    page.goto(f"{url}/?model=jsc-toy&cells=16:1e-4~256:1e-5~512:1e-2")
    _wait(page, GRID, CURVES)
    page.locator(f"{GRID} text").filter(has_text="≈").first.wait_for(timeout=TIMEOUT_MS)
    page.wait_for_timeout(SETTLE_MS)


def training(page: Page, url: str) -> None:
    """Train a missing cell beside a stored one; the picture is taken half-way."""
    page.goto(f"{url}/?model=jsc-s&cells=512:1e-4~1024:1e-4")
    _wait(page, GRID, CURVES)
    page.get_by_role("button", name=re.compile("^Train 5 runs")).click()
    # The button is below the grid.
    page.get_by_text("JSC Explore").first.scroll_into_view_if_needed()
    page.get_by_text(re.compile(r"epoch [2-6] of 10")).first.wait_for(timeout=TIMEOUT_MS)


def compare(page: Page, url: str) -> None:
    """Show a network with and without its final ReLU."""
    page.goto(f"{url}/compare?a=default&b=final_relu:no")
    _wait(page, CHARTS)
    page.wait_for_timeout(SETTLE_MS)


def overview(page: Page, url: str) -> None:
    """Show all configs, once the importance of the hyperparameters is computed."""
    page.goto(f"{url}/overview")
    _wait(page, CHARTS)
    page.wait_for_timeout(SETTLE_MS)
    page.locator("[data-testid=stSpinner]").first.wait_for(state="detached", timeout=TIMEOUT_MS)
    page.wait_for_timeout(SETTLE_MS)


def data(page: Page, url: str) -> None:
    """Show a W jet and the features."""
    page.goto(f"{url}/data?jet=w")
    _wait(page, *(f".st-key-{name} :is(svg, canvas).marks" for name in ("jet_panel", "overview_panel")))
    page.wait_for_timeout(SETTLE_MS)


# File name -> what to do before the picture, and its height in pixels.
PICTURES = {
    "explore.png": (explore, 860),
    "compare.png": (compare, 950),
    "overview.png": (overview, 1250),
    "data.png": (data, 1000),
    # Last, because it adds runs to the store.
    "training.png": (training, 900),
}


def main() -> None:
    """Draw the pictures that are named on the command line, or all of them."""
    wanted = sys.argv[1:] or list(PICTURES)
    IMAGES.mkdir(exist_ok=True)
    with app() as url, sync_playwright() as playwright:
        chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if chromium is None:
            raise SystemExit("screenshots: no Chromium found; install it, e.g. apt-get install chromium")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name in wanted:
            prepare, height = PICTURES[name]
            page = browser.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
            prepare(page, url)
            size = save(page.screenshot(), IMAGES / name)
            print(f"{IMAGES / name}: {size / 1000:.0f} kB", flush=True)
            page.close()
        browser.close()


def save(picture: bytes, path: Path) -> int:
    """Write a screenshot as a PNG with a palette of 256 colours; return its size in bytes."""
    image = Image.open(BytesIO(picture)).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
    return path.stat().st_size


@contextmanager
def app() -> Iterator[str]:
    """Serve the app with an empty store; yield its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as store:
        command = [sys.executable, "-m", "jsc_explore", "app", "--headless", "--port", str(port), "--store", store]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            url = f"http://localhost:{port}"
            for _ in range(600):
                with suppress(OSError):
                    urllib.request.urlopen(f"{url}/_stcore/health", timeout=2).close()
                    break
                time.sleep(0.1)
            yield url
        finally:
            server.terminate()
            server.wait(timeout=60)


def _wait(page: Page, *selectors: str) -> None:
    for selector in selectors:
        page.locator(selector).first.wait_for(timeout=TIMEOUT_MS)


if __name__ == "__main__":
    main()

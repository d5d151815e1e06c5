"""What a journey does on a page: open it, click cells, choose in lists, read what is drawn."""

import contextlib
import re

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from servers import ROOT, eventually

SHOTS = ROOT / "screenshots"
# Machines are shared and slow at times; what must be quick is measured in bench, not here.
TIMEOUT_MS = 60_000


def open_page(page: Page, address: str, query: str = "") -> None:
    page.goto(f"{address}/?{query}")
    expect(page.locator(".st-key-grid svg.marks")).to_be_visible()
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()


def shoot(page: Page, name: str) -> None:
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png")


def cell_position(page: Page, column: str, row: str) -> tuple[float, float]:
    labels = page.locator(".st-key-grid svg.marks .role-axis-label text")
    x = labels.get_by_text(column, exact=True).first.bounding_box()
    y = labels.get_by_text(row, exact=True).last.bounding_box()
    return x["x"] + x["width"] / 2, y["y"] + y["height"] / 2


def click_cell(page: Page, column: str, row: str, **options) -> None:
    page.mouse.click(*cell_position(page, column, row), **options)


def grid_texts(page: Page) -> list[str]:
    return page.locator(".st-key-grid svg.marks .mark-text text").all_text_contents()


def visible_errors(page: Page) -> list[str]:
    return page.locator("[data-testid=stException], [data-testid=stAlertContentError]").all_text_contents()


def assert_accessible(page: Page) -> None:
    """Run axe-core over the page as it stands; what is serious or critical fails."""
    # Vega's own containers of a box that nobody has dragged: empty, unseen, and Vega gives them no name.
    context = {"exclude": [["[class*=_brush]"]]}
    found = Axe().run(page, context=context, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [
        f"{one['id']}: {one['help']}: {[(node['target'], node['html'][:160]) for node in one['nodes'][:3]]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
    assert serious == []


def drag(page: Page, begin: tuple[float, float], end: tuple[float, float]) -> None:
    page.mouse.move(*begin)
    page.mouse.down()
    page.mouse.move((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2, steps=4)
    page.mouse.move(*end, steps=4)
    page.mouse.up()


def idle(page: Page) -> None:
    """Wait until the page's script has ended and nothing moves any more."""
    expect(page.locator("[data-testid=stApp][data-test-script-state=notRunning]")).to_be_visible()
    page.wait_for_function("document.getAnimations().every(animation => animation.playState !== 'running')")


def settle(page: Page) -> None:
    """Wait until the grid is drawn, with predictions where cells can be predicted, and nothing moves."""
    expect(page.locator(".st-key-grid").get_by_text(re.compile("[≈+]")).first).to_be_visible()
    idle(page)


def parameter(page: Page, name: str) -> Locator:
    """Return the list that chooses a URL parameter of the Explore page; some labels occur in sidebar and panel."""
    return page.locator(f".st-key-explore-{name} [role=combobox]")


def choose(page: Page, box: str | Locator, option: str | re.Pattern[str]) -> None:
    """Choose in a list, by its label or where it is; open it again if a redraw or a scrolling page closed it."""
    box = page.get_by_role("combobox", name=box, exact=True) if isinstance(box, str) else box
    wanted = page.get_by_role("option", name=option).first

    def is_open() -> bool:
        idle(page)
        box.click()
        with contextlib.suppress(PlaywrightTimeoutError):
            wanted.wait_for(timeout=5000)
        return wanted.is_visible()

    eventually(is_open)
    wanted.click()


def curve_names(page: Page) -> Locator:
    """Return the names at the ends of the curves."""
    return page.locator(".st-key-curves_panel svg.marks .labels_marks").first

"""Journeys with imported runs and handouts: Chromium, the real server, event files by a real writer."""

import os
import subprocess
import sys

import pytest
from journeys import shoot
from playwright.sync_api import expect
from servers import ROOT, running_app

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The page alone, beneath it the published snapshot and two imported runs: nothing is trained here."""
    from tensorboardX import SummaryWriter

    home = tmp_path_factory.mktemp("home")
    for number, name in enumerate(("ours", "theirs")):
        with SummaryWriter(str(home / "logs" / name), write_to_disk=True) as writer:
            for epoch in range(12):
                step = 100 * (epoch + 1) - 1
                writer.add_scalar("val_acc_epoch", 0.4 + 0.02 * epoch + 0.1 * number, step)
                writer.add_scalar("epoch", epoch, step)
        (home / "logs" / name / "hparams.yaml").write_text("batch_size: 64\nlearning_rate: 0.001\n")
    environment = {"JSC_EXPLORE_STORE": str(home / "store"), "JSC_EXPLORE_CACHE": str(home / "cache")}
    command = [sys.executable, "-m", "jsc_explore", "import", "tensorboard", str(home / "logs")]
    subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, check=True)
    with running_app(home / "store", **environment) as app:
        yield app.url


def names(page):
    return page.locator(".st-key-curves_panel svg.marks").get_by_text("imported: ")


def test_imported_runs_stand_beside_the_curves_and_in_no_figure(page, server, tmp_path):
    page.goto(server)
    expect(names(page)).to_have_count(2)
    expect(names(page).first).to_have_text("imported: ours")
    # They count nowhere, although the config of one stands in the grid.
    expect(page.get_by_text("180 runs, 6 of 42 cells missing").first).to_be_visible()
    expect(page.get_by_text("dashed, with a name: imported, in no median")).to_be_visible()
    shoot(page, "imported")

    page.get_by_role("button", name="Imported (2)").click()
    expect(page.get_by_text("not part of any median")).to_be_visible()
    shoot(page, "imported-popover")
    page.get_by_role("button", name="Remove ours").click()
    expect(names(page)).to_have_count(1)
    expect(names(page)).to_have_text("imported: theirs")
    page.wait_for_function("location.search.includes('imported=theirs')")

    # What the page gives away says it too, and stands alone.
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Export").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="One page, interactive and offline").click()
    path = tmp_path / "view.html"
    download.value.save_as(path)
    page.context.set_offline(True)
    page.goto(path.as_uri())
    expect(page.locator("#curves-0 svg").get_by_text("imported: theirs")).to_be_visible()
    expect(page.get_by_role("heading", name="Imported runs")).to_be_visible()


def test_an_address_may_name_none_or_one_that_is_not_here(page, server):
    page.goto(f"{server}/?imported=none")
    expect(page.get_by_role("button", name="Imported (2)")).to_be_visible()
    expect(page.locator(".st-key-curves_panel svg.marks").first).to_be_visible()
    expect(names(page)).to_have_count(0)
    page.goto(f"{server}/?imported=theirs~gone")
    expect(page.get_by_text("Not imported here: gone")).to_be_visible()
    expect(names(page)).to_have_count(1)

"""Views without a browser: what each door of the page accepts and refuses, and how light it is."""

import subprocess
import sys
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from jsc_explore.config import RunConfig
from jsc_explore.jobs.supervise import Supervisor
from jsc_explore.views import panels, resources, url
from jsc_explore.views.slicing import Slice

ROOT = Path(__file__).parent.parent


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(ROOT / "results.parquet"))
    # The engine has its own tests; here the page alone is asked.
    monkeypatch.setattr(Supervisor, "start", lambda self: None)
    monkeypatch.setattr(Supervisor, "stop", lambda self: None)
    for resource in (resources.store, resources.queue, resources.supervisor):
        resource.clear()
    yield AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    for resource in (resources.store, resources.queue, resources.supervisor):
        resource.clear()


def texts(elements):
    return " ".join(element.value for element in elements)


def test_the_page_says_in_one_line_what_is_seen(app):
    app.run()
    assert not app.exception
    assert "180 runs, 6 of 42 cells missing" in texts(app.markdown)
    assert "measured on the training jets" in texts(app.markdown)


def test_an_honest_protocol_is_not_called_dishonest(app):
    app.query_params["protocol"] = "holdout"
    app.run()
    assert "measured on the training jets" not in texts(app.markdown)
    assert "0 runs, 42 of 42 cells missing" in texts(app.markdown)


def test_every_field_is_a_filter_or_an_axis(app):
    app.run()
    keys = {box.key for box in app.selectbox}
    from jsc_explore.config import FIELDS

    assert set(FIELDS) - {"seed"} <= keys | {"batch_size", "learning_rate"}


def test_other_axes_turn_the_fields_they_replace_into_filters(app):
    app.query_params["x"] = "Final ReLU"
    app.run()
    assert not app.exception
    assert "batch_size" in {box.key for box in app.selectbox}
    assert "by final relu and learning rate" in texts(app.markdown).lower()


def test_data_that_are_not_fetched_are_named_with_the_command_that_fetches_them(app, monkeypatch, tmp_path):
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "cache"))
    app.query_params["dataset"] = "openml"
    app.run()
    assert not app.exception
    assert "jsc-explore data fetch openml" in texts(app.info)


def test_a_store_that_is_a_file_is_one_line_on_the_page(app, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(tmp_path / "file"))
    app.run()
    assert not app.exception
    assert "is a file, not a directory" in texts(app.error)


def test_a_foreign_snapshot_is_named_and_the_page_goes_on(app, monkeypatch, tmp_path):
    (tmp_path / "foreign.parquet").write_bytes(b"PAR1 not really")
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(tmp_path / "foreign.parquet"))
    app.run()
    assert not app.exception
    assert "cannot be read as Parquet" in texts(app.warning)
    assert "0 runs" in texts(app.markdown)


def test_a_bad_address_is_told_by_line(app):
    app.query_params["learning_rte"] = "3"
    app.query_params["batch_size"] = "abc"
    app.query_params["optimizer"] = "adma"
    app.query_params["cells"] = "nonsense~16:abc~:~256:1e-3"
    app.run()
    assert not app.exception
    warnings = texts(app.warning)
    assert "did you mean learning_rate?" in warnings
    assert "batch_size = 'abc': must be a whole number" in warnings
    assert "optimizer = 'adma': must be one of adam, adamw, sgd; try adam" in warnings
    assert "Batch size 256, learning rate 1e-3" in texts(app.markdown)


def test_faults_passes_over_what_belongs_to_the_page():
    assert url.faults({"x": "Epochs", "cells": "1:2", "embed": "true", "batch_size": "abc"}) == []
    assert len(url.faults({"x": "Epochs", "max_epochs": "abc"})) == 1


def test_the_command_line_beside_a_cell_is_the_one_that_answers_it():
    run = RunConfig(model="16-32-5 act=tanh", learning_rate=1e-2, final_relu=False)
    text = panels.command(run, 3)
    assert text == "jsc-explore train --model 16-32/tanh-5 --learning-rate 1e-2 --final-relu no --seeds 3"


def test_a_config_is_described_by_its_axes_and_by_what_differs():
    view = Slice("batch_size", "learning_rate", "val_acc", RunConfig(), "d", 5, True)
    assert panels.describe(RunConfig(batch_size=16), view) == "batch size 16, learning rate 1e-3"
    assert panels.describe(RunConfig(optimizer="sgd"), view) == "batch size 256, learning rate 1e-3, optimizer sgd"
    assert "momentum" not in view.filters


@pytest.mark.parametrize(
    "module", ["app", "jsc_explore.views.explore", "jsc_explore.views.resources", "jsc_explore.cli"]
)
def test_importing_the_page_leaves_torch_alone(module):
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)


def test_the_whole_page_leaves_torch_alone(tmp_path):
    code = (
        "import sys; from streamlit.testing.v1 import AppTest; from jsc_explore.jobs.supervise import Supervisor;"
        "Supervisor.start = Supervisor.stop = lambda self: None;"
        f"run = AppTest.from_file({str(ROOT / 'app.py')!r}, default_timeout=30).run();"
        "assert not run.exception; assert 'torch' not in sys.modules and 'distributed' not in sys.modules"
    )
    environment = {"JSC_EXPLORE_STORE": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, env=environment)


def test_a_sample_of_ones_own_is_offered_and_a_missing_one_is_named_with_its_command(app, monkeypatch, tmp_path):
    from jsc_explore import data
    from jsc_explore.data import canonical
    from jsc_explore.data.sources import Release

    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path))
    jets = data.load("simulated")
    canonical.write(tmp_path, "simulated-mine", Release(jets.features[:500], jets.labels[:500], "", "MIT", ""))
    app.query_params["dataset"] = "simulated-elsewhere"
    app.run()
    assert not app.exception
    assert "jsc-explore data simulate --name elsewhere" in texts(app.info)
    assert "simulated-mine" in app.selectbox(key="dataset").options
    app.selectbox(key="dataset").set_value("simulated-mine").run()
    assert not app.exception
    assert not app.info or "simulate --name" not in texts(app.info)

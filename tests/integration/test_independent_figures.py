"""Ten cells of the Explore page show what plain SQL finds in the snapshot, which no code of the store reads here."""

from contextlib import contextmanager

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from page_session import texts
from servers import ROOT
from streamlit.testing.v1 import AppTest

from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.web.state import services

RESOURCES = (services.store, services.queue, services.live, services.supervisor)
# A page for each network, and the cells to compare on it: batch size and learning rate.
PAGES = {
    ("jsc-tiny", True, "train", "val_acc"): ((256, 1e-3), (64, 1e-2), (64, 1e-1)),
    ("jsc-toy", True, "holdout", "val_acc"): ((32, 1e-3), (512, 1e-2)),
    ("jsc-s", True, "train", "val_acc"): ((64, 1e-1), (16, 1e-3)),
    ("jsc-tiny", False, "holdout", "val_loss"): ((256, 1e-2), (128, 1e-4), (512, 1e-5)),
}
# The snapshot has no diverged run, so one run of this cell is made one.
DIVERGED = (
    "model = 'jsc-tiny' AND NOT final_relu AND validation = 'holdout' AND batch_size = 256 AND learning_rate = 1e-2"
)


# ---- the figures of a cell, by plain SQL over the table ``cell`` of its runs


def n_averaged(sql, metric):
    """Return how many runs the figures are over: those that did not diverge."""
    return sql(f"SELECT count(*) FROM cell WHERE status = 'done' AND isfinite({metric})")


def n_silent(sql, metric):
    """Return in how many of them a class is silent."""
    return sql(f"SELECT count(*) FROM cell WHERE status = 'done' AND isfinite({metric}) AND len(silent_classes) > 0")


def n_diverged(sql):
    """Return how many runs diverged."""
    return sql("SELECT count(*) FROM cell WHERE status = 'diverged'")


def shown_figure(sql, metric):
    """Return the median of the runs without a silent class, or of all if each has one."""
    done = f"FROM cell WHERE status = 'done' AND isfinite({metric})"
    median = sql(f"SELECT median({metric}) {done} AND len(silent_classes) = 0")
    return sql(f"SELECT median({metric}) {done}") if median is None else median


def last_median(sql, metric, is_silent):
    """Return the last point of the median curve of the runs with, or without, a silent class; None without any."""
    return sql(
        f"SELECT median(curve_{metric}[-1]) FROM cell WHERE status = 'done' AND (len(silent_classes) > 0) = {is_silent}"
    )


# ---- their texts


def figure_text(metric, value):
    return f"{value:.3f}" if metric == "val_loss" else f"{100 * value:.1f}%"


def count_text(n, silent, diverged):
    parts = [f"n={n - silent}"] if n > silent else []
    parts += [f"†{silent}" + ("" if n > silent else f" of {n}")] if silent else []
    return " ".join([*parts, *([f"‡{diverged}"] if diverged else [])])


# ---- the page


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory):
    """Write the published runs to a file of its own, in which one run has diverged."""
    runs = pq.read_table(ROOT / "results.parquet")
    run_id = duckdb.execute(f"SELECT min(run_id) FROM runs WHERE {DIVERGED}").fetchall()[0][0]
    diverged = pc.equal(runs["run_id"], run_id)
    for name, value in (("status", "diverged"), ("val_loss", float("nan")), ("val_acc", float("nan"))):
        at, kind = runs.schema.get_field_index(name), runs.schema.field(name)
        runs = runs.set_column(at, kind, pc.if_else(diverged, pa.scalar(value, kind.type), runs[name]))
    path = tmp_path_factory.mktemp("snapshot") / "results.parquet"
    pq.write_table(runs, path)
    return path


@contextmanager
def opened(snapshot, store, monkeypatch, page, cells):
    """Open the Explore page without an engine, with these cells selected."""
    model, final_relu, validation, metric = page
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(store))
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(snapshot))
    monkeypatch.setattr(Supervisor, "start", lambda self: None)
    monkeypatch.setattr(Supervisor, "stop", lambda self: None)
    for resource in RESOURCES:
        resource.clear()
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    parameters = {"model": model, "final_relu": "yes" if final_relu else "no", "validation": validation}
    parameters |= {"metric": metric, "curve": metric, "cells": "~".join(f"{batch}:{rate:g}" for batch, rate in cells)}
    for name, value in parameters.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception
    yield app
    for resource in RESOURCES:
        resource.clear()


def sent_tables(app):
    """Return the tables that the page sends to the browser with its charts, by name."""
    datasets = [dataset for chart in app.get("vega_lite_chart") for dataset in chart.proto.datasets]
    return {dataset.name: pa.ipc.open_stream(dataset.data.data).read_all() for dataset in datasets}


@pytest.mark.parametrize(("page", "cells"), PAGES.items(), ids=lambda value: str(value[0]))
def test_ten_cells_show_what_plain_sql_finds(snapshot, tmp_path, monkeypatch, page, cells):
    model, final_relu, validation, metric = page
    with opened(snapshot, tmp_path / "store", monkeypatch, page, cells) as app:
        sent, details = sent_tables(app), texts(app.markdown)
    grid = {row["config_id"]: row for row in sent["cells"].to_pylist()}
    medians = [row for row in sent["medians"].to_pylist() if row["x"] == 10]
    connection = duckdb.connect()
    for batch, rate in cells:
        connection.execute(
            f"CREATE OR REPLACE TABLE cell AS SELECT * FROM '{snapshot}' WHERE model = '{model}' AND "
            f"validation = '{validation}' AND final_relu = {final_relu} AND batch_size = {batch} AND "
            f"learning_rate = {rate} AND max_epochs = 10"
        )

        def sql(query):
            return connection.execute(query).fetchone()[0]

        config_id, shown = sql("SELECT any_value(config_id) FROM cell"), shown_figure(sql, metric)
        n, silent, diverged = n_averaged(sql, metric), n_silent(sql, metric), n_diverged(sql)
        cell = grid[config_id]
        assert cell["metric"] == pytest.approx(shown)
        assert cell["first"] == figure_text(metric, shown)
        assert cell["second"] == count_text(n, silent, diverged)
        assert figure_text(metric, shown).removesuffix("%") in details
        assert not silent or f"a class is silent in {silent} of {n} seeds" in details
        drawn = {row["is_silent"]: row for row in medians if row["config_id"] == config_id}
        for is_silent, count in ((False, n - silent), (True, silent)):
            if count:
                assert drawn[is_silent]["median"] == pytest.approx(last_median(sql, metric, is_silent))
                assert drawn[is_silent]["n"] == count
            else:
                assert is_silent not in drawn


def test_the_ten_cells_are_of_several_kinds(snapshot):
    """Cells without, with some and with only silent seeds, and one with a diverged run."""
    assert sum(map(len, PAGES.values())) == 10
    found = duckdb.execute(f"SELECT count(*) FROM '{snapshot}' WHERE status = 'diverged' AND {DIVERGED}").fetchall()[0]
    assert found == (1,)

"""Compare and Overview without a browser: what they say, what their address holds, what they draw."""

import contextlib
import json
import re
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamlit as st
from page_session import texts
from runs import record_of
from servers import ROOT
from streamlit.testing.v1 import AppTest

from jsc_explore import data
from jsc_explore.analysis.classes import roc_medians
from jsc_explore.analysis.importance import Importance, Ranking
from jsc_explore.analysis.paired import compare
from jsc_explore.analysis.prediction import Calibration, Prediction
from jsc_explore.charts import compare as compare_charts
from jsc_explore.charts import overview as overview_charts
from jsc_explore.charts import roc
from jsc_explore.charts.figure import make_figure
from jsc_explore.charts.parallel import curve_table, parallel_chart, parallel_tables, thin_evenly, varying_fields
from jsc_explore.charts.style import SILENT_SIGN, prediction_text, times_text
from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError
from jsc_explore.export.chart_files import render_image
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.jobs.queue import Queue
from jsc_explore.results import SIGNAL_EFFICIENCIES
from jsc_explore.store import Store
from jsc_explore.store.query.aggregates import CONFIG_FIELDS, cell_table, machines, seed_table, training_times
from jsc_explore.view_model.url_params import COMPARE, read_config, write_config
from jsc_explore.web.state import services

SNAPSHOT = ROOT / "results.parquet"
SCOPE = {"dataset": ["simulated"], "validation": ["train"]}


@pytest.fixture
def store(tmp_path):
    opened = Store(tmp_path / "store", SNAPSHOT)
    yield opened
    opened.close()


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(SNAPSHOT))
    monkeypatch.setattr(Supervisor, "start", lambda self: None)
    monkeypatch.setattr(Supervisor, "stop", lambda self: None)
    # A server has one store for life, and keeps answers by its version alone; a test may have another.
    st.cache_data.clear()
    st.cache_resource.clear()
    for resource in (services.store, services.queue, services.live, services.supervisor):
        resource.clear()

    def open_page(name, **query):
        # AppTest knows no pages that are functions: a script that draws the one asked for is the app to it.
        script = f"import streamlit as st\nfrom jsc_explore.web.pages import {name}\n{name}.page()\n"
        page = AppTest.from_string(script, default_timeout=60)
        for key, value in query.items():
            page.query_params[key] = value
        return page.run()

    yield open_page
    for resource in (services.store, services.queue, services.live, services.supervisor):
        resource.clear()


def shown(page, name):
    text = page.query_params[name]
    return text if isinstance(text, str) else text[0]


def run_figures(store, config, column):
    rows = seed_table(store, [config.config_id(data.digest("simulated"))], column).to_pylist()
    return {row["seed"]: row["metric"] for row in rows}


# ---- the store


def test_a_cell_is_the_median_of_its_runs(store):
    rows = {row["config_id"]: row for row in cell_table(store, "val_acc", SCOPE).to_pylist()}
    config = RunConfig(batch_size=64)
    row = rows[config.config_id(data.digest("simulated"))]
    runs = seed_table(store, [row["config_id"]], "val_acc").to_pylist()
    figures = {run["seed"]: run["metric"] for run in runs if not run["silent_classes"]}
    assert row["metric"] == pytest.approx(np.median(list(figures.values())))
    assert row["sd"] == pytest.approx(np.std(list(figures.values()), ddof=1))
    assert row["n"] == len(figures)
    assert {name: row[name] for name in CONFIG_FIELDS} == {
        name: value for name, value in config.to_dict().items() if name != "seed"
    }
    metrics = [row["metric"] for row in rows.values()]
    assert metrics == sorted(metrics)


def test_a_class_is_silent_as_stored_and_not_by_the_confusion_matrix(store):
    config = RunConfig(
        learning_rate=1e-5, batch_size=512, final_relu=False
    )  # has hardly learned, but no class is silent
    runs = seed_table(store, [config.config_id(data.digest("simulated"))], "val_acc").to_pylist()
    assert any(0 in np.reshape(run["confusion"], (5, 5)).diagonal() for run in runs)
    row = next(r for r in cell_table(store, "val_acc", SCOPE).to_pylist() if r["config_id"] == runs[0]["config_id"])
    assert (row["n_silent"], row["n"]) == (sum(bool(run["silent_classes"]) for run in runs), len(runs))


def test_what_is_no_score_or_field_is_refused(store):
    with pytest.raises(FieldError, match="must be one of val_acc"):
        cell_table(store, "seed; DROP TABLE runs")


# ---- the pair in the address


@pytest.mark.parametrize(
    "config",
    [RunConfig(), RunConfig(batch_size=16, learning_rate=1e-2, final_relu=False), RunConfig(model="16-64/tanh-5")],
)
def test_a_config_is_read_as_it_was_written(config):
    assert read_config(write_config(config)) == config


def test_a_config_is_written_by_what_differs_from_the_defaults():
    assert write_config(RunConfig()) == "default"
    assert write_config(RunConfig(batch_size=16, final_relu=False)) == "batch_size:16~final_relu:no"
    state = COMPARE.read({})[0] | {"a": RunConfig(), "b": RunConfig(batch_size=16)}
    assert COMPARE.write(state) == {"a": "default", "b": "batch_size:16"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nonsense", "must read field:value"),
        ("batch_sie:16", "did you mean batch_size"),
        ("batch_size:1", "whole number"),
    ],
)
def test_a_bad_config_is_refused_in_one_line(text, words):
    with pytest.raises(FieldError, match=words):
        read_config(text)


# ---- the pages


def test_compare_says_by_how_much_and_in_what_two_configs_differ(app, store):
    page = app("compare", a="model:jsc-s~learning_rate:1e-3", b="model:jsc-s~learning_rate:1e-4")
    assert not page.exception
    rates = (RunConfig(model="jsc-s", learning_rate=rate) for rate in (1e-3, 1e-4))
    a, b = (run_figures(store, config, "val_acc") for config in rates)
    found = compare(a, b, higher_is_better=True)
    said = texts(page.markdown)
    low, high = sorted(100 * abs(end) for end in found.interval)
    assert f"by {100 * abs(found.median):.1f} points (95% interval {low:.1f} to {high:.1f})" in said
    assert "**Learning rate** 1e-3 → 1e-4" in said
    assert "paired by seed" in said
    assert "for a pair chosen from 6 configs by its results (Holm, 15 pairs)" in texts(page.caption)


def test_the_verdict_is_withheld_where_few_seeds_are_silent_and_more_can_be_trained(app):
    page = app("compare", a="batch_size:64", b="batch_size:64~final_relu:no")
    assert not page.exception
    assert "##### No verdict: some class is silent, and 5 seeds do not show how often" in texts(page.markdown)
    assert "seeds of A (" in texts(page.warning)
    assert "is silent in" in texts(page.warning)
    assert SILENT_SIGN in texts(page.warning)
    assert "better" not in texts(page.markdown)
    (button,) = (button for button in page.button if button.label == "Train up to 10 seeds of each")
    button.click().run()
    assert not page.exception
    jobs = services.queue().jobs()
    assert sorted((job.config.final_relu, job.config.seed) for job in jobs) == [
        (relu, seed) for relu in (False, True) for seed in range(5, 10)
    ]


def test_compare_opens_on_the_default_and_the_best(app):
    page = app("compare")
    assert not page.exception
    assert shown(page, "a") == "default"
    assert read_config(shown(page, "b")).final_relu is False


def test_a_change_of_a_box_changes_the_address_and_the_sentence(app):
    page = app("compare", a="default", b="batch_size:64")
    before = texts(page.markdown)
    page.selectbox(key="b-final_relu").select("no").run()
    assert shown(page, "b") == "batch_size:64~final_relu:no"
    assert texts(page.markdown) != before
    next(button for button in page.button if button.label == "Swap A and B").click().run()
    assert shown(page, "a") == "batch_size:64~final_relu:no"
    assert shown(page, "b") == "default"


def test_a_side_that_is_not_trained_is_predicted_and_can_be_asked_for(app, tmp_path):
    page = app("compare", a="default", b="batch_size:1024")
    assert not page.exception
    assert "B is not trained yet. Predicted: " in texts(page.info)
    assert "80% band" in texts(page.info)
    page.button(key="train-B").click().run()
    queue = Queue(tmp_path / "store")
    assert {job.config.batch_size for job in queue.jobs()} == {1024}
    assert len(queue.jobs()) == 5
    queue.close()


def test_bad_addresses_are_told_and_the_pages_go_on(app):
    page = app("compare", a="batch_size:1", b="default", metric="acc")
    assert not page.exception
    assert "In the URL: batch_size = 1: must be a whole number" in texts(page.warning)
    assert "metric = 'acc': must be one of val_acc" in texts(page.warning)
    page = app("overview", validation="mese")
    assert "validation = 'mese': must be one of train, holdout" in texts(page.warning)


def test_an_empty_store_is_said_on_both_pages(app, monkeypatch, tmp_path):
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(tmp_path / "none.parquet"))
    assert "no two finished configurations" in texts(app("compare").info)
    assert "Fewer than two configurations" in texts(app("overview").info)


def test_overview_sums_up_ranks_and_measures_its_predictions(app, store):
    page = app("overview")
    assert not page.exception
    rows = cell_table(store, "val_acc", SCOPE).to_pylist()
    said = texts(page.markdown)
    assert f"{sum(row['n_runs'] for row in rows):,} runs of {len(rows):,} configurations" in said
    best, worst = (f"{100 * rows[place]['metric']:.1f}%" for place in (-1, 0))
    assert f"from {worst} to {best} (" in said
    assert f"to {best} (95%" not in said, "the interval of a chosen best would not cover"
    assert "held-out configurations" in said
    assert "predicts an unseen configuration to" in texts(page.caption)


@pytest.mark.parametrize("metric", ["val_loss", "train_time_s"])
def test_overview_takes_every_kind_of_score(app, metric):
    page = app("overview", metric=metric, against="learning_rate")
    assert not page.exception
    assert shown(page, "metric") == metric
    assert "Best median: " in texts(page.caption)


def test_overview_draws_its_metric_against_any_two_hyperparameters_and_exports_them(app):
    page = app("overview")
    assert "final_relu" not in page.query_params
    page.selectbox(key="overview against").set_value("learning_rate").run()
    page.selectbox(key="overview lines").set_value("final_relu").run()
    assert not page.exception
    assert (shown(page, "against"), shown(page, "lines")) == ("learning_rate", "final_relu")
    assert re.search(r"Best median: [\d.]+% at learning rate .*, final ReLU (yes|no) \(n=\d+\)", texts(page.caption))
    assert "wide bar: middle half of the runs of several configs" in texts(page.caption)


def test_overview_takes_explores_filters_from_the_address_and_says_them_in_its_line(app):
    page = app("overview", model="jsc-tiny", batch_size="16..64", filter="val_acc > 0.6")
    assert not page.exception
    said = texts(page.markdown)
    assert "where network jsc-tiny and batch size 16 to 64 and val_acc > 0.6" in said
    all_of_them = page.select_slider(key="overview range batch_size@axis")
    all_of_them.set_value((16, 16)).run()
    assert shown(page, "batch_size") == "16"
    assert shown(page, "model") == "jsc-tiny"
    assert "batch size 16 and val_acc > 0.6" in texts(page.markdown)
    page.multiselect(key="overview choices model@axis").set_value([]).run()
    assert "model" not in page.query_params
    page.text_input(key="overview expression").set_value("val_acc >").run()
    assert "The previous filter still applies" in texts(page.error)
    assert "and val_acc > 0.6" in texts(page.markdown)


# Overview in a session that can pretend to have been on Explore.
AFTER_EXPLORE = """
import streamlit as st
from jsc_explore.web.pages import overview
from jsc_explore.web.state.url import EXPLORE
if st.button("as after a visit to Explore"):
    EXPLORE.load({"model": "jsc-s", "batch_size": "16..64", "max_epochs": "any", "band": "none"})
overview.page()
"""


def test_overview_takes_the_filters_of_explore_until_they_are_removed(app):
    page = AppTest.from_string(AFTER_EXPLORE, default_timeout=60).run()
    assert ", where" not in texts(page.markdown)
    # A link of the navigation has no parameters.
    page.query_params.clear()
    next(button for button in page.button if button.label.startswith("as after")).click().run()
    assert not page.exception
    assert "where network jsc-s and batch size 16 to 64:" in texts(page.markdown)
    assert (shown(page, "model"), shown(page, "batch_size")) == ("jsc-s", "16..64")
    assert "band" not in page.query_params
    assert "Filtered as on Explore." in texts(page.caption)
    next(button for button in page.button if button.label == "Show all runs").click().run()
    assert ", where" not in texts(page.markdown)
    assert "model" not in page.query_params
    assert "Filtered as on Explore." not in texts(page.caption)


def test_the_address_of_overview_goes_before_the_filters_of_explore(app):
    page = AppTest.from_string(AFTER_EXPLORE, default_timeout=60)
    page.query_params["model"] = "jsc-tiny"
    page.run()
    next(button for button in page.button if button.label.startswith("as after")).click().run()
    assert not page.exception
    assert "where network jsc-tiny:" in texts(page.markdown)


def test_overview_offers_its_configs_to_explore(app, store):
    page = app("overview", model="jsc-tiny", batch_size="16..64")
    rows = [row for row in cell_table(store, "val_acc", SCOPE).to_pylist()
            if row["model"] == "jsc-tiny" and 16 <= row["batch_size"] <= 64]  # fmt: skip
    assert page.button(key="show-in-explore").label == f"Show these {len(rows)} in Explore"


def test_overview_says_which_words_of_its_address_it_cannot_read(app):
    page = app("overview", batch_size="64..16", filter="ded")
    assert not page.exception
    assert "batch_size = '64..16': must begin with its lower end" in texts(page.warning)
    assert "is not a column of a run" in texts(page.warning)
    assert ", where" not in texts(page.markdown)


def test_compare_says_which_runs_have_no_roc_curve_and_marks_what_is_known(app, tmp_path, monkeypatch):
    runs = pq.read_table(SNAPSHOT)
    place, none = runs.schema.get_field_index("roc"), pa.nulls(runs.num_rows, runs.schema.field("roc").type)
    pq.write_table(runs.set_column(place, runs.schema.field("roc"), none), tmp_path / "without.parquet")
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(tmp_path / "without.parquet"))
    page = app("compare", a="default", b="batch_size:64")
    assert not page.exception
    assert "Some runs have no stored ROC curve (5 of A; 5 of B)" in texts(page.caption)


# ---- the charts


def cell_rows(count=40):
    rng = np.random.default_rng(5)
    return [
        {**RunConfig(batch_size=16 + place, final_relu=bool(place % 2)).to_dict(), "config_id": str(place), "n": 3,
         "metric": float(value), "sd": 0.01, "n_silent": place % 3, "n_diverged": 0, "n_runs": 8,
         "seconds": 1.0 + place, "parameters": 117 + place}
        for place, value in enumerate(np.sort(rng.uniform(0.2, 0.7, count)))
    ]  # fmt: skip


def test_parallel_coordinates_place_values_as_their_axis_is_read():
    rows = cell_rows()
    assert varying_fields(rows) == ["batch_size", "final_relu"]
    lines, ticks = parallel_tables(rows, "val_acc")
    first, last = lines.to_pylist()[0], lines.to_pylist()[-1]
    assert (first["a0"], first["a2"]) == (0.0, 0.0)
    assert (last["a0"], last["a2"]) == (1.0, 1.0)
    middle = next(line for line in lines.to_pylist() if line["config"] == 32 - 16)
    assert middle["a0"] == pytest.approx(np.log(32 / 16) / np.log(55 / 16))
    words = [tick["text"] for tick in ticks.to_pylist() if tick["axis"] == 1]
    assert words == ["no", "yes"]


def test_each_axis_has_a_brush_and_all_of_them_filter_lines_and_curves():
    rows = cell_rows()
    lines, ticks = parallel_tables(rows, "val_acc")
    groups = pa.table(
        {"config_id": ["0", "0", "0", "nowhere"], "is_silent": [False, False, True, False],
         "epoch": [0.0, 1.0, 1.0, 1.0], "values": [[0.2], [0.3, 0.3], [0.1], [0.9]]}
    )  # fmt: skip
    curves = curve_table(groups, rows)
    assert curves["config"].to_pylist() == [0, 0]
    spec = parallel_chart(
        lines, ticks, curves, ["Batch size", "Final ReLU", "Accuracy"], "val_acc", "val_acc"
    ).to_dict()
    text = json.dumps(spec)
    assert [text.count(f'"name": "brush{axis}"') for axis in range(3)] == [1, 1, 1]
    test = "inrange(datum.a0, brush0.y)) && (!isValid(brush1.y) || inrange(datum.a1, brush1.y))"
    assert text.count(test) >= 2


def test_many_rows_are_thinned_evenly_with_both_ends():
    assert thin_evenly(list(range(1000)), 5) == [0, 250, 500, 749, 999]
    assert thin_evenly([1, 2], 5) == [1, 2]
    assert thin_evenly([], 5) == []


def marks_of(spec):
    layers = [one for layer in spec.get("layer", ()) for one in marks_of(layer)]
    return layers or [spec]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("metric", ["val_acc", "val_loss", "train_time_s"])
def test_the_charts_of_the_overview_are_valid_and_name_no_column_in_a_tooltip(theme, metric):
    rows = cell_rows()
    points, specs = overview_charts.point_table(rows, metric, ["batch_size", "final_relu"]), []
    for cost in overview_charts.COSTS:
        best = overview_charts.front_table(rows, cost, metric, [])
        specs.append(overview_charts.tradeoff_chart(points, best, cost, metric, theme).to_dict())
    ranking = Ranking([Importance("batch_size", 0.1, 0.02)], 40, 0.01, 0.1, 0.005)
    specs.append(overview_charts.importance_chart(ranking, metric, theme).to_dict())
    assert "±" in json.dumps(specs[-1], ensure_ascii=False)
    calibrations = {"beyond": Calibration(40, 32, 0.64, 0.91, 0.05, 0.01, ((0.5, 0.5),))}
    specs.append(overview_charts.calibration_chart(calibrations, theme).to_dict())
    assert "one step beyond" in json.dumps(specs[-1])
    # The page's theme gives every mark that does not say otherwise a tooltip of its columns.
    for mark in (mark for spec in specs for mark in marks_of(spec)):
        tooltips = mark["encoding"].get("tooltip", [])
        assert tooltips or mark["mark"]["tooltip"] is None
        assert {entry["title"] for entry in tooltips}.isdisjoint({"low", "high", "q1", "q3", "n", "n_silent", "label"})


def test_the_front_is_that_of_all_configs_also_of_those_that_are_not_drawn():
    rows = cell_rows(2000)
    points = overview_charts.point_table(rows, "val_acc", ["batch_size"])
    assert points.num_rows == overview_charts.MAX_POINTS < len(rows)
    cheap = {**rows[1001], "seconds": 0.1, "metric": 0.69}
    best = overview_charts.front_table([*rows, cheap], "seconds", "val_acc", ["batch_size"])
    assert best["seconds"].to_pylist()[0] == 0.1
    assert best["seconds"].to_pylist() == sorted(best["seconds"].to_pylist())
    assert all(metric >= 0.69 for metric in best["metric"].to_pylist())
    spec = overview_charts.tradeoff_chart(points, best, "seconds", "val_acc").to_dict()
    assert len(spec["datasets"][spec["layer"][2]["data"]["name"]]) == best.num_rows


def test_each_machine_has_a_front_of_its_own_and_is_named(tmp_path):
    with contextlib.closing(Store(tmp_path)) as store:
        for device, seconds in (("cpu (old, 2 cores)", (9.0, 6.0)), ("cpu (new, 2 cores)", (3.0, 2.0))):
            for batch, time_s in zip((64, 256), seconds, strict=True):
                run = RunConfig(batch_size=batch, seed=int(time_s))
                changes = {"val_acc": 0.7 + time_s / 100, "train_time_s": time_s, "replicas": 8}
                store.add(record_of(run, device=device, backend="kernel", silent_classes=[], **changes))
        rows, times = cell_table(store, "val_acc").to_pylist(), training_times(store).to_pylist()
        found = machines(store)
    timed = overview_charts.timed_rows(rows, times)
    best = overview_charts.front_table(timed, "seconds", "val_acc", ["batch_size"])
    fronts = zip(best["device"].to_pylist(), best["seconds"].to_pylist(), strict=True)
    assert sorted(fronts) == [("cpu (new, 2 cores)", 2.0), ("cpu (new, 2 cores)", 3.0), ("cpu (old, 2 cores)", 6.0),
                              ("cpu (old, 2 cores)", 9.0)]  # fmt: skip
    points = overview_charts.point_table(timed, "val_acc", ["batch_size"])
    spec = json.dumps(overview_charts.tradeoff_chart(points, best, "seconds", "val_acc").to_dict())
    assert {"machine", "backend"} <= set(re.findall(r'"title": "(\w+)"', spec))
    text = times_text(found)
    assert "own seconds in its optimizer steps" in text
    assert "cpu (new, 2 cores) (kernel); cpu (old, 2 cores) (kernel)" in text
    assert "cannot be compared" in text
    assert "cannot be compared" not in times_text({"cpu": ["kernel"]})


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_charts_of_a_comparison_are_valid_and_name_what_is_lost(theme):
    seeds = pa.Table.from_pylist(
        [{"side": "A", "seed": 0, "metric": 0.6, "silent": "silent: top"},
         {"side": "B", "seed": 0, "metric": 0.7, "silent": None},
         {"side": "B", "seed": 1, "metric": None, "silent": None}]
    )  # fmt: skip
    spec = compare_charts.seed_chart(seeds, "val_acc", theme).to_dict()
    drawn = next(iter(spec["datasets"].values()))
    assert [(row["side"], row["classes"]) for row in drawn] == [
        ("A", "silent: top"), ("B", "none is silent"),
    ]  # fmt: skip
    for difference in (True, False):
        compare_charts.confusion_chart(np.eye(5), "A", theme, difference=difference).to_dict()
    rows = [{"side": "A", "class": "g", "median": 0.9, "low": 0.8, "high": 1.0, "n": 3}]
    compare_charts.auc_chart(rows, theme).to_dict()


def test_a_prediction_is_never_taken_for_a_measurement():
    found = Prediction(0.701, 0.6804, 0.7212)
    assert prediction_text("val_acc", found) == "predicted ≈70.1%, 80% band 68.0–72.1%"
    some = Prediction(0.701, 0.6804, 0.7212, silent=0.4)
    assert prediction_text("val_acc", some).endswith("seeds without a silent class (40% of those around it have one)")
    assert prediction_text("val_loss", Prediction(1.1, 1.0, 1.2)) == "predicted ≈1.100, 80% band 1.000–1.200"
    assert prediction_text("train_time_s", Prediction(80.0, 70.0, 90.0)) == "predicted ≈80 s, 80% band 70–90 s"


def roc_of(shares):
    return [share for share in shares for _ in SIGNAL_EFFICIENCIES]


def test_roc_curves_are_medians_and_leave_out_what_is_not_known():
    curves = [roc_of([share, 0.5, 0.0 if share == 0.1 else 0.1, None, 0.2]) for share in (0.1, 0.001, 0.01)]
    rows = roc_medians(curves)
    assert {row["class"] for row in rows} == {"g", "q", "t"}
    gluon = next(row for row in rows if row["class"] == "g" and row["efficiency"] == 0.5)
    assert [gluon[name] for name in ("low", "median", "high")] == pytest.approx([10, 100, 1000]), "of three their range"
    quark = next(row for row in rows if row["class"] == "q")
    assert (quark["low"], quark["median"], quark["high"], quark["n"]) == (2.0, 2.0, 2.0, 3)
    assert roc_medians([]) == []
    with pytest.raises(FieldError, match="must hold 250"):
        roc_medians([[0.1]])


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_roc_curves_mark_the_rejection_at_half_also_where_no_curve_is_stored(theme):
    half = {"class": "g", "median": 35.0, "low": 30.0, "high": 40.0, "n": 5, "side": "A"}
    for medians in ([], [{**row, "side": "B"} for row in roc_medians([roc_of([0.1] * 5)])]):
        curves, marks = roc.roc_tables(medians, [half, {**half, "median": None}])
        assert marks["text"].to_pylist() == ["A 35"]
        assert roc.rejection_range(curves, marks) == (1.0, 40.0)
        figure = make_figure(partial(roc.roc_chart, curves, marks, "g", (1.0, 40.0)), theme, "rejection of gluons")
        roc.roc_chart(curves, marks, "g", (1.0, 40.0), theme).to_dict()
        assert figure.alt_text == "Rejection of gluons"
        drawn = {row["text"] for table in figure.tables.values() for row in table.to_pylist() if "text" in row}
        assert drawn == {"A 35"}
        assert render_image(figure, "svg").startswith(b"<svg")


def test_of_two_rejections_the_higher_one_is_written_over_its_curve():
    half = {"class": "g", "median": 35.0, "low": 30.0, "high": 40.0, "n": 5, "side": "A"}
    for other, upper in ((20.0, "A 35"), (50.0, "B 50"), (35.0, "A 35")):
        _, marks = roc.roc_tables([], [half, {**half, "side": "B", "median": other}])
        assert [row["text"] for row in marks.to_pylist() if row["upper"]] == [upper]


def test_a_config_compared_with_itself_is_drawn_twice():
    groups = {"config_id": ["x"], "is_silent": [True], "epoch": [1.0], "values": [[0.4, 0.5, 0.6]]}
    points = pa.table({"run_id": ["r"], "config_id": ["x"], "silent": [True], "epoch": [1.0], "val_acc": [0.5]})
    bands, each = compare_charts.learning_curve_tables(pa.table(groups), points, {"A": "x", "B": "x"}, "val_acc")
    assert bands["low"].to_pylist() == bands["high"].to_pylist() == [0.5, 0.5], "seeds with a silent class have no band"
    assert bands["side"].to_pylist() == each["side"].to_pylist() == ["A", "B"]
    assert each["silent"].to_pylist() == [True, True]
    for title in (None, "gluon"):
        compare_charts.learning_curve_chart(bands, each, "val_acc", title=title).to_dict()

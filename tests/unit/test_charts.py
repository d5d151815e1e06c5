"""The grid: its cells, its table, and that its chart is valid Vega-Lite."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from jsc_explore.analysis.cells import axis_values, build_cells
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import median_spread, proportion_interval, summarize
from jsc_explore.charts.colour_scale import contrast
from jsc_explore.charts.figure import font_config
from jsc_explore.charts.grid import grid_table, metric_domain
from jsc_explore.charts.style import BACKGROUND, SILENT_SIGN, format_metric, format_seeds
from jsc_explore.config import RunConfig, display_value
from jsc_explore.jobs.queue import Job
from jsc_explore.training.metrics import SILENT_SHARE
from jsc_explore.view_model.curves import Shown, legend
from jsc_explore.view_model.grid import legend_text
from jsc_explore.view_model.slice import Slice

DIGEST = "d" * 64
AXES = ("batch_size", "learning_rate")
ROOT = Path(__file__).parents[2]


def row(run, **changes):
    defaults = {
        "median": 0.7, "low": 0.69, "high": 0.71,
        "median_all": 0.7, "lowest": 0.69, "highest": 0.71, "n": 3, "n_configs": 1, "n_hidden": 0, "n_silent": 0,
        "n_diverged": 0, "seeds": [0, 1, 2],
    }  # fmt: skip
    return run, {**defaults, **changes}


def job(run, state, **changes):
    fields = {
        "run_id": run.run_id(DIGEST), "config_id": run.config_id(DIGEST), "config": run, "state": state, "priority": 0,
        "attempt": 1, "cancel": False, "step": 5, "total_steps": 10, "requested_at": 0.0, "started_at": 1.0,
        "finished_at": None, "error": None,
    }  # fmt: skip
    return Job(**(fields | changes))


def grid_of(rows=(), jobs=()):
    base = RunConfig()
    axes = {"batch_size": [16, 256], "learning_rate": [1e-3, 1e-2]}
    seeds = {run.config_id(DIGEST): stored.pop("seeds") for run, stored in rows}
    stored = [{"batch_size": run.batch_size, "learning_rate": run.learning_rate, **figures} for run, figures in rows]
    return build_cells(base, axes, DIGEST, stored, jobs, 3, lambda config_ids: seeds)


def test_every_pair_of_axis_values_is_a_cell_with_its_state():
    at = lambda b, r, s=0: RunConfig(batch_size=b, learning_rate=r, seed=s)  # noqa: E731
    cells = grid_of(
        [row(at(16, 1e-3)), row(at(256, 1e-3))],
        [job(at(256, 1e-3, 7), "running"), job(at(16, 1e-2), "queued"), job(at(256, 1e-2), "failed", error="x")],
    )
    states = {(cell.x, cell.y): cell.state for cell in cells}
    assert states == {(16, 1e-3): "done", (256, 1e-3): "running", (16, 1e-2): "queued", (256, 1e-2): "failed"}
    assert grid_of()[0].state == "missing"
    running = next(cell for cell in cells if cell.state == "running")
    assert running.share_done == 0.5
    (row_of_running,) = grid_table([running], AXES, "val_acc").to_pylist()
    assert (row_of_running["first"], row_of_running["second"]) == ("▶", "epoch 6/10")
    assert running.next_seeds(3) == [3, 4, 5]
    assert grid_of()[0].next_seeds(2) == [0, 1]


def test_a_failed_job_whose_seed_is_stored_does_not_count():
    run = RunConfig(batch_size=16, learning_rate=1e-3)
    assert grid_of([row(run)], [job(run, "failed")])[0].failed == ()


def test_axes_hold_default_stored_and_extra_values_in_order():
    assert axis_values("batch_size", [100], [7]) == [7, 16, 32, 64, 100, 128, 256, 512, 1024]
    networks = ["jsc-tiny", "16-9-5", "jsc-toy", "jsc-three-linear", "jsc-trt", "jsc-conv", "jsc-s"]
    assert axis_values("model", ["16-9-5"]) == networks, "by their number of parameters"
    assert axis_values("final_relu", [False]) == [True, False]


@pytest.mark.parametrize("n", [2, 4, 5, 6, 30])
def test_seeds_are_shown_by_their_median_with_an_interval_from_five_on_and_their_range_below(n):
    values = np.random.default_rng(n).uniform(0.6, 0.7, n)
    low, high = (f"{100 * end:.1f}%" for end in median_spread(values))
    name = "95% interval" if n >= 5 else "range"
    assert format_seeds("val_acc", list(values)) == f"{100 * np.median(values):.1f}% ({name} {low} to {high})"
    if n <= 5:
        assert median_spread(values) == (values.min(), values.max())
    assert format_seeds("val_acc", [0.7]) == "70.0%"
    assert format_seeds("train_time_s", [3.0, 5.0, 4.0]) == "4 s", "times have no interval of seeds"


def test_many_groups_of_unlike_size_are_summarized_as_each_alone():
    groups = [list(np.random.default_rng(n).normal(size=n)) for n in (5, 1, 12, 0, 4, 5)]
    for kind, ends in ((True, median_spread), (False, lambda values: (min(values), max(values)))):
        found = summarize(pa.chunked_array([groups]), interval=kind)
        for place, values in enumerate(groups):
            expected = [np.median(values), *map(float, ends(values))] if values else [np.nan] * 3
            assert [found[name][place] for name in found] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(("count", "n"), [(0, 5), (2, 5), (5, 5), (46, 302)])
def test_the_interval_of_a_rate_is_clopper_and_pearsons(count, n):
    low, high = proportion_interval(count, n)
    assert low == pytest.approx(stats.beta.ppf(0.025, count, n - count + 1) if count else 0.0)
    assert high == pytest.approx(stats.beta.ppf(0.975, count + 1, n - count) if count < n else 1.0)


def test_metrics_are_formatted_with_their_unit():
    assert format_metric("val_acc", 0.7134) == "71.3%"
    assert format_metric("test_loss", 0.8463) == "0.846"
    assert format_metric("train_time_s", 12.34) == "12.3 s"
    assert format_metric("val_acc", None) == "–"


def test_a_cell_shows_its_metric_silent_and_diverged_seeds_and_whether_it_is_missing():
    cells = grid_of([row(RunConfig(batch_size=16), n=5, n_silent=2, n_diverged=1, median_all=0.698)])
    rows = {(r["x"], r["y"]): r for r in grid_table(cells, AXES, "val_acc", {cells[0].config_id}).to_pylist()}
    done, missing = rows["16", "1e-3"], rows["256", "1e-3"]
    assert (done["first"], done["second"], done["selected"]) == ("70.0%", "n=3 †2 ‡1", True)
    assert done["tooltip"].startswith("16 × 1e-3: ")
    assert (
        "a class is silent in 2 of 5 seeds (95% interval 5% to 85%, Clopper–Pearson); "
        "median of the other 3: 70.0% (range 69.0% to 71.0%); " in done["tooltip"]
    )
    assert "all 5: median 69.8%, range 69.0% to 71.0%; 1 diverged" in done["tooltip"]
    assert (missing["first"], missing["state"], missing["filled"]) == ("+", "missing", False)
    assert missing["metric"] is not None, "Vega leaves out marks without a number"


def test_a_cell_whose_seeds_all_have_a_silent_class_shows_their_median_without_interval():
    cells = grid_of([row(RunConfig(batch_size=16), n=5, n_silent=5, median=None, median_all=0.56)])
    shown = grid_table(cells, AXES, "val_acc").to_pylist()[0]
    assert (shown["first"], shown["second"], shown["metric"], shown["filled"]) == ("56.0%", "†5 of 5", 0.56, True)
    assert shown["brief"] == "†5"
    assert "interval" not in shown["tooltip"].replace("(95% interval 48% to 100%, Clopper–Pearson)", "")


def test_diverged_seeds_are_beside_n_and_missing_ones_count_from_all():
    cells = grid_of([row(RunConfig(batch_size=16), n=1, n_diverged=1, seeds=[0, 1])])
    shown = grid_table(cells, AXES, "val_acc").to_pylist()[0]
    assert (shown["second"], shown["brief"], shown["state"]) == ("n=1 ‡1", "‡1", "partly")
    assert "1 of 3 seeds missing; 1 diverged" in shown["tooltip"]


def test_colours_span_a_fixed_range_for_accuracies_and_the_data_for_other_metrics():
    cells = grid_of([row(RunConfig(batch_size=16), median=3.0), row(RunConfig(batch_size=256), median=9.0)])
    assert metric_domain(cells, "val_acc") == (0.2, 0.8)
    assert metric_domain(cells, "train_time_s") == (3.0, 9.0)
    assert metric_domain(grid_of(), "test_loss") == (0.0, 1.0)


def test_a_cell_shows_missing_seeds_filtered_runs_and_predictions():
    at = lambda b, r: RunConfig(batch_size=b, learning_rate=r)  # noqa: E731
    cells = grid_of(
        [row(at(16, 1e-3), n=2, seeds=[0, 1]), row(at(256, 1e-3), n=0, n_configs=0, n_hidden=3, median=None),
         row(at(16, 1e-2))]
    )  # fmt: skip
    guess = {cells[3].config_id: Prediction(0.65, 0.6, 0.7)}
    rows = {(r["x"], r["y"]): r for r in grid_table(cells, AXES, "val_acc", predicted=guess).to_pylist()}
    assert (rows["16", "1e-3"]["state"], rows["16", "1e-3"]["second"]) == ("partly", "n=2")
    assert [run.seed for run in cells[0].missing_seeds()] == [2]
    assert (rows["256", "1e-3"]["state"], rows["256", "1e-3"]["second"]) == ("hidden", "filtered")
    assert (rows["256", "1e-2"]["first"], rows["256", "1e-2"]["second"]) == ("≈65.0%", "60–70%")
    assert "predicted ≈65.0%, 80% band 60.0–70.0%, not measured" in rows["256", "1e-2"]["tooltip"]


def test_a_cell_over_several_configs_says_so_and_has_no_median():
    run = RunConfig(batch_size=16)
    cells = grid_of([row(run, n=6, n_configs=2, median=0.702, lowest=0.57, highest=0.901)])
    shown = grid_table(cells, AXES, "val_acc").to_pylist()[0]
    assert (shown["first"], shown["second"], shown["brief"]) == ("57–91%", "×2 configs", "×2")
    assert (shown["filled"], shown["several"], cells[0].value) == (False, True, None)
    assert shown["tooltip"] == "16 × 1e-3: 6 runs of 2 configs: 57.0% to 90.1%"
    cells = grid_of([row(run, n=6, n_silent=3, n_configs=4, lowest=0.846, highest=1.6, median=1.1)])
    shown = grid_table(cells, AXES, "val_loss").to_pylist()[0]
    assert (shown["first"], shown["second"]) == ("0.85–1.60", "×4 †3")
    assert "a class is silent in 3 of 6 runs; 6 runs of 4 configs: 0.846 to 1.600" in shown["tooltip"]
    assert metric_domain(cells, "val_loss") == (0.0, 1.0), "no colour stands for it"


def test_a_third_axis_gives_each_cell_its_facet():
    axes = {"batch_size": [16], "learning_rate": [1e-3], "final_relu": [True, False]}
    cells = build_cells(RunConfig(), axes, DIGEST, [], [])
    assert [(cell.facet, cell.config.final_relu) for cell in cells] == [(True, True), (False, False)]
    assert grid_of()[0].facet is None


def test_an_axis_shows_values_by_their_labels():
    values = {"validation": "holdout", "model": "jsc-tiny", "final_relu": False, "momentum": 0.9, "batch_size": 256}
    texts = [display_value(name, value) for name, value in values.items()]
    assert texts == ["held-out data", "jsc-tiny", "no", "0.9", "256"]
    rates = [display_value("learning_rate", rate) for rate in (1e-4, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 10.0)]
    assert rates == ["1e-4", "3e-3", "1e-2", "3e-2", "1e-1", "3e-1", "1", "10"]


def test_the_dagger_means_the_same_on_every_page_and_in_the_docs():
    cells = grid_of([row(RunConfig(batch_size=16), n_silent=1)])
    slice = Slice("batch_size", "learning_rate", None, "val_acc", RunConfig(), DIGEST, (), "", 3, True)
    state = {"curve": "val_acc", "curve_x": "epoch", "zoom": None}
    rule = f"zero for more than {1 - SILENT_SHARE:.0%} of"
    for text in (legend_text(slice, cells), legend(state, Shown())):
        assert SILENT_SIGN in text
        assert rule in text
    for name in ("README.md", "docs/glossary.md", "docs/app.md", "docs/results.md"):
        assert rule in (ROOT / name).read_text(encoding="utf-8"), name


def test_the_legend_of_the_curves_says_what_line_and_band_are():
    state = {"curve": "val_acc", "curve_x": "epoch", "zoom": None}
    text = legend(state, Shown())
    assert "Line: median of the seeds without a silent class" in text
    assert "band: 95% interval of the median, or the range of fewer than 5 seeds" in text
    assert "faint: every seed" in text
    assert "grey: the other cells" in text
    alone = legend(state, Shown(seeds=False, band="none", context=False))
    assert not any(part in alone for part in ("band:", "faint", "grey"))


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axes_and_legends_of_every_chart_have_a_contrast_of_four_and_a_half(theme):
    for part in font_config(1.0, theme).values():
        for name in ("labelColor", "titleColor"):
            assert contrast(part[name], BACKGROUND[theme]) >= 4.5

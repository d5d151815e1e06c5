"""The grid: its cells, its table, and that its chart is valid Vega-Lite."""

import numpy as np
import pytest
from scipy import stats

from jsc_explore.analysis.cells import axis_values, build_cells
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import half_width, proportion_interval
from jsc_explore.charts.grid import grid_figure, grid_table, metric_domain
from jsc_explore.charts.style import axis_value_text, format_metric
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.jobs.queue import Job

DIGEST = "d" * 64


def row(run, **changes):
    defaults = {
        "mean": 0.7, "sd": 0.01, "median": 0.7,
        "low": 0.69, "high": 0.71, "n": 3, "n_configs": 1, "n_hidden": 0, "n_silent": 0,
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
    (row_of_running,) = grid_table([running], "val_acc").to_pylist()
    assert (row_of_running["first"], row_of_running["second"]) == ("▶", "epoch 5/10")
    assert running.next_seeds(3) == [3, 4, 5]
    assert grid_of()[0].next_seeds(2) == [0, 1]


def test_a_failed_job_whose_seed_is_stored_does_not_count():
    run = RunConfig(batch_size=16, learning_rate=1e-3)
    assert grid_of([row(run)], [job(run, "failed")])[0].failed == ()


def test_axes_hold_default_stored_and_extra_values_in_order():
    assert axis_values("batch_size", [100], [7]) == [7, 16, 32, 64, 100, 128, 256, 512, 1024]
    assert axis_values("model", ["16-9-5"])[-1] == "16-9-5"
    assert axis_values("final_relu", [False]) == [True, False]


@pytest.mark.parametrize("n", [3, 5, 30])
def test_the_interval_is_students_t(n):
    values = np.random.default_rng(n).normal(size=n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert half_width(values.std(ddof=1), n) == pytest.approx((high - low) / 2)


def test_fewer_than_three_seeds_have_no_interval():
    assert half_width(None, 1) is None
    assert half_width(0.0, 1) is None
    assert half_width(0.01, 2) is None


@pytest.mark.parametrize(("count", "n"), [(0, 5), (2, 5), (5, 5), (46, 302)])
def test_the_interval_of_a_rate_is_clopper_and_pearsons(count, n):
    low, high = proportion_interval(count, n)
    assert low == pytest.approx(stats.beta.ppf(0.025, count, n - count + 1) if count else 0.0)
    assert high == pytest.approx(stats.beta.ppf(0.975, count + 1, n - count) if count < n else 1.0)


def test_metrics_are_formatted_with_their_unit():
    assert format_metric("val_acc", 0.7134) == "71.3%"
    assert format_metric("val_acc", 0.7134, 0.004) == "71.3 ± 0.4%"
    assert format_metric("test_loss", 0.8463) == "0.846"
    assert format_metric("train_time_s", 12.34) == "12.3 s"
    assert format_metric("val_acc", None) == "–"
    assert [axis_value_text(v) for v in (1e-3, 256, True, "adam")] == ["1e-3", "256", "yes", "adam"]


def test_a_cell_shows_its_metric_silent_and_diverged_seeds_and_whether_it_is_missing():
    cells = grid_of([row(RunConfig(batch_size=16), n=5, n_silent=2, n_diverged=1, sd=0.01, median=0.698)])
    rows = {(r["x"], r["y"]): r for r in grid_table(cells, "val_acc", {cells[0].config_id}).to_pylist()}
    done, missing = rows["16", "1e-3"], rows["256", "1e-3"]
    assert (done["first"], done["second"], done["selected"]) == ("70.0%", "n=3 †2 ‡1", True)
    assert done["tooltip"].startswith("16 × 1e-3: ")
    assert (
        "in 2 of 5 seeds (95% interval 5% to 85%, Clopper–Pearson); mean of the other 3: 70.0 ± 2.5%; "
        in done["tooltip"]
    )
    assert "all 5: median 69.8%, range 69.0% to 71.0%; 1 diverged" in done["tooltip"]
    assert (missing["first"], missing["state"], missing["filled"]) == ("+", "missing", False)
    assert missing["metric"] is not None, "Vega leaves out marks without a number"


def test_a_cell_whose_seeds_all_have_a_silent_class_shows_their_median_without_interval():
    cells = grid_of([row(RunConfig(batch_size=16), n=5, n_silent=5, mean=None, sd=None, median=0.56)])
    shown = grid_table(cells, "val_acc").to_pylist()[0]
    assert (shown["first"], shown["second"], shown["metric"], shown["filled"]) == ("56.0%", "†5 of 5", 0.56, True)
    assert "±" not in shown["tooltip"]


def test_diverged_seeds_are_beside_n_and_missing_ones_count_from_all():
    cells = grid_of([row(RunConfig(batch_size=16), n=1, n_diverged=1, sd=None, seeds=[0, 1])])
    shown = grid_table(cells, "val_acc").to_pylist()[0]
    assert shown["second"] == "n=1 ‡1 of 3"
    assert "1 of 3 seeds missing; 1 diverged" in shown["tooltip"]


def test_colours_span_a_fixed_range_for_accuracies_and_the_data_for_other_metrics():
    cells = grid_of([row(RunConfig(batch_size=16), mean=3.0), row(RunConfig(batch_size=256), mean=9.0)])
    assert metric_domain(cells, "val_acc") == (0.2, 0.8)
    assert metric_domain(cells, "train_time_s") == (3.0, 9.0)
    assert metric_domain(grid_of(), "test_loss") == (0.0, 1.0)


def test_text_is_dark_on_bright_cells_for_every_metric():
    cells = grid_of([row(RunConfig(batch_size=16), mean=0.5), row(RunConfig(batch_size=256), mean=1.5)])
    bright = {r["x"]: r["bright"] for r in grid_table(cells, "val_loss").to_pylist() if r["filled"]}
    assert bright == {"16": True, "256": False}
    assert {r["x"]: r["bright"] for r in grid_table(cells, "val_acc").to_pylist() if r["filled"]}["256"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("metric", ["val_acc", "test_loss", "train_time_s"])
def test_the_grid_is_a_valid_chart_with_its_selection(theme, metric, texts_drawn):
    cells = grid_of([row(RunConfig(batch_size=16))])
    table = grid_table(cells, metric)
    titles = (FIELDS["batch_size"].label, FIELDS["learning_rate"].label)
    figure = grid_figure(table, titles, (["16", "256"], ["1e-3", "1e-2"]), metric, metric_domain(cells, metric), theme)
    spec = figure.standalone_spec()
    assert [p["name"] for p in spec["params"]] == ["cell", "toggled", "box"]
    texts = texts_drawn(spec)
    assert {*titles, "16", "256", "1e-3", "1e-2", "n=3"} <= {*texts}
    assert texts.count("+") == 3
    assert spec["datasets"]["cells"] == table.to_pylist()
    assert figure.arrow_spec()["datasets"]["cells"] is table


def test_a_cell_shows_missing_seeds_filtered_runs_and_predictions():
    at = lambda b, r: RunConfig(batch_size=b, learning_rate=r)  # noqa: E731
    cells = grid_of(
        [row(at(16, 1e-3), n=2, seeds=[0, 1]), row(at(256, 1e-3), n=0, n_configs=0, n_hidden=3, mean=None),
         row(at(16, 1e-2), n=6, n_configs=2, low=0.5, high=0.9)]
    )  # fmt: skip
    guess = {cells[3].config_id: Prediction(0.65, 0.6, 0.7)}
    rows = {(r["x"], r["y"]): r for r in grid_table(cells, "val_acc", predicted=guess).to_pylist()}
    assert (rows["16", "1e-3"]["state"], rows["16", "1e-3"]["second"]) == ("partly", "n=2 of 3")
    assert [run.seed for run in cells[0].missing_seeds()] == [2]
    assert (rows["256", "1e-3"]["state"], rows["256", "1e-3"]["second"]) == ("hidden", "filtered")
    assert rows["16", "1e-2"]["second"] == "×2"
    assert "from 50.0% to 90.0%" in rows["16", "1e-2"]["tooltip"]
    assert "±" not in rows["16", "1e-2"]["tooltip"], "over several configs an interval of seeds would claim too much"
    assert (rows["256", "1e-2"]["first"], rows["256", "1e-2"]["second"]) == ("≈65.0%", "60.0–70.0%")
    assert "predicted ≈65.0%, 80% band 60.0–70.0%, not measured" in rows["256", "1e-2"]["tooltip"]


def test_a_third_axis_gives_each_cell_its_facet():
    axes = {"batch_size": [16], "learning_rate": [1e-3], "final_relu": [True, False]}
    cells = build_cells(RunConfig(), axes, DIGEST, [], [])
    assert [(cell.facet, cell.config.final_relu) for cell in cells] == [(True, True), (False, False)]
    assert grid_of()[0].facet is None


def test_an_axis_shows_values_by_their_labels():
    values = ["holdout", "jsc-tiny", False, 0.001, 256]
    assert [axis_value_text(value) for value in values] == ["held-out data", "jsc-tiny", "no", "1e-3", "256"]

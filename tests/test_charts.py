"""Charts and analysis: the tables that are drawn, and that what is drawn is valid."""

import altair as alt
import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from jsc_explore.analysis.cells import axis_values, build_cells
from jsc_explore.analysis.intervals import half_width
from jsc_explore.charts.curves import Line, curve_chart, curve_tables
from jsc_explore.charts.grid import grid_chart, grid_table, score_domain
from jsc_explore.charts.style import format_score, ordinal_label
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.jobs.queue import Job

DIGEST = "d" * 64


def row(run, **changes):
    defaults = {"mean": 0.7, "sd": 0.01, "n": 3, "n_dead": 0, "n_diverged": 0, "seeds": [0, 1, 2]}
    return {"config_id": run.config_id(DIGEST), **defaults, **changes}


def job(run, state, **changes):
    fields = {
        "run_id": run.run_id(DIGEST), "config_id": run.config_id(DIGEST), "config": run, "state": state, "priority": 0,
        "attempt": 1, "cancel": False, "step": 5, "total_steps": 10, "requested_at": 0.0, "started_at": 1.0,
        "finished_at": None, "error": None,
    }  # fmt: skip
    return Job(**(fields | changes))


def grid_of(rows=(), jobs=()):
    base = RunConfig()
    return build_cells(base, "batch_size", "learning_rate", ([16, 256], [1e-3, 1e-2]), DIGEST, rows, jobs)


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
    assert running.next_seeds(3) == [3, 4, 5]
    assert grid_of()[0].next_seeds(2) == [0, 1]


def test_a_failure_of_a_seed_that_is_stored_since_is_no_failure():
    run = RunConfig(batch_size=16, learning_rate=1e-3)
    assert grid_of([row(run)], [job(run, "failed")])[0].failed == []


def test_axes_hold_ladder_stored_and_asked_for_values_in_order():
    assert axis_values("batch_size", [100], [7]) == [7, 16, 32, 64, 100, 128, 256, 512, 1024]
    assert axis_values("model", ["16-9-5"])[-1] == "16-9-5"
    assert axis_values("final_relu", [False]) == [True, False]


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_interval_is_students_t(n):
    values = np.random.default_rng(n).normal(size=n)
    low, high = stats.t.interval(0.95, n - 1, loc=values.mean(), scale=stats.sem(values))
    assert half_width(values.std(ddof=1), n) == pytest.approx((high - low) / 2)


def test_one_seed_has_no_interval():
    assert half_width(None, 1) is None
    assert half_width(0.0, 1) is None


def test_scores_are_written_as_people_read_them():
    assert format_score("val_acc", 0.7134) == "71.3%"
    assert format_score("val_acc", 0.7134, 0.004) == "71.3 ± 0.4%"
    assert format_score("test_loss", 0.8463) == "0.846"
    assert format_score("train_time_s", 12.34) == "12.3 s"
    assert format_score("val_acc", None) == "–"
    assert [ordinal_label(v) for v in (1e-3, 256, True, "adam")] == ["1e-3", "256", "yes", "adam"]


def test_a_cell_tells_figures_dead_and_diverged_seeds_and_what_is_missing():
    cells = grid_of([row(RunConfig(batch_size=16), n_dead=2, n_diverged=1, sd=0.05)])
    rows = {(r["x"], r["y"]): r for r in grid_table(cells, "val_acc", {cells[0].config_id}).to_pylist()}
    done, missing = rows["16", "1e-3"], rows["256", "1e-3"]
    assert (done["first"], done["second"], done["chosen"]) == ("70.0%", "n=3 †2 ‡1", True)
    assert done["tooltip"].startswith("16 × 1e-3: ")
    assert "2 with a dead class; 1 diverged" in done["tooltip"]
    assert "70.0 ± 12.4%" in done["tooltip"]
    assert (missing["alone"], missing["state"], missing["filled"]) == ("+", "missing", False)
    assert missing["score"] is not None, "Vega leaves out marks without a number"


def test_colours_span_a_fixed_range_for_shares_and_the_data_for_the_rest():
    cells = grid_of([row(RunConfig(batch_size=16), mean=3.0), row(RunConfig(batch_size=256), mean=9.0)])
    assert score_domain(cells, "val_acc") == (0.2, 0.8)
    assert score_domain(cells, "train_time_s") == (3.0, 9.0)
    assert score_domain(grid_of(), "test_loss") == (0.0, 1.0)


def test_text_is_dark_on_the_bright_cells_whatever_is_good():
    cells = grid_of([row(RunConfig(batch_size=16), mean=0.5), row(RunConfig(batch_size=256), mean=1.5)])
    bright = {r["x"]: r["bright"] for r in grid_table(cells, "val_loss").to_pylist() if r["filled"]}
    assert bright == {"16": True, "256": False}
    assert {r["x"]: r["bright"] for r in grid_table(cells, "val_acc").to_pylist() if r["filled"]}["256"]


def test_a_recall_is_drawn_from_zero_to_one():
    means, seeds = curve_tables(means_table({"a": 3}), pa.table({"config_id": []}), {}, "step", "recall_t", log_x=False)
    spec = curve_chart(means, seeds, [], "step", "recall_t").to_dict()
    assert spec["layer"][0]["encoding"]["y"]["scale"]["domain"] == [0.0, 1.0]


@pytest.mark.parametrize("ground", ["light", "dark"])
@pytest.mark.parametrize("score", ["val_acc", "test_loss", "train_time_s"])
def test_the_grid_is_a_valid_chart_with_its_selection(ground, score):
    cells = grid_of([row(RunConfig(batch_size=16))])
    table = grid_table(cells, score)
    titles = (FIELDS["batch_size"].label, FIELDS["learning_rate"].label)
    spec = grid_chart(
        table, titles, (["16", "256"], ["1e-3", "1e-2"]), score, score_domain(cells, score), ground
    ).to_dict()
    assert [p["name"] for p in spec["params"]] == ["cell", "toggled"]
    assert alt.Chart.from_dict(spec) is not None


def means_table(config_ids, steps=(0, 10, 20)):
    rows = [
        {"config_id": c, "step": s, "epoch": s / 10, "samples": s * 9.0, "time_s": 0.1, "mean": 0.5,
         "sd": 0.1 if n > 1 else None, "low": 0.4, "high": 0.6, "n": n}
        for c, n in config_ids.items() for s in steps
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def seeds_table(config_id):
    return pa.Table.from_pylist(
        [
            {"run_id": "r", "config_id": config_id, "seed": 3, "dead": True, "step": s, "epoch": s / 10, "val_acc": v}
            for s, v in ((0, 0.2), (10, None), (20, 0.6))
        ]
    )


def test_a_curve_has_mean_interval_and_each_seed():
    lines = {"a": Line("A", True), "b": Line("B", False)}
    means, seeds = curve_tables(
        means_table({"a": 4, "b": 1, "c": 2}), seeds_table("a"), lines, "epoch", "val_acc", log_x=False
    )
    rows = means.to_pylist()
    assert {r["config_id"] for r in rows} == {"a", "b"}
    first = rows[0]
    assert first["high"] - first["mean"] == pytest.approx(half_width(0.1, 4))
    alone = next(r for r in rows if r["config_id"] == "b")
    assert alone["low"] == alone["mean"] == alone["high"]
    assert [r["value"] for r in seeds.to_pylist()] == [0.2, 0.6]
    assert seeds["dead"].to_pylist() == [True, True]


def test_a_logarithmic_axis_leaves_out_zero():
    lines = {"a": Line("A", True)}
    means, seeds = curve_tables(means_table({"a": 2}), seeds_table("a"), lines, "epoch", "val_acc", log_x=True)
    assert means["x"].to_pylist() == [1.0, 2.0]
    assert seeds["x"].to_pylist() == [2.0]


@pytest.mark.parametrize("log_x", [True, False])
@pytest.mark.parametrize("quantity", ["val_acc", "val_loss", "learning_rate"])
def test_curves_are_a_valid_chart_also_without_any_row(log_x, quantity):
    for means, seeds, labels in (
        (*curve_tables(means_table({}), pa.table({"config_id": []}), {}, "step", quantity, log_x=log_x), []),
        (
            *curve_tables(
                means_table({"a": 3}),
                pa.table({"config_id": []}),
                {"a": Line("A", True)},
                "step",
                quantity,
                log_x=log_x,
            ),
            ["A"],
        ),
    ):
        spec = curve_chart(means, seeds, labels, "step", quantity, log_x=log_x, x_end=10.0).to_dict()
        assert len(spec["layer"]) == 5

"""Slices of the store: conditions, cells, counts and the points that are drawn, against figures worked out by hand."""

import itertools
import statistics
from contextlib import closing
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from runs import record_of

from jsc_explore.analysis.cells import build_cells
from jsc_explore.charts.grid import grid_table
from jsc_explore.config import RunConfig, display_value
from jsc_explore.errors import FieldError, StoreError
from jsc_explore.store import Store
from jsc_explore.store.directory import open_directory
from jsc_explore.store.query.curves import curve_points
from jsc_explore.store.query.filters import Between, is_allowed
from jsc_explore.store.query.grid import configs, count_choices, grid_cells, run_ids, stored_seeds  # fmt: skip
from jsc_explore.store.saved_views import SavedViews
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice

AXES = ("batch_size", "learning_rate")
SNAPSHOT = Path(__file__).parents[2] / "results.parquet"
# What the ten cells have in common.
BASE = {"model": ["jsc-tiny"], "final_relu": [True], "max_epochs": [10], "optimizer": ["adam"], "validation": ["train"]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two batch sizes by two rates, three seeds each; seed 2 has a silent class; and one sgd config of one seed."""
    store = Store(tmp_path_factory.mktemp("slices") / "store")
    for batch in (16, 256):
        for rate in (1e-3, 1e-2):
            for seed in (0, 1, 2):
                store.add(record_of(RunConfig(batch_size=batch, learning_rate=rate, seed=seed)))
    store.add(record_of(RunConfig(optimizer="sgd", momentum=0.5), val_acc=0.5))
    yield store
    store.close()


def cells(store, filters, text="", axes=AXES):
    return {
        tuple(row[name] for name in axes): row for row in grid_cells(store, axes, "val_acc", filters, text).to_pylist()
    }


def test_a_cell_holds_metrics_and_counts_of_the_runs_that_pass(store):
    row = cells(store, {"optimizer": ["adam"]})[256, 1e-3]
    assert sorted(row["metrics"]) == [0.7, 0.71], "seed 2 has a silent class"
    assert row["median_all"] == 0.71
    assert (row["n"], row["n_configs"], row["n_silent"], row["n_hidden"], row["n_diverged"]) == (3, 1, 1, 0, 0)
    assert (row["lowest"], row["highest"]) == (0.7, 0.72)


def test_what_the_text_filter_leaves_out_is_hidden_not_missing(store):
    row = cells(store, {"optimizer": ["adam"]}, "not silent and val_acc < 0.705")[16, 1e-2]
    assert (row["n"], row["n_hidden"], row["metrics"]) == (1, 2, [0.7])
    gone = cells(store, {}, "val_acc > 1")[256, 1e-3]
    assert (gone["n"], gone["n_hidden"], gone["metrics"]) == (0, 4, None)


def test_several_configs_of_a_cell_are_counted_and_a_third_axis_parts_them(store):
    assert cells(store, {})[256, 1e-3]["n_configs"] == 2
    parted = cells(store, {}, axes=(*AXES, "optimizer"))
    assert parted[256, 1e-3, "sgd"]["n"] == 1
    assert parted[256, 1e-3, "adam"]["n"] == 3


def test_ranges_include_both_ends_and_a_momentum_is_asked_of_sgd_alone(store):
    assert set(cells(store, {"batch_size": Between(16, 255)})) == {(16, 1e-3), (16, 1e-2)}
    assert len(run_ids(store, {"batch_size": Between(16, 256), "momentum": Between(0.9, 0.9)})) == 12
    assert len(run_ids(store, {"momentum": Between(0.5, 0.5)})) == 13


def test_a_filter_selects_the_runs_that_train_the_same_with_a_value_that_it_allows(tmp_path):
    stored = [
        RunConfig(),  # also adamw, momentum 0.5, patience 10
        RunConfig(optimizer="adamw", weight_decay=1e-3),
        RunConfig(max_epochs=1),  # also a constant schedule
        RunConfig(max_epochs=20),
        RunConfig(patience=3),
        RunConfig(learning_rate=1e-6),  # also a constant schedule: the cosine one ends at this rate
        RunConfig(learning_rate=1e-6, optimizer="sgd"),
    ]
    filters = {
        "optimizer": ["adamw"], "scheduler": ["constant"], "patience": Between(10, 12), "momentum": [0.5, 0.7],
    }  # fmt: skip
    with closing(Store(tmp_path / "store")) as store:
        for run in stored:
            store.add(record_of(run))
        for names in itertools.chain.from_iterable(itertools.combinations(filters, n) for n in range(1, 5)):
            chosen = {name: filters[name] for name in names}
            found = set(run_ids(store, chosen))
            assert found == {
                run.run_id("d" * 64) for run in stored if all(is_allowed(run, *one) for one in chosen.items())
            }
        counts = {name: len(run_ids(store, {name: allowed})) for name, allowed in filters.items()}
    assert counts == {"optimizer": 6, "scheduler": 2, "patience": 5, "momentum": 6}


def test_places_whose_values_train_the_same_show_the_same_runs(tmp_path):
    with closing(Store(tmp_path / "store")) as store:
        for seed in (0, 1, 3):
            store.add(record_of(RunConfig(seed=seed)))
        store.add(record_of(RunConfig(optimizer="adamw", weight_decay=1e-3)))
        axes = {"optimizer": ["adam", "adamw"], "weight_decay": [0.0, 1e-3]}
        slice = Slice(*axes, None, "val_acc", RunConfig(), "d" * 64, tuple(axes.items()), "", 3, True)
        rows = Repository(store).grid(slice)
        found = build_cells(RunConfig(), axes, "d" * 64, rows, [], 3, lambda ids: stored_seeds(store, ids))
    assert {cell.place: cell.n for cell in found} == {
        ("adam", 0.0): 3, ("adamw", 0.0): 3, ("adam", 1e-3): 0, ("adamw", 1e-3): 1,
    }  # fmt: skip
    assert [cell.state for cell in found] == ["done", "missing", "done", "partly"]
    assert len({cell.config_id for cell in found}) == 3


@pytest.mark.parametrize(("axes", "metric"), [(("batch", "learning_rate"), "val_acc"), (AXES, "val_ac")])
def test_unknown_names_are_refused(store, axes, metric):
    with pytest.raises(FieldError):
        grid_cells(store, axes, metric, {})


def test_counts_stand_beside_each_choice_given_the_other_filters(store):
    counts = count_choices(store, {"optimizer": ["adam"], "batch_size": Between(16, 16)})
    assert counts["learning_rate"] == {1e-3: 3, 1e-2: 3}
    assert counts["batch_size"] == {16: 6, 256: 6}, "its own filter does not count"
    assert counts["optimizer"] == {"adam": 6, "sgd": 0}, "what passes nowhere is still there"
    assert count_choices(store, {}, "silent")["batch_size"] == {16: 2, 256: 2}


def test_configs_come_with_their_fields_up_to_a_limit_and_with_their_count(store):
    table, total = configs(store, {}, limit=2)
    assert (table.num_rows, total) == (2, 5)
    assert "seed" not in table.column_names
    adam = RunConfig().config_id("d" * 64)
    assert stored_seeds(store, [adam, "nobody"]) == {adam: [0, 1, 2]}
    assert configs(store, {"model": ["jsc-s"]})[1] == 0


def points(store, quantities=("val_acc",), x="step", **options):
    ids = run_ids(store, {"batch_size": [16], "learning_rate": [1e-3]})
    return curve_points(store, ids, x, quantities, **{"budget": 10_000} | options)


def test_points_and_groups_are_of_one_config_at_one_step(store):
    found = points(store, ("val_acc", "train_loss"))
    assert (found.stride, found.seeds.num_rows) == (1, 3 * 4 + 3 * 3), "the first training loss is not measured"
    rows = [row for row in found.groups.to_pylist() if row["quantity"] == "val_acc"]
    groups = {silent: [row for row in rows if row["is_silent"] == silent] for silent in (False, True)}
    assert all([row["x"] for row in group] == [0, 10, 20, 30] for group in groups.values())
    two, silent = groups[False][1], groups[True][1]
    assert (sorted(two["values"]), silent["values"]) == ([1.0, 1.1], [1.2])
    assert {row["silent"] for row in found.seeds.to_pylist()} == {"", "t"}


def test_the_group_of_a_config_does_not_depend_on_what_else_is_drawn(store):
    alone = points(store).groups.to_pylist()
    both = curve_points(store, run_ids(store, {}), "step", ["val_acc"], budget=10_000).groups.to_pylist()
    (config_id,) = {row["config_id"] for row in alone}
    assert [row for row in both if row["config_id"] == config_id] == alone
    assert len(both) > len(alone)


def test_the_sum_of_learning_rates_counts_every_step(store):
    rows = points(store, x="lr_sum").seeds.to_pylist()
    # Recorded rates of seed 0 are 0, 1, 2, 3, each for the ten steps before its point.
    assert [row["x"] for row in rows if row["seed"] == 0] == [0, 10, 30, 60]


def test_thinning_keeps_both_ends_and_says_so_and_a_span_brings_the_others_back(store):
    thin = points(store, budget=6)
    assert (thin.stride, thin.total) == (2, 12)
    assert {row["x"] for row in thin.seeds.to_pylist()} == {0, 20, 30}
    near = points(store, budget=6, x_range=(10, 20))
    assert near.stride == 1
    assert {row["x"] for row in near.seeds.to_pylist()} == {10, 20}


def test_the_group_of_a_config_goes_as_far_as_its_shortest_run(store):
    config_id = RunConfig(batch_size=16).config_id("d" * 64)
    live = pa.Table.from_pylist(
        [
            {
                "run_id": "new",
                "config_id": config_id,
                "seed": 9,
                "status": "running",
                "step": 10,
                "epoch": 1.0,
                "val_acc": 1.5,
                "learning_rate": 1e-3,
            }
        ]
    )
    groups = [row for row in points(store, live=live).groups.to_pylist() if not row["is_silent"]]
    assert [(row["x"], sorted(row["values"])) for row in groups] == [(10, [1.0, 1.1, 1.5])]
    alone = curve_points(store, [], "step", ["val_acc"], budget=10, live=live)
    assert alone.seeds["value"].to_pylist() == [1.5]


def live_rows(status, *known):
    """Return a table of live points of one config, given as run_id, step and val_acc; a step None is a run without."""
    config_id = RunConfig(batch_size=16).config_id("d" * 64)
    rows = [
        {"run_id": run_id, "config_id": config_id, "seed": int(run_id), "status": status, "step": step,
         "val_acc": value, "learning_rate": 1e-3}
        for run_id, step, value in known
    ]  # fmt: skip
    return pa.Table.from_pylist(rows)


def test_a_group_of_live_runs_waits_for_the_slowest_and_for_one_without_a_point(store):
    fast = [("0", step, 0.1 * step) for step in (0, 10, 20)]
    slow = [("1", 0, 0.0)]
    both = curve_points(store, [], "step", ["val_acc"], budget=10, live=live_rows("running", *fast, *slow))
    assert [(row["x"], len(row["values"])) for row in both.groups.to_pylist()] == [(0, 2)]
    starting = live_rows("running", *fast, ("1", None, None))
    for x in ("step", "lr_sum"):
        found = curve_points(store, [], x, ["val_acc"], budget=10, live=starting)
        assert (found.groups.num_rows, found.seeds["run_id"].to_pylist()) == (0, ["0"] * 3)


def test_a_cancelled_run_is_in_no_group(store):
    kept = points(store, live=live_rows("cancelled", ("7", 0, 9.0), ("7", 10, 9.0)))
    assert kept.groups.equals(points(store).groups)
    partial = kept.seeds.filter(pc.equal(kept.seeds["status"], "cancelled"))
    assert partial["value"].to_pylist() == [9.0, 9.0]


def test_only_the_groups_where_only_they_are_wanted_and_nothing_for_no_run(store):
    assert points(store, each_seed=False).seeds.num_rows == 0
    nothing = curve_points(store, [], "epoch", ["val_acc"], budget=10)
    assert (nothing.seeds.num_rows, nothing.groups.num_rows, nothing.stride) == (0, 0, 1)
    with pytest.raises(FieldError, match="is not recorded"):
        curve_points(store, [], "epoch", ["val_ac"], budget=10)


def test_saved_views_are_saved_renamed_and_deleted(tmp_path):
    views, ada = SavedViews(tmp_path), ["browser 1"]
    views.save("  batch   size ", "x=model", ada)
    views.save("batch size", "x=epochs", ada)
    assert views.all() == {"batch size": "x=epochs"}
    views.save("other", "", ada)
    with pytest.raises(FieldError, match="already exists"):
        views.rename("other", "batch size", ada)
    views.rename("other", "another", ada)
    views.delete("batch size", ada)
    views.delete("batch size", ada)
    assert SavedViews(tmp_path).all() == {"another": ""}
    with pytest.raises(FieldError, match="1 to 80 characters"):
        views.save("  ", "", ada)
    with pytest.raises(FieldError, match="does not exist"):
        views.rename("nobody", "somebody", ada)


def test_a_saved_view_is_changed_by_who_saved_it_and_by_who_runs_the_app(tmp_path):
    views, ada, eve, runs_the_app = SavedViews(tmp_path), ["login ada@uni.edu", "browser 1"], ["browser 2"], None
    views.save("of ada", "x=model", ada)
    views.save("of the app", "", runs_the_app)
    for action in (
        lambda: views.save("of ada", "x=epochs", eve),
        lambda: views.rename("of ada", "of eve", eve),
        lambda: views.delete("of ada", eve),
        lambda: views.delete("of ada", ["browser 1"]),
        lambda: views.delete("of the app", ada),
        lambda: views.delete("of the app", []),
        lambda: views.delete("of the app", [""]),
    ):
        with pytest.raises(FieldError, match="belongs to somebody else; save it under another name"):
            action()
    views.save("copy", views.all()["of ada"], eve)
    again = SavedViews(tmp_path)
    assert (again.own(ada), again.own(["browser 3", "login ada@uni.edu"]), again.own(eve), again.own(runs_the_app)) == (
        {"of ada"}, {"of ada"}, {"copy"}, {"of ada", "of the app", "copy"},
    )  # fmt: skip
    assert b"ada@uni.edu" not in again.path.read_bytes()
    views.save("of ada", "x=epochs", runs_the_app)
    views.delete("of ada", ada)
    assert set(views.all()) == {"of the app", "copy"}


def test_saved_views_that_cannot_be_read_are_one_line(tmp_path):
    open_directory(tmp_path)
    (tmp_path / "views.sqlite").write_bytes(b"not a database, and long enough to be looked at as one" * 20)
    with pytest.raises(StoreError, match="run `jsc-explore verify --repair`"):
        SavedViews(tmp_path).all()


def test_ten_cells_of_the_snapshot_read_by_plain_duckdb_show_the_same_figures(tmp_path):
    """The page's own path (grid, cells, table) against SQL written by hand over the file."""
    store = Store(tmp_path / "store", SNAPSHOT)
    slice = Slice(*AXES, None, "val_acc", RunConfig(), "d" * 64, tuple(BASE.items()), "", 5, True)
    rows = Repository(store).grid(slice)
    store.close()
    axes = {"batch_size": [16, 32, 64, 128, 256], "learning_rate": [1e-2, 1e-3]}
    # `max_epochs` and so on are those of the default config.
    cells = build_cells(RunConfig(), axes, "d" * 64, rows, [])
    assert len(cells) == 10
    shown = {(row["x"], row["y"]): row for row in grid_table(cells, AXES, "val_acc").to_pylist()}
    n_silent = 0
    for batch, rate in itertools.product(*axes.values()):
        where = " AND ".join(f"{name} = '{values[0]}'" for name, values in BASE.items())
        runs = duckdb.sql(
            f"SELECT val_acc, silent_classes FROM '{SNAPSHOT}' WHERE {where} AND batch_size = {batch} "
            f"AND abs(learning_rate / {rate} - 1) < 1e-9"
        ).fetchall()
        predicting = [value for value, silent in runs if not silent]
        values = [value for value, _ in runs]
        row = shown[str(batch), display_value("learning_rate", rate)]
        figure = statistics.median(predicting or values)
        assert row["first"] == f"{100 * figure:.1f}%"
        assert row["metric"] == pytest.approx(figure, abs=1e-12)
        silent = len(runs) - len(predicting)
        n_silent += silent
        if silent:
            assert f"in {silent} of {len(runs)} seeds" in row["tooltip"]
            assert f"median {100 * statistics.median(values):.1f}%, range {100 * min(values):.1f}%" in row["tooltip"]
        if len(predicting) > 1:
            # Of five seeds the 95% interval is their range, as of fewer, which claims nothing.
            name = "95% interval" if len(predicting) == 5 else "range"
            ends = f"{name} {100 * min(predicting):.1f}% to {100 * max(predicting):.1f}%"
            assert f"{100 * figure:.1f}% ({ends})" in row["tooltip"]
    assert n_silent, "some of the cells have a silent class"

"""The Overview page: all configs in one chart, hyperparameter importance, accuracy against cost, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import streamlit as st

from jsc_explore.analysis.importance import Ranking, importance
from jsc_explore.analysis.prediction import MAX_CELLS, MIN_CELLS, Calibration, predict
from jsc_explore.analysis.support import KINDS, Kind
from jsc_explore.charts import overview as charts
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.parallel import (
    brush_names,
    brushed,
    curve_table,
    parallel_chart,
    parallel_tables,
    thin_evenly,
    varying_fields,
)
from jsc_explore.charts.response import ResponseOptions
from jsc_explore.charts.style import QUANTITIES, difference_scale, format_metric, is_percentage, is_time, times_text
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.errors import FieldError, JscError
from jsc_explore.store.query.aggregates import CONFIG_FIELDS, cell_table, prediction_cells, training_times
from jsc_explore.store.query.grid import run_ids, stored_seeds
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model import response as view
from jsc_explore.view_model.page_links import explore_query
from jsc_explore.view_model.repository import response_rows
from jsc_explore.view_model.tables import MAX_COMMANDS, command
from jsc_explore.web.components import export_dialog, overview_sidebar, response
from jsc_explore.web.components.overview_sidebar import OverviewFilters
from jsc_explore.web.pages import explore
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import chart_registry, dialogs, presentation, services
from jsc_explore.web.state.url import EXPLORE, OVERVIEW


def page() -> None:
    """Draw the page."""
    OVERVIEW.restore()
    overview_sidebar.adopt_explore()
    try:
        store = services.store()
        store.refresh()
        selected = overview_sidebar.draw(store)
        presentation.apply_style()
        chart_registry.begin(f"overview of {selected}, version {store.version}")
        _draw_charts(store.version, selected, _cells(store.version, selected))
    except JscError as error:
        st.error(plain(error))
    OVERVIEW.write()


def _draw_charts(version: int, selected: OverviewFilters, table: pa.Table) -> None:
    metric = selected.metric
    if table.num_rows < 2:
        st.info(
            "Fewer than two configurations are finished for these data and these filters: train some on "
            "the Explore page, or change the filters on the left.",
            icon=":material/query_stats:",
        )
        return
    # The table is ordered by the metric. Put the best row last, also for metrics where lower is better.
    rows = table.to_pylist() if is_percentage(metric) else table.to_pylist()[::-1]
    fields = varying_fields(rows)
    title = _title(rows, fields, selected)
    with st.container(horizontal=True, vertical_alignment="center", key="head"):
        st.markdown(f"##### {plain(title)}", width="stretch")
        dialogs.button("export", "Export", ":material/download:", "Charts, tables and commands as files")
    overview_sidebar.draw_origin()
    # Its own fragment, so that a brush redraws nothing else.
    st.fragment(_coordinates)(version, selected, rows, fields)
    left, right = st.columns(2, gap="large")
    points = charts.point_table(rows, metric, fields)
    with left, st.container(key="half-response"):
        # Its own fragment, so that another hyperparameter redraws only this chart.
        st.fragment(_response)(version, selected, fields)
    with right, st.container(key="half-importance"):
        st.markdown("##### Hyperparameter importance")
        importance_place = st.empty()
    _tradeoffs(version, selected, rows, points, fields)
    calibration_place = st.container()
    dialogs.draw(
        {
            "export": lambda: export_dialog.charts_dialog(
                OVERVIEW,
                f"{title}.",
                OVERVIEW["dataset"],
                {"configurations": table, **chart_registry.tables()},
                _commands(rows),
            )
        }
    )
    # These two take seconds the first time, so they come after everything else.
    with importance_place.container(), st.spinner("Fitting random forests …", show_time=True):
        _importance(_ranking(version, selected), metric)
    with calibration_place, st.spinner("Holding out configurations …", show_time=True):
        _calibration(_measured(version, selected), metric, table.num_rows)


def _commands(rows: list[dict[str, Any]]) -> list[str]:
    """Return the command lines of the configs, best first."""
    best = rows[: -MAX_COMMANDS - 1 : -1]
    seeds = stored_seeds(services.store(), [row["config_id"] for row in best])
    return [command(RunConfig(**{name: row[name] for name in CONFIG_FIELDS}), seeds[row["config_id"]]) for row in best]


def _title(rows: list[dict[str, Any]], fields: list[str], selected: OverviewFilters) -> str:
    metric = selected.metric
    best, worst = rows[-1], rows[0]
    runs = sum(row["n_runs"] for row in rows)
    # Without the interval of the best: it holds for a config that was not chosen by its results.
    return (
        f"{runs:,} runs of {len(rows):,} configurations{selected.description}: {METRICS[metric]}, from "
        f"{format_metric(metric, worst['metric'])} to {format_metric(metric, best['metric'])}"
        + (f" ({charts.config_text(best, fields)})" if fields else "")
    )


def _coordinates(version: int, selected: OverviewFilters, rows: list[dict[str, Any]], fields: list[str]) -> None:
    metric, drawn = selected.metric, thin_evenly(rows)
    quantity = _curve_of(metric)
    curves = _curves(version, drawn, selected.text, quantity)
    lines, ticks = parallel_tables(rows, metric)
    titles = [*(FIELDS[name].label for name in fields), METRICS[metric].split(",")[0].capitalize()]
    alt_text = (
        f"Parallel coordinates: {', '.join(titles)}; below, the learning curves. The filters in the sidebar select the "
        "same ranges by keyboard as a drag along an axis."
    )
    with st.container(key="parallel"):
        make = partial(parallel_chart, lines, ticks, curves, titles, metric, quantity)
        selection = chart_registry.draw("coordinates", make, alt_text, "parallel-chart", list(brush_names(rows)))
    with st.container(horizontal=True, vertical_alignment="top", key="coordinates_below"):
        thinned = f"{_thinned(len(drawn), len(rows))} " if len(drawn) < len(rows) else ""
        st.caption(
            f"**Drag up or down along an axis** to keep the lines that pass there; double-click to show all. {thinned}"
            f"Each line is a configuration, coloured by the metric; below is its curve ({QUANTITIES[quantity]}, median "
            "over seeds). The filters in the sidebar do the same by keyboard, for all charts of the page."
        )
        _explore_button(*brushed(rows, selection))


def _explore_button(kept: Sequence[Mapping[str, Any]], axes: Sequence[str]) -> None:
    """Draw the button that opens Explore with these configs, those that the brushes on these axes keep."""
    query, why = {}, ""
    try:
        query = explore_query(EXPLORE, OVERVIEW, kept, axes) if kept else {}
    except FieldError as error:
        why = str(error)
    label = f"Show these {len(kept):,} in Explore" if len(kept) != 1 else "Show this one in Explore"
    if st.button(label, key="show-in-explore", icon=":material/grid_on:", disabled=not kept or bool(why),
                 help=why or None):  # fmt: skip
        st.switch_page(st.Page(explore.page, url_path="explore", default=True), query_params=query)


def _thinned(drawn: int, count: int) -> str:
    return f"{drawn} of {count:,} configurations are drawn, evenly from the worst to the best."


def _curve_of(metric: str) -> str:
    """Return the curve to show for a metric; validation curves also for test metrics, which have no curve."""
    return "val_loss" if metric.endswith("loss") else "val_acc"


def _response(version: int, selected: OverviewFilters, fields: list[str]) -> None:
    """Draw the metric against one hyperparameter, a line for each value of a second one."""
    st.markdown("##### Metric against one hyperparameter")
    chosen = response.controls(OVERVIEW, fields, *view.automatic_fields(fields))
    OVERVIEW.write()
    rows = _response_rows(version, selected, tuple(name for name in chosen if name))

    def make(theme: str) -> Figure:
        options = ResponseOptions(selected.metric, *chosen, theme, presentation.text_scale())
        return view.response_of(rows, options, fields).figures[0][1]

    drawn = view.response_of(rows, ResponseOptions(selected.metric, *chosen), fields)
    figure = chart_registry.register("metric_against", make, f"metric against {chosen}", drawn.table)
    st.vega_lite_chart(figure.arrow_spec(), key="metric_against", alt=figure.alt_text)
    st.caption(plain(f"{drawn.best} {drawn.legend}".strip()))


def _tradeoffs(
    version: int, selected: OverviewFilters, rows: list[dict[str, Any]], points: pa.Table, fields: list[str]
) -> None:
    st.markdown("##### Accuracy against cost")
    metric, times = selected.metric, _times(version, selected)
    timed = charts.timed_rows(rows, times)
    costs = [cost for cost in charts.COSTS if cost != "seconds" or not is_time(metric)]
    for column, cost in zip(st.columns(2, gap="large"), costs, strict=False):
        with column, st.container(key=f"half-{cost}"):
            if cost == "parameters" and "model" not in fields:
                size = points["parameters"][0].as_py()
                st.info(f"One size of network so far ({size:,} parameters): train another to compare sizes.",
                        icon=":material/hub:")  # fmt: skip
                continue
            drawn, shown = (timed, charts.point_table(timed, metric, fields)) if cost == "seconds" else (rows, points)
            if not drawn:
                st.info("No training time of these configurations is recorded.")
                continue
            front = charts.front_table(drawn, cost, metric, fields)
            alt_text = f"{METRICS[metric]} against {charts.COSTS[cost]}, with the Pareto front"
            make = partial(charts.tradeoff_chart, shown, front, cost, metric)
            chart_registry.draw(f"cost_{cost}", make, alt_text, f"cost-{cost}")
    thinned = f" {_thinned(points.num_rows, len(rows))}" if points.num_rows < len(rows) else ""
    machines: dict[str, list[str]] = {}
    for row in times:
        machines[row["device"]] = sorted({*machines.get(row["device"], []), row["backend"]})
    each = " Each machine has a front of its own." if len(machines) > 1 else ""
    front = f"Ringed: the Pareto front; nothing is better at the same or lower cost.{each}{thinned}"
    st.caption(f"{front} {plain(times_text(machines))}")


def _importance(ranking: Ranking, metric: str) -> None:
    if not ranking.fields:
        st.info(f"{ranking.reason}.", icon=":material/bar_chart:")
        return
    factor, unit = difference_scale(metric)
    make = partial(charts.importance_chart, ranking, metric)
    chart_registry.draw("importance", make, "Importance of the hyperparameters with intervals", "importance")
    error, baseline = ((factor * value) for value in (ranking.error or 0.0, ranking.baseline_error or 0.0))
    noise = "" if ranking.seed_noise is None else f"; noise of the seeds: {factor * ranking.seed_noise:.2g}{unit}"
    accuracy = (
        f"A random forest predicts an unseen configuration to {error:.2g}{unit} (the mean alone: {baseline:.2g}{unit}"
        f"{noise})."
    )
    if not ranking.beats_mean:
        st.warning(
            f"{accuracy} That is hardly better than guessing: do not rely on this ranking.", icon=":material/warning:"
        )
    st.caption(
        f"{accuracy if ranking.beats_mean else ''} Bars: how much that error grows when one hyperparameter is shuffled "
        f"among the unseen configurations; lines: interval, about 95%. {ranking.cells:,} configurations; "
        "hyperparameters that were varied together share their importance."
    )


def _calibration(found: Mapping[Kind, Calibration], metric: str, count: int) -> None:
    st.markdown("##### Calibration of predictions")
    if not found:
        st.info(f"{count} configurations; a prediction needs {MIN_CELLS}.", icon=":material/target:")
        return
    factor, unit = difference_scale(metric)
    left, right = st.columns(2, gap="large")
    with left, st.container(key="half-calibration"):
        alt_text = "Share of held-out configurations inside their band against its level, by kind of cell"
        chart_registry.draw("calibration", partial(charts.calibration_chart, found), alt_text, "calibration")
    with right, st.container(key="half-calibration-text"):
        for kind, one in found.items():
            st.markdown(
                f"**{100 * one.share:.0f}% of {one.held_out} held-out configurations {KINDS[kind]} lay inside their "
                f"80% band** (95% interval of that share: {100 * one.low:.0f} to {100 * one.high:.0f}%). Half of the "
                f"predictions were off by less than {factor * one.error:.2g}{unit}; half of the bands are narrower "
                f"than {factor * one.width:.2g}{unit}." + ("" if one.holds else " Such cells are not predicted.")
            )
        st.caption(
            "A Gaussian process predicts a missing cell from the measured cells, and only if some of them are near "
            "enough. To test it, measured cells were held out alone, with their row, or with all cells beyond them, of "
            "all networks or of one, predicted from the others and compared with their measured median over the "
            "seeds without a silent class. On the dashed line the bands contain exactly the share that they promise."
            + (f" Measured on the {MAX_CELLS} configurations around the default one." if count > MAX_CELLS else "")
        )


@st.cache_data(show_spinner=False, max_entries=16, hash_funcs={OverviewFilters: repr})
def _cells(version: int, selected: OverviewFilters) -> pa.Table:
    return cell_table(services.store(), selected.metric, selected.filters, selected.text)


@st.cache_data(show_spinner=False, max_entries=16, hash_funcs={OverviewFilters: repr})
def _times(version: int, selected: OverviewFilters) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = training_times(services.store(), selected.filters, selected.text).to_pylist()
    return rows


@st.cache_data(show_spinner=False, max_entries=64, hash_funcs={OverviewFilters: repr})
def _response_rows(version: int, selected: OverviewFilters, fields: tuple[str, ...]) -> list[dict[str, Any]]:
    return response_rows(services.store(), fields, selected.metric, selected.filters, selected.text)


@st.cache_data(show_spinner=False, max_entries=16)
def _curves(version: int, drawn: list[dict[str, Any]], text: str, quantity: str) -> pa.Table:
    store = services.store()
    runs = run_ids(store, {"config_id": [row["config_id"] for row in drawn]}, text)
    return curve_table(store.grouped_curves(runs, quantity), drawn)


@st.cache_data(show_spinner=False, max_entries=16, hash_funcs={OverviewFilters: repr})
def _ranking(version: int, selected: OverviewFilters) -> Ranking:
    return services.fits().call(importance, _cells(version, selected).to_pylist())


@st.cache_data(show_spinner=False, max_entries=16, hash_funcs={OverviewFilters: repr})
def _measured(version: int, selected: OverviewFilters) -> Mapping[Kind, Calibration]:
    cells = prediction_cells(services.store(), selected.metric, selected.filters, selected.text)
    return services.fits().call(predict, cells, [], selected.metric).calibrations

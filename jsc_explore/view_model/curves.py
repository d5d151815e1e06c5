"""The learning curves a view asks for: what is drawn, how it looks, and what must be said about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from jsc_explore.analysis.cells import Cell, in_order
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.charts.curves import (
    MEANS,
    PREDICTIONS,
    PlotOptions,
    count_nonpositive,
    curve_figure,
    curve_tables,
    prediction_table,
    quantities_of,
    value_range,
)  # fmt: skip
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.imported import with_imported
from jsc_explore.charts.style import BAND_KINDS, METRIC_PAIRS, PRESENTATION_SCALE
from jsc_explore.config import FIELDS, format_number, format_value
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.store.query.curves import CurvePoints
from jsc_explore.view_model import curve_selection
from jsc_explore.view_model.grid import TIMES, selected_of
from jsc_explore.view_model.imported_runs import drawn_of, last_epoch, reach, readings
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import CELLS, NONE

# From here on a linear axis hides the first epoch, in which most of the learning happens.
LOG_FROM_EPOCHS = 20


@dataclass(frozen=True)
class Panels:
    """The drawn charts with their titles (one, without a title, where there are no panels), and what must be said.

    ``configs`` are the ids of those in colour; ``cells`` counts the chosen cells.
    """

    figures: list[tuple[str, Figure]]
    notes: list[str]
    cells: int
    configs: tuple[str, ...] = ()


def panels(
    repository: Repository,
    state: Mapping[str, Any],
    slice: Slice,
    cells: Sequence[Cell],
    live: Mapping[str, Sequence[Any]],
    theme: str,
    imported: Sequence[ImportedRun] = (),
    predicted: Mapping[str, Prediction] | None = None,
) -> Panels:
    """Return the charts that a state asks for: one, or one for each value of the field chosen under Panels by.

    ``imported`` runs are drawn over each of them; they enter nothing else. ``predicted`` holds, by config id, what was
    expected of the metric before it was trained; it stays under the curves.
    """
    selected = selected_of(cells, state[CELLS])
    dash = state["dash"] if state["curve"] not in METRIC_PAIRS else NONE
    drawn = curve_selection.select_curves(repository, slice, cells, selected, state["colour"], dash)
    growing = curve_selection.live_points(cells, live)
    quantities = quantities_of(state["curve"])
    picked, behind = curve_selection.points(
        repository, slice, drawn, state["curve_x"], quantities, state["zoom"], growing
    )
    others, unknown = drawn_of(imported, state["imported"])
    if not picked.means.num_rows and not behind.means.num_rows and not others:
        return Panels([], [], 0)
    options = _plot_options(state, slice, drawn, theme, last_epoch(others))
    imported_readings, more = readings(
        others,
        options.x,
        options.metric,
        x_range=state["zoom"],
        log=(options.log_x, options.log_y),
        smoothing=options.smoothing,
    )
    titled = _titled(state["curve_facet"], drawn)
    parts = [part for _, part in titled]
    tables = [_tables(picked, behind, part, options) for part in parts]
    for part, table in zip(parts, tables, strict=True):
        table[PREDICTIONS] = _expected(state, slice, table[MEANS], part, predicted or {})
    expected = any(table[PREDICTIONS].num_rows for table in tables)
    fixed = replace(
        options,
        y_range=reach(value_range(tables, options), imported_readings, options),
        show_predictions=expected,
        width_fraction=1.0 if len(titled) == 1 else 0.5,
    )
    figures = [
        (title, with_imported(curve_figure(table, part.groups, part.dashes, fixed), imported_readings, fixed))
        for (title, part), table in zip(titled, tables, strict=True)
    ]
    return Panels(
        figures,
        [*_notes(picked, drawn, options), *unknown, *more],
        len(selected),
        tuple(one.config_id for one in drawn.configs),
    )


def _titled(field: str, drawn: curve_selection.CurveSelection) -> list[tuple[str, curve_selection.CurveSelection]]:
    """Return what each panel shows, with its title; one without a title where there is no field to part by."""
    if field == NONE:
        return [("", drawn)]
    owners: dict[Any, set[str]] = {}
    for config in (*drawn.configs, *drawn.context):
        owners.setdefault(config.fields[field], set()).add(config.config_id)
    shown = {config.fields[field] for config in drawn.configs} or set(owners)
    return [
        (f"{FIELDS[field].label}: {format_value(field, value)}", curve_selection.subset(drawn, owners[value]))
        for value in in_order(field, shown)
    ]


def _tables(
    picked: CurvePoints, behind: CurvePoints, drawn: curve_selection.CurveSelection, options: PlotOptions
) -> dict[str, pa.Table]:
    return curve_tables(pa.concat_tables([picked.means, behind.means]), picked.seeds, drawn.lines, options)


def _expected(
    state: Mapping[str, Any],
    slice: Slice,
    means: pa.Table,
    drawn: curve_selection.CurveSelection,
    predicted: Mapping[str, Prediction],
) -> pa.Table:
    """Return what the drawn configs were expected to score, where the curves are those of the metric."""
    fits = slice.metric in quantities_of(state["curve"]) and not state["zoom"]
    ends = {config.config_id: float(config.fields["max_epochs"]) for config in drawn.configs}
    ends = ends if state["curve_x"] == "epoch" else {}
    return prediction_table(means, drawn.lines, predicted if fits else {}, slice.metric, ends)


def _plot_options(
    state: Mapping[str, Any], slice: Slice, drawn: curve_selection.CurveSelection, theme: str, least: float
) -> PlotOptions:
    epochs = max((config.fields["max_epochs"] for config in drawn.configs), default=slice.base.max_epochs)
    log_x = state["x_scale"] == "log" or (state["x_scale"] == "auto" and epochs >= LOG_FROM_EPOCHS)
    # Fixed where curves grow: the axis stands still under the reader.
    end = (0.0, max(float(epochs), least)) if state["curve_x"] == "epoch" and not log_x else None
    return PlotOptions(
        x=state["curve_x"], metric=state["curve"], band=state["band"], log_x=log_x, log_y=state["log_y"],
        seed_lines=state["seed_lines"],
        smoothing=state["smoothing"], x_range=state["zoom"] or end, theme=theme,
        size=PRESENTATION_SCALE if state["presentation"] else 1.0, ordered=drawn.ordered,
        titles=drawn.titles,
    )  # fmt: skip


def _notes(picked: CurvePoints, drawn: curve_selection.CurveSelection, options: PlotOptions) -> list[str]:
    notes = list(drawn.notes)
    if picked.stride > 1:
        notes.append(
            f"Every {_ordinal(picked.stride)} point of {picked.total:,} is drawn; drag over the chart to zoom in on all"
        )
    if lost := count_nonpositive(picked.seeds, options):
        notes.append(f"{lost} points are not above zero and have no place on a logarithmic axis")
    if options.smoothing:
        notes.append(f"Smoothed ({options.smoothing:g}); thin: the raw mean")
    return notes


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def legend(state: Mapping[str, Any], imported: bool = False, expected: bool = False) -> str:
    """Say what the lines, bands and signs of the curves mean."""
    parts = ["Line: mean over seeds"]
    if state["band"] != "none":
        parts.append(f"band: {BAND_KINDS[state['band']]}")
    if state["seed_lines"]:
        parts.append("faint: every seed")
    if expected:
        parts.append("diamond and bar: predicted before it was trained, with its 80% band")
    parts += ["†: never predicts that class", "grey: the other cells"]
    parts += ["dashed, with a name: imported, in no mean"] if imported else []
    times = f" {TIMES}" if state["curve_x"] == "time_s" else ""
    zoom = ""
    if state["zoom"]:
        low, high = (format_number(float(f"{end:.3g}")) for end in state["zoom"])
        zoom = f" Zoomed to {low} to {high}."
    return "; ".join(parts) + ". Click a name in the legend to see it alone." + zoom + times

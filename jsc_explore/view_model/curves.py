"""The learning curves of a page's state: their charts, legend text and notes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from jsc_explore.analysis.cells import Cell, in_order
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.charts.curves import (
    CONTEXT,
    MEDIANS,
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
from jsc_explore.charts.style import BAND_KINDS, METRIC_PAIRS, PRESENTATION_SCALE, QUANTITIES, SILENT_SIGN, times_text
from jsc_explore.config import FIELDS, display_value, format_number
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.results import CURVE_PREFIX
from jsc_explore.store.query.curves import CurvePoints
from jsc_explore.store.schema import OPTIONAL
from jsc_explore.view_model.curve_selection import (
    MAX_CONTEXT,
    CurveSelection,
    live_table,
    read_points,
    select_curves,
    subset,
)
from jsc_explore.view_model.grid import selected_of
from jsc_explore.view_model.imported_runs import last_epoch, readings_table, select_imported
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import AUTO, CELLS, NONE

# Of more lines than these, seeds, bands and grey curves hide one another: then they are not drawn by default.
MAX_DETAILED = 3
# A training shorter than the longest one by more than this factor would vanish on a linear axis.
VANISHING_RATIO = 8
# Quantities that runs of older files lack.
_LATER = frozenset(name for name in QUANTITIES if CURVE_PREFIX + name in OPTIONAL)


@dataclass(frozen=True)
class Shown:
    """What is drawn beside the medians: each seed, the band (a key of ``BAND_KINDS``), the other cells in grey."""

    seeds: bool = True
    band: str = "interval"
    context: bool = True


@dataclass(frozen=True)
class Panels:
    """Charts of curves with their titles (without facets one chart, its title empty), and notes about them.

    ``cells`` is the number of selected cells, ``configs`` the ids of the configs in colour, ``shown`` what stands
    beside their medians.
    """

    figures: list[tuple[str, Figure]]
    notes: list[str]
    cells: int
    configs: tuple[str, ...] = ()
    shown: Shown = Shown()


def _shown(state: Mapping[str, Any], selection: CurveSelection) -> Shown:
    """Return what is drawn beside the medians: what the state says, or by default all of up to three lines."""
    few = len(selection.configs) * len(quantities_of(state["curve"])) <= MAX_DETAILED

    def is_on(choice: str) -> bool:
        return few if choice == AUTO else choice == "yes"

    band = state["band"] if state["band"] != AUTO else "interval" if few else NONE
    return Shown(is_on(state["seed_lines"]), band, is_on(state["context"]))


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
    """Return the charts of a state: one, or one for each value of the field under Facet by.

    ``imported`` runs are drawn over each chart and enter no median. ``predicted`` holds predictions of the metric by
    config id, made before the configs were trained; they are drawn beneath the curves.
    """
    selected = selected_of(cells, state[CELLS])
    dash = state["dash"] if state["curve"] not in METRIC_PAIRS else NONE
    selection = select_curves(repository, slice, cells, selected, state["colour"], dash)
    quantities = quantities_of(state["curve"])
    live_rows = live_table(cells, live)
    points, context = read_points(repository, slice, selection, state["curve_x"], quantities, state["zoom"], live_rows)
    shown = _shown(state, selection)
    imported_shown, unknown = select_imported(imported, state["imported"])
    if not (points.seeds.num_rows or context.groups.num_rows or imported_shown):
        return Panels([], _unrecorded(points, selection, state, quantities, cells), 0, shown=shown)
    options = _plot_options(state, slice, selection, shown, theme, last_epoch(imported_shown))
    readings, thinned = readings_table(
        imported_shown,
        options.x,
        options.metric,
        x_range=state["zoom"],
        log=(options.log_x, options.log_y),
        smoothing=options.smoothing,
    )
    facets = _facets(state["curve_facet"], selection)
    groups = pa.concat_tables([points.groups, context.groups])
    tables = fitted = [curve_tables(groups, points.seeds, facet.styles, options) for _, facet in facets]
    for (_, facet), table in zip(facets, tables, strict=True):
        table[PREDICTIONS] = _predictions(state, slice, table[MEDIANS], facet, predicted or {})
    if not shown.context:
        without = [{**table, CONTEXT: table[CONTEXT].slice(0, 0)} for table in tables]
        # While a run trains, the axis already has room for values like those of the other cells.
        tables, fitted = without, tables if live_rows is not None else without
    options = replace(
        options,
        y_range=value_range(fitted, options, [readings["value"]]),
        show_predictions=any(table[PREDICTIONS].num_rows for table in tables),
        width_fraction=1.0 if len(facets) == 1 else 0.5,
    )
    figures = [
        (title, with_imported(_figure(table, facet, options), readings, options))
        for (title, facet), table in zip(facets, tables, strict=True)
    ]
    notes = _notes(points, selection, options) + _unrecorded(points, selection, state, quantities, cells)
    notes += [*unknown, *thinned]
    return Panels(figures, notes, len(selected), tuple(config.config_id for config in selection.configs), shown)


def _figure(table: Mapping[str, pa.Table], facet: CurveSelection, options: PlotOptions) -> Figure:
    drawn = {style.group for style in facet.styles.values() if style.highlighted}
    return curve_figure(table, facet.groups, facet.dashes, options, sorted(drawn))


def _facets(field: str, selection: CurveSelection) -> list[tuple[str, CurveSelection]]:
    """Return title and curves of each facet; all curves, without a title, if the field is ``NONE``."""
    if field == NONE:
        return [("", selection)]
    ids: dict[Any, set[str]] = {}
    for config in (*selection.configs, *selection.context):
        ids.setdefault(config.fields[field], set()).add(config.config_id)
    values = {config.fields[field] for config in selection.configs} or set(ids)
    return [
        (f"{FIELDS[field].label}: {display_value(field, value)}", subset(selection, ids[value]))
        for value in in_order(field, values)
    ]


def _predictions(
    state: Mapping[str, Any],
    slice: Slice,
    medians: pa.Table,
    selection: CurveSelection,
    predicted: Mapping[str, Prediction],
) -> pa.Table:
    """Return the predictions to draw; none if the curves show another metric or a zoomed range."""
    fits = slice.metric in quantities_of(state["curve"]) and not state["zoom"]
    ends = {config.config_id: float(config.fields["max_epochs"]) for config in selection.configs}
    ends = ends if state["curve_x"] == "epoch" else {}
    return prediction_table(medians, selection.styles, predicted if fits else {}, slice.metric, ends)


def _plot_options(
    state: Mapping[str, Any], slice: Slice, selection: CurveSelection, shown: Shown, theme: str, min_end: float
) -> PlotOptions:
    lengths = [config.fields["max_epochs"] for config in selection.configs] or [slice.base.max_epochs]
    epochs = max(lengths)
    log_x = state["x_scale"] == "log" or (
        state["x_scale"] == AUTO
        and (state["curve_x"] in ("step", "samples", "lr_sum") or epochs > VANISHING_RATIO * min(lengths))
    )
    # A fixed range, so that the axis does not move while runs train.
    epoch_range = (0.0, max(float(epochs), min_end)) if state["curve_x"] == "epoch" and not log_x else None
    return PlotOptions(
        x=state["curve_x"], metric=state["curve"], band=shown.band, log_x=log_x, log_y=state["log_y"],
        seed_lines=shown.seeds, show_context=shown.context,
        smoothing=state["smoothing"], x_range=state["zoom"] or epoch_range, theme=theme,
        size=PRESENTATION_SCALE if state["presentation"] else 1.0, ordered=selection.ordered, titles=selection.titles,
    )  # fmt: skip


def _notes(points: CurvePoints, selection: CurveSelection, options: PlotOptions) -> list[str]:
    notes = list(selection.notes)
    if options.show_context and selection.others > MAX_CONTEXT:
        notes.append(f"grey: {MAX_CONTEXT} of {selection.others:,} other configs")
    if points.stride > 1:
        notes.append(
            f"Every {_ordinal(points.stride)} point of {points.total:,} is drawn; drag over the chart to zoom in on all"
        )
    if left_out := count_nonpositive(points.seeds, options):
        notes.append(f"{left_out} points are not above zero and cannot be drawn on a logarithmic axis")
    if options.smoothing:
        notes.append(f"Smoothed ({options.smoothing:g}); thin: the raw median")
    return notes


def _unrecorded(
    points: CurvePoints, selection: CurveSelection, state: Mapping[str, Any], quantities: Sequence[str],
    cells: Sequence[Cell],
) -> list[str]:  # fmt: skip
    """Return a note if finished runs lack a quantity because they were trained before it was recorded."""
    active = {cell.config_id for cell in cells if cell.active}
    finished = {config.config_id: config.n for config in selection.configs if config.config_id not in active}
    name = next((name for name in quantities if name in _LATER), None)
    # Within an epoch there are no points of these quantities.
    if name is None or state["zoom"]:
        return []
    seeds = points.seeds.filter(pa.compute.equal(points.seeds["quantity"], name))
    seeds = seeds.filter(pa.compute.is_in(seeds["config_id"], pa.array([*finished], pa.string())))
    missing, total = sum(finished.values()) - pa.compute.count_distinct(seeds["run_id"]).as_py(), sum(finished.values())
    return [f"{QUANTITIES[name]}: not recorded for {missing} of {total} runs"] if missing else []


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def legend(
    state: Mapping[str, Any],
    shown: Shown,
    imported: bool = False,
    predicted: bool = False,
    machines: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """Return the meaning of the lines, bands and signs of the curves; ``machines`` as in ``grid.legend_text``."""
    parts = [
        "Line: median of the seeds without a silent class, as far as all of them have come",
        "thin and dotted: of those with one",
    ]
    if state["curve"] in METRIC_PAIRS:
        parts.append(
            "solid: validation jets; dashed: as many training jets; both in evaluation mode, so that their gap is the "
            "overfitting (none shows where the validation data are the training data)"
        )
    if shown.band != NONE:
        parts.append(f"band: {BAND_KINDS[shown.band]}")
    if shown.seeds:
        parts.append("faint: every seed")
    if predicted:
        parts.append("diamond and bar: predicted before training, with its 80% band")
    parts.append(SILENT_SIGN)
    parts += ["grey: the other cells"] if shown.context else []
    parts += ["dashed, with a name: imported, in no median"] if imported else []
    times = f" {times_text(machines or {})}" if state["curve_x"] == "time_s" else ""
    zoom = ""
    if state["zoom"]:
        low, high = (format_number(float(f"{end:.3g}")) for end in state["zoom"])
        zoom = f" Zoomed to {low} to {high}."
    return "; ".join(parts) + ". Click a name to see its line alone." + zoom + times

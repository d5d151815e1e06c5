"""The Compare page: two configs side by side, their differing fields, metrics, curves and classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import pyarrow as pa
import streamlit as st

from jsc_explore import data
from jsc_explore.analysis.classes import count_silent
from jsc_explore.analysis.paired import Difference, Family, compare, family_of, needed_text, reason_text, verdict_text
from jsc_explore.analysis.silent_rates import MIN_RATE_SEEDS, RateDifference, compare_rates, rates_text
from jsc_explore.analysis.support import KINDS
from jsc_explore.charts import compare as charts
from jsc_explore.charts.style import (
    BAND_KINDS,
    QUANTITIES,
    SILENT_SIGN,
    difference_scale,
    format_metric,
    format_seeds,
    is_percentage,
    is_time,
    silent_text,
    times_text,
)  # fmt: skip
from jsc_explore.config import DEFAULT_SEEDS, FIELDS, RECIPE_VERSION, RunConfig, display_value
from jsc_explore.data.glossary import CLASS_NAMES
from jsc_explore.data.jets import CLASSES
from jsc_explore.errors import JscError
from jsc_explore.jobs.estimate import estimate_time
from jsc_explore.store.query.aggregates import CONFIG_FIELDS, machines, seed_metrics, seed_table
from jsc_explore.store.query.grid import stored_seeds
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model.tables import command
from jsc_explore.view_model.url_params import write_config
from jsc_explore.web.components import class_comparison, export_dialog, permissions
from jsc_explore.web.components.class_comparison import Runs
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import chart_registry, compare_selection, dialogs, presentation, services
from jsc_explore.web.state.live import LiveSnapshot
from jsc_explore.web.state.predictions import predict
from jsc_explore.web.state.url import COMPARE

REFRESH_S = 1.0
RECALL_HEIGHT = 190


def page() -> None:
    """Draw the page."""
    COMPARE.restore()
    try:
        store = services.store()
        services.start_engine()
        snapshot = services.live().snapshot()
        permissions.draw_status()
        left, middle, right = st.columns([4, 4, 4], vertical_alignment="bottom")
        metric = COMPARE.widget(
            left.selectbox, "metric", "Metric", list(METRICS), format_func=lambda name: METRICS[name].capitalize()
        )
        curve = COMPARE.widget(
            middle.selectbox, "curve", "Curve metric", list(QUANTITIES),
            format_func=lambda name: QUANTITIES[name].capitalize(),
        )  # fmt: skip
        pair = compare_selection.select_pair(store, metric)
        COMPARE.write()
        presentation.apply_style()
        if pair is None:
            st.info("There are no two finished configurations to compare: train some on the Explore page.",
                    icon=":material/compare_arrows:")  # fmt: skip
            return
        with right, st.container(horizontal=True, horizontal_alignment="right"):
            st.button("Swap A and B", icon=":material/swap_vert:", on_click=compare_selection.swap)
            dialogs.button("export", "Export", ":material/download:", "Charts, tables and commands as files")
        active = bool(snapshot.active)
        st.fragment(_body, run_every=REFRESH_S if active else None)(pair, metric, curve, active)
        dialogs.draw({"export": partial(_export, pair, metric)})
    except JscError as error:
        st.error(plain(error))


def _export(pair: tuple[RunConfig, RunConfig], metric: str) -> None:
    """Draw the export dialog with the charts, all runs of both configs and the commands that reproduce them."""
    store = services.store()
    ids = [config.config_id(data.digest(config.dataset)) for config in pair]
    seeds = stored_seeds(store, ids)
    lines = [command(config, seeds.get(id_, range(DEFAULT_SEEDS))) for config, id_ in zip(pair, ids, strict=True)]
    a, b = (write_config(config) for config in pair)
    title = f"{METRICS[metric].capitalize()}: A is {a}, B is {b}."
    export_dialog.charts_dialog(
        COMPARE, title, pair[0].dataset, {"seeds": _flatten(seed_table(store, ids, metric))}, lines
    )


def _flatten(seeds: pa.Table) -> pa.Table:
    """Return one row a run, with a column for each class instead of lists, which CSV cannot hold."""
    rows = [
        {
            **{name: row[name] for name in ("run_id", "config_id", "seed", "status", "metric")},
            "silent_classes": " ".join(row["silent_classes"] or ()),
            "zero_output_share": row["zero_output_share"],
            **{
                f"{metric}_{name}": row[metric][i] if row[metric] else None
                for metric in ("auc", "rejection")
                for i, name in enumerate(CLASSES)
            },
        }
        for row in seeds.to_pylist()
    ]
    return pa.Table.from_pylist(rows)


def _body(pair: tuple[RunConfig, RunConfig], metric: str, curve: str, was_active: bool) -> None:
    permissions.draw_notice()
    try:
        snapshot = services.live().snapshot()
        if bool(snapshot.active) != was_active and not dialogs.is_open():
            # Only a run of the whole page starts or stops the refresh of this fragment.
            st.rerun()
        _draw(pair, metric, curve, snapshot)
    except JscError as error:
        st.error(plain(error))


def _draw(pair: tuple[RunConfig, RunConfig], metric: str, curve: str, snapshot: LiveSnapshot) -> None:
    store = services.store()
    ids = {side: config.config_id(data.digest(config.dataset)) for side, config in zip(charts.SIDES, pair, strict=True)}
    table = seed_table(store, list(ids.values()), metric).to_pylist()
    runs: Runs = {side: [row for row in table if row["config_id"] == config_id] for side, config_id in ids.items()}
    chart_registry.begin(f"comparison of {pair}, {metric}, {curve}, version {store.version}")
    _draw_verdict(pair, runs, metric, snapshot)
    for side, config in zip(charts.SIDES, pair, strict=True):
        if not _draw_progress(side, ids[side], snapshot) and not runs[side]:
            _draw_missing(side, config, metric)
    if not any(runs.values()):
        return
    _draw_curves(ids, runs, metric, curve)
    _draw_recalls(ids)
    class_comparison.confusions(runs)
    class_comparison.separation(runs)


# ---- the difference


def _draw_verdict(pair: tuple[RunConfig, RunConfig], runs: Runs, metric: str, snapshot: LiveSnapshot) -> None:
    factor, unit = difference_scale(metric)
    difference, rates = _difference(pair, runs, metric), _rates(runs)
    silent = any(rates.silent) and not is_time(metric)
    withheld = silent and 0 < rates.n < MIN_RATE_SEEDS
    if withheld:
        text = f"No verdict: some class is silent, and {rates.n} seeds do not show how often"
    elif silent and rates.n and not difference.n:
        text = "There is no seed of each without a silent class"
    else:
        text = verdict_text(difference, unit, factor)
        text += " among the seeds without a silent class" if silent else ""
    st.markdown(f"##### {text[0].upper()}{text[1:]}")
    medians = "; ".join(f"{side} {_median_text(runs[side], metric)}" for side in charts.SIDES)
    paired = f"; paired by seed, {difference.n} in common" if difference.n else ""
    st.markdown(f"{_changes_text(*pair)}  \n{METRICS[metric].capitalize()}: {medians}{paired}.")
    if is_time(metric):
        ids = [config.config_id(data.digest(config.dataset)) for config in pair]
        st.caption(plain(times_text(machines(services.store(), {"config_id": ids}))))
    if silent:
        counts = {side: _counts_text(count_silent(runs[side]), len(runs[side])) for side in charts.SIDES}
        lines = [f"**{SILENT_SIGN}.**", rates_text(rates)]
        lines += [f"{side}: {text}." for side, text in counts.items() if text]
        st.warning("  \n".join(lines), icon=":material/heart_broken:")
    if withheld:
        _draw_more_seeds(pair, MIN_RATE_SEEDS, snapshot, f"A verdict needs {MIN_RATE_SEEDS} seeds of each.")
    elif advice := f"{reason_text(difference)} {needed_text(difference)}".strip():
        needed = difference.needed.measured if difference.needed and not difference.decided else None
        _draw_more_seeds(pair, needed or 0, snapshot, advice)


def _draw_more_seeds(pair: tuple[RunConfig, RunConfig], seeds: int, snapshot: LiveSnapshot, advice: str) -> None:
    """Draw advice, and a button that trains the missing ones of the first ``seeds`` seeds of A and B, if any."""
    text, button = st.columns([5, 2], vertical_alignment="center")
    text.caption(advice)
    ids = [config.config_id(data.digest(config.dataset)) for config in pair]
    stored = stored_seeds(services.store(), ids)
    active = {(job.config_id, job.config.seed) for job in snapshot.active}
    runs = [
        config.with_(seed=seed)
        for config, config_id in zip(pair, ids, strict=True)
        for seed in range(seeds)
        if seed not in stored.get(config_id, ()) and (config_id, seed) not in active
    ]
    if runs:
        refusal, time = permissions.refusal(), estimate_time(services.store(), runs)
        button.button(
            f"Train up to {seeds} seeds of each", key="train-more", on_click=permissions.train, args=(runs,),
            help=refusal or f"{len(runs)} runs, expected: {time}",
            disabled=bool(refusal), width="stretch",
        )  # fmt: skip


def _difference(pair: tuple[RunConfig, RunConfig], runs: Runs, metric: str) -> Difference:
    """Return the difference of the finished runs without a silent class, of times that of all."""
    a, b = (
        {
            row["seed"]: row["metric"]
            for row in runs[side]
            if _is_finished(row) and (is_time(metric) or not row["silent_classes"])
        }
        for side in charts.SIDES
    )
    ids = tuple(config.config_id(data.digest(config.dataset)) for config in pair)
    family = None if is_time(metric) else _family(services.store().version, (ids[0], ids[1]), metric, pair)
    return compare(a, b, higher_is_better=is_percentage(metric), family=family)


@st.cache_data(show_spinner=False, max_entries=64)
def _family(version: int, ids: tuple[str, str], metric: str, _pair: tuple[RunConfig, RunConfig]) -> Family | None:
    """Return the configs that differ from A and B in nothing but the fields in which these two differ."""
    a, b = _pair
    filters = {name: [getattr(a, name)] for name in CONFIG_FIELDS if getattr(a, name) == getattr(b, name)}
    filters |= {"data_digest": [data.digest(a.dataset)], "recipe_version": [RECIPE_VERSION]}
    metrics: dict[str, dict[int, float]] = {}
    for row in seed_metrics(services.store(), metric, filters).to_pylist():
        if not row["silent"]:
            metrics.setdefault(row["config_id"], {})[row["seed"]] = row["metric"]
    return family_of(metrics, *ids)


def _rates(runs: Runs) -> RateDifference:
    a, b = (
        {row["seed"]: bool(row["silent_classes"]) for row in runs[side] if _is_finished(row)} for side in charts.SIDES
    )
    return compare_rates(a, b)


def _is_finished(row: Mapping[str, Any]) -> bool:
    return row["metric"] is not None and row["status"] == "done"


def _median_text(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Return the median of the seeds without a silent class; where others have one, also median and range of all."""
    finished = [row for row in rows if _is_finished(row)]
    if not finished:
        return "diverged" if rows else "not trained yet"
    complete = [row["metric"] for row in finished if is_time(metric) or not row["silent_classes"]]
    text = f"median of {len(complete)}: {format_seeds(metric, complete)}" if complete else ""
    if len(complete) == len(finished):
        return text
    values = [row["metric"] for row in finished]
    middle, low, high = (format_metric(metric, figure(values)) for figure in (median, min, max))
    return ", ".join(filter(None, [text, f"median of all {len(values)}: {middle} (range {low} to {high})"]))


def _changes_text(a: RunConfig, b: RunConfig) -> str:
    names = [name for name in CONFIG_FIELDS if getattr(a, name) != getattr(b, name)]
    if not names:
        return "A and B are the same configuration: change a value above."
    parts = [
        f"**{FIELDS[name].label}** {display_value(name, getattr(a, name))} → {display_value(name, getattr(b, name))}"
        for name in names
    ]
    return "From A to B: " + ", ".join(parts) + "."


def _counts_text(counts: Mapping[str, int], runs: int) -> str:
    parts = [f"{CLASS_NAMES[name]} is silent in {count} of {runs} seeds" for name, count in counts.items()]
    return ", ".join(parts)


def _draw_progress(side: str, config_id: str, snapshot: LiveSnapshot) -> bool:
    """Draw the progress of a config's training, if any of its seeds is active; return whether one is."""
    jobs = [job for job in snapshot.active if job.config_id == config_id]
    if jobs:
        share = sum(job.share_done for job in jobs) / len(jobs)
        st.progress(share, text=f"{side} is being trained: {len(jobs)} seed{'s' if len(jobs) > 1 else ''}")
    return bool(jobs)


def _draw_missing(side: str, config: RunConfig, metric: str) -> None:
    """Draw a note that a config has no run, the predicted metric, and a button that trains it."""
    runs = [config.with_(seed=seed) for seed in range(DEFAULT_SEEDS)]
    text, button = st.columns([5, 2], vertical_alignment="center")
    text.info(f"{side} is not trained yet. {_prediction_text(config, metric)}", icon=":material/pending:")
    refusal = permissions.refusal()
    button.button(
        f"Train {DEFAULT_SEEDS} seeds", key=f"train-{side}", type="primary", on_click=permissions.train, args=(runs,),
        help=refusal or f"Expected: {estimate_time(services.store(), runs)}",
        disabled=bool(refusal),
        width="stretch",
    )  # fmt: skip


def _prediction_text(config: RunConfig, metric: str) -> str:
    predicted = predict([config], metric)
    found = predicted.predictions[0]
    if found is None:
        return "There are too few similar runs to predict its metric."
    calibration = predicted.calibrations[found.kind]
    low, high = (format_metric(metric, end) for end in (found.low, found.high))
    return (
        f"Predicted: {format_metric(metric, found.value)}, 80% band {low} to {high} (it lies {KINDS[found.kind]}: "
        f"{100 * calibration.share:.0f}% of {calibration.held_out} such held-out cells lay inside their bands)."
    )


# ---- the curves


def _draw_curves(ids: Mapping[str, str], runs: Runs, metric: str, quantity: str) -> None:
    version = services.store().version
    left, right = st.columns([1, 2], gap="large")
    rows = [
        {"side": side, "seed": row["seed"], "metric": row["metric"], "silent": _silent_text(row)}
        for side in charts.SIDES
        for row in runs[side]
    ]
    seeds = pa.Table.from_pylist(rows, schema=_SEEDS)
    with left, st.container(key="third-paired"):
        chart_registry.draw(
            "seeds", lambda theme: charts.seed_chart(seeds, metric, theme),
            f"{METRICS[metric]} of each seed of A and B", "paired",
        )  # fmt: skip
    bands, seed_lines = _curve_tables(version, dict(ids), quantity)
    if not seed_lines.num_rows and any(runs.values()):
        right.info(f"{QUANTITIES[quantity].capitalize()}: not recorded for these runs.", icon=":material/show_chart:")
    with right, st.container(key="third-growth"):
        chart_registry.draw(
            "curves", lambda theme: charts.learning_curve_chart(bands, seed_lines, quantity, theme),
            f"{QUANTITIES[quantity]} of A and B over the epochs", "growth",
        )  # fmt: skip
    st.caption(
        ":blue[**A**] and :orange[**B**]. Left: every seed, joined to itself; a triangle has a silent class. Right: "
        f"median of the seeds without one (band: {BAND_KINDS['interval']}), every seed faint; dashed: seeds with a "
        "silent class, and their median."
    )


def _draw_recalls(ids: Mapping[str, str]) -> None:
    st.markdown("##### Recall per class", help="Share of the validation jets of a class that are recognised")
    version = services.store().version
    for column, name in zip(st.columns(len(CLASSES)), CLASSES, strict=True):
        quantity = f"recall_{name}"
        bands, seed_lines = _curve_tables(version, dict(ids), quantity)
        make = partial(
            charts.learning_curve_chart, bands, seed_lines, quantity, title=CLASS_NAMES[name], height=RECALL_HEIGHT
        )
        with column, st.container(key=f"fifth-{name}"):
            alt_text = f"{QUANTITIES[quantity]} of A and B over the epochs"
            chart_registry.draw(f"recall_{name}", make, alt_text, f"recall-{name}")


def _silent_text(run: Mapping[str, Any]) -> str | None:
    names = [CLASS_NAMES[name] for name in CLASSES if name in run["silent_classes"]]
    return silent_text(names, run["zero_output_share"]) if names else None


@st.cache_data(show_spinner=False, max_entries=64)
def _curve_tables(version: int, ids: dict[str, str], quantity: str) -> tuple[pa.Table, pa.Table]:
    store = services.store()
    run_ids = store.runs({"config_id": list(ids.values())}, ["run_id"])["run_id"].to_pylist()
    return charts.learning_curve_tables(
        store.grouped_curves(run_ids, quantity), store.curves(run_ids, ["epoch", quantity]), ids, quantity
    )


_SEEDS = pa.schema([("side", pa.string()), ("seed", pa.int64()), ("metric", pa.float64()), ("silent", pa.string())])

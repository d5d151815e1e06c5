"""The charts of the Overview page: importance, metric against cost, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import pyarrow as pa

from jsc_explore.analysis.cells import pareto_front
from jsc_explore.analysis.importance import Ranking
from jsc_explore.analysis.prediction import BAND_LEVEL, Calibration
from jsc_explore.analysis.support import KINDS, Kind
from jsc_explore.charts.parallel import thin_evenly
from jsc_explore.charts.style import (
    ACCENT,
    CATEGORIES,
    INK,
    MUTED,
    POWER_LABEL,
    SVG_RENDERER,
    WARNING,
    Chart,
    difference_scale,
    format_metric,
    is_percentage,
    number_axis,
)
from jsc_explore.config import FIELDS, display_value
from jsc_explore.store.schema import METRICS

HEIGHT = 300
# More points hide each other, and their data would slow the page down.
MAX_POINTS = 600
NONE_SILENT, SOME_SILENT = "no silent class", "a silent class in some seeds"
COSTS = {"seconds": "own seconds of a run in optimizer steps", "parameters": "trainable parameters"}


def point_table(rows: Sequence[Mapping[str, Any]], metric: str, names: Sequence[str]) -> pa.Table:
    """Return one row a config: ``metric``, texts, ``n``, ``classes``, costs and hyperparameters.

    Of ``timed_rows`` there is one row a config and machine. More than ``MAX_POINTS`` rows are thinned evenly by their
    metric; the best and the worst stay.
    """
    return pa.Table.from_pylist([_point(row, metric, names) for row in thin_evenly(rows, MAX_POINTS)])


def front_table(rows: Sequence[Mapping[str, Any]], cost: str, metric: str, names: Sequence[str]) -> pa.Table:
    """Return the configs on the Pareto front of a cost (a key of ``COSTS``) and the metric, as ``point_table`` does.

    The front is that of all rows, also where ``point_table`` thins them. Each machine has a front of its own: seconds
    of one machine say nothing about another.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row.get("device", ""), []).append(row)
    best: list[Mapping[str, Any]] = []
    for group in groups.values():
        costs, metrics = [row[cost] for row in group], [row["metric"] for row in group]
        on_front = pareto_front(costs, metrics, higher_is_better=is_percentage(metric))
        found = [row for row, keep in zip(group, on_front, strict=True) if keep]
        best += sorted(found, key=lambda row: row[cost])
    return pa.Table.from_pylist([_point(row, metric, names) for row in best])


def timed_rows(rows: Sequence[Mapping[str, Any]], times: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of configs once for each machine that trained them, in their order, with its time and its name.

    ``times`` are the rows of ``store.query.aggregates.training_times``.
    """
    measured: dict[str, list[dict[str, Any]]] = {}
    for time in times:
        measured.setdefault(time["config_id"], []).append(
            {name: time[name] for name in ("device", "backend", "seconds")}
        )
    return [{**row, **time} for row in rows for time in measured.get(row["config_id"], [])]


def config_text(row: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the values of the hyperparameters that vary as text."""
    return ", ".join(f"{FIELDS[name].inline_label} {display_value(name, row[name])}"
                     for name in names)  # fmt: skip


def _point(row: Mapping[str, Any], metric: str, names: Sequence[str]) -> dict[str, Any]:
    return {
        "metric": row["metric"],
        "label": config_text(row, names),
        "text": format_metric(metric, row["metric"]),
        "n": row["n"],
        "classes": SOME_SILENT if row["n_silent"] else NONE_SILENT,
        "seconds": row.get("seconds"),
        "device": row.get("device", ""),
        "backend": row.get("backend", ""),
        "parameters": row["parameters"],
        **{name: row[name] for name in names},
    }


def _importance_table(ranking: Ranking, metric: str) -> pa.Table:
    factor, unit = difference_scale(metric)
    rows = [
        {
            "field": FIELDS[one.field].label,
            "mean": factor * one.mean,
            "low": factor * (one.mean - one.half_width),
            "high": factor * (one.mean + one.half_width),
            "text": f"{factor * one.mean:.2g} ± {factor * one.half_width:.1g}{unit}",
        }
        for one in ranking.fields
    ]
    return pa.Table.from_pylist(rows)


def _calibration_tables(found: Mapping[Kind, Calibration]) -> tuple[pa.Table, pa.Table]:
    levels = [
        {"kind": KINDS[kind], "level": level, "share": share}
        for kind, one in found.items()
        for level, share in one.levels
    ]
    at = [
        {"kind": KINDS[kind], "level": BAND_LEVEL, "share": one.share, "low": one.low, "high": one.high,
         "text": f"{one.inside} of {one.held_out} inside"}
        for kind, one in found.items()
    ]  # fmt: skip
    return pa.Table.from_pylist(levels), pa.Table.from_pylist(at)


# ---- drawing


def tradeoff_chart(points: pa.Table, best: pa.Table, cost: str, metric: str, theme: str = "light") -> Chart:
    """Draw the metric against a cost on a logarithmic axis; ``best`` is from ``front_table``."""
    axis = alt.Axis(grid=False, labelExpr=POWER_LABEL, tickCount=5)
    x = alt.X(f"{cost}:Q", title=COSTS[cost], scale=alt.Scale(type="log", nice=False, padding=18), axis=axis)
    y = _metric_axis(metric, "metric")
    steps = alt.Chart(best).mark_line(
        interpolate="step-after", strokeWidth=2, color=INK[theme], opacity=0.8, tooltip=None
    )
    rings = alt.Chart(best).mark_point(filled=False, size=130, strokeWidth=2, color=INK[theme])
    machines = sorted(set(best["device"].to_pylist()))
    legend = alt.Legend(title=None, orient="top", direction="vertical", labelLimit=300) if len(machines) > 1 else None
    front = alt.StrokeDash("device:N", scale=alt.Scale(domain=machines), legend=legend)
    measured = [alt.Tooltip("seconds:Q", title="own seconds", format=".3~g"), alt.Tooltip("device:N", title="machine"),
                alt.Tooltip("backend:N", title="backend")] if cost == "seconds" else []  # fmt: skip
    tooltip = [*_tooltip(metric), *measured]
    return alt.layer(
        steps.encode(x=x, y=y, strokeDash=front),
        _config_points(points, x, metric, theme, tooltip),
        rings.encode(x=x, y=y, tooltip=tooltip),
    ).properties(height=HEIGHT, usermeta=SVG_RENDERER)


def importance_chart(ranking: Ranking, metric: str, theme: str = "light") -> Chart:
    """Draw how much the error on held-out configs grows when a hyperparameter is shuffled, with its interval."""
    _, unit = difference_scale(metric)
    table = _importance_table(ranking, metric)
    y = alt.Y(
        "field:N",
        sort=[FIELDS[one.field].label for one in ranking.fields],
        title=None,
        axis=alt.Axis(ticks=False, domain=False),
    )
    title = f"increase of the error when shuffled{f' ({unit.strip()})' if unit else ''}"
    x = alt.X("mean:Q", title=title, axis=alt.Axis(tickCount=5))
    bars = alt.Chart(table).mark_bar(color=ACCENT[theme], opacity=0.75, cornerRadiusEnd=3, height={"band": 0.5})
    spans = alt.Chart(table).mark_rule(strokeWidth=2, color=INK[theme])
    tooltip = [alt.Tooltip("field:N", title="hyperparameter"), alt.Tooltip("text:N", title="increase of the error")]
    return alt.layer(
        bars.encode(x=x, y=y, tooltip=tooltip), spans.encode(x=alt.X("low:Q"), x2="high:Q", y=y, tooltip=tooltip)
    ).properties(height=max(120, 44 * table.num_rows + 50), usermeta=SVG_RENDERER)


def calibration_chart(found: Mapping[Kind, Calibration], theme: str = "light") -> Chart:
    """Draw the share of held-out configs inside their band against its level, by kind; the diagonal is perfect."""
    levels, at = _calibration_tables(found)
    share = alt.Scale(domain=[0, 1])
    x = alt.X("level:Q", title="level of the band", scale=share, axis=alt.Axis(format=".0%", tickCount=5, grid=False))
    y = alt.Y("share:Q", title="held-out configs inside", scale=share, axis=alt.Axis(format=".0%", tickCount=5))
    legend = alt.Legend(title=None, orient="top", direction="vertical", labelLimit=300)
    colour = alt.Color(
        "kind:N", scale=alt.Scale(domain=list(KINDS.values()), range=list(CATEGORIES[: len(KINDS)])), legend=legend
    )
    tooltip = [
        alt.Tooltip("kind:N", title="cell"),
        alt.Tooltip("text:N", title="80% band"),
        alt.Tooltip("low:Q", format=".0%", title="95% from"),
        alt.Tooltip("high:Q", format=".0%", title="to"),
    ]
    ends = pa.Table.from_pylist([{"level": 0.0, "share": 0.0}, {"level": 1.0, "share": 1.0}])
    return alt.layer(
        alt.Chart(ends).mark_line(color=MUTED[theme], strokeDash=[4, 4], strokeWidth=1, tooltip=None).encode(x=x, y=y),
        alt.Chart(levels).mark_line(strokeWidth=2.5, tooltip=None).encode(x=x, y=y, color=colour),
        alt.Chart(at).mark_rule(strokeWidth=2, tooltip=None).encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=colour),
        alt.Chart(at).mark_point(filled=True, size=110).encode(x=x, y=y, color=colour, tooltip=tooltip),
    ).properties(height=HEIGHT, usermeta=SVG_RENDERER)


def _config_points(
    points: pa.Table, x: alt.X, metric: str, theme: str, tooltip: Sequence[alt.Tooltip] | None = None
) -> Any:
    states = [NONE_SILENT, SOME_SILENT]
    legend = alt.Legend(title=None, orient="top", direction="vertical", symbolOpacity=1, labelLimit=300)
    colour = alt.Color("classes:N", scale=alt.Scale(domain=states, range=[MUTED[theme], WARNING[theme]]), legend=legend)
    # The shape shows it, too, for colour-blind readers.
    shape = alt.Shape("classes:N", scale=alt.Scale(domain=states, range=["circle", "triangle-down"]), legend=legend)
    return (
        alt.Chart(points)
        .mark_point(opacity=0.6, filled=True, size=55)
        .encode(
            x=x, y=_metric_axis(metric, "metric"), color=colour, shape=shape, tooltip=list(tooltip or _tooltip(metric))
        )
    )


def _metric_axis(metric: str, column: str) -> alt.Y:
    scale = alt.Scale(zero=False) if is_percentage(metric) else alt.Scale(type="log", nice=False, padding=12)
    return alt.Y(f"{column}:Q", title=_title(metric), scale=scale, axis=number_axis(metric, tickCount=6))


def _title(metric: str) -> str:
    return METRICS[metric].split(",")[0]


def _tooltip(metric: str) -> list[alt.Tooltip]:
    return [
        alt.Tooltip("label:N", title="configuration"),
        alt.Tooltip("text:N", title=_title(metric)),
        alt.Tooltip("n:Q", title="seeds"),
        alt.Tooltip("classes:N", title="classes"),
    ]

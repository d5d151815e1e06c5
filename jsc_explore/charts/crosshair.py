"""A crosshair: a vertical line at the mouse, with the values of all curves there, sorted. Vega alone computes it."""

from __future__ import annotations

from typing import Any

import altair as alt

from jsc_explore.charts.figure import chart_from
from jsc_explore.charts.style import BACKGROUND, FAINT, INK, MUTED

CROSSHAIR = "crosshair"
# The unit that listens to the mouse, and in pixels the height of a row and the width of a letter.
_PLACES, _ROW, _LETTER = "places", 16, 6.6
_IS_SHOWN = "isValid(crosshair.x)"
_AT = "scale('x', crosshair.x[0])"


def crosshair_param() -> alt.Parameter:
    """Return the selection that holds the x nearest to the mouse, until the mouse leaves the chart."""
    return alt.selection_point(
        name=CROSSHAIR,
        encodings=["x"],
        nearest=True,
        on="mousemove",
        # Marks with a tooltip lie over the places; they are paths, and not outside of the chart.
        clear="mouseout[!event.relatedTarget || event.relatedTarget.tagName !== 'path']",
        toggle=False,
    )


def listening_layer(table: str, x: alt.X, *params: alt.Parameter) -> alt.Chart:
    """Return one invisible point at each x of a table: the lowest layer, which all ``params`` belong to."""
    chart: alt.Chart = (
        chart_from(table)
        .transform_aggregate(count="count()", groupby=["x"])
        .mark_point(size=1, opacity=0, aria=False, tooltip=None)
        .encode(x=x)
        .properties(name=_PLACES)
        .add_params(*params)
    )
    return chart


def crosshair_layers(
    table: str, x: alt.X, y: alt.Y, colour: alt.Color, picked: alt.Parameter, *,
    x_title: str, form: str, with_band: bool, at_bottom: bool, theme: str, size: float,
) -> list[alt.Chart]:  # fmt: skip
    """Return the line at the mouse, a dot on each curve, and the list of their values.

    ``table`` is that of the medians. Each curve gives its point nearest to the mouse, unless it has ended before.
    ``form`` is the format of a value; ``with_band``: the list has the ends of the band, too.
    """
    rule = (
        alt.Chart(alt.sequence(0, 1))
        .mark_rule(color=MUTED[theme], strokeWidth=size, aria=False, opacity=alt.expr(f"{_IS_SHOWN} ? 0.7 : 0"))
        .encode(x=alt.value(alt.expr(f"{_IS_SHOWN} ? {_AT} : 0")), y=alt.value(0), y2=alt.value("height"))
    )  # fmt: skip
    rows = _rows(table, picked, x_title, form, with_band)
    dots = rows.mark_point(filled=True, size=45 * size, aria=False).encode(
        x=x, y=y, color=colour, opacity=alt.value(1)
    )  # fmt: skip
    first = rows.transform_filter("datum.row === 1")
    height, letter = _ROW * size, _LETTER * size
    width = f"min(width, datum.longest * {letter} + {30 * size})"
    # Beside the line, where there is more room, and wholly within the chart.
    left = f"max(0, min(width - {width}, {_AT} > width / 2 ? {_AT} - {width} - {10 * size} : {_AT} + {10 * size}))"
    top = f"(height - (datum.count + 1) * {height} - {18 * size})" if at_bottom else f"{8 * size}"
    panel = first.mark_rect(
        color=BACKGROUND[theme], stroke=FAINT[theme], cornerRadius=4, opacity=0.94, aria=False
    ).encode(
        x=_pixels(left), x2=_pixels(f"{left} + {width}"), y=_pixels(top),
        y2=_pixels(f"{top} + (datum.count + 1) * {height} + 8"),
    )  # fmt: skip
    at_row = f"{top} + {4 + 0.5 * height} + datum.row * {height}"
    keys = rows.mark_rule(strokeWidth=3 * size, aria=False).encode(
        x=_pixels(f"{left} + {8 * size}"), x2=_pixels(f"{left} + {18 * size}"), y=_pixels(at_row), color=colour
    )  # fmt: skip
    text: dict[str, Any] = {"align": "left", "baseline": "middle", "fontSize": 12 * size, "aria": False}
    heading = first.mark_text(**text, color=MUTED[theme]).encode(
        x=_pixels(f"{left} + {8 * size}"), y=_pixels(f"{top} + {4 + 0.5 * height}"),
        text=alt.value(alt.expr(f"'{x_title} ' + format(crosshair.x[0], '.4~g')")),
    )  # fmt: skip
    texts = rows.mark_text(**text, color=INK[theme], limit=alt.expr(f"{width} - {27 * size}")).encode(
        x=_pixels(f"{left} + {23 * size}"), y=_pixels(at_row), text="text:N"
    )
    return [rule, dots, panel, heading, keys, texts]


def _pixels(expression: str) -> Any:
    return alt.value(alt.expr(expression))


def _rows(table: str, picked: alt.Parameter, x_title: str, form: str, with_band: bool) -> alt.Chart:
    """Return a chart over the rows of the list, the highest value first, counted from 1."""
    value = f"format(datum.median, '{form}')"
    if with_band:
        ends = f"' (' + format(datum.low, '{form}') + ' to ' + format(datum.high, '{form}') + ')'"
        value += f" + (datum.low < datum.high ? {ends} : '')"
    # The group without its number of seeds: here those count that the median is of.
    name = "slice(datum.group, 0, lastindexof(datum.group, ' ('))"
    seeds = "' (' + datum.n + (datum.n === 1 ? ' seed' : ' seeds') + (datum.is_silent ? ' †)' : ')')"
    dash = "(datum.dash ? ', ' + datum.dash : '')"
    curve = ["config_id", "is_silent", "dash"]
    chart: Any = chart_from(table).transform_filter(_IS_SHOWN).transform_filter(picked)
    chart = chart.transform_joinaggregate(last="max(x)", first="min(x)", groupby=curve)
    chart = chart.transform_filter("crosshair.x[0] >= datum.first && crosshair.x[0] <= datum.last")
    chart = chart.transform_calculate(distance="abs(datum.x - crosshair.x[0])")
    chart = chart.transform_window(
        nearness="row_number()", sort=[alt.SortField("distance")], groupby=curve, frame=[None, 0]
    )
    chart = chart.transform_filter("datum.nearness === 1")
    chart = chart.transform_window(row="row_number()", sort=[alt.SortField("median", order="descending")])
    chart = chart.transform_calculate(text=f"{value} + '  ' + {name} + {dash} + {seeds}")
    chart = chart.transform_calculate(letters="length(datum.text)")
    rows: alt.Chart = chart.transform_joinaggregate(longest="max(letters)", count="count()")
    return rows

"""Imported runs over the curves: dashed lines in the text colour, each with its name at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.charts.curves import PlotOptions
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.style import FAINT, INK, X_AXES, is_percentage

LINES, ENDS = "imported", "imported_ends"
# One for each run: all have the same colour.
_DASHES = ([8, 4], [2, 3], [10, 3, 2, 3], [5, 2], [12, 6], [3, 6])
# Up to this many readings a run, each one is drawn as a point.
_MAX_POINTS = 60
_ENDS = pa.schema(
    [(name, pa.string()) for name in ("name", "quantity", "label")]
    + [(name, pa.float64()) for name in ("x", "value", "smooth")]
    + [("side", pa.string()), ("level", pa.int32())]
)


def _ends(table: pa.Table, x_max: float) -> pa.Table:
    """Return the last reading of each line, the ``side`` of its name and how many names are below it (``level``)."""
    last = list({(row["name"], row["quantity"]): row for row in table.to_pylist()}.values())
    y_max = max((abs(row["smooth"]) for row in last), default=0.0)
    for i, row in enumerate(last):
        close = [
            other for other in last[:i]
            if abs(other["x"] - row["x"]) <= 0.3 * x_max and abs(other["smooth"] - row["smooth"]) <= 0.06 * y_max
        ]  # fmt: skip
        row |= {"side": "right" if row["x"] > 0.5 * x_max else "left", "level": len(close)}
    return pa.Table.from_pylist(last, schema=_ENDS)


# ---- drawing


def with_imported(figure: Figure, table: pa.Table, options: PlotOptions) -> Figure:
    """Return a figure of curves with imported runs drawn over it.

    ``table`` has one row a reading: ``name``, ``quantity``, ``label`` (the text at the end of its line), ``x``,
    ``value`` and ``smooth``, ordered by name, quantity and x.
    """
    names = list(dict.fromkeys(table["name"].to_pylist()))
    axes = _axis_encodings(figure.spec)
    if not names or axes is None:
        return figure
    x, y = axes
    layers: list[dict[str, Any]] = []
    for i, name in enumerate(names):
        only = {"filter": {"field": "name", "equal": name}}
        dash = _DASHES[i % len(_DASHES)]
        if options.smoothing:
            layers.append(_line(only, x, {**y, "field": "value"}, FAINT[options.theme], options.size, dash))
        layers.append(_line(only, x, {**y, "field": "smooth"}, INK[options.theme], 2.0 * options.size, dash))
    ink = INK[options.theme]
    show_points = table.num_rows <= _MAX_POINTS * len(names)
    layers.append(_points(x, {**y, "field": "smooth"}, ink, options, visible=show_points))
    layers.append(
        {
            "data": {"name": ENDS},
            "mark": {"type": "text", "align": {"expr": "datum.side"}, "dx": {"expr": "datum.side == 'right' ? -4 : 4"},
                     "dy": {"expr": f"{-9 * options.size} - {14 * options.size} * datum.level"},
                     "fontSize": 11 * options.size, "fontStyle": "italic", "color": ink, "limit": 260},
            "encoding": {"x": x, "y": {**y, "field": "smooth"}, "text": {"field": "label", "type": "nominal"}},
        }
    )  # fmt: skip
    tables = [table, *(one for one in figure.tables.values() if "x" in one.column_names and one.num_rows)]
    x_max = options.x_range[1] if options.x_range else max(pc.max(one["x"]).as_py() for one in tables)
    spec = {**figure.spec, "layer": [*figure.spec["layer"], *layers]}
    alt_text = f"{figure.alt_text}; imported: {', '.join(names)}"
    return Figure(spec, {**figure.tables, LINES: table, ENDS: _ends(table, x_max)}, alt_text, figure.width)


def _axis_encodings(spec: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return the x and y encodings of a figure, which imported runs share; None if it has no axes."""
    for layer in spec["layer"]:
        encoding = layer["encoding"]
        if "axis" in encoding.get("x", {}) and "axis" in encoding.get("y", {}):
            return encoding["x"], encoding["y"]
    return None


def _line(
    only: dict[str, Any], x: dict[str, Any], y: dict[str, Any], colour: str, width: float, dash: Sequence[int]
) -> dict[str, Any]:
    return {
        "data": {"name": LINES},
        "transform": [only],
        "mark": {"type": "line", "clip": True, "color": colour, "strokeWidth": width, "strokeDash": list(dash)},
        "encoding": {"x": x, "y": y, "detail": {"field": "quantity", "type": "nominal"}},
    }


def _points(x: dict[str, Any], y: dict[str, Any], colour: str, options: PlotOptions, visible: bool) -> dict[str, Any]:
    form = ".2%" if is_percentage(options.metric) else ".4~g"
    tooltip = [
        {"field": "label", "title": "run", "type": "nominal"},
        {"field": "x", "title": X_AXES[options.x], "type": "quantitative", "format": ".4~g"},
        {"field": "value", "title": "value", "type": "quantitative", "format": form},
    ]
    return {
        "data": {"name": LINES},
        "mark": {"type": "point", "filled": True, "clip": True, "color": colour, "size": 28 * options.size,
                 "opacity": 1 if visible else 0},
        "encoding": {"x": x, "y": y, "tooltip": tooltip},
    }  # fmt: skip

"""Imported runs over the curves: dashed lines in the ink of the page, each with its name, apart from every group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jsc_explore.charts.curves import PlotOptions
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.style import FAINT, INK, X_AXES, is_percentage

LINES, ENDS = "imported", "imported_ends"
# One for each run, so that several can be told apart without a colour.
_DASHES = ([8, 4], [2, 3], [10, 3, 2, 3], [5, 2], [12, 6], [3, 6])
# So few readings a run deserve a point each.
_FEW = 60
_ENDS = pa.schema(
    [(name, pa.string()) for name in ("name", "quantity", "label")]
    + [(name, pa.float64()) for name in ("x", "value", "smooth")]
    + [("side", pa.string()), ("level", pa.int32())]
)


def with_imported(figure: Figure, table: pa.Table, look: PlotOptions) -> Figure:
    """Return a figure of curves with imported runs drawn over it.

    ``table`` has a row a reading: ``name``, ``quantity``, ``label`` (what stands at the end of its line), ``x``,
    ``value`` and ``smooth``, ordered by name, quantity and x.
    """
    names = list(dict.fromkeys(table["name"].to_pylist()))
    place = _places(figure.spec)
    if not names or place is None:
        return figure
    x, y = place
    layers: list[dict[str, Any]] = []
    for i, name in enumerate(names):
        own = {"filter": {"field": "name", "equal": name}}
        dash = _DASHES[i % len(_DASHES)]
        if look.smoothing:
            layers.append(_line(own, x, {**y, "field": "value"}, FAINT[look.theme], look.size, dash))
        layers.append(_line(own, x, {**y, "field": "smooth"}, INK[look.theme], 2.0 * look.size, dash))
    ink = INK[look.theme]
    few = table.num_rows <= _FEW * len(names)
    layers.append(_points(x, {**y, "field": "smooth"}, ink, look, seen=few))
    layers.append(
        {
            "data": {"name": ENDS},
            "mark": {"type": "text", "align": {"expr": "datum.side"}, "dx": {"expr": "datum.side == 'right' ? -4 : 4"},
                     "dy": {"expr": f"{-9 * look.size} - {14 * look.size} * datum.level"}, "fontSize": 11 * look.size,
                     "fontStyle": "italic", "color": ink, "limit": 260},
            "encoding": {"x": x, "y": {**y, "field": "smooth"}, "text": {"field": "label", "type": "nominal"}},
        }
    )  # fmt: skip
    tables = [table, *(one for one in figure.tables.values() if "x" in one.column_names and one.num_rows)]
    furthest = look.x_range[1] if look.x_range else max(pc.max(one["x"]).as_py() for one in tables)
    spec = {**figure.spec, "layer": [*figure.spec["layer"], *layers]}
    words = f"{figure.alt_text}; imported: {', '.join(names)}"
    return Figure(spec, {**figure.tables, LINES: table, ENDS: _ends(table, furthest)}, words, figure.width)


def _places(spec: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return how the curves of a figure are placed: imported ones share axes and scales with them."""
    for layer in spec["layer"]:
        encoding = layer["encoding"]
        if "axis" in encoding.get("x", {}) and "axis" in encoding.get("y", {}):
            return encoding["x"], encoding["y"]
    return None


def _line(
    own: dict[str, Any], x: dict[str, Any], y: dict[str, Any], colour: str, width: float, dash: Sequence[int]
) -> dict[str, Any]:
    return {
        "data": {"name": LINES},
        "transform": [own],
        "mark": {"type": "line", "clip": True, "color": colour, "strokeWidth": width, "strokeDash": list(dash)},
        "encoding": {"x": x, "y": y, "detail": {"field": "quantity", "type": "nominal"}},
    }


def _points(x: dict[str, Any], y: dict[str, Any], colour: str, look: PlotOptions, seen: bool) -> dict[str, Any]:
    form = ".2%" if is_percentage(look.shown) else ".4~g"
    tooltip = [
        {"field": "label", "title": "run", "type": "nominal"},
        {"field": "x", "title": X_AXES[look.x], "type": "quantitative", "format": ".4~g"},
        {"field": "value", "title": "value", "type": "quantitative", "format": form},
    ]
    return {
        "data": {"name": LINES},
        "mark": {"type": "point", "filled": True, "clip": True, "color": colour, "size": 28 * look.size,
                 "opacity": 1 if seen else 0},
        "encoding": {"x": x, "y": y, "tooltip": tooltip},
    }  # fmt: skip


def _ends(table: pa.Table, furthest: float) -> pa.Table:
    """Return the last reading of every line, on which side of it its name stands, and how many stand below the name."""
    last = list({(row["name"], row["quantity"]): row for row in table.to_pylist()}.values())
    reach = max((abs(row["smooth"]) for row in last), default=0.0)
    for i, row in enumerate(last):
        close = [
            other for other in last[:i]
            if abs(other["x"] - row["x"]) <= 0.3 * furthest and abs(other["smooth"] - row["smooth"]) <= 0.06 * reach
        ]  # fmt: skip
        row |= {"side": "right" if row["x"] > 0.5 * furthest else "left", "level": len(close)}
    return pa.Table.from_pylist(last, schema=_ENDS)

"""The curves panel: what is drawn along what, how, and the chart itself; drag over it to zoom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import streamlit as st

from jsc_explore.analysis.cells import Cell, in_order
from jsc_explore.charts.curves import (
    EXPECTED,
    HEIGHT,
    MEANS,
    ZOOM,
    Look,
    curve_figure,
    curve_tables,
    expected_table,
    quantities_of,
    share_below_zero,
    value_range,
)  # fmt: skip
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.style import BANDS, COLOUR_BY, HALL_SIZE, PROGRESS, SHOWN, TOGETHER
from jsc_explore.config import FIELDS, format_number, format_value
from jsc_explore.store.slices import Points
from jsc_explore.views import forecast, grid_panel, lines, url
from jsc_explore.views.slicing import Slice

# From here on a linear axis hides the first epoch, in which most of the learning happens.
LOG_FROM_EPOCHS = 20
CURVES_KEY = "curves"


@dataclass(frozen=True)
class Panels:
    """The drawn charts with their titles (one, without a title, where there are no panels), and what must be said."""

    figures: list[tuple[str, Figure]]
    notes: list[str]
    cells: int


def controls() -> None:
    """Draw what is chosen most often over the chart, the rest in a popover beside it."""
    with st.container(horizontal=True, vertical_alignment="bottom", key="curve_controls"):
        st.selectbox("Curve of", list(SHOWN), key="show", format_func=lambda q: SHOWN[q].capitalize())
        st.selectbox(
            "Along", list(PROGRESS), key="along", format_func=lambda p: PROGRESS[p].capitalize(), on_change=_unzoom
        )
        # Behind a closed door nothing is made: the panel is drawn several times a second while something grows.
        door = st.popover(
            "How", icon=":material/tune:", help="Axes, band, colours, smoothing", key="how_door", on_change="rerun"
        )
        if door.open:
            with door:
                _how()


def _how() -> None:
    def words(name: str) -> str:
        return {url.NONE: "Nothing", COLOUR_BY: "Chosen cell"}.get(name) or FIELDS[name].label

    left, right = st.columns(2)
    left.segmented_control(
        "Axis along", ["auto", "linear", "log"], key="scale", required=True, on_change=_unzoom,
        format_func=str.capitalize,
        help=f"Auto: logarithmic from {LOG_FROM_EPOCHS} epochs on, where a linear axis hides the first ones",
    )  # fmt: skip
    right.toggle("Logarithmic upwards", key="log_y")
    left.selectbox("Band", list(BANDS), key="band", format_func=lambda band: BANDS[band].capitalize())
    right.toggle("Each seed", key="each", help="Every seed as a faint line")
    axes = list(url.AXIS_FIELDS)
    left.selectbox("Colour by", [COLOUR_BY, *axes], key="colour", format_func=words)
    both = st.session_state["show"] in TOGETHER
    right.selectbox(
        "Dash by", [url.NONE, *axes], key="dash", format_func=words, disabled=both,
        help="Training is dashed while both parts are shown" if both else None,
    )  # fmt: skip
    left.selectbox("Panels by", [url.NONE, *axes], key="panels", format_func=words)
    right.slider("Smoothing", 0.0, 0.99, step=0.01, key="smooth", help="The raw mean stays as a ghost")


def draw(view: Slice, cells: Sequence[Cell], live: Mapping[str, list[Any]]) -> None:
    """Draw the charts, and below them what they mean."""
    ground = st.context.theme.type or "light"
    drawn = panels(view, cells, live, ground)
    if not drawn.figures:
        # As high as the chart that will stand here: nothing jumps when it does.
        with st.container(height=HEIGHT + 60, border=False):
            st.info(_why_empty(cells), icon=":material/show_chart:")
        return
    columns = st.columns(min(2, len(drawn.figures))) if len(drawn.figures) > 1 else [st.container()]
    for i, (title, figure) in enumerate(drawn.figures):
        with columns[i % len(columns)]:
            if title:
                st.markdown(f"**{title}**")
            # Another zoom is another chart: the box that was dragged goes with the one it was dragged on.
            key = f"{CURVES_KEY}-{i}-{st.session_state['zoom']}"
            st.vega_lite_chart(
                figure.for_page(),
                key=key,
                on_select=lambda key=key: _zoom(key),
                selection_mode=[ZOOM],
                alt=f"{figure.words} {title}".strip(),
            )
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.session_state["zoom"]:
            st.button("Zoom out", icon=":material/zoom_out_map:", key="zoom_out", on_click=_unzoom)
        st.caption(
            _legend(view, any(one.tables[EXPECTED].num_rows for _, one in drawn.figures))
            + "".join(f" {note}." for note in drawn.notes)
        )


def _why_empty(cells: Sequence[Cell]) -> str:
    if any(cell.active for cell in grid_panel.chosen_of(cells) or cells):
        return "No point yet: the first one comes as soon as a worker is free and has begun."
    if any(cell.n for cell in cells):
        return "No curve yet: choose a cell with a figure, or click a missing one to train it."
    return "No run passes the filters: click a + to train one, or widen a filter."


def panels(view: Slice, cells: Sequence[Cell], live: Mapping[str, list[Any]], ground: str) -> Panels:
    """Return the charts to draw: one, or one for each value of the field chosen under Panels by."""
    state = st.session_state
    chosen = grid_panel.chosen_of(cells)
    drawn = lines.choose(
        view, cells, chosen, state["colour"], state["dash"] if state["show"] not in TOGETHER else url.NONE
    )
    table = lines.live_points(cells, live)
    quantities = quantities_of(state["show"])
    picked, behind = lines.points(view, drawn, state["along"], quantities, state["zoom"], table)
    if not picked.means.num_rows and not behind.means.num_rows:
        return Panels([], [], 0)
    look = _look(view, drawn, ground)
    titled: list[tuple[str, set[str] | None]] = [("", None)]
    if state["panels"] != url.NONE:
        field = state["panels"]
        owners: dict[Any, set[str]] = {}
        for config in (*drawn.configs, *drawn.context):
            owners.setdefault(config.fields[field], set()).add(config.config_id)
        shown = {config.fields[field] for config in drawn.configs} or set(owners)
        titled = [
            (f"{FIELDS[field].label}: {format_value(field, value)}", owners[value]) for value in in_order(field, shown)
        ]
    tables = [_tables(picked, behind, drawn, look, only) for _, only in titled]
    for part in tables:
        part[EXPECTED] = _expected(view, part[MEANS], drawn)
    expected = any(part[EXPECTED].num_rows for part in tables)
    fixed = replace(look, y_range=value_range(tables, look), expected=expected)
    height = HEIGHT if len(titled) == 1 else HEIGHT * 0.7
    figures = [
        (title, curve_figure(part, drawn.groups, drawn.dashes, fixed, height))
        for (title, _), part in zip(titled, tables, strict=True)
    ]
    return Panels(figures, _notes(picked, drawn, look), len(chosen))


def _tables(
    picked: Points, behind: Points, drawn: lines.Chosen, look: Look, only: set[str] | None
) -> dict[str, pa.Table]:
    own = {key: line for key, line in drawn.lines.items() if only is None or key in only}
    means = pa.concat_tables([picked.means, behind.means])
    return curve_tables(means, picked.seeds, own, look)


def _expected(view: Slice, means: pa.Table, drawn: lines.Chosen) -> pa.Table:
    """Return what the drawn configs were expected to score, where the curves are those of the score."""
    state = st.session_state
    fits = view.score in quantities_of(state["show"]) and not state["zoom"]
    ends = {config.config_id: float(config.fields["max_epochs"]) for config in drawn.configs}
    return expected_table(
        means,
        drawn.lines,
        forecast.kept(view.score) if fits else {},
        view.score,
        ends if state["along"] == "epoch" else {},
    )


def _look(view: Slice, drawn: lines.Chosen, ground: str) -> Look:
    state = st.session_state
    epochs = max((config.fields["max_epochs"] for config in drawn.configs), default=view.base.max_epochs)
    log_x = state["scale"] == "log" or (state["scale"] == "auto" and epochs >= LOG_FROM_EPOCHS)
    # Fixed where curves grow: the axis stands still under the reader.
    end = (0.0, float(epochs)) if state["along"] == "epoch" and not log_x else None
    return Look(
        x=state["along"], shown=state["show"], band=state["band"], log_x=log_x, log_y=state["log_y"],
        each=state["each"],
        smoothing=state["smooth"], x_range=state["zoom"] or end, ground=ground,
        size=HALL_SIZE if state["hall"] else 1.0, ordered=drawn.ordered,
        titles=drawn.titles,
    )  # fmt: skip


def _notes(picked: Points, drawn: lines.Chosen, look: Look) -> list[str]:
    notes = list(drawn.notes)
    if picked.stride > 1:
        notes.append(
            f"Every {_ordinal(picked.stride)} point of {picked.total:,} is drawn; drag over the chart to zoom in on all"
        )
    if lost := share_below_zero(picked.seeds, look):
        notes.append(f"{lost} points are not above zero and have no place on a logarithmic axis")
    if look.smoothing:
        notes.append(f"Smoothed ({look.smoothing:g}); thin: the raw mean")
    return notes


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _legend(view: Slice, expected: bool) -> str:
    state = st.session_state
    parts = ["Line: mean over seeds"]
    if state["band"] != "none":
        parts.append(f"band: {BANDS[state['band']]}")
    if state["each"]:
        parts.append("faint: every seed")
    if expected:
        parts.append("diamond and bar: predicted before it was trained, with its 80% band")
    parts += ["†: never predicts that class", "grey: the other cells"]
    times = f" {grid_panel.TIMES}" if state["along"] == "time_s" else ""
    zoom = ""
    if state["zoom"]:
        low, high = (format_number(float(f"{end:.3g}")) for end in state["zoom"])
        zoom = f" Zoomed to {low} to {high}."
    return "; ".join(parts) + ". Click a name in the legend to see it alone." + zoom + times


def _zoom(key: str) -> None:
    span = st.session_state[key].selection.get(ZOOM, {}).get("x")
    if span and span[0] < span[1]:
        st.session_state["zoom"] = (float(f"{span[0]:.6g}"), float(f"{span[1]:.6g}"))


def _unzoom() -> None:
    st.session_state["zoom"] = None

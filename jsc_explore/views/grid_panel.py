"""The grid panel: the cells of the slice, drawn; a click opens one, shift-click compares, a dragged box takes many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import streamlit as st

from jsc_explore.analysis.cells import Cell, axis_values, build_cells, with_seeds
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.grid import BOX, SELECTION, TOGGLED, grid_figure, grid_table, score_domain
from jsc_explore.charts.predicted import MARK
from jsc_explore.charts.style import HALL_SIZE, is_time, ordinal_label
from jsc_explore.config import FIELDS, format_value
from jsc_explore.jobs import Job
from jsc_explore.store.schema import SCORES
from jsc_explore.store.slices import Between, grid_cells, seeds_of
from jsc_explore.views import forecast, panels, resources, url
from jsc_explore.views.slicing import Slice

GRID_KEY = "grid"
# A grid of more cells than this is no longer read, and would cost every click.
MAX_CELLS = 1500
TIMES = "Times are those of a whole stack of replicas, on the machine that trained it: compare like with like."


@dataclass(frozen=True)
class Part:
    """One drawn grid: its facet's title (empty without facets), its cells and its figure."""

    title: str
    cells: list[Cell]
    figure: Figure


def cells_of(view: Slice, jobs: Sequence[Job]) -> list[Cell]:
    """Return the cells of the slice; ``jobs`` are those under way and those that failed."""
    store = resources.store()
    rows = _stored(store.version, view)
    own = [job for job in jobs if view.passes(job.config)]
    axes = {
        name: _axis(view, name, [row[name] for row in rows], [place[i] for place in url.chosen_cells()], own)
        for i, name in enumerate(view.axes)
    }
    cells = build_cells(view.base, axes, view.digest, rows, own, view.seeds)
    return with_seeds(cells, _seeds(store.version, tuple(cell.config_id for cell in cells)))


def _axis(view: Slice, name: str, stored: Sequence[Any], chosen: Sequence[Any], jobs: Sequence[Job]) -> list[Any]:
    values = axis_values(name, stored, [*chosen, *(getattr(job.config, name) for job in jobs)])
    allowed = view.filters.get(name)
    if isinstance(allowed, Between):
        return [value for value in values if allowed.low <= value <= allowed.high]
    return [value for value in values if value in allowed] if allowed else values


@st.cache_data(show_spinner=False, max_entries=64, hash_funcs={Slice: repr})
def _stored(version: int, view: Slice) -> list[dict[str, Any]]:
    table: pa.Table = grid_cells(resources.store(), view.axes, view.score, view.filters, view.text)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


@st.cache_data(show_spinner=False, max_entries=64)
def _seeds(version: int, config_ids: tuple[str, ...]) -> dict[str, list[int]]:
    return seeds_of(resources.store(), config_ids)


def chosen_of(cells: Sequence[Cell]) -> list[Cell]:
    """Return the chosen cells in the order in which they were chosen."""
    by_place = {cell.place: cell for cell in cells}
    return [by_place[place] for place in url.chosen_cells() if place in by_place]


def parts(view: Slice, cells: Sequence[Cell], ground: str) -> list[Part]:
    """Return the grids to draw, one for each value of the facet."""
    chosen = {cell.config_id for cell in chosen_of(cells)}
    domain = score_domain(cells, view.score)
    titles = (FIELDS[view.x].label, FIELDS[view.y].label)
    orders = tuple(
        tuple(dict.fromkeys(ordinal_label(value) for value in values))
        for values in ((cell.x for cell in cells), (cell.y for cell in cells))
    )
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(cell.facet, []).append(cell)
    size = HALL_SIZE if st.session_state["hall"] else 1.0
    return [
        Part(
            f"{FIELDS[view.facet].label}: {format_value(view.facet, value)}" if view.facet else "",
            own,
            grid_figure(
                grid_table(own, view.score, chosen, domain, forecast.predictions(view, own)),
                titles, (orders[0], orders[1]), view.score, domain, ground, size,
            ),
        )
        for value, own in groups.items()
    ]  # fmt: skip


def draw(view: Slice, cells: Sequence[Cell]) -> None:
    """Draw the grids side by side, and what their signs mean."""
    if not cells:
        st.info("No value of an axis passes its filter: widen it in the sidebar.", icon=":material/filter_alt_off:")
        return
    if len(cells) > MAX_CELLS:
        st.warning(
            f"{len(cells):,} cells cannot be read: narrow an axis under More filters, at most {MAX_CELLS:,} are drawn.",
            icon=":material/grid_off:",
        )
        return
    drawn = parts(view, cells, st.context.theme.type or "light")
    columns = st.columns(min(2, len(drawn)), gap="medium") if len(drawn) > 1 else [st.container()]
    for i, part in enumerate(drawn):
        with columns[i % len(columns)]:
            if part.title:
                st.markdown(f"**{part.title}**")
            key = GRID_KEY if i == 0 else f"{GRID_KEY}-{i}"
            st.vega_lite_chart(
                part.figure.for_page(),
                key=key,
                on_select=lambda key=key, part=part: _clicked(view, key, part.cells, cells),
                selection_mode=[SELECTION, TOGGLED, BOX],
                alt=f"{part.figure.words} {part.title}".strip(),
            )
    if signs := _signs(view, cells):
        st.caption(signs)


def _signs(view: Slice, cells: Sequence[Cell]) -> str:
    """Say what the signs in the grid mean, those that occur."""
    states, expected = {cell.state for cell in cells}, forecast.kept(view.score)
    signs = [
        ("n: seeds", bool(states & {"done", "partly"})),
        (f"dashed: fewer than {view.seeds}", "partly" in states),
        ("†: with a dead class", any(cell.n_dead for cell in cells)),
        ("‡: diverged", any(cell.n_diverged for cell in cells)),
        ("+: missing", "missing" in states),
        ("✕: failed", "failed" in states),
        (f"{MARK}: {forecast.calibration_words()}", any(cell.config_id in expected for cell in cells if not cell.n)),
        ("–: left out by the filter in words", "hidden" in states),
        ("configs: the mean over several, see the tooltip", any(cell.n_configs > 1 for cell in cells)),
    ]
    line = ", ".join(text for text, shown in signs if shown)
    return line + (f". {TIMES}" if is_time(view.score) else "")


def _clicked(view: Slice, key: str, own: Sequence[Cell], cells: Sequence[Cell]) -> None:
    """Take a click or a box: choose its cells, with shift add or take away one; train a missing one clicked."""
    selection = st.session_state[key].selection
    clicked, toggled = ({entry["config_id"] for entry in selection.get(name, [])} for name in (SELECTION, TOGGLED))
    box = _boxed(selection.get(BOX) or {}, own)
    # The chart remembers what was clicked and boxed in all its life; what differs from the last time was done just now.
    before = st.session_state.get(f"_{key}", (set(), set(), set()))
    st.session_state[f"_{key}"] = (clicked, toggled, box)
    chosen = {cell.config_id for cell in chosen_of(cells)}
    if box and box != before[2]:
        new, chosen = set(), box
    elif toggled != before[1]:
        new, chosen = (toggled ^ before[1]) - chosen, chosen ^ (toggled ^ before[1])
    elif clicked:
        new, chosen = clicked, clicked
    elif box or before[2]:
        # The end of a drag is also a click beside every cell, or the box was put away: what was chosen stays.
        return
    else:
        new, chosen = set(), set()
    kept = [cell for cell in chosen_of(cells) if cell.config_id in chosen]
    added = [cell for cell in cells if cell.config_id in chosen and cell not in kept]
    url.choose_cells([cell.place for cell in (*kept, *added)])
    if view.train_on_click:
        panels.train([cell for cell in added + kept if cell.config_id in new and cell.state == "missing"], view.seeds)


def _boxed(box: Mapping[str, Any], cells: Sequence[Cell]) -> set[str]:
    """Return the cells within a dragged box, given as the labels it touches on each axis."""
    across, up = (set(map(str, box.get(name) or [])) for name in ("x", "y"))
    return {cell.config_id for cell in cells if ordinal_label(cell.x) in across and ordinal_label(cell.y) in up}


def sentence(view: Slice, cells: Sequence[Cell]) -> str:
    """Return the one line that says what is seen."""
    runs = sum(cell.n for cell in cells)
    missing = sum(cell.state == "missing" for cell in cells)
    base, free = view.base, (*view.axes, *view.several)
    epochs = f" after {base.max_epochs} epoch{'s' if base.max_epochs > 1 else ''}" if "max_epochs" not in free else ""
    network = base.model if "model" not in free else "several networks"
    score = SCORES[view.score].split(",")[0].capitalize()
    if view.score.startswith("best_"):
        epochs = epochs.replace("after", "at the best of")
    honest = (
        " (measured on the training jets, as in the lab)" if base.protocol == "mase" and "val" in view.score else ""
    )
    words = [inside(FIELDS[name].label) for name in view.axes]
    several = (
        f", several values of {' and '.join(inside(FIELDS[n].label) for n in view.several)}" if view.several else ""
    )
    where = f", where {view.text}" if view.text else ""
    return (
        f"{score} of {network}{epochs}{honest}, by {', '.join(words[:-1])} and {words[-1]}{several}{where}: "
        f"{runs:,} runs, {missing} of {len(cells)} cells missing"
    )


def inside(label: str) -> str:
    """Write a label inside a sentence: final ReLU, batch size."""
    return label[0].lower() + label[1:]

"""The Explore page: a grid of configs, their learning curves, and what is under way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import streamlit as st

from jsc_explore.analysis.cells import Cell, axis_values, build_cells
from jsc_explore.charts.curves import Line, curve_chart, curve_tables
from jsc_explore.charts.grid import SELECTION, TOGGLED, grid_chart, grid_table, score_domain
from jsc_explore.charts.style import PROGRESS, QUANTITIES, is_time, ordinal_label
from jsc_explore.config import FIELDS, format_value
from jsc_explore.errors import JscError
from jsc_explore.record import POINT_FIELDS
from jsc_explore.store.schema import SCORES
from jsc_explore.views import pair, panels, resources, slicing, url
from jsc_explore.views.slicing import Slice

REFRESH_S = 0.25
GRID_KEY = "grid"
TIMES = "Times are those of a whole stack of replicas, on the machine that trained it: compare like with like."
# Side by side only where both charts are readable; a click on a chart focuses the page, which needs no frame.
_STYLE = """<style>
[data-testid=stColumn]:has(.st-key-grid, .st-key-curves_panel) {min-width: min(100%, 440px);}
[data-testid=stMain]:focus-visible {outline: none; box-shadow: none;}
</style>"""


def page() -> None:
    """Draw the page."""
    for line in st.session_state.setdefault("url_faults", url.faults(dict(st.query_params))):
        st.warning(line, icon=":material/link_off:")
    try:
        store, queue = resources.store(), resources.queue()
    except JscError as error:
        st.error(str(error))
        return
    resources.supervisor()
    for problem in store.problems:
        st.warning(problem, icon=":material/broken_image:")
    view = slicing.choose(store)
    if view is None:
        return
    active = bool(queue.jobs(("queued", "running")))
    st.fragment(_body, run_every=REFRESH_S if active else None)(view, active)


def _body(view: Slice, was_active: bool) -> None:
    try:
        _draw(view, was_active)
    except JscError as error:
        st.error(str(error))


def _draw(view: Slice, was_active: bool) -> None:
    store, queue = resources.store(), resources.queue()
    # The queue first, then the store: a run that ends in between is seen twice rather than not at all.
    jobs, points = queue.live()
    failed = queue.jobs(("failed",))
    store.refresh()
    cells = _cells(view, [*jobs, *failed])
    if bool(jobs) != was_active:
        st.rerun()
    chosen = _chosen(view, cells)
    pair.offer([cell.config for cell in chosen])
    st.markdown(_sentence(view, cells))
    if message := st.session_state.pop("flash", None):
        st.error(message)
    st.html(_STYLE)
    left, right = st.columns(2, gap="medium")
    with left:
        _grid(view, cells, chosen)
        if any(cell.n_dead or cell.n_diverged for cell in cells):
            st.caption("n: seeds, †: of them with a dead class, ‡: diverged")
        if is_time(view.score):
            st.caption(TIMES)
        panels.under_way(queue, jobs, view)
        panels.cell_details(view, chosen, cells)
    with right, st.container(key="curves_panel"):
        _curves(view, cells, chosen, points)


def _cells(view: Slice, jobs: Sequence[Any]) -> list[Cell]:
    store = resources.store()
    rows = store.grid(view.x, view.y, view.score, view.filters).to_pylist()
    pairs = url.chosen_cells(view.x, view.y)
    axes = [
        axis_values(
            name,
            [row[axis] for row in rows],
            [
                *(pair[position] for pair in pairs),
                *(getattr(job.config, name) for job in jobs if _same(view, job.config)),
            ],
        )
        for position, (axis, name) in enumerate((("x", view.x), ("y", view.y)))
    ]
    return build_cells(view.base, view.x, view.y, (axes[0], axes[1]), view.digest, rows, jobs)


def _same(view: Slice, config: Any) -> bool:
    return all(getattr(config, name) == values[0] for name, values in view.filters.items())


def _chosen(view: Slice, cells: Sequence[Cell]) -> list[Cell]:
    pairs = url.chosen_cells(view.x, view.y)
    return [cell for pair in pairs for cell in cells if (cell.x, cell.y) == pair]


def _sentence(view: Slice, cells: Sequence[Cell]) -> str:
    runs = sum(cell.n for cell in cells)
    missing = sum(cell.state == "missing" for cell in cells)
    base = view.base
    epochs = (
        f" after {base.max_epochs} epoch{'s' if base.max_epochs > 1 else ''}"
        if "max_epochs" not in (view.x, view.y)
        else ""
    )
    network = base.model if "model" not in (view.x, view.y) else "several networks"
    score = SCORES[view.score].split(",")[0].capitalize()
    if view.score.startswith("best_"):
        epochs = epochs.replace("after", "at the best of")
    honest = (
        " (measured on the training jets, as in the lab)" if base.protocol == "mase" and "val" in view.score else ""
    )
    return (
        f"##### {score} of {network}{epochs}{honest}, by {_inside(FIELDS[view.x].label)} and "
        f"{_inside(FIELDS[view.y].label)}: {runs} runs, {missing} of {len(cells)} cells missing"
    )


def _inside(label: str) -> str:
    """Write a label inside a sentence: final ReLU, batch size."""
    return label[0].lower() + label[1:]


# ---- the grid


def _grid(view: Slice, cells: list[Cell], chosen: Sequence[Cell]) -> None:
    ground = st.context.theme.type or "light"
    table = grid_table(cells, view.score, {cell.config_id for cell in chosen})
    orders = [list(dict.fromkeys(ordinal_label(value) for value in values)) for values in
              ((cell.x for cell in cells), (cell.y for cell in cells))]  # fmt: skip
    titles = (FIELDS[view.x].label, FIELDS[view.y].label)
    chart = grid_chart(table, titles, (orders[0], orders[1]), view.score, score_domain(cells, view.score), ground)
    st.altair_chart(
        chart,
        key=GRID_KEY,
        on_select=lambda: _clicked(view, cells),
        selection_mode=[SELECTION, TOGGLED],
        alt=f"Grid of {titles[0]} against {titles[1]}, coloured by {SCORES[view.score]}",
    )


def _clicked(view: Slice, cells: Sequence[Cell]) -> None:
    """Take a click on the grid: choose its cell, or with shift add or take it away; train it if it is missing."""
    selection = st.session_state[GRID_KEY].selection
    clicked, toggled = ({entry["config_id"] for entry in selection.get(name, [])} for name in (SELECTION, TOGGLED))
    # The chart remembers every shift-click of its life; what differs from the last time is the click just made.
    before = st.session_state.get(TOGGLED, set())
    st.session_state[TOGGLED] = toggled
    chosen = {cell.config_id for cell in _chosen(view, cells)}
    if not clicked and not toggled:
        new, chosen = set(), set()
    elif toggled != before:
        new, chosen = (toggled ^ before) - chosen, chosen ^ (toggled ^ before)
    else:
        new, chosen = clicked, clicked
    kept = [cell for cell in _chosen(view, cells) if cell.config_id in chosen]
    added = [cell for cell in cells if cell.config_id in chosen and cell not in kept]
    url.choose_cells([(cell.x, cell.y) for cell in (*kept, *added)])
    if view.train_on_click:
        panels.train(
            view, [cell for cell in added + kept if cell.config_id in new and cell.state == "missing"], view.seeds
        )


# ---- the curves


def _curves(view: Slice, cells: Sequence[Cell], chosen: Sequence[Cell], points: dict[str, list[Any]]) -> None:
    first, second, third = st.columns([4, 4, 3], vertical_alignment="bottom")
    quantity = first.selectbox(
        "Curve of", list(QUANTITIES), key="show", bind="query-params", format_func=lambda q: QUANTITIES[q].capitalize()
    )
    along = second.selectbox(
        "Along", list(PROGRESS), key="along", bind="query-params", format_func=lambda p: PROGRESS[p].capitalize()
    )
    log_x = third.toggle("Log axis", key="log", bind="query-params")
    drawn = list(chosen) or _default_lines(view, cells)
    marked = {cell.config_id for cell in drawn}
    labels = _labels(view, drawn)
    names = dict(zip((cell.config_id for cell in drawn), labels, strict=True))
    lines = {
        cell.config_id: Line(names.get(cell.config_id) or panels.describe(cell.config, view), cell.config_id in marked)
        for cell in cells
    }
    live = _live_points(cells, points)
    store = resources.store()
    means = _stored_means(store.version, view.filters, quantity) if live is None else _means(view, quantity, live)
    run_ids = _run_ids(store.version, view.filters, tuple(marked))
    wanted = tuple(dict.fromkeys(["step", along, quantity]))
    seeds = store.curves(run_ids, wanted)
    if live is not None:
        growing = live.filter(pa.compute.is_in(live["config_id"], pa.array(list(marked), pa.string())))
        seeds = pa.concat_tables([seeds, growing.select(seeds.column_names)], promote_options="permissive")
    mean_rows, seed_rows = curve_tables(means, seeds, lines, along, quantity, log_x=log_x)
    if not mean_rows.num_rows:
        st.info(
            "No curve yet: choose a cell with a figure, or click a missing one to train it.",
            icon=":material/show_chart:",
        )
        return
    ground = st.context.theme.type or "light"
    end = float(view.base.max_epochs) if along == "epoch" and "max_epochs" not in (view.x, view.y) else None
    chart = curve_chart(mean_rows, seed_rows, labels, along, quantity, log_x=log_x, x_end=end, ground=ground)
    st.altair_chart(chart, key="curves", alt=f"{QUANTITIES[quantity]} along {PROGRESS[along]}: {', '.join(labels)}")
    st.caption(
        "Line: mean over seeds; band: its 95% confidence interval; faint: every seed, dashed where a class is dead; "
        "grey: the other cells of the grid." + (f" {TIMES}" if along == "time_s" else "")
    )


def _default_lines(view: Slice, cells: Sequence[Cell]) -> list[Cell]:
    """Choose what to show before anything is clicked: what is growing, else the row of the default value."""
    growing = [cell for cell in cells if cell.active]
    row = [cell for cell in cells if cell.n and cell.y == getattr(view.base, view.y)]
    return growing[:6] or row or [cell for cell in cells if cell.n][:6]


def _labels(view: Slice, cells: Sequence[Cell]) -> list[str]:
    """Name cells by what tells them apart: one axis if they share the other."""
    names = [name for name, axis in ((view.x, "x"), (view.y, "y")) if len({getattr(cell, axis) for cell in cells}) > 1]
    labels = []
    for cell in cells:
        parts = [
            f"{FIELDS[name].label} {format_value(name, getattr(cell.config, name))}"
            for name in names or (view.x, view.y)
        ]
        labels.append(", ".join(parts) + f" (n={cell.n + len(cell.active)})")
    return labels


def _live_points(cells: Sequence[Cell], points: dict[str, list[Any]]) -> pa.Table | None:
    """Return the points of this grid's running jobs with the columns of ``Store.curves``; None if there are none."""
    rows = [
        {"run_id": job.run_id, "config_id": cell.config_id, "seed": job.config.seed, "dead": False, **point}
        for cell in cells
        for job in cell.active
        for point in points.get(job.run_id, [])
    ]
    return pa.Table.from_pylist(rows, schema=_LIVE) if rows else None


@st.cache_data(show_spinner=False, max_entries=64)
def _stored_means(version: int, filters: dict[str, list[Any]], quantity: str) -> pa.Table:
    store = resources.store()
    run_ids = store.runs(filters, ["run_id"])["run_id"].to_pylist()
    return store.mean_curves(run_ids, quantity)


def _means(view: Slice, quantity: str, live: pa.Table) -> pa.Table:
    """Return the stored means, those of growing configs taken anew with their live points."""
    store = resources.store()
    growing = set(live["config_id"].to_pylist())
    stored = _stored_means(store.version, view.filters, quantity)
    kept = stored.filter(pa.compute.invert(pa.compute.is_in(stored["config_id"], pa.array(list(growing)))))
    run_ids = _run_ids(store.version, view.filters, tuple(sorted(growing)))
    fresh = live.filter(pa.compute.invert(pa.compute.is_in(live["run_id"], pa.array(run_ids, pa.string()))))
    return pa.concat_tables([kept, store.mean_curves(run_ids, quantity, fresh)], promote_options="permissive")


@st.cache_data(show_spinner=False, max_entries=256)
def _run_ids(version: int, filters: dict[str, list[Any]], config_ids: tuple[str, ...]) -> list[str]:
    table = resources.store().runs({**filters, "config_id": list(config_ids)}, ["run_id"])
    return [str(run_id) for run_id in table["run_id"].to_pylist()]


_LIVE = pa.schema(
    [("run_id", pa.string()), ("config_id", pa.string()), ("seed", pa.int32()), ("dead", pa.bool_())]
    + [(name, pa.int64() if name in ("step", "samples") else pa.float64()) for name in POINT_FIELDS]
)

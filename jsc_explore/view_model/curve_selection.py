"""The curves to draw: the configs of the selected cells, their names and colours, and their points."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from jsc_explore.analysis.cells import Cell, in_order
from jsc_explore.charts.curves import CurveStyle
from jsc_explore.charts.style import BY_CELL
from jsc_explore.config import FIELDS, display_value
from jsc_explore.network import parse
from jsc_explore.results import POINT_FIELDS
from jsc_explore.store.query.curves import CurvePoints
from jsc_explore.store.query.grid import configs
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import NONE

# More curves than these cannot be told apart; a note names the number that is left out.
MAX_LINES, MAX_CONTEXT = 16, 60
# Rows sent to the browser, about 60 bytes each.
MAX_ROWS, MAX_CONTEXT_ROWS = 6000, 3000


@dataclass(frozen=True)
class Config:
    """A config to draw: its fields by name, and the number of its stored, active and cancelled seeds."""

    config_id: str
    fields: Mapping[str, Any]
    n: int


@dataclass(frozen=True)
class CurveSelection:
    """The curves to draw: ``configs`` in colour, ``context`` in grey.

    ``styles`` are by config id; ``groups`` and ``dashes`` are the legend entries of colours and dashes, in order, and
    ``titles`` the titles of these two legends. ``ordered``: colours stand for an order. ``group_values`` has the value
    that each group stands for, without the count of seeds. ``others`` is how many configs there are beside those in
    colour.
    """

    configs: list[Config]
    context: list[Config]
    styles: dict[str, CurveStyle]
    groups: list[str]
    dashes: list[str]
    titles: tuple[str, str]
    ordered: bool
    group_values: dict[str, str]
    others: int
    notes: list[str]


def select_curves(
    repository: Repository, slice: Slice, cells: Sequence[Cell], selected: Sequence[Cell], colour: str, dash: str
) -> CurveSelection:
    """Return the curves of the selected cells in colour, and the others of the slice as context in grey."""
    shown = list(selected) or default_cells(slice, cells)
    # Runs are stored at the values of the canonical form, which may be another place of the grid.
    order = {slice.place_of(cell.config): i for i, cell in enumerate(shown)}
    rows, total = repository.configs(slice, 4 * MAX_CONTEXT)
    stored = _as_configs(rows)
    unstored = {cell.config_id: cell for cell in shown if cell.active or cell.cancelled}
    found = _configs_near(repository, slice, set(order)) if total > len(stored) else stored
    found = [config for config in found if tuple(config.fields[name] for name in slice.axes) in order]
    known = {config.config_id for config in found}
    found += [
        Config(cell.config_id, cell.config.to_dict(), 0) for cell in unstored.values() if cell.config_id not in known
    ]
    found = [_with_unstored(config, unstored) for config in found]
    found.sort(key=lambda config: (order[tuple(config.fields[name] for name in slice.axes)], config.config_id))
    notes = []
    if len(found) > MAX_LINES:
        notes.append(f"{MAX_LINES} of {len(found)} configs are drawn: select fewer cells or narrow a filter")
        found = found[:MAX_LINES]
    known = {config.config_id for config in found}
    context = [config for config in stored if config.config_id not in known][:MAX_CONTEXT]
    others = total - len(known)
    differing = _differing_fields(slice, found)
    styles, group_values, dashes = _curve_styles(found, slice.axes, differing, colour, dash)
    coloured = differing if colour == BY_CELL else [colour]
    titles = (", ".join(FIELDS[name].label for name in coloured), FIELDS[dash].label if dash != NONE else "")
    styles |= {config.config_id: CurveStyle(_full_name(config, slice.axes), highlighted=False) for config in context}
    ordered = len(coloured) == 1 and FIELDS[coloured[0]].kind in ("int", "float", "model")
    return CurveSelection(found, context, styles, [*group_values], dashes, titles, ordered, group_values, others, notes)


def subset(selection: CurveSelection, config_ids: Collection[str]) -> CurveSelection:
    """Return only the curves of these configs, in unchanged colours; the legend counts the seeds of these alone."""
    counts = dict.fromkeys(selection.groups, 0)
    for config in selection.configs:
        if config.config_id in config_ids:
            counts[selection.styles[config.config_id].group] += config.n
    names = {group: _with_count(selection.group_values[group], count) for group, count in counts.items()}
    styles = {
        config_id: replace(style, group=names.get(style.group, ""))
        for config_id, style in selection.styles.items()
        if config_id in config_ids
    }
    return replace(selection, styles=styles, groups=[*names.values()])


def _with_count(value: str, seeds: int) -> str:
    return f"{value} ({seeds} seed{'s' * (seeds != 1)})"


def read_points(
    repository: Repository,
    slice: Slice,
    selection: CurveSelection,
    x: str,
    quantities: tuple[str, ...],
    x_range: tuple[float, float] | None,
    live: pa.Table | None,
) -> tuple[CurvePoints, CurvePoints]:
    """Return the points of the configs in colour, with every seed, and those of the context by group.

    Configs with ``live`` points are read apart from the others, whose cached points stay valid.
    """
    live_ids = set(live["config_id"].to_pylist()) if live is not None else set()
    unchanged = tuple(config.config_id for config in selection.configs if config.config_id not in live_ids)
    found = repository.points(slice, unchanged, x, quantities, x_range, MAX_ROWS, True)
    changing = tuple(config.config_id for config in selection.configs if config.config_id in live_ids)
    if changing and live is not None:
        stored = repository.run_ids(slice, changing)
        unstored = live.filter(pa.compute.invert(pa.compute.is_in(live["run_id"], pa.array(stored, pa.string()))))
        unstored = unstored.filter(pa.compute.is_in(unstored["config_id"], pa.array(changing)))
        growing = repository.curves(tuple(stored), x, quantities, x_range, MAX_ROWS, True, live=unstored)
        found = CurvePoints(
            pa.concat_tables([found.seeds, growing.seeds]),
            pa.concat_tables([found.groups, growing.groups]),
            max(found.stride, growing.stride),
            found.total + growing.total,
        )
    context = tuple(config.config_id for config in selection.context)
    return found, repository.points(slice, context, x, quantities[:1], x_range, MAX_CONTEXT_ROWS, False)


def live_table(cells: Sequence[Cell], points: Mapping[str, Sequence[Mapping[str, Any]]]) -> pa.Table | None:
    """Return the live points of the cells' running and cancelled jobs, as ``curve_points`` takes them; None if none.

    A running job without a point has a row, too: no median is drawn before it has one.
    """
    rows = [
        {"run_id": job.run_id, "config_id": cell.config_id, "seed": job.config.seed, "status": job.state, **point}
        for cell in cells
        for job in (*cell.active, *cell.cancelled)
        if job.state != "queued"
        for point in points.get(job.run_id) or [{}]
    ]
    return pa.Table.from_pylist(rows, schema=_LIVE) if rows else None


def default_cells(slice: Slice, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells whose curves are shown if none is selected: those with a job, else the row of the default value.

    With facets it is the cell of both default values in each facet, so that the facets can be compared.
    """
    with_jobs = [cell for cell in cells if cell.active or cell.cancelled]
    row = [
        cell
        for cell in cells
        if cell.n
        and cell.y == getattr(slice.base, slice.y)
        and (not slice.facet or cell.x == getattr(slice.base, slice.x))
    ]
    return with_jobs[:6] or row[:8] or [cell for cell in cells if cell.n][:6]


def _with_unstored(config: Config, cells: Mapping[str, Cell]) -> Config:
    cell = cells.get(config.config_id)
    more = sum(job.config.seed not in cell.seeds for job in (*cell.active, *cell.cancelled)) if cell else 0
    return Config(config.config_id, config.fields, config.n + more)


def _differing_fields(slice: Slice, configs: Sequence[Config]) -> list[str]:
    """Return the relevant fields in which configs differ; the axes if they differ in none."""
    return [
        name for name in FIELDS if name != "seed" and len({config.fields[name] for config in configs}) > 1
        and any(FIELDS[name].is_relevant(config.fields) for config in configs)
    ] or list(slice.axes)  # fmt: skip


def _curve_styles(
    configs: Sequence[Config], axes: Sequence[str], differing: Sequence[str], colour: str, dash: str
) -> tuple[dict[str, CurveStyle], dict[str, str], list[str]]:
    """Return the styles of configs in colour by id, the value of each group and the dashes, both in legend order."""
    counts: dict[Any, int] = {}
    for config in configs:
        key = config.config_id if colour == BY_CELL else config.fields[colour]
        counts[key] = counts.get(key, 0) + config.n

    def group_value(config: Config) -> str:
        by = differing if colour == BY_CELL else [colour]
        return ", ".join(display_value(name, config.fields[name]) for name in by)

    def group(config: Config) -> str:
        key = config.config_id if colour == BY_CELL else config.fields[colour]
        return _with_count(group_value(config), counts[key])

    styles = {
        config.config_id: CurveStyle(
            _full_name(config, dict.fromkeys((*axes, *differing))),
            group(config),
            display_value(dash, config.fields[dash]) if dash != NONE else "",
        )
        for config in configs
    }
    group_values = {styles[config.config_id].group: group_value(config) for config in configs}
    coloured = [colour] if colour != BY_CELL else differing
    if len(coloured) == 1:
        (name,) = coloured
        by_value = {config.fields[name]: styles[config.config_id].group for config in configs}
        group_values = {by_value[value]: group_values[by_value[value]] for value in _in_order(name, by_value)}
    dashes: list[str] = []
    if dash != NONE:
        by_dash = {config.fields[dash]: styles[config.config_id].dash for config in configs}
        dashes = [by_dash[value] for value in in_order(dash, by_dash)]
    return styles, group_values, dashes


def _in_order(name: str, values: Iterable[Any]) -> list[Any]:
    """Return values in the order of their colours: networks by their number of parameters."""
    return in_order(name, values) if name != "model" else sorted(values, key=lambda model: parse(model).parameters)


def _full_name(config: Config, names: Iterable[str]) -> str:
    return ", ".join(f"{FIELDS[name].label} {display_value(name, config.fields[name])}" for name in names)


def _as_configs(rows: Sequence[Mapping[str, Any]]) -> list[Config]:
    return [Config(row["config_id"], row, row["n"]) for row in rows]


def _configs_near(repository: Repository, slice: Slice, places: set[tuple[Any, ...]]) -> list[Config]:
    """Return the configs at these places, and some others, of a slice that is too large to be read whole."""
    narrowed = {name: sorted({place[i] for place in places}) for i, name in enumerate(slice.axes)}
    table, _ = configs(repository.store, {**slice.filters, **narrowed}, slice.text, limit=2000)
    return _as_configs(table.to_pylist())


_LIVE = pa.schema(
    [("run_id", pa.string()), ("config_id", pa.string()), ("seed", pa.int32()), ("status", pa.string())]
    + [(name, pa.int64() if name in ("step", "samples") else pa.float64()) for name in POINT_FIELDS]
)

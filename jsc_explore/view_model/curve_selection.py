"""Which curves are drawn: the configs behind the chosen cells, how each is called, and the points of all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from jsc_explore.analysis.cells import Cell, in_order
from jsc_explore.charts.curves import CurveStyle
from jsc_explore.charts.style import BY_CELL
from jsc_explore.config import FIELDS, format_value
from jsc_explore.results import POINT_FIELDS
from jsc_explore.store.query.curves import CurvePoints
from jsc_explore.store.query.grid import configs
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.url_params import NONE

# More lines than these are a carpet; what is left out is said.
MAX_LINES, MAX_CONTEXT = 16, 60
# Rows sent to the browser, about 60 bytes each.
MAX_ROWS, MAX_CONTEXT_ROWS = 6000, 3000


@dataclass(frozen=True)
class Config:
    """A config that is drawn: its fields by name, its stored seeds and those under way."""

    config_id: str
    fields: Mapping[str, Any]
    n: int


@dataclass(frozen=True)
class CurveSelection:
    """What is drawn: configs in colour and behind them; how each is called; what must be said about it.

    ``titles`` say what the names of colours and of dashes are values of.
    """

    configs: list[Config]
    context: list[Config]
    lines: dict[str, CurveStyle]
    groups: list[str]
    dashes: list[str]
    titles: tuple[str, str]
    ordered: bool
    notes: list[str] = field(default_factory=list)
    # What a colour stands for, by its name in the legend, which also counts the seeds.
    meanings: dict[str, str] = field(default_factory=dict)


def select_curves(
    repository: Repository, slice: Slice, cells: Sequence[Cell], chosen: Sequence[Cell], colour: str, dash: str
) -> CurveSelection:
    """Choose the lines: those of the chosen cells in colour, the others of the slice in grey."""
    drawn = list(chosen) or _default_cells(slice, cells)
    places = {cell.place for cell in drawn}
    rows, total = repository.configs(slice, 4 * MAX_CONTEXT)
    stored = _as_configs(rows)
    growing = {cell.config_id: cell for cell in drawn if cell.active}
    picked = _points_of(repository, slice, places) if total > len(stored) else stored
    picked = [config for config in picked if tuple(config.fields[name] for name in slice.axes) in places]
    known = {config.config_id for config in picked}
    picked = [_with_growing(config, growing) for config in picked]
    picked += [
        Config(cell.config_id, cell.config.to_dict(), len(cell.active))
        for cell in growing.values()
        if cell.config_id not in known
    ]
    order = {cell.place: i for i, cell in enumerate(drawn)}
    picked.sort(key=lambda one: (order[tuple(one.fields[name] for name in slice.axes)], one.config_id))
    notes = []
    if len(picked) > MAX_LINES:
        notes.append(f"{MAX_LINES} of {len(picked)} configs are drawn: choose fewer cells or narrow a filter")
        picked = picked[:MAX_LINES]
    known = {config.config_id for config in picked}
    others = [config for config in stored if config.config_id not in known]
    if total - len(known) > MAX_CONTEXT:
        notes.append(f"grey: {MAX_CONTEXT} of {total - len(known):,} other configs")
    differing = _differing(slice, picked)
    lines, meanings, dashes = _named(picked, slice.axes, differing, colour, dash)
    told = differing if colour == BY_CELL else [colour]
    titles = (", ".join(FIELDS[name].label for name in told), FIELDS[dash].label if dash != NONE else "")
    lines |= {config.config_id: CurveStyle(_name(slice, config), chosen=False) for config in others[:MAX_CONTEXT]}
    ordered = colour != BY_CELL and FIELDS[colour].kind in ("int", "float")
    return CurveSelection(picked, others[:MAX_CONTEXT], lines, [*meanings], dashes, titles, ordered, notes, meanings)


def subset(drawn: CurveSelection, only: Collection[str]) -> CurveSelection:
    """Return the lines of these configs alone, in the colours that they have among all; names count their own seeds."""
    counts = dict.fromkeys(drawn.groups, 0)
    for config in drawn.configs:
        if config.config_id in only:
            counts[drawn.lines[config.config_id].group] += config.n
    names = {group: _counted(drawn.meanings[group], count) for group, count in counts.items()}
    lines = {
        config_id: replace(line, group=names.get(line.group, ""))
        for config_id, line in drawn.lines.items()
        if config_id in only
    }
    return replace(drawn, lines=lines, groups=[*names.values()])


def _counted(meaning: str, seeds: int) -> str:
    return f"{meaning} (n={seeds})"


def points(
    repository: Repository,
    slice: Slice,
    drawn: CurveSelection,
    x: str,
    quantities: tuple[str, ...],
    x_range: tuple[float, float] | None,
    live: pa.Table | None,
) -> tuple[CurvePoints, CurvePoints]:
    """Return the points of the chosen configs with every seed, and the means of those behind them.

    What is stored is read once; only what grows is read anew.
    """
    grows = set(live["config_id"].to_pylist()) if live is not None else set()
    still = tuple(config.config_id for config in drawn.configs if config.config_id not in grows)
    chosen = repository.points(slice, still, x, quantities, x_range, MAX_ROWS, True)
    moving = tuple(config.config_id for config in drawn.configs if config.config_id in grows)
    if moving and live is not None:
        stored = repository.run_ids(slice, moving)
        fresh = live.filter(pa.compute.invert(pa.compute.is_in(live["run_id"], pa.array(stored, pa.string()))))
        fresh = fresh.filter(pa.compute.is_in(fresh["config_id"], pa.array(moving)))
        growing = repository.curves(tuple(stored), x, quantities, x_range, MAX_ROWS, True, live=fresh)
        chosen = CurvePoints(
            pa.concat_tables([chosen.seeds, growing.seeds]),
            pa.concat_tables([chosen.means, growing.means]),
            max(chosen.stride, growing.stride),
            chosen.total + growing.total,
        )
    behind = tuple(config.config_id for config in drawn.context)
    return chosen, repository.points(slice, behind, x, quantities[:1], x_range, MAX_CONTEXT_ROWS, False)


def live_points(cells: Sequence[Cell], points: Mapping[str, Sequence[Mapping[str, Any]]]) -> pa.Table | None:
    """Return the points of this grid's running jobs, as ``curve_points`` takes them; None if there are none."""
    rows = [
        {"run_id": job.run_id, "config_id": cell.config_id, "seed": job.config.seed, **point}
        for cell in cells
        for job in cell.active
        for point in points.get(job.run_id, [])
    ]
    return pa.Table.from_pylist(rows, schema=_LIVE) if rows else None


def _default_cells(slice: Slice, cells: Sequence[Cell]) -> list[Cell]:
    """Choose what to show before anything is clicked: what is growing, else the row of the default value.

    In a grid with facets these are the cells of both default values: what the facet is there to compare.
    """
    growing = [cell for cell in cells if cell.active]
    row = [
        cell
        for cell in cells
        if cell.n
        and cell.y == getattr(slice.base, slice.y)
        and (not slice.facet or cell.x == getattr(slice.base, slice.x))
    ]
    return growing[:6] or row[:8] or [cell for cell in cells if cell.n][:6]


def _with_growing(config: Config, growing: Mapping[str, Cell]) -> Config:
    cell = growing.get(config.config_id)
    more = sum(job.config.seed not in cell.seeds for job in cell.active) if cell else 0
    return Config(config.config_id, config.fields, config.n + more)


def _differing(slice: Slice, picked: Sequence[Config]) -> list[str]:
    """Return the fields that tell configs apart; the axes where there is nothing to tell apart."""
    return [
        name for name in FIELDS if name != "seed" and len({config.fields[name] for config in picked}) > 1
        and any(FIELDS[name].is_relevant(config.fields) for config in picked)
    ] or list(slice.axes)  # fmt: skip


def _named(
    picked: Sequence[Config], axes: Sequence[str], differing: Sequence[str], colour: str, dash: str
) -> tuple[dict[str, CurveStyle], dict[str, str], list[str]]:
    """Name the chosen configs: in full, and by what gives them their colour and their dash.

    Also return what each colour stands for, by its name in the legend and in that order, and the dashes in theirs.
    """
    counts: dict[Any, int] = {}
    for config in picked:
        key = config.config_id if colour == BY_CELL else config.fields[colour]
        counts[key] = counts.get(key, 0) + config.n

    def words(name: str, config: Config) -> str:
        return f"{FIELDS[name].label} {format_value(name, config.fields[name])}"

    def meaning(config: Config) -> str:
        by = differing if colour == BY_CELL else [colour]
        return ", ".join(format_value(name, config.fields[name]) for name in by)

    def group(config: Config) -> str:
        key = config.config_id if colour == BY_CELL else config.fields[colour]
        return _counted(meaning(config), counts[key])

    lines = {
        config.config_id: CurveStyle(
            ", ".join(words(name, config) for name in dict.fromkeys((*axes, *differing))),
            group(config),
            format_value(dash, config.fields[dash]) if dash != NONE else "",
        )
        for config in picked
    }
    meanings = {lines[config.config_id].group: meaning(config) for config in picked}
    if colour != BY_CELL:
        by_value = {config.fields[colour]: lines[config.config_id].group for config in picked}
        meanings = {by_value[value]: meanings[by_value[value]] for value in in_order(colour, by_value)}
    dashes: list[str] = []
    if dash != NONE:
        by_dash = {config.fields[dash]: lines[config.config_id].dash for config in picked}
        dashes = [by_dash[value] for value in in_order(dash, by_dash)]
    return lines, meanings, dashes


def _name(slice: Slice, config: Config) -> str:
    return ", ".join(f"{FIELDS[name].label} {format_value(name, config.fields[name])}" for name in slice.axes)


def _as_configs(rows: Sequence[Mapping[str, Any]]) -> list[Config]:
    return [Config(row["config_id"], row, row["n"]) for row in rows]


def _points_of(repository: Repository, slice: Slice, places: set[tuple[Any, ...]]) -> list[Config]:
    """Return the configs in or near these places, in a slice too large to be taken whole."""
    narrowed = {name: sorted({place[i] for place in places}) for i, name in enumerate(slice.axes)}
    table, _ = configs(repository.store, {**slice.filters, **narrowed}, slice.text, limit=2000)
    return _as_configs(table.to_pylist())


_LIVE = pa.schema(
    [("run_id", pa.string()), ("config_id", pa.string()), ("seed", pa.int32())]
    + [(name, pa.int64() if name in ("step", "samples") else pa.float64()) for name in POINT_FIELDS]
)

"""Make a handout: what a view shows, its drawing program and its figures, put into the template as one text."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pyarrow as pa

from jsc_explore import __version__
from jsc_explore.analysis.cells import Cell
from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import half_width
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.style import BACKGROUND, FAINT, INK, MUTED, POWER_LABEL, format_metric, is_time
from jsc_explore.config import FIELDS, RECIPE_VERSION, format_value
from jsc_explore.errors import FieldError, JscError
from jsc_explore.export.chart_files import render_image
from jsc_explore.files import atomic_write
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.store import Store
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model import curves, grid, url_params
from jsc_explore.view_model import tables as files
from jsc_explore.view_model.imported_runs import drawn_of, listed
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice, slice_of

THEMES = ("light", "dark")
_HERE = Path(__file__).parent
# Seven digits are more than any chart shows, and halve the file.
_DIGITS = 7


@dataclass(frozen=True)
class Drawn:
    """One chart: its title, its figure on light and on dark ground (the tables are the same)."""

    title: str
    figures: tuple[Figure, Figure]


def parse_view(text: str, saved: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the words of a view given as an address, as its part after the question mark, or as a saved view's name.

    Raises JscError for a word that a page would not understand either.
    """
    if text in (saved or {}):
        text = (saved or {})[text]
    parts = urlsplit(text)
    if parts.path.strip("/") not in ("", "explore") and parts.scheme:
        raise FieldError("view", text, "is no address of the Explore page", "open the view there and copy its address")
    words_text = parts.query if parts.query or parts.scheme else parts.path
    if words_text and "=" not in words_text:
        remedy = "give an address such as '?model=jsc-toy&x=batch_size'"
        remedy += f", or one of the saved views {', '.join(saved)}" if saved else ""
        raise FieldError("view", text, "is neither an address nor a saved view", remedy)
    query = dict(parse_qsl(words_text, keep_blank_values=True))
    _, faults = url_params.EXPLORE.read(query)
    if faults:
        raise JscError(f"view: {faults[0]}")
    return query


def export_page(store: Store, query: Mapping[str, str], title: str = "", imported: Sequence[ImportedRun] = ()) -> str:
    """Return the page of a view as HTML text; ``title`` stands over the line that says what is seen.

    ``imported`` runs are drawn over the curves where the view shows them, and listed.
    """
    import jinja2

    repository, (state, _) = Repository(store), url_params.EXPLORE.read(query)
    slice = slice_of(state)
    cells = grid.cells_of(repository, slice, [], state[url_params.CELLS])
    guesses = _predictions(repository, slice, cells)
    grids = _grids(state, slice, cells, guesses)
    drawn = {theme: curves.panels(repository, state, slice, cells, {}, theme, imported) for theme in THEMES}
    shown, _ = drawn_of(imported, state["imported"])
    lines = [
        Drawn(name, (light, dark))
        for (name, light), (_, dark) in zip(drawn["light"].figures, drawn["dark"].figures, strict=True)
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("static_page.html").render(
        title=title,
        sentence=grid.title(slice, cells),
        style=(_HERE / "static_page.css").read_text(encoding="utf-8"),
        colours={theme: {"ground": BACKGROUND[theme], "ink": INK[theme], "muted": MUTED[theme], "faint": FAINT[theme]}
                 for theme in THEMES},
        grids=[_shown(f"grid-{i}", one) for i, one in enumerate(grids)],
        legend_text=grid.legend_text(slice, cells)
        if grids
        else f"{len(cells):,} cells are too many to draw; the table has them",
        curves=[_shown(f"curves-{i}", one) for i, one in enumerate(lines)],
        legend=" ".join([curves.legend(state, bool(shown)), *(f"{note}." for note in drawn["light"].notes)]),
        heads=[*(FIELDS[name].label for name in slice.axes), *_FIGURES],
        rows=[_row(slice, cell, guesses.get(cell.config_id)) for cell in cells],
        imported=_listed(shown),
        metric=METRICS[slice.metric],
        commands="\n".join(files.commands(store, slice)),
        power=POWER_LABEL,
        provenance=_provenance(store, slice, query),
        library=_library(),
        program=(_HERE / "static_page.js").read_text(encoding="utf-8"),
    )  # fmt: skip


def write_page(text: str, path: Path, *, force: bool = False) -> None:
    """Write a page to a file, whole or not at all; an existing file is replaced only by ``force``. JscError if not."""
    try:
        if path.exists() and not force:
            raise FileExistsError
        with atomic_write(path, overwrite=force) as file:
            file.write(text.encode())
    except FileExistsError:
        raise FieldError("file", str(path), "exists already", "choose another name or add --force") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise FieldError("file", str(path), f"cannot be written ({reason})", "choose another place") from error


def _predictions(repository: Repository, slice: Slice, cells: Sequence[Cell]) -> dict[str, Prediction]:
    missing = [cell for cell in cells if cell.state == "missing"]
    if not missing or len(cells) > grid.MAX_CELLS:
        return {}
    found = repository.forecast([cell.config for cell in missing], slice.metric).predictions
    return {cell.config_id: guess for cell, guess in zip(missing, found, strict=True) if guess is not None}


def _grids(
    state: Mapping[str, Any], slice: Slice, cells: Sequence[Cell], guesses: Mapping[str, Prediction]
) -> list[Drawn]:
    if len(cells) > grid.MAX_CELLS:
        return []
    light, dark = (grid.parts(slice, cells, state[url_params.CELLS], lambda _: guesses, theme, 1.0) for theme in THEMES)
    return [Drawn(one.title, (one.figure, other.figure)) for one, other in zip(light, dark, strict=True)]


def _shown(key: str, drawn: Drawn) -> dict[str, Any]:
    """Return what the template needs of a chart; its picture is for paper, and for readers without a program."""
    light, _ = drawn.figures
    specs = [_still(figure) for figure in drawn.figures]
    tables = {name: _rows(table) for name, table in light.tables.items()}
    image = base64.b64encode(render_image(light, "svg")).decode("ascii")
    content = {"light": specs[0], "dark": specs[1], "datasets": tables}
    return {
        "key": key, "title": drawn.title, "words": light.alt_text, "json": _json(content), "image": image,
        # Narrower than this, letters would overlap: a phone scrolls the chart. Its height is kept free: nothing jumps.
        "least": round(0.72 * light.width) if key.startswith("grid") else 0, "height": round(light.spec["height"]),
    }  # fmt: skip


def _still(figure: Figure) -> dict[str, Any]:
    """Return a spec without what only the app answers: clicks that train, boxes that choose, a zoom that reads anew."""
    spec = dict(figure.spec)
    spec["params"] = [one for one in spec.get("params", []) if one.get("bind") == "legend"]
    spec["layer"] = [
        {**layer, "mark": {key: value for key, value in layer["mark"].items() if key != "cursor"}}
        for layer in spec["layer"]
    ]
    return {key: value for key, value in spec.items() if key != "usermeta"}


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    def brief(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
        return value

    return [{name: brief(value) for name, value in row.items()} for row in table.to_pylist()]


def _json(value: Any) -> str:
    # Within a script element nothing but the element's own end may look like a tag.
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, as vl-convert ships them."""
    import vl_convert

    zip_archive = str(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # its stub forgets the default
    if "</script" in zip_archive or "<!--" in zip_archive:
        raise JscError("handout: this version of vl-convert-python ships a script that cannot stand in a page; "
                       "install the one in requirements.txt")  # fmt: skip
    return zip_archive


_FIGURES = ("mean", "±", "seeds", "least", "greatest", "note")


def _row(slice: Slice, cell: Cell, guess: Prediction | None) -> list[str]:
    place = [format_value(name, value) for name, value in zip(slice.axes, cell.place, strict=True)]
    if guess is not None:
        low, middle, high = (format_metric(slice.metric, value) for value in (guess.low, guess.mean, guess.high))
        return [*place, f"≈{middle}", "", "0", "", "", f"predicted, with 80% between {low} and {high}; not measured"]
    if not cell.n:
        return [*place, "", "", "0", "", "", cell.state]
    spread = None if is_time(slice.metric) or cell.n_configs > 1 else half_width(cell.sd, cell.n)
    # 71.3 ± 0.4% in two columns.
    half = "" if spread is None else format_metric(slice.metric, cell.mean, spread).split("± ")[1]
    notes = [f"{cell.n} of {cell.wanted} seeds"] if cell.state == "partly" else []
    notes += [f"{cell.n_configs} configs"] if cell.n_configs > 1 else []
    notes += [f"† {cell.n_silent} never predict a class"] if cell.n_silent else []
    notes += [f"‡ {cell.n_diverged} diverged"] if cell.n_diverged else []
    low, middle, high = (format_metric(slice.metric, value) for value in (cell.low, cell.mean, cell.high))
    return [*place, middle, half, str(cell.n), low, high, ", ".join(notes)]


def _listed(runs: Sequence[ImportedRun]) -> dict[str, list[Any]]:
    """Return heads and rows of the table of imported runs."""
    rows = listed(runs).to_pylist()
    heads = list(rows[0]) if rows else []

    def text(name: str, value: Any) -> str:
        if isinstance(value, float):
            return format_metric(name, value)
        return "" if value is None else str(value)

    return {"heads": heads, "rows": [[text(name, row[name]) for name in heads] for row in rows]}


def _provenance(store: Store, slice: Slice, query: Mapping[str, str]) -> list[tuple[str, str]]:
    columns = ("versions", "device", "backend", "created_at")
    runs = store.runs(slice.filters, columns).to_pylist() if not slice.text else []
    found = [
        ("Made", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by JSC Explore {__version__}"),
        ("Jets", f"{slice.base.dataset}, digest {slice.digest[:16]}…"),
        ("Recipe", f"version {RECIPE_VERSION}"),
        ("The same view, live", "?" + urlencode(query, safe=":~,./") if query else "the Explore page as it opens"),
    ]
    if runs:
        versions = {one for row in runs for one in json.loads(row["versions"]).items()}
        days = sorted(row["created_at"][:10] for row in runs)
        found += [
            ("Trained", days[0] if days[0] == days[-1] else f"{days[0]} to {days[-1]}"),
            ("On", ", ".join(sorted({f"{row['device']} ({row['backend']})" for row in runs}))),
            ("With", ", ".join(sorted(f"{name} {version}" for name, version in versions))),
        ]
    return found

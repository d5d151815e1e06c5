"""Export a view of the Explore page as one HTML file that needs neither server nor network."""

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
from jsc_explore.charts.crosshair import CROSSHAIR
from jsc_explore.charts.curves import LEGEND
from jsc_explore.charts.figure import Figure
from jsc_explore.charts.grid import cell_median, seed_texts
from jsc_explore.charts.style import BACKGROUND, FAINT, INK, MUTED, POWER_LABEL, format_metric
from jsc_explore.config import FIELDS, RECIPE_VERSION, format_value
from jsc_explore.errors import FieldError, JscError
from jsc_explore.export.chart_files import render_image
from jsc_explore.files import atomic_write, error_reason
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.store import Store
from jsc_explore.store.schema import METRICS
from jsc_explore.view_model import curves, grid, headline, response, url_params
from jsc_explore.view_model import tables as files
from jsc_explore.view_model.imported_runs import runs_table, select_imported
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice, slice_of

THEMES = ("light", "dark")
_PAGE_COLOURS = {"background": BACKGROUND, "ink": INK, "muted": MUTED, "faint": FAINT}
_HERE = Path(__file__).parent
# More than any chart shows; half the file size of all digits.
_DIGITS = 7


@dataclass(frozen=True)
class PageChart:
    """A chart with its title; its figures for the light and the dark theme share their tables."""

    title: str
    figures: tuple[Figure, Figure]


def parse_view(text: str, saved: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the URL parameters of a view: ``text`` is a URL, its query string, or the name of a ``saved`` view.

    Raises JscError for a parameter or a value that the Explore page would refuse.
    """
    if text in (saved or {}):
        text = (saved or {})[text]
    parts = urlsplit(text)
    if parts.path.strip("/") not in ("", "explore") and parts.scheme:
        raise FieldError("view", text, "is not a URL of the Explore page", "open the view there and copy its URL")
    query_text = parts.query if parts.query or parts.scheme else parts.path
    if query_text and "=" not in query_text:
        remedy = "give a URL such as '?model=jsc-toy&x=batch_size'"
        remedy += f", or one of the saved views {', '.join(saved)}" if saved else ""
        raise FieldError("view", text, "is neither a URL nor a saved view", remedy)
    query = dict(parse_qsl(query_text, keep_blank_values=True))
    _, faults = url_params.EXPLORE.read(query)
    if faults:
        raise JscError(f"view: {faults[0]}")
    return query


def export_page(store: Store, query: Mapping[str, str], title: str = "", imported: Sequence[ImportedRun] = ()) -> str:
    """Return the HTML page of the view with these URL parameters; ``title`` is its heading.

    ``imported`` runs are drawn over the curves and listed, if the view shows them.
    """
    import jinja2

    repository, (state, _) = Repository(store), url_params.EXPLORE.read(query)
    slice = slice_of(state)
    cells = grid.cells_of(repository, slice, [], state[url_params.CELLS])
    predictions = _predictions(repository, slice, cells)
    grids = _grids(state, slice, cells, predictions)
    panels = {theme: curves.panels(repository, state, slice, cells, {}, theme, imported) for theme in THEMES}
    responses = {theme: response.slice_response(repository, state, slice, theme, 1.0) for theme in THEMES}
    shown, _ = select_imported(imported, state["imported"])
    machines = repository.machines(slice)
    lines, against = (
        [PageChart(name, (light, dark)) for (name, light), (_, dark) in zip(*figures, strict=True)]
        for figures in ([one[theme].figures for theme in THEMES] for one in (panels, responses))
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    return environment.get_template("static_page.html").render(
        title=title,
        summary=f"{headline.title(slice)}, {headline.axes_text(slice)}: {headline.counts_text(slice, cells)}",
        fixed=headline.fixed_text(slice),
        style=(_HERE / "static_page.css").read_text(encoding="utf-8"),
        colours={
            theme: {name: colours[theme] for name, colours in _PAGE_COLOURS.items()} for theme in THEMES
        },
        grids=[_template_chart(f"grid-{i}", one) for i, one in enumerate(grids)],
        legend_text=grid.legend_text(slice, cells, machines=machines)
        if grids
        else f"{len(cells):,} cells are too many to draw; see the table",
        curves=[_template_chart(f"curves-{i}", one) for i, one in enumerate(lines)],
        legend=" ".join(
            [
                curves.legend(state, panels["light"].shown, bool(shown), machines=machines),
                *(f"{note}." for note in panels["light"].notes),
            ]
        ),
        responses=[_template_chart(f"response-{i}", one) for i, one in enumerate(against)],
        response_legend=responses["light"].legend,
        columns=[*(FIELDS[name].label for name in slice.axes), *_STATISTICS],
        rows=[_table_row(slice, cell, predictions.get(cell.config_id)) for cell in cells],
        imported=_imported_table(shown),
        metric=METRICS[slice.metric],
        commands="\n".join(files.commands(store, slice)),
        power_label=POWER_LABEL,
        provenance=_provenance(store, slice, query),
        vega=_vega(),
        script=(_HERE / "static_page.js").read_text(encoding="utf-8"),
    )  # fmt: skip


def write_page(text: str, path: Path, *, force: bool = False) -> None:
    """Write a page to a file atomically. Raises FieldError if it exists (unless ``force``) or cannot be written."""
    try:
        if path.exists() and not force:
            raise FileExistsError
        with atomic_write(path, overwrite=force) as file:
            file.write(text.encode())
    except FileExistsError:
        raise FieldError("file", str(path), "exists already", "choose another name or add --force") from None
    except OSError as error:
        raise FieldError(
            "file", str(path), f"cannot be written ({error_reason(error)})", "choose another place"
        ) from error


def _predictions(repository: Repository, slice: Slice, cells: Sequence[Cell]) -> dict[str, Prediction]:
    missing = [cell for cell in cells if cell.state == "missing"]
    if not missing or len(cells) > grid.MAX_CELLS:
        return {}
    found = repository.predict([cell.config for cell in missing], slice.metric).predictions
    return {cell.config_id: one for cell, one in zip(missing, found, strict=True) if one is not None}


def _grids(
    state: Mapping[str, Any], slice: Slice, cells: Sequence[Cell], predictions: Mapping[str, Prediction]
) -> list[PageChart]:
    if len(cells) > grid.MAX_CELLS:
        return []
    light, dark = (
        grid.parts(slice, cells, state[url_params.CELLS], lambda _: predictions, theme, 1.0) for theme in THEMES
    )
    return [PageChart(one.title, (one.figure, other.figure)) for one, other in zip(light, dark, strict=True)]


def _template_chart(key: str, chart: PageChart) -> dict[str, Any]:
    """Return the template's variables of a chart; the SVG image is for print and for browsers without JavaScript."""
    light, _ = chart.figures
    specs = [_without_interaction(figure) for figure in chart.figures]
    tables = {name: _json_rows(table) for name, table in light.tables.items()}
    image = base64.b64encode(render_image(light, "svg")).decode("ascii")
    content = {"light": specs[0], "dark": specs[1], "datasets": tables}
    return {
        "key": key, "title": chart.title, "alt_text": light.alt_text, "json": _script_json(content), "image": image,
        # Below this width texts would overlap: a phone scrolls the chart. The height is reserved against layout shifts.
        "min_width": round(0.72 * light.width) if key.startswith("grid") else 0, "height": round(light.spec["height"]),
    }  # fmt: skip


def _without_interaction(figure: Figure) -> dict[str, Any]:
    """Return a spec without the selections that need the app: clicks that train, box selection, zoom."""
    spec = dict(figure.spec)
    spec["params"] = [one for one in spec.get("params", []) if one["name"] in (LEGEND, CROSSHAIR)]
    spec["layer"] = [
        {**layer, "mark": {key: value for key, value in layer["mark"].items() if key != "cursor"}}
        for layer in spec["layer"]
    ]
    return {key: value for key, value in spec.items() if key != "usermeta"}


def _json_rows(table: pa.Table) -> list[dict[str, Any]]:
    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
        return value

    return [{name: rounded(value) for name, value in row.items()} for row in table.to_pylist()]


def _script_json(value: Any) -> str:
    # Inside a script element nothing may look like a tag.
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, as vl-convert ships them."""
    import vl_convert

    zip_archive = str(vl_convert.javascript_bundle())  # type: ignore[call-arg]  # its stub forgets the default
    if "</script" in zip_archive or "<!--" in zip_archive:
        raise JscError("export: this version of vl-convert-python ships a script that cannot be embedded in a page; "
                       "install the one in requirements.txt")  # fmt: skip
    return zip_archive


_STATISTICS = ("median", "seeds", "minimum", "maximum", "note")


def _table_row(slice: Slice, cell: Cell, prediction: Prediction | None) -> list[str]:
    place = [format_value(name, value) for name, value in zip(slice.axes, cell.place, strict=True)]
    if prediction is not None:
        low, middle, high = (
            format_metric(slice.metric, value) for value in (prediction.low, prediction.value, prediction.high)
        )
        return [*place, f"≈{middle}", "0", "", "", f"predicted, 80% band {low} to {high}; not measured"]
    if not cell.n:
        return [*place, "", "0", "", "", cell.state]
    notes = [f"{cell.n} of {cell.wanted} seeds"] if cell.state == "partly" else []
    notes += [f"{cell.n_configs} configs"] if cell.n_configs > 1 else []
    notes += [f"† {'; '.join(seed_texts(cell, slice.metric))}"] if cell.n_silent else []
    notes += [f"‡ {cell.n_diverged} diverged"] if cell.n_diverged else []
    # Over several configs there is no median, only the range.
    median = cell_median(cell, slice.metric) or format_metric(slice.metric, cell.value)
    low, high = (format_metric(slice.metric, value) for value in (cell.lowest, cell.highest))
    return [*place, median, str(cell.n_median or cell.n), low, high, ", ".join(notes)]


def _imported_table(runs: Sequence[ImportedRun]) -> dict[str, list[Any]]:
    """Return columns and rows of the table of imported runs."""
    rows = runs_table(runs).to_pylist()
    columns = list(rows[0]) if rows else []

    def text(name: str, value: Any) -> str:
        if isinstance(value, float):
            return format_metric(name, value)
        return "" if value is None else str(value)

    return {"columns": columns, "rows": [[text(name, row[name]) for name in columns] for row in rows]}


def _provenance(store: Store, slice: Slice, query: Mapping[str, str]) -> list[tuple[str, str]]:
    columns = ("versions", "device", "backend", "created_at")
    runs = store.runs(slice.filters, columns).to_pylist() if not slice.text else []
    found = [
        ("Exported", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC by JSC Explore {__version__}"),
        ("Jets", f"{slice.base.dataset}, digest {slice.digest[:16]}…"),
        ("Recipe", f"version {RECIPE_VERSION}"),
        ("This view in the app", "?" + urlencode(query, safe=":~,./") if query else "the Explore page by default"),
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

"""The export dialog: charts as SVG, PNG and PDF, their tables, the commands that reproduce the runs, a ZIP of all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pyarrow as pa
import streamlit as st

from jsc_explore import __version__, data
from jsc_explore.charts.curves import CONTEXT, MEDIANS, SEEDS
from jsc_explore.charts.figure import Figure, Heading
from jsc_explore.charts.imported import LINES
from jsc_explore.charts.style import SILENT_SIGN
from jsc_explore.export import export_page
from jsc_explore.export.chart_files import IMAGE_FORMATS, render_image, table_bytes, zip_archive
from jsc_explore.store import Store
from jsc_explore.store.imported_runs import ImportedRuns
from jsc_explore.view_model import headline
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.tables import cells_table, commands, points_table, public_table
from jsc_explore.view_model.url_params import CELLS
from jsc_explore.web.components import curves as curves_panel
from jsc_explore.web.components import grid, saved_views
from jsc_explore.web.components import response as response_panel
from jsc_explore.web.state import chart_registry, dialogs, predictions, services
from jsc_explore.web.state.cached_repository import CachedRepository
from jsc_explore.web.state.downloads import download_button
from jsc_explore.web.state.url import EXPLORE, UrlState

FOLDER = "jsc-explore-view"
_README = """{title}

Exported from JSC Explore {version} on {now:%Y-%m-%d %H:%M} UTC.
The same view, live: {url}

Charts are SVG, PNG and PDF; tables are CSV and Parquet.
{runs}
view.json       the URL parameters of the page
"""
# Of pages with runs.
_RUNS = """A dagger marks seeds with a silent class: its output is zero for more than 99% of its jets.

commands.sh     the command lines that reproduce every run"""


@st.dialog("Export", width="large", on_dismiss=dialogs.close)
def explore_dialog(slice: Slice) -> None:
    """Draw the dialog of the Explore page."""
    figures, tables = contents(slice)
    lines = commands(services.store(), slice)
    heading = headline.export_heading(slice, datetime.now(UTC))
    _draw_downloads(figures, tables, lines, _texts(slice, lines), heading, html=True)


@st.dialog("Export", width="large", on_dismiss=dialogs.close)
def charts_dialog(
    state: UrlState, title: str, dataset: str, tables: Mapping[str, pa.Table], lines: Sequence[str]
) -> None:
    """Draw the dialog of another page, about this data set: its registered charts, ``tables``, command ``lines``."""
    texts = {
        "README.txt": _readme(title, saved_views.page_url(state.query), _RUNS if lines else ""),
        "view.json": json.dumps(state.query, indent=1),
    }
    if lines:
        texts["commands.sh"] = _script(lines)
    signs = (f"{SILENT_SIGN}.",) if lines else ()
    heading = Heading(title.rstrip("."), (*signs, headline.export_note(data.digest(dataset), datetime.now(UTC))))
    _draw_downloads(chart_registry.figures(), tables, lines, texts, heading)


def _draw_downloads(
    figures: Mapping[str, Figure],
    tables: Mapping[str, pa.Table],
    lines: Sequence[str],
    texts: Mapping[str, str],
    heading: Heading,
    html: bool = False,
) -> None:
    """Draw the buttons; each file is made when its button is clicked."""
    st.caption("What the page shows now, without runs that are still training. Each file is made when you click.")
    titled = st.toggle(
        "Title and notes in the images", value=True, key="titled images",
        help="Title, fixed values, meaning of the signs, data and date above each chart",
    )  # fmt: skip
    if titled:
        figures = {name: replace(figure, heading=heading) for name, figure in figures.items()}
    for name, figure in figures.items():
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{name.replace('_', ' ').capitalize()}**", width="stretch")
            for kind in IMAGE_FORMATS:
                _button(kind.upper(), f"{name}.{kind}", partial(render_image, figure, kind))
    for name, table in tables.items():
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**Table of {name.replace('_', ' ')}**, {table.num_rows:,} rows", width="stretch")
            _button("CSV", f"{name}.csv", partial(table_bytes, table, "csv"))
            _button("Parquet", f"{name}.parquet", partial(table_bytes, table, "parquet"))
    if lines:
        expander = st.expander(f"Command lines that reproduce {len(lines):,} configurations")
        expander.code(
            "\n".join(lines[:50]) + ("\n# the rest is in the ZIP" if len(lines) > 50 else ""), language="shell"
        )
    buttons = st.container(horizontal=True)
    if html:
        with buttons:
            download_button(
                "One page, interactive and offline",
                partial(_page, services.store(), services.imported(), EXPLORE.query),
                "view.html",
                icon=":material/description:",
                key="html page",
                help="Charts, table and commands in one file that opens in any browser, on paper too",
            )
    with buttons:
        download_button(
            "Everything in one ZIP",
            # It is made outside the page's run and so gets everything as arguments.
            partial(zip_archive, figures, tables, texts, FOLDER),
            f"{FOLDER}.zip",
            icon=":material/folder_zip:",
            type="primary",
            key="zip",
        )


def _page(store: Store, imported: ImportedRuns, query: Mapping[str, str]) -> bytes:
    return export_page(store, query, imported=imported.all()).encode()


def contents(slice: Slice) -> tuple[dict[str, Figure], dict[str, pa.Table]]:
    """Return the figures, in the light theme, and the tables of the Explore page by file name."""
    cells = grid.cells_of(slice, [], EXPLORE[CELLS])
    drawn_curves = curves_panel.panels(slice, cells, {}, "light")
    grids = grid.parts(slice, cells, "light")
    figures = {_numbered("grid", i, len(grids)): part.figure for i, part in enumerate(grids)}
    curves = drawn_curves.figures
    figures |= {_numbered("curves", i, len(curves)): figure for i, (_, figure) in enumerate(curves)}
    response = response_panel.drawn_of(slice, "light")
    responses = response.figures
    figures |= {_numbered("response", i, len(responses)): figure for i, (_, figure) in enumerate(responses)}
    tables = {"grid": cells_table(slice, cells, predictions.shown(slice.metric))}
    if responses:
        tables["response"] = response.table
    for name, source in (("curves_medians", MEDIANS), ("curves_context", CONTEXT), ("curves_seeds", SEEDS)):
        parts = [figure.tables[source] for _, figure in curves]
        if parts and sum(part.num_rows for part in parts):
            tables[name] = public_table(pa.concat_tables(parts), EXPLORE["curve_x"], EXPLORE["curve"])
    if drawn_curves.configs:
        tables["curve_points"] = points_table(services.store(), CachedRepository().run_ids(slice, drawn_curves.configs))
    if curves and LINES in curves[0][1].tables:
        tables["imported"] = curves[0][1].tables[LINES]
    return figures, tables


def _texts(slice: Slice, lines: Sequence[str]) -> dict[str, str]:
    cells = grid.cells_of(slice, [], EXPLORE[CELLS])
    title = f"{headline.title(slice)}, {headline.axes_text(slice)}: {headline.counts_text(slice, cells)}"
    readme = _readme(f"{title}\nHeld fixed: {headline.fixed_text(slice)}", saved_views.page_url(EXPLORE.query), _RUNS)
    readme += """
grid.*          the grid; its table has one row a cell: median with its spread (95% interval from five
                seeds on, else range) and number of runs
curves.*        the learning curves; curves_medians has the drawn medians with their bands, curves_seeds each
                seed, curves_context the medians of the other cells, in grey
response.*      the metric against one hyperparameter; its table has one row a point
curve_points.*  all recorded points of the runs in colour with their hyperparameters; `jsc-explore import csv` reads it
"""
    return {"README.txt": readme, "commands.sh": _script(lines), "view.json": json.dumps(EXPLORE.query, indent=1)}


def _readme(title: str, url: str, runs: str) -> str:
    return _README.format(title=title, version=__version__, now=datetime.now(UTC), url=url, runs=runs)


def _script(lines: Sequence[str]) -> str:
    return "#!/bin/sh\nset -e\n" + "\n".join(lines) + "\n"


def _numbered(name: str, index: int, count: int) -> str:
    return name if count == 1 else f"{name}_{index + 1}"


def _button(label: str, name: str, make: Callable[[], bytes]) -> None:
    download_button(label, make, name, key=f"download-{name.replace('.', '-')}", help=f"Download {name}")

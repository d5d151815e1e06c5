"""Command ``export``: a view as one HTML page that needs neither the app nor a network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from jsc_explore import paths
from jsc_explore.cli.options import add_command
from jsc_explore.store import Store
from jsc_explore.store.imported_runs import ImportedRuns
from jsc_explore.store.saved_views import SavedViews


def add_commands(commands: Any) -> None:
    """Add ``export html``."""
    formats = add_command(commands, "export", None, "Export a view.").add_subparsers(required=True, metavar="FORMAT")
    page = add_command(formats, "html", write)
    page.add_argument("file", type=Path, metavar="VIEW.html", help="the page to write")
    page.add_argument("--view", default="", metavar="URL", help="a URL of the Explore page, its part after the "
                      "question mark, or the name of a saved view (default: the page's initial view)")  # fmt: skip
    page.add_argument("--title", default="", help="a title above the description of the view")
    page.add_argument("--force", action="store_true", help="replace the file if it exists")


def write(options: argparse.Namespace) -> int:
    """Write a view as one self-contained page: charts, figures and commands, interactive without server or network."""
    from jsc_explore.export import export_page, parse_view, write_page

    store = Store(options.store, paths.snapshot())
    query = parse_view(options.view, SavedViews(options.store).all() if options.view else {})
    text = export_page(store, query, options.title, ImportedRuns(options.store).all())
    write_page(text, options.file, force=options.force)
    print(f"{options.file} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0

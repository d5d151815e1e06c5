"""The command line's ``import``: runs that others trained, shown beside our own and never counted with them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from jsc_explore.charts.style import format_metric
from jsc_explore.config import format_value
from jsc_explore.errors import FieldError
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.store.imported_runs import ImportedRuns

_KINDS = ("tensorboard", "csv")


def add_command(commands: Any, command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add ``jsc-explore import`` to a subparser group, with the maker of commands that cli.py uses."""
    parser = command(commands, "import", bring)
    parser.add_argument("kind", nargs="?", metavar="tensorboard|csv", help="what to read; nothing: list what is there")
    parser.add_argument("source", nargs="?", type=Path, metavar="DIR|FILE", help="a directory of event files, or a CSV")
    parser.add_argument("--remove", metavar="NAME", action="append", help="remove an imported run; may be repeated")


def bring(options: argparse.Namespace) -> int:
    """Bring in runs of another program (event files, CSV); list and remove them."""
    imported = ImportedRuns(options.store)
    if options.remove:
        if options.kind:
            raise FieldError("remove", ", ".join(options.remove), "cannot stand beside a source", "run two commands")
        for name in options.remove:
            imported.remove(name)
            print(f"{name} removed")
        return 0
    if options.kind is None:
        return _list(imported)
    if options.kind not in _KINDS:
        raise FieldError("kind", options.kind, f"must be one of {', '.join(_KINDS)}", "try import tensorboard DIR")
    if options.source is None:
        raise FieldError("source", "", "is missing", f"give it: jsc-explore import {options.kind} PATH")
    if options.kind == "csv":
        from jsc_explore.importers.csv_table import read_table

        return _keep(imported, read_table(options.source))
    from jsc_explore.importers.tensorboard import find_runs, read_run

    found = find_runs(options.source)
    return _keep(imported, (partial(read_run, name, files) for name, files in found.items()))


def _keep(imported: ImportedRuns, sources: Iterable[ImportedRun | Callable[[], ImportedRun]]) -> int:
    """Keep what can be read; return 1 if a run could not be."""
    faults = 0
    before = {run.sha256 for run in imported.all()}
    for source in sources:
        try:
            kept = imported.add(source if isinstance(source, ImportedRun) else source())
        except FieldError as error:
            print(f"jsc-explore: {error}", file=sys.stderr)
            faults += 1
            continue
        state = "was imported already" if kept.sha256 in before else "imported"
        print(f"{kept.name}: {state}, {_figures(kept)}")
        for note in kept.notes:
            print(f"jsc-explore: {kept.name}: {note}", file=sys.stderr)
    return 1 if faults else 0


def _list(imported: ImportedRuns) -> int:
    runs = imported.all()
    for problem in imported.problems:
        print(f"jsc-explore: {problem}", file=sys.stderr)
    for run in runs:
        known = [f"{name}={format_value(name, value)}" for name, value in run.fields.items()]
        print(f"{run.name}  {_figures(run)}  {' '.join(known)}".rstrip())
    if not runs:
        print("nothing is imported; `jsc-explore import tensorboard DIR` reads event files", file=sys.stderr)
    return 0


def _figures(run: ImportedRun) -> str:
    last = next((point["val_acc"] for point in reversed(run.points) if point["val_acc"] is not None), None)
    val, test = format_metric("val_acc", last), format_metric("test_acc", run.test_acc)
    return f"{len(run.points):,} points, val {val}, test {test}"

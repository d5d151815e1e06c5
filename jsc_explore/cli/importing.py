"""Command ``import``: runs of other programs, shown beside the store's runs and never counted with them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from jsc_explore.cli.options import add_command
from jsc_explore.config import format_value
from jsc_explore.errors import FieldError
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.store.imported_runs import ImportedRuns

_KINDS = ("tensorboard", "csv")


def add_commands(commands: Any) -> None:
    """Add ``import``."""
    parser = add_command(commands, "import", import_runs)
    parser.add_argument("kind", nargs="?", metavar="tensorboard|csv", help="what to read (default: list imported runs)")
    parser.add_argument("source", nargs="?", type=Path, metavar="DIR|FILE", help="a directory of event files, or a CSV")
    parser.add_argument("--map", metavar="TAG=QUANTITY", action="append", default=[], help="read a tag or a column of "
                        "another name as a quantity: val/accuracy=val_acc; may be repeated")  # fmt: skip
    parser.add_argument("--remove", metavar="NAME", action="append", help="remove an imported run; may be repeated")


def import_runs(options: argparse.Namespace) -> int:
    """Import runs of another program (event files, CSV); list and remove them."""
    imported = ImportedRuns(options.store)
    if options.remove:
        if options.kind:
            raise FieldError(
                "remove", ", ".join(options.remove), "cannot be combined with a source", "run two commands"
            )
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
    from jsc_explore.importers.names import check_mapping

    mapping = check_mapping(options.map)
    if options.kind == "csv":
        from jsc_explore.importers.csv_table import read_table

        return _add(imported, read_table(options.source, mapping))
    from jsc_explore.importers.tensorboard import find_runs, read_run

    found, notes = find_runs(options.source)
    for note in notes:
        print(f"jsc-explore: {note}", file=sys.stderr)
    return _add(imported, [partial(read_run, name, run, mapping) for name, run in found.items()])


def _add(imported: ImportedRuns, sources: Iterable[Callable[[], ImportedRun]]) -> int:
    """Add the runs that can be read; return 1 if any cannot."""
    faults = 0
    before = {run.sha256 for run in imported.all()}
    for source in sources:
        try:
            run = imported.add(source())
        except FieldError as error:
            print(f"jsc-explore: {error}", file=sys.stderr)
            faults += 1
            continue
        state = "was imported already" if run.sha256 in before else "imported"
        print(f"{run.name}: {state}, {_summary(run)}")
        for note in run.notes:
            print(f"jsc-explore: {run.name}: {note}", file=sys.stderr)
    return 1 if faults else 0


def _list(imported: ImportedRuns) -> int:
    runs = imported.all()
    for problem in imported.problems:
        print(f"jsc-explore: {problem}", file=sys.stderr)
    for run in runs:
        known = [f"{name}={format_value(name, value)}" for name, value in run.fields.items()]
        print(f"{run.name}  {_summary(run)}  {' '.join(known)}".rstrip())
    if not runs:
        print("no run is imported; `jsc-explore import tensorboard DIR` reads event files", file=sys.stderr)
    return 0


def _summary(run: ImportedRun) -> str:
    # Altair comes with it, 70 MB that no other command needs, the engine among them.
    from jsc_explore.charts.style import format_metric

    last = next((point["val_acc"] for point in reversed(run.points) if point["val_acc"] is not None), None)
    val, test = format_metric("val_acc", last), format_metric("test_acc", run.test_acc)
    return f"{len(run.points):,} points, val {val}, test {test}"

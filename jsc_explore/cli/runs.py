"""Commands that print stored runs: ``list``, ``curve``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from jsc_explore.cli.options import (
    add_command,
    add_field_options,
    add_json_option,
    field_values,
    open_store,
    print_json,
)
from jsc_explore.config import format_value
from jsc_explore.errors import FieldError
from jsc_explore.jobs.queue import Queue
from jsc_explore.store.catalog import Catalog
from jsc_explore.store.imported_runs import ImportedRuns
from jsc_explore.store.merge import conflicts


def add_commands(commands: Any) -> None:
    """Add ``list`` and ``curve``."""
    listing = add_command(commands, "list", list_runs)
    add_field_options(listing)
    listing.add_argument("--history", metavar="RUN_ID", help="print the state transitions of this run instead")
    add_json_option(listing)
    listing.add_argument("--conflicts", action="store_true", help="print merged runs whose figures differ here")
    single = add_command(commands, "curve", curve)
    single.add_argument("run_id", metavar="RUN_ID", help="a run's id or its first characters")
    add_json_option(single)


def list_runs(options: argparse.Namespace) -> int:
    """List stored runs, all or those with the given values."""
    if options.history is not None:
        return _print_history(options.store, options.history)
    if options.conflicts:
        return _print_conflicts(options.store)
    store = open_store(options)
    rows = store.runs({name: [value] for name, value in field_values(options).items()}).to_pylist()
    # Imported runs are not part of the store, but users look for them here.
    if imported := len(ImportedRuns(options.store).all()):
        print(f"jsc-explore: imported runs: {imported}, listed by `jsc-explore import`", file=sys.stderr)
    if options.json:
        print_json(rows)
        return 0
    fields = ("model", "batch_size", "learning_rate", "max_epochs", "seed")
    print(f"{'run_id':12} " + " ".join(f"{name:>13}" for name in (*fields, "val_acc", "test_acc")) + "  status")
    for row in rows:
        cells = [format_value(name, row[name]) for name in fields]
        cells += [percent(row["val_acc"]), percent(row["test_acc"])]
        print(f"{row['run_id'][:12]:12} " + " ".join(f"{cell:>13}" for cell in cells) + f"  {row['status']}")
    return 0


def curve(options: argparse.Namespace) -> int:
    """Print the learning curve of one run."""
    store = open_store(options)
    run_id = _only_match("run_id", options.run_id, store.find(options.run_id) if options.run_id else [], "stored")
    record = store.record(run_id)
    assert record is not None
    if options.json:
        print_json(record.outcome.points)
        return 0
    metrics = [f"{part}_{metric}" for metric in ("loss", "acc") for part in ("train", "train_eval", "val")]
    names = ("step", "epoch", *metrics, "learning_rate")
    print(" ".join(f"{name:>15}" for name in names))
    for point in record.outcome.points:
        print(" ".join(f"{'' if point[name] is None else format(point[name], '.6g'):>15}" for name in names))
    return 0


def _print_history(directory: Path, prefix: str) -> int:
    """Print the state transitions of a run, oldest first."""
    queue = Queue(directory)
    for transition in queue.history(_only_match("history", prefix, queue.find(prefix) if prefix else [], "requested")):
        print(transition)
    return 0


def _print_conflicts(directory: Path) -> int:
    """Print the merged runs whose figures differ from those of this store."""
    catalog = Catalog(directory)
    for conflict in conflicts(catalog):
        print(conflict)
    catalog.close()
    return 0


def _only_match(field: str, prefix: str, found: list[str], kind: str) -> str:
    """Return the only run id in ``found``; FieldError if there is none or there are several."""
    if len(found) != 1:
        rule = f"is the beginning of {len(found)} or more runs" if found else f"is the beginning of no {kind} run"
        command = "jsc-explore list --json" if kind == "requested" else "jsc-explore list"
        raise FieldError(field, prefix, rule, f"take one from `{command}`")
    return found[0]


def percent(value: float | None) -> str:
    """Format a share as a percentage with two decimals, None as an empty text."""
    return "" if value is None else f"{100 * value:.2f}%"

"""Commands that maintain the store: ``publish``, ``verify``, ``compact``, ``merge``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsc_explore import data, paths
from jsc_explore.cli.options import add_command, open_store
from jsc_explore.config import RunConfig
from jsc_explore.errors import JscError
from jsc_explore.jobs.queue import BULK, Queue
from jsc_explore.store.catalog import Catalog, Entry
from jsc_explore.store.compaction import compact as compact_parts
from jsc_explore.store.directory import open_directory
from jsc_explore.store.imported_runs import ImportedRuns
from jsc_explore.store.merge import conflicts
from jsc_explore.store.merge import merge as merge_runs
from jsc_explore.store.publish import publish as write_snapshot
from jsc_explore.store.recovery import RETENTION_S
from jsc_explore.store.verify import damaged_databases, quarantine_databases, repair
from jsc_explore.store.verify import verify as find_faults


def publish(options: argparse.Namespace) -> int:
    """Write the snapshot results.parquet from the store."""
    target = options.to or paths.site_file("results.parquet")
    store = open_store(options)
    count = write_snapshot(store, target)
    store.close()
    print(f"{count} runs written to {target}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check each file of the store: checksum, schema, and that each run's id matches its content."""
    home = open_directory(options.store)
    damaged = damaged_databases(home)
    for fault in damaged:
        print(fault)
    if options.repair:
        for path in quarantine_databases(home, damaged) if damaged else []:
            print(f"{path.name}: moved to {path.parent}")
        damaged = []
    elif any(fault.path.name == "catalog.sqlite" for fault in damaged):
        print("without its catalogue the store cannot be checked; repair it with --repair", file=sys.stderr)
        return 1
    catalog = Catalog(home)
    try:
        parts = len(catalog.parts())
        faults = find_faults(catalog, paths.snapshot())
        for fault in faults:
            print(fault)
        imported = ImportedRuns(options.store)
        runs = imported.all()
        for problem in imported.problems:
            print(problem)
        total = len(faults) + len(damaged) + len(imported.problems)
        beside = f" and {len(runs)} imported runs" if runs or imported.problems else ""
        print(f"{parts} parts{beside} checked, {total} faults", file=sys.stderr)
        if count := len(list(conflicts(catalog))):
            print(f"{count} merged runs with other figures; see `jsc-explore list --conflicts`", file=sys.stderr)
        if faults and options.repair:
            return max(_repair(options, catalog, faults), int(bool(imported.problems)))
        return 1 if faults or damaged or imported.problems else 0
    finally:
        catalog.close()


def _repair(options: argparse.Namespace, catalog: Catalog, faults: Sequence[Any]) -> int:
    done = repair(catalog, faults)
    for path in done.quarantined:
        print(f"{path.name}: moved to {path.parent}")
    for line in done.recovery.lines():
        print(line)
    if done.runs_kept:
        print(f"{done.runs_kept} runs saved from them, into new parts")
    store = open_store(options)
    stored = store.existing([entry.run_id for entry in done.lost])
    queued, lost = _queue_again(Queue(options.store), [entry for entry in done.lost if entry.run_id not in stored])
    store.close()
    if queued:
        print(f"{queued} lost runs queued again; `jsc-explore engine --until-idle` trains them")
    for line in lost:
        print(line)
    # Faults of the snapshot or of conflicts remain: this command does not change those files.
    remaining = find_faults(catalog, paths.snapshot())
    for fault in remaining:
        print(f"jsc-explore: {fault}", file=sys.stderr)
    return 1 if lost or remaining else 0


def _queue_again(queue: Queue, entries: Sequence[Entry]) -> tuple[int, list[str]]:
    """Queue lost runs; return their number, and a line for each run that cannot be reproduced."""
    wanted, lost = {}, []
    for entry in entries:
        try:
            run = RunConfig.from_dict(entry.config)
            digest = data.digest(run.dataset)
            if run.run_id(digest) == entry.run_id:
                wanted[entry.run_id] = (run.config_id(digest), run)
                continue
            reason = f"it was trained on other jets ({str(entry.data_digest)[:12]}) or by another recipe version"
        except JscError as error:
            reason = str(error)
        lost.append(f"run {entry.run_id} is lost and cannot be trained again: {reason}")
    if wanted:
        queue.request(wanted, BULK)
    queue.close()
    return len(wanted), lost


def compact(options: argparse.Namespace) -> int:
    """Merge the store's parts into few sorted ones; other processes may read and write meanwhile."""
    done = compact_parts(options.store, select=lambda parts: parts, retention_s=options.keep)
    if done is None:
        raise JscError(f"store {options.store}: is being compacted by another process; wait for that one")
    for problem in done.problems:
        print(f"jsc-explore: {problem}", file=sys.stderr)
    print(f"{done.before} parts compacted into {done.after}, {done.runs} runs")
    return 1 if done.problems else 0


def merge(options: argparse.Namespace) -> int:
    """Merge the runs of other stores or Parquet files; exit 1 if any has other figures here, or is refused."""
    store = open_store(options)
    code = 0
    try:
        for source in options.source:
            done = merge_runs(store, source)
            for line in [*map(str, done.conflicts), *done.refused]:
                print(f"jsc-explore: {line}", file=sys.stderr)
            counts = f"{done.added} runs added, {done.same} the same here"
            print(f"{source}: {counts}, {len(done.conflicts)} with other figures, {len(done.refused)} refused")
            code = max(code, 1 if done.conflicts or done.refused else 0)
        if code:
            print("runs with other figures are kept beside the store: `jsc-explore list --conflicts`", file=sys.stderr)
    finally:
        store.close()
    return code


def add_commands(commands: Any) -> None:
    """Add ``publish``, ``verify``, ``compact`` and ``merge``."""
    snapshot = add_command(commands, "publish", publish)
    snapshot.add_argument("--to", type=Path, help="file to write (default: the project's results.parquet)")

    verified = add_command(commands, "verify", verify)
    verified.add_argument(
        "--repair", action="store_true",
        help="move damaged parts to quarantine/, keep their valid runs, queue the lost ones again",
    )  # fmt: skip

    compacted = add_command(commands, "compact", compact)
    compacted.add_argument(
        "--keep", type=_seconds, default=RETENTION_S, metavar="SECONDS",
        help="how long replaced files are kept for readers that use them (default %(default)g)",
    )  # fmt: skip

    merged = add_command(commands, "merge", merge)
    merged.add_argument("source", nargs="+", type=Path, metavar="STORE_OR_PARQUET", help="a store's directory or file")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, at least 0")
    return value

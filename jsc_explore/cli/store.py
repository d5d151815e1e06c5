"""Commands that look after the store: verify, compact, merge, publish."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jsc_explore import data, paths
from jsc_explore.config import RunConfig
from jsc_explore.errors import JscError
from jsc_explore.jobs.queue import BULK, Queue
from jsc_explore.store import Store
from jsc_explore.store.catalog import Catalog, Entry
from jsc_explore.store.compaction import compact as put_together
from jsc_explore.store.merge import conflicts
from jsc_explore.store.merge import merge as take_in
from jsc_explore.store.publish import publish as write
from jsc_explore.store.recovery import RETENTION_S
from jsc_explore.store.verify import repair
from jsc_explore.store.verify import verify as check

Command = Callable[[argparse.Namespace], int]


def publish(options: argparse.Namespace) -> int:
    """Write the snapshot results.parquet from the store."""
    target = options.to or paths.site_file("results.parquet")
    store = _open(options)
    count = write(store, target)
    store.close()
    print(f"{count} runs written to {target}")
    return 0


def verify(options: argparse.Namespace) -> int:
    """Check every file of the store: checksum, schema, and that each run's id follows from its content."""
    catalog = Catalog(options.store)
    try:
        parts = len(catalog.parts())
        faults = check(catalog, paths.snapshot())
        for fault in faults:
            print(fault)
        print(f"{parts} parts checked, {len(faults)} faults", file=sys.stderr)
        kept = len(list(conflicts(catalog)))
        if kept:
            print(f"{kept} merged runs with other figures; see `jsc-explore list --conflicts`", file=sys.stderr)
        if faults and options.repair:
            return _repair(options, catalog, faults)
        return 1 if faults else 0
    finally:
        catalog.close()


def _repair(options: argparse.Namespace, catalog: Catalog, faults: Sequence[Any]) -> int:
    done = repair(catalog, faults)
    for path in done.quarantined:
        print(f"{path.name}: moved to {path.parent}")
    for line in done.recovered.lines():
        print(line)
    if done.runs_kept:
        print(f"{done.runs_kept} runs saved from them, into new parts")
    store = _open(options)
    there = store.existing([entry.run_id for entry in done.lost])
    queued, gone = _ask_again(Queue(options.store), [entry for entry in done.lost if entry.run_id not in there])
    store.close()
    if queued:
        print(f"{queued} lost runs queued again; `jsc-explore engine --until-idle` trains them")
    for line in gone:
        print(line)
    # What remains: a fault in the snapshot or the conflicts, which are not this command's to move.
    left = check(catalog, paths.snapshot())
    for fault in left:
        print(f"jsc-explore: {fault}", file=sys.stderr)
    return 1 if gone or left else 0


def _ask_again(queue: Queue, lost: Sequence[Entry]) -> tuple[int, list[str]]:
    """Request lost runs anew; return how many, and a line for each that cannot be trained as it was."""
    wanted, gone = {}, []
    for entry in lost:
        try:
            run = RunConfig.from_dict(entry.config)
            digest = data.digest(run.dataset)
            if run.run_id(digest) == entry.run_id:
                wanted[entry.run_id] = (run.config_id(digest), run)
                continue
            why = f"it was trained on other jets ({str(entry.data_digest)[:12]}) or by another recipe"
        except JscError as error:
            why = str(error)
        gone.append(f"run {entry.run_id} is lost and cannot be trained anew: {why}")
    if wanted:
        queue.request(wanted, BULK)
    queue.close()
    return len(wanted), gone


def compact(options: argparse.Namespace) -> int:
    """Put the parts of the store together into few sorted ones; others may read and write meanwhile."""
    done = put_together(options.store, select=lambda parts: parts, retention_s=options.keep)
    if done is None:
        raise JscError(f"store {options.store}: is being compacted by another process; wait for that one")
    for problem in done.problems:
        print(f"jsc-explore: {problem}", file=sys.stderr)
    print(f"{done.before} parts put together into {done.after}, {done.runs} runs")
    return 1 if done.problems else 0


def merge(options: argparse.Namespace) -> int:
    """Take in the runs of other stores or Parquet files; exit code 1 if any has other figures here, or is refused."""
    store = _open(options)
    code = 0
    try:
        for source in options.source:
            done = take_in(store, source)
            for line in [*map(str, done.conflicts), *done.refused]:
                print(f"jsc-explore: {line}", file=sys.stderr)
            counts = f"{done.added} runs added, {done.same} the same here"
            print(f"{source}: {counts}, {len(done.conflicts)} with other figures, {len(done.refused)} refused")
            code = max(code, 1 if done.conflicts or done.refused else 0)
        if code:
            print("what has other figures is kept beside the store: `jsc-explore list --conflicts`", file=sys.stderr)
    finally:
        store.close()
    return code


def list_conflicts(options: argparse.Namespace) -> int:
    """Print the runs that were merged with other figures than they have here."""
    catalog = Catalog(options.store)
    for conflict in conflicts(catalog):
        print(conflict)
    catalog.close()
    return 0


def _open(options: argparse.Namespace) -> Store:
    store = Store(options.store, paths.snapshot())
    for problem in store.problems:
        print(f"jsc-explore: {problem}", file=sys.stderr)
    return store


def add_commands(commands: Any, command: Callable[[Any, str, Command], argparse.ArgumentParser]) -> None:
    """Add these commands to the parser's, each made by ``command``, which knows the options all share."""
    snapshot = command(commands, "publish", publish)
    snapshot.add_argument("--to", type=Path, help="file to write (default: the project's results.parquet)")

    checked = command(commands, "verify", verify)
    checked.add_argument(
        "--repair", action="store_true",
        help="move broken parts to quarantine/, keep their sound runs, queue the lost ones again",
    )  # fmt: skip

    together = command(commands, "compact", compact)
    together.add_argument(
        "--keep", type=_seconds, default=RETENTION_S, metavar="SECONDS",
        help="how long readers may go on with the files of before (default %(default)g)",
    )  # fmt: skip

    joined = command(commands, "merge", merge)
    joined.add_argument("source", nargs="+", type=Path, metavar="STORE_OR_PARQUET", help="a store's directory or file")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of seconds, at least 0")
    return value

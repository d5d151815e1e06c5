"""Commands that train: ``train``, ``sweep``, ``precompile``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import tomllib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jsc_explore import network, paths
from jsc_explore.cli.options import (
    add_command,
    add_field_options,
    add_json_option,
    field_values,
    open_store,
    positive,
    print_json,
)
from jsc_explore.cli.runs import percent
from jsc_explore.config import DEFAULT_SEEDS, DEFAULTS, RunConfig, format_value
from jsc_explore.errors import JscError, UnconfirmedError
from jsc_explore.grids import expand_grid
from jsc_explore.jobs.estimate import estimate_time
from jsc_explore.jobs.limits import LIMITS, UNLIMITED
from jsc_explore.jobs.packing import pack
from jsc_explore.jobs.queue import ACTIVE, BULK, INTERACTIVE, Job, Queue
from jsc_explore.jobs.submit import Requester, Submission, submit
from jsc_explore.processes import release
from jsc_explore.results import RunRecord
from jsc_explore.store import Store

POLL_INTERVAL_S = 0.1
# An engine that ends although runs are queued is started again, this often in all.
MAX_STARTS = 3
MAX_GRID_BYTES = 1_000_000


def add_commands(commands: Any) -> None:
    """Add ``train``, ``sweep`` and ``precompile``."""
    single = add_command(commands, "train", train)
    add_field_options(single, with_defaults=True)
    single.add_argument("--seeds", type=positive, default=1, help="how many seeds, counted from --seed (default 1)")
    add_json_option(single)
    grid = add_command(commands, "sweep", sweep)
    grid.add_argument("grid", type=Path, metavar="GRID.toml", help="fields with one value or a list; seeds = N "
                      f"(default {DEFAULT_SEEDS})")  # fmt: skip
    for parser in (single, grid):
        parser.add_argument("--yes", action="store_true", help="train long requests without asking for confirmation")
    compiled = add_command(commands, "precompile", precompile)
    add_field_options(compiled, ("model", "final_relu", "optimizer", "batch_size", "precision"))


def train(options: argparse.Namespace) -> int:
    """Train one configuration, or print its stored result."""
    run = RunConfig.from_dict(field_values(options))
    runs = [run.with_(seed=run.seed + i) for i in range(options.seeds)]
    store, submission, errors = _train_missing(options, runs, INTERACTIVE, workers=1)
    for run_id in submission.run_ids:
        if record := store.record(run_id):
            _print_run(record, run_id in submission.stored, options.json)
    return _print_errors(errors)


def sweep(options: argparse.Namespace) -> int:
    """Train every run of a grid file that is not stored yet."""
    try:
        content = options.grid.read_bytes()
    except OSError as error:
        raise JscError(f"{options.grid}: cannot be read ({error.strerror}); give the path of a grid file") from error
    _, submission, errors = _train_missing(options, expand_grid(read_grid(content, str(options.grid))), BULK)
    stored = len(submission.run_ids) - len(errors)
    print(f"{stored} runs in the store, {stored - len(submission.stored)} of them trained now, {len(errors)} failed")
    return _print_errors(errors)


def precompile(options: argparse.Namespace) -> int:
    """Compile the kernel, and programs for networks that it cannot train, so that training need not wait for it."""
    from jsc_explore.training.precompile import precompile as compile_ahead

    given = field_values(options)
    runs = [RunConfig.from_dict({"model": name, **given}) for name in network.NAMED]
    faults = 0
    for name, fault, seconds in compile_ahead(dict.fromkeys(runs)):
        print(f"{name}: {fault or 'ready'} ({seconds:.1f} s)", flush=True)
        faults += bool(fault)
    return 1 if faults else 0


def read_grid(content: bytes, name: str) -> dict[str, Any]:
    """Parse a grid file; JscError, naming the file, if it is not TOML or larger than ``MAX_GRID_BYTES``."""
    if len(content) > MAX_GRID_BYTES:
        raise JscError(f"{name}: is larger than {MAX_GRID_BYTES:,} bytes; split it into several files")
    try:
        return tomllib.loads(content.decode("utf-8"))
    # RecursionError: the parser recurses into nested values.
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise JscError(f"{name}: is not valid TOML ({error}); see the example in docs/command-line.md") from error


def confirm(error: UnconfirmedError, is_terminal: bool, read: Callable[[], str] = input) -> bool:
    """Ask for confirmation at a terminal; JscError naming ``--yes`` where there is none."""
    if not is_terminal:
        raise JscError(f"{error}: add --yes") from error
    question = f"{error.runs:,} runs would take {error.duration}. Train them? [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    return read().strip().lower() in ("y", "yes")


def _submit(store: Store, queue: Queue, runs: Sequence[RunConfig], priority: int, *, confirmed: bool) -> Submission:
    requester = Requester(f"command {uuid.uuid4().hex[:12]}", replace(UNLIMITED, confirm_s=LIMITS.confirm_s))
    try:
        return submit(store, queue, runs, priority, requester, confirmed=confirmed)
    except UnconfirmedError as error:
        if not confirm(error, sys.stdin.isatty() and sys.stderr.isatty()):
            raise
    return submit(store, queue, runs, priority, requester, confirmed=True)


def _train_missing(
    options: argparse.Namespace, runs: Sequence[RunConfig], priority: int, workers: int | None = None
) -> tuple[Store, Submission, list[str]]:
    """Train the runs that are not stored; return the store, the submission and an error line for each failed run."""
    store, queue = open_store(options), Queue(options.store)
    submission = _submit(store, queue, runs, priority, confirmed=options.yes)
    missing = [*submission.queued, *submission.joined]
    if not missing:
        return store, submission, []
    if len(runs) > 1:
        print(_plan(store, queue, set(missing), workers), file=sys.stderr)
    _wait(options, queue, missing, workers)
    store.refresh()
    ended = {job.run_id: job for job in queue.jobs(("failed", "cancelled"))}
    stored = store.existing(missing)
    errors = [_error_line(options, run_id, ended.get(run_id)) for run_id in missing if run_id not in stored]
    return store, submission, errors


def _plan(store: Store, queue: Queue, run_ids: set[str], workers: int | None) -> str:
    """Describe the stacks and the expected time of a request before it starts."""
    count = workers or os.cpu_count() or 1
    jobs = [job for job in queue.jobs(ACTIVE) if job.run_id in run_ids]
    expected = estimate_time(store, [job.config for job in jobs], count)
    return f"{len(jobs)} runs to train, stacks: {len(pack(jobs, count))}, workers: {count}, {expected}"


def _error_line(options: argparse.Namespace, run_id: str, job: Job | None) -> str:
    if job is None:
        return f"{run_id[:12]} was not trained; see {options.store / 'engine.log'}"
    lines = (job.error or "").strip().splitlines()
    return f"{run_id[:12]} {job.state}{': ' + lines[-1] if lines else ''}"


def _wait(options: argparse.Namespace, queue: Queue, run_ids: Sequence[str], workers: int | None) -> None:
    """Wait until none of these runs is active; start an engine whenever none serves the store."""
    from tqdm import tqdm

    from jsc_explore.jobs.engine.supervisor import end_engine, is_served, start_engine

    own: subprocess.Popen[bytes] | None = None
    starts, active = 0, len(run_ids)
    # Polling costs more for many runs, and a long wait needs no quick response.
    interval = min(2.0, max(POLL_INTERVAL_S, len(run_ids) / 1000))
    try:
        with tqdm(total=len(run_ids), unit="run", file=sys.stderr, disable=None, smoothing=0) as bar:
            while active:
                if not is_served(queue, own):
                    if starts == MAX_STARTS:
                        break
                    starts += 1
                    own = start_engine(options.store, paths.snapshot(), until_idle=True, workers=workers)
                time.sleep(interval)
                active, done = queue.progress(run_ids)
                bar.n = round(len(run_ids) - active + done, 2)
                bar.refresh()
    finally:
        # End our engine now instead of a moment later by itself, unless it trains other requests.
        if own is not None and own.poll() is None:
            release(own) if not active and queue.jobs(ACTIVE) else end_engine(own)


def _print_errors(errors: Sequence[str]) -> int:
    for error in errors:
        print(f"jsc-explore: {error}", file=sys.stderr)
    return 1 if errors else 0


def _print_run(record: RunRecord, was_stored: bool, as_json: bool) -> None:
    outcome = {name: value for name, value in asdict(record.outcome).items() if name not in ("points", "weights")}
    if as_json:
        identity = {"run_id": record.run_id, "config_id": record.config_id, "from_store": was_stored}
        print_json([{**identity, "config": record.config, "parameters": record.parameters, **outcome}])
        return
    changed = [f"{n}={format_value(n, v)}" for n, v in record.config.items() if v != DEFAULTS[n] or n == "seed"]
    accuracy = f"val {percent(record.outcome.val_acc)}  test {percent(record.outcome.test_acc)}"
    origin = "from the store" if was_stored else "trained"
    print(f"{record.run_id[:12]}  {record.outcome.status}  {accuracy}  {origin}  {' '.join(changed)}")

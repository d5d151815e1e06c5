"""The command line: a thin shell over the rooms. Data go to stdout, progress to stderr, bad input exits with 2."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsc_explore import __version__, network, paths
from jsc_explore.cli import app, data, export, importing, requests
from jsc_explore.cli import store as cli_store
from jsc_explore.config import DEFAULT_SEEDS, DEFAULTS, FIELDS, RunConfig, format_value, parse_value
from jsc_explore.errors import FieldError, JscError
from jsc_explore.grids import expand_grid
from jsc_explore.jobs.engine import preload
from jsc_explore.jobs.estimate import estimate_seconds, format_seconds
from jsc_explore.jobs.packing import pack
from jsc_explore.jobs.queue import BULK, INTERACTIVE, Job, Queue
from jsc_explore.jobs.submit import Submission
from jsc_explore.results import RunRecord
from jsc_explore.store import Store
from jsc_explore.store.imported_runs import ImportedRuns

POLL_S = 0.1
# An engine that ends although there is work is started again, but not for ever.
MAX_STARTS = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit 0 when done, 1 when a training failed or a fault was found, 2 for bad input."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
        sys.stdout.flush()
    except JscError as error:
        print(f"jsc-explore: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        print(
            "\njsc-explore: interrupted; what was asked for stays queued, the next engine takes it up", file=sys.stderr
        )
        code = 130
    sys.exit(code)


# ---- the commands


def engine(options: argparse.Namespace) -> int:
    """Train what is asked for, until stopped."""
    if options.scheduler is None:
        preload.begin_importing(preload.first_wanted(options.store))
        if options.device in ("auto", "cpu"):
            preload.begin_compiling()
    from jsc_explore.jobs.cluster.client import Cluster
    from jsc_explore.jobs.engine.engine import run_engine

    cluster = Cluster(options.workers, options.scheduler, keep_free=not options.until_idle)
    run_engine(
        options.store,
        paths.snapshot(),
        cluster,
        device=options.device,
        until_idle=options.until_idle,
        parent=options.parent,
    )
    return 0


def train(options: argparse.Namespace) -> int:
    """Train one configuration, or answer from the store."""
    run = RunConfig.from_dict(_given(options))
    runs = [run.with_(seed=run.seed + i) for i in range(options.seeds)]
    store, answer, errors = _obtain(options, runs, INTERACTIVE, workers=1)
    for run_id in answer.run_ids:
        if record := store.record(run_id):
            _print_run(record, run_id in answer.stored, options.json)
    return _report(errors)


def sweep(options: argparse.Namespace) -> int:
    """Train every run of a grid file that is not stored yet."""
    try:
        content = options.grid.read_bytes()
    except OSError as error:
        raise JscError(f"{options.grid}: cannot be read ({error.strerror}); give the path of a grid file") from error
    grid = requests.grid_of(content, str(options.grid))
    _, answer, errors = _obtain(options, expand_grid(grid), BULK)
    there = len(answer.run_ids) - len(errors)
    print(f"{there} runs in the store, {there - len(answer.stored)} of them trained now, {len(errors)} failed")
    return _report(errors)


def list_runs(options: argparse.Namespace) -> int:
    """List stored runs, all or those with the given values."""
    if options.history is not None:
        return requests.print_history(options.store, options.history)
    if options.conflicts:
        return cli_store.list_conflicts(options)
    store = _open(options)
    filters = {name: [value] for name, value in _given(options).items()}
    rows = store.runs(filters).to_pylist()
    # They are no runs of the store, but whoever brought them in looks for them here.
    if others := len(ImportedRuns(options.store).all()):
        print(f"jsc-explore: imported besides: {others}, listed by `jsc-explore import`", file=sys.stderr)
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return 0
    shown = ("model", "batch_size", "learning_rate", "max_epochs", "seed")
    print(f"{'run_id':12} " + " ".join(f"{name:>13}" for name in (*shown, "val_acc", "test_acc")) + "  status")
    for row in rows:
        cells = [format_value(name, row[name]) for name in shown] + [
            _percent(row["val_acc"]),
            _percent(row["test_acc"]),
        ]
        print(f"{row['run_id'][:12]:12} " + " ".join(f"{cell:>13}" for cell in cells) + f"  {row['status']}")
    return 0


def curve(options: argparse.Namespace) -> int:
    """Print the learning curve of one run."""
    store = _open(options)
    found = store.find(options.run_id) if options.run_id else []
    if len(found) != 1:
        rule = "is the beginning of no stored run" if not found else f"is the beginning of {len(found)} or more runs"
        raise FieldError("run_id", options.run_id, rule, "take one from `jsc-explore list`")
    record = store.record(found[0])
    assert record is not None
    if options.json:
        for point in record.outcome.points:
            print(json.dumps(point))
        return 0
    names = ("step", "epoch", "train_loss", "val_loss", "train_acc", "val_acc", "learning_rate")
    print(" ".join(f"{name:>13}" for name in names))
    for point in record.outcome.points:
        print(" ".join(f"{'' if point[name] is None else format(point[name], '.6g'):>13}" for name in names))
    return 0


def precompile(options: argparse.Namespace) -> int:
    """Compile now what training would wait for: the kernel, and programs for networks that the kernel cannot train."""
    from jsc_explore.training.precompile import prepare

    given = _given(options)
    runs = [RunConfig.from_dict({"model": name, **given}) for name in network.NAMED]
    faults = 0
    for name, fault, seconds in prepare(dict.fromkeys(runs)):
        print(f"{name}: {fault or 'ready'} ({seconds:.1f} s)", flush=True)
        faults += bool(fault)
    return 1 if faults else 0


# ---- what they share


def _obtain(
    options: argparse.Namespace, runs: Sequence[RunConfig], priority: int, workers: int | None = None
) -> tuple[Store, Submission, list[str]]:
    """Have the runs trained that are missing; return the store, what was asked, and a line for each run not there."""
    store, queue = _open(options), Queue(options.store)
    answer = requests.request(store, queue, runs, priority, yes=options.yes)
    waited = [*answer.queued, *answer.joined]
    if not waited:
        return store, answer, []
    if len(runs) > 1:
        print(_plan(store, queue, set(waited), workers), file=sys.stderr)
    _wait(options, queue, waited, workers)
    store.refresh()
    ended = {job.run_id: job for job in queue.jobs(("failed", "cancelled"))}
    there = store.existing(waited)
    return store, answer, [_why_missing(options, run_id, ended.get(run_id)) for run_id in waited if run_id not in there]


def _plan(store: Store, queue: Queue, run_ids: set[str], workers: int | None) -> str:
    """Say how the work will be cut and how long it will take, before it starts."""
    hands = workers or os.cpu_count() or 1
    jobs = [job for job in queue.jobs(("queued", "running")) if job.run_id in run_ids]
    seconds = estimate_seconds(store, [job.config for job in jobs], hands)
    expected = "time not known yet" if seconds is None else f"about {format_seconds(seconds)}"
    return f"{len(jobs)} runs to train, stacks: {len(pack(jobs, hands))}, workers: {hands}, {expected}"


def _why_missing(options: argparse.Namespace, run_id: str, job: Job | None) -> str:
    if job is None:
        return f"{run_id[:12]} was not trained; see {options.store / 'engine.log'}"
    lines = (job.error or "").strip().splitlines()
    return f"{run_id[:12]} {job.state}{': ' + lines[-1] if lines else ''}"


def _wait(options: argparse.Namespace, queue: Queue, run_ids: Sequence[str], workers: int | None) -> None:
    """Wait until none of these runs is active, with an engine of our own whenever none serves the store."""
    from tqdm import tqdm

    from jsc_explore.jobs.engine.supervisor import end_engine, is_served, start_engine

    own: subprocess.Popen[bytes] | None = None
    starts, active = 0, len(run_ids)
    # Looking costs more the more there is to wait for, and a long wait needs no quick eye.
    pause = min(2.0, max(POLL_S, len(run_ids) / 1000))
    try:
        with tqdm(total=len(run_ids), unit="run", file=sys.stderr, disable=None, smoothing=0) as bar:
            while active:
                if not is_served(queue, own):
                    if starts == MAX_STARTS:
                        break
                    starts += 1
                    own = start_engine(options.store, paths.snapshot(), until_idle=True, workers=workers)
                time.sleep(pause)
                active, done = queue.progress(run_ids)
                bar.n = round(len(run_ids) - active + done, 2)
                bar.refresh()
    finally:
        # Unless others count on it by now, our engine goes with us; it would end by itself a moment later.
        others_wait = not active and queue.jobs(("queued", "running"))
        if own is not None and own.poll() is None and not others_wait:
            end_engine(own)


def _open(options: argparse.Namespace) -> Store:
    store = Store(options.store, paths.snapshot())
    for problem in store.problems:
        print(f"jsc-explore: {problem}", file=sys.stderr)
    return store


def _report(errors: Sequence[str]) -> int:
    for error in errors:
        print(f"jsc-explore: {error}", file=sys.stderr)
    return 1 if errors else 0


def _print_run(record: RunRecord, was_stored: bool, as_json: bool) -> None:
    outcome = {name: value for name, value in asdict(record.outcome).items() if name not in ("points", "weights")}
    if as_json:
        identity = {"run_id": record.run_id, "config_id": record.config_id, "from_store": was_stored}
        print(json.dumps({**identity, "config": record.config, "parameters": record.parameters, **outcome}))
        return
    changed = [f"{n}={format_value(n, v)}" for n, v in record.config.items() if v != DEFAULTS[n] or n == "seed"]
    figures = f"val {_percent(record.outcome.val_acc)}  test {_percent(record.outcome.test_acc)}"
    origin = "from the store" if was_stored else "trained"
    print(f"{record.run_id[:12]}  {record.outcome.status}  {figures}  {origin}  {' '.join(changed)}")


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"


def _given(options: argparse.Namespace) -> Mapping[str, Any]:
    given = {name: getattr(options, name, None) for name in FIELDS}
    return {name: parse_value(name, text) for name, text in given.items() if text is not None}


# ---- the parser, its options made from the fields


class _Parser(argparse.ArgumentParser):
    """argparse with one line for bad input, as everywhere else; it prints a usage block by default."""

    def error(self, message: str) -> Any:
        print(f"jsc-explore: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="jsc-explore", description="Explore how hyperparameters shape the training of jet classifiers."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    page = _command(commands, "app", app.app)
    app.add_options(page)

    serve = _command(commands, "engine", engine)
    serve.add_argument("--workers", type=_positive, help="worker processes (default: one a core)")
    serve.add_argument("--scheduler", help="address of a Dask scheduler to use, e.g. tcp://host:8786")
    serve.add_argument("--device", type=_device, default="auto", help="cpu, cuda, cuda:N or auto (default)")
    serve.add_argument("--until-idle", action="store_true", help="end when nothing is waiting")
    serve.add_argument("--parent", type=int, help=argparse.SUPPRESS)

    single = _command(commands, "train", train)
    _field_options(single, with_defaults=True)
    single.add_argument("--seeds", type=_positive, default=1, help="how many seeds, counted from --seed (default 1)")
    _json_option(single)
    requests.add_yes(single)

    grid = _command(commands, "sweep", sweep)
    grid.add_argument("grid", type=Path, metavar="GRID.toml", help="fields with one value or a list; seeds = N "
                      f"(default {DEFAULT_SEEDS})")  # fmt: skip
    requests.add_yes(grid)

    listing = _command(commands, "list", list_runs)
    _field_options(listing)
    listing.add_argument("--history", metavar="RUN_ID", help="what happened to the requests for this run instead")
    _json_option(listing)
    listing.add_argument("--conflicts", action="store_true", help="merged runs that have other figures here")

    one = _command(commands, "curve", curve)
    one.add_argument("run_id", metavar="RUN_ID", help="a run's id or its first characters")
    _json_option(one)

    cli_store.add_commands(commands, _command)

    source = _command(commands, "data", None, "Fetch, simulate and check jets.")
    actions = source.add_subparsers(required=True, metavar="ACTION")
    data.add_commands(actions, _command)

    export.add_command(commands, _command)
    importing.add_command(commands, _command)

    prepared = _command(commands, "precompile", precompile)
    _field_options(prepared, ("model", "final_relu", "optimizer", "batch_size", "precision"))
    return parser


def _command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int] | None, text: str = ""
) -> argparse.ArgumentParser:
    text = text or ((function and function.__doc__) or "").splitlines()[0]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text.rstrip("."), description=text)
    if function is not None:
        parser.set_defaults(command=function)
        parser.add_argument(
            "--store", type=Path, default=paths.default_store(), metavar="DIR", help="the store (default: %(default)s)"
        )
    return parser


def _field_options(
    parser: argparse.ArgumentParser, names: Iterable[str] = FIELDS, *, with_defaults: bool = False
) -> None:
    for name, spec in ((name, FIELDS[name]) for name in names):
        text = spec.help.replace("%", "%%") + (f"; one of {spec.choices_text}" if spec.choices else "")
        default = f" (default {format_value(name, DEFAULTS[name])})" if with_defaults else ""
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=text + default)


def _json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be cpu, cuda, cuda:N or auto")
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number in [1, 1000]")
    return int(text)

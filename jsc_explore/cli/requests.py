"""What the commands that train ask for: under a name of their own, and long ones only when they are confirmed."""

from __future__ import annotations

import argparse
import sys
import tomllib
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError, JscError, UnconfirmedError
from jsc_explore.jobs.limits import LIMITS, UNLIMITED
from jsc_explore.jobs.queue import Queue
from jsc_explore.jobs.submit import Requester, Submission, submit
from jsc_explore.store import Store

MAX_GRID_FILE = 1_000_000


def request(store: Store, queue: Queue, runs: Sequence[RunConfig], priority: int, *, yes: bool) -> Submission:
    """Ask for runs; what takes long is asked about at a terminal, and elsewhere refused unless ``yes``."""
    requester = Requester(f"command {uuid.uuid4().hex[:12]}", replace(UNLIMITED, confirm_s=LIMITS.confirm_s))
    try:
        return submit(store, queue, runs, priority, requester, confirmed=yes)
    except UnconfirmedError as error:
        if not agreed(error, sys.stdin.isatty() and sys.stderr.isatty()):
            raise
    return submit(store, queue, runs, priority, requester, confirmed=True)


def agreed(error: UnconfirmedError, terminal: bool, read: Callable[[], str] = input) -> bool:
    """Ask at a terminal; where there is none, say how to confirm beforehand."""
    if not terminal:
        raise JscError(f"{error}: add --yes") from error
    print(f"{error.runs:,} runs would take {error.duration}. Train them? [y/N] ", end="", file=sys.stderr, flush=True)
    return read().strip().lower() in ("y", "yes")


def grid_of(content: bytes, name: str) -> dict[str, Any]:
    """Return what a grid file says. JscError if it is no TOML, or more than any grid needs."""
    if len(content) > MAX_GRID_FILE:
        raise JscError(f"{name}: is larger than {MAX_GRID_FILE:,} bytes; split it into several files")
    try:
        return tomllib.loads(content.decode("utf-8"))
    # The parser calls itself for what is nested.
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise JscError(f"{name}: is not valid TOML ({error}); see the example in docs/command-line.md") from error


def add_yes(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that confirms what takes long."""
    parser.add_argument("--yes", action="store_true", help="train also what is expected to take long, without asking")


def print_history(directory: Path, prefix: str) -> int:
    """Print what happened to the requests for a run, oldest first; the run by its first characters."""
    queue = Queue(directory)
    found = queue.find(prefix) if prefix else []
    if len(found) != 1:
        rule = "is the beginning of no requested run" if not found else f"is the beginning of {len(found)} or more runs"
        raise FieldError("history", prefix, rule, "take one from `jsc-explore list --json`")
    for move in queue.history(found[0]):
        print(move)
    return 0

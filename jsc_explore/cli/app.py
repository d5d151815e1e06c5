"""`jsc-explore app`: the page, who may train at it and how much."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from jsc_explore import paths
from jsc_explore.errors import FieldError
from jsc_explore.jobs import auth
from jsc_explore.jobs.auth import Access
from jsc_explore.jobs.limits import LIMITS
from jsc_explore.store import Store


def app(options: argparse.Namespace) -> NoReturn:
    """Start the page and the engine."""
    from jsc_explore.jobs.engine.supervisor import start_engine

    rights = read_access(options)
    looked_at = Store(options.store, paths.snapshot())
    looked_at.close()
    page = paths.site_file("app.py")
    command = [sys.executable, "-m", "streamlit", "run", str(page), "--server.port", str(options.port)]
    command += ["--server.address", options.address]
    command += ["--server.headless", "true"] if options.headless else []
    store = options.store.resolve()
    # The engine warms up while the page starts. This process becomes the page's server: it stays the engine's parent,
    # and signals reach the server itself. The server sees to it that an engine goes on.
    if not rights.read_only and looked_at.read_only is None:
        start_engine(store, paths.snapshot())
    os.chdir(page.parent)
    inherited = {name: text for name, text in os.environ.items() if name not in auth.VARIABLES}
    # One thread for linear algebra: beside a worker on every core two wait for each other (a forecast: 35 s, not 3).
    environment = {"OMP_NUM_THREADS": "1", **inherited, "JSC_EXPLORE_STORE": str(store), **rights.to_environment()}
    os.execve(sys.executable, command, environment)


def read_access(options: argparse.Namespace) -> Access:
    """Return who may train at the page, by options and $JSC_EXPLORE_LAUNCH_PASSWORD. FieldError for a bad one."""
    held = os.environ.get(auth.PASSWORD, "")
    password, file = "", ""
    if options.launch_password:
        auth.read_password(options.launch_password)
        file = str(options.launch_password.resolve())
    elif held:
        password = auth.check_password(held, auth.PASSWORD)
    for entry in options.allow:
        if "@" not in entry or "," in entry or entry.endswith("@"):
            raise FieldError("allow", entry, "must be an e-mail address or a domain", "write ada@uni.edu or @uni.edu")
    limits = replace(LIMITS, **dict(auth.parse_limit(text) for text in options.limit))
    return Access(options.read_only, password, file, tuple(options.allow), limits)


def add_options(page: Any) -> None:
    """Give the command its options."""
    page.add_argument("--port", type=int, default=8501, help="port of the page (default 8501)")
    page.add_argument(
        "--address", default="localhost", help="address to listen on; 0.0.0.0 lets the room in (default localhost)"
    )
    page.add_argument("--headless", action="store_true", help="do not open a browser")
    page.add_argument("--read-only", action="store_true", help="show what is known; nothing can be trained")
    page.add_argument(
        "--launch-password", type=Path, metavar="FILE",
        help=f"only who knows the password in this file (or in ${auth.PASSWORD}) may train",
    )  # fmt: skip
    page.add_argument(
        "--allow", action="append", default=[], metavar="WHO",
        help="an e-mail address, or a domain as @uni.edu, that may train after logging in; may be repeated",
    )  # fmt: skip
    known = ", ".join(f"{name}={value:g}" for name, value in vars(LIMITS).items())
    page.add_argument(
        "--limit", action="append", default=[], metavar="NAME=N",
        help=f"what may wait at once and what is confirmed, or NAME=none; may be repeated (default {known})",
    )  # fmt: skip

"""Commands that run servers: ``app`` with the page and its access rights, ``engine``."""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from jsc_explore import paths, processes
from jsc_explore.cli.options import add_command, positive
from jsc_explore.errors import FieldError
from jsc_explore.jobs import auth
from jsc_explore.jobs.auth import Access
from jsc_explore.jobs.cluster.connection import SchedulerConnection
from jsc_explore.jobs.engine import preload
from jsc_explore.jobs.limits import LIMITS
from jsc_explore.store import Store
from jsc_explore.store.directory import STORE_ID, open_directory


def app(options: argparse.Namespace) -> NoReturn:
    """Start the page and the engine."""
    access = read_access(options)
    opened = Store(options.store.resolve(), paths.snapshot())
    opened.close()
    # Before anything is started: a second app on the same port must leave nothing behind.
    listening = processes.listen(options.address, options.port)
    command = processes.module_command("jsc_explore.web.server", "--socket", str(listening.fileno()))
    command += ["--address", options.address]
    command += [word for name in options.hostname for word in ("--hostname", auth.check_hostname(name))]
    command += ["--sessions", str(options.sessions)] if options.sessions else []
    command += [] if options.headless else ["--browser"]
    command += [] if access.read_only or opened.read_only else ["--engine"]
    listening.set_inheritable(True)
    _leave_current_directory()
    inherited = {name: text for name, text in os.environ.items() if name not in auth.VARIABLES}
    # One thread for linear algebra: with a worker on each core, two threads wait for each other (a prediction took 35 s
    # instead of 3 s). Arrow's own memory pool keeps what it freed.
    environment = {
        "OMP_NUM_THREADS": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        **inherited,
        **access.to_environment(),
    }
    environment |= {"JSC_EXPLORE_STORE": str(opened.directory), STORE_ID: opened.home.id}
    # Streamlit reads its settings in the page's directory.
    os.chdir(paths.site_file("app.py").parent)
    # This process becomes the server, so that it receives signals itself.
    os.execve(sys.executable, command, environment)


def read_access(options: argparse.Namespace) -> Access:
    """Return the page's access rights from options and environment; FieldError for an invalid value."""
    from_environment = os.environ.get(auth.PASSWORD, "")
    password, file = "", ""
    if options.launch_password:
        auth.read_password(options.launch_password)
        file = str(options.launch_password.resolve())
    elif from_environment:
        password = auth.check_password(from_environment, auth.PASSWORD)
    for entry in options.allow:
        if "@" not in entry or "," in entry or entry.endswith("@"):
            raise FieldError("allow", entry, "must be an e-mail address or a domain", "write ada@uni.edu or @uni.edu")
    limits = replace(LIMITS, **dict(auth.parse_limit(text) for text in options.limit))
    proxies = tuple(map(auth.parse_network, options.trusted_proxy))
    if options.hostname and not proxies:
        # Otherwise all visitors would come from the proxy's address, which may be that of the person who runs the app.
        rule = "is shown by a proxy, whose address must be known"
        raise FieldError("hostname", options.hostname[0], rule, "add --trusted-proxy 127.0.0.1 or where it runs")
    return Access(options.read_only, password, file, tuple(options.allow), limits, proxies)


def engine(options: argparse.Namespace) -> int:
    """Train queued runs until stopped."""
    scheduler = _scheduler(options)
    home = open_directory(options.store.resolve(), expected_id=options.store_id)
    _leave_current_directory()
    processes.raise_file_limit()
    if options.end_with_parent:
        processes.end_with_parent()
    if options.scheduler is None:
        trains_on_cpu = options.device in ("auto", "cpu")
        preload.start_fork_server(preload.next_run(home), with_kernel=trains_on_cpu)
        if trains_on_cpu:
            preload.start_compiling()
    from jsc_explore.jobs.cluster.client import Cluster
    from jsc_explore.jobs.engine.engine import run_engine
    from jsc_explore.jobs.engine.gpu_memory import gpu_bytes
    from jsc_explore.jobs.local.pool import LocalPool

    # Until the queue is empty nobody waits at a page; on a GPU each process has half a gigabyte of its memory.
    extra = 0 if options.until_idle else 1 if scheduler is None and gpu_bytes(options.device) else None

    cluster = LocalPool(options.workers, extra=extra) if scheduler is None else Cluster(scheduler, options.workers)
    run_engine(home, paths.snapshot(), cluster, device=options.device, until_idle=options.until_idle)
    return 0


def _scheduler(options: argparse.Namespace) -> SchedulerConnection | None:
    """Return the connection to the scheduler that the options name; FieldError if they are not sufficient."""
    if options.scheduler is None:
        return None
    ca_file, certificate, key = (
        path and path.resolve() for path in (options.tls_ca_file, options.tls_cert, options.tls_key)
    )
    return SchedulerConnection(options.scheduler, ca_file, certificate, key, options.insecure_scheduler)


def _leave_current_directory() -> None:
    """Change to the package's folder: Numba reads settings in the current one, and where to load compiled code from."""
    for name in ("JSC_EXPLORE_STORE", "JSC_EXPLORE_CACHE", "JSC_EXPLORE_SNAPSHOT"):
        if path := os.environ.get(name):
            os.environ[name] = str(Path(path).expanduser().absolute())
    os.chdir(paths.PACKAGE)


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"{text!r} must be cpu, cuda, cuda:N or auto")
    return text


def add_commands(commands: Any) -> None:
    """Add ``app`` and ``engine``."""
    page = add_command(commands, "app", app)
    page.add_argument("--port", type=int, default=8501, help="port of the page (default 8501)")
    page.add_argument(
        "--address", default="localhost", help="address to listen on; 0.0.0.0 for all interfaces (default localhost)"
    )
    page.add_argument("--headless", action="store_true", help="do not open a browser")
    page.add_argument("--read-only", action="store_true", help="show stored runs only; nothing can be trained")
    page.add_argument(
        "--launch-password", type=Path, metavar="FILE",
        help=f"only users with the password in this file (or in ${auth.PASSWORD}) may train",
    )  # fmt: skip
    page.add_argument(
        "--allow", action="append", default=[], metavar="WHO",
        help="an e-mail address, or a domain as @uni.edu, that may train after logging in; may be repeated",
    )  # fmt: skip
    defaults = ", ".join(f"{name}={value:g}" for name, value in vars(LIMITS).items())
    page.add_argument(
        "--limit", action="append", default=[], metavar="NAME=N",
        help="a limit of runs, epochs or cells, or the seconds that need confirmation; NAME=none removes it; may be "
             f"repeated (default {defaults})",
    )  # fmt: skip
    page.add_argument(
        "--trusted-proxy", action="append", default=[], metavar="ADDRESS",
        help="an address or network of a proxy whose X-Forwarded-For names the visitor; may be repeated",
    )  # fmt: skip
    page.add_argument(
        "--hostname", action="append", default=[], metavar="NAME",
        help="a host name under which a proxy shows the page, as jets.uni.edu; may be repeated",
    )  # fmt: skip
    page.add_argument(
        "--sessions", type=positive,
        help="how many browser tabs may have the page open at once (default: what the limit of open files allows)",
    )  # fmt: skip
    server = add_command(commands, "engine", engine)
    server.add_argument("--workers", type=positive, help="worker processes (default: one per core)")
    server.add_argument("--scheduler", help="address of a Dask scheduler to use, e.g. tls://head:8786")
    for name, text in (
        ("ca-file", "certificate that signs those of scheduler and workers"),
        ("cert", "certificate of this engine"),
        ("key", "key of this engine's certificate"),
    ):
        server.add_argument(f"--tls-{name}", type=Path, metavar="FILE", help=f"PEM file for tls://: {text}")
    server.add_argument(
        "--insecure-scheduler", action="store_true",
        help="take a scheduler without TLS, where everybody in the network may run code as you",
    )  # fmt: skip
    server.add_argument("--device", type=_device, default="auto", help="cpu, cuda, cuda:N or auto (default)")
    server.add_argument("--until-idle", action="store_true", help="end when no run is queued or running")
    server.add_argument("--end-with-parent", action="store_true", help=argparse.SUPPRESS)
    server.add_argument("--store-id", default="", help=argparse.SUPPRESS)

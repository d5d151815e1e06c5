"""Attacks on access: nobody runs code, trains, cancels or deletes without the right to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from bench.attack.result import Result
from jsc_explore.jobs.queue import Queue
from jsc_explore.store.saved_views import SavedViews
from tests.page_session import PRESSED, PageSession
from tests.servers import ROOT, App, eventually, free_port, responds, running_app

# Of a cell that trains for longer than the attack takes.
LONG_CELL = "max_epochs=1000&cells=32:1e-3"
# Notes every address outside this machine that is asked for or connected to.
TRACER = """
import os, socket
def note(name):
    if str(name) not in ("localhost", "0.0.0.0", "::", "None", "") and not str(name).startswith(("127.", "::1")):
        with open(os.environ["TRACE"], "a") as file:
            file.write(f"{name}\\n")
ask = socket.getaddrinfo
def getaddrinfo(host, *arguments, **options):
    note(host)
    return ask(host, *arguments, **options)
socket.getaddrinfo = getaddrinfo
class Traced(socket.socket):
    def connect(self, address):
        if self.family != socket.AF_UNIX:
            note(address[0])
        return super().connect(address)
socket.socket = Traced
"""
QUIET = ("--no-dashboard", "--dashboard-address", "127.0.0.1:0")
PASSWORD = "correct horse battery"
# As the installed script starts: without the current directory in the search path.
COMMAND = [sys.executable, "-P", "-m", "jsc_explore"]


def modules_in_the_current_directory(work: Path) -> Result:
    """Start the app and train in a directory with modules of the names that are imported; they must not be run."""
    found, run = work / "found", work / "run"
    for folder in (found, run):
        folder.mkdir()
    for name in ("pyarrow", "torch", "numpy", "streamlit", "distributed", "multiprocessing", "jsc_explore"):
        code = f"import pathlib; pathlib.Path({str(run / name)!r}).touch()\n"
        (found / f"{name}.py").write_text(code, encoding="utf-8")
    subprocess.run([sys.executable, "-c", "import pyarrow"], cwd=found, check=True, env=_environment())
    is_dangerous = (run / "pyarrow").exists()
    (run / "pyarrow").unlink(missing_ok=True)
    with _app(work, "--store", str(work / "store"), cwd=found, is_awaited=False) as app:
        train = [*COMMAND, "train", "--store", str(app.store), "--batch-size", "65536", "--max-epochs", "1"]
        ended = subprocess.run(train, cwd=found, env=_environment(), capture_output=True, text=True)
        eventually(lambda: responds(app.url))
    ran = sorted(path.name for path in run.iterdir())
    return Result(bool(ran), is_dangerous and ended.returncode == 0, f"run: {ran}; train: {ended.stderr.strip()[-80:]}")


def guesses_of_the_launch_password(work: Path) -> Result:
    """Guess in 16 sessions at once, each with an address of its own in X-Forwarded-For."""
    (work / "password").write_text(PASSWORD, encoding="utf-8")
    with running_app(work / "store", "--launch-password", str(work / "password")) as app:
        checked, seconds, control = asyncio.run(_guess(app.url, 16))
    note = f"{checked} of 16 guesses checked in {seconds:.1f} s; right one: {control}"
    # As docs/public.md promises: ten, and one more per second.
    return Result(checked > 11 + seconds, control, note)


async def _guess(url: str, sessions: int) -> tuple[int, float, bool]:
    """Return how many guesses were checked, in what time, and whether the right password then opens the page."""
    async with AsyncExitStack() as stack:
        headers = [{"X-Forwarded-For": f"203.0.113.{i}"} for i in range(sessions)]
        guessers = [await stack.enter_async_context(PageSession(url, headers=header)) for header in headers]
        await asyncio.gather(*(session.open() for session in guessers))
        began = time.monotonic()
        await asyncio.gather(*(session.set("launch password", "guess", alone=False) for session in guessers))
        seconds = time.monotonic() - began
        checked = sum(any("not the launch password" in text for text in session.errors) for session in guessers)
    async with PageSession(url) as session:
        await session.open()
        await session.set("launch password", PASSWORD, alone=False)
        return checked, seconds, "You may train here" in " ".join(session.texts)


def changes_to_what_others_made(work: Path) -> Result:
    """Replace, rename and delete another visitor's saved view, and cancel its trainings, in a session of one's own."""
    with running_app(work / "store") as app, closing(Queue(app.store)) as queue:
        views = SavedViews(app.store)

        def state() -> tuple[object, int]:
            return views.all(), sum(job.state in ("queued", "running") and not job.cancel for job in queue.jobs())

        asyncio.run(_act_on_views(app.url, 1, save="of ada", train=True))
        before = state()
        asyncio.run(_act_on_views(app.url, 2, query="metric=test_acc", save="of ada", change="of ada"))
        asyncio.run(_act_on_views(app.url, 3, change="of ada"))
        after = state()
        # A new session of the same browser.
        asyncio.run(_act_on_views(app.url, 1, change="of ada"))
        last = state()
    return Result(before != after, before[1] > 0 and last == ({}, 0), f"before {before}, after {after}, own {last}")


async def _act_on_views(
    url: str, browser: int, query: str = "", *, save: str = "", change: str = "", train: bool = False
) -> None:
    """Open the page as a browser with a cookie, train a cell, save a view, or cancel all and delete a view."""
    cookie = f"_streamlit_xsrf=2|00000000|{bytes([browser] * 16).hex()}|1764240000"
    cells = "&".join(filter(None, (query, LONG_CELL)))
    async with PageSession(url, cells, {"Cookie": cookie}) as session:
        await session.open()
        if train:
            name = next(name for name in session.widgets if name.startswith("train-"))
            await session.set(name, PRESSED, alone=False)
            await session.rerun()
        for name in [name for name in session.widgets if name.startswith("cancel-") and change]:
            await session.set(name, PRESSED, alone=False)
        await session.set("views dialog", PRESSED, alone=False)
        if save:
            await session.set("Save the current view as", save, alone=False)
            await session.set("FormSubmitter:save_view-Save", PRESSED, alone=False)
        # As it is sent where the button is drawn.
        for name in (f"rename {change} now", f"delete {change}"):
            if change and name in session.widgets:
                await session.set(name, PRESSED, alone=False)


def endpoints_beside_the_page(work: Path) -> Result:
    """Read statistics and upload files, which the server would keep in memory."""
    with running_app(work / "store", "--read-only") as app:
        answers = {path: _status(app.url, path) for path in ("/_stcore/metrics", "/_stcore/agent/openapi.json")}
        uploaded = asyncio.run(_upload(app.url))
        control = [_status(app.url, path) for path in ("/_stcore/health", "/_stcore/host-config", "/explore")] == [
            200,
            200,
            200,
        ]
    served = [path for path, status in answers.items() if status != 404]
    return Result(bool(served) or uploaded, control, f"statuses {answers}, uploaded: {uploaded}")


def _status(url: str, path: str, data: bytes | None = None, headers: Mapping[str, str] | None = None) -> int:
    request = urllib.request.Request(
        f"{url}{path}", data, dict(headers or {}), method="PUT" if data else "GET"
    )  # fmt: skip
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


async def _upload(url: str) -> bool:
    """Upload a file in a session of one's own; return whether the server took it."""
    async with PageSession(url) as session:
        await session.open()
        token = f"2|00000000|{bytes(range(16)).hex()}|1764240000"
        body = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + bytes(1000) + b"\r\n--x--\r\n"
        headers = {"Cookie": f"_streamlit_xsrf={token}", "X-Xsrftoken": token,
                   "Content-Type": "multipart/form-data; boundary=x"}  # fmt: skip
        return await asyncio.to_thread(_status, url, f"/_stcore/upload_file/{session.id}/f", body, headers) < 300


def pages_of_other_origins(work: Path) -> Result:
    """Connect from foreign web pages; none may be admitted, and the server may ask no other machine about them."""
    (work / "trace").mkdir()
    (work / "trace" / "sitecustomize.py").write_text(TRACER, encoding="utf-8")
    path = os.pathsep.join((str(work / "trace"), str(ROOT)))
    proxy = ("--hostname", "jets.uni.edu", "--trusted-proxy", "127.0.0.1")
    options = ("--store", str(work / "store"), "--address", "0.0.0.0", "--read-only", *proxy)
    with _app(work, *options, cwd=work, PYTHONPATH=path, TRACE=str(work / "outside")) as app:
        port = int(app.url.rpartition(":")[2])
        foreign = [f"http://{name}:{port}" for name in ("evil.org", "203.0.113.7", "localhost.evil.org", "10.1.2.3")]
        slowest, admitted = asyncio.run(_connect_all(port, [(f"localhost:{port}", origin) for origin in foreign]))
        own = [(host, f"http://{host}") for host in (f"localhost:{port}", f"192.168.1.5:{port}", f"lab.local:{port}")]
        # As a proxy passes it on.
        own.append((f"127.0.0.1:{port}", "https://jets.uni.edu"))
        _, control = asyncio.run(_connect_all(port, own))
    outside = (work / "outside").read_text(encoding="utf-8").split() if (work / "outside").exists() else []
    note = f"admitted {admitted} of 4, own {control} of 4, asked {sorted(set(outside))}, health {slowest:.2f} s"
    return Result(bool(admitted or outside or slowest > 2), control == len(own), note)


async def _connect_all(port: int, requests: list[tuple[str, str]]) -> tuple[float, int]:
    """Open websockets with these hosts and origins; return the slowest answer of the health check meanwhile, and
    how many were admitted.
    """

    async def connect_one(host: str, origin: str) -> bool:
        try:
            async with connect(f"ws://{host}/_stcore/stream", host="127.0.0.1", port=port, origin=Origin(origin)):
                return True
        except (InvalidStatus, ConnectionClosed):
            return False

    async def health() -> float:
        began = time.monotonic()
        await asyncio.to_thread(_status, f"http://127.0.0.1:{port}", "/_stcore/health")
        return time.monotonic() - began

    connected = asyncio.gather(*(connect_one(*request) for request in requests))
    slowest = 0.0
    while not connected.done():
        slowest = max(slowest, await health())
        await asyncio.sleep(0.05)
    return slowest, sum(await connected)


def code_through_a_scheduler(work: Path) -> Result:
    """Run code on the workers of a Dask scheduler as a stranger: without TLS, and with a key of one's own."""
    keys = {name: _make_keys(work / name) for name in ("own", "stranger")}
    plain = [*COMMAND, "engine", "--store", str(work / "store"), "--scheduler", f"tcp://127.0.0.1:{free_port()}"]
    with subprocess.Popen(plain, env=_environment(), stderr=subprocess.PIPE, text=True) as engine:
        try:
            is_refused = engine.wait(timeout=10) == 2
        except subprocess.TimeoutExpired:
            is_refused = False
            engine.terminate()
    address = f"tls://127.0.0.1:{free_port()}"
    host, port = address.removeprefix("tls://").split(":")
    commands = (
        ["scheduler", "--protocol", "tls", "--host", host, "--port", port],
        ["worker", address, "--host", host, "--nthreads", "1", "--no-nanny"],
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-P", "-m", "dask", *command, *QUIET, *_options(keys["own"])],
            cwd=work, env=_environment(), stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]  # fmt: skip
    try:
        control = _runs_code(address, keys["own"], work / "by the owner", 15)
        ran = [_runs_code(address, files, work / "by a stranger", 2) for files in (None, keys["stranger"])]
    finally:
        for process in processes:
            process.terminate()
            process.wait(timeout=30)
    return Result(any(ran) or not is_refused, control, f"without TLS refused: {is_refused}; strangers ran code: {ran}")


def _make_keys(folder: Path) -> tuple[str, str]:
    folder.mkdir()
    command = "openssl req -x509 -newkey rsa:3072 -nodes -days 365 -subj /CN=jsc-explore -keyout key.pem -out cert.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    return str(folder / "cert.pem"), str(folder / "key.pem")


def _options(files: tuple[str, str]) -> list[str]:
    return ["--tls-ca-file", files[0], "--tls-cert", files[0], "--tls-key", files[1]]


def _runs_code(address: str, files: tuple[str, str] | None, made: Path, timeout_s: float) -> bool:
    """Let a worker make a directory as a Dask client with these files; return whether it did."""
    from distributed import Client
    from distributed.security import Security

    security = None
    if files:
        security = Security(tls_ca_file=files[0], tls_client_cert=files[0], tls_client_key=files[1])
    try:
        with Client(address, security=security, timeout=timeout_s, set_as_default=False) as client:
            client.submit(os.mkdir, str(made)).result(timeout=timeout_s)
    except (OSError, TypeError, ValueError, TimeoutError):
        return False
    return made.exists()


@contextmanager
def _app(work: Path, *options: str, cwd: Path, is_awaited: bool = True, **environment: str) -> Iterator[App]:
    """Run the app in a directory until the block ends."""
    url, log = f"http://localhost:{(port := free_port())}", work / "app.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "app", "--headless", "--port", str(port), *options],
            cwd=cwd, env=_environment(**environment), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        eventually(lambda: not is_awaited or responds(url) or process.poll() is not None)
        yield App(url, work / "store", log, process)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _environment(**more: str) -> dict[str, str]:
    """Return this process's environment without the option that is to be tested."""
    inherited = {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


ATTACKS: tuple[Callable[[Path], Result], ...] = (
    modules_in_the_current_directory,
    guesses_of_the_launch_password,
    changes_to_what_others_made,
    endpoints_beside_the_page,
    pages_of_other_origins,
    code_through_a_scheduler,
)

"""Attacks on access: nobody runs code, trains, cancels or deletes without the right to."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

from bench.attack.result import Result
from tests.page_session import PageSession
from tests.servers import ROOT, App, eventually, free_port, responds, running_app

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
    with _app(work, "--store", str(work / "store"), cwd=found) as app:
        train = [*COMMAND, "train", "--store", str(app.store), "--batch-size", "65536", "--max-epochs", "1"]
        ended = subprocess.run(train, cwd=found, env=_environment(), capture_output=True, text=True)
    ran = sorted(path.name for path in run.iterdir())
    return Result(bool(ran), is_dangerous and ended.returncode == 0, f"run: {ran}; train: {ended.stderr.strip()[-80:]}")


def guesses_of_the_launch_password(work: Path) -> Result:
    """Guess in 20 sessions at once, each with an address of its own in X-Forwarded-For."""
    (work / "password").write_text(PASSWORD, encoding="utf-8")
    with running_app(work / "store", "--launch-password", str(work / "password")) as app:
        checked, seconds, control = asyncio.run(_guess(app.url, 20))
    note = f"{checked} of 20 guesses checked in {seconds:.1f} s; right one: {control}"
    # As docs/public.md promises: ten, and one more per second.
    return Result(checked > 11 + seconds, control, note)


async def _guess(url: str, sessions: int) -> tuple[int, float, bool]:
    """Return how many guesses were checked, in what time, and whether the right password then opens the page."""
    async with AsyncExitStack() as stack:
        headers = [{"X-Forwarded-For": f"203.0.113.{i}"} for i in range(sessions)]
        guessers = [await stack.enter_async_context(PageSession(url, headers=header)) for header in headers]
        for session in guessers:
            await session.open()
        began = time.monotonic()
        await asyncio.gather(*(session.set("launch password", "guess", alone=False) for session in guessers))
        seconds = time.monotonic() - began
        checked = sum(any("not the launch password" in text for text in session.errors) for session in guessers)
    async with PageSession(url) as session:
        await session.open()
        await session.set("launch password", PASSWORD, alone=False)
        return checked, seconds, "You may train here" in " ".join(session.texts)


@contextmanager
def _app(work: Path, *options: str, cwd: Path, **environment: str) -> Iterator[App]:
    """Run the app in a directory until the block ends."""
    url, log = f"http://localhost:{(port := free_port())}", work / "app.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*COMMAND, "app", "--headless", "--port", str(port), *options],
            cwd=cwd, env=_environment(**environment), stdout=file, stderr=file,
        )  # fmt: skip
    try:
        eventually(lambda: responds(url) or process.poll() is not None)
        yield App(url, work / "store", log, process)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _environment(**more: str) -> dict[str, str]:
    """Return this process's environment without the option that is to be tested."""
    inherited = {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}
    return {**inherited, "PYTHONPATH": str(ROOT), **more}


ATTACKS: tuple[Callable[[Path], Result], ...] = (modules_in_the_current_directory, guesses_of_the_launch_password)

"""Attacks on files: nothing outside a store is changed, and no file that somebody sent takes the machine's memory."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bench.attack.result import Result
from tests.page_session import PageSession
from tests.servers import ROOT, eventually, running_app

# As the installed script starts: without the current directory in the search path.
COMMAND = [sys.executable, "-P", "-m", "jsc_explore"]
RUNS = 5
MARKER = "jsc-explore-store.json"


def commands_in_a_project(work: Path) -> Result:
    """Give each command an ordinary directory as the store; it must stay as it was."""
    project, _ = work / "project", _write_runs(work / "runs.parquet")
    files = {"checkpoints/best.ckpt", f"checkpoints/{'a' * 32}.safetensors", "parts/chapter1.tex", "parts/data.parquet",
             "reserve", "engine.log", "thesis.tex"}  # fmt: skip
    for name in files:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("mine")
    before, refused = _contents(project), 0
    for command in (["engine", "--until-idle"], ["verify", "--repair"], ["compact", "--keep", "0"], ["list"],
                    ["merge", str(work / "runs.parquet")]):  # fmt: skip
        refused += _run(*command, "--store", str(project)).returncode == 2
    succeeded = _contents(project) != before
    control = _run("engine", "--until-idle", "--store", str(work / "new")).returncode == 0
    return Result(succeeded, control and (work / "new" / MARKER).exists(), f"{refused} of 5 refused")


def links_in_a_store(work: Path) -> Result:
    """Replace the folder of checkpoints by a link to a folder with checkpoints of another program."""
    store, models = _store(work), work / "models"
    models.mkdir()
    (models / "best.ckpt").write_text("mine")
    (models / f"{'a' * 32}.safetensors").write_text("mine")
    (work / "link").symlink_to(store)
    control = _run("engine", "--until-idle", "--store", str(work / "link")).returncode == 0
    (store / "checkpoints").symlink_to(models)
    ended = _run("engine", "--until-idle", "--store", str(store))
    return Result(len(list(models.iterdir())) != 2, control, _last_line(ended))


def paths_in_a_catalogue(work: Path) -> Result:
    """Let the catalogue of a store name files outside it as its parts; they must stay, and the store be repaired."""
    store, outside = _store(work), work / "outside"
    outside.mkdir()
    for name in ("retired.parquet", "part.parquet"):
        (outside / name).write_text("mine")
    with closing(sqlite3.connect(store / "catalog.sqlite")) as db, db:
        db.execute("INSERT INTO retired VALUES (?, 0)", [str(outside / "retired.parquet")])
        db.execute("INSERT INTO parts (name, rows, sha256) VALUES ('../../outside/part.parquet', 1, 'a')")
    before = _contents(outside)
    ended = _run("compact", "--keep", "0", "--store", str(store))
    repaired = _run("verify", "--repair", "--store", str(store))
    control = (repaired.returncode, _count(store)) == (0, RUNS)
    return Result(_contents(outside) != before, control, _last_line(ended))


def renaming_a_store_in_use(work: Path) -> Result:
    """Rename the store of a running app; the path must not be made again, the engine must end, the page must say so."""
    store, renamed = _store(work), work / "renamed"
    with running_app(store) as app:
        is_made, is_served, said, control = asyncio.run(_rename(app.url, store, renamed))
    is_told = any("is gone" in text for text in said)
    note = f"path made again: {is_made}; still served: {is_served}; {(said or ['nothing said'])[-1][:80]}"
    return Result(is_made or is_served or not is_told, control, note)


async def _rename(url: str, store: Path, renamed: Path) -> tuple[bool, bool, list[str], bool]:
    """Rename a store in use and back.

    Return whether its path was made again, an engine went on, what the page said, and whether it works afterwards.
    """
    async with PageSession(url) as session:
        await session.open()
        await asyncio.to_thread(eventually, lambda: _heartbeat(store), 15)
        store.rename(renamed)
        # The supervisor looks every two seconds whether an engine serves the store.
        await asyncio.sleep(5)
        is_made, is_served = store.exists(), _is_served(store)
        await session.open()
        said = list(session.errors)
        session.errors.clear()
        if not is_made:
            renamed.rename(store)
        await session.open()
        return is_made, is_served, said, not session.errors and _count(store if not is_made else renamed) == RUNS


def _is_served(store: Path) -> bool:
    """Return whether the process of an engine serves a store."""
    commands = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
    return any("engine" in command and str(store) in command for command in commands)


def databases_of_random_bytes(work: Path) -> Result:
    """Overwrite the databases of a store with random bytes; each command must say what to do in one line."""
    store = _store(work)
    for name in ("catalog.sqlite", "queue.sqlite", "views.sqlite"):
        for path in store.glob(f"{name}*"):
            path.unlink()
        (store / name).write_bytes(os.urandom(4096))
    said = [_run(*command, "--store", str(store)).stderr for command in (["list"], ["train"], ["compact"])]
    is_clear = all(len(text.splitlines()) == 1 and "verify --repair" in text for text in said)
    repaired = _run("verify", "--repair", "--store", str(store))
    return Result(not is_clear, (repaired.returncode, _count(store)) == (0, RUNS), said[0].strip()[:120])


def merging_a_file_that_unpacks(work: Path) -> Result:
    """Merge a file of some kilobytes that decodes to two gigabytes; its memory must stay near that of a good file."""
    good, bomb = _write_runs(work / "good.parquet"), work / "bomb.parquet"
    runs = pq.read_table(good).slice(0, 1)
    curves = [name for name in runs.column_names if name.startswith("curve_")]
    count = 2 * 10**9 // (8 * len(curves))
    zeros = np.zeros(count)
    for name in curves:
        kind = runs.schema.field(name).type
        values = pa.ListArray.from_arrays(
            pa.array([0, count], pa.int32()), pa.array(zeros.view(kind.value_type.to_pandas_dtype()))
        )
        runs = runs.set_column(runs.column_names.index(name), name, values.cast(kind))
    pq.write_table(runs, bomb, compression="zstd")
    del runs, values, zeros
    added, base = _memory("merge", str(good), "--store", str(work / "store"))
    said, peak = _memory("merge", str(bomb), "--store", str(work / "store"))
    note = f"{bomb.stat().st_size / 1e3:.0f} kB: {peak:,.0f} MB, a good file {base:,.0f} MB; {said.strip()[-90:]}"
    return Result(peak > base + 500, f"{RUNS} runs added" in added, note)


# A small process in between: until it runs the command, a child counts the memory of the process that started it.
_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def _memory(*arguments: str) -> tuple[str, float]:
    """Run a command; return what it printed and its peak memory in MB."""
    command = [sys.executable, "-c", _MEASURE, *COMMAND, *arguments]
    ended = subprocess.run(
        command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True
    )
    text, _, peak = ended.stdout.strip().rpartition("\n")
    return text, int(peak) / 1e6


def _store(work: Path) -> Path:
    """Make a store with a few runs; return its directory."""
    _run("merge", str(_write_runs(work / "runs.parquet")), "--store", str(work / "store")).check_returncode()
    return work / "store"


def _write_runs(path: Path) -> Path:
    pq.write_table(pq.read_table(ROOT / "results.parquet").slice(0, RUNS), path)
    return path


def _count(store: Path) -> int:
    return _run("list", "--json", "--store", str(store)).stdout.count("run_id")


def _heartbeat(store: Path) -> bool:
    if not (store / "queue.sqlite").exists():
        return False
    with closing(sqlite3.connect(store / "queue.sqlite")) as db:
        try:
            return bool(db.execute("SELECT 1 FROM engine").fetchone())
        except sqlite3.Error:
            return False


def _contents(directory: Path) -> dict[str, bytes]:
    """Return the content of each file below a directory, by its path there."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=_environment(), capture_output=True, text=True, check=False)


def _last_line(ended: subprocess.CompletedProcess[str]) -> str:
    return (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1][:120]


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "JSC_EXPLORE_SNAPSHOT": os.devnull + ".parquet"}


ATTACKS: tuple[Callable[[Path], Result], ...] = (
    commands_in_a_project, links_in_a_store, paths_in_a_catalogue, renaming_a_store_in_use, databases_of_random_bytes,
    merging_a_file_that_unpacks,
)  # fmt: skip

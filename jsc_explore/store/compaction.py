"""Compaction: merge many small parts into few sorted ones, while other processes read and write."""

from __future__ import annotations

import atexit
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore.files import file_lock
from jsc_explore.store.catalog import Catalog, Part, run_rows
from jsc_explore.store.directory import StoreDirectory
from jsc_explore.store.parquet_size import size_problem
from jsc_explore.store.parquet_writer import PartFile, write_part
from jsc_explore.store.recovery import RETENTION_S, drop_retired
from jsc_explore.store.schema import part_schema, schema_problem, with_columns

# Opening a store costs about a millisecond per part. Parts grow from 1 run to 64 to 4,096 runs: every run is written
# three times at most, and 100,000 runs take at most about 150 parts.
MAX_PARTS = 64
_SIZE_LIMITS = (64, 4096)
ROWS_PER_PART = 4096
# Bytes on disk that are merged in memory at once. A part above _LARGE_BYTES is not merged.
_BATCH_BYTES = 128 << 20
_LARGE_BYTES = 32 << 20


@dataclass(frozen=True)
class CompactionResult:
    """What a compaction did: number of merged parts ``before`` and ``after``, and messages on unreadable parts."""

    before: int = 0
    after: int = 0
    runs: int = 0
    problems: tuple[str, ...] = ()


def size_class(part: Part) -> int:
    """Return the size class of a part: 0 as it was added, 1 or 2 after compaction."""
    return sum(part.rows >= rows for rows in _SIZE_LIMITS)


def parts_to_compact(parts: Sequence[Part]) -> list[Part]:
    """Return the parts to merge now: all of a size class, and the smaller ones, once it has over ``MAX_PARTS``."""
    for largest in (1, 0):
        if sum(size_class(part) == largest for part in parts) > MAX_PARTS:
            return [part for part in parts if size_class(part) <= largest]
    return []


def compact(
    directory: Path | StoreDirectory,
    *,
    select: Callable[[Sequence[Part]], Sequence[Part]] = parts_to_compact,
    retention_s: float = RETENTION_S,
    stop: threading.Event | None = None,
) -> CompactionResult | None:
    """Merge the selected parts of a store: new parts are written and synced, then replace the old in one transaction.

    Parts with a wrong checksum are left out. The replaced files are kept for ``retention_s`` seconds. Returns None if
    another process compacts the same store. An interruption at any point leaves the old parts valid. Raises StoreError
    if the disk or the catalogue cannot be written.
    """
    catalog = Catalog(directory)
    try:
        with (
            file_lock(catalog.directory / "compaction.lock", exclusive=True) as acquired,
            catalog.writing("parts could not be compacted"),
        ):
            if not acquired:
                return None
            drop_retired(catalog, retention_s)
            done = CompactionResult()
            for batch in _batches(catalog, select(catalog.parts())):
                if stop is not None and stop.is_set():
                    break
                done = _sum_results(done, _compact_batch(catalog, batch, stop))
            if retention_s <= 0:
                drop_retired(catalog, retention_s)
            return done
    except OSError as error:
        raise catalog.write_error("parts could not be compacted", error) from error
    finally:
        catalog.close()


def _batches(catalog: Catalog, parts: Sequence[Part]) -> Iterator[list[Part]]:
    batch: list[Part] = []
    size = 0
    for part in parts:
        try:
            bytes_of_part = catalog.path_of(part).stat().st_size
        except FileNotFoundError:
            continue  # `verify` reports it
        if bytes_of_part >= _LARGE_BYTES and part.rows < ROWS_PER_PART:
            continue
        if batch and size + bytes_of_part > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(part)
        size += bytes_of_part
    if len(batch) > 1:
        yield batch


def _compact_batch(catalog: Catalog, batch: Sequence[Part], stop: threading.Event | None) -> CompactionResult:
    owner = {entry.run_id: entry.part for entry in catalog.entries(parts=[part.seq for part in batch])}
    tables, sources, problems = [], [], []
    for part in batch:
        if stop is not None and stop.is_set():
            return CompactionResult()
        table, problem = _read(catalog.path_of(part), part)
        if table is None:
            problems.append(problem)
            continue
        own = [owner.get(run_id) == part.seq for run_id in table["run_id"].to_pylist()]
        tables.append(table if all(own) else table.filter(pa.array(own)))
        sources.append(part)
    if len(sources) < 2:
        return CompactionResult(problems=tuple(problems))
    merged = pa.concat_tables(tables)
    tables.clear()
    merged = merged.sort_by([(name, "ascending") for name in ("config_id", "seed", "run_id")])
    written = []
    try:
        for first in range(0, merged.num_rows, ROWS_PER_PART):
            if stop is not None and stop.is_set():
                raise InterruptedError
            piece = merged.slice(first, ROWS_PER_PART)
            written.append((write_part(catalog.parts_directory, piece), piece))
        replaced = _replace_parts(catalog, sources, written)
    except BaseException as error:
        _discard(catalog, written)
        if isinstance(error, InterruptedError):
            return CompactionResult()
        raise
    if not replaced:
        _discard(catalog, written)
        return CompactionResult(problems=tuple(problems))
    return CompactionResult(len(sources), len(written), merged.num_rows, tuple(problems))


def _read(path: Path, part: Part) -> tuple[pa.Table | None, str]:
    """Read a part, or return an error message. Its checksum must match: corrupt data must not get a new, valid one."""
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != part.sha256:
            return None, f"{path}: its checksum differs from the recorded one; run `jsc-explore verify`"
        # `pq.read_table` builds a dataset, which costs more than reading one run.
        file = pq.ParquetFile(pa.BufferReader(content))
        problem = schema_problem(file.schema_arrow) or size_problem(file.metadata, part_schema().names)
        table = None if problem else file.read(use_threads=False)
    except (OSError, pa.ArrowException) as error:
        return None, f"{path}: cannot be read ({error}); run `jsc-explore verify`"
    if table is None:
        return None, f"{path}: {problem}"
    schema = part_schema()
    if table.column_names != schema.names:
        table = with_columns(table, schema.names)
    return table if table.schema.equals(schema) else table.cast(schema), ""


def _replace_parts(catalog: Catalog, sources: Sequence[Part], written: Sequence[tuple[PartFile, pa.Table]]) -> bool:
    """Replace the source parts by the new files in one transaction; return False if a source is no longer current."""
    now = time.time()
    with catalog.transaction() as db:
        current = {seq for (seq,) in db.execute("SELECT seq FROM parts")}
        if not current.issuperset(part.seq for part in sources):
            return False
        for file, table in written:
            catalog.register(db, file, run_rows(table))
        db.executemany("INSERT INTO retired (name, retired_at) VALUES (?, ?)", [(part.name, now) for part in sources])
        db.executemany("DELETE FROM parts WHERE seq = ?", [(part.seq,) for part in sources])
    return True


def _discard(catalog: Catalog, written: Sequence[tuple[PartFile, pa.Table]]) -> None:
    known = {part.name for part in catalog.parts()}
    for file, _ in written:
        # A COMMIT that raised may have succeeded all the same.
        if file.path.name not in known:
            file.path.unlink(missing_ok=True)


def _sum_results(one: CompactionResult, other: CompactionResult) -> CompactionResult:
    return CompactionResult(
        one.before + other.before, one.after + other.after, one.runs + other.runs, (*one.problems, *other.problems)
    )


class BackgroundCompaction:
    """Run compactions in a low-priority thread, one at a time; ``message`` holds the last error."""

    def __init__(self, directory: Path | StoreDirectory) -> None:
        self.directory = directory
        self.message = ""
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self) -> bool:
        """Start a compaction unless one is running; return whether one was started."""
        if self._stop.is_set() or (self._thread is not None and self._thread.is_alive()):
            return False
        # A process that ends without closing its store waits for it: a thread inside DuckDB would abort the process.
        atexit.register(self.stop)
        self._thread = threading.Thread(target=self._run, name="compaction", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """Stop the running compaction before it replaces parts, and start no more."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        if sys.platform == "linux":  # Linux sets the priority of this thread alone, other systems that of the process.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        try:
            done = compact(self.directory, stop=self._stop)
            self.message = "; ".join(done.problems) if done else ""
        except Exception as error:
            self.message = str(error)
        finally:
            atexit.unregister(self.stop)

"""Imported runs: one Parquet file each, in a folder of the store, never mixed with the store's own runs."""

from __future__ import annotations

import json
import math
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore.config import FIELDS
from jsc_explore.errors import FieldError, StoreError
from jsc_explore.files import atomic_write, error_reason, file_lock
from jsc_explore.importers.imported_run import MAX_NAME, ImportedRun
from jsc_explore.results import CURVE_PREFIX, INTEGER_QUANTITIES, POINT_FIELDS
from jsc_explore.store.directory import StoreDirectory, open_directory
from jsc_explore.store.parquet_size import decode_group

VERSION_KEY, VERSION = b"jsc_explore.imported", b"1"
MAX_IMPORTED = 2000
_OWN_NAME = re.compile(r"[0-9a-f]{64}\.parquet")
_TEXT_COLUMNS = ("name", "kind", "source", "sha256", "fields", "other", "imported_at")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXT_COLUMNS]
    + [("notes", pa.list_(pa.string())), ("test_acc", pa.float64()), ("test_loss", pa.float64())]
    + [
        (CURVE_PREFIX + name, pa.list_(pa.int64() if name in INTEGER_QUANTITIES else pa.float64()))
        for name in POINT_FIELDS
    ],
    {VERSION_KEY: VERSION},
)


class ImportedRuns:
    """The imported runs of one store directory, in its folder ``imported``; any thread and process may call.

    A file is named by the digest of its source, so that no source is stored twice; it is written atomically and never
    changed. ``problems`` has one message for each unreadable file.
    """

    def __init__(self, directory: Path | StoreDirectory) -> None:
        self._home = open_directory(directory)
        self.directory = self._home.path / "imported"
        self.problems: list[str] = []
        self._cache: dict[str, ImportedRun | None] = {}
        self._lock = threading.Lock()

    def all(self) -> list[ImportedRun]:
        """Return every imported run, sorted by name."""
        with self._lock:
            files = self._home.folder("imported").glob("*.parquet")
            names = {path.name for path in files if _OWN_NAME.fullmatch(path.name)}
            for removed in self._cache.keys() - names:
                del self._cache[removed]
            for name in sorted(names - self._cache.keys()):
                self._cache[name] = self._read(self.directory / name)
            runs = [run for run in self._cache.values() if run is not None]
        return sorted(runs, key=lambda run: (run.name, run.imported_at))

    def add(self, run: ImportedRun) -> ImportedRun:
        """Store a run durably, under a unique name, and return it as stored; a run of the same source stays as it is.

        Raises FieldError if there are ``MAX_IMPORTED`` already and StoreError, with nothing changed, if it cannot be
        written.
        """
        try:
            self._home.make_folder("imported")
            with file_lock(self.directory / ".lock", exclusive=True, timeout=math.inf):
                runs = self.all()
                if same := next((one for one in runs if one.sha256 == run.sha256), None):
                    return same
                if len(runs) >= MAX_IMPORTED:
                    raise FieldError("imported runs", len(runs), f"is the limit of {MAX_IMPORTED}",
                                     "remove some: jsc-explore import --remove NAME")  # fmt: skip
                stamp = datetime.now(UTC).isoformat(timespec="seconds")
                stored = replace(run, name=_unused_name(run.name, {one.name for one in runs}), imported_at=stamp)
                self._write(stored)
                return stored
        except OSError as error:
            raise StoreError(
                f"{self.directory}: an imported run could not be written ({error_reason(error)}); free disk space"
            ) from error

    def remove(self, name: str) -> None:
        """Remove the run of this name. Raises FieldError if there is none, StoreError if it cannot be removed."""
        run = next((one for one in self.all() if one.name == name), None)
        if run is None:
            raise FieldError("name", name, "is no imported run", "list them with `jsc-explore import`")
        try:
            # The path comes from the digest, never from the name.
            (self.directory / f"{run.sha256}.parquet").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.directory}: {name} could not be removed ({error_reason(error)}); check its permissions"
            ) from error

    def _write(self, run: ImportedRun) -> None:
        with atomic_write(self.directory / f"{run.sha256}.parquet") as file:
            pq.write_table(table_of(run), file, compression="zstd")

    def _read(self, path: Path) -> ImportedRun | None:
        try:
            with pq.ParquetFile(path) as file, path.open("rb") as raw:
                schema = file.schema_arrow
                if (schema.metadata or {}).get(VERSION_KEY) != VERSION or file.metadata.num_rows != 1:
                    raise ValueError("not an imported run of this version")
                return _run(decode_group(file, raw, 0, schema.names).to_pylist()[0], path.stem)
        except (OSError, pa.ArrowException, ValueError, KeyError, IndexError, TypeError) as error:
            self.problems.append(f"{path}: cannot be read ({str(error).splitlines()[0][:80]}); it is skipped")
            return None


def _unused_name(name: str, taken: set[str]) -> str:
    """Return a printable name that is not taken: version_0, version_0 (2)."""
    # A tilde separates names in a URL.
    plain = "".join(char if char.isprintable() and char != "~" else "_" for char in name).strip()[:MAX_NAME] or "run"
    number, unique = 1, plain
    while unique in taken:
        number += 1
        unique = f"{plain} ({number})"
    return unique


def table_of(run: ImportedRun) -> pa.Table:
    """Return a run as the one row that its file holds."""
    row: dict[str, Any] = {name: getattr(run, name) for name in (*_TEXT_COLUMNS, "notes", "test_acc", "test_loss")}
    row |= {"fields": json.dumps(run.fields, sort_keys=True), "other": json.dumps(run.other, sort_keys=True)}
    row |= {CURVE_PREFIX + name: [point.get(name) for point in run.points] for name in POINT_FIELDS}
    return pa.Table.from_pylist([row], schema=_SCHEMA)


def _run(row: dict[str, Any], sha256: str) -> ImportedRun:
    if row["sha256"] != sha256:
        raise ValueError("its digest differs from its file name")
    # A file that was written before a quantity was recorded lacks its column.
    unknown = [None] * len(row[f"{CURVE_PREFIX}step"])
    curves = {name: row.get(CURVE_PREFIX + name, unknown) for name in POINT_FIELDS}
    points = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    fields = {name: value for name, value in json.loads(row["fields"]).items() if name in FIELDS}
    texts = {name: row[name] for name in ("name", "kind", "source", "sha256", "imported_at")}
    return ImportedRun(
        **texts, fields=fields, other=json.loads(row["other"]), points=points, test_acc=row["test_acc"],
        test_loss=row["test_loss"], notes=row["notes"],
    )  # fmt: skip

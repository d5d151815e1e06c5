"""Imported runs: kept beside the parts, one file each, and never mixed with the runs of our own."""

from __future__ import annotations

import json
import math
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
from jsc_explore.results import CURVE_PREFIX, POINT_FIELDS, WHOLE_NUMBERS

VERSION_KEY, VERSION = b"jsc_explore.imported", b"1"
MAX_IMPORTED = 2000
_TEXTS = ("name", "kind", "source", "sha256", "fields", "other", "imported_at")
_SCHEMA = pa.schema(
    [(name, pa.string()) for name in _TEXTS]
    + [("notes", pa.list_(pa.string())), ("test_acc", pa.float64()), ("test_loss", pa.float64())]
    + [(CURVE_PREFIX + name, pa.list_(pa.int64() if name in WHOLE_NUMBERS else pa.float64())) for name in POINT_FIELDS],
    {VERSION_KEY: VERSION},
)


class ImportedRuns:
    """The imported runs of one store directory, in its folder ``imported``; any thread and process may call.

    A file is named by the digest of what was read, so the same source is never kept twice; it is written whole, synced
    and renamed, and never changed. ``problems`` lists, one line each, files that were passed over.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory) / "imported"
        self.problems: list[str] = []
        self._known: dict[str, ImportedRun | None] = {}
        self._lock = threading.Lock()

    def all(self) -> list[ImportedRun]:
        """Return every imported run, by name."""
        with self._lock:
            names = {path.name for path in self.directory.glob("*.parquet")} if self.directory.is_dir() else set()
            for gone in self._known.keys() - names:
                del self._known[gone]
            for name in sorted(names - self._known.keys()):
                self._known[name] = self._read(self.directory / name)
            runs = [run for run in self._known.values() if run is not None]
        return sorted(runs, key=lambda run: (run.name, run.imported_at))

    def add(self, run: ImportedRun) -> ImportedRun:
        """Keep a run durably and return it as it is kept: under a name of its own, or as it is there already.

        Raises StoreError, with nothing changed, if it cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with file_lock(self.directory / ".lock", exclusive=True, timeout=math.inf):
                runs = self.all()
                if same := next((one for one in runs if one.sha256 == run.sha256), None):
                    return same
                if len(runs) >= MAX_IMPORTED:
                    raise FieldError("imported runs", len(runs), f"are {MAX_IMPORTED}, the most that are kept",
                                     "remove some: jsc-explore import --remove NAME")  # fmt: skip
                stamp = datetime.now(UTC).isoformat(timespec="seconds")
                kept = replace(run, name=_unused_name(run.name, {one.name for one in runs}), imported_at=stamp)
                self._write(kept)
                return kept
        except OSError as error:
            raise StoreError(
                f"{self.directory}: an imported run could not be written ({error_reason(error)}); make room"
            ) from error

    def remove(self, name: str) -> None:
        """Remove the run of this name. FieldError if there is none, StoreError if it cannot be removed."""
        run = next((one for one in self.all() if one.name == name), None)
        if run is None:
            raise FieldError("name", name, "is no imported run", "take one from `jsc-explore import`")
        try:
            # The digest, not the name, makes the path.
            (self.directory / f"{run.sha256}.parquet").unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(
                f"{self.directory}: {name} could not be removed ({error_reason(error)}); see its permissions"
            ) from error

    def _write(self, run: ImportedRun) -> None:
        with atomic_write(self.directory / f"{run.sha256}.parquet") as file:
            pq.write_table(_table(run), file, compression="zstd")

    def _read(self, path: Path) -> ImportedRun | None:
        try:
            schema = pq.read_schema(path)
            if (schema.metadata or {}).get(VERSION_KEY) != VERSION:
                raise ValueError("is no imported run of this version")
            return _run(pq.read_table(path).to_pylist()[0], path.stem)
        except (OSError, pa.ArrowException, ValueError, KeyError, IndexError, TypeError) as error:
            self.problems.append(f"{path}: cannot be read ({str(error).splitlines()[0][:80]}); it is left out")
            return None


def _unused_name(name: str, taken: set[str]) -> str:
    """Return a printable name that no other run has: version_0, version_0 (2)."""
    # A tilde parts names in an address.
    plain = "".join(sign if sign.isprintable() and sign != "~" else "_" for sign in name).strip()[:MAX_NAME] or "run"
    number, free = 1, plain
    while free in taken:
        number += 1
        free = f"{plain} ({number})"
    return free


def _table(run: ImportedRun) -> pa.Table:
    row: dict[str, Any] = {name: getattr(run, name) for name in (*_TEXTS, "notes", "test_acc", "test_loss")}
    row |= {"fields": json.dumps(run.fields, sort_keys=True), "other": json.dumps(run.other, sort_keys=True)}
    row |= {CURVE_PREFIX + name: [point.get(name) for point in run.points] for name in POINT_FIELDS}
    return pa.Table.from_pylist([row], schema=_SCHEMA)


def _run(row: dict[str, Any], sha256: str) -> ImportedRun:
    if row["sha256"] != sha256:
        raise ValueError("has another digest than its name says")
    curves = {name: row[CURVE_PREFIX + name] for name in POINT_FIELDS}
    points = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    fields = {name: value for name, value in json.loads(row["fields"]).items() if name in FIELDS}
    texts = {name: row[name] for name in ("name", "kind", "source", "sha256", "imported_at")}
    return ImportedRun(
        **texts, fields=fields, other=json.loads(row["other"]), points=points, test_acc=row["test_acc"],
        test_loss=row["test_loss"], notes=row["notes"],
    )  # fmt: skip

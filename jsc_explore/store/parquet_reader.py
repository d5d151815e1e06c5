"""Read curves from Parquet files by row number: only the row groups needed, each file's footer once."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore.store.schema import columns_to_read, with_columns

# The parsed footer of a file with 4,096 runs takes about 2 MB.
_MAX_FOOTERS = 64


@lru_cache(maxsize=1)
def _thread_pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="curves")


class StaleFileError(OSError):
    """A file was removed or replaced: the list of parts must be read again."""


@dataclass(frozen=True)
class _Footer:
    metadata: pq.FileMetaData
    columns: frozenset[str]
    # First row of each row group, and the end of the last.
    starts: np.ndarray


class CurveReader:
    """Read rows of immutable Parquet files by row number; any thread may call.

    DuckDB reads every footer again for each query, and a footer of 64 columns costs more than the rows of fifty runs.
    """

    def __init__(self) -> None:
        self._footers: dict[str, _Footer] = {}
        self._lock = threading.Lock()

    def read_rows(self, rows: Mapping[str, Sequence[int]], columns: Sequence[str]) -> pa.Table:
        """Return ``run_id`` and these columns of the rows, given as file -> row numbers. Raises StaleFileError."""
        names = ["run_id", *columns]
        # Decoding releases the GIL: two cores read two files at a time.
        run = _thread_pool().map if len(rows) > 1 else map
        return pa.concat_tables(run(lambda file: self._read_file(file, rows[file], names), rows))

    def _read_file(self, name: str, wanted: Sequence[int], names: Sequence[str]) -> pa.Table:
        footer = self._footer(name)
        rows = np.sort(np.asarray(wanted, np.int64))
        groups = np.searchsorted(footer.starts, rows, side="right") - 1
        if groups.size and groups[-1] >= len(footer.starts) - 1:
            raise StaleFileError(f"{name}: has fewer rows than before")
        tables, read = [], columns_to_read(names, footer.columns)
        try:
            with pq.ParquetFile(name, metadata=footer.metadata, pre_buffer=False) as file:
                for group in np.unique(groups):
                    inside = rows[groups == group] - footer.starts[group]
                    table = file.read_row_group(int(group), columns=read, use_threads=False)
                    tables.append(with_columns(table.take(pa.array(inside)), names))
        except FileNotFoundError as error:
            raise StaleFileError(str(error)) from error
        return pa.concat_tables(tables)

    def forget(self, names: Sequence[str]) -> None:
        """Drop the cached footers of these files."""
        with self._lock:
            for name in names:
                self._footers.pop(name, None)

    def _footer(self, name: str) -> _Footer:
        with self._lock:
            if (cached := self._footers.pop(name, None)) is not None:
                self._footers[name] = cached  # the least recently used footer is dropped first
                return cached
        try:
            metadata = pq.read_metadata(name)
        except FileNotFoundError as error:
            raise StaleFileError(str(error)) from error
        counts = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        columns = frozenset(metadata.schema.to_arrow_schema().names)
        footer = _Footer(metadata, columns, np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]))
        with self._lock:
            self._footers[name] = footer
            while len(self._footers) > _MAX_FOOTERS:
                del self._footers[next(iter(self._footers))]
        return footer

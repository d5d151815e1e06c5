"""Files that are whole or not there: how parts reach the disk, and who may be writing at a moment."""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore.store.schema import CURVE_PREFIX

# A reader of fifty curves decodes fifty row groups: the fewer runs in one, the less it decodes for nothing.
ROWS_PER_GROUP = 128
# Checksums of the pages let `verify --repair` save the sound row groups of a part with a bad sector.
_WITH_CHECKSUMS = {b"jsc_explore.page_checksums": b"crc32"}
_LOOK_AGAIN_S = 0.02


@dataclass(frozen=True)
class Written:
    """A file that lies on the disk under its final name, synced, and is entered nowhere yet."""

    path: Path
    rows: int
    sha256: str


def write_part(directory: Path, table: pa.Table) -> Written:
    """Write a table to a name never used before: temporary name, write, sync, rename, sync of the directory.

    OSError if any of these fails; nothing is left then.
    """
    sink = pa.BufferOutputStream()
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), **_WITH_CHECKSUMS})
    # Curves hold few numbers twice: without dictionaries they are a tenth smaller and read faster; LZ4 is decoded twice
    # as fast as Zstandard, for a tenth more room.
    pq.write_table(
        marked,
        sink,
        compression="lz4",
        use_dictionary=[name for name in marked.column_names if not name.startswith(CURVE_PREFIX)],
        row_group_size=ROWS_PER_GROUP,
        write_page_checksum=True,
    )
    content = sink.getvalue()
    name = f"{uuid.uuid4().hex}.parquet"
    final, partial = directory / name, directory / f"{name}.tmp"
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(final)
        sync_directory(directory)
    except OSError:
        for leftover in (partial, final):
            leftover.unlink(missing_ok=True)
        raise
    return Written(final, table.num_rows, hashlib.sha256(content).hexdigest())


def has_page_checksums(path: Path) -> bool:
    """Whether a damaged page of this Parquet file would be noticed. OSError if it cannot be read."""
    return _WITH_CHECKSUMS.items() <= (pq.read_schema(path).metadata or {}).items()


def sync_directory(directory: Path) -> None:
    """Make the names in a directory survive a power cut. OSError if that fails."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def digest_of(path: Path) -> str:
    """Return the sha256 of a file, in hex. OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def held(path: Path, *, alone: bool, wait_s: float = 0.0) -> Iterator[bool]:
    """Hold a lock file, alone or together with others; yield whether it was had within ``wait_s``.

    The system lets go of it when the process dies, however it dies. OSError if the file cannot be opened.
    """
    deadline = time.monotonic() + wait_s
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(_LOOK_AGAIN_S)
                    continue
                yield False
                return
            yield True
            return
    finally:
        os.close(handle)

"""Write a part: one Parquet file with page checksums, whole on the disk under a new name, or not there."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from jsc_explore.files import atomic_write
from jsc_explore.results import CURVE_PREFIX

# A reader of fifty curves decodes fifty row groups: the fewer runs in one, the less it decodes for nothing.
ROWS_PER_GROUP = 128
# Checksums of the pages let `verify --repair` save the sound row groups of a part with a bad sector.
_WITH_CHECKSUMS = {b"jsc_explore.page_checksums": b"crc32"}


@dataclass(frozen=True)
class PartFile:
    """A file that lies on the disk under its final name, synced, and is entered nowhere yet."""

    path: Path
    rows: int
    sha256: str


def write_part(directory: Path, table: pa.Table) -> PartFile:
    """Write a table to a name never used before: whole and synced, or not there.

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
    path = directory / f"{uuid.uuid4().hex}.parquet"
    try:
        with atomic_write(path) as file:
            file.write(content)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return PartFile(path, table.num_rows, hashlib.sha256(content).hexdigest())


def has_page_checksums(path: Path) -> bool:
    """Whether a damaged page of this Parquet file would be noticed. OSError if it cannot be read."""
    return _WITH_CHECKSUMS.items() <= (pq.read_schema(path).metadata or {}).items()

"""Write a part: one Parquet file with page checksums, written atomically under a new name."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jsc_explore.files import atomic_write
from jsc_explore.results import CURVE_PREFIX
from jsc_explore.store.schema import WEIGHTS

# Reading fifty curves decodes up to fifty row groups: the fewer runs in each, the less is decoded in vain.
ROWS_PER_GROUP = 128
# A row group must stay far below the size that is refused (``parquet_size``).
_MAX_GROUP_WEIGHTS = 128 << 20
# With page checksums `verify --repair` can keep the intact row groups of a part with a bad sector.
_WITH_CHECKSUMS = {b"jsc_explore.page_checksums": b"crc32"}


@dataclass(frozen=True)
class PartFile:
    """A Parquet file that is durable under its final name, but not in the catalogue yet."""

    path: Path
    rows: int
    sha256: str


def write_part(directory: Path, table: pa.Table) -> PartFile:
    """Write a table durably to a file with a new random name. Raises OSError, and leaves no file, if that fails."""
    sink = pa.BufferOutputStream()
    marked = table.replace_schema_metadata({**(table.schema.metadata or {}), **_WITH_CHECKSUMS})
    # Few values of a curve repeat: without dictionaries curves are a tenth smaller and faster to read; weights never
    # repeat. LZ4 decodes twice as fast as Zstandard and takes a tenth more space.
    pq.write_table(
        marked,
        sink,
        compression="lz4",
        use_dictionary=[name for name in marked.column_names if not name.startswith((CURVE_PREFIX, WEIGHTS.name))],
        row_group_size=_rows_per_group(table),
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


def _rows_per_group(table: pa.Table) -> int:
    longest = pc.max(pc.binary_length(table[WEIGHTS.name])).as_py() if WEIGHTS.name in table.column_names else None
    return max(1, min(ROWS_PER_GROUP, _MAX_GROUP_WEIGHTS // (longest or 1)))


def has_page_checksums(path: Path) -> bool:
    """Return whether this Parquet file has page checksums. Raises OSError if it cannot be read."""
    return _WITH_CHECKSUMS.items() <= (pq.read_schema(path).metadata or {}).items()

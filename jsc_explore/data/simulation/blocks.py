"""Blocks: up to 1,000 jets of one class, simulated together and written to one Parquet file.

The identity of a block determines its content. Files are written atomically, by the process that holds the block's
lock.
"""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from jsc_explore.data.jets import FEATURES
from jsc_explore.data.simulation.detector import find_preset
from jsc_explore.data.simulation.events import RECIPE_VERSION, check_class, generate_jets
from jsc_explore.data.simulation.extra import versions
from jsc_explore.data.simulation.features import Floats, jet_features
from jsc_explore.errors import DataError
from jsc_explore.files import atomic_write, file_lock

JETS_PER_BLOCK = 1_000

MANTISSA_BITS = 16
"""Fraction bits kept of a feature: a relative error of 8e-6, far below the detector's resolution. It hides the last
bits of a double, which depend on the processor's vector instructions, so that files are identical everywhere."""

_LOCKS = ".claims"


@dataclass(frozen=True)
class Block:
    """The identity of a block: number `number` of (preset, class `label`, seed), with `jets` jets."""

    preset: str
    label: str
    seed: int
    number: int
    jets: int = JETS_PER_BLOCK

    def __post_init__(self) -> None:
        find_preset(self.preset)
        check_class(self.label)

    @property
    def filename(self) -> str:
        """The file name, unique to the block."""
        return f"{self.preset}-{self.label}-seed{self.seed}-block{self.number:05d}-jets{self.jets}.parquet"

    def identity(self) -> dict[str, str]:
        """The Parquet metadata of the block's file."""
        return {
            "jsc.recipe": str(RECIPE_VERSION),
            "jsc.preset": self.preset,
            "jsc.class": self.label,
            "jsc.seed": str(self.seed),
            "jsc.block": str(self.number),
            "jsc.jets": str(self.jets),
        }


def simulate_block(block: Block) -> NDArray[np.float32]:
    """Simulate a block's jets: ``(block.jets, 16) float32``, columns as in FEATURES, no two rows equal."""
    stream = generate_jets(find_preset(block.preset), block.label, block.seed, block.number)
    rows = np.empty((0, len(FEATURES)), dtype=np.float32)
    while len(rows) < block.jets:
        more = jet_features(list(itertools.islice(stream, block.jets - len(rows))))
        rows = _without_duplicates(np.concatenate([rows, round_mantissa(more, MANTISSA_BITS)]))
    return rows


def write_block(block: Block, directory: Path) -> bool:
    """Write a block's file to `directory` unless it is there; return False if another process is writing it.

    Raises DataError if the directory cannot be written or a library is missing.
    """
    path = directory / block.filename
    if is_complete(path, block):
        return True
    try:
        with file_lock(directory / _LOCKS / f"{block.filename}.lock", exclusive=True) as acquired:
            if acquired and not is_complete(path, block):
                content = _encode(block, simulate_block(block))
                with atomic_write(path, locked=True) as file:
                    file.write(content)
            return acquired
    except OSError as error:
        raise unwritable(directory, error) from error


def is_complete(path: Path, block: Block) -> bool:
    """Return whether `path` is the complete and undamaged file of `block`."""
    try:
        table = pq.read_table(path, page_checksum_verification=True, memory_map=False)
    except (OSError, pa.ArrowException):
        return False
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    return table.num_rows == block.jets and block.identity().items() <= metadata.items()


def ensure_writable(directory: Path) -> None:
    """Create `directory` and write a probe file; raise DataError if that fails."""
    probe = directory / _LOCKS / f"probe-{os.getpid()}"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"probe")
        probe.unlink()
    except OSError as error:
        raise unwritable(directory, error) from error


def unwritable(directory: Path, error: OSError) -> DataError:
    """Return the error for a directory that is full, read-only, or no directory."""
    return DataError(f"cannot write to {directory}: {error.strerror or error}; free disk space or give another --out")


def round_mantissa(values: Floats, bits: int) -> NDArray[np.float32]:
    """Round to `bits` binary digits after the leading one; integers below 2**(bits + 1) do not change."""
    fraction, exponent = np.frexp(values)
    rounded = np.ldexp(np.rint(np.ldexp(fraction, bits + 1)), exponent - bits - 1)
    return np.asarray(rounded, dtype=np.float32)


def _without_duplicates(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    _, first = np.unique(rows, axis=0, return_index=True)
    return rows[np.sort(first)]


def _encode(block: Block, rows: NDArray[np.float32]) -> pa.Buffer:
    """Return the content of a block's Parquet file, the same bytes for the same versions of the libraries."""
    columns = {name: rows[:, k] for k, name in enumerate(FEATURES)}
    columns["jet_type"] = pa.array([block.label] * len(rows))
    table = pa.table(columns)
    metadata = block.identity() | {f"jsc.version.{name}": found for name, found in versions().items()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        row_group_size=block.jets,
        version="2.6",
        data_page_version="2.0",
        compression="zstd",
        compression_level=9,
        use_dictionary=["jet_type"],
        column_encoding=dict.fromkeys(FEATURES, "BYTE_STREAM_SPLIT"),
        write_page_checksum=True,
        write_statistics=False,  # page checksums do not cover them, and nothing filters within a block
    )
    return sink.getvalue()

"""The cache of jets: one Parquet file per source, and a JSON manifest with its name and digest.

The manifest is replaced last and the name of its Parquet file contains the digest: after a crash the manifest refers
either to all the old jets or to all the new ones.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from jsc_explore.data.jets import CLASSES, FEATURES, Features, Labels, content_sha256
from jsc_explore.data.sources import SourceData, fetch_command, source_error
from jsc_explore.data.splits import first_occurrences
from jsc_explore.errors import DataError
from jsc_explore.files import atomic_write

SCHEMA = 2


@dataclass(frozen=True)
class Manifest:
    """The facts about a cached source that do not need its jets to be read.

    ``digest`` is the digest of the jets, part of every run id and checked when the file is read; ``download_sha256`` is
    that of the downloaded file; ``duplicates`` counts the rows that ``split`` drops and the file keeps.
    """

    schema: int
    source: str
    file: str
    url: str
    licence: str
    rows: int
    duplicates: int
    digest: str
    download_sha256: str
    created: str


def write(folder: Path, name: str, data: SourceData) -> Path:
    """Write checked jets to the cache, replacing those of the same source; return the path of the Parquet file.

    The caller holds the source's lock. If it raises, the cache is unchanged.
    """
    digest = content_sha256(data.features, data.labels)
    manifest = Manifest(
        schema=SCHEMA,
        source=name,
        file=f"{name}-{digest[:12]}.parquet",
        url=data.url,
        licence=data.licence,
        rows=len(data.labels),
        duplicates=int((~first_occurrences(data.features, data.labels)).sum()),
        digest=digest,
        download_sha256=data.sha256,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    path = folder / manifest.file
    text = json.dumps(asdict(manifest), indent=2) + "\n"
    with atomic_write(path, locked=True) as file:
        _write_parquet(file, data.features, data.labels)
    with atomic_write(_manifest_path(folder, name), locked=True) as file:
        file.write(text.encode())
    for old in folder.glob(f"{name}-*.parquet"):
        # The glob for simulated also matches the file of simulated-1M.
        if old != path and re.fullmatch(rf"{name}-[0-9a-f]{{12}}\.parquet", old.name):
            with suppress(OSError):  # a reader may have it open; the next fetch tries again
                old.unlink()
    return path


def read_manifest(folder: Path, name: str) -> Manifest:
    """Read the manifest of a source. Raises DataError if it is missing or invalid."""
    path = _manifest_path(folder, name)
    try:
        stored = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{name}: not in {folder} yet; run: {fetch_command(name)}") from None
    except (OSError, ValueError) as error:
        raise source_error(name, str(path), f"cannot be read ({type(error).__name__})") from error
    if not isinstance(stored, dict) or stored.get("schema") != SCHEMA or stored.get("source") != name:
        raise source_error(name, str(path), f"is not a manifest of {name}, schema {SCHEMA}")
    types = {field.name: int if field.type == "int" else str for field in fields(Manifest)}
    if set(stored) != set(types) or not all(isinstance(stored[key], kind) for key, kind in types.items()):
        raise source_error(name, str(path), "lacks fields or has fields of a wrong type")
    if Path(stored["file"]).name != stored["file"] or not (folder / stored["file"]).is_file():
        raise source_error(name, str(folder / Path(stored["file"]).name), "is missing")
    return Manifest(**stored)


def read(folder: Path, name: str) -> tuple[Manifest, Features, Labels]:
    """Read the jets of a source. Raises DataError if their digest is not the one in the manifest."""
    manifest = read_manifest(folder, name)
    path = folder / manifest.file
    features, labels = _read_parquet(path, name)
    # 0.1 s for a million jets; detects a damaged disk block as well as a file that was replaced by hand.
    if content_sha256(features, labels) != manifest.digest:
        raise source_error(name, str(path), "its digest differs from the one in its manifest")
    return manifest, features, labels


def check(name: str, file: str, features: Features, labels: Labels) -> None:
    """Raise DataError if there are no rows, or a feature is missing, NaN or infinite."""
    if not len(labels):
        raise source_error(name, file, "has no rows")
    finite = np.isfinite(features)
    if not finite.all():
        rows, columns = np.nonzero(~finite)
        what = f"{FEATURES[columns[0]]} is missing, NaN or infinite in row {rows[0]} ({len(rows)} such values)"
        raise source_error(name, file, what)


def _manifest_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _write_parquet(file: BinaryIO, features: Features, labels: Labels) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {name: features[:, column] for column, name in enumerate(FEATURES)}
    table = pa.table(columns | {"label": labels})
    parquet.write_table(
        table,
        file,
        compression="zstd",
        # Takes 2.6 s for 270,000 jets; the sample in the repository is downloaded more often than written.
        compression_level=19,
        use_dictionary=False,
        use_byte_stream_split=list(FEATURES),
    )


def _read_parquet(path: Path, name: str) -> tuple[Features, Labels]:
    import pyarrow as pa
    from pyarrow import parquet

    expected = pa.schema([(feature, pa.float32()) for feature in FEATURES] + [("label", pa.uint8())])
    try:
        table = parquet.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise source_error(name, str(path), f"cannot be read as Parquet ({type(error).__name__})") from error
    if not table.schema.equals(expected) or any(column.null_count for column in table.columns):
        raise source_error(name, str(path), f"does not have the columns of {name}")
    features = np.empty((len(table), len(FEATURES)), np.float32)
    for column, feature in enumerate(FEATURES):
        features[:, column] = _values(table[feature], np.float32)
    labels = _values(table["label"], np.uint8)
    if len(labels) and labels.max() >= len(CLASSES):
        raise source_error(name, str(path), f"has the label {labels.max()}, but there are only {len(CLASSES)} classes")
    return features, labels


def _values(column: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    """Return a column without nulls as an array, without pandas: Arrow's ``to_numpy`` imports it, which takes 40 MB."""
    chunks = [np.frombuffer(chunk.buffers()[1], dtype)[chunk.offset :][: len(chunk)] for chunk in column.chunks]
    return np.concatenate([np.empty(0, dtype), *chunks])


def recipe_path(folder: Path, name: str) -> Path:
    """Return the path of the recipe of a simulated sample."""
    return folder / f"{name}-recipe.json"


def read_recipe(folder: Path, name: str) -> dict[str, Any]:
    """Return how a sample was simulated: preset, seed, versions; empty for a download."""
    path = recipe_path(folder, name)
    try:
        return dict(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as error:
        raise source_error(name, str(path), f"cannot be read ({type(error).__name__})") from error

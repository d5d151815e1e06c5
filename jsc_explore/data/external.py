"""Read external jets from a Parquet file: the sixteen features, in original units or as levels, and a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jsc_explore.data.jets import CLASSES, FEATURES, Features, Labels
from jsc_explore.data.reference import LEVELS
from jsc_explore.errors import DataError

CLASS_COLUMNS = ("jet_type", "class", "label")
MIN_PER_CLASS = 20


@dataclass(frozen=True, eq=False)
class ExternalJets:
    """Jets to compare with: ``features (n, 16) float32``, ``labels (n,) uint8`` in the order of CLASSES.

    ``are_levels``: the features are integers, CERNBox's eleven levels, instead of original units.
    """

    features: Features
    labels: Labels
    are_levels: bool


def read_jets(path: Path) -> ExternalJets:
    """Read a file of jets. Raises DataError if it is not such a file or has too few jets of a class.

    The class is in a column ``jet_type``, ``class`` or ``label``, as name (g, q, w, z, t) or as index into CLASSES.
    If all features have an integer type, they are levels, 0 to 10.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.ParquetFile(path).read()
    except FileNotFoundError:
        raise DataError(f"{path}: the file does not exist; give the path of a Parquet file of jets") from None
    except (OSError, pa.ArrowException) as error:
        reason = getattr(error, "strerror", None) or "is not Parquet"
        raise _bad(path, f"cannot be read ({reason})", "give a Parquet file of jets") from error
    if missing := [name for name in FEATURES if name not in table.column_names]:
        raise _bad(path, f"lacks the column {', '.join(missing)}", "use the feature names of docs/data.md")
    if not table.num_rows:
        raise _bad(path, "has no rows", "give a file with jets in it")
    kinds = [table.schema.field(name).type for name in FEATURES]
    are_levels = all(pa.types.is_integer(kind) for kind in kinds)
    features = np.stack([_column(path, table, name) for name in FEATURES], axis=1)
    if are_levels and not 0 <= features.min() <= features.max() < LEVELS:
        found = f"{features.min():.0f} to {features.max():.0f}"
        raise _bad(path, f"has integers from {found}, which are not levels", f"levels are 0 to {LEVELS - 1}")
    labels = _labels(path, table)
    counts = np.bincount(labels, minlength=len(CLASSES))
    if counts.min() < MIN_PER_CLASS:
        few = f"has {counts.min()} jets of class {CLASSES[int(counts.argmin())]}"
        raise _bad(path, few, f"a comparison needs {MIN_PER_CLASS} of each class")
    return ExternalJets(features, labels, are_levels)


def _column(path: Path, table: Any, name: str) -> Features:
    import pyarrow as pa

    try:
        values = table[name].cast(pa.float32(), safe=False).to_numpy()
    except pa.ArrowException:
        raise _bad(path, f"{name} is {table.schema.field(name).type}", "features must be numbers") from None
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values))[0])
        raise _bad(path, f"{name} is missing, NaN or infinite in row {row}", "remove such rows")
    return np.asarray(values, np.float32)


def _labels(path: Path, table: Any) -> Labels:
    column = next((name for name in CLASS_COLUMNS if name in table.column_names), None)
    if column is None:
        raise _bad(path, f"lacks a class column ({', '.join(CLASS_COLUMNS)})", "add one with g, q, w, z or t")
    values = table[column].to_pylist()
    indices: dict[Any, int] = {name: index for index, name in enumerate(CLASSES)}
    indices |= {index: index for index in range(len(CLASSES))}
    if unknown := [value for value in dict.fromkeys(values) if value not in indices]:
        raise _bad(
            path, f"{column} has the value {unknown[0]!r}", f"classes are {', '.join(CLASSES)} or 0 to 4 in that order"
        )
    return np.array([indices[value] for value in values], np.uint8)


def _bad(path: Path, what: str, remedy: str) -> DataError:
    return DataError(f"{path}: {what}; {remedy}")

"""The OpenML release: JSON metadata and an ARFF text file, verified with the md5 in the metadata."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jsc_explore.data.download import download
from jsc_explore.data.jets import CLASSES, FEATURES, Features, Labels
from jsc_explore.data.sources import SourceData, base_url, source_error

NAME = "openml"
DATA_ID = 42468
ARFF = "hls4ml_lhc_jets_hlf.arff"

_FORMAT_CHANGED = "OpenML may have changed the file: use another source and report this message"
_ATTRIBUTE = re.compile(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+\S", re.IGNORECASE)
_QUOTES = "'\" "


def retrieve(folder: Path, progress: bool) -> SourceData:
    """Download the release into ``folder`` and read it. Raises DataError if it is unavailable or not as expected."""
    import pooch

    base = base_url("JSC_EXPLORE_OPENML_URL", "https://www.openml.org")
    metadata_file = folder / "metadata.json"
    download(NAME, f"{base}/api/v1/json/data/{DATA_ID}", metadata_file)
    metadata = _metadata(metadata_file)
    arff = folder / ARFF
    url = metadata["url"]
    download(NAME, url, arff, md5=metadata["md5_checksum"], progress=progress)
    features, labels = read_arff(arff, label=metadata.get("default_target_attribute") or "class")
    return SourceData(features, labels, url, str(metadata.get("licence") or "not stated"), pooch.file_hash(str(arff)))


def _metadata(path: Path) -> dict[str, Any]:
    try:
        description = json.loads(path.read_bytes())["data_set_description"]
        missing = [key for key in ("url", "md5_checksum") if not isinstance(description[key], str)]
    except (ValueError, KeyError, TypeError) as error:
        what = f"not the metadata expected, {type(error).__name__} {error}"
        raise source_error(NAME, path.name, what, _FORMAT_CHANGED) from error
    if missing:
        raise source_error(NAME, path.name, f"has no {missing[0]}", _FORMAT_CHANGED)
    return dict(description)


def read_arff(path: Path, label: str = "class") -> tuple[Features, Labels]:
    """Read the features and the class of every row, by column name: ``(n, 16) float32`` and ``(n,) uint8``.

    A missing value becomes NaN; the caller checks for it. Raises DataError if a column is missing, a value is not a
    number, or a class is unknown.
    """
    import pyarrow as pa
    from pyarrow import csv

    with path.open("rb") as file:
        columns = _header(path, file)
        _need_columns(path, columns, (*FEATURES, label))
        try:
            # A CSV reader, because ARFF readers loop over the 830,000 lines in Python.
            table = csv.read_csv(
                file,
                read_options=csv.ReadOptions(column_names=columns, block_size=1 << 24),
                parse_options=csv.ParseOptions(quote_char=False, invalid_row_handler=_skip_comment),
                convert_options=csv.ConvertOptions(
                    include_columns=[*FEATURES, label],
                    column_types={**dict.fromkeys(FEATURES, pa.float64()), label: pa.string()},
                    null_values=["?"],  # a missing value in ARFF
                    strings_can_be_null=True,
                ),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise source_error(NAME, path.name, str(error)) from error
    features = np.empty((len(table), len(FEATURES)), np.float32)
    with np.errstate(over="ignore"):
        for column, feature in enumerate(FEATURES):
            features[:, column] = table[feature].to_numpy()
    return features, _labels(path, table[label])


def _header(path: Path, file: BinaryIO) -> list[str]:
    """Read the attribute names up to the @data line; the file position is then the first row."""
    names: list[str] = []
    for line in iter(file.readline, b""):
        text = line.decode("utf-8", errors="replace").strip()
        if text.lower().startswith("@data"):
            return names
        if found := _ATTRIBUTE.match(text):
            names.append(found[1].strip(_QUOTES))
    raise source_error(NAME, path.name, "no @data line: not an ARFF file")


def _need_columns(path: Path, columns: list[str], needed: tuple[str, ...]) -> None:
    missing = [name for name in needed if columns.count(name) != 1]
    if missing:
        what = f"column {missing[0]} missing or repeated ({len(missing)} of {len(needed)} such)"
        raise source_error(NAME, path.name, what, _FORMAT_CHANGED)


def _skip_comment(row: Any) -> str:
    return "skip" if row.text.startswith("%") else "error"


def _labels(path: Path, column: Any) -> Labels:
    # By name, not by the file's order of classes, which is alphabetical with top in third place.
    encoded = column.combine_chunks().dictionary_encode()
    index = []
    for value in encoded.dictionary.to_pylist():
        name = value.strip(_QUOTES)
        if name not in CLASSES:
            raise source_error(NAME, path.name, f"unknown class {name!r}, not one of {', '.join(CLASSES)}")
        index.append(CLASSES.index(name))
    if encoded.null_count:
        raise source_error(NAME, path.name, f"no class in {encoded.null_count} rows")
    labels: Labels = np.array(index, np.uint8)[encoded.indices.to_numpy()]
    return labels

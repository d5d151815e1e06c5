"""The CERNBox release, which the lab uses: an HDF5 file with one compound data set, its columns read by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jsc_explore.data.download import download
from jsc_explore.data.jets import CLASSES, FEATURES, Features, Labels
from jsc_explore.data.sources import SOURCES, SourceData, base_url, source_error

NAME = "cernbox"
HDF5 = "processed-pythia82-lhc13-all-pt1-50k-r1_h022_e0175_t220_nonu_truth.z"
DATA_SET = "t_allpar_new"

_FORMAT_CHANGED = "the publisher may have changed the file: use another source and report this message"


def retrieve(folder: Path, progress: bool) -> SourceData:
    """Download the release into ``folder`` and read it. Raises DataError if it is unavailable or not as expected."""
    import pooch

    url = base_url("JSC_EXPLORE_CERNBOX_URL", "https://cernbox.cern.ch") + "/index.php/s/jvFd5MoWhGs1l5v/download"
    path = folder / HDF5
    # The publisher gives no checksum, so only the length that the server announces and the structure of the file are
    # verified. The sha256 of the download is recorded, so that two machines can compare theirs.
    download(NAME, url, path, progress=progress)
    features, labels = read_hdf5(path)
    return SourceData(features, labels, url, SOURCES[NAME].licence, pooch.file_hash(str(path)))


def read_hdf5(path: Path) -> tuple[Features, Labels]:
    """Read the ``j_`` features and the one-hot class of every row: ``(n, 16) float32`` and ``(n,) uint8``.

    NaN values are returned; the caller checks for them. Raises DataError if the file is truncated, the data set or a
    column is missing, or a row does not have exactly one class.
    """
    features = [f"j_{name}" for name in FEATURES]
    classes = [f"j_{name}" for name in CLASSES]
    table = _read_columns(path, [*features, *classes])
    values = np.empty((len(table), len(features)), np.float32)
    with np.errstate(over="ignore"):
        for column, name in enumerate(features):
            values[:, column] = table[name]
    one_hot = np.stack([table[name] for name in classes], axis=1)
    return values, _labels(path, one_hot)


def _read_columns(path: Path, columns: list[str]) -> np.ndarray[Any, np.dtype[Any]]:
    """Read only these fields of the many in the file, some of which are arrays of constituents."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file.get(DATA_SET)
            if not isinstance(data, h5py.Dataset) or not data.dtype.names or data.ndim != 1:
                raise source_error(NAME, path.name, f"has no table {DATA_SET}", _FORMAT_CHANGED)
            unusable = [name for name in columns if not _is_number(data.dtype, name)]
            if unusable:
                what = f"column {unusable[0]} missing or not a number ({len(unusable)} of {len(columns)} such)"
                raise source_error(NAME, path.name, what, _FORMAT_CHANGED)
            return np.asarray(data.fields(columns)[:])
    except (OSError, RuntimeError) as error:  # raised by h5py for a truncated file or a missing filter
        raise source_error(NAME, path.name, f"not a complete HDF5 file ({error})") from error


def _is_number(table: np.dtype[Any], column: str) -> bool:
    return column in (table.names or ()) and table[column].shape == () and table[column].kind in "fiub"


def _labels(path: Path, one_hot: np.ndarray[Any, np.dtype[Any]]) -> Labels:
    # Without this check argmax would make a gluon of a row of zeros, a jet of unknown class.
    wrong = np.flatnonzero((one_hot != 0).sum(axis=1) != 1)
    wrong = wrong if len(wrong) else np.flatnonzero(one_hot.max(axis=1, initial=0) != 1)
    if len(wrong):
        what = f"unknown class in {len(wrong)} rows, first row {wrong[0]}: not exactly one of j_{', j_'.join(CLASSES)}"
        raise source_error(NAME, path.name, what)
    labels: Labels = one_hot.argmax(axis=1).astype(np.uint8)
    return labels

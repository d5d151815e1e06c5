"""The CERNBox release, the one the lab uses: one HDF5 file with a compound data set, read column by name."""

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

_CHANGED = "the publisher may have changed it: use another source and report this line"


def retrieve(folder: Path, progress: bool) -> SourceData:
    """Download into ``folder`` and read; DataError when the release cannot be had or is not what it should be."""
    import pooch

    url = base_url("JSC_EXPLORE_CERNBOX_URL", "https://cernbox.cern.ch") + "/index.php/s/jvFd5MoWhGs1l5v/download"
    path = folder / HDF5
    # Its publisher states no checksum and we have none to pin: the length the server announces and the file's own
    # structure are all that is verified. The sha256 of what came is recorded on the first fetch, so that two machines
    # can at least compare.
    download(NAME, url, path, progress=progress)
    features, labels = read_hdf5(path)
    return SourceData(features, labels, url, SOURCES[NAME].licence, pooch.file_hash(str(path)))


def read_hdf5(path: Path) -> tuple[Features, Labels]:
    """Read ``j_``-prefixed features and the one-hot class of every row.

    Returns ``(n, 16) float32`` and ``(n,) uint8``; NaN is left for the caller to refuse. Raises DataError when the
    file is cut short, the data set or a column is missing, or a row has not exactly one class.
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
    """Read these fields alone: the file has many more, some of them arrays of constituents."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            data = file.get(DATA_SET)
            if not isinstance(data, h5py.Dataset) or not data.dtype.names or data.ndim != 1:
                raise source_error(NAME, path.name, f"no table {DATA_SET} in it", _CHANGED)
            unfit = [name for name in columns if not _is_number(data.dtype, name)]
            if unfit:
                what = f"column {unfit[0]} missing or not a number ({len(unfit)} of {len(columns)} such)"
                raise source_error(NAME, path.name, what, _CHANGED)
            return np.asarray(data.fields(columns)[:])
    except (OSError, RuntimeError) as error:  # h5py's words for a torn file, and for a filter it has not
        raise source_error(NAME, path.name, f"not a whole HDF5 file ({error})") from error


def _is_number(table: np.dtype[Any], column: str) -> bool:
    return column in (table.names or ()) and table[column].shape == () and table[column].kind in "fiub"


def _labels(path: Path, one_hot: np.ndarray[Any, np.dtype[Any]]) -> Labels:
    # Without the check a row of zeros, a jet of no known origin, would pass for a gluon under argmax.
    wrong = np.flatnonzero((one_hot != 0).sum(axis=1) != 1)
    wrong = wrong if len(wrong) else np.flatnonzero(one_hot.max(axis=1, initial=0) != 1)
    if len(wrong):
        what = f"unknown class in {len(wrong)} rows, first row {wrong[0]}: not one of j_{', j_'.join(CLASSES)} alone"
        raise source_error(NAME, path.name, what)
    labels: Labels = one_hot.argmax(axis=1).astype(np.uint8)
    return labels

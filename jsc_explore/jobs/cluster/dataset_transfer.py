"""Jets on a machine that may not have them: from its own source, or as a parcel that the engine sent, once."""

from __future__ import annotations

import json
import logging
import os
import tempfile
from dataclasses import asdict
from pathlib import Path

from jsc_explore import data
from jsc_explore.data import Jets, Split
from jsc_explore.errors import DataError, JscError
from jsc_explore.files import atomic_write

log = logging.getLogger("jsc_explore.worker")
# Names what the process that workers are forked from loads for all of them: a source and a validation, as JSON.
PRELOAD = "JSC_EXPLORE_PRELOAD"
# Splits loaded before this process was forked, by digest and validation: every worker sees the same memory.
_preloaded: dict[tuple[str, str], Split] = {}
# Folders of parcels that the cache could not take, by digest, for as long as this process lives.
_passing: dict[str, Path] = {}


class AbsentError(Exception):
    """The jets of the wanted digest are not on this machine."""


def jets_of(dataset: str, digest: str) -> Jets:
    """Return the jets of this digest, which they are checked against; AbsentError where there are none."""
    for folder in (None, _received(digest)):
        try:
            if data.digest(dataset, cache=folder) == digest:
                return data.load(dataset, cache=folder)
        except DataError as error:
            log.debug("%s", error)
    raise AbsentError(f"{dataset}: no jets of digest {digest[:12]} here")


def split_of(dataset: str, validation: str, digest: str) -> Split:
    """Return the jets of this digest, split; AbsentError where there are none."""
    return _preloaded.get((digest, validation)) or data.split(jets_of(dataset, digest), validation)


def preload() -> None:
    """Load what $JSC_EXPLORE_PRELOAD names, if it is on this machine, for the processes that are forked from this."""
    dataset, validation = json.loads(os.environ.get(PRELOAD, '["", ""]'))
    if dataset:
        try:
            split = data.split(data.load(dataset), validation)
            _preloaded[split.digest, validation] = split
        except JscError as error:
            log.debug("%s", error)  # a run that needs them will tell


def wrap(dataset: str) -> tuple[str, bytes]:
    """Return the parcel of a source on this machine: its manifest and its Parquet file."""
    path, manifest = data.locate(dataset)
    return json.dumps(asdict(manifest)), path.read_bytes()


def receive(dataset: str, digest: str, manifest: str, content: bytes) -> None:
    """Put a parcel into this machine's cache, apart from its own sources; DataError if it is not what was promised."""
    known = json.loads(manifest)
    if known["digest"] != digest or known["source"] != dataset or Path(known["file"]).name != known["file"]:
        raise DataError(f"{dataset}: a parcel of {known['source']}, digest {known['digest'][:12]}, not {digest[:12]}")
    try:
        _unpack(_received(digest), dataset, known["file"], manifest, content)
    except OSError as error:
        # A machine without a disk of its own still has memory, which most temporary folders are in.
        log.warning("%s: cannot be kept in the cache (%s), only until this worker ends", dataset, error)
        _passing[digest] = Path(tempfile.mkdtemp(prefix="jsc-explore-"))
        _unpack(_passing[digest], dataset, known["file"], manifest, content)
    jets_of(dataset, digest)


def _unpack(folder: Path, dataset: str, file: str, manifest: str, content: bytes) -> None:
    """Write the file, then the manifest that vouches for it, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((file, content), (f"{dataset}.json", manifest.encode())):
        with atomic_write(folder / name, durable=False) as output:
            output.write(text)


def _received(digest: str) -> Path:
    return _passing.get(digest) or data.cache_dir() / "received" / digest

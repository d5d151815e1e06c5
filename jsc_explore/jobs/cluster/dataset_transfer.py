"""Data transfer: load jets on a worker's machine, from its own source or from files that the engine sent once."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

from jsc_explore import data
from jsc_explore.data import Jets, Split
from jsc_explore.errors import DataError, JscError
from jsc_explore.files import atomic_write

log = logging.getLogger("jsc_explore.worker")
# Splits loaded before this process was forked, by digest and validation: all workers share their memory.
_preloaded: dict[tuple[str, str], Split] = {}
# Temporary folders of received files, by digest, where the cache is not writable.
_temporary: dict[str, Path] = {}


class MissingDataError(Exception):
    """The jets with the wanted digest are not on this machine."""


def load_jets(dataset: str, digest: str) -> Jets:
    """Return the jets with this digest, verified; MissingDataError if this machine has none."""
    for folder in (None, _received(digest)):
        try:
            if data.digest(dataset, cache=folder) == digest:
                return data.load(dataset, cache=folder)
        except DataError as error:
            log.debug("%s", error)
    raise MissingDataError(f"{dataset}: no jets with digest {digest[:12]} on this machine")


def load_split(dataset: str, validation: str, digest: str) -> Split:
    """Return the jets with this digest, split; MissingDataError if this machine has none."""
    return _preloaded.get((digest, validation)) or data.split(load_jets(dataset, digest), validation)


def preload(dataset: str, validation: str) -> None:
    """Load this split for the processes that are forked from this one."""
    try:
        split = data.split(data.load(dataset), validation)
        _preloaded[split.digest, validation] = split
    except JscError as error:
        log.debug("%s", error)  # A run that needs these jets reports the error.


def read_files(dataset: str) -> tuple[str, bytes]:
    """Return a data set of this machine as its manifest (JSON) and the content of its Parquet file."""
    path, manifest = data.locate(dataset)
    return json.dumps(asdict(manifest)), path.read_bytes()


def receive(dataset: str, digest: str, manifest: str, content: bytes) -> None:
    """Write a data set sent by the engine into the cache, apart from this machine's own data.

    Raises DataError if manifest or content do not have this digest.
    """
    entry = json.loads(manifest)
    if entry["digest"] != digest or entry["source"] != dataset or Path(entry["file"]).name != entry["file"]:
        raise DataError(
            f"{dataset}: received {entry['source']} with digest {entry['digest'][:12]}, expected {digest[:12]}"
        )
    try:
        _write(_received(digest), dataset, entry["file"], manifest, content)
    except OSError as error:
        # A machine without a writable disk still has temporary folders, mostly in memory.
        log.warning("%s: cannot be written into the cache (%s); kept until this worker ends", dataset, error)
        _temporary[digest] = Path(tempfile.mkdtemp(prefix="jsc-explore-"))
        _write(_temporary[digest], dataset, entry["file"], manifest, content)
    load_jets(dataset, digest)


def _write(folder: Path, dataset: str, file: str, manifest: str, content: bytes) -> None:
    """Write the file, then the manifest that describes it, each atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((file, content), (f"{dataset}.json", manifest.encode())):
        with atomic_write(folder / name, durable=False) as output:
            output.write(text)


def _received(digest: str) -> Path:
    return _temporary.get(digest) or data.cache_dir() / "received" / digest

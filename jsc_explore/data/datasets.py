"""Fetch, identify and load the jets of a source; other packages use the cache only through these functions."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jsc_explore.data import cache as jet_cache
from jsc_explore.data import cernbox, openml
from jsc_explore.data.jets import Jets
from jsc_explore.data.sources import SHIPPED, SOURCES, SourceData, find_source, is_user_sample, source_error
from jsc_explore.errors import DataError
from jsc_explore.files import file_lock
from jsc_explore.paths import cache_dir


def fetch(name: str, *, cache: Path | None = None, progress: bool = True, force: bool = False) -> Path:
    """Download a source to the cache unless it is there and intact; return its Parquet file.

    A source that is part of the project or was simulated here is only checked. ``force`` downloads in any case. If
    several processes fetch the same source, one downloads. ``progress`` draws a bar on stderr if that is a terminal.
    Raises FieldError for an unknown name, DataError if the source is not available; the cache is unchanged then.
    """
    folder = _folder(name, cache)
    if find_source(name).shipped or find_source(name).user_made:
        return folder / jet_cache.read(folder, name)[0].file
    if not force and (path := _cached_file(folder, name)):
        return path  # without the lock, so that a cache on a read-only disk works
    try:
        with locked(folder, name):
            if not force and (path := _cached_file(folder, name)):
                return path
            with _download_folder(folder, name) as download_folder:
                content = _RETRIEVE[name](download_folder, progress)
            jet_cache.check(name, content.url, content.features, content.labels)
            return jet_cache.write(folder, name, content)
    except OSError as error:
        remedy = "set JSC_EXPLORE_CACHE to a writable folder with enough space"
        raise source_error(name, str(folder), f"cannot be written ({error.strerror or error})", remedy) from error


def digest(name: str, *, cache: Path | None = None) -> str:
    """Return the digest of the source's jets, which is part of every run id, from the manifest alone.

    Raises FieldError for an unknown name, DataError if the source has not been fetched.
    """
    return jet_cache.read_manifest(_folder(name, cache), name).digest


def size(name: str, *, cache: Path | None = None) -> int:
    """Return the number of the source's jets from the manifest alone; raises as ``digest`` does."""
    return jet_cache.read_manifest(_folder(name, cache), name).rows


def names(*, cache: Path | None = None) -> tuple[str, ...]:
    """Return the names of all sources: the built-in ones, then the user's samples in the cache."""
    found = sorted(path.stem for path in (cache or cache_dir()).glob("simulated-*.json") if is_user_sample(path.stem))
    return (*SOURCES, *(name for name in found if is_available(name, cache=cache)))


def locate(name: str, *, cache: Path | None = None) -> tuple[Path, jet_cache.Manifest]:
    """Return the source's Parquet file and its manifest; raises as ``digest`` does."""
    folder = _folder(name, cache)
    manifest = jet_cache.read_manifest(folder, name)
    return folder / manifest.file, manifest


def recipe(name: str, *, cache: Path | None = None) -> dict[str, Any]:
    """Return how the source was simulated: preset, seed, versions; empty for a download.

    Raises FieldError for an unknown name, DataError if the recipe file cannot be read.
    """
    return jet_cache.read_recipe(_folder(name, cache), name)


def is_available(name: str, *, cache: Path | None = None) -> bool:
    """Return whether ``load`` works without a download; always true for ``simulated``."""
    try:
        digest(name, cache=cache)
    except DataError:
        return False
    return True


def load(name: str, *, cache: Path | None = None) -> Jets:
    """Read all jets of the source, in its order; never downloads.

    Raises DataError, which names the command to fetch the source, and FieldError for an unknown name.
    """
    manifest, features, labels = jet_cache.read(_folder(name, cache), name)
    return Jets(name, features, labels, manifest.digest)


def _folder(name: str, cache: Path | None) -> Path:
    return SHIPPED if find_source(name).shipped else cache or cache_dir()


def _cached_file(folder: Path, name: str) -> Path | None:
    """Return the cached file if it exists and is intact."""
    with suppress(DataError):
        return folder / jet_cache.read(folder, name)[0].file
    return None


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the source's lock in a cache folder, created if needed, so that one process at a time replaces its files."""
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / f"{name}.lock", exclusive=True, timeout=math.inf):
        yield


@contextmanager
def _download_folder(folder: Path, name: str) -> Iterator[Path]:
    """Create an empty folder for downloads and delete it at the end; the caller holds the lock.

    Its name is fixed, so that the next process deletes what a killed one left.
    """
    path = folder / f"{name}.download"
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


_RETRIEVE: dict[str, Callable[[Path, bool], SourceData]] = {"openml": openml.retrieve, "cernbox": cernbox.retrieve}

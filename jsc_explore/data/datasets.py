"""Fetch, identify and load a source: the one door between the cache and the other rooms."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jsc_explore.data import cache as canonical
from jsc_explore.data import cernbox, openml
from jsc_explore.data.jets import Jets
from jsc_explore.data.sources import SHIPPED, SOURCES, SourceData, find_source, is_user_sample, source_error
from jsc_explore.errors import DataError
from jsc_explore.files import file_lock
from jsc_explore.paths import cache_dir


def fetch(name: str, *, cache: Path | None = None, progress: bool = True, force: bool = False) -> Path:
    """Make sure the source is at hand, whole, and return its Parquet file.

    A source that comes with the project or was simulated here is only checked. Of the others, what is there and whole
    is left alone unless ``force``; what is torn is replaced. Two processes that fetch at once do it once. ``progress``
    draws a bar on stderr, where that is a terminal. Raises FieldError for an unknown name, DataError when the source
    cannot be had; what was cached before then stays as it was.
    """
    folder = _folder(name, cache)
    if find_source(name).shipped or find_source(name).own:
        return folder / canonical.read(folder, name)[0].file
    if not force and (path := _cached_file(folder, name)):
        return path  # without the lock, so that a cache on a read-only disk serves
    try:
        with locked(folder, name):
            if not force and (path := _cached_file(folder, name)):
                return path
            with _download_folder(folder, name) as bench:
                release = _RETRIEVE[name](bench, progress)
            canonical.check(name, release.url, release.features, release.labels)
            return canonical.write(folder, name, release)
    except OSError as error:
        remedy = "set JSC_EXPLORE_CACHE to a folder with room where you may write"
        raise source_error(name, str(folder), f"cannot be written ({error.strerror or error})", remedy) from error


def digest(name: str, *, cache: Path | None = None) -> str:
    """Return the identity of the source's jets, which every run id contains, without reading a jet.

    Raises FieldError for an unknown name, DataError when a download has not been fetched.
    """
    return canonical.read_manifest(_folder(name, cache), name).digest


def size(name: str, *, cache: Path | None = None) -> int:
    """Return the count of the source's jets, without reading one; raises as ``digest`` does."""
    return canonical.read_manifest(_folder(name, cache), name).rows


def names(*, cache: Path | None = None) -> tuple[str, ...]:
    """Return the sources there are: those of the project, then the samples of one's own in the cache."""
    found = sorted(path.stem for path in (cache or cache_dir()).glob("simulated-*.json") if is_user_sample(path.stem))
    return (*SOURCES, *(name for name in found if is_available(name, cache=cache)))


def locate(name: str, *, cache: Path | None = None) -> tuple[Path, canonical.Manifest]:
    """Return the source's Parquet file and its manifest, without reading a jet; raises as ``digest`` does."""
    folder = _folder(name, cache)
    manifest = canonical.read_manifest(folder, name)
    return folder / manifest.file, manifest


def recipe(name: str, *, cache: Path | None = None) -> dict[str, Any]:
    """Return what the source was simulated with: preset, seed, versions; empty for a download.

    Raises FieldError for an unknown name, DataError when the file beside the jets cannot be read.
    """
    return canonical.read_recipe(_folder(name, cache), name)


def is_available(name: str, *, cache: Path | None = None) -> bool:
    """Say whether ``load`` would answer without a download; always true of what comes with the project."""
    try:
        digest(name, cache=cache)
    except DataError:
        return False
    return True


def load(name: str, *, cache: Path | None = None) -> Jets:
    """Read every jet of the source, in its order.

    A download is never started from here: DataError says how to fetch. FieldError for an unknown name.
    """
    manifest, features, labels = canonical.read(_folder(name, cache), name)
    return Jets(name, features, labels, manifest.digest)


def _folder(name: str, cache: Path | None) -> Path:
    return SHIPPED if find_source(name).shipped else cache or cache_dir()


def _cached_file(folder: Path, name: str) -> Path | None:
    """Return the cached file if it is there and unharmed."""
    with suppress(DataError):
        return folder / canonical.read(folder, name)[0].file
    return None


@contextmanager
def locked(folder: Path, name: str) -> Iterator[None]:
    """Hold the source's lock in a cache folder, made if need be: one process at a time replaces its files."""
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / f"{name}.lock", exclusive=True, timeout=math.inf):
        yield


@contextmanager
def _download_folder(folder: Path, name: str) -> Iterator[Path]:
    """Lend a folder for downloads, empty at the start and gone at the end; the caller holds the lock.

    Its name is fixed, so that what a killed process left is cleared by the next.
    """
    bench = folder / f"{name}.download"
    shutil.rmtree(bench, ignore_errors=True)
    bench.mkdir()
    try:
        yield bench
    finally:
        shutil.rmtree(bench, ignore_errors=True)


_RETRIEVE: dict[str, Callable[[Path, bool], SourceData]] = {
    "openml": openml.retrieve,
    "cernbox": cernbox.retrieve,
}

"""The sources of jets: name, origin, licence and size of each, and the naming of samples that users simulate."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from jsc_explore.config import FIELDS, USER_SAMPLE
from jsc_explore.data.jets import Features, Labels
from jsc_explore.errors import DataError, FieldError

# The jets in the repository, in the form of a cached download.
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class Source:
    """One release of jets.

    Attributes
    ----------
    name: the name on the command line, in configs and in the cache.
    title: a one-line description.
    rows: number of jets published, duplicates included; 0 for a user sample, whose manifest has the number.
    url: a page about it; empty if it is part of the project.
    licence: as the publisher states it; the manifest has the licence in the metadata at the time of the download.
    shipped: True if it is in the repository.
    user_made: True for a sample that the user simulated, ``simulated-NAME``.
    """

    name: str
    title: str
    rows: int
    url: str
    licence: str
    shipped: bool = False
    user_made: bool = False


@dataclass(frozen=True, eq=False)
class SourceData:
    """The jets of a source before they are cached, with their origin.

    ``features`` is ``(n, 16) float32``, ``labels`` ``(n,) uint8``, indices into ``CLASSES``; ``sha256`` is that of the
    downloaded file, empty if there was none.
    """

    features: Features
    labels: Labels
    url: str
    licence: str
    sha256: str


def _shipped_rows() -> int:
    return int(json.loads((SHIPPED / "simulated.json").read_bytes())["rows"])


_ALL = (
    Source(
        name="simulated",
        title="Jets simulated from first principles, like those of CERNBox; part of this project",
        rows=_shipped_rows(),
        url="",
        licence="MIT",
        shipped=True,
    ),
    Source(
        name="openml",
        title="OpenML 42468, hls4ml_lhc_jets_hlf: the release most papers use",
        rows=830_000,
        url="https://www.openml.org/d/42468",
        licence="as stated by OpenML",
    ),
    Source(
        name="cernbox",
        title="CERNBox, pythia82-lhc13 all-pt1-50k: the release the lab uses; accuracies are a point lower on it",
        rows=986_806,
        url="https://cernbox.cern.ch/index.php/s/jvFd5MoWhGs1l5v",
        licence="not stated by the publisher",
    ),
)
SOURCES: Mapping[str, Source] = MappingProxyType({source.name: source for source in _ALL})


def find_source(name: str) -> Source:
    """Return the source of this name, fetched or not. Raises FieldError for a name that no source can have."""
    if is_user_sample(name):
        return Source(name, "A sample that was simulated here", rows=0, url="", licence="MIT", user_made=True)
    try:
        return SOURCES[name]
    except (KeyError, TypeError):
        rule = f"must be one of {FIELDS['dataset'].choices_text}"
        raise FieldError("dataset", name, rule, "try 'simulated', which needs no download") from None


def is_user_sample(name: str) -> bool:
    """Return whether this is the name of a user sample, which ``data simulate --name`` makes."""
    return isinstance(name, str) and re.fullmatch(USER_SAMPLE, name) is not None


def fetch_command(name: str) -> str:
    """Return the command that puts a source into the cache."""
    if not is_user_sample(name):
        return f"jsc-explore data fetch {name}"
    suffix = name.removeprefix("simulated-")
    preset = " --preset openml" if "openml" in suffix else ""
    return f"jsc-explore data simulate --name {suffix} --jets 1000000{preset}"


def source_error(name: str, file: str, what: str, remedy: str | None = None) -> DataError:
    """Return a one-line error with the source, its file, what is wrong, and what to do."""
    # Messages of other libraries may have several lines.
    what = " ".join(what.split())
    return DataError(f"{name}: {file}: {what}; {remedy or f'run: {fetch_command(name)}'}")


def base_url(variable: str, default: str) -> str:
    """Return the base URL of a download: that of a mirror if the environment variable gives one."""
    return (os.environ.get(variable) or default).rstrip("/")

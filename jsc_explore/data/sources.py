"""The sources of jets: what each is, where it comes from, how many jets it holds; and samples of one's own."""

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

# The jets that come with the project, in the same form as a cached download.
SHIPPED = Path(__file__).parent / "shipped"


@dataclass(frozen=True)
class Source:
    """One release of jets.

    Attributes
    ----------
    name: the key by which the command line, the configs and the cache know it.
    title: one line for a person.
    rows: jets published, before duplicates are dropped; 0 for a sample of one's own, whose manifest counts them.
    url: where a person can read about it; empty when it comes with the project.
    licence: as the publisher states it; the manifest keeps what the publisher's own metadata said on the day.
    shipped: True when it comes with the project.
    own: True for a sample that was simulated here, ``simulated-NAME``.
    """

    name: str
    title: str
    rows: int
    url: str
    licence: str
    shipped: bool = False
    own: bool = False


@dataclass(frozen=True, eq=False)
class SourceData:
    """What a source delivered: jets in order, and where they came from.

    ``features`` is ``(n, 16) float32``, ``labels`` ``(n,) uint8`` in the order of ``CLASSES``; ``sha256`` is that of
    the file downloaded, empty when there was none.
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
        title="Jets simulated from first principles, like those of CERNBox; they come with the project",
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
        title="CERNBox, pythia82-lhc13 all-pt1-50k: the release the lab uses; models metric a point lower on it",
        rows=986_806,
        url="https://cernbox.cern.ch/index.php/s/jvFd5MoWhGs1l5v",
        licence="not stated by the publisher",
    ),
)
SOURCES: Mapping[str, Source] = MappingProxyType({source.name: source for source in _ALL})


def find_source(name: str) -> Source:
    """Return the source of that name, there or not; FieldError names the choices when there can be none."""
    if is_user_sample(name):
        return Source(name, "Jets simulated here, a sample of one's own", rows=0, url="", licence="MIT", own=True)
    try:
        return SOURCES[name]
    except (KeyError, TypeError):
        rule = f"must be one of {FIELDS['dataset'].choices_text}"
        raise FieldError("dataset", name, rule, "try 'simulated', which needs no download") from None


def is_user_sample(name: str) -> bool:
    """Whether a source of that name is a sample of one's own, made by ``data simulate --name``."""
    return isinstance(name, str) and re.fullmatch(USER_SAMPLE, name) is not None


def fetch_command(name: str) -> str:
    """Return the command that brings a source into the cache."""
    if not is_user_sample(name):
        return f"jsc-explore data fetch {name}"
    short = name.removeprefix("simulated-")
    preset = " --preset openml" if "openml" in short else ""
    return f"jsc-explore data simulate --name {short} --jets 1000000{preset}"


def source_error(name: str, file: str, what: str, remedy: str | None = None) -> DataError:
    """Build the one line that says which file of which source is wrong, and what to do."""
    # Foreign libraries like to explain themselves over several lines.
    what = " ".join(what.split())
    return DataError(f"{name}: {file}: {what}; {remedy or f'run: {fetch_command(name)}'}")


def base_url(variable: str, default: str) -> str:
    """Return the address a download starts from, which a mirror's may replace through the environment."""
    return (os.environ.get(variable) or default).rstrip("/")

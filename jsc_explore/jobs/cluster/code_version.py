"""Code version: a worker whose training code differs from the engine's gets no work."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jsc_explore import __version__
from jsc_explore.config import RECIPE_VERSION
from jsc_explore.paths import PACKAGE

# The sources that determine how a run is trained; a worker imports neither pages, store nor charts. A pattern without
# a match is an error: after a move of files the digest would silently cover less.
_SOURCES = (
    "config.py", "network.py", "results.py", "data/**/*.py", "data/shipped/*.json", "training/**/*.py",
    "jobs/worker.py", "jobs/cluster/worker.py", "jobs/cluster/dataset_transfer.py",
)  # fmt: skip


def source_files() -> list[Path]:
    """Return the hashed files, sorted; FileNotFoundError if a pattern matches none."""
    matched = {pattern: set(PACKAGE.glob(pattern)) for pattern in _SOURCES}
    if missing := [pattern for pattern, paths in matched.items() if not paths]:
        raise FileNotFoundError(f"no source matches {', '.join(missing)} in {PACKAGE}")
    return sorted(set.union(*matched.values()))


@dataclass(frozen=True)
class CodeVersion:
    """Package version, recipe version, and digest of the training code and the shipped jets."""

    version: str
    recipe_version: int
    digest: str

    @classmethod
    @lru_cache(maxsize=1)
    def own(cls) -> CodeVersion:
        """Return the code version of this process."""
        sha = hashlib.sha256()
        for path in source_files():
            sha.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
        return cls(__version__, RECIPE_VERSION, sha.hexdigest())

    def difference(self, other: CodeVersion) -> str:
        """Describe how a worker's version ``other`` differs from this one of the engine; empty if it does not."""
        if other.version != self.version:
            return f"has jsc-explore {other.version}, the engine has {self.version}"
        if other.recipe_version != self.recipe_version:
            return f"trains by recipe version {other.recipe_version}, the engine by {self.recipe_version}"
        if other.digest != self.digest:
            mine, theirs = self.digest[:8], other.digest[:8]
            return f"has other files of jsc-explore {self.version} ({theirs}) than the engine ({mine})"
        return ""

"""Which project a process runs: a worker that would train by another recipe is not given work."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from jsc_explore import __version__
from jsc_explore.config import RECIPE_VERSION
from jsc_explore.paths import PACKAGE

# The sources that decide how a run is trained; a worker imports neither pages, store nor charts. A pattern that matches
# nothing is an error: after a move the digest would silently cover less.
_SOURCES = (
    "config.py", "network.py", "results.py", "data/**/*.py", "data/shipped/*.json", "training/**/*.py",
    "jobs/cluster/worker.py", "jobs/cluster/dataset_transfer.py",
)  # fmt: skip


def source_files() -> list[Path]:
    """Return the hashed files, sorted; FileNotFoundError if a pattern matches none."""
    matched = {pattern: set(PACKAGE.glob(pattern)) for pattern in _SOURCES}
    if missing := [pattern for pattern, paths in matched.items() if not paths]:
        raise FileNotFoundError(f"no source matches {', '.join(missing)} in {PACKAGE}")
    return sorted(set.union(*matched.values()))


@dataclass(frozen=True)
class CodeVersion:
    """Version, recipe and digest of the code (and of the shipped jets) that decide how a run is trained."""

    version: str
    recipe: int
    digest: str

    @classmethod
    @lru_cache(maxsize=1)
    def own(cls) -> CodeVersion:
        """Return that of this process."""
        sha = hashlib.sha256()
        for path in source_files():
            sha.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0" + path.read_bytes())
        return cls(__version__, RECIPE_VERSION, sha.hexdigest())

    def difference(self, other: CodeVersion) -> str:
        """Say in a few words how another differs from this one; empty if it does not."""
        if other.version != self.version:
            return f"has jsc-explore {other.version}, the engine {self.version}"
        if other.recipe != self.recipe:
            return f"trains by recipe {other.recipe}, the engine by {self.recipe}"
        if other.digest != self.digest:
            mine, theirs = self.digest[:8], other.digest[:8]
            return f"has other files of jsc-explore {self.version} ({theirs}) than the engine ({mine})"
        return ""

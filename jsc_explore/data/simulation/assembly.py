"""Join blocks into the sample that comes with the project: balanced, shuffled, rounded, its recipe beside it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from jsc_explore.data import canonical
from jsc_explore.data.jets import CLASSES, FEATURES, Features, Labels
from jsc_explore.data.simulation.blocks import round_mantissa
from jsc_explore.data.sources import Release
from jsc_explore.data.splits import first_occurrences
from jsc_explore.errors import DataError

# Twelve binary digits are 1.2e-4 relative, far below the detector's resolution; docs/decisions.md has the accuracies.
SHIPPED_MANTISSA_BITS = 12
_SHUFFLE_SEED = 42


def assemble(blocks: Sequence[Path], folder: Path, name: str = "simulated") -> Path:
    """Write the jets of these blocks to ``folder`` as a source called ``name``; return the Parquet file.

    Classes are cut to the size of the smallest, duplicate rows left out, rows shuffled with a fixed seed. Beside it
    lies ``NAME-recipe.json``: preset, seed, versions, count of blocks. DataError if the blocks are of several recipes.
    """
    features, labels, recipe = _read(blocks)
    features = round_mantissa(features.astype(np.float64), SHIPPED_MANTISSA_BITS)
    kept = first_occurrences(features, labels)
    features, labels = _balanced(features[kept], labels[kept])
    order = np.random.default_rng(_SHUFFLE_SEED).permutation(len(labels))
    folder.mkdir(parents=True, exist_ok=True)
    release = Release(np.ascontiguousarray(features[order]), labels[order], url="", licence="MIT", sha256="")
    canonical.check(name, str(folder), release.features, release.labels)
    path = canonical.write(folder, name, release)
    recipe |= {"jets": len(labels), "blocks": len(blocks), "mantissa_bits": SHIPPED_MANTISSA_BITS}
    (folder / f"{name}-recipe.json").write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    return path


def _read(blocks: Sequence[Path]) -> tuple[Features, Labels, dict[str, Any]]:
    features, labels, recipes = [], [], Counter[str]()
    for path in sorted(blocks):
        table = pq.read_table(path)
        said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        features.append(np.stack([table[name].to_numpy() for name in FEATURES], axis=1))
        labels.append(np.full(table.num_rows, CLASSES.index(said["jsc.class"]), np.uint8))
        own = {k.removeprefix("jsc."): v for k, v in said.items() if k.startswith("jsc.")}
        recipes[json.dumps({k: v for k, v in own.items() if k not in ("class", "block", "jets")}, sort_keys=True)] += 1
    if len(recipes) != 1:
        raise DataError(f"blocks of {len(recipes)} recipes cannot be one sample; simulate into a directory of its own")
    return np.concatenate(features), np.concatenate(labels), dict(json.loads(next(iter(recipes))))


def _balanced(features: Features, labels: Labels) -> tuple[Features, Labels]:
    per_class = min(np.bincount(labels, minlength=len(CLASSES)))
    rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:per_class] for k in range(len(CLASSES))]))
    return features[rows], labels[rows]

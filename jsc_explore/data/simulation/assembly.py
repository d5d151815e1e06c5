"""Join blocks into a sample: balanced, shuffled, rounded, its recipe beside it; and take such a sample apart again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from jsc_explore.data import cache
from jsc_explore.data.jets import CLASSES, FEATURES, Features, Labels
from jsc_explore.data.simulation.blocks import JETS_PER_BLOCK, Block, round_mantissa
from jsc_explore.data.sources import SourceData
from jsc_explore.data.splits import first_occurrences
from jsc_explore.errors import DataError
from jsc_explore.files import atomic_write

# Twelve binary digits are 1.2e-4 relative, far below the detector resolution; see docs/decisions/data.md.
SHIPPED_MANTISSA_BITS = 12
_SHUFFLE_SEED = 42
_COUNTS = ("jets", "blocks", "mantissa_bits")


@dataclass(frozen=True, eq=False)
class Part:
    """A block's jets in memory: ``features (n, 16) float32``, of one class; ``recipe`` is what its sample shares."""

    filename: str
    label: str
    features: Features
    recipe: dict[str, Any]


def assemble(blocks: Sequence[Path], folder: Path, name: str = "simulated", parts: Sequence[Part] = ()) -> Path:
    """Write the jets of these blocks, files and ``parts``, to ``folder`` as a source called ``name``; its Parquet file.

    Classes are cut to the size of the smallest, duplicate rows left out, rows shuffled with a fixed seed. Beside it
    lies ``NAME-recipe.json``: preset, seed, versions, count of blocks. DataError if the blocks are of several recipes.
    """
    every = sorted([*map(_read, blocks), *parts], key=lambda part: part.filename)
    recipes = Counter(json.dumps(part.recipe, sort_keys=True) for part in every)
    if len(recipes) != 1:
        raise DataError(f"blocks of {len(recipes)} recipes cannot be one sample; simulate into a directory of its own")
    features = np.concatenate([part.features for part in every])
    labels = np.repeat([CLASSES.index(part.label) for part in every], [len(p.features) for p in every]).astype(np.uint8)
    features = round_mantissa(features.astype(np.float64), SHIPPED_MANTISSA_BITS)
    kept = first_occurrences(features, labels)
    features, labels = _balanced(features[kept], labels[kept])
    order = _order(len(labels))
    folder.mkdir(parents=True, exist_ok=True)
    release = SourceData(np.ascontiguousarray(features[order]), labels[order], url="", licence="MIT", sha256="")
    cache.check(name, str(folder), release.features, release.labels)
    path = cache.write(folder, name, release)
    counts = dict(zip(_COUNTS, (len(labels), len(every), SHIPPED_MANTISSA_BITS), strict=True))
    text = json.dumps(every[0].recipe | counts, indent=2) + "\n"
    with atomic_write(cache.recipe_path(folder, name)) as file:
        file.write(text.encode())
    return path


def split_into_blocks(folder: Path, name: str) -> dict[Block, Part]:
    """Return the blocks a sample was assembled from, their jets rounded as the sample's are.

    The shuffle is known, so undoing it restores the order of the blocks: a sample assembled from these and further
    blocks is the same, to the bit, as one assembled from block files alone. Empty where jets were left out of the
    sample, or blocks are of another size, because then the boundaries are lost.
    """
    recipe = cache.read_recipe(folder, name)
    if not recipe or recipe["jets"] != recipe["blocks"] * JETS_PER_BLOCK or recipe["blocks"] % len(CLASSES):
        return {}
    manifest, features, labels = cache.read(folder, name)
    if manifest.rows != recipe["jets"] or recipe["mantissa_bits"] != SHIPPED_MANTISSA_BITS:
        return {}
    order, per_class = _order(len(labels)), recipe["blocks"] // len(CLASSES)
    whole, kinds = np.empty_like(features), np.empty_like(labels)
    whole[order], kinds[order] = features, labels
    preset, seed = recipe["preset"], int(recipe["seed"])
    blocks = [Block(preset, label, seed, k, JETS_PER_BLOCK) for label in CLASSES for k in range(per_class)]
    blocks.sort(key=lambda block: block.filename)
    own = {key: value for key, value in recipe.items() if key not in _COUNTS}
    found = {}
    for index, block in enumerate(blocks):
        rows = slice(index * JETS_PER_BLOCK, (index + 1) * JETS_PER_BLOCK)
        if (kinds[rows] != CLASSES.index(block.label)).any():
            return {}
        found[block] = Part(block.filename, block.label, whole[rows], own)
    return found


def _order(rows: int) -> npt.NDArray[np.intp]:
    return np.random.default_rng(_SHUFFLE_SEED).permutation(rows)


def _read(path: Path) -> Part:
    table = pq.read_table(path)
    said = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    own = {k.removeprefix("jsc."): v for k, v in said.items() if k.startswith("jsc.")}
    recipe = {k: own[k] for k in sorted(own) if k not in ("class", "block", "jets")}
    return Part(path.name, own["class"], np.stack([table[name].to_numpy() for name in FEATURES], axis=1), recipe)


def _balanced(features: Features, labels: Labels) -> tuple[Features, Labels]:
    per_class = min(np.bincount(labels, minlength=len(CLASSES)))
    rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:per_class] for k in range(len(CLASSES))]))
    return features[rows], labels[rows]

"""Assemble blocks into a balanced, shuffled and rounded sample with its recipe, and split a sample into its blocks."""

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

# Twelve binary digits: a relative error of 1.2e-4, far below the detector resolution; see docs/decisions/data.md.
SHIPPED_MANTISSA_BITS = 12
_SHUFFLE_SEED = 42
_COUNTS = ("jets", "blocks", "mantissa_bits")


@dataclass(frozen=True, eq=False)
class BlockJets:
    """The jets of one block: ``features`` ``(n, 16) float32`` of one class; all blocks of a sample share ``recipe``."""

    filename: str
    label: str
    features: Features
    recipe: dict[str, Any]


def assemble(blocks: Sequence[Path], folder: Path, name: str = "simulated", parts: Sequence[BlockJets] = ()) -> Path:
    """Write the jets of block files and of ``parts`` to ``folder`` as the source ``name``; return its Parquet file.

    Duplicate rows are dropped, all classes are cut to the size of the smallest, and rows are shuffled with a fixed
    seed. Preset, seed, versions and number of blocks go to ``NAME-recipe.json``. Raises DataError for blocks with
    different recipes.
    """
    all_parts = sorted([*map(_read, blocks), *parts], key=lambda part: part.filename)
    recipes = Counter(json.dumps(part.recipe, sort_keys=True) for part in all_parts)
    if len(recipes) != 1:
        raise DataError(f"blocks of {len(recipes)} recipes cannot be one sample; simulate into another directory")
    features = np.concatenate([part.features for part in all_parts])
    labels = np.repeat([CLASSES.index(part.label) for part in all_parts], [len(p.features) for p in all_parts]).astype(
        np.uint8
    )
    features = round_mantissa(features.astype(np.float64), SHIPPED_MANTISSA_BITS)
    kept = first_occurrences(features, labels)
    features, labels = _balanced(features[kept], labels[kept])
    order = _order(len(labels))
    folder.mkdir(parents=True, exist_ok=True)
    content = SourceData(np.ascontiguousarray(features[order]), labels[order], url="", licence="MIT", sha256="")
    cache.check(name, str(folder), content.features, content.labels)
    path = cache.write(folder, name, content)
    counts = dict(zip(_COUNTS, (len(labels), len(all_parts), SHIPPED_MANTISSA_BITS), strict=True))
    text = json.dumps(all_parts[0].recipe | counts, indent=2) + "\n"
    with atomic_write(cache.recipe_path(folder, name)) as file:
        file.write(text.encode())
    return path


def split_into_blocks(folder: Path, name: str) -> dict[Block, BlockJets]:
    """Return the blocks that a sample was assembled from, their jets rounded as in the sample.

    The shuffle has a fixed seed, so it can be undone: a sample assembled from these and further blocks equals, to the
    bit, one assembled from block files alone. Empty if jets were left out of the sample or blocks have another size,
    because then the block boundaries are unknown.
    """
    recipe = cache.read_recipe(folder, name)
    if not recipe or recipe["jets"] != recipe["blocks"] * JETS_PER_BLOCK or recipe["blocks"] % len(CLASSES):
        return {}
    manifest, features, labels = cache.read(folder, name)
    if manifest.rows != recipe["jets"] or recipe["mantissa_bits"] != SHIPPED_MANTISSA_BITS:
        return {}
    order, per_class = _order(len(labels)), recipe["blocks"] // len(CLASSES)
    sorted_features, sorted_labels = np.empty_like(features), np.empty_like(labels)
    sorted_features[order], sorted_labels[order] = features, labels
    preset, seed = recipe["preset"], int(recipe["seed"])
    blocks = [Block(preset, label, seed, k, JETS_PER_BLOCK) for label in CLASSES for k in range(per_class)]
    blocks.sort(key=lambda block: block.filename)
    shared = {key: value for key, value in recipe.items() if key not in _COUNTS}
    found = {}
    for index, block in enumerate(blocks):
        rows = slice(index * JETS_PER_BLOCK, (index + 1) * JETS_PER_BLOCK)
        if (sorted_labels[rows] != CLASSES.index(block.label)).any():
            return {}
        found[block] = BlockJets(block.filename, block.label, sorted_features[rows], shared)
    return found


def _order(rows: int) -> npt.NDArray[np.intp]:
    return np.random.default_rng(_SHUFFLE_SEED).permutation(rows)


def _read(path: Path) -> BlockJets:
    table = pq.read_table(path)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    own = {k.removeprefix("jsc."): v for k, v in metadata.items() if k.startswith("jsc.")}
    recipe = {k: own[k] for k in sorted(own) if k not in ("class", "block", "jets")}
    return BlockJets(path.name, own["class"], np.stack([table[name].to_numpy() for name in FEATURES], axis=1), recipe)


def _balanced(features: Features, labels: Labels) -> tuple[Features, Labels]:
    per_class = min(np.bincount(labels, minlength=len(CLASSES)))
    rows = np.sort(np.concatenate([np.flatnonzero(labels == k)[:per_class] for k in range(len(CLASSES))]))
    return features[rows], labels[rows]

"""Grids: expand lists of hyperparameter values into the runs that they describe."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

from jsc_explore.config import DEFAULT_SEEDS, RunConfig, check_value
from jsc_explore.errors import FieldError

MAX_GRID = 100_000
MAX_SEEDS = 1000


def expand_grid(grid: Mapping[str, Any]) -> list[RunConfig]:
    """Return the runs of a grid: each field has one value or a list of values, ``seeds`` counts seeds from 0.

    Raises FieldError for an unknown field, a bad value, an empty list or more than 100,000 runs.
    """
    values = dict(grid)
    seeds = values.pop("seeds", None)
    if seeds is not None:
        if "seed" in values:
            raise FieldError("seeds", seeds, "cannot be combined with seed", "keep one of the two")
        if isinstance(seeds, bool) or not isinstance(seeds, int) or not 1 <= seeds <= MAX_SEEDS:
            raise FieldError("seeds", seeds, f"must be a whole number in [1, {MAX_SEEDS}]", f"try {DEFAULT_SEEDS}")
    values.setdefault("seed", list(range(seeds or DEFAULT_SEEDS)))
    axes = {name: _axis_values(name, value) for name, value in values.items()}
    count = math.prod(map(len, axes.values()))
    if count > MAX_GRID:
        raise FieldError("grid", count, f"must hold at most {MAX_GRID:,} runs", "split it into several files")
    return [RunConfig(**dict(zip(axes, point, strict=True))) for point in itertools.product(*axes.values())]


def _axis_values(name: str, value: Any) -> list[Any]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if not values:
        raise FieldError(name, value, "must hold at least one value", "add one or leave the field out")
    # Validated before duplicates are removed: 1 and True are equal, and a list within a list is not hashable.
    return list(dict.fromkeys(check_value(name, one) for one in values))

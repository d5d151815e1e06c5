"""Filters of runs: values or ranges of hyperparameters and a filter expression, as one SQL condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsc_explore.config import check_field
from jsc_explore.store.query.expression import read_filter
from jsc_explore.store.schema import SCALARS


@dataclass(frozen=True)
class Between:
    """A range of a number, both ends included."""

    low: float
    high: float


Filters = Mapping[str, Sequence[Any] | Between]


def condition(filters: Filters, text: str = "") -> tuple[str, list[Any]]:
    """Return a WHERE condition and its parameters: every filter holds, and the text filter where one is given.

    A momentum is asked of sgd alone: for other optimizers it has no effect and is not part of a run's identity.
    Raises FieldError for a name that is no column, FilterError for a bad text.
    """
    clauses, values = [], []
    for name, allowed in filters.items():
        if name not in SCALARS:
            check_field(name)
        if isinstance(allowed, Between):
            clause = f"{name} BETWEEN ? AND ?"
            given: list[Any] = [allowed.low, allowed.high]
        else:
            clause, given = f"list_contains(?, {name})", [list(allowed)]
        clauses.append(f"({clause} OR optimizer <> 'sgd')" if name == "momentum" else clause)
        values += given
    if text.strip():
        clause, more = read_filter(text)
        clauses.append(clause)
        values += more
    return " AND ".join(clauses) or "true", values

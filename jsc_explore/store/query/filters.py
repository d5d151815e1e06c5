"""Filters of runs: values or ranges of hyperparameters and a filter expression, as one SQL condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsc_explore.config import FIELDS, check_field
from jsc_explore.store.query.expression import parse_filter
from jsc_explore.store.schema import SCALARS


@dataclass(frozen=True)
class Between:
    """A numeric range, both ends included."""

    low: float
    high: float


Filters = Mapping[str, Sequence[Any] | Between]


def condition(filters: Filters, expression: str = "") -> tuple[str, list[Any]]:
    """Return a WHERE condition and its parameters: all filters, and the filter expression if there is one.

    A filter on a field also selects the runs in which that field has no effect (``Spec.only_with``).
    Raises FieldError for an unknown column, FilterError for a bad expression.
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
        if name in FIELDS and (needed := FIELDS[name].only_with):
            clause, given = f"({clause} OR {needed[0]} <> ?)", [*given, needed[1]]
        clauses.append(clause)
        values += given
    if expression.strip():
        clause, more = parse_filter(expression)
        clauses.append(clause)
        values += more
    return " AND ".join(clauses) or "true", values

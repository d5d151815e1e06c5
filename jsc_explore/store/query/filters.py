"""Filters of runs: values or ranges of hyperparameters and a filter expression, as one SQL condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsc_explore.config import DEFAULTS, FIELDS, RunConfig, check_field
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

    A filter on a field also selects the runs that would train exactly the same with a value that it allows
    (``Spec.same_as_default``): adamw selects the runs of adam without weight decay.
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
        for same, parameters in _same_as_default(name, allowed):
            clause, given = f"{clause} OR {same}", [*given, *parameters]
        clauses.append(f"({clause})")
        values += given
    if expression.strip():
        clause, more = parse_filter(expression)
        clauses.append(clause)
        values += more
    return " AND ".join(clauses) or "true", values


def is_allowed(config: RunConfig, name: str, allowed: Sequence[Any] | Between) -> bool:
    """Return whether a filter on a field selects a config, by the rule of ``condition``."""
    value = getattr(config, name)
    if allowed.low <= value <= allowed.high if isinstance(allowed, Between) else value in allowed:
        return True
    others = _candidates(allowed) if FIELDS[name].same_as_default else ()
    return any(config.with_(**{name: other}).canonical_form == config.canonical_form for other in others)


def _same_as_default(name: str, allowed: Sequence[Any] | Between) -> list[tuple[str, list[Any]]]:
    """Return conditions, with their parameters, of runs with the default that train the same with an allowed value."""
    found: list[tuple[str, list[Any]]] = []
    for value in _candidates(allowed) if name in FIELDS else ():
        for case in FIELDS[name].same_as_default:
            parts, given = [f"{name} = ?"], [DEFAULTS[name]]
            for field, sign, other in case:
                parts.append(f"{'?' if field == name else field} {sign} {other if other in FIELDS else '?'}")
                given += [value] * (field == name) + [other] * (other not in FIELDS)
            if (one := (f"({' AND '.join(parts)})", given)) not in found:
                found.append(one)
    return found


def _candidates(allowed: Sequence[Any] | Between) -> Sequence[Any]:
    # Of a range the highest value stands for all: comparisons of a number are with a lower bound.
    return [allowed.high] if isinstance(allowed, Between) else allowed

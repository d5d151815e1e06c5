"""The result of one attack."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """Whether an attack succeeded, and whether its positive control passed: the same thing where it is permitted.

    ``note`` says in a few words what was seen.
    """

    succeeded: bool
    control: bool
    note: str = ""

"""Limits: how many runs and epochs may be queued or running at once, and how long a request needs no confirmation."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one session, of all sessions at one network address, and of all sessions together; None: no limit.

    Epochs are summed over runs: ten runs of ten epochs count as a hundred. ``address_cells`` counts the configs that an
    address requests within a minute. A request that is expected to take longer than ``confirm_s`` seconds has to be
    confirmed.
    """

    session_runs: int | None = 500
    session_epochs: int | None = 20_000
    # A class may sit behind one address, and a visitor may open any number of sessions there: thirty students may wait
    # for eighty runs each, and half of what may wait in all is left to other addresses.
    address_runs: int | None = 2_500
    address_epochs: int | None = 50_000
    address_cells: int | None = 1_000
    total_runs: int | None = 5_000
    total_epochs: int | None = 100_000
    confirm_s: float | None = 1_800.0


# For visitors of a page.
LIMITS = Limits()
# For commands: who has a shell can use the whole machine anyway.
UNLIMITED = Limits(*[None] * 8)

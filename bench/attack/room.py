"""Attacks by one visitor on the others: a large job, many sessions, oversized files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.attack.result import Result

ATTACKS: tuple[Callable[[Path], Result], ...] = ()

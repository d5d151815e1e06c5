"""Attacks on files: nothing outside a store is changed, and no foreign code is run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.attack.result import Result

ATTACKS: tuple[Callable[[Path], Result], ...] = ()

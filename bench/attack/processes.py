"""Attacks on processes: descriptors, ports and what is left after an end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.attack.result import Result

ATTACKS: tuple[Callable[[Path], Result], ...] = ()

"""Attacks on access: nobody runs code, trains, cancels or deletes without the right to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.attack.result import Result

ATTACKS: tuple[Callable[[Path], Result], ...] = ()

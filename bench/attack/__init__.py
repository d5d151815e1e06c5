"""Attacks on real processes: none may succeed, and what resembles each attack but is permitted must still work."""

from __future__ import annotations

import importlib
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.attack.result import Result
from bench.frame import Bound, Report

# Each module lists its attacks in ATTACKS: functions that get an empty directory and return a Result.
MODULES = ("files", "access", "workers", "room", "processes")
# One of each module.
QUICK = ("paths_in_a_catalogue", "endpoints_beside_the_page", "run_code_as_the_engine", "many_sessions", "used_port")


def run(quick: bool) -> Report:
    """Run every attack, then the soak and an idle app, 20 minutes in all (quick: one attack of each module)."""
    from bench.attack import idle, soak

    rows = []
    for module in MODULES:
        for attack in importlib.import_module(f"bench.attack.{module}").ATTACKS:
            if not quick or attack.__name__ in QUICK:
                rows.append({"module": module, **run_attack(attack)})
                print("  ".join(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    figures = {
        "attacks": float(len(rows)),
        "succeeded": float(sum(row["succeeded"] for row in rows)),
        "controls_failed": float(sum(not row["control"] for row in rows)),
    }
    bounds = {"succeeded": Bound(0, at_least=False), "controls_failed": Bound(0, at_least=False)}
    notes: list[str] = []
    if not quick:
        soaked = soak.run()
        figures |= soaked.figures | idle.measure_idle()
        bounds |= soaked.bounds | idle.BOUNDS
        notes = soaked.notes
    return Report("attack", figures, rows, bounds, notes)


def run_attack(attack: Callable[[Path], Result]) -> dict[str, Any]:
    """Run one attack in a new directory; an exception counts as a failed control."""
    began = time.monotonic()
    # Not below a directory that carries the name of this machine's user, and short enough for a socket's path.
    with tempfile.TemporaryDirectory(prefix="attack-", ignore_cleanup_errors=True) as name:
        try:
            result = attack(Path(name))
        except Exception:
            result = Result(succeeded=False, control=False, note=traceback.format_exc(limit=-2).replace("\n", " "))
    return {
        "attack": attack.__name__,
        "succeeded": result.succeeded,
        "control": result.control,
        "seconds": round(time.monotonic() - began, 1),
        "note": result.note,
    }

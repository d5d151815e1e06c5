"""The report of a benchmark: figures with bounds, repeated timings, machine and versions; as text, JSON, Markdown."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "lightning", "duckdb", "pyarrow", "streamlit", "altair", "distributed", "numpy")
_OPTIONAL = ("numba", "jax")


@dataclass(frozen=True)
class Bound:
    """The bound of a figure: at least ``limit`` if ``at_least``, otherwise at most ``limit``."""

    limit: float
    at_least: bool

    def holds(self, value: float) -> bool:
        """Return whether a measured value is within the bound."""
        return value >= self.limit if self.at_least else value <= self.limit

    def show(self, value: float) -> str:
        """Return the bound and whether the value is within it: ``≥ 40  ok``."""
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}  {'ok' if self.holds(value) else 'NOT MET'}"


@dataclass
class Report:
    """The results of a benchmark: ``figures`` are single numbers by key, ``rows`` the table behind them.

    ``summary`` replaces ``rows`` in Markdown where there are too many. ``bounds`` belong to some of the figures;
    ``notes`` say how it was measured and what is missing.
    """

    name: str
    figures: dict[str, float]
    rows: list[dict[str, Any]] = field(default_factory=list)
    bounds: dict[str, Bound] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    summary: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=lambda: machine())
    versions: dict[str, str] = field(default_factory=lambda: {"python": platform.python_version(), **versions()})

    def write(self, path: Path) -> None:
        """Write the report as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    def show(self) -> str:
        """Return the report as plain text: figures first, then the table, machine and versions last."""
        lines = [f"bench {self.name}", *(self._line(key, value) for key, value in self.figures.items()), ""]
        lines += ["  " + "  ".join(f"{key}={_short(value)}" for key, value in row.items()) for row in self.rows]
        lines += ["", *(f"  {note}" for note in self.notes)]
        lines += ["", f"  {self.machine}", f"  {self.versions}"]
        return "\n".join(lines)

    def markdown(self) -> str:
        """Return the report as Markdown tables."""
        lines = ["| figure | measured | bound |", "|---|---:|---|"]
        for key, value in self.figures.items():
            lines.append(
                f"| `{key}` | {format_figure(value)} | {self.bounds[key].show(value) if key in self.bounds else ''} |"
            )
        if rows := self.summary or self.rows:
            names = list(rows[0])
            lines += ["", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
            lines += ["| " + " | ".join(_short(row.get(name, "")) for name in names) + " |" for row in rows]
        where = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in self.machine.items())
        what = ", ".join(f"{name} {value}" for name, value in self.versions.items())
        return "\n".join([*lines, "", *self.notes, "", f"Machine: {where}. Versions: {what}."])

    def _line(self, key: str, value: float) -> str:
        bound = f"  {self.bounds[key].show(value)}" if key in self.bounds else ""
        return f"  {key:40} {format_figure(value):10}{bound}".rstrip()


def format_figure(value: float) -> str:
    """Format with three significant digits, or a large number as an integer: 0.113, 5,303."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated calls: median and spread."""

    median_s: float
    low_s: float
    high_s: float
    n: int


def measure(call: Callable[[], object], n: int = 7, warm_ups: int = 1) -> Timing:
    """Time ``n`` calls, after ``warm_ups`` calls that are not counted."""
    for _ in range(warm_ups):
        call()
    times = []
    for _ in range(n):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return Timing(statistics.median(times), min(times), max(times), n)


def machine() -> dict[str, Any]:
    """Return what the timings depend on: processor, cores, memory, current load."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "load": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    """Return the versions of the packages measured."""
    return {name: version(name) for name in _PACKAGES} | {
        name: version(name) for name in _OPTIONAL if importlib.util.find_spec(name) is not None
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)

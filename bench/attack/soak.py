"""Soak: sessions that come, use the page and leave; what the server keeps of them."""

from __future__ import annotations

from bench.frame import Report


def run(quick: bool) -> Report:
    """Let sessions use one server and return its descriptors, threads and memory."""
    raise NotImplementedError(quick)

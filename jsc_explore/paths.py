"""Paths: the store, the cache, the page and the published runs, in a checkout and in an installed package."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).parent


def default_store() -> Path:
    """Return ``$JSC_EXPLORE_STORE``, or a folder in the user's data directory, which all projects share."""
    chosen = os.environ.get("JSC_EXPLORE_STORE")
    return Path(chosen) if chosen else platformdirs.user_data_path("jsc-explore") / "store"


def cache_dir() -> Path:
    """Return the folder of jets and compiled code: ``$JSC_EXPLORE_CACHE``, or the user's cache directory."""
    chosen = os.environ.get("JSC_EXPLORE_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("jsc-explore")


def site_file(name: str) -> Path:
    """Return the path of ``app.py`` or ``results.parquet``: top of the checkout, or inside an installed package."""
    installed = PACKAGE / "site" / name
    return installed if installed.exists() else PACKAGE.parent / name


def snapshot() -> Path:
    """Return the Parquet file of published runs: ``$JSC_EXPLORE_SNAPSHOT``, or the one that is shipped."""
    chosen = os.environ.get("JSC_EXPLORE_SNAPSHOT")
    return Path(chosen) if chosen else site_file("results.parquet")

"""Where things lie: the store by default, the page and the published runs, in a checkout and when installed."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).parent


def default_store() -> Path:
    """Return $JSC_EXPLORE_STORE, or the user's data directory: what one project trained, the next one finds."""
    chosen = os.environ.get("JSC_EXPLORE_STORE")
    return Path(chosen) if chosen else platformdirs.user_data_path("jsc-explore") / "store"


def cache_dir() -> Path:
    """Return where jets and compiled code are kept: ``$JSC_EXPLORE_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("JSC_EXPLORE_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("jsc-explore")


def site_file(name: str) -> Path:
    """Return the path of ``app.py`` or ``results.parquet``: top of the checkout, or inside an installed package."""
    installed = PACKAGE / "site" / name
    return installed if installed.exists() else PACKAGE.parent / name


def snapshot() -> Path:
    """Return where the published runs lie; $JSC_EXPLORE_SNAPSHOT names another file."""
    chosen = os.environ.get("JSC_EXPLORE_SNAPSHOT")
    return Path(chosen) if chosen else site_file("results.parquet")

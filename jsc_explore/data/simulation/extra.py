"""Import the optional libraries of the `simulate` extra when a simulation needs them; no other module imports them."""

from __future__ import annotations

import contextlib
import importlib
from importlib.metadata import version
from typing import Any

from jsc_explore.errors import DataError


def pythia() -> Any:
    """Import pythia8mc; raise DataError naming the extra to install."""
    return _import("pythia8mc")


def fastjet() -> Any:
    """Import fastjet (Cacciari, Salam, Soyez, EPJ C72 (2012) 1896); raise DataError as `pythia` does."""
    library = _import("fastjet")
    # Its banner goes to stdout without Python; only the inner module gives access to the switch.
    with contextlib.suppress(ImportError, AttributeError):
        importlib.import_module("fastjet._swig").ClusterSequence.set_fastjet_banner_stream(None)
    return library


def versions() -> dict[str, str]:
    """Return the versions of the libraries on which a jet depends; raise DataError if one is missing."""
    pythia()
    fastjet()
    return {name: version(name) for name in ("pythia8mc", "fastjet", "numpy")}


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise DataError(f"simulating jets needs {name}: pip install 'jsc-explore[simulate]'") from None

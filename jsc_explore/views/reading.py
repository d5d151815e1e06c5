"""A Reader that keeps its answers for all sessions, as long as the store is of one version."""

from __future__ import annotations

from typing import Any

import streamlit as st

from jsc_explore.seen.reading import Reader
from jsc_explore.seen.slice import Slice
from jsc_explore.views import resources


class KeptReader(Reader):
    """Reads the server's own store; what was asked before is answered from memory."""

    def __init__(self) -> None:
        super().__init__(resources.store())

    def grid(self, *question: Any) -> Any:
        """See Reader."""
        return _kept(self.store.version, "grid", question)

    def seeds(self, *question: Any) -> Any:
        """See Reader."""
        return _kept(self.store.version, "seeds", question)

    def configs(self, *question: Any) -> Any:
        """See Reader."""
        return _kept(self.store.version, "configs", question)

    def run_ids(self, *question: Any) -> Any:
        """See Reader."""
        return _kept(self.store.version, "run_ids", question)

    def points(self, *question: Any) -> Any:
        """See Reader."""
        return _kept(self.store.version, "points", question)


@st.cache_data(show_spinner=False, max_entries=512, hash_funcs={Slice: repr})
def _kept(version: int, what: str, question: tuple[Any, ...]) -> Any:
    return getattr(Reader(resources.store()), what)(*question)

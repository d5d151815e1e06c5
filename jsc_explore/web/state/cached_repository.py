"""A Reader that keeps its answers for all sessions: those of one version of the store, and curves, which stay."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import streamlit as st

from jsc_explore.store.query.curves import CurvePoints
from jsc_explore.store.query.grid import run_ids
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice
from jsc_explore.web.state import services


class CachedRepository(Repository):
    """Reads the server's own store; what was asked before is answered from memory."""

    def __init__(self) -> None:
        super().__init__(services.store())

    def grid(self, *question: Any) -> Any:
        """See Reader."""
        return _kept(self.store.version, "grid", question)

    def seeds(self, config_ids: tuple[str, ...]) -> Any:
        """See Reader."""
        # As one text: Streamlit takes longer over hundreds of ids than over reading what they stand for.
        return _kept_seeds(self.store.version, " ".join(config_ids))

    def configs(self, *question: Any) -> Any:
        """See Reader."""
        return _kept(self.store.version, "configs", question)

    def run_ids(self, *question: Any) -> Any:
        """See Reader."""
        return _kept(self.store.version, "run_ids", question)

    def curves(self, runs: tuple[str, ...], *question: Any, live: pa.Table | None = None) -> Any:
        """See Reader. A whole room looks at what a few points made, until the next ones come."""
        if live is not None:
            return _kept_growing(" ".join(runs), question, _digest(live), live)
        try:
            return _kept_curves(" ".join(runs), question)
        except _RunsGoneError as gone:
            return gone.points


class _RunsGoneError(Exception):
    """Some runs left the store before they were read: what is there, not to be kept, for they may come back."""

    def __init__(self, points: CurvePoints) -> None:
        super().__init__(points)
        self.points = points


# Shared by all who ask, not copied for each: nobody changes what he was answered.
@st.cache_resource(show_spinner=False, max_entries=512, hash_funcs={Slice: repr})
def _kept(version: int, what: str, question: tuple[Any, ...]) -> Any:
    return getattr(Repository(services.store()), what)(*question)


@st.cache_resource(show_spinner=False, max_entries=128)
def _kept_seeds(version: int, config_ids: str) -> Any:
    return Repository(services.store()).seeds(tuple(config_ids.split()))


@st.cache_resource(show_spinner=False, max_entries=128)
def _kept_curves(runs: str, question: tuple[Any, ...]) -> Any:
    reader, wanted = Repository(services.store()), runs.split()
    points = reader.curves(tuple(wanted), *question)
    if len(run_ids(reader.store, {"run_id": wanted})) < len(wanted):
        raise _RunsGoneError(points)
    return points


@st.cache_resource(show_spinner=False, max_entries=32)
def _kept_growing(runs: str, question: tuple[Any, ...], digest: str, _live: pa.Table) -> Any:
    return Repository(services.store()).curves(tuple(runs.split()), *question, live=_live)


def _digest(table: pa.Table) -> str:
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(buffer.getvalue()).hexdigest()

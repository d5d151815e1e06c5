"""A repository that caches query results for all sessions: by store version, and curves of stored runs for good."""

from __future__ import annotations

import hashlib

import pyarrow as pa
import streamlit as st

from jsc_explore.store.query.curves import CurvePoints
from jsc_explore.store.query.grid import run_ids
from jsc_explore.view_model.repository import Repository, Rows
from jsc_explore.view_model.slice import Slice
from jsc_explore.web.state import services

# Arguments of a curve query besides the runs: x, quantities, x_range, budget, each_seed.
CurveArguments = tuple[str, tuple[str, ...], tuple[float, float] | None, int, bool]


class CachedRepository(Repository):
    """Cached queries of the server's store. See Repository for what they return."""

    def __init__(self) -> None:
        super().__init__(services.store())

    def grid(self, slice: Slice) -> Rows:
        """See Repository."""
        return _grid(self.store.version, slice)

    def seeds(self, config_ids: tuple[str, ...]) -> dict[str, list[int]]:
        """See Repository."""
        # One string: Streamlit takes longer to hash hundreds of ids than the query takes.
        return _seeds(self.store.version, " ".join(config_ids))

    def varying(self, slice: Slice) -> list[str]:
        """See Repository."""
        return _varying(self.store.version, slice)

    def response(self, slice: Slice, fields: tuple[str, ...]) -> Rows:
        """See Repository."""
        return _response(self.store.version, slice, fields)

    def configs(self, slice: Slice, limit: int) -> tuple[Rows, int]:
        """See Repository."""
        return _configs(self.store.version, slice, limit)

    def machines(self, slice: Slice) -> dict[str, list[str]]:
        """See Repository."""
        return _machines(self.store.version, slice)

    def run_ids(self, slice: Slice, config_ids: tuple[str, ...]) -> list[str]:
        """See Repository."""
        return _run_ids(self.store.version, slice, " ".join(config_ids))

    def curves(
        self,
        runs: tuple[str, ...],
        x: str,
        quantities: tuple[str, ...],
        x_range: tuple[float, float] | None,
        budget: int,
        each_seed: bool,
        *,
        live: pa.Table | None = None,
    ) -> CurvePoints:
        """See Repository. Live points are cached, too: all sessions show the same ones until the next snapshot."""
        arguments = (x, quantities, x_range, budget, each_seed)
        if live is not None:
            return _live_curves(" ".join(runs), arguments, _digest(live), live)
        try:
            return _curves(" ".join(runs), arguments)
        except _RunsMissingError as error:
            return error.points


class _RunsMissingError(Exception):
    """Some runs are not in the store. Carries the points of the others, which must not be cached."""

    def __init__(self, points: CurvePoints) -> None:
        super().__init__(points)
        self.points = points


# cache_resource shares one result between sessions, without a copy for each: no caller may change it.
@st.cache_resource(show_spinner=False, max_entries=512, hash_funcs={Slice: repr})
def _grid(version: int, slice: Slice) -> Rows:
    return Repository(services.store()).grid(slice)


@st.cache_resource(show_spinner=False, max_entries=64, hash_funcs={Slice: repr})
def _varying(version: int, slice: Slice) -> list[str]:
    return Repository(services.store()).varying(slice)


@st.cache_resource(show_spinner=False, max_entries=64, hash_funcs={Slice: repr})
def _response(version: int, slice: Slice, fields: tuple[str, ...]) -> Rows:
    return Repository(services.store()).response(slice, fields)


@st.cache_resource(show_spinner=False, max_entries=512, hash_funcs={Slice: repr})
def _configs(version: int, slice: Slice, limit: int) -> tuple[Rows, int]:
    return Repository(services.store()).configs(slice, limit)


@st.cache_resource(show_spinner=False, max_entries=64, hash_funcs={Slice: repr})
def _machines(version: int, slice: Slice) -> dict[str, list[str]]:
    return Repository(services.store()).machines(slice)


@st.cache_resource(show_spinner=False, max_entries=512, hash_funcs={Slice: repr})
def _run_ids(version: int, slice: Slice, config_ids: str) -> list[str]:
    return Repository(services.store()).run_ids(slice, tuple(config_ids.split()))


@st.cache_resource(show_spinner=False, max_entries=128, hash_funcs={Slice: repr})
def _seeds(version: int, config_ids: str) -> dict[str, list[int]]:
    return Repository(services.store()).seeds(tuple(config_ids.split()))


@st.cache_resource(show_spinner=False, max_entries=128, hash_funcs={Slice: repr})
def _curves(runs: str, arguments: CurveArguments) -> CurvePoints:
    repository, wanted = Repository(services.store()), runs.split()
    points = repository.curves(tuple(wanted), *arguments)
    if len(run_ids(repository.store, {"run_id": wanted})) < len(wanted):
        raise _RunsMissingError(points)
    return points


@st.cache_resource(show_spinner=False, max_entries=32, hash_funcs={Slice: repr})
def _live_curves(runs: str, arguments: CurveArguments, digest: str, _live: pa.Table) -> CurvePoints:
    return Repository(services.store()).curves(tuple(runs.split()), *arguments, live=_live)


def _digest(table: pa.Table) -> str:
    buffer = pa.BufferOutputStream()
    with pa.ipc.new_stream(buffer, table.schema) as stream:
        stream.write_table(table)
    return hashlib.sha256(buffer.getvalue()).hexdigest()

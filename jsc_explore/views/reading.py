"""A Reader that keeps its answers for all sessions, as long as the store is of one version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import streamlit as st

from jsc_explore.analysis.prediction import Forecast
from jsc_explore.config import RunConfig
from jsc_explore.seen.reading import Reader
from jsc_explore.seen.slice import Slice
from jsc_explore.store.slices import Points
from jsc_explore.views import resources


class KeptReader(Reader):
    """Reads the server's own store; what was asked before is answered from memory."""

    def __init__(self) -> None:
        super().__init__(resources.store())

    def grid(self, view: Slice) -> list[dict[str, Any]]:
        """See Reader."""
        return _grid(self.store.version, view)

    def seeds(self, config_ids: tuple[str, ...]) -> dict[str, list[int]]:
        """See Reader."""
        return _seeds(self.store.version, config_ids)

    def configs(self, view: Slice, limit: int) -> tuple[list[dict[str, Any]], int]:
        """See Reader."""
        return _configs(self.store.version, view, limit)

    def run_ids(self, view: Slice, config_ids: tuple[str, ...]) -> list[str]:
        """See Reader."""
        return _run_ids(self.store.version, view, config_ids)

    def points(
        self,
        view: Slice,
        config_ids: tuple[str, ...],
        x: str,
        quantities: tuple[str, ...],
        span: tuple[float, float] | None,
        budget: int,
        each_seed: bool,
    ) -> Points:
        """See Reader."""
        return _points(self.store.version, view, config_ids, x, quantities, span, budget, each_seed)

    def forecast(self, runs: Sequence[RunConfig], score: str) -> Forecast:
        """See Reader."""
        return _forecast(self.store.version, json.dumps([run.to_dict() for run in runs], sort_keys=True), score)


def _reader() -> Reader:
    return Reader(resources.store())


@st.cache_data(show_spinner=False, max_entries=64, hash_funcs={Slice: repr})
def _grid(version: int, view: Slice) -> list[dict[str, Any]]:
    return _reader().grid(view)


@st.cache_data(show_spinner=False, max_entries=64)
def _seeds(version: int, config_ids: tuple[str, ...]) -> dict[str, list[int]]:
    return _reader().seeds(config_ids)


@st.cache_data(show_spinner=False, max_entries=64, hash_funcs={Slice: repr})
def _configs(version: int, view: Slice, limit: int) -> tuple[list[dict[str, Any]], int]:
    return _reader().configs(view, limit)


@st.cache_data(show_spinner=False, max_entries=256, hash_funcs={Slice: repr})
def _run_ids(version: int, view: Slice, config_ids: tuple[str, ...]) -> list[str]:
    return _reader().run_ids(view, config_ids)


@st.cache_data(show_spinner=False, max_entries=128, hash_funcs={Slice: repr})
def _points(
    version: int,
    view: Slice,
    config_ids: tuple[str, ...],
    x: str,
    quantities: tuple[str, ...],
    span: tuple[float, float] | None,
    budget: int,
    each_seed: bool,
) -> Points:
    return _reader().points(view, config_ids, x, quantities, span, budget, each_seed)


@st.cache_data(show_spinner=False, max_entries=64)
def _forecast(version: int, runs: str, score: str) -> Forecast:
    return _reader().forecast([RunConfig.from_dict(row) for row in json.loads(runs)], score)

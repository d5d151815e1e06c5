"""What a view asks of a store. A page keeps the answers for all who look; a handout asks once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jsc_explore import data
from jsc_explore.analysis.prediction import Forecast, predict
from jsc_explore.config import RunConfig
from jsc_explore.store import Store
from jsc_explore.store.query.aggregates import cell_table
from jsc_explore.store.query.curves import CurvePoints, curve_points
from jsc_explore.store.query.grid import configs, grid_cells, run_ids, stored_seeds
from jsc_explore.view_model.slice import Slice


class Repository:
    """Asks one store; every answer holds for one version of it, what ``curves`` finds of a run for ever."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def grid(self, view: Slice) -> list[dict[str, Any]]:
        """Return the rows of ``grid_cells`` of a slice."""
        rows: list[dict[str, Any]] = grid_cells(self.store, view.axes, view.metric, view.filters, view.text).to_pylist()
        return rows

    def seeds(self, config_ids: tuple[str, ...]) -> dict[str, list[int]]:
        """Return the stored seeds of configs."""
        return stored_seeds(self.store, config_ids)

    def configs(self, view: Slice, limit: int) -> tuple[list[dict[str, Any]], int]:
        """Return configs of a slice, at most ``limit``, with their counts of runs; and how many there are."""
        table, total = configs(self.store, view.filters, view.text, limit=limit)
        return table.to_pylist(), total

    def run_ids(self, view: Slice, config_ids: tuple[str, ...]) -> list[str]:
        """Return the runs of configs that pass."""
        # The config says all about its fields; of the filters only the text may pass some of its runs and not others.
        return run_ids(self.store, {"config_id": list(config_ids)}, view.text)

    def points(
        self,
        view: Slice,
        config_ids: tuple[str, ...],
        x: str,
        quantities: tuple[str, ...],
        span: tuple[float, float] | None,
        budget: int,
        each_seed: bool,
    ) -> CurvePoints:
        """Return the points of configs, at most about ``budget`` rows; without those of single seeds if asked so."""
        runs = self.run_ids(view, config_ids) if config_ids else []
        return self.curves(tuple(runs), x, quantities, span, budget, each_seed)

    def curves(
        self,
        runs: tuple[str, ...],
        x: str,
        quantities: tuple[str, ...],
        span: tuple[float, float] | None,
        budget: int,
        each_seed: bool,
        *,
        live: pa.Table | None = None,
    ) -> CurvePoints:
        """Return the points of these runs, with those of ``live``, which are not stored yet.

        Those of a stored run never change; one that is no longer in the store is left out.
        """
        return curve_points(self.store, runs, x, quantities, budget=budget, span=span, live=live, each_seed=each_seed)

    def forecast(self, runs: Sequence[RunConfig], metric: str) -> Forecast:
        """Return what is expected of runs, from those of the same data and validation as the first."""
        first = runs[0]
        scope = {
            "dataset": [first.dataset],
            "validation": [first.validation],
            "data_digest": [data.digest(first.dataset)],
        }
        return predict(cell_table(self.store, metric, scope).to_pylist(), runs, metric)

"""The queries that a page needs of a store. The app caches their results for all sessions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jsc_explore import data
from jsc_explore.analysis.prediction import PredictionSet, predict
from jsc_explore.analysis.statistics import summarize
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.store import Store
from jsc_explore.store.query.aggregates import machines, prediction_cells
from jsc_explore.store.query.curves import CurvePoints, curve_points
from jsc_explore.store.query.filters import Filters
from jsc_explore.store.query.grid import configs, grid_cells, run_ids, stored_seeds, varying_fields
from jsc_explore.view_model.slice import Slice

Rows = list[dict[str, Any]]


def response_rows(store: Store, fields: Sequence[str], metric: str, filters: Filters, expression: str = "") -> Rows:
    """Return the rows of ``grid_cells`` over these fields, with ``median``, ``low`` and ``high`` of their metrics."""
    rows: Rows = _grid_table(store, fields, metric, filters, expression).to_pylist()
    return rows


def _grid_table(store: Store, fields: Sequence[str], metric: str, filters: Filters, expression: str) -> pa.Table:
    table = grid_cells(store, fields, metric, filters, expression)
    for name, figures in summarize(table["metrics"]).items():
        table = table.append_column(name, pa.array(figures, from_pandas=True))
    return table


class Repository:
    """Queries of one store. Results hold for one version of it, except that the curve of a stored run never changes."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def grid(self, slice: Slice) -> Rows:
        """Return the rows of ``grid_cells`` of a slice, with ``median``, ``low`` and ``high`` of the metrics."""
        table = _grid_table(self.store, slice.axes, slice.metric, slice.filters, slice.text)
        rows: Rows = table.drop_columns(["metrics"]).to_pylist()
        return rows

    def varying(self, slice: Slice) -> list[str]:
        """Return the hyperparameters of which the stored runs of a slice have several values."""
        return varying_fields(self.store, slice.filters, slice.text)

    def response(self, slice: Slice, fields: tuple[str, ...]) -> Rows:
        """Return the rows of ``response_rows`` of a slice over these fields."""
        return response_rows(self.store, fields, slice.metric, slice.filters, slice.text)

    def seeds(self, config_ids: tuple[str, ...]) -> dict[str, list[int]]:
        """Return the stored seeds of configs, by config id."""
        return stored_seeds(self.store, config_ids)

    def configs(self, slice: Slice, limit: int) -> tuple[Rows, int]:
        """Return at most ``limit`` configs of a slice with their counts of runs, and how many configs there are."""
        table, total = configs(self.store, slice.filters, slice.text, limit=limit)
        return table.to_pylist(), total

    def machines(self, slice: Slice) -> dict[str, list[str]]:
        """Return the devices that trained the runs of a slice, with the backends of each."""
        return machines(self.store, slice.filters, slice.text)

    def run_ids(self, slice: Slice, config_ids: tuple[str, ...]) -> list[str]:
        """Return the runs of configs that pass the filter expression."""
        # All runs of a config have the same fields: only the filter expression can separate them.
        return run_ids(self.store, {"config_id": list(config_ids)}, slice.text)

    def points(
        self,
        slice: Slice,
        config_ids: tuple[str, ...],
        x: str,
        quantities: tuple[str, ...],
        x_range: tuple[float, float] | None,
        budget: int,
        each_seed: bool,
    ) -> CurvePoints:
        """Return the curve points of configs, about ``budget`` rows at most; single seeds only with ``each_seed``."""
        runs = self.run_ids(slice, config_ids) if config_ids else []
        return self.curves(tuple(runs), x, quantities, x_range, budget, each_seed)

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
        """Return the curve points of stored runs together with ``live`` points, which are not stored yet.

        Runs that are no longer in the store are left out.
        """
        return curve_points(
            self.store, runs, x, quantities, budget=budget, x_range=x_range, live=live, each_seed=each_seed
        )

    def predict(self, runs: Sequence[RunConfig], metric: str) -> PredictionSet:
        """Return predictions of runs, from the runs on the same data and validation as the first of them."""
        return predict(self.prediction_cells(runs, metric), runs, metric)

    def prediction_cells(self, runs: Sequence[RunConfig], metric: str) -> Rows:
        """Return the measured cells from which ``predict`` predicts these runs."""
        first = runs[0]
        filters = {
            "dataset": [first.dataset],
            "validation": [first.validation],
            "data_digest": [data.digest(first.dataset)],
        }
        epochs: set[int] = set()
        if any(run.scheduler in ("constant", "warmup") for run in runs):
            epochs = {*FIELDS["max_epochs"].default_values, *(run.max_epochs for run in runs)}
        return prediction_cells(self.store, metric, filters, epochs=sorted(epochs))

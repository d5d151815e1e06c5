"""What Explore and Overview hand to each other: filters as URL parameters of the other page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jsc_explore.analysis.cells import in_order
from jsc_explore.charts.parallel import METRIC
from jsc_explore.config import FIELDS
from jsc_explore.errors import FieldError
from jsc_explore.store.query.expression import MAX_TEXT
from jsc_explore.view_model.url_params import ANY, CELLS, EXPLORE, FILTERED, axes_of, filter_key

# Overview shows one data set and one kind of validation.
_SINGLE = ("dataset", "validation")


def overview_query(explore: Mapping[str, str]) -> dict[str, str]:
    """Return the metric and the filters in a query of Explore as a query of Overview.

    What stands at its default on Explore is left out: there it only says what a missing cell is trained with.
    """
    return {
        name: text
        for name, text in explore.items()
        if name in ("metric", "filter", *FILTERED) or (name in _SINGLE and text != ANY and "," not in text)
    }


def explore_query(
    explore: Mapping[str, Any], overview: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], axes: Sequence[str]
) -> dict[str, str]:
    """Return the query of Explore that shows ``rows``, the configs of Overview that its brushes on ``axes`` keep.

    ``explore`` and ``overview`` are the states of both pages; axes, curves and options of Explore stay. A brush on the
    metric names its configs in the filter expression: a condition on the metric would leave out seeds. Raises
    FieldError if they are too many for that.
    """
    state, own = dict(explore), axes_of(explore)

    def set_filter(name: str, value: Any) -> None:
        state[filter_key(name, name in own)] = value

    state |= {"metric": overview["metric"], "filter": overview["filter"], CELLS: []}
    for name in FILTERED:
        chosen, values = overview[filter_key(name, True)], in_order(name, {row[name] for row in rows})
        # What has one value alone is held there: a missing cell is trained with it.
        if name in axes or (not chosen and len(values) == 1 and name not in own):
            chosen = (values[0], values[-1]) if FIELDS[name].kind in ("int", "float") else list(values)
        set_filter(name, chosen)
    for name in _SINGLE:
        set_filter(name, [overview[name]])
    if METRIC in axes:
        named = f"config_id in ({', '.join(repr(str(row['config_id'])) for row in rows)})"
        state["filter"] = f"({state['filter']}) and {named}" if state["filter"] else named
        if len(state["filter"]) > MAX_TEXT:
            raise FieldError(
                "configurations", len(rows), "are too many for a filter expression",
                "drag over a smaller part of the metric, or along a hyperparameter as well",
            )  # fmt: skip
    return EXPLORE.write(state)

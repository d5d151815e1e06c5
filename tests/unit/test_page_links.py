"""What Explore and Overview hand to each other."""

import pytest

from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError
from jsc_explore.view_model.page_links import explore_query, overview_query
from jsc_explore.view_model.url_params import EXPLORE, OVERVIEW


def test_overview_takes_the_filters_that_explore_sets_and_nothing_that_stays_at_its_default():
    explore = {
        "x": "model", "metric": "test_acc", "filter": "not silent", "batch_size": "16..64", "model": "any",
        "band": "none",
        "cells": "jsc-s:1e-3", "dataset": "any", "validation": "holdout",
    }  # fmt: skip
    taken = overview_query(explore)
    assert taken == {
        "metric": "test_acc", "filter": "not silent", "batch_size": "16..64", "model": "any", "validation": "holdout",
    }  # fmt: skip
    state, faults = OVERVIEW.read(taken)
    assert faults == []
    assert OVERVIEW.write(state) == {name: text for name, text in taken.items() if name != "model"}
    assert overview_query(EXPLORE.write(EXPLORE.read({})[0])) == {}


def rows_of(*runs):
    return [{**run.to_dict(), "config_id": f"{place:032x}"} for place, run in enumerate(runs)]


def test_explore_shows_the_configs_that_overview_keeps():
    explore = EXPLORE.read({"x": "batch_size", "y": "learning_rate", "band": "none", "cells": "16:1e-3"})[0]
    overview = OVERVIEW.read({"model": "jsc-s,jsc-tiny", "metric": "test_acc", "validation": "holdout"})[0]
    rows = rows_of(RunConfig(batch_size=16, final_relu=False), RunConfig(batch_size=64, final_relu=False))
    query = explore_query(explore, overview, rows, ("batch_size", "final_relu"))
    assert query["batch_size"] == "16..64"
    assert query["final_relu"] == "no"
    assert query["model"] == "jsc-s,jsc-tiny"
    assert (query["metric"], query["validation"], query["band"]) == ("test_acc", "holdout", "none")
    assert "cells" not in query
    assert "max_epochs" not in query, "what has one value in all of them is held there"
    assert EXPLORE.read(query)[1] == []
    rows += rows_of(RunConfig(batch_size=16, final_relu=False, max_epochs=3))
    # Explore holds a hyperparameter at its default, Overview does not.
    assert explore_query(explore, overview, rows, ("batch_size", "final_relu"))["max_epochs"] == "any"


def test_a_brush_on_the_metric_names_its_configs_and_leaves_out_no_seed():
    explore, overview = EXPLORE.read({})[0], OVERVIEW.read({"filter": "not silent"})[0]
    rows = rows_of(*(RunConfig(batch_size=16 + place) for place in range(60)))
    query = explore_query(explore, overview, rows[:2], ("metric",))
    assert query["filter"] == f"(not silent) and config_id in ('{0:032x}', '{1:032x}')"
    assert EXPLORE.read(query)[1] == []
    with pytest.raises(FieldError, match="configurations = 60: are too many"):
        explore_query(explore, overview, rows, ("metric",))

"""URL parameters: what a page's state looks like in its URL, and what is said of a URL that is not valid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.view_model.slice import Slice, slice_of
from jsc_explore.view_model.url_params import COMPARE, DATA, EXPLORE, OVERVIEW, filter_key, read_config, write_config

PAGES = {"explore": EXPLORE, "compare": COMPARE, "overview": OVERVIEW, "data": DATA}
QUERIES = {
    "explore": {
        "x": "max_epochs", "y": "model", "facet": "final_relu", "metric": "val_loss", "filter": "val_acc > 0.5",
        "panel": "response", "against": "learning_rate", "lines": "none",
        "curve": "loss", "curve_x": "step", "x_scale": "log", "log_y": "yes", "band": "range", "seed_lines": "no",
        "colour": "batch_size", "smoothing": "0.5", "zoom": "1..5", "imported": "none", "seeds": "10",
        "train_on_click": "no", "presentation": "yes", "batch_size": "16..64", "optimizer": "adam,sgd",
        "max_epochs": "5..10", "cells": "5:jsc-tiny:yes~10:16-8-5:no",
    },
    "compare": {"metric": "test_acc", "curve": "val_loss", "a": "batch_size:16", "b": "default", "seed": "3"},
    "overview": {"metric": "val_loss", "validation": "holdout", "filter": "seed < 3", "against": "model",
                 "lines": "final_relu", "batch_size": "16", "model": "jsc-toy"},
    "data": {"dataset": "openml", "jet": "t", "feature": "zlogz", "log_x": "yes", "log_y": "yes", "mass": "heavy",
             "correlations": "g"},
}  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_a_state_is_written_as_it_was_read(page):
    state, faults = PAGES[page].read(QUERIES[page])
    assert faults == []
    assert PAGES[page].write(state) == QUERIES[page]
    assert PAGES[page].read(PAGES[page].write(state)) == (state, [])


@pytest.mark.parametrize("page", PAGES)
def test_a_page_without_parameters_is_at_its_defaults(page):
    state, faults = PAGES[page].read({})
    assert faults == []
    assert PAGES[page].write(state) == {}


@pytest.mark.parametrize("page", PAGES)
@given(
    query=st.dictionaries(
        st.text(max_size=8) | st.sampled_from(["x", "a", "cells", "zoom", *FIELDS]), st.text(max_size=12)
    )
)
def test_no_url_is_an_error_of_the_program_and_each_bad_parameter_is_named(page, query):
    state, faults = PAGES[page].read(query)
    assert PAGES[page].read(PAGES[page].write(state))[1] == []
    unknown = [name for name in query if name not in PAGES[page].params and name not in FIELDS and name != "cells"]
    assert len(faults) >= len(unknown)


def test_a_data_set_of_another_page_is_no_list_of_letters():
    """The Data page wrote its data set into the URL as a list, and Explore read its letters as data sets."""
    state, _ = EXPLORE.read({"dataset": "simulated"})
    assert state["dataset"] == ["simulated"]
    assert OVERVIEW.read({"dataset": "simulated"})[0]["dataset"] == "simulated"


def test_a_field_on_two_axes_is_moved_and_reported():
    state, faults = EXPLORE.read({"x": "learning_rate", "facet": "learning_rate"})
    assert (state["x"], state["y"], state["facet"]) == ("learning_rate", "batch_size", "none")
    assert faults == ["two axes hold the same field (one of them is left out)"]


def test_a_filter_belongs_to_the_role_of_its_field():
    state, _ = EXPLORE.read({"batch_size": "16..64", "max_epochs": "5"})
    assert state[filter_key("batch_size", True)] == (16, 64)
    assert state[filter_key("batch_size", False)] == (256, 256)
    assert state[filter_key("max_epochs", False)] == (5, 5)
    assert state[filter_key("max_epochs", True)] is None


def test_a_slice_is_a_key_and_equal_states_give_equal_ones():
    slices = {slice_of(EXPLORE.read({"batch_size": "16..64", "model": "jsc-tiny,jsc-toy"})[0]) for _ in range(2)}
    assert len(slices) == 1
    assert isinstance(slices.pop(), Slice)


def test_a_config_in_a_url_says_what_differs():
    config = RunConfig(model="16-64/tanh-5", learning_rate=1e-2)
    assert read_config(write_config(config)) == config
    assert write_config(RunConfig()) == "default"

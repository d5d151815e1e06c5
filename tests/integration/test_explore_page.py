"""Views without a browser: what each input of the page accepts and refuses, and how light it is."""

import asyncio
import dataclasses
import os
import re
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st
from page_session import PageSession, texts
from runs import record_of
from servers import ROOT, running_app
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.testing.v1 import AppTest

from jsc_explore import paths
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.jobs.engine.supervisor import Supervisor
from jsc_explore.jobs.queue import EngineState, Job, Queue
from jsc_explore.jobs.submit import identify
from jsc_explore.store import Store
from jsc_explore.store.query.filters import Between
from jsc_explore.training.backends.vmap.program import ProgramSpec
from jsc_explore.view_model import url_params
from jsc_explore.view_model.questions import QUESTIONS
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.tables import command
from jsc_explore.web.components import cell_details, job_list, saved_views
from jsc_explore.web.pages.explore import WATCH_S
from jsc_explore.web.state import services
from jsc_explore.web.state.cached_repository import CachedRepository
from jsc_explore.web.state.live import LiveSnapshot


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(ROOT / "results.parquet"))
    # The engine has its own tests; here the page alone is asked.
    monkeypatch.setattr(Supervisor, "start", lambda self: None)
    monkeypatch.setattr(Supervisor, "stop", lambda self: None)
    for resource in (services.store, services.queue, services.live, services.supervisor):
        resource.clear()
    yield AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)
    for resource in (services.store, services.queue, services.live, services.supervisor):
        resource.clear()


def test_the_page_says_in_one_line_what_is_seen(app):
    app.run()
    assert not app.exception
    assert "180 runs, 6 of 42 cells missing" in texts(app.caption)
    assert "##### Validation accuracy · jsc-tiny · 10 epochs" in texts(app.markdown)
    assert "† In 119 of 180 runs a class is never predicted." in texts(app.caption)


def test_every_value_that_is_held_fixed_is_on_the_page_and_opens_its_control(app):
    app.run()
    for text in (
        "jsc-tiny", "10 epochs", "final ReLU on", "validated on training data", "Adam", "cosine schedule",
        "no weight decay", "no early stopping", "precision 32-true", "simulated jets",
    ):  # fmt: skip
        assert text in chips(app)
    # The momentum has no effect with Adam, and batch size and learning rate are on the axes.
    assert not [text for text in chips(app) if "momentum" in text or "batch size" in text]


def chips(app):
    """Return the texts of the values that are held fixed."""
    blocks = (one for child in app.main.children.values() for one in _blocks(child))
    return [block.proto.popover.label.replace("\\", "") for block in blocks]


def _blocks(block):
    yield from ([block] if block.type == "popover" else [])
    for child in getattr(block, "children", {}).values():
        yield from _blocks(child)


def test_a_click_compares_the_grids_with_and_without_the_final_relu_side_by_side(app):
    app.run()
    button = next(one for one in app.button if one.label == "Compare without the final ReLU")
    button.click().run()
    assert not app.exception
    assert app.query_params["facet"] in ("final_relu", ["final_relu"])
    assert "360 runs, 12 of 84 cells missing" in texts(app.caption)
    assert not [one for one in app.button if one.label == "Compare without the final ReLU"]


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_a_question_opens_the_view_that_answers_it(app, number):
    state, faults = url_params.EXPLORE.read(QUESTIONS[number].query)
    assert not faults
    # Whoever reads the answer must not be misled by classes that are never predicted, or by training jets.
    assert state["validation"] == ["holdout"]
    assert state.get("final_relu") == [False] or state["y"] == "final_relu"


def test_the_best_config_is_named_with_the_number_it_was_chosen_from_and_its_held_back_seeds_are_trained(app):
    app.query_params["model"] = "jsc-s"
    app.run()
    assert not app.exception
    said = texts(app.caption)
    assert "Best of 32 configurations with at least 3 of the seeds 0 to 4 without a silent class: " in said
    assert "not distinguishable from it (Holm, 5%)" in said
    next(button for button in app.button if button.label == "Train 10 held-back seeds").click().run()
    assert not app.exception
    jobs = services.queue().jobs()
    assert sorted(job.config.seed for job in jobs) == list(range(5, 15))
    assert len({job.config_id for job in jobs}) == 1


def test_the_metric_by_one_hyperparameter_stands_beside_the_curves_and_the_url_holds_it(app):
    app.run()
    panel = app.segmented_control(key="explore panel")
    assert (panel.value, list(panel.options)) == ("curves", ["Curves", "Metric by batch size"])
    panel.set_value("response").run()
    assert not app.exception
    assert app.query_params["panel"] == "response"
    assert "open: each of the seeds has a silent class" in texts(app.caption)
    with pytest.raises(KeyError):
        app.selectbox(key="explore curve")  # only what is shown is computed
    app.selectbox(key="explore against").set_value("learning_rate").run()
    assert app.segmented_control(key="explore panel").options[1] == "Metric by learning rate"
    assert app.selectbox(key="explore lines").value == "auto"  # the other axis of the grid takes its place
    app.selectbox(key="explore lines").set_value("none").run()
    assert not app.exception
    assert {name: app.query_params[name] for name in ("against", "lines")} == {
        "against": "learning_rate", "lines": "none"
    }  # fmt: skip
    assert "wide bar: middle half of the runs of several configs" in texts(app.caption)


@pytest.mark.parametrize(
    "query", ["against=patience&lines=patience", "x=model&y=final_relu&facet=batch_size&model=any"]
)
def test_the_metric_can_be_drawn_against_what_does_not_vary_and_in_facets(app, query):
    for part in query.split("&"):
        name, value = part.split("=")
        app.query_params[name] = value
    app.query_params["panel"] = "response"
    app.run()
    assert not app.exception
    assert not app.error
    assert "Point: median of the " in texts(app.caption)


def test_without_a_finished_run_the_panel_says_what_to_do(app):
    app.query_params.update({"panel": "response", "model": "16-7-5"})
    app.run()
    assert not app.exception
    assert "No finished run passes the filters: click a + to train one, or widen a filter." in texts(app.info)


async def curves_and_watch_at_once(url):
    """Draw the curves and, before their end is sent, run the fragment that watches for changes; return the ends."""
    async with PageSession(url) as session:
        await session.open()
        while WATCH_S not in (intervals := {every: name for name, (every, _) in session._intervals.items()}):
            await session.stay(0.5)
        _, curves = session.widgets["explore curve"]
        session.ends.clear()
        await session.request(curves)
        await session.request(intervals[WATCH_S], is_auto=True)
        async with asyncio.timeout(20):
            while ForwardMsg.FINISHED_SUCCESSFULLY not in session.ends:
                await session.read()


def test_elements_do_not_stay_where_the_end_of_a_drawing_was_withdrawn(tmp_path):
    """Streamlit withdraws the end of a fragment's run if another fragment starts: the browser removes nothing then."""
    with running_app(tmp_path / "store", "--read-only") as app:
        asyncio.run(curves_and_watch_at_once(app.url))


def test_a_grid_that_is_drawn_anew_forgets_what_the_last_one_reported(app):
    app.session_state["_grid"] = (set(), {"shift-clicked before another page was visited"}, set())
    app.run()
    assert not app.exception
    assert "_grid" not in app.session_state


def test_an_honest_protocol_is_not_called_dishonest(app):
    app.query_params["validation"] = "holdout"
    app.run()
    assert "measured on the training jets" not in texts(app.markdown)
    assert "180 runs, 6 of 42 cells missing" in texts(app.caption)


def address(app):
    return {key: text if isinstance(text, str) else text[0] for key, text in app.query_params.items()}


def widget_keys(app):
    return {str(box.key) for box in (*app.multiselect, *app.select_slider)}


def test_every_field_has_a_filter_made_from_its_kind_the_rare_ones_behind_a_door(app):
    app.run()
    assert "explore range learning_rate@axis" not in widget_keys(app)
    app.session_state["more_filters"] = True
    app.run()
    for name, spec in FIELDS.items():
        if name != "seed":
            kind = "range" if spec.kind in ("int", "float") else "choices"
            role = "@axis" if name in ("batch_size", "learning_rate") else ""
            assert f"explore {kind} {name}{role}" in widget_keys(app)


def test_other_axes_turn_the_fields_they_replace_into_filters(app):
    app.query_params["x"] = "Final ReLU"
    app.session_state["more_filters"] = True
    app.run()
    assert not app.exception
    assert {"explore range batch_size", "explore choices final_relu@axis"} <= widget_keys(app)
    assert "batch size 256" in chips(app)


def test_a_filter_narrows_what_is_seen_stands_in_the_address_and_counts_its_choices(app):
    app.query_params["filter"] = "not silent"
    app.query_params["final_relu"] = "any"
    app.session_state["more_filters"] = True
    app.run()
    assert not app.exception
    assert "241 runs, 6 of 42 cells missing, where not silent." in texts(app.caption)
    relu = app.multiselect(key="explore choices final_relu")
    assert relu.options == ["yes (61)", "no (180)"]
    relu.set_value([False]).run()
    assert "180 runs" in texts(app.caption)
    assert address(app)["final_relu"] == "no"
    app.select_slider(key="explore range batch_size@axis").set_value((64, 512)).run()
    assert address(app)["batch_size"] == "64..512"
    assert "0 of 24 cells missing" in texts(app.caption)


def test_a_bad_filter_in_words_shows_where_it_is_wrong_and_the_one_before_stays(app):
    app.query_params["filter"] = "silent"
    app.run()
    assert "119 runs" in texts(app.caption)
    app.text_input(key="explore expression").set_value("val_acc > 0.7 and silnt").run()
    assert "did you mean silent?" in texts(app.error)
    assert any(code.value.endswith("\n" + " " * 18 + "^") for code in app.code)
    assert "119 runs" in texts(app.caption)
    app.text_input(key="explore expression").set_value("").run()
    assert "180 runs" in texts(app.caption)
    assert "filter" not in app.query_params


def test_the_filter_expression_has_its_columns_and_examples_one_click_away(app):
    app.run()
    assert "learning rate >= 1e-3" not in texts(app.markdown)
    app.session_state["explore expression help"] = True
    app.run()
    assert not app.exception
    assert "learning rate >= 1e-3 and batch size in (64, 128)" in texts(app.markdown)
    assert "| batch size | `batch_size` | jets per optimizer step |" in texts(app.markdown)
    app.text_input(key="explore expression").set_value("accuracy > 70% and batch size = 16-64").run()
    assert "'" not in texts(app.error)
    app.text_input(key="explore expression").set_value("accuracy > 70% and network = 16 - x").run()
    assert "Network (model) '16 - x'" in texts(app.error)
    app.text_input(key="explore expression").set_value("accuracy > 70% and network = jsc - tiny").run()
    assert address(app)["filter"] == "accuracy > 70% and network = jsc - tiny"


def test_several_values_of_a_filter_make_cells_of_several_configs_and_a_facet_parts_them(app):
    app.query_params["final_relu"] = "yes,no"
    app.run()
    assert "final ReLU yes or no" in chips(app)
    assert "360 runs" in texts(app.caption)
    assert "×: several configs in a cell, with the range of their runs" in texts(app.caption)
    app.selectbox(key="explore facet").set_value("final_relu").run()
    assert not app.exception
    assert "12 of 84 cells missing" in texts(app.caption)
    assert "**Final ReLU: no**" in texts(app.markdown)


@pytest.mark.parametrize(
    "query",
    [
        {"curve": "loss", "curve_x": "lr_sum", "x_scale": "log", "log_y": "yes", "band": "range", "smoothing": "0.5"},
        {
            "colour": "batch_size",
            "dash": "final_relu",
            "curve_facet": "learning_rate",
            "final_relu": "any",
            "seed_lines": "no",
            "context": "yes",
        },
        {"zoom": "1..5", "presentation": "yes", "metric": "train_time_s", "seeds": "10", "band": "range"},
        {"x": "model", "y": "final_relu", "facet": "learning_rate", "metric": "best_test_acc", "band": "none"},
        {"filter": "val_acc > 2"},
        {"batch_size": "4096..8192"},
    ],
)
def test_every_way_to_draw_is_drawn_and_its_address_comes_back_unchanged(app, query):
    for key, text in query.items():
        app.query_params[key] = text
    app.run()
    assert not app.exception
    assert not app.warning
    assert address(app) == query


def test_three_switches_say_what_stands_beside_the_medians_and_a_choice_stands_in_the_address(app):
    names = ("seed_lines", "band", "context")

    def switches():
        return [next(one.value for one in app.toggle if str(one.key).startswith(f"switch {name} ")) for name in names]

    app.run()
    assert switches() == [False] * 3, "the default row has more than three lines"
    app.query_params["cells"] = "64:1e-3"
    app.run()
    assert switches() == [True] * 3
    assert address(app) == {"cells": "64:1e-3"}, "a default is not written"
    for name in names:
        app.toggle(key=f"switch {name} True").set_value(False).run()
    assert not app.exception
    assert switches() == [False] * 3
    assert address(app) == {"cells": "64:1e-3", "seed_lines": "no", "band": "none", "context": "no"}
    assert not any(word in texts(app.caption) for word in ("band:", "faint:", "grey:"))
    app.toggle(key="switch band False").set_value(True).run()
    assert address(app)["band"] == "interval"
    assert "band: 95% interval" in texts(app.caption)


def test_data_that_are_not_fetched_are_named_with_the_command_that_fetches_them(app, monkeypatch, tmp_path):
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "cache"))
    app.query_params["dataset"] = "openml"
    app.run()
    assert not app.exception
    assert "jsc-explore data fetch openml" in texts(app.info)


def test_a_store_that_is_a_file_is_one_line_on_the_page(app, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(tmp_path / "file"))
    app.run()
    assert not app.exception
    assert "is a file, not a directory" in texts(app.error)


def test_a_store_that_is_renamed_while_the_page_is_open_is_told_and_not_made_again(app, tmp_path):
    app.run()
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    services.live().invalidate()
    app.run()
    assert not app.exception
    assert "is gone (its directory was renamed, removed or replaced" in texts(app.error)
    assert not (tmp_path / "store").exists()


def test_a_foreign_snapshot_is_named_and_the_page_goes_on(app, monkeypatch, tmp_path):
    (tmp_path / "foreign.parquet").write_bytes(b"PAR1 not really")
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(tmp_path / "foreign.parquet"))
    app.run()
    assert not app.exception
    assert "cannot be read as Parquet" in texts(app.warning)
    assert "0 runs" in texts(app.caption)


def test_what_is_wrong_with_the_engine_or_its_disk_stands_on_the_page(app, tmp_path):
    with closing(Queue(tmp_path / "store")) as queue:
        queue.set_heartbeat(os.getpid(), "store s: its disk is full; make room: what is trained waits in memory")
        app.run()
        assert "its disk is full; make room" in texts(app.warning)
        queue.set_heartbeat(os.getpid())
        services.live().invalidate()
        app.run()
        assert texts(app.warning) == ""


def test_a_bad_address_is_told_by_line(app):
    bad = {
        "learning_rte": "3", "batch_size": "abc", "optimizer": "adma", "x": "Batch sise", "metric": "val_ac",
        "curve": "acuracy", "curve_x": "epoc", "x_scale": "logg", "smoothing": "7", "zoom": "3..1", "filter": "ded",
        "presentation": "si", "cells": "256:1e-3~16:abc",
    }  # fmt: skip
    for key, text in bad.items():
        app.query_params[key] = text
    app.run()
    assert not app.exception
    warnings = texts(app.warning)
    assert "did you mean learning_rate?" in warnings
    assert "batch_size = 'abc': must be a whole number" in warnings
    assert "optimizer = 'adma': must be one of adam, adamw, sgd; try adam" in warnings
    assert all(
        f"In the URL: {key} = " in warnings
        for key in ("x", "metric", "curve", "curve_x", "x_scale", "presentation", "zoom")
    )
    assert "filter = 'ded'" in warnings
    assert len(app.warning) == len(bad)
    app.run()
    assert len(app.warning) == len(bad), "they stay until they are dismissed"
    next(button for button in app.button if button.label == "Dismiss").click().run()
    assert len(app.warning) == 0
    assert "180 runs, 6 of 42 cells missing" in texts(app.caption)


def test_faults_passes_over_what_is_right_and_what_belongs_to_streamlit():
    def faults(query):
        return url_params.EXPLORE.read(query)[1]

    assert faults({"x": "Epochs", "y": "learning_rate", "cells": "1:1e-3", "model": "any"}) == []
    assert len(faults({"x": "max_epochs", "max_epochs": "abc"})) == 1
    assert len(faults({"x": "model", "y": "model"})) == 1


@given(st.sampled_from([name for name in FIELDS if name != "seed"]), st.data())
def test_a_filter_written_into_an_address_is_read_back(name, draw):
    values = draw.draw(st.lists(st.sampled_from(FIELDS[name].default_values), min_size=1, max_size=4, unique=True))
    value = (min(values), max(values)) if FIELDS[name].kind in ("int", "float") else values
    for axis in (True, False):
        param = url_params.filter_param(name, axis)
        assert param.read(param.write(value)) == value
        assert not param.read("any")


def test_the_command_line_beside_a_cell_is_the_one_that_answers_it():
    run = RunConfig(model="16-32-5 act=tanh", learning_rate=1e-2, final_relu=False)
    text = command(run, [0, 1, 2])
    assert text == "jsc-explore train --model 16-32/tanh-5 --learning-rate 1e-2 --final-relu no --seeds 3"
    assert command(RunConfig(), [4, 5]) == "jsc-explore train --seed 4 --seeds 2"
    assert command(RunConfig(), [0, 7]) == "jsc-explore train --seed 0\njsc-explore train --seed 7"


def view_of(**filters):
    base = RunConfig()
    return Slice("batch_size", "learning_rate", None, "val_acc", base, "d", tuple(filters.items()), "", 5, True)


def test_a_config_is_described_by_its_axes_and_by_what_differs():
    view = view_of()
    assert cell_details.describe(RunConfig(batch_size=16), view) == "batch size 16, learning rate 1e-3"
    assert (
        cell_details.describe(RunConfig(optimizer="sgd"), view) == "batch size 256, learning rate 1e-3, optimizer sgd"
    )


def test_a_job_belongs_to_the_slice_whose_filters_it_passes():
    view = view_of(batch_size=Between(16, 64), optimizer=["adam"], momentum=Between(0.5, 0.5))
    assert view.passes(RunConfig(batch_size=64))
    assert not view.passes(RunConfig(batch_size=128))
    assert not view.passes(RunConfig(batch_size=64, optimizer="sgd"))


def job_of(run, state, asked):
    return Job(run.run_id("d"), run.config_id("d"), run, state, 0, 1, False, 5, 10, asked, 1.0, None, None)


def test_rows_of_what_is_under_way_keep_their_order_when_one_ends():
    first, second = RunConfig(batch_size=16), RunConfig(batch_size=32)
    before = job_list.groups_of([job_of(first, "running", 1.0), job_of(second, "running", 2.0)], [])
    after = job_list.groups_of([job_of(second, "running", 2.0)], [job_of(first, "cancelled", 1.0)])
    assert [group.config for group in before] == [group.config for group in after] == [first, second]
    assert [group.state for group in after] == ["cancelled", "running"]
    assert after[0].active == []


def test_a_job_whose_program_is_being_compiled_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "cache"))
    run = RunConfig(precision="bf16-mixed", max_epochs=10)
    with closing(Store(tmp_path / "store", paths.snapshot())) as store:
        monkeypatch.setattr(services, "store", lambda: store)

        def text(step):
            job = dataclasses.replace(job_of(run, "running", 1.0), step=step, total_steps=8440)
            return job_list.status(job_list.Group((job,)), LiveSnapshot(active=(job,)), view_of())

        assert re.match(r"1 seed, epoch 2 of 10, compiling its program, .* so far, about .* left$", text(844))
        assert "compiling" not in text(843) + text(845)
        program = ProgramSpec.of(run, "cpu").path
        program.parent.mkdir(parents=True)
        program.touch()
        assert "compiling" not in text(844)


@pytest.fixture
def under_way(tmp_path, monkeypatch):
    """A snapshot of one config in training and two that wait, as of 20 s after their start."""
    first, second, third = (RunConfig(batch_size=batch) for batch in (16, 32, 64))
    jobs = [
        dataclasses.replace(job_of(first, "running", 1.0), expected_s=40.0, started_at=2.0),
        dataclasses.replace(job_of(second, "queued", 12.0), expected_s=30.0, step=0),
        dataclasses.replace(job_of(third, "queued", 13.0), expected_s=30.0, step=0),
    ]
    monkeypatch.setattr(job_list.time, "time", lambda: 22.0)
    monkeypatch.setattr(job_list.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(job_list, "_expected", lambda jobs: 30.0)
    monkeypatch.setattr(job_list, "waits_for_program", lambda store, job: False)
    monkeypatch.setattr(services, "store", lambda: None)
    return LiveSnapshot(active=tuple(jobs), engine=EngineState(1, 0.0, ""))


def test_each_job_says_what_it_does_how_long_and_how_long_it_will_take(under_way):
    def texts(snapshot):
        return [job_list.status(group, snapshot, view_of()) for group in job_list.groups_of(snapshot.active, [])]

    # Half of ten epochs took 20 s. Ahead of the second are 20 s of one run; of the third 50 s of two, on two cores.
    assert texts(under_way) == [
        "1 seed, epoch 6 of 10, 20 s so far, about 20 s left",
        "1 seed, waiting behind batch size 16, learning rate 1e-3, 10 s so far, about 50 s left",
        "1 seed, waiting behind 2 configurations, 9 s so far, about 60 s left",
    ]
    alone = dataclasses.replace(under_way, active=under_way.active[1:2])
    assert texts(alone) == ["1 seed, waiting for a worker, 10 s so far, about 30 s left"]
    without_engine = dataclasses.replace(alone, engine=None)
    assert texts(without_engine) == ["1 seed, waiting for the engine to start, 10 s so far, about 30 s left"]
    unknown = dataclasses.replace(
        under_way, active=(dataclasses.replace(under_way.active[0], expected_s=0.0), under_way.active[1])
    )
    assert texts(unknown)[1].endswith("10 s so far"), "no time is claimed where none is known"
    assert "%" not in "".join(texts(under_way))


def test_several_configs_are_summed_up_in_one_line(under_way):
    groups = job_list.groups_of(under_way.active, [])
    ended = job_list.groups_of([], [job_of(RunConfig(model="jsc-s"), state, 3.0) for state in ("failed", "done")])
    assert job_list.summary(groups, [])[1] == "3 configurations: 1 of 3 runs in training, about 40 s left"
    assert job_list.summary(groups, ended)[1].endswith("about 40 s left, 1 failed")
    two = [job_list.Group((job_of(RunConfig(batch_size=16), state, 3.0),)) for state in ("failed", "done")]
    assert job_list.summary([], two) == (1.0, "2 configurations: 1 failed, 1 finished")


def jobs_text(app):
    shown = [element.proto.text for element in app.get("progress")]
    return re.sub(r"\\(.)", r"\1", " ".join(shown)) or texts([one for one in app.caption if "training" in one.value])


def test_jobs_stand_in_one_line_and_finished_ones_fold_away_and_are_cleared(app):
    app.run()
    assert "Nothing is waiting or training." in texts(app.caption)
    runs = identify(RunConfig(batch_size=1024, learning_rate=rate, seed=0) for rate in (1e-3, 1e-2))
    first, second = runs
    queue = services.queue()
    queue.request({first: runs[first]})
    queue.request({second: runs[second]})
    services.live().invalidate()
    app.run()
    assert not app.exception
    assert "2 configurations: 0 of 2 runs in training" in jobs_text(app)
    assert not [button for button in app.button if button.label == "Cancel"]
    queue.finish(first, "failed", "Traceback\nValueError: no memory")
    services.live().invalidate()
    app.run()
    # One row: what is active. What ended is in the popover.
    assert jobs_text(app).startswith("Batch size 1024, learning rate 1e-2: 1 seed, waiting for the engine to start")
    queue.finish(second, "done")
    services.live().invalidate()
    app.run()
    assert "2 configurations: 1 failed, 1 finished" in jobs_text(app)
    app.session_state["all_jobs"] = True
    app.run()
    assert "failed: ValueError: no memory" in jobs_text(app)
    next(button for button in app.button if button.label == "Clear finished").click().run()
    assert not app.exception
    assert "Nothing is waiting or training." in texts(app.caption)


def test_a_qr_code_is_a_picture_of_its_address_alone():
    code = saved_views.qr_code("http://localhost:8501/?x=model")
    assert code.startswith(b"\x89PNG")
    assert (
        code
        == saved_views.qr_code("http://localhost:8501/?x=model")
        != saved_views.qr_code("http://localhost:8501/?y=model")
    )


def test_curves_are_read_once_but_not_kept_while_one_of_their_runs_is_gone(tmp_path, monkeypatch):
    runs = [record_of(RunConfig(seed=seed)) for seed in (0, 1)]
    question = (tuple(run.run_id for run in runs), "epoch", ("val_acc",), None, 1000, True)
    with closing(Store(tmp_path / "store")) as store:
        monkeypatch.setattr(services, "store", lambda: store)
        store.add(runs[0])
        assert set(CachedRepository().curves(*question).seeds["seed"].to_pylist()) == {0}
        store.add(runs[1])
        both = CachedRepository().curves(*question)
        assert set(both.seeds["seed"].to_pylist()) == {0, 1}
        assert CachedRepository().curves(*question) is both


def test_a_sample_of_ones_own_is_offered_and_a_missing_one_is_named_with_its_command(app, monkeypatch, tmp_path):
    from jsc_explore import data
    from jsc_explore.data import cache
    from jsc_explore.data.sources import SourceData

    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path))
    jets = data.load("simulated")
    cache.write(tmp_path, "simulated-mine", SourceData(jets.features[:500], jets.labels[:500], "", "MIT", ""))
    app.query_params["dataset"] = "simulated-elsewhere"
    app.session_state["more_filters"] = True
    app.run()
    assert not app.exception
    assert "jsc-explore data simulate --name elsewhere" in texts(app.info)
    assert "simulated-mine (0)" in app.multiselect(key="explore choices dataset").options
    app.multiselect(key="explore choices dataset").set_value(["simulated-mine"]).run()
    assert not app.exception
    assert "simulate --name" not in texts(app.info)

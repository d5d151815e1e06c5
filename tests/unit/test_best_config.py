"""The best config of a slice: chosen by the first seeds, measured by the others, of how many, and what it may lose."""

import re

import pytest
from runs import DIGEST, record_of

from jsc_explore.config import RunConfig
from jsc_explore.store import Store
from jsc_explore.view_model.best_config import HELD_BACK_SEEDS, best_text, find_best_config
from jsc_explore.view_model.repository import Repository
from jsc_explore.view_model.slice import Slice

RATES = (1e-4, 1e-3, 1e-2)


def slice_of(metric="val_acc", seeds=5):
    return Slice("learning_rate", "batch_size", None, metric, RunConfig(), DIGEST, (), "", seeds, True)


@pytest.fixture
def repository(tmp_path):
    """Three rates of five seeds, the last one best; its seeds 5 to 8 score much worse, and one of them is silent."""
    store = Store(tmp_path / "store")
    for place, (rate, mean) in enumerate(zip(RATES, (0.6, 0.698, 0.7), strict=True), 1):
        for seed in range(5):
            value = mean + 0.002 * (7 * seed * place % 5 - 2)
            store.add(
                record_of(RunConfig(learning_rate=rate, seed=seed), val_acc=value, val_loss=value, silent_classes=[])
            )
    for seed in range(5, 9):
        run = RunConfig(learning_rate=RATES[-1], seed=seed)
        store.add(record_of(run, val_acc=0.5 + seed / 1000, silent_classes=["t"] if seed == 8 else []))
    yield Repository(store)
    store.close()


def test_the_first_seeds_choose_and_the_others_measure(repository):
    found = find_best_config(repository, slice_of())
    assert found.config.learning_rate == RATES[-1]
    assert found.value == pytest.approx(0.7, abs=0.003)
    assert found.held_back == (0.505, 0.506, 0.507)
    assert found.n_held_back_silent == 1
    assert (found.best.n_configs, found.best.n_similar) == (3, 1)
    text = best_text(found, slice_of())
    assert text.startswith(
        "Best of 3 configurations with at least 3 of the seeds 0 to 4 without a silent class: "
        "learning rate 1e-2, batch size 256, median 70.0%. "
    )
    assert "1 other is not distinguishable from it (Holm, 5%)." in text
    assert re.search(r"is expected to score 0\.\d+ points worse\.", text)
    assert text.endswith(
        "Measured with 4 held-back seeds, which did not choose it: "
        "median 50.6% (range 50.5% to 50.7%), in 1 of them a class is silent."
    )


def test_the_runs_to_train_are_the_held_back_seeds_that_are_missing(repository):
    found = find_best_config(repository, slice_of())
    runs = found.next_held_back(5, active={9})
    assert [run.seed for run in runs] == list(range(10, 5 + HELD_BACK_SEEDS))
    assert {run.learning_rate for run in runs} == {RATES[-1]}


def test_more_seeds_for_the_grid_let_more_of_them_choose(repository):
    found = find_best_config(repository, slice_of(seeds=9))
    assert found.config.learning_rate == RATES[1]
    assert found.held_back == ()
    assert "held-back" not in best_text(found, slice_of(seeds=9))


def test_of_losses_the_lowest_is_best_and_times_have_none(repository):
    assert find_best_config(repository, slice_of("val_loss")).config.learning_rate == RATES[0]
    assert find_best_config(repository, slice_of("train_time_s")) is None
    assert find_best_config(repository, slice_of(seeds=2)) is None

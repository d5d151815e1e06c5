"""The Data page without a browser: what it says of the jets, and of jets that are not there."""

import numpy as np
import pytest
from page_session import texts
from streamlit.testing.v1 import AppTest

from jsc_explore import data
from jsc_explore.config import display_value
from jsc_explore.data import cache
from jsc_explore.data.glossary import CLASS_DESCRIPTIONS, CLASS_NAMES, NOTES, PAPERS
from jsc_explore.data.sources import SourceData
from jsc_explore.validation import criteria
from jsc_explore.web.components import data_validation, provenance


def _page():
    from jsc_explore.web.pages import data

    data.page()


@pytest.fixture
def app(tmp_path, monkeypatch):
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path / "cache"))
    return AppTest.from_function(_page, default_timeout=60)


def test_it_says_how_many_jets_of_how_many_kinds_and_how_they_are_split(app):
    app.run()
    assert not app.exception
    said = texts(app.markdown)
    assert "270,000 jets of 5 kinds, 54,000 of each; 16 features a jet" in said
    assert "| training data (as in the lab) | 216,000 | the same jets | 54,000 |" in said
    assert "| held-out data | 189,000 | 27,000 | 54,000 |" in said
    assert "Preset cernbox, seed 2018" in said
    assert data.digest("simulated") in texts(app.code)


@pytest.mark.parametrize("feature", data.FEATURES)
def test_every_feature_can_be_chosen_and_is_explained(app, feature):
    app.query_params["feature"] = feature
    app.query_params["log_x"] = "true"
    app.query_params["log_y"] = "true"
    app.run()
    assert not app.exception
    assert not app.error
    assert NOTES[feature].text in texts(app.markdown)
    assert NOTES[feature].formula in texts(app.latex)


def test_the_mean_of_a_feature_stands_beside_it(app):
    jets = data.load("simulated")
    mean = jets.features[jets.labels == 4, 14].mean(dtype=np.float64)
    app.run()
    table = next(element.value for element in app.markdown if element.value.startswith("| mass_mmdt (GeV)"))
    assert f"| {mean:.3g} |" in table.splitlines()[2]


@pytest.mark.parametrize("label", data.CLASSES)
def test_each_kind_of_jet_can_be_looked_at(app, label):
    app.query_params["jet"] = CLASS_NAMES[label]
    app.run()
    assert not app.exception
    assert CLASS_DESCRIPTIONS[label] in texts(app.caption)


def test_validation_has_a_row_per_class_and_feature_and_marks_the_worst(app):
    app.run()
    said = texts(app.markdown)
    assert "**Within our bounds**, which does not mean: like real jets in everything" in said
    assert "| W | **0.022 (worst)** | mass_mmdt 0.081 | **0.570 (worst)** |" in said
    assert "| mass_mmdt | **0.034 (worst)** | W 0.081 |" in said
    rows = said.splitlines()
    assert all(any(row.startswith(f"| {name} |") for row in rows) for name in data.FEATURES)
    assert all(any(row.startswith(f"| {name} | ") for row in rows) for name in CLASS_NAMES.values())


def test_jets_outside_our_bounds_are_named_as_such(app, monkeypatch):
    monkeypatch.setattr(criteria, "CRITERIA", (criteria.Criterion("feature_tv", "worst feature", "<=", 0.05),))
    data_validation._report.clear()
    app.run()
    data_validation._report.clear()
    said = texts(app.markdown)
    assert "**Outside our bounds**: worst feature." in said
    assert "| worst feature (mass_mmdt of W) | 0.081 | ≤ 0.05 | **outside** |" in said


def test_jets_that_are_not_fetched_are_named_with_their_command(app):
    app.query_params["dataset"] = "openml"
    app.run()
    assert not app.exception
    assert "jsc-explore data fetch openml" in texts(app.info)
    assert "What a jet is" in texts(app.markdown)


def test_jets_that_were_fetched_are_shown_with_what_their_publisher_said(app, tmp_path):
    rng = np.random.default_rng(0)
    features = rng.lognormal(size=(1000, 16)).astype(np.float32)
    release = SourceData(features, rng.integers(0, 4, 1000).astype(np.uint8), "https://example.org/jets", "CC0", "")
    (tmp_path / "cache").mkdir()
    cache.write(tmp_path / "cache", "openml", release)
    app.query_params["dataset"] = "openml"
    app.run()
    assert not app.exception
    said = texts(app.markdown)
    assert "1,000 jets of 4 kinds" in said
    assert "Licence: CC0" in said
    assert "seed" not in next(element.value for element in app.markdown if element.value.startswith("- **"))


def test_a_torn_file_is_one_line(app, tmp_path):
    rng = np.random.default_rng(0)
    features = rng.lognormal(size=(50, 16)).astype(np.float32)
    (tmp_path / "cache").mkdir()
    path = cache.write(tmp_path / "cache", "openml", SourceData(features, np.zeros(50, np.uint8), "", "", ""))
    path.write_bytes(path.read_bytes()[:1000])
    app.query_params["dataset"] = "openml"
    app.run()
    assert not app.exception
    assert "cannot be read as jets" in texts(app.info)


@pytest.mark.parametrize("validation", data.VALIDATIONS)
@pytest.mark.parametrize("n", [10, 11, 57, 1003])
def test_the_sizes_named_are_those_of_the_split(validation, n):
    features = np.random.default_rng(n).normal(size=(n, 16)).astype(np.float32)
    split = data.split(data.Jets("simulated", features, np.zeros(n, np.uint8), "d" * 64), validation)
    found = {"train": len(split.train_y), "val": len(split.val_y), "test": len(split.test_y)}
    assert data.part_sizes(n, validation) == found


def test_an_unknown_protocol_has_no_sizes():
    with pytest.raises(ValueError, match="must be one of train, holdout"):
        data.part_sizes(100, "half")


def test_the_table_of_splits_names_every_protocol():
    assert all(
        f"| {display_value('validation', validation)} |" in provenance.splits_table(1000)
        for validation in data.VALIDATIONS
    )


def test_every_feature_and_class_is_explained_and_every_paper_is_known():
    assert tuple(NOTES) == data.FEATURES
    assert tuple(CLASS_NAMES) == tuple(CLASS_DESCRIPTIONS) == data.CLASSES
    assert {note.paper for note in NOTES.values()} <= set(PAPERS)

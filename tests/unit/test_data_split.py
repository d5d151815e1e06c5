"""Splits: the lab's to the last row, the honest one disjoint, and what each standardises on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from jsc_explore.data import VALIDATIONS, Jets, split
from jsc_explore.data.splits import first_occurrences
from jsc_explore.errors import DataError, FieldError


def some_jets(rows: int, seed: int = 0) -> Jets:
    """Jets whose first feature is their own number, so that a row can be followed through a split."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.uniform(-3, 2, 16)
    features = (rng.normal(size=(rows, 16)) * scale + rng.normal(size=16)).astype(np.float32)
    features[:, 0] = np.arange(rows)
    return Jets("simulated", features, rng.integers(0, 5, rows).astype(np.uint8), "d" * 64)


def numbers(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> list[int]:
    return np.rint(x[:, 0] * scale[0] + mean[0]).astype(int).tolist()


@given(st.integers(10, 400), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_validating_on_training_data_is_the_labs_split_row_by_row(rows: int, seed: int) -> None:
    jets = some_jets(rows, seed)
    made = split(jets, "train")
    train_x, test_x, train_y, test_y = train_test_split(jets.features, jets.labels, test_size=0.2, random_state=42)
    scaler = StandardScaler().fit(train_x.astype(np.float64))
    np.testing.assert_array_equal(made.train_y, train_y)
    np.testing.assert_array_equal(made.test_y, test_y)
    np.testing.assert_allclose(made.train_x, scaler.transform(train_x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.test_x, scaler.transform(test_x.astype(np.float64)), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(made.mean, scaler.mean_, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(made.scale, scaler.scale_, rtol=1e-9)
    assert made.val_x is made.train_x
    assert made.val_y is made.train_y


@given(st.integers(10, 400), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_holdout_validates_on_a_tenth_and_tests_on_the_same_jets(rows: int, seed: int) -> None:
    jets = some_jets(rows, seed)
    holdout, lab = split(jets, "holdout"), split(jets, "train")
    rest, test = train_test_split(np.arange(rows), test_size=0.2, random_state=42)
    train, validation = train_test_split(rest, test_size=0.125, random_state=42)
    parts = [numbers(x, holdout.mean, holdout.scale) for x in (holdout.train_x, holdout.val_x, holdout.test_x)]
    assert parts == [train.tolist(), validation.tolist(), test.tolist()]
    assert numbers(lab.test_x, lab.mean, lab.scale) == parts[2]
    assert sorted(number for part in parts for number in part) == list(range(rows))
    np.testing.assert_array_equal(holdout.val_y, jets.labels[validation])


@pytest.mark.parametrize("validation", VALIDATIONS)
@given(rows=st.integers(10, 300), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_training_part_alone_is_standardised_to_zero_and_one(validation: str, rows: int, seed: int) -> None:
    made = split(some_jets(rows, seed), validation)
    np.testing.assert_allclose(made.train_x.mean(axis=0, dtype=np.float64), 0, atol=1e-6)
    np.testing.assert_allclose(made.train_x.std(axis=0, dtype=np.float64), 1, atol=1e-5)
    assert (made.mean.dtype, made.scale.dtype) == (np.float64, np.float64)
    for x, y in ((made.train_x, made.train_y), (made.val_x, made.val_y), (made.test_x, made.test_y)):
        assert (x.dtype, y.dtype, len(x)) == (np.float32, np.uint8, len(y))
        assert x.flags.c_contiguous
    assert (made.validation, made.digest) == (validation, "d" * 64)


# Few distinct values, so that repeats are many; -0.0 equals 0.0.
few = st.lists(
    st.tuples(st.sampled_from([0.0, -0.0, 1.0, 2.5]), st.sampled_from([0.0, 7.0]), st.integers(0, 1)), max_size=60
)


@given(few)
@settings(max_examples=100, deadline=None)
def test_the_first_of_equal_rows_is_kept(rows: list[tuple[float, float, int]]) -> None:
    features = np.zeros((len(rows), 16), np.float32)
    features[:, 3] = [row[0] for row in rows]
    features[:, 15] = [row[1] for row in rows]
    labels = np.array([row[2] for row in rows], np.uint8)
    seen: set[tuple[float, float, int]] = set()
    expected = [not (row in seen or seen.add(row)) for row in rows]  # Python too holds -0.0 == 0.0
    assert first_occurrences(features, labels).tolist() == expected


def test_duplicates_leave_before_the_split_and_do_not_disturb_the_order() -> None:
    jets = some_jets(300)
    again = np.concatenate([np.arange(300), np.arange(0, 300, 3)])
    twice = Jets(jets.name, jets.features[again], jets.labels[again], jets.digest)
    for validation in VALIDATIONS:
        one, two = split(jets, validation), split(twice, validation)
        np.testing.assert_array_equal(one.train_x, two.train_x)
        np.testing.assert_array_equal(one.test_y, two.test_y)


def test_equal_features_under_two_labels_are_two_jets() -> None:
    features = np.ones((2, 16), np.float32)
    assert first_occurrences(features, np.array([0, 1], np.uint8)).all()


def test_a_constant_feature_becomes_zero() -> None:
    jets = some_jets(1000)
    jets.features[:, 5] = 0.1
    made = split(jets, "holdout")
    assert made.scale[5] == 1
    np.testing.assert_allclose(made.test_x[:, 5], 0, atol=1e-6)


def test_splitting_leaves_the_jets_as_they_were() -> None:
    jets = some_jets(100)
    before = jets.features.copy()
    split(jets, "train").train_x[:] = 5
    np.testing.assert_array_equal(jets.features, before)


def test_too_few_jets() -> None:
    with pytest.raises(DataError, match="9 distinct jets"):
        split(some_jets(9), "train")


def test_an_unknown_validation_names_the_choices() -> None:
    with pytest.raises(FieldError, match="validation = 'lab': must be one of train, holdout"):
        split(some_jets(20), "lab")

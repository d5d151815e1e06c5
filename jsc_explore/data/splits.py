"""Split jets for training: drop duplicates, draw the parts, standardise the features."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from jsc_explore.data.jets import Features, Jets, Labels
from jsc_explore.errors import DataError, FieldError

VALIDATIONS = ("train", "holdout")

_TEST = 0.2
_VALIDATION = 1 / 8  # of the other 80%, so a tenth of all jets
_SEED = 42  # used in every paper on these data; independent of the seed of a run
_MIN_JETS = 10
# Rows per block: a float64 copy of a block stays in the CPU cache. A copy of all rows would take 100 MB of new memory,
# and the page faults would cost more than the arithmetic.
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Split:
    """Jets ready for training: ``*_x`` are ``(n, 16) float32``, standardised; ``*_y`` are ``(n,) uint8``.

    Attributes
    ----------
    mean, scale: ``(16,) float64``, in original units, of the training part alone: ``x = (feature - mean) / scale``.
    validation: one of ``VALIDATIONS``. Under ``train``, ``val_x is train_x``: what the lab calls validation accuracy is
        training accuracy in eval mode.
    digest: digest of the jets; together with ``validation`` it identifies the split.
    """

    train_x: Features
    train_y: Labels
    val_x: Features
    val_y: Labels
    test_x: Features
    test_y: Labels
    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    validation: str
    digest: str


def split(jets: Jets, validation: str) -> Split:
    """Split as the lab does (``train``: train and validate on the same 80%) or hold jets out (``holdout``: 70/10/20).

    The test part, 20%, is the same. Duplicate rows are dropped first, as in the lab's loader (DeepWok/mase, January
    2024, ``machop/chop/dataset/physical/jsc.py``). Raises FieldError for an unknown validation, DataError for fewer
    than 10 distinct jets.
    """
    _check_validation(validation)
    kept = np.flatnonzero(first_occurrences(jets.features, jets.labels))
    if len(kept) < _MIN_JETS:
        rule = f"{len(kept)} distinct jets, but a split needs at least {_MIN_JETS}"
        raise DataError(f"{jets.name}: {rule}; use a larger source")
    train, test = _draw(kept, _TEST)
    train, held_out = _draw(train, _VALIDATION) if validation == "holdout" else (train, train)
    mean, scale = _moments(jets.features, train)

    def standardised(rows: npt.NDArray[np.intp]) -> Features:
        return _standardised(jets.features, rows, mean, scale)

    train_x, train_y = standardised(train), jets.labels[train]
    has_own_part = held_out is not train
    return Split(
        train_x=train_x,
        train_y=train_y,
        val_x=standardised(held_out) if has_own_part else train_x,
        val_y=jets.labels[held_out] if has_own_part else train_y,
        test_x=standardised(test),
        test_y=jets.labels[test],
        mean=mean,
        scale=scale,
        validation=validation,
        digest=jets.digest,
    )


def part_sizes(distinct: int, validation: str) -> dict[str, int]:
    """Return the sizes of the parts ``train``, ``val`` and ``test`` into which ``split`` divides distinct jets.

    Under ``train`` the validation part is the training part. Raises FieldError for an unknown validation.
    """
    _check_validation(validation)
    test = _part_size(distinct, _TEST)
    held_out = _part_size(distinct - test, _VALIDATION) if validation == "holdout" else 0
    train = distinct - test - held_out
    return {"train": train, "val": held_out or train, "test": test}


def first_occurrences(features: Features, labels: Labels) -> npt.NDArray[np.bool_]:
    """Mark the first of equal rows, features and label together: ``(n,) bool``.

    Exact, and 0.07 s for a million rows instead of 0.8 s by sorting them: different 64-bit hashes prove that two rows
    differ, so only the few rows with equal hashes are compared.
    """
    hashes = labels.astype(np.uint64)
    for at in range(0, len(labels), _BLOCK):
        part = hashes[at : at + _BLOCK]
        for word in _as_compared(features[at : at + _BLOCK]).view(np.uint64).T:
            part ^= word
            part *= np.uint64(0x9E3779B97F4A7C15)
            part ^= part >> np.uint64(29)
    order = np.argsort(hashes)
    is_equal = hashes[order[1:]] == hashes[order[:-1]]
    candidate = np.zeros(len(labels), np.bool_)
    candidate[order[1:][is_equal]] = True
    candidate[order[:-1][is_equal]] = True
    keep = ~candidate
    if candidate.any():
        index = np.flatnonzero(candidate)
        rows = np.column_stack([_as_compared(features[index]), labels[index].astype(np.float32)])
        _, first = np.unique(rows, axis=0, return_index=True)
        keep[index[first]] = True
    return keep


def _as_compared(features: Features) -> Features:
    """Return a copy in which equal numbers have equal bits: adding 0 turns -0.0 into 0.0."""
    return np.ascontiguousarray(features, np.float32) + np.float32(0)


def _check_validation(validation: str) -> None:
    if validation not in VALIDATIONS:
        raise FieldError("validation", validation, f"must be one of {', '.join(VALIDATIONS)}", "try 'holdout'")


def _draw(rows: npt.NDArray[np.intp], part: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Split rows into (rest, part) like scikit-learn's ``train_test_split(rows, test_size=part, random_state=42)``.

    Without scikit-learn every worker starts two seconds faster; a test compares the results. NumPy guarantees that the
    stream of RandomState never changes.
    """
    order = np.random.RandomState(_SEED).permutation(len(rows))
    size = _part_size(len(rows), part)
    return rows[order[size:]], rows[order[:size]]


def _part_size(rows: int, part: float) -> int:
    return math.ceil(part * rows)


def _moments(features: Features, rows: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return mean and population standard deviation per feature, equal to NumPy's to the last bit."""
    first = np.take(features, rows[:_BLOCK], axis=0)
    # The computed deviation of a constant column is rounding noise; dividing by it would give large values.
    constant = (first == first[0]).all(axis=0)
    if constant.any():
        train = features[rows]
        constant = train.min(axis=0) == train.max(axis=0)
    mean = _sum(features, rows, np.zeros(features.shape[1]), 1) / len(rows)
    scale = np.sqrt(_sum(features, rows, mean, 2) / len(rows))
    return mean, np.where(constant, 1.0, scale)


def _sum(
    features: Features, rows: npt.NDArray[np.intp], mean: npt.NDArray[np.float64], power: int
) -> npt.NDArray[np.float64]:
    """Sum ``(feature - mean) ** power`` over the rows in order, so that the block size does not change the rounding."""
    total, block = np.zeros(features.shape[1]), np.empty((1 + _BLOCK, features.shape[1]))
    for at in range(0, len(rows), _BLOCK):
        some = np.take(features, rows[at : at + _BLOCK], axis=0)
        part = block[: 1 + len(some)]
        part[0] = total
        np.subtract(some, mean, out=part[1:])
        if power == 2:
            np.multiply(part[1:], part[1:], out=part[1:])
        total = part.sum(axis=0)
    return total


def _standardised(
    features: Features, rows: npt.NDArray[np.intp], mean: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]
) -> Features:
    """Return ``(feature - mean) / scale`` of the rows as float32, computed in float64."""
    standard = np.empty((len(rows), features.shape[1]), np.float32)
    block = np.empty((_BLOCK, features.shape[1]))
    for at in range(0, len(rows), _BLOCK):
        some = np.take(features, rows[at : at + _BLOCK], axis=0)
        part = block[: len(some)]
        np.subtract(some, mean, out=part)
        np.divide(part, scale, out=part)
        standard[at : at + _BLOCK] = part
    return standard

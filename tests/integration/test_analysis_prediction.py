"""Predictions, calibration, importance and per-class results, on cells whose truth is known."""

import itertools
import math
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from jsc_explore.analysis.classes import confusion_shares, count_silent, per_class
from jsc_explore.analysis.encoding import Encoding
from jsc_explore.analysis.importance import importance
from jsc_explore.analysis.prediction import BAND_LEVEL, MAX_CELLS, MIN_CELLS, predict
from jsc_explore.analysis.statistics import median_spread
from jsc_explore.analysis.support import KINDS
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.errors import FieldError
from jsc_explore.results import POINT_FIELDS
from jsc_explore.store import Store
from jsc_explore.store.query.aggregates import prediction_cells
from tests.runs import record_of

RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SIZES = (16, 32, 64, 128, 256, 512)
NETWORKS = ("jsc-tiny", "jsc-toy")


def truth(config):
    rate = math.log10(config["learning_rate"])
    bump = 0.5 * math.exp(-(((rate + 2.5) / 1.5) ** 2)) + 0.02 * math.log2(config["batch_size"] / 16)
    return 0.2 + bump - (0.1 if config["final_relu"] else 0.0)


def cell(seed=0, n=5, noise=0.01, **fields):
    config = RunConfig(**fields).to_dict()
    rng = np.random.default_rng([seed, config["batch_size"], int(1e7 * config["learning_rate"]), config["final_relu"]])
    draws = truth(config) + rng.normal(0, noise, n)
    sd = float(draws.std(ddof=1)) if n > 1 else None
    return {**config, "config_id": str(config), "metric": float(draws.mean()), "sd": sd, "n": n, "n_silent": 0}


def cells(relus=(True, False), **options):
    return [cell(batch_size=b, learning_rate=r, final_relu=f, **options) for b in SIZES for r in RATES for f in relus]


def test_a_missing_cell_is_predicted_near_the_truth_and_the_band_holds_it():
    hidden = RunConfig(batch_size=64, learning_rate=1e-3)
    known = [one for one in cells() if (one["batch_size"], one["learning_rate"]) != (64, 1e-3)]
    found = predict(known, [hidden], "val_acc")
    (prediction,) = found.predictions
    assert prediction.value == pytest.approx(truth(hidden.to_dict()), abs=0.03)
    assert prediction.low < truth(hidden.to_dict()) < prediction.high
    assert prediction.high - prediction.low < 0.1


def test_the_measured_share_inside_the_band_is_near_its_level_for_every_kind_of_cell():
    calibrations = predict(cells(), [], "val_acc").calibrations
    assert set(calibrations) == set(KINDS)
    for found in calibrations.values():
        assert found.share == found.inside / found.held_out
        assert abs(found.share - BAND_LEVEL) < 0.12
        assert found.low < found.share < found.high
        shares = [share for _, share in found.levels]
        assert shares[0] < shares[8] < shares[-1]
        assert dict(found.levels)[BAND_LEVEL] == found.share
    assert calibrations["surrounded"].error < 0.02 < calibrations["beyond"].width


def test_bands_hold_for_rows_and_columns_and_networks_that_are_left_out():
    """Held out outside of ``predict``, so that nothing of them enters the fit: smooth random truths and noise."""
    inside: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for seed in range(3):
        known = random_cells(seed)
        rows = [("learning_rate", rate) for rate in RATES] + [("batch_size", size) for size in SIZES]
        for place, (field, value) in enumerate(rows):
            # Every other row is left out of one network alone.
            own = NETWORKS[: 1 + place % 2]
            out = [one for one in known if one[field] == value and one["model"] in own]
            configs = [RunConfig.from_dict({name: one[name] for name in FIELDS}) for one in out]
            found = predict([one for one in known if one not in out], configs, "val_acc")
            for one, prediction in zip(out, found.predictions, strict=True):
                if prediction:
                    inside[prediction.kind].append(prediction.low <= one["metric"] <= prediction.high)
    assert len(inside["between"]) > 100 < 3 * len(inside["beyond"])
    for kind in ("between", "beyond"):
        assert 0.7 < np.mean(inside[kind]) < 0.9
    networks = [one for one in random_cells(0) if one["model"] == "jsc-toy"]
    absent = [RunConfig(model="jsc-tiny", batch_size=b) for b in SIZES]
    assert predict(networks, absent, "val_acc").predictions == [None] * len(SIZES)


def random_cells(seed):
    """Cells of two networks whose truth is a smooth random function of both axes, with noise over five seeds."""
    rng = np.random.default_rng(seed)
    waves, phases, offset = rng.normal(0, 0.4, (6, 2)), rng.uniform(0, 2 * np.pi, 6), rng.normal(0, 0.02)
    found = []
    for (a, r), (b, s), (k, m) in itertools.product(enumerate(RATES), enumerate(SIZES), enumerate(NETWORKS)):
        truth = 0.6 + 0.02 * np.cos(waves @ [a, b] + phases).sum() + offset * k
        draws = truth + rng.normal(0, 0.01, 5)
        config = RunConfig(learning_rate=r, batch_size=s, model=m).to_dict()
        found.append({**config, "metric": float(draws.mean()), "sd": float(draws.std(ddof=1)), "n": 5, "n_silent": 0})
    return found


def test_nothing_is_extrapolated_along_a_hyperparameter_that_is_measured_at_one_value():
    longer, sgd = RunConfig(batch_size=64, max_epochs=20), RunConfig(batch_size=64, optimizer="sgd")
    assert predict(cells(), [longer, sgd], "val_acc").predictions == [None, None]
    # One measured cell of another optimizer or length is no neighbour on any axis either.
    known = [*cells(), cell(batch_size=256, optimizer="sgd"), cell(batch_size=256, max_epochs=50)]
    found = predict(known, [longer, sgd, RunConfig(batch_size=96)], "val_acc").predictions
    assert found[:2] == [None, None]
    assert found[2] is not None


def test_a_prediction_needs_neighbours_within_a_step_on_the_side_where_they_lie():
    asked = [RunConfig(batch_size=1024), RunConfig(batch_size=4096), RunConfig(batch_size=8, learning_rate=1.0)]
    found = predict(cells(), asked, "val_acc").predictions
    assert found[0].kind == "beyond"
    assert found[1:] == [None, None]
    hidden = [one for one in cells() if one["batch_size"] != 64]
    assert predict(hidden, [RunConfig(batch_size=64)], "val_acc").predictions[0].kind == "between"
    alone = [one for one in cells() if (one["batch_size"], one["learning_rate"]) != (64, 1e-3)]
    assert predict(alone, [RunConfig(batch_size=64)], "val_acc").predictions[0].kind == "surrounded"


def test_predictions_are_clipped_at_chance_and_at_one():
    steep = [
        {**one, "metric": 0.2 + 0.79 / (1 + math.exp(-3 * (math.log10(one["learning_rate"]) + 3.5))), "sd": 0.03}
        for one in cells()
    ]
    asked = [RunConfig(batch_size=b, learning_rate=r) for b in SIZES for r in (1e-7, 1.0)]
    drawn = [one for one in predict(steep, asked, "val_acc").predictions if one]
    assert drawn
    for one in drawn:
        assert 0.2 <= one.low <= one.value <= one.high <= 1
    losses = [{**one, "metric": 2.2 - 1.6 * one["metric"]} for one in steep]
    for one in predict(losses, asked, "val_loss").predictions:
        assert one is None or 0 <= one.low <= one.value <= one.high <= 1.9


def test_the_own_curve_at_fewer_epochs_says_most_about_more_epochs():
    def at(epochs, size, own):
        return {**cell(batch_size=size, max_epochs=epochs, scheduler="constant", noise=0.001),
                "metric": 0.6 + 0.05 * math.log10(epochs) + own}  # fmt: skip

    # Each config has a luck of its own, which no neighbour shares, at every number of epochs.
    luck = dict(zip(SIZES, (0.03, -0.04, 0.05, -0.05, 0.04, -0.03), strict=True))
    known = [at(e, b, luck[b]) for b in SIZES for e in (1, 2, 5, 10, 20) if (b, e) != (64, 20)]
    (found,) = predict(known, [RunConfig(batch_size=64, max_epochs=20, scheduler="constant")], "val_acc").predictions
    assert found.value == pytest.approx(0.6 + 0.05 * math.log10(20) + luck[64], abs=0.015)


def test_the_band_is_that_of_the_seeds_that_predict_every_class():
    known = [{**one, "n": 3, "n_silent": 2} for one in cells((True,))]
    (found,) = predict(known, [RunConfig(batch_size=96)], "val_acc").predictions
    assert found.silent == pytest.approx(0.4)


def test_bands_are_wide_where_seeds_scatter():
    quiet, loud = (cells((relu,), noise=noise) for relu, noise in ((False, 0.002), (True, 0.06)))
    asked = [RunConfig(batch_size=96, learning_rate=1e-3, final_relu=relu) for relu in (False, True)]
    narrow, wide = predict(quiet + loud, asked, "val_acc").predictions
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_bands_are_wider_away_from_trained_cells():
    asked = [RunConfig(batch_size=size, learning_rate=1e-3, final_relu=False) for size in (96, 1024)]
    inside, outside = predict(cells((False,)), asked, "val_acc").predictions
    assert outside.high - outside.low > inside.high - inside.low
    # A trend that leads below chance ends there, and what follows is not predicted.
    assert predict(cells((False,)), [RunConfig(learning_rate=1.0, final_relu=False)], "val_acc").predictions == [None]


def test_unknown_names_and_too_few_cells_give_no_prediction():
    asked = [RunConfig(model="jsc-s"), RunConfig(optimizer="sgd"), RunConfig(batch_size=96)]
    found = predict(cells(), asked, "val_acc")
    assert found.predictions[:2] == [None, None]
    assert found.predictions[2] is not None
    few = predict(cells()[: MIN_CELLS - 1], asked, "val_acc")
    assert few.predictions == [None] * 3
    assert few.calibrations == {}
    assert str(MIN_CELLS) in few.reason


def test_of_many_cells_the_nearest_are_used():
    sizes = (16, 23, 32, 45, 64, 91, 128, 181, 256, 362)
    far = [cell(batch_size=b, learning_rate=r, max_epochs=e, final_relu=False) for b in sizes
           for r in RATES for e in (1, 2, 5, 10)]  # fmt: skip
    assert len(far) > MAX_CELLS
    found = predict(far, [RunConfig(batch_size=60, learning_rate=1e-3, max_epochs=2, final_relu=False)], "val_acc")
    assert 0 < found.calibrations["surrounded"].held_out <= MAX_CELLS
    asked = truth(RunConfig(batch_size=60, learning_rate=1e-3, final_relu=False).to_dict())
    assert found.predictions[0].value == pytest.approx(asked, abs=0.03)


def test_one_seed_a_cell_is_enough_to_predict():
    found = predict(cells(n=1), [RunConfig(batch_size=96)], "val_acc")
    assert found.predictions[0].value == pytest.approx(truth(RunConfig(batch_size=96).to_dict()), abs=0.05)


def test_logarithmic_fields_are_encoded_by_their_logarithm_and_names_one_hot():
    rows = [RunConfig(batch_size=b, model=m).to_dict() for b in (16, 64, 256) for m in ("jsc-tiny", "jsc-s")]
    encoding = Encoding(rows)
    matrix = encoding.matrix(rows)
    assert matrix.shape == (6, 4)
    assert matrix[:, 3] == pytest.approx([0.0, 0.0, 0.5, 0.5, 1.0, 1.0])
    assert encoding.columns == ["model"] * 3 + ["batch_size"]
    assert encoding.position("batch_size", rows[::2]) == pytest.approx(np.log10([16, 64, 256]))


def test_important_hyperparameters_rank_first_and_those_without_effect_last():
    rows = [
        {**one, "patience": patience, "config_id": f"{one['config_id']}{patience}"}
        for one in cells() for patience in (0, 3)
    ]  # fmt: skip
    ranking = importance(rows)
    names = [one.field for one in ranking.fields]
    assert names[0] == "learning_rate"
    assert set(names) == {"learning_rate", "batch_size", "final_relu", "patience"}
    patience = next(one for one in ranking.fields if one.field == "patience")
    assert abs(patience.mean) < 0.02
    first = ranking.fields[0]
    assert first.mean - first.half_width > 0
    assert ranking.beats_mean
    assert ranking.error < ranking.baseline_error
    assert ranking.seed_noise == pytest.approx(math.sqrt(np.pi / 2 * np.mean([one["sd"] ** 2 / 5 for one in rows])))


def test_a_forest_on_noise_does_not_beat_the_mean():
    rng = np.random.default_rng(1)
    rows = [{**one, "metric": float(rng.normal(0.6, 0.05))} for one in cells()]
    assert not importance(rows).beats_mean
    assert importance(rows[:5]).fields == []
    assert "5 configurations" in importance(rows[:5]).reason


def test_the_rows_of_the_confusion_matrix_sum_to_one():
    first = np.arange(25).tolist()
    shares = confusion_shares([first, None, [2 * count for count in first]])
    assert shares.sum(axis=1) == pytest.approx(np.ones(5))
    assert shares[1, 2] == pytest.approx(7 / sum(range(5, 10)))
    assert confusion_shares([None]) is None
    with pytest.raises(FieldError, match="must hold 25"):
        confusion_shares([[1, 2]])


def test_the_runs_with_a_silent_class_are_counted_by_class():
    runs = [{"silent_classes": ["t", "z"]}, {"silent_classes": []}, {"silent_classes": ["z"]}]
    assert count_silent(runs) == {"z": 2, "t": 1}
    assert count_silent([]) == {}


def test_areas_and_rejections_have_a_median_and_its_spread():
    runs = [
        {"auc": [0.9, 0.8, None, 0.7, 0.6], "rejection": [10.0, 5.0, 5.0, None, 5.0]},
        {"auc": [0.8, 0.8, None, 0.7, 0.6], "rejection": [1000.0, 5.0, 5.0, None, 5.0]},
        {"auc": None, "rejection": None},
    ]
    areas, rejections = per_class(runs, "auc"), per_class(runs, "rejection")
    assert [row["n"] for row in areas] == [2, 2, 0, 2, 2]
    assert [areas[0][name] for name in ("low", "median", "high")] == [0.8, pytest.approx(0.85), 0.9]
    many = [0.9, 0.8, 0.85, 0.7, 0.95, 0.6, 0.5]
    six = per_class([{"auc": [value] * 5} for value in many], "auc")[0]
    assert (six["median"], (six["low"], six["high"])) == (0.8, pytest.approx(median_spread(many)))
    assert [rejections[0][name] for name in ("low", "median", "high")] == [10.0, 505.0, 1000.0]
    assert rejections[3]["median"] is None


def test_a_run_at_a_constant_rate_is_the_first_part_of_a_longer_one(tmp_path):
    curve = [
        dict.fromkeys(POINT_FIELDS, 0.0) | {"step": e * 10, "samples": e, "epoch": float(e), "val_acc": 0.5 + e / 100}
        for e in range(11)
    ]  # fmt: skip
    with closing(Store(tmp_path / "store")) as store:
        for scheduler in ("constant", "cosine"):
            for seed in range(4):
                silent = ["t"] if seed == 3 else []
                run = RunConfig(scheduler=scheduler, seed=seed)
                store.add(record_with_curve(run, curve, silent))
        rows = prediction_cells(store, "val_acc", epochs=(2, 5, 10))
    found = {(row["scheduler"], row["max_epochs"]): row for row in rows}
    assert set(found) == {("cosine", 10), ("constant", 10), ("constant", 2), ("constant", 5)}
    assert found["constant", 2]["metric"] == pytest.approx(0.52)
    assert (found["constant", 5]["n"], found["cosine", 10]["n"], found["cosine", 10]["n_silent"]) == (3, 3, 1)


def record_with_curve(run, curve, silent):
    record = record_of(run, val_acc=0.6, silent_classes=silent)
    return replace(record, outcome=replace(record.outcome, points=curve))

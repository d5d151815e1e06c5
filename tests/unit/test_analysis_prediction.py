"""Predictions, calibration, importance and per-class results, on cells whose truth is known."""

import math

import numpy as np
import pytest

from jsc_explore.analysis.classes import confusion_shares, count_unpredicted, per_class, unpredicted_classes
from jsc_explore.analysis.encoding import Encoding
from jsc_explore.analysis.importance import importance
from jsc_explore.analysis.prediction import BAND_LEVEL, MAX_CELLS, MIN_CELLS, predict
from jsc_explore.analysis.statistics import half_width
from jsc_explore.config import RunConfig
from jsc_explore.errors import FieldError

RATES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
SIZES = (16, 32, 64, 128, 256, 512)


def truth(config):
    rate = math.log10(config["learning_rate"])
    bump = 0.5 * math.exp(-(((rate + 2.5) / 1.5) ** 2)) + 0.02 * math.log2(config["batch_size"] / 16)
    return 0.2 + bump - (0.1 if config["final_relu"] else 0.0)


def cell(seed=0, n=5, noise=0.01, **fields):
    config = RunConfig(**fields).to_dict()
    rng = np.random.default_rng([seed, config["batch_size"], int(1e7 * config["learning_rate"]), config["final_relu"]])
    draws = truth(config) + rng.normal(0, noise, n)
    sd = float(draws.std(ddof=1)) if n > 1 else None
    return {**config, "config_id": str(config), "mean": float(draws.mean()), "sd": sd, "n": n}


def cells(relus=(True, False), **options):
    return [cell(batch_size=b, learning_rate=r, final_relu=f, **options) for b in SIZES for r in RATES for f in relus]


def test_a_missing_cell_is_predicted_near_the_truth_and_the_band_holds_it():
    hidden = RunConfig(batch_size=64, learning_rate=1e-3)
    known = [one for one in cells() if (one["batch_size"], one["learning_rate"]) != (64, 1e-3)]
    found = predict(known, [hidden], "val_acc")
    (prediction,) = found.predictions
    assert prediction.mean == pytest.approx(truth(hidden.to_dict()), abs=0.03)
    assert prediction.low < truth(hidden.to_dict()) < prediction.high
    assert prediction.high - prediction.low < 0.1


def test_the_measured_share_inside_the_band_is_near_its_level():
    found = predict(cells(), [], "val_acc").calibration
    assert found.held_out == 72
    assert found.share == found.inside / 72
    assert abs(found.share - BAND_LEVEL) < 0.12
    assert found.low < found.share < found.high
    shares = [share for _, share in found.levels]
    assert shares == sorted(shares)
    assert found.error < 0.02
    assert dict(found.levels)[BAND_LEVEL] == found.share


def test_bands_are_wide_where_seeds_scatter():
    quiet, loud = (cells((relu,), noise=noise) for relu, noise in ((False, 0.002), (True, 0.06)))
    asked = [RunConfig(batch_size=96, learning_rate=1e-3, final_relu=relu) for relu in (False, True)]
    narrow, wide = predict(quiet + loud, asked, "val_acc").predictions
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_bands_are_wider_away_from_trained_cells():
    asked = [RunConfig(batch_size=64, learning_rate=rate, final_relu=False) for rate in (2e-3, 10.0)]
    inside, outside = predict(cells((False,)), asked, "val_acc").predictions
    assert outside.high - outside.low > 2 * (inside.high - inside.low)


def test_predicted_accuracies_stay_in_0_to_1_and_losses_positive():
    for metric in ("val_acc", "val_loss", "train_time_s"):
        far = predict(cells(), [RunConfig(batch_size=60000, learning_rate=1e-8)], metric).predictions[0]
        assert 0 <= far.low <= far.mean <= far.high
        assert far.high <= 1 or not metric.endswith("_acc")


def test_unknown_names_and_too_few_cells_give_no_prediction():
    asked = [RunConfig(model="jsc-s"), RunConfig(optimizer="sgd"), RunConfig(batch_size=64)]
    found = predict(cells(), asked, "val_acc")
    assert found.predictions[:2] == [None, None]
    assert found.predictions[2] is not None
    few = predict(cells()[: MIN_CELLS - 1], asked, "val_acc")
    assert few.predictions == [None] * 3
    assert few.calibration is None
    assert str(MIN_CELLS) in few.reason


def test_of_many_cells_the_nearest_are_used():
    far = [cell(batch_size=b, learning_rate=r, max_epochs=e, final_relu=False) for b in range(16, 512, 40)
           for r in RATES for e in (1, 2, 5)]  # fmt: skip
    assert len(far) > MAX_CELLS
    found = predict(far, [RunConfig(batch_size=60, learning_rate=1e-3, max_epochs=2, final_relu=False)], "val_acc")
    assert found.calibration.held_out == MAX_CELLS
    asked = truth(RunConfig(batch_size=60, learning_rate=1e-3, final_relu=False).to_dict())
    assert found.predictions[0].mean == pytest.approx(asked, abs=0.03)


def test_one_seed_a_cell_is_enough_to_predict():
    found = predict(cells(n=1), [RunConfig(batch_size=96)], "val_acc")
    assert found.predictions[0].mean == pytest.approx(truth(RunConfig(batch_size=96).to_dict()), abs=0.05)


def test_logarithmic_fields_are_encoded_by_their_logarithm_and_names_one_hot():
    rows = [RunConfig(batch_size=b, model=m).to_dict() for b in (16, 64, 256) for m in ("jsc-tiny", "jsc-s")]
    encoding = Encoding(rows)
    matrix = encoding.matrix(rows)
    assert matrix.shape == (6, 4)
    assert matrix[:, 3] == pytest.approx([0.0, 0.0, 0.5, 0.5, 1.0, 1.0])
    assert encoding.unknown_field(RunConfig(batch_size=1024).to_dict()) is None
    assert encoding.unknown_field(RunConfig(model="jsc-toy").to_dict()) == "model"
    assert encoding.unknown_field(RunConfig(learning_rate=1e-2).to_dict()) == "learning_rate"


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
    assert ranking.seed_noise == pytest.approx(math.sqrt(np.mean([one["sd"] ** 2 / 5 for one in rows])))


def test_a_forest_on_noise_does_not_beat_the_mean():
    rng = np.random.default_rng(1)
    rows = [{**one, "mean": float(rng.normal(0.6, 0.05))} for one in cells()]
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


def test_a_class_is_unpredicted_when_silent_or_never_recognised():
    counts = np.full((5, 5), 3)
    counts[3, 3] = 0
    run = {"confusion": counts.flatten().tolist(), "silent_classes": ["t"]}
    assert unpredicted_classes(run) == ["z", "t"]
    assert unpredicted_classes({"confusion": None, "silent_classes": []}) == []
    assert count_unpredicted([run, run, {"confusion": None, "silent_classes": ["z"]}]) == {"z": 3, "t": 2}


def test_rejections_have_a_geometric_mean_and_auc_an_arithmetic_one():
    runs = [
        {"auc": [0.9, 0.8, None, 0.7, 0.6], "rejection": [10.0, 5.0, 5.0, None, 5.0]},
        {"auc": [0.8, 0.8, None, 0.7, 0.6], "rejection": [1000.0, 5.0, 5.0, None, 5.0]},
        {"auc": None, "rejection": None},
    ]
    areas, rejections = per_class(runs, "auc"), per_class(runs, "rejection")
    assert [row["n"] for row in areas] == [2, 2, 0, 2, 2]
    half = half_width(float(np.std([0.9, 0.8], ddof=1)), 2)
    assert (areas[0]["mean"], areas[0]["low"]) == (pytest.approx(0.85), pytest.approx(0.85 - half))
    assert rejections[0]["mean"] == pytest.approx(100)
    assert rejections[0]["high"] / 100 == pytest.approx(100 / rejections[0]["low"])
    assert rejections[3]["mean"] is None

"""What ``data validate`` claims: equal jets pass, spoiled ones fail by name, bad files are one line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jsc_explore import data
from jsc_explore.cli.main import main
from jsc_explore.data import CLASSES, FEATURES, Jets
from jsc_explore.data.external import ExternalJets, read_jets
from jsc_explore.data.reference import LEVELS, quantise, reference
from jsc_explore.errors import DataError
from jsc_explore.validation import criteria, two_sample
from jsc_explore.validation import report as check
from jsc_explore.validation.report import check_sample
from jsc_explore.validation.transfer import transfer_accuracy

MASS = FEATURES.index("mass_mmdt")
N = 12_000


@pytest.fixture(scope="module")
def halves() -> tuple[Jets, Jets]:
    """Two disjoint parts of the jets that come with the project, 12,000 each."""
    jets = data.load("simulated")
    return tuple(
        Jets("simulated", jets.features[rows], jets.labels[rows], digest="of a part")
        for rows in (slice(0, N), slice(N, 2 * N))
    )  # type: ignore[return-value]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the network, which another test trains: nothing here depends on it."""
    monkeypatch.setattr(check, "_accuracies", lambda *_: [])


def foreign(jets: Jets, features: np.ndarray | None = None) -> ExternalJets:
    return ExternalJets(jets.features if features is None else features, jets.labels, are_levels=False)


def write(path: Path, features: np.ndarray, labels: np.ndarray, **columns: object) -> Path:
    table = {name: features[:, k] for k, name in enumerate(FEATURES)}
    names = [CLASSES[k] for k in labels]
    pq.write_table(pa.table({**table, "jet_type": names, **columns}), path)
    return path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["data", "validate", *map(str, arguments)])
    return int(ended.value.code or 0)


def descriptions(report: check.Report) -> list[str]:
    return [one.description for one in report.criteria]


# ---- verdicts


def test_two_halves_of_one_sample_pass(halves: tuple[Jets, Jets], no_network: None) -> None:
    mine, theirs = halves
    report = check_sample(mine, "cernbox", foreign(theirs), against="x", kind="simulated")
    assert report.passed
    assert report.discriminator is not None
    assert abs(report.discriminator.mean - 0.5) < 4 * report.discriminator.mean_error
    assert [one.metric for one in criteria.CRITERIA if one.description in descriptions(report)] == [
        "auc", "class_auc", "tv", "class_tv", "feature_tv"
    ]  # fmt: skip


def test_a_shifted_mass_fails_and_is_named(
    halves: tuple[Jets, Jets],
    no_network: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine, theirs = halves
    features = theirs.features.copy()
    features[theirs.labels == CLASSES.index("w"), MASS] += 8
    file = write(tmp_path / "shifted.parquet", features, theirs.labels)
    monkeypatch.setattr(data, "load", lambda name: mine)
    assert run("simulated", "--against", file, "--kind", "simulated") == 1
    out = capsys.readouterr().out
    assert "FAIL  discriminator AUC against simulated jets, worst class (W)" in out
    assert re.search(r"simulated is outside our bounds; largest difference: mass_mmdt of class w \(KS 0\.\d{3}\)", out)


def test_a_feature_that_lost_its_relations_fails_and_is_named(
    halves: tuple[Jets, Jets],
    no_network: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Every distribution, feature by feature and class by class, stays as it was."""
    mine, theirs = halves
    features, rng = theirs.features.copy(), np.random.default_rng(0)
    for k in range(len(CLASSES)):
        rows = np.flatnonzero(theirs.labels == k)
        features[rows, MASS] = features[rng.permutation(rows), MASS]
    file = write(tmp_path / "shuffled.parquet", features, theirs.labels)
    monkeypatch.setattr(data, "load", lambda name: mine)
    assert run("simulated", "--against", file, "--kind", "simulated") == 1
    assert "largest difference: mass_mmdt in its relation to other features" in capsys.readouterr().out


def test_the_shipped_jets_are_within_our_bounds_with_no_file_at_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("simulated", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"]
    found = {one["description"]: one for one in report["criteria"]}
    mean = found["total variation to CERNBox's levels, mean"]["value"]
    assert mean == pytest.approx(np.mean([row["total_variation"] for row in report["levels"]]))
    assert {row["feature"] for row in report["quantiles"]} == set(FEATURES)


def test_the_worst_class_and_the_worst_feature_are_judged_by_name() -> None:
    """Means alone hid them: W at an AUC of .570 among a mean of .532, its groomed mass at .08 among .013."""
    report = check_sample(data.load("simulated"), "cernbox")
    found = {one.description: (one.worst, round(one.value, 2), one.passed) for one in report.criteria}
    assert found["discriminator AUC against real jets on levels, worst class"] == ("W", 0.57, True)
    assert found["total variation to CERNBox's levels, worst class"] == ("W", 0.02, True)
    assert found["total variation to CERNBox's levels, worst feature of a class"] == ("mass_mmdt of W", 0.08, True)


def test_one_bad_feature_of_one_class_is_outside_though_all_means_are_within(halves: tuple[Jets, Jets]) -> None:
    jets = data.load("simulated")
    features = jets.features.copy()
    features[jets.labels == CLASSES.index("w"), MASS] += 0.5
    report = check_sample(Jets("simulated", features, jets.labels, ""), "cernbox")
    assert {one.description for one in report.criteria if not one.passed} == {
        "total variation to CERNBox's levels, worst feature of a class"
    }
    assert not report.passed


def test_the_recorded_comparison_is_that_of_the_shipped_jets(halves: tuple[Jets, Jets]) -> None:
    assert check_sample(data.load("simulated"), "cernbox").is_recorded
    assert not check_sample(halves[0], "cernbox").is_recorded


def test_jets_without_a_class_have_no_validation(halves: tuple[Jets, Jets]) -> None:
    rows = halves[0].labels != CLASSES.index("t")
    with pytest.raises(DataError, match="has no jets of class t"):
        check_sample(Jets("simulated", halves[0].features[rows], halves[0].labels[rows], ""), "cernbox")


def test_a_mass_off_by_five_gev_fails_on_the_real_levels(halves: tuple[Jets, Jets]) -> None:
    features = halves[0].features.copy()
    features[halves[0].labels == CLASSES.index("z"), MASS] += 5
    before = check_sample(halves[0], "cernbox").levels
    after = check_sample(Jets("simulated", features, halves[0].labels, ""), "cernbox").levels
    worst = max(after, key=lambda row: row["total_variation"])
    assert (worst["feature"], worst["class"]) == ("mass_mmdt", "z")
    assert sum(row["total_variation"] for row in after) > sum(row["total_variation"] for row in before) + 0.2


def test_jets_on_levels_are_compared_on_levels(halves: tuple[Jets, Jets], no_network: None, tmp_path: Path) -> None:
    mine, theirs = halves
    levels = quantise(theirs.features)
    other = read_jets(write(tmp_path / "levels.parquet", levels.astype(np.int8), theirs.labels))
    assert other.are_levels
    report = check_sample(mine, "cernbox", other, against="levels.parquet", kind="real")
    assert report.kind == "levels"
    assert report.passed
    # Each half is standardised by its own mean, and a level of mass is narrower than that mean is known.
    assert np.median([row["ks"] for row in report.features]) < 0.03
    assert "discriminator AUC against real jets on levels, worst class" in descriptions(report)


def test_bounds_depend_on_preset_and_reference() -> None:
    figures = {
        "auc": criteria.Metric(0.53, 0.01),
        "class_auc": criteria.Metric(0.57, 0.01, "W"),
        "accuracy": criteria.Metric(0.73, 0.01),
        "ks": criteria.Metric(0.03),
        "tv": criteria.Metric(0.01),
        "feature_tv": criteria.Metric(0.11, worst="mass_mmdt of W"),
    }

    def failed(preset: str, kind: str | None) -> list[str]:
        return [one.description for one in criteria.evaluate(figures, preset, kind, 60_000) if not one.passed]

    worst_feature = "total variation to CERNBox's levels, worst feature of a class"
    assert failed("cernbox", "levels") == [worst_feature]
    assert failed("cernbox", "simulated") == [
        "discriminator AUC against simulated jets, mean",
        "discriminator AUC against simulated jets, worst class",
        worst_feature,
    ]
    assert failed("openml", "real") == [
        "accuracy on real jets, trained on the sample",
        "KS distance to OpenML's quantiles, mean",
    ]
    assert failed("openml", None) == ["KS distance to OpenML's quantiles, mean"]
    nan = {"auc": criteria.Metric(float("nan"))}
    assert not criteria.evaluate(nan, "cernbox", "real", 60_000)[0].passed
    assert [one.passed for one in criteria.evaluate(figures, "openml", None, 9_999)] == [None]


# ---- the figures themselves


@given(seed=st.integers(0, 1000), sizes=st.tuples(st.integers(2, 80), st.integers(2, 80)), whole=st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_distance_is_scipys(seed: int, sizes: tuple[int, int], whole: bool) -> None:
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=size) for size in sizes)
    a, b = (np.rint(2 * a), np.rint(2 * b)) if whole else (a, b)
    assert two_sample.ks_distance(a, b) == pytest.approx(ks_2samp(a, b, method="asymp").statistic)


def test_quantiles_of_the_sample_itself_are_no_distance_away() -> None:
    known = reference()
    rng = np.random.default_rng(0)
    for whole in (False, True):
        values = rng.normal(40, 15, 100_000)
        values = np.rint(values) if whole else values
        quantiles = np.quantile(values, known.probabilities, method="inverted_cdf")
        assert two_sample.ks_to_quantiles(values, quantiles, known.probabilities) < 1e-4
        shifted = two_sample.ks_to_quantiles(values + 3, quantiles, known.probabilities)
        assert shifted == pytest.approx(two_sample.ks_distance(values, values + 3), abs=1 / 201 + 1e-4)


def test_the_auc_and_its_variance_by_hand_and_by_resampling() -> None:
    from sklearn.metrics import roc_auc_score

    assert two_sample.auc_and_variance(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0]))[0] == pytest.approx(4.5 / 6)
    rng = np.random.default_rng(0)
    draws = [(rng.normal(0, 1, 60), rng.normal(0.5, 2, 90)) for _ in range(600)]
    found = np.array([two_sample.auc_and_variance(low, high) for low, high in draws])
    low, high = draws[0]
    assert found[0, 0] == pytest.approx(roc_auc_score(np.repeat([0, 1], [60, 90]), np.concatenate([low, high])))
    assert np.sqrt(found[:, 1].mean()) == pytest.approx(found[:, 0].std(), rel=0.1)


def test_level_counts_are_those_of_each_class() -> None:
    levels = np.array([[0, 2], [1, 2], [1, 0]])
    counts = two_sample.level_counts(levels, np.array([0, 1, 1]), 2, 3)
    assert counts.tolist() == [[[1, 0, 0], [0, 0, 1]], [[0, 2, 0], [1, 0, 1]]]
    assert two_sample.total_variation(np.array([3, 1]), np.array([1, 1])) == pytest.approx(0.25)


def test_the_real_statistics_are_whole() -> None:
    known = reference()
    assert known.level_counts.shape == (5, 16, LEVELS)
    assert (known.level_counts.sum(axis=2) == known.level_counts[:, :1].sum(axis=2)).all()
    assert known.level_counts[:, 0].sum() == 197_362
    assert (np.diff(known.quantiles) >= 0).all()
    assert known.quantiles.shape == (16, 200)
    middle = (known.quantiles[:, 99] + known.quantiles[:, 100]) / 2
    assert (np.abs(middle - known.mean) < 0.6 * known.scale).all()
    assert (np.diff(known.level_edges) > 0).all()


def test_a_network_learns_here_what_it_knows_there(halves: tuple[Jets, Jets]) -> None:
    mine, theirs = halves
    found = transfer_accuracy(
        mine.features[:4000], mine.labels[:4000],
        {"same": (theirs.features, theirs.labels), "mixed": (theirs.features[:, ::-1], theirs.labels)}, seeds=1,
    )  # fmt: skip
    assert 0.66 < found["same"] < 0.76
    assert found["mixed"] < 0.45


# ---- the command


def test_report_and_plots_are_written(
    tmp_path: Path, halves: tuple[Jets, Jets], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine, theirs = halves
    small = Jets("simulated", mine.features[:6000], mine.labels[:6000], mine.digest)
    monkeypatch.setattr(data, "load", lambda name: small)
    file = write(tmp_path / "others.parquet", theirs.features[:1500], theirs.labels[:1500])
    monkeypatch.setattr("jsc_explore.validation.transfer._STEPS", 300)
    assert run("simulated", "--against", file, "--kind", "simulated", "--out", tmp_path / "out") == 0
    out = capsys.readouterr().out
    for line in ("PASS", "is within our bounds", "AUC given the class", "trained on sample     tested on reference"):
        assert line in out
    assert "trained on reference" not in out, "1,500 jets train no network"
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"report.json", "features.csv", "distances.svg", "levels.svg"} | {f"{n}.svg" for n in FEATURES}
    picture = (tmp_path / "out" / "mass_mmdt.svg").read_text()
    assert all(word in picture for word in ("light quarks", "top", "simulated", "others.parquet"))
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert len(report["features"]) == len(FEATURES) * 6


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda t: t.drop_columns(["mass_mmdt"]), "lacks the column mass_mmdt"),
        (lambda t: t.drop_columns(["jet_type"]), "lacks a class column"),
        (lambda t: t.slice(0, 0), "has no rows"),
        (lambda t: t.set_column(16, "jet_type", pa.array(["higgs"] * len(t))), "jet_type has the value 'higgs'"),
        (lambda t: t.set_column(16, "jet_type", pa.array(["g"] * len(t))), "has 0 jets of class q"),
        (lambda t: t.set_column(0, "zlogz", pa.array([None, *[0.0] * (len(t) - 1)])), "zlogz is missing, NaN"),
        (lambda t: t.set_column(0, "zlogz", pa.array(["x"] * len(t))), "zlogz is string"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_line(
    tmp_path: Path, halves: tuple[Jets, Jets], capsys: pytest.CaptureFixture[str], spoil: object, said: str
) -> None:
    good = write(tmp_path / "good.parquet", halves[0].features[:500], halves[0].labels[:500])
    pq.write_table(spoil(pq.read_table(good)), tmp_path / "bad.parquet")  # type: ignore[operator]
    assert run("simulated", "--against", tmp_path / "bad.parquet") == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_files_that_are_not_parquet_or_not_levels_are_refused(tmp_path: Path, halves: tuple[Jets, Jets]) -> None:
    (tmp_path / "text").write_text("jets")
    with pytest.raises(DataError, match="is not Parquet"):
        read_jets(tmp_path / "text")
    with pytest.raises(DataError, match="the file does not exist"):
        read_jets(tmp_path / "nowhere")
    with pytest.raises(DataError, match="cannot be read"):
        read_jets(tmp_path)
    whole = write(tmp_path / "whole.parquet", halves[0].features[:500].astype(np.int32), halves[0].labels[:500])
    with pytest.raises(DataError, match="which are not levels"):
        read_jets(whole)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "dataset = 'nonsense'"),
        (("simulated-nowhere",), "run: jsc-explore data simulate --name nowhere --jets 1000000"),
        (("simulated", "--kind", "real"), "add --against FILE"),
    ],
)
def test_bad_arguments_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path))
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_directory_that_takes_no_pictures_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run("simulated", "--out", tmp_path / "file") == 2
    assert "cannot write to" in capsys.readouterr().err

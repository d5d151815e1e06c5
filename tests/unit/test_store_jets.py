"""Questions to the jets: DuckDB's answers are NumPy's, and what cannot be answered is one line."""

import math

import numpy as np
import pytest

from jsc_explore.data import CLASSES, FEATURES, cache
from jsc_explore.data.sources import SourceData
from jsc_explore.errors import DataError, FieldError
from jsc_explore.store.query.jets import JetFile

N = 20_000


@pytest.fixture(scope="module")
def jets(tmp_path_factory):
    """Made-up jets with what real ones have: skewed, negative, whole-number features, equal ones, class by class."""
    rng = np.random.default_rng(5)
    features = rng.lognormal(size=(N, 16)).astype(np.float32)
    labels = np.sort(rng.integers(0, 5, N)).astype(np.uint8)
    features[:, 14] = 80 * features[:, 3] + features[:, 14] + 10 * labels
    features[:, 0] *= -1
    features[:, 8] = features[:, 6]
    features[:, 15] = rng.poisson(40 + 5 * labels)
    folder = tmp_path_factory.mktemp("jets")
    path = cache.write(folder, "simulated", SourceData(features, labels, "", "MIT", ""))
    return JetFile(path), features.astype(np.float64), labels


@pytest.mark.parametrize("log", [False, True])
def test_histograms_are_those_of_numpy(jets, log):
    file, features, labels = jets
    names = [name for name in FEATURES if not (log and name == "zlogz")]
    table = file.histograms(file.bins(names, 50, log=log)).to_pylist()
    for name in names:
        values = features[:, FEATURES.index(name)]
        for k, label in enumerate(CLASSES):
            rows = [row for row in table if row["feature"] == name and row["label"] == label]
            edges = [row["low"] for row in rows] + [rows[-1]["high"]]
            assert [row["n"] for row in rows] == np.histogram(values[labels == k], edges)[0].tolist(), name
            assert rows[0]["share"] == pytest.approx(rows[0]["n"] / (labels == k).sum())
            assert len(rows) == 50 or name == "multiplicity"


def test_all_but_the_outermost_thousandths_lie_within_the_bins(jets):
    file, _, _ = jets
    table = file.histograms(file.bins(FEATURES, 40))
    n = dict(zip(*(c.to_pylist() for c in table.group_by("feature").aggregate([("n", "sum")]).columns), strict=True))
    assert set(n) == set(FEATURES)
    assert all(abs(found - 0.998 * N) <= 12 for name, found in n.items() if name != "multiplicity")
    assert 0.998 * N <= n["multiplicity"] <= N


def test_whole_numbers_get_bins_of_equally_many_of_them(jets):
    file, _, _ = jets
    for count in (200, 30, 7):
        (bins,) = file.bins(["multiplicity"], count, log=True)
        width = bins.edge(1) - bins.edge(0)
        assert bins.count <= count
        assert width == round(width) >= 1
        assert bins.edge(0) % 1 == 0.5


def test_equal_bins_in_the_logarithm(jets):
    file, _, _ = jets
    (bins,) = file.bins(["mass_mmdt"], 10, log=True)
    ratios = [bins.edge(k + 1) / bins.edge(k) for k in range(10)]
    assert ratios == pytest.approx([ratios[0]] * 10)


@pytest.mark.parametrize("label", [None, "w"])
def test_correlations_are_those_of_numpy(jets, label):
    file, features, labels = jets
    chosen = features if label is None else features[labels == CLASSES.index(label)]
    expected = np.corrcoef(chosen, rowvar=False)
    found = np.array(file.correlations(label)["r"].to_pylist()).reshape(16, 16)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found[6, 8] == pytest.approx(1)


def test_a_small_spread_about_a_large_mean_keeps_its_correlation(tmp_path):
    rng = np.random.default_rng(1)
    features = np.repeat(rng.normal(size=(500, 1)), 16, axis=1).astype(np.float32)
    features[:, 14] = 100_000 + features[:, 0]
    features[:, 5] = 3
    path = cache.write(tmp_path, "simulated", SourceData(features, np.zeros(500, np.uint8), "", "MIT", ""))
    table = JetFile(path).correlations().to_pylist()
    r = {(row["x"], row["y"]): row["r"] for row in table}
    expected = np.corrcoef(features[:, 0], features[:, 14].astype(np.float64))[0, 1]
    assert r["zlogz", "mass_mmdt"] == pytest.approx(expected, abs=1e-9)
    assert r["zlogz", "c2_b2_mmdt"] is None
    (bins,) = JetFile(path).bins(["c2_b2_mmdt"], 5)
    assert sum(JetFile(path).histograms([bins])["n"].to_pylist()) == 500


def test_the_summary_counts_and_averages_class_by_class(jets):
    file, features, labels = jets
    rows = file.summary("mass_mmdt").to_pylist()
    assert [row["label"] for row in rows] == list(CLASSES)
    for k, row in enumerate(rows):
        assert row["n"] == (labels == k).sum()
        assert row["mean"] == pytest.approx(features[labels == k, 14].mean())
        assert row["sd"] == pytest.approx(features[labels == k, 14].std())


def test_invalid_queries_are_refused(jets, tmp_path):
    file, _, _ = jets
    with pytest.raises(FieldError, match="feature = 'mass': must be one of zlogz"):
        file.bins(["mass"], 10)
    with pytest.raises(FieldError, match="feature = 'n; DROP"):
        file.summary("n; DROP TABLE jets")
    with pytest.raises(FieldError, match="'zlogz': has no positive values for a logarithmic axis"):
        file.bins(["zlogz"], 10, log=True)
    with pytest.raises(FieldError, match="class = 'x'"):
        file.correlations("x")
    torn = tmp_path / "it's torn.parquet"
    torn.write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(DataError, match=r"torn\.parquet: cannot be read as jets .*fetch the source again"):
        JetFile(torn).summary("zlogz")


def test_edges_come_back_in_the_features_own_units(jets):
    file, features, _ = jets
    (bins,) = file.bins(["c1_b1_mmdt"], 64, log=True)
    assert bins.edge(0) == pytest.approx(np.quantile(features[:, 2], 0.001), rel=1e-9)
    assert bins.edge(64) == pytest.approx(math.exp(bins.high))

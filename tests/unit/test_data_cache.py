"""The cache and the simulated jets: torn or foreign files are recognised, and digests never drift."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jsc_explore.data import CLASSES, FEATURES, SOURCES, Jets, cache, cache_dir, digest, fetch, is_available, load
from jsc_explore.data.sources import SHIPPED, SourceData
from jsc_explore.errors import DataError

SIMULATED = "0c890dae9e5ccf0133024b593a1f9b76950a3dc524f98c71cf2ccf5f3530bd09"


@pytest.fixture(scope="module")
def simulated() -> Jets:
    return load("simulated")


def made_up(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows that stand for jets where only their way to the disk and back matters."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, 16)).astype(np.float32), rng.integers(0, 5, rows).astype(np.uint8)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A cache with 50 jets that stand for a fetched OpenML release."""
    features, labels = made_up(50)
    cache.write(tmp_path, "openml", SourceData(features, labels, "http://x", "Public", "0" * 64))
    return tmp_path


# Jets that come with the project.


def test_the_digest_of_the_simulated_jets_never_drifts(tmp_path: Path) -> None:
    assert digest("simulated", cache=tmp_path) == SIMULATED
    assert list(tmp_path.iterdir()) == []


def test_simulated_jets_look_like_jets(simulated: Jets) -> None:
    def column(name: str) -> np.ndarray:
        return simulated.features[:, FEATURES.index(name)]

    assert simulated.features.shape == (SOURCES["simulated"].rows, 16)
    assert (simulated.features.dtype, simulated.labels.dtype) == (np.float32, np.uint8)
    assert simulated.digest == SIMULATED
    assert np.isfinite(simulated.features).all()
    share = np.bincount(simulated.labels, minlength=5) / len(simulated)
    np.testing.assert_allclose(share, 0.2, atol=0.02 * 0.2)
    assert (column("zlogz") < 0).all()
    np.testing.assert_array_equal(column("multiplicity"), np.rint(column("multiplicity")))
    np.testing.assert_array_equal(column("d2_a1_b1_mmdt"), column("d2_b1_mmdt"))
    assert all((column(name) >= 0).all() for name in FEATURES[1:])
    for kind, mass_gev in (("w", 80.4), ("z", 91.2), ("t", 160.0)):
        assert np.median(column("mass_mmdt")[simulated.labels == CLASSES.index(kind)]) == pytest.approx(
            mass_gev, rel=0.06
        )


def test_simulated_jets_are_as_hard_to_tell_apart_as_real_ones(simulated: Jets) -> None:
    from sklearn.linear_model import LogisticRegression

    x = simulated.features[:24_000]
    x = np.maximum((x - x.mean(axis=0)) / x.std(axis=0), 0)
    model = LogisticRegression(max_iter=60, tol=1e-2).fit(x[:12_000], simulated.labels[:12_000])
    guess, truth = model.predict(x[12_000:]), simulated.labels[12_000:24_000]
    confused = np.zeros((5, 5))
    np.add.at(confused, (truth, guess), 1)
    assert 0.63 < confused.trace() / confused.sum() < 0.73
    both = confused + confused.T
    w, z, g, q, t = (CLASSES.index(kind) for kind in "wzgqt")
    assert both[w, z] > max(both[w, g], both[w, t], both[z, g], both[z, t])
    assert both[g, q] > max(both[g, w], both[g, z], both[q, t])


def test_simulated_jets_need_no_fetch_and_no_cache(tmp_path: Path, simulated: Jets) -> None:
    assert is_available("simulated", cache=tmp_path / "nowhere")
    assert fetch("simulated", cache=tmp_path / "nowhere").parent == SHIPPED
    assert not (tmp_path / "nowhere").exists()
    recipe = json.loads((SHIPPED / "simulated-recipe.json").read_text())
    assert (recipe["preset"], recipe["jets"]) == ("cernbox", len(simulated))
    assert {"seed", "recipe", "version.pythia8mc", "version.fastjet"} <= set(recipe)


# What lies in the cache.


def test_what_was_written_is_read(filled: Path) -> None:
    features, labels = made_up(50)
    jets = load("openml", cache=filled)
    np.testing.assert_array_equal(jets.features, features)
    np.testing.assert_array_equal(jets.labels, labels)
    assert jets.digest == digest("openml", cache=filled)
    assert jets.features.flags.c_contiguous
    assert jets.features.flags.writeable  # torch warns of arrays it may not write to


def test_any_reader_finds_seventeen_plain_columns(filled: Path) -> None:
    (path,) = filled.glob("*.parquet")
    schema = pq.read_schema(path)
    assert schema.names == [*FEATURES, "label"]
    assert schema.types == [pa.float32()] * 16 + [pa.uint8()]


def test_a_download_is_never_started_by_loading(tmp_path: Path) -> None:
    for act in (load, digest):
        with pytest.raises(DataError, match=r"^cernbox: not in .* yet; run: jsc-explore data fetch cernbox$"):
            act("cernbox", cache=tmp_path)
    assert not is_available("cernbox", cache=tmp_path)


def test_every_manifest_that_is_not_ours_is_refused(filled: Path) -> None:
    manifest = filled / "openml.json"
    good = json.loads(manifest.read_text())
    bad = ["", "[]", "{", "null", "\0\0\0"]
    changes = [{"schema": 1}, {"source": "cernbox"}, {"rows": "50"}, {"file": "../x.parquet"}, {"file": "x.parquet"}]
    bad += [json.dumps(good | change) for change in changes]
    bad += [json.dumps({key: value for key, value in good.items() if key != "digest"})]
    for text in bad:
        manifest.write_text(text)
        assert not is_available("openml", cache=filled)
        for act in (load, digest):
            with pytest.raises(DataError, match=r"^openml: .*run: jsc-explore data fetch openml$"):
                act("openml", cache=filled)


def test_every_data_file_that_is_not_ours_is_refused(filled: Path) -> None:
    (path,) = filled.glob("*.parquet")
    whole = path.read_bytes()
    table = pq.read_table(path)

    def rewritten(other: pa.Table) -> bytes:
        pq.write_table(other, path)
        return path.read_bytes()

    nulls = pa.array([None] * 50, pa.float32())
    last = pa.array(np.full(50, 9, np.uint8))
    foreign = [
        b"",
        b"PAR1 no PAR1",
        whole[: len(whole) // 2],
        rewritten(table.slice(0, 49)),
        rewritten(table.drop_columns(["zlogz"])),
        rewritten(table.set_column(0, table.schema.field(0), nulls)),
        rewritten(table.set_column(16, table.schema.field(16), last)),
        rewritten(table.take(pa.array(range(49, -1, -1)))),
    ]
    for body in foreign:
        path.write_bytes(body)
        with pytest.raises(DataError, match=r"^openml: .*run: jsc-explore data fetch openml$") as caught:
            load("openml", cache=filled)
        assert path.name in str(caught.value)


def test_a_write_that_fails_leaves_what_was_there(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in filled.iterdir()}
    features, labels = made_up(60, seed=2)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        cache.write(filled, "openml", SourceData(features, labels, "", "", ""))
    assert {path.name: path.read_bytes() for path in filled.iterdir()} == before


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("JSC_EXPLORE_CACHE")
    assert cache_dir().name == "jsc-explore"

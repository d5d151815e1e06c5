"""Downloads: what a whole release gives, and what every way of going wrong says, against a server on this machine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from data_server import ARFF, HDF5, METADATA, Publisher, Submission, as_arff, as_hdf5, publishing, some_jets
from servers import ROOT

from jsc_explore.data import CLASSES, FEATURES, digest, download, fetch, is_available, load, openml
from jsc_explore.errors import DataError, FieldError


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    with publishing() as known:
        monkeypatch.setattr(download, "WAIT_S", 0.0)
        monkeypatch.setenv("JSC_EXPLORE_OPENML_URL", known.url)
        monkeypatch.setenv("JSC_EXPLORE_CERNBOX_URL", known.url + "/")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield known


def refusal(name: str, cache: Path) -> str:
    """What fetch says when it refuses: one line that names the source, with nothing left behind."""
    before = {path.name for path in cache.iterdir()} if cache.exists() else set()
    with pytest.raises(DataError) as caught:
        fetch(name, cache=cache, progress=False, force=True)
    text = str(caught.value)
    assert text.startswith(f"{name}: ")
    assert "\n" not in text
    assert {path.name for path in cache.iterdir()} - before <= {f"{name}.lock"}
    return text


# A whole release.


def test_openml_labels_follow_the_canonical_order_not_the_alphabet(publisher: Publisher, tmp_path: Path) -> None:
    features, labels = some_jets()
    publisher.openml(as_arff(features, [CLASSES[label] for label in labels]))
    path = fetch("openml", cache=tmp_path, progress=False)
    jets = load("openml", cache=tmp_path)
    assert path.parent == tmp_path
    assert path.suffix == ".parquet"
    np.testing.assert_array_equal(jets.features, features)
    np.testing.assert_array_equal(jets.labels, labels)
    assert (jets.features.dtype, jets.labels.dtype, jets.name) == (np.float32, np.uint8, "openml")


def test_cernbox_columns_are_found_by_name(publisher: Publisher, tmp_path: Path) -> None:
    features, labels = some_jets()
    publisher.cernbox(as_hdf5(features, np.eye(5)[labels]))
    fetch("cernbox", cache=tmp_path, progress=False)
    jets = load("cernbox", cache=tmp_path)
    np.testing.assert_array_equal(jets.features, features)
    np.testing.assert_array_equal(jets.labels, labels)


def test_both_formats_of_the_same_jets_have_one_digest(publisher: Publisher, tmp_path: Path) -> None:
    features, labels = some_jets()
    publisher.openml(as_arff(features, [CLASSES[label] for label in labels]))
    publisher.cernbox(as_hdf5(features, np.eye(5)[labels]))
    for name in ("openml", "cernbox"):
        assert not is_available(name, cache=tmp_path)
        fetch(name, cache=tmp_path, progress=False)
        assert is_available(name, cache=tmp_path)
    sha = hashlib.sha256(features.tobytes() + labels.tobytes()).hexdigest()
    assert digest("openml", cache=tmp_path) == digest("cernbox", cache=tmp_path) == sha


def test_manifest_tells_where_the_jets_came_from(publisher: Publisher, tmp_path: Path) -> None:
    features, labels = some_jets(20)
    features[[7, 13]], labels[[7, 13]] = features[2], labels[2]
    arff = as_arff(features, [CLASSES[label] for label in labels])
    publisher.openml(arff)
    path = fetch("openml", cache=tmp_path, progress=False)
    manifest = json.loads((tmp_path / "openml.json").read_text())
    assert manifest["url"] == publisher.url + ARFF
    assert manifest["download_sha256"] == hashlib.sha256(arff).hexdigest()
    assert (manifest["file"], manifest["licence"]) == (path.name, "Public")
    assert (manifest["rows"], manifest["duplicates"]) == (20, 2)


def test_arff_may_quote_names_and_classes_and_comment_between_rows(publisher: Publisher, tmp_path: Path) -> None:
    features, labels = some_jets(10)
    text = as_arff(features, [f"'{CLASSES[label]}'" for label in labels], tuple(f"'{n}'" for n in FEATURES))
    text = text.replace(b"@DATA\n", b"@data\n% rows\n").replace(b"\n", b"\r\n").replace(b"class {", b'"jet type" {')
    publisher.openml(text, default_target_attribute="jet type")
    fetch("openml", cache=tmp_path, progress=False)
    np.testing.assert_array_equal(load("openml", cache=tmp_path).labels, labels)


def test_fetching_twice_downloads_once(publisher: Publisher, tmp_path: Path) -> None:
    publisher.openml(as_arff(some_jets()[0], ["g"] * 60))
    first = fetch("openml", cache=tmp_path, progress=False)
    assert fetch("openml", cache=tmp_path, progress=False) == first
    assert publisher.hits[ARFF] == 1
    fetch("openml", cache=tmp_path, progress=False, force=True)
    assert publisher.hits[ARFF] == 2


def test_two_processes_that_fetch_at_once_download_once(publisher: Publisher, tmp_path: Path) -> None:
    publisher.openml([Submission(as_arff(some_jets()[0], ["g"] * 60), wait_s=0.7)])
    program = "import sys; from jsc_explore.data import fetch; print(fetch('openml', progress=False))"
    environment = os.environ | {"JSC_EXPLORE_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1]
    assert publisher.hits[ARFF] == 1


def test_a_forced_fetch_of_new_jets_replaces_the_old_file(publisher: Publisher, tmp_path: Path) -> None:
    publisher.openml(as_arff(some_jets(seed=1)[0], ["g"] * 60))
    old = fetch("openml", cache=tmp_path, progress=False)
    publisher.openml(as_arff(some_jets(seed=2)[0], ["q"] * 60))
    new = fetch("openml", cache=tmp_path, progress=False, force=True)
    assert new != old
    assert list(tmp_path.glob("*.parquet")) == [new]
    assert set(load("openml", cache=tmp_path).labels) == {1}


# Failures that pass.


@pytest.mark.parametrize(
    "first",
    [
        Submission(b"busy", 503),
        Submission(b"slow down", 429),
        Submission(b"half", announced=5000),
        Submission(b"other bytes"),
    ],
    ids=["503", "429", "cut short", "wrong bytes"],
)
def test_a_failure_that_passes_is_retried(publisher: Publisher, tmp_path: Path, first: Submission) -> None:
    features, labels = some_jets()
    publisher.openml([first, Submission(as_arff(features, [CLASSES[label] for label in labels]))])
    fetch("openml", cache=tmp_path, progress=False)
    np.testing.assert_array_equal(load("openml", cache=tmp_path).features, features)
    assert publisher.hits[ARFF] == 2


# Failures that do not: transport.


def test_an_incomplete_download_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    whole = as_hdf5(some_jets()[0], np.eye(5)[some_jets()[1]])
    publisher.cernbox(Submission(whole[: len(whole) // 2], announced=len(whole)))
    text = refusal("cernbox", tmp_path)
    assert "was interrupted" in text
    assert "4 attempts" in text
    assert publisher.hits[HDF5] == download.ATTEMPTS
    assert not is_available("cernbox", cache=tmp_path)


def test_a_file_cut_short_by_its_publisher_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    whole = as_hdf5(some_jets()[0], np.eye(5)[some_jets()[1]])
    publisher.cernbox(whole[: len(whole) // 2])
    assert "not a complete HDF5 file" in refusal("cernbox", tmp_path)


def test_wrong_checksum(publisher: Publisher, tmp_path: Path) -> None:
    publisher.openml(as_arff(some_jets()[0], ["g"] * 60), md5_checksum="0" * 32)
    text = refusal("openml", tmp_path)
    assert "wrong checksum" in text
    assert "jsc-explore data fetch openml" in text


def test_not_found_is_not_retried(publisher: Publisher, tmp_path: Path) -> None:
    text = refusal("cernbox", tmp_path)
    assert "404" in text
    assert "JSC_EXPLORE_CERNBOX_URL" in text
    assert publisher.hits[HDF5] == 1
    assert "404" in refusal("openml", tmp_path)


def test_a_web_page_in_place_of_data(publisher: Publisher, tmp_path: Path) -> None:
    publisher.cernbox(b"\n<!DOCTYPE html><html>Please log in</html>")
    assert "web page" in refusal("cernbox", tmp_path)
    publisher.openml([Submission(b"<html>down for maintenance</html>")])
    assert "web page" in refusal("openml", tmp_path)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x.arff", "no address", "http://127.0.0.1:1/x.arff"])
def test_metadata_with_a_useless_address(publisher: Publisher, tmp_path: Path, url: str) -> None:
    publisher.openml(b"", url=url)
    assert url in refusal("openml", tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{not json", b'{"error": {"code": "111"}}', b'{"data_set_description": {"url": 5}}']
)
def test_invalid_metadata(publisher: Publisher, tmp_path: Path, text: bytes) -> None:
    publisher.answers[METADATA] = [Submission(text)]
    assert "metadata.json: not the metadata expected" in refusal("openml", tmp_path)


def test_metadata_without_a_checksum(publisher: Publisher, tmp_path: Path) -> None:
    publisher.openml(b"", md5_checksum=None)
    assert "metadata.json: has no md5_checksum" in refusal("openml", tmp_path)


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch, publisher: Publisher, tmp_path: Path) -> None:
    monkeypatch.setenv("JSC_EXPLORE_CERNBOX_URL", "http://127.0.0.1:1")
    assert "check the network" in refusal("cernbox", tmp_path)


# Failures that do not: content.


def broken_arff(change: str) -> bytes:
    features, labels = some_jets()
    classes, names = [CLASSES[label] for label in labels], FEATURES
    if change == "NaN":
        features[17, 14] = np.nan
    if change == "infinite":
        features[17, 14] = np.inf
    if change == "unknown class":
        classes[4] = "b"
    if change == "wrong column":
        names = tuple("mass" if name == "mass_mmdt" else name for name in FEATURES)
    text = as_arff(np.where(np.isfinite(features), features, 7777.25), classes, names)
    stand_in = {"missing": b"?", "NaN": b"nan", "infinite": b"inf", "overflow": b"1e99", "not a number": b"many"}
    if change in ("NaN", "infinite"):
        return text.replace(b"7777.25", stand_in[change])
    if change in stand_in:
        first = text.index(b"@DATA\n") + 6
        return text[:first] + stand_in[change] + text[text.index(b",", first) :]
    return {
        "no rows": text[: text.index(b"@DATA") + 6],
        "no data": text.replace(b"@DATA", b""),
        "short row": text + b"1,2,3\n",
        "no class": text.replace(b",t\n", b",?\n", 1),
    }.get(change, text)


ARFF_FAULTS = {
    "missing": "zlogz is missing, NaN or infinite in row 0",
    "NaN": "mass_mmdt is missing, NaN or infinite in row 17 (1 such values)",
    "infinite": "mass_mmdt is missing, NaN or infinite in row 17",
    "overflow": "zlogz is missing, NaN or infinite in row 0",
    "not a number": "invalid value 'many'",
    "unknown class": "unknown class 'b'",
    "wrong column": "column mass_mmdt missing",
    "no rows": "Empty CSV file",
    "no data": "not an ARFF file",
    "short row": "Expected 17 columns",
    "no class": "no class in 1 rows",
}


@pytest.mark.parametrize("change", ARFF_FAULTS)
def test_arff_with_a_fault(publisher: Publisher, tmp_path: Path, change: str) -> None:
    publisher.openml(broken_arff(change))
    assert ARFF_FAULTS[change] in refusal("openml", tmp_path)


def broken_hdf5(change: str) -> bytes:
    features, labels = some_jets()
    one_hot = np.eye(5)[labels]
    if change == "no rows":
        features, one_hot = features[:0], one_hot[:0]
    if change == "NaN":
        features[17, 14] = np.nan
    if change == "no class":
        one_hot[3] = 0
    if change == "two classes":
        one_hot[3] = [1, 0, 1, 0, 0]
    if change == "half a class":
        one_hot[3] = [-1, 0, 0, 0, 0]
    names = (
        tuple("mass" if name == "mass_mmdt" else name for name in FEATURES) if change == "wrong column" else FEATURES
    )
    return as_hdf5(features, one_hot, names, "jets" if change == "wrong data set" else "t_allpar_new")


HDF5_FAULTS = {
    "no rows": "has no rows",
    "NaN": "mass_mmdt is missing, NaN or infinite in row 17",
    "no class": "unknown class in 1 rows, first row 3",
    "two classes": "unknown class in 1 rows, first row 3",
    "half a class": "unknown class in 1 rows, first row 3",
    "wrong column": "column j_mass_mmdt missing",
    "wrong data set": "no table t_allpar_new",
}


@pytest.mark.parametrize("change", HDF5_FAULTS)
def test_hdf5_with_a_fault(publisher: Publisher, tmp_path: Path, change: str) -> None:
    publisher.cernbox(broken_hdf5(change))
    assert HDF5_FAULTS[change] in refusal("cernbox", tmp_path)


@pytest.mark.parametrize(
    "make", [lambda f: f.create_group("t_allpar_new"), lambda f: f.create_dataset("t_allpar_new", data=[1.0])]
)
def test_hdf5_without_a_table(publisher: Publisher, tmp_path: Path, make: Callable[[h5py.File], object]) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        make(file)
    publisher.cernbox(buffer.getvalue())
    assert "no table t_allpar_new" in refusal("cernbox", tmp_path)


def test_a_failed_fetch_leaves_the_cache_unchanged(publisher: Publisher, tmp_path: Path) -> None:
    features, labels = some_jets()
    publisher.openml(as_arff(features, [CLASSES[label] for label in labels]))
    fetch("openml", cache=tmp_path, progress=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for change in ("NaN", "unknown class", "wrong column"):
        publisher.openml(broken_arff(change))
        refusal("openml", tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_files_of_a_killed_fetch_are_deleted(publisher: Publisher, tmp_path: Path) -> None:
    left = tmp_path / "openml.download"
    left.mkdir()
    (left / openml.ARFF).write_bytes(b"half a file")
    publisher.openml(as_arff(some_jets()[0], ["g"] * 60))
    fetch("openml", cache=tmp_path, progress=False)
    assert publisher.hits[ARFF] == 1
    assert not left.exists()


def test_a_bar_is_drawn_only_on_a_terminal(
    publisher: Publisher, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    features, labels = some_jets()
    publisher.cernbox(as_hdf5(features, np.eye(5)[labels]))
    fetch("cernbox", cache=tmp_path, progress=True)
    assert capfd.readouterr() == ("", "")


def test_a_cache_that_cannot_be_written(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot be written .*set JSC_EXPLORE_CACHE"):
        fetch("openml", cache=tmp_path / "file", progress=False)


def test_an_unknown_source_names_the_choices() -> None:
    for act in (fetch, load, digest, is_available):
        with pytest.raises(FieldError, match=r"dataset = 'jetnet': must be one of simulated, openml, cernbox"):
            act("jetnet")

"""Export to one HTML page: what it takes, what it refuses to overwrite, and that it needs no network."""

import json
import re

import pytest
from servers import ROOT

from jsc_explore.cli import main
from jsc_explore.errors import FieldError, JscError
from jsc_explore.export import export_page, parse_view, write_page
from jsc_explore.store import Store

VIEW = "http://room.example:8501/?facet=final_relu&final_relu=any&cells=16:1e-3:yes~256:1e-3:no&curve_facet=final_relu"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"), ROOT / "results.parquet")
    yield store
    store.close()


@pytest.fixture(scope="module")
def plain(store):
    return export_page(store, {})


@pytest.fixture(scope="module")
def faceted(store):
    return export_page(store, parse_view(VIEW), "Does the final ReLU <hurt>?")


# ---- the view


def test_a_view_is_a_url_its_query_or_a_saved_name():
    words = {"x": "max_epochs", "filter": "val_acc > 0.7"}
    assert parse_view("http://host:8501/explore?x=max_epochs&filter=val_acc+%3E+0.7") == words
    assert parse_view("?x=max_epochs&filter=val_acc%20%3E%200.7") == words
    assert parse_view("x=max_epochs&filter=val_acc > 0.7") == words
    assert parse_view("my view", {"my view": "x=max_epochs&filter=val_acc+%3E+0.7"}) == words
    assert parse_view("") == parse_view("http://host:8501/") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("?x=colour", "must be one of"),
        ("?tomatoes=3", "'tomatoes': is unknown"),
        ("?filter=val_acc >", "not the end at character 10"),
        ("?x=batch_size&y=batch_size", "two axes hold the same field"),
        ("http://host/compare?a=1", "is not a URL of the Explore page"),
        ("no such view", "is neither a URL nor a saved view"),
    ],
)
def test_a_view_that_no_page_would_understand_is_refused(text, said):
    with pytest.raises(JscError, match=re.escape(said)):
        parse_view(text)


# ---- the file


def test_an_existing_file_is_replaced_only_with_force(tmp_path):
    path = tmp_path / "a view.html"
    write_page("first", path)
    with pytest.raises(FieldError, match="exists already; choose another name or add --force"):
        write_page("second", path)
    assert path.read_text() == "first"
    write_page("second", path, force=True)
    assert path.read_text() == "second"
    assert [one.name for one in tmp_path.iterdir()] == ["a view.html"]


def test_a_file_that_cannot_be_written_is_reported_in_one_line(tmp_path):
    with pytest.raises(FieldError, match="cannot be written"):
        write_page("text", tmp_path / "no such folder" / "view.html")


def test_the_command_writes_the_page_and_refuses_bad_parameters(tmp_path, capsys):
    path = tmp_path / "view.html"
    options = ["export", "html", str(path), "--store", str(tmp_path / "store")]
    with pytest.raises(SystemExit) as ended:
        main.main([*options, "--view", "?x=colour"])
    assert ended.value.code == 2
    assert "x = 'colour': must be one of" in capsys.readouterr().err
    assert not path.exists()
    with pytest.raises(SystemExit) as ended:
        main.main([*options, "--view", "?model=jsc-toy", "--title", "Toy"])
    assert ended.value.code == 0
    assert "Validation accuracy · jsc-toy" in path.read_text()


# ---- its content


def test_it_has_a_summary_and_its_provenance(plain, store):
    assert "180 runs, 6 of 42 cells missing" in plain
    assert re.search(r"simulated, digest [0-9a-f]{16}", plain)
    assert "jsc-explore train" in plain
    assert "torch 2." in plain
    assert plain.count("<tr><td>") == 42
    assert len(plain.encode()) < 3e6


def test_user_text_cannot_become_markup(faceted):
    assert "Does the final ReLU &lt;hurt&gt;?" in faceted
    # The data contain no tag.
    for content in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', faceted):
        assert "<" not in content
        assert json.loads(content)["datasets"]


def test_its_policy_allows_no_network(plain):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', plain)[1]
    assert "default-src 'none'" in policy
    assert "connect-src" not in policy
    assert "http" not in policy
    head = plain.split("<script", 1)[0]
    assert "url(" not in head
    assert "<link" not in head

"""Hostile names, files and queries are refused, every input has a limit, and nothing foreign is executed."""

import ast
import tomllib

import duckdb
import pyarrow as pa
import pytest
from servers import ROOT

from jsc_explore import data, network
from jsc_explore.cli.train import MAX_GRID_BYTES, read_grid
from jsc_explore.config import RunConfig
from jsc_explore.data import cache
from jsc_explore.errors import FieldError, JscError, StoreError
from jsc_explore.store import Store
from jsc_explore.store.sandbox import connect, limited

SOURCES = [*(ROOT / "jsc_explore").rglob("*.py"), *(ROOT / "bench").rglob("*.py"), ROOT / "app.py"]


# ---- names never become paths

NAMES = [
    "../simulated", "/etc/passwd", "simulated-../../x", "simulated-a/b", "simulated-\0", "simulated-" + "a" * 33,
    "simulated-a\n", "simulated-", "..", "", "simulated\x00", "SIMULATED", "simulated-ä", "a" * 10_000,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_name_of_data_that_could_be_a_path_is_refused_wherever_it_comes_from(name, tmp_path):
    with pytest.raises(FieldError):
        RunConfig(dataset=name)
    for ask in (data.digest, data.load, data.recipe, data.locate):
        with pytest.raises(JscError):
            ask(name)
    assert list(tmp_path.iterdir()) == []


def test_a_manifest_cannot_lead_out_of_its_folder(tmp_path):
    (tmp_path / "secret.parquet").write_bytes(b"PAR1")
    folder = tmp_path / "cache"
    folder.mkdir()
    for file in ("../secret.parquet", str(tmp_path / "secret.parquet")):
        (folder / "simulated-x.json").write_text(
            f'{{"file": "{file}", "digest": "0", "rows": 1, "duplicates": 0}}', encoding="utf-8"
        )
        with pytest.raises(JscError):
            cache.read(folder, "simulated-x")


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "%", "_", "\0", "' OR 1=1 --", "a" * 100_000])
def test_an_id_is_looked_up_and_nothing_else(run_id, tmp_path):
    store = Store(tmp_path, ROOT / "results.parquet")
    assert (store.find(run_id), store.record(run_id), store.existing([run_id])) == ([], None, set())
    store.close()


# ---- the database is locked up


@pytest.fixture
def database(tmp_path):
    (tmp_path / "own").mkdir()
    duckdb.sql("SELECT 1 AS a").write_parquet(str(tmp_path / "own" / "part.parquet"))
    duckdb.sql("SELECT 2 AS a").write_parquet(str(tmp_path / "other.parquet"))
    db = connect([tmp_path / "own"])
    yield db
    db.close()


def test_the_database_reads_its_own_files(database, tmp_path):
    assert database.execute(f"SELECT a FROM '{tmp_path}/own/part.parquet'").fetchall() == [(1,)]


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM '{0}/other.parquet'",
        "SELECT * FROM '{0}/own/../other.parquet'", "COPY (SELECT 1) TO '{0}/out.csv'", "ATTACH '{0}/new.db'",
        "INSTALL httpfs", "LOAD httpfs", "SET memory_limit = '90GB'", "SET enable_external_access = true",
        "SELECT * FROM 'https://example.org/x.parquet'", "SELECT * FROM glob('/etc/*')",
    ],
)  # fmt: skip
def test_the_database_reaches_nothing_else_and_cannot_be_unlocked(database, tmp_path, text):
    with pytest.raises(duckdb.Error):
        database.execute(text.format(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.parquet", "own"]


def test_a_query_that_takes_too_long_is_ended_with_a_clear_line(database):
    with pytest.raises(StoreError, match=r"longer than 0\.2 s"), limited(database, 0.2):
        database.execute("SELECT count(*) FROM range(100000) a, range(100000) b, range(100) c WHERE a.range > b.range")
    assert database.execute("SELECT 1").fetchall() == [(1,)]


def test_the_stores_own_database_is_the_locked_one(tmp_path):
    store = Store(tmp_path)
    with pytest.raises(duckdb.PermissionException, match="operations are disabled"):
        store.query("SELECT * FROM read_text('/etc/passwd')", [])
    given = pa.table({"a": [1]})
    assert store.query("SELECT a FROM read", [], read=given)["a"].to_pylist() == [1]
    store.close()


# ---- sizes have bounds


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("16-4096-4096-5", "parameters, the limit is"),
        ("16-5000-5", r"lie in \[1, 4096\]"),
        ("16-" + "-".join(["8"] * 80) + "-5", "2 to 64 nodes"),
        ("16-" + "-" * 400 + "5", "characters long"),
        ("16-c4096k15-c4096k15-gap-5", "parameters, the limit is"),
        ("16-" + "-".join(["c512k1"] * 15) + "-gap-5", "activations"),
    ],
)
def test_networks_of_ones_own_have_bounds_that_are_told(model, says):
    with pytest.raises(FieldError, match=says):
        RunConfig(model=model)


def test_the_largest_networks_of_the_lab_are_far_inside_the_bounds():
    for name in network.NAMED:
        assert network.activations(network.parse(name)) < network.MAX_ACTIVATIONS / 10


def test_a_step_of_a_wide_network_and_a_large_batch_has_a_bound_too():
    with pytest.raises(FieldError, match=r"batch_size = 65536: .*memory"):
        RunConfig(model="16-c256k3-c256k3-gap-5", batch_size=65536)
    assert RunConfig(model="16-c256k3-c256k3-gap-5", batch_size=256)
    assert RunConfig(batch_size=65536)


def test_a_grid_file_has_a_bound():
    with pytest.raises(JscError, match="larger than"):
        read_grid(b"#" * (MAX_GRID_BYTES + 1), "grid")


# ---- what the server is set to, and what is never done

# File and call that are allowed, each for the reason beside it.
ALLOWED = {
    ("jsc_explore/importers/hparams.py", "yaml"),  # Loaders of plain values alone, see the test below.
    ("bench/attack/workers.py", "pickle"),  # Written, for the engine to be attacked with.
    ("jsc_explore/analysis/fit_process.py", "pickle"),  # Between the page and its own child, through a pipe.
}
FORBIDDEN = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}


def _calls(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (name for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        if isinstance(node, ast.Call):
            text = ast.unparse(node.func)
            if text in FORBIDDEN or text in ("torch.load", "np.load", "numpy.load", "os.system", "os.popen"):
                yield text
            if any(
                word.arg in ("allow_pickle", "shell") and ast.unparse(word.value) != "False" for word in node.keywords
            ):
                yield f"{text}(unsafe keyword)"


def test_nothing_from_a_file_or_a_user_is_unpickled_or_evaluated():
    result = {(str(path.relative_to(ROOT)), call) for path in SOURCES for call in _calls(path)}
    assert result <= ALLOWED


def test_yaml_is_read_by_a_loader_that_makes_plain_values_alone():
    text = (ROOT / "jsc_explore" / "importers" / "hparams.py").read_text(encoding="utf-8")
    assert "SafeLoader" in text
    assert text.count("yaml.load(") == text.count("_PlainLoader)\n    except")
    assert not any(name in text for name in ("UnsafeLoader", "FullLoader", "unsafe_load", "full_load"))


def test_the_search_for_what_is_forbidden_finds_it(tmp_path):
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\ntorch.load(f)\nnp.load(f, allow_pickle=True)\neval(x)\nmodel.eval()\n")
    assert sorted(_calls(bad)) == ["eval", "np.load", "np.load(unsafe keyword)", "pickle", "torch.load"]


def _starts_of_python(path):
    """Yield the options of each command in a file that starts Python, as text."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.List) and node.elts and ast.unparse(node.elts[0]) == "sys.executable":
            yield ast.unparse(node)


def test_every_python_that_is_started_imports_nothing_from_the_current_directory():
    starts = [start for path in (ROOT / "jsc_explore").rglob("*.py") for start in _starts_of_python(path)]
    assert len(starts) >= 3
    assert [start for start in starts if not start.startswith("[sys.executable, '-P', ")] == []


def test_the_server_keeps_strangers_out():
    server = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert server["server"]["enableXsrfProtection"] is True
    assert server["server"]["enableCORS"] is True
    assert server["server"]["maxUploadSize"] <= 5
    assert server["server"]["maxMessageSize"] <= 50
    assert server["client"]["showErrorDetails"] == "none"
    assert server["browser"]["gatherUsageStats"] is False
    assert not server["server"].get("enableStaticServing", False)

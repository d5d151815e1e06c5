"""The command line: data on stdout, progress on stderr, one line for bad input, nothing lost."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jsc_explore import data
from jsc_explore.cli import main, train
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.files import file_lock
from jsc_explore.jobs.queue import Queue
from jsc_explore.results import POINT_FIELDS, Outcome, RunRecord
from jsc_explore.store import Store
from jsc_explore.store.directory import open_directory

COMMANDS = [["app"], ["engine"], ["train"], ["sweep"], ["list"], ["curve"], ["publish"], ["data", "fetch"], ["verify"],
            ["compact"], ["merge"]]  # fmt: skip
# As the installed script: without the current directory in the search path.
PYTHON = [sys.executable, "-P", "-m", "jsc_explore"]


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch, jets_cache):
    """A store, a snapshot and a cache of the test's own, and what the command line starts sees them too."""
    monkeypatch.setenv("JSC_EXPLORE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("JSC_EXPLORE_SNAPSHOT", str(tmp_path / "results.parquet"))
    monkeypatch.setenv("JSC_EXPLORE_CACHE", str(jets_cache))
    return tmp_path / "store"


@pytest.fixture
def call(capsys):
    """Run one command line in this process; return its exit code, its stdout and its stderr."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main.main([str(argument) for argument in arguments])
        return (ended.value.code or 0, *capsys.readouterr())

    return run


def record_of(run, **changes):
    digest = data.digest("simulated")
    points = [dict.fromkeys(POINT_FIELDS, i / 10) | {"step": i, "samples": i * 100} for i in range(3)]
    points[0]["train_loss"] = None
    values = {"status": "done", "stop_reason": "max_epochs", "points": points, "epochs_run": 2, "steps": 2}
    outcome = Outcome(**{**values, "val_acc": 0.71234, "test_acc": 0.7, **changes})
    identity = (run.run_id(digest), run.config_id(digest), digest, 1, run.to_dict(), run.network.parameters)
    return RunRecord(*identity, outcome, "2026-01-01T00:00:00+00:00")


def fill_store(directory, *runs):
    store = Store(directory)
    records = [record_of(run) for run in runs]
    for record in records:
        store.add(record)
    store.close()
    return [record.run_id for record in records]


def is_one_line(err, *parts):
    assert err.startswith("jsc-explore: ")
    assert err.count("\n") == 1, err
    assert "Traceback" not in err
    return all(part in err for part in parts)


# ---- help


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_one_line_of_help_and_takes_a_store(call, command):
    code, out, _ = call(*command, "--help")
    assert code == 0
    assert "--store DIR" in out
    _, listing, _ = call(*command[:-1], "--help")
    (line,) = [line for line in listing.splitlines() if line.split()[:1] == command[-1:]]
    assert len(line.split()) > 3


def test_training_takes_every_field_with_its_default(call):
    _, out, _ = call("train", "--help")
    assert all(f"--{name.replace('_', '-')} VALUE" in out for name in FIELDS)
    assert "(default 1e-3)" in " ".join(out.split())


def test_the_version_is_printed(call):
    from jsc_explore import __version__

    assert call("--version") == (0, f"{__version__}\n", "")


# ---- bad input: exit 2 and one line


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ((), ["COMMAND"]),
        (("fly",), ["fly"]),
        (("train", "--batch-size", "0"), ["batch_size", "0", "must be a whole number in [", "try 256"]),
        (("train", "--batch-size", "many"), ["batch_size", "'many'", "try 256"]),
        (("train", "--learning-rate", "nan"), ["learning_rate", "nan"]),
        (("train", "--optimizer", "adamm"), ["optimizer", "'adamm'", "try adam"]),
        (("train", "--model", "16-64-x-5"), ["model"]),
        (("train", "--final-relu", "maybe"), ["final_relu", "must be true or false"]),
        (("train", "--seeds", "0"), ["--seeds", "must be a whole number in [1, 1000]"]),
        (("train", "--seed", "2147483647", "--seeds", "2"), ["seed", "2147483648"]),
        (("train", "--batchsize", "16"), ["--batchsize"]),
        (("train", "--dataset", "openml"), ["openml", "jsc-explore data fetch openml"]),
        (("list", "--seed", "first"), ["seed", "'first'"]),
        (("curve", "zzz"), ["run_id", "is the beginning of no stored run", "jsc-explore list"]),
        (("curve", ""), ["run_id", "no stored run"]),
        (("sweep", "nowhere.toml"), ["nowhere.toml", "cannot be read"]),
        (("publish",), ["holds no runs to publish"]),
        (("data",), ["ACTION"]),
        (("data", "fetch", "nonsense"), ["dataset", "'nonsense'", "simulated, openml, cernbox"]),
        (("app", "--port", "http"), ["--port"]),
        (("engine", "--workers", "none"), ["--workers"]),
        (("engine", "--device", "abacus"), ["--device", "must be cpu, cuda"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_is_answered_by_one_line_with_the_remedy(call, arguments, parts):
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert is_one_line(err, *parts), err


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("batchsize = 16", ["batchsize", "is no hyperparameter", "did you mean batch_size?"]),
        ("batch_size = [16, 0]", ["batch_size", "0"]),
        ("batch_size = []", ["batch_size", "at least one value"]),
        ("batch_size = [[16]]", ["batch_size", "[16]"]),
        ("[batch_size]\nlow = 1", ["batch_size"]),
        ("learning_rate = 2026-01-01", ["learning_rate"]),
        ("seeds = 0", ["seeds", "[1, 1000]"]),
        ("seeds = 2\nseed = 1", ["seeds", "combined with seed"]),
        ("batch_size = [16,", ["is not valid TOML", "docs/command-line.md"]),
        ('model = "\xff"', ["is not valid TOML"]),
        ("seeds = 1000\nmax_epochs = [" + ",".join(map(str, range(1, 102))) + "]", ["at most 100,000 runs"]),
    ],
    ids=lambda value: value[:24] if isinstance(value, str) else "",
)
def test_a_bad_grid_is_answered_by_one_line_and_nothing_is_queued(call, home, tmp_path, text, parts):
    grid = tmp_path / "grid.toml"
    grid.write_bytes(text.encode("latin-1"))
    code, out, err = call("sweep", grid)
    assert (code, out) == (2, "")
    assert is_one_line(err, *parts), err
    assert not (home / "queue.sqlite").exists()


@pytest.mark.parametrize("command", [["list"], ["train"], ["verify"], ["curve", "a"], ["publish"], ["engine"], ["app"]])
def test_a_store_that_is_a_file_is_refused_in_one_line_and_left_alone(call, tmp_path, command):
    (tmp_path / "file").write_text("precious")
    for store in (tmp_path / "file", tmp_path / "file" / "below"):
        code, out, err = call(*command, "--store", store)
        assert (code, out) == (2, "")
        assert is_one_line(err, "choose another with --store")
    assert (tmp_path / "file").read_text() == "precious"


def test_a_queue_that_is_no_database_is_one_line(call, home):
    open_directory(home)
    (home / "queue.sqlite").write_bytes(b"not a database at all" * 100)
    code, out, err = call("train")
    assert (code, out) == (2, "")
    assert is_one_line(err, "queue.sqlite", "cannot be opened", "run `jsc-explore verify --repair`")


def test_databases_of_random_bytes_are_moved_away_and_the_catalogue_is_rebuilt(call, home):
    fill_store(home, *(RunConfig(seed=seed) for seed in range(3)))
    for name in ("catalog.sqlite", "queue.sqlite", "views.sqlite"):
        for path in home.glob(f"{name}*"):
            path.unlink()
        (home / name).write_bytes(os.urandom(5000))
    for command in (["list"], ["merge", home / "parts"], ["compact"]):
        code, _, err = call(*command)
        assert code == 2
        assert is_one_line(err, "file is not a database", "run `jsc-explore verify --repair`"), err
    code, out, err = call("verify")
    assert (code, out.count("cannot be read (file is not a database)"), "--repair" in err) == (1, 3, True)
    code, out, err = call("verify", "--repair")
    assert (code, out.count("moved to"), out.count("; registered")) == (0, 3, 3), out + err
    assert len(list((home / "quarantine").iterdir())) == 3
    assert call("list")[1].count("done") == 3
    assert call("verify") == (0, "", "3 parts checked, 0 faults\n")


def test_a_catalogue_that_names_foreign_files_is_replaced_by_a_new_one(call, home, tmp_path):
    fill_store(home, *(RunConfig(seed=seed) for seed in range(2)))
    (tmp_path / "mine.parquet").write_text("mine")
    with closing(sqlite3.connect(home / "catalog.sqlite")) as db, db:
        db.execute("INSERT INTO retired VALUES ('../../mine.parquet', 0)")
    code, out, _ = call("verify")
    assert (code, "catalog.sqlite: is not a valid catalogue" in out) == (1, True)
    assert call("verify", "--repair")[0] == 0
    assert call("verify")[0] == 0
    assert call("list")[1].count("done") == 2
    assert (tmp_path / "mine.parquet").read_text() == "mine"


def test_a_store_in_use_keeps_its_damaged_databases(call, home, monkeypatch):
    monkeypatch.setattr("jsc_explore.store.verify._LOCK_TIMEOUT_S", 0.05)
    open_directory(home)
    (home / "queue.sqlite").write_bytes(os.urandom(5000))
    with file_lock(home / "engine.lock", exclusive=True):
        code, _, err = call("verify", "--repair")
    assert (code, is_one_line(err, "is in use", "stop its app and engine")) == (2, True)
    assert (home / "queue.sqlite").stat().st_size == 5000


@pytest.mark.parametrize("command", [
    ["app"], ["engine"], ["train"], ["sweep", "grid.toml"], ["list"], ["list", "--history", "a"],
    ["list", "--conflicts"], ["curve", "a"], ["publish", "--to", "p.parquet"], ["verify"], ["verify", "--repair"],
    ["compact", "--keep", "0"], ["merge", "other"], ["import"], ["import", "--remove", "a"], ["import", "csv", "a.csv"],
    ["export", "html", "a.html"],
])  # fmt: skip
def test_every_command_refuses_a_directory_that_is_not_a_store(call, home, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "execve", lambda *_: pytest.fail("the page was started"))
    (tmp_path / "grid.toml").write_text("seeds = 1")
    (tmp_path / "a.csv").write_text("run,epoch,val_acc\na,1,0.5\n")
    fill_store(tmp_path / "other", RunConfig())
    home.mkdir()
    (home / "thesis.tex").write_text("mine")
    code, out, err = call(*command)
    assert (code, out) == (2, "")
    assert is_one_line(err, f"store {home}: is not empty and is not a store", "choose a new or an empty directory"), err
    assert [path.name for path in home.iterdir()] == ["thesis.tex"]


def test_a_merge_reads_no_directory_that_is_not_a_store(call, tmp_path):
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "catalog.sqlite").write_text("mine")
    code, _, err = call("merge", tmp_path / "project")
    assert (code, is_one_line(err, "project: is not empty and is not a store")) == (2, True)


def test_publish_replaces_published_runs_and_no_other_file(call, home, tmp_path):
    fill_store(home, RunConfig())
    target = tmp_path / "thesis.pdf"
    target.write_text("mine")
    code, _, err = call("publish", "--to", target)
    assert (code, is_one_line(err, "thesis.pdf: exists and holds no published runs", "choose another file")) == (
        2,
        True,
    )
    assert target.read_text() == "mine"
    for _ in range(2):
        assert call("publish", "--to", tmp_path / "new.parquet")[0] == 0


def test_a_scheduler_whose_address_is_none_is_one_line(call, monkeypatch):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    code, out, err = call("engine", "--scheduler", "nonsense://")
    assert (code, out) == (2, "")
    assert is_one_line(err, "nonsense://", "is no address of a Dask scheduler", "tls://head:8786"), err


# ---- what is stored


def test_runs_are_listed_for_people_and_as_json_lines(call, home):
    ids = fill_store(home, RunConfig(seed=0), RunConfig(seed=1, batch_size=16))
    code, out, err = call("list")
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    assert head.split() == ["run_id", "model", "batch_size", "learning_rate", "max_epochs", "seed", "val_acc",
                            "test_acc", "status"]  # fmt: skip
    assert sorted(line.split()[0] for line in lines) == sorted(run_id[:12] for run_id in ids)
    assert "71.23%" in lines[0]
    code, out, err = call("list", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["run_id"] for row in rows} == set(ids)
    assert rows[0]["val_acc"] == 0.71234


def test_an_empty_store_lists_nothing(call):
    code, out, err = call("list", "--json")
    assert (code, out, err) == (0, "", "")


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ((), 4),
        (("--batch-size", 16), 2),
        (("--batch-size", 16, "--seed", 1), 1),
        (("--learning-rate", "0.001"), 4),
        (("--learning-rate", "1e-2"), 0),
        (("--final-relu", "yes"), 4),
        (("--model", "16-64-32-32-5"), 4),
        (("--model", "jsc-tiny"), 0),
    ],
)
def test_a_list_can_be_narrowed_by_any_field(call, home, filters, count):
    fill_store(home, *(RunConfig(model="16-64-32-32-5", batch_size=b, seed=s) for b in (16, 256) for s in (0, 1)))
    _, out, _ = call("list", "--json", *filters)
    assert len(out.splitlines()) == count


def test_a_curve_is_found_by_the_beginning_of_its_id(call, home):
    (run_id,) = fill_store(home, RunConfig())
    _, out, _ = call("curve", run_id[:6], "--json")
    assert [json.loads(line) for line in out.splitlines()] == record_of(RunConfig()).outcome.points
    _, out, err = call("curve", run_id)
    assert out.splitlines()[0].split()[:3] == ["step", "epoch", "train_loss"]
    assert len(out.splitlines()) == 4
    assert err == ""


def test_the_beginning_of_two_ids_is_refused(call, home):
    ids = fill_store(home, *(RunConfig(seed=seed) for seed in range(20)))
    first = max("0123456789abcdef", key=lambda digit: sum(run_id.startswith(digit) for run_id in ids))
    code, _, err = call("curve", first)
    assert code == 2
    assert is_one_line(err, "or more runs", "jsc-explore list")


def test_a_foreign_file_among_the_parts_is_named_and_the_rest_is_listed(call, home):
    fill_store(home, RunConfig(seed=0), RunConfig(seed=1))
    pq.write_table(pa.table({"a": [1]}), min((home / "parts").iterdir()))
    code, out, err = call("list", "--json")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert is_one_line(err, "was not written by jsc-explore", "jsc-explore verify")


def test_a_sound_store_is_verified_and_a_broken_part_is_found(call, home):
    fill_store(home, RunConfig(seed=0), RunConfig(seed=1))
    assert call("verify") == (0, "", "2 parts checked, 0 faults\n")
    part = min((home / "parts").iterdir())
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    code, out, err = call("verify")
    assert code == 1
    assert out == f"{part}: its checksum differs from the recorded one\n"
    assert err == "2 parts checked, 1 faults\n"


def test_what_is_published_is_what_another_store_starts_from(call, home, tmp_path):
    ids = fill_store(home, RunConfig(seed=0), RunConfig(seed=1))
    target = tmp_path / "results.parquet"
    assert call("publish", "--to", target) == (0, f"2 runs written to {target}\n", "")
    assert pq.read_table(target).num_rows == 2
    _, out, _ = call("list", "--json", "--store", tmp_path / "empty")
    assert {json.loads(line)["run_id"] for line in out.splitlines()} == set(ids)
    code, out, err = call("train", "--seed", 1, "--json", "--store", tmp_path / "empty")
    assert (code, err) == (0, "")
    assert (json.loads(out)["run_id"], json.loads(out)["from_store"]) == (ids[1], True)


def test_publishing_where_it_cannot_be_written_is_one_line(call, home, tmp_path):
    fill_store(home, RunConfig())
    code, out, err = call("publish", "--to", tmp_path / "nowhere" / "results.parquet")
    assert (code, out) == (2, "")
    assert is_one_line(err, "cannot be written")


def test_the_jets_made_here_are_fetched_by_name(call, jets_cache):
    code, out, err = call("data", "fetch", "simulated")
    assert (code, err) == (0, "")
    assert Path(out.strip()).parent.name == "shipped"


# ---- training that is stored, that fails, that nobody serves


def test_a_stored_run_is_answered_without_an_engine(call, home):
    run = RunConfig(batch_size=64, seed=3)
    (run_id,) = fill_store(home, run)
    code, out, err = call("train", "--batch-size", 64, "--seed", 3)
    assert (code, err) == (0, "")
    assert out.split()[:2] == [run_id[:12], "done"]
    assert "from the store  batch_size=64 seed=3" in out
    assert not (home / "engine.log").exists()


def test_a_filled_grid_is_answered_without_an_engine(call, home, tmp_path):
    fill_store(home, *(RunConfig(seed=seed) for seed in range(2)))
    grid = tmp_path / "grid.toml"
    grid.write_text("seeds = 2")
    assert call("sweep", grid) == (0, "2 runs in the store, 0 of them trained now, 0 failed\n", "")


@pytest.fixture
def scripted_engine(monkeypatch, home):
    """Let the command line start a stand-in for the engine: a process that ends at once, after ``deed(queue)``."""
    started = []

    def install(deed):
        def start(directory, snapshot, **options):
            started.append(options)
            queue = Queue(directory)
            deed(queue)
            queue.close()
            return subprocess.Popen([sys.executable, "-c", ""])

        monkeypatch.setattr("jsc_explore.jobs.engine.supervisor.start_engine", start)
        return started

    return install


def test_a_failed_training_is_one_line_and_exits_with_1(call, scripted_engine):
    def fail(queue):
        for job in queue.jobs(("queued",)):
            queue.start([job.run_id])
            queue.finish(job.run_id, "failed", "Traceback (most recent call last):\n  …\nMemoryError: too many jets")

    started = scripted_engine(fail)
    code, out, err = call("train", "--json")
    assert (code, out) == (1, "")
    assert is_one_line(err, "failed: MemoryError: too many jets")
    assert [options["until_idle"] for options in started] == [True]


def test_a_cancelled_training_is_reported(call, scripted_engine):
    scripted_engine(lambda queue: queue.cancel([job.run_id for job in queue.jobs()]))
    code, _, err = call("train")
    assert code == 1
    assert is_one_line(err, "cancelled")


def test_an_engine_that_cannot_live_is_started_a_few_times_then_its_log_is_named(call, scripted_engine):
    started = scripted_engine(lambda queue: None)
    code, _, err = call("train")
    assert code == 1
    assert is_one_line(err, "was not trained", "engine.log")
    assert len(started) == train.MAX_STARTS


def test_a_wait_is_not_left_without_an_engine(call, scripted_engine, home, monkeypatch):
    """An engine served the store at the request and ended before it read the queue."""
    queue = Queue(home)
    queue.set_heartbeat(os.getpid(), "")
    naps = []

    def nap(seconds):
        naps.append(seconds)
        if len(naps) == 3:
            queue.clear_heartbeat()

    monkeypatch.setattr(time, "sleep", nap)
    started = scripted_engine(lambda queue: queue.cancel([job.run_id for job in queue.jobs()]))
    code, _, err = call("train")
    queue.close()
    assert (code, len(started)) == (1, 1)
    assert is_one_line(err, "cancelled")


# ---- as a process: pipes and Ctrl-C


def test_a_reader_that_goes_away_is_no_error(home):
    fill_store(home, *(RunConfig(seed=seed) for seed in range(3)))
    command = " ".join(PYTHON)
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} list --json | head -0"], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.timeout(300)
def test_files_in_the_current_directory_are_neither_imported_nor_read_by_what_a_command_starts(home, tmp_path):
    """Modules of the standard library's names too: what multiprocessing starts imports some before all others."""
    found = tmp_path / "found"
    found.mkdir()
    for name in ("pyarrow", "torch", "numpy", "lightning", "distributed", "multiprocessing", "socket", "jsc_explore"):
        (found / f"{name}.py").write_text(f"import os; os.mkdir({str(tmp_path / name)!r})\n", encoding="utf-8")
    (found / ".numba_config.yaml").write_text("not a mapping", encoding="utf-8")
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONSAFEPATH"}
    ended = subprocess.run(
        [*PYTHON, "train", "--batch-size", "65536", "--max-epochs", "1"],
        cwd=found, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr + (home / "engine.log").read_text(encoding="utf-8")
    assert {path.name for path in tmp_path.iterdir()} <= {"found", "store"}


def test_ctrl_c_reports_that_requested_runs_stay_queued(home):
    home.mkdir()
    queue = Queue(home)
    queue.set_heartbeat(os.getpid(), "")  # served, by an engine that is in no hurry
    # A shell starts what runs in its background with SIGINT ignored, and children inherit that.
    process = subprocess.Popen(
        [*PYTHON, "train"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        while not queue.jobs():
            time.sleep(0.05)
        # Long enough, also on a busy machine, that it waits for the training and imports nothing any more.
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        states = [job.state for job in queue.jobs()]
    finally:
        process.kill()
        process.communicate()
        queue.close()
    assert (process.returncode, out, states) == (130, "", ["queued"])
    assert "interrupted; requested runs stay queued" in err
    assert "Traceback" not in err

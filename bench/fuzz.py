"""Benchmark of robustness: 28,000 hostile inputs to all parsers; each must end in an answer or one line of error."""

from __future__ import annotations

import importlib.util
import io
import json
import math
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import google_crc32c
import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bench.frame import Bound, Report
from jsc_explore import paths
from jsc_explore.cli.train import read_grid
from jsc_explore.config import FIELDS, RunConfig, parse_value
from jsc_explore.errors import JscError
from jsc_explore.grids import expand_grid
from jsc_explore.importers.csv_table import read_table
from jsc_explore.importers.imported_run import ImportedRun
from jsc_explore.importers.tensorboard import find_runs, read_run
from jsc_explore.network import NAMED
from jsc_explore.store import Store
from jsc_explore.store.imported_runs import table_of
from jsc_explore.store.query.grid import grid_cells
from jsc_explore.store.schema import SCALARS, part_schema
from jsc_explore.view_model import url_params

SLOWEST_S = 1.0
_HOSTILE = [
    "../../etc/passwd", "/etc/passwd", "\x00", "a" * 5000, "%2e%2e/", "';DROP TABLE runs;--", "9" * 5000, "1e999",
    "nan", "-inf", "٣", "\ud7ff", "{{7*7}}", "__import__('os')", "$(id)", "\r\n", "🦆", "(" * 200, "-" * 500,
]  # fmt: skip


@dataclass
class Result:
    """The results of one parser; each of ``faults`` is an input with its traceback."""

    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)


def _texts(*words: str) -> st.SearchStrategy[str]:
    """Generate texts of these words, joined at random, with hostile and random pieces between them."""
    pieces = st.one_of(st.sampled_from(words), st.sampled_from(_HOSTILE), st.text(max_size=8), st.integers().map(str))
    joints = st.sampled_from(["", " ", "-"])
    return st.builds(lambda joint, parts: joint.join(parts), joints, st.lists(pieces, max_size=12))


_NUMBERS = st.one_of(st.floats().map(repr), st.integers().map(str), st.sampled_from(["0.7", "1e-3", "1/0", "-(1)"]))
_COMPARISONS = st.builds(
    "{} {} {}".format,
    st.sampled_from([*SCALARS, "dead", "abs(val_acc)", "log10(learning_rate)", "length(model)", "steps*steps"]),
    st.sampled_from(["=", "<>", "<", ">=", "in", "not in", "like", "between 0 and", "is not null and 1 <"]),
    st.one_of(_NUMBERS, st.sampled_from(["(1, 2)", "'adam'", "('a','b')", "'%'", "null", "val_loss"])),
)
FILTERS = st.one_of(
    st.recursive(
        _COMPARISONS,
        lambda inner: st.one_of(
            st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner), inner.map("not {}".format)
        ),
        max_leaves=12,
    ),
    _texts(
        *SCALARS[:40], "and", "or", "not", "in", "between", "like", "is null", "(", ")", "<", "=", "%", "'a'", "0.7",
        "abs(", "dead", "select", "--", ";", "read_csv('/etc/passwd')", "1/0", "val_acc > 0.7",
    ),
)  # fmt: skip
_NODES = ["16", "64b", "4096", "32/gelud0.1", "c8k3", "c512k15s2b", "r8k3", "p2", "gap", "5000", "c4096k15", "8/sin"]
LAYERS = st.one_of(
    st.builds(
        "{}-{}-5{}".format,
        st.sampled_from(["16", "16b", "16/tanhd0.5", "17"]),
        st.lists(st.sampled_from(_NODES), min_size=1, max_size=70).map("-".join),
        st.sampled_from(["", " bn=all", " act=tanh dropout=0.1", " dropout=2", " bn=all bn=none x=1"]),
    ),
    _texts(*NAMED, "16", "16b", "64", "5", "c8k3", "p2", "gap", "d0.5", "/tanh", "bn=all", "act=", "-", "99999999"),
)
_VALID = st.sampled_from([
    "seeds = 3", "batch_size = [16, 32]", "learning_rate = 1e-3", 'model = ["jsc-tiny", "16-8-5"]', "final_relu = true",
    "seed = [0, 1]", "max_epochs = [1, 2, 5, 10]", 'optimizer = "sgd"', "momentum = 0.5", 'dataset = "simulated-../x"',
])  # fmt: skip
TOML_VALUES = st.recursive(
    st.one_of(
        st.integers(), st.floats(), st.booleans(), st.text(max_size=8).map(repr), st.sampled_from(_HOSTILE).map(repr)
    ),
    lambda inner: st.lists(inner, max_size=4).map(lambda parts: f"[{', '.join(map(str, parts))}]"),
    max_leaves=6,
)
GRIDS = st.one_of(
    st.lists(_VALID, max_size=5, unique=True).map("\n".join),
    st.lists(st.tuples(st.sampled_from([*FIELDS, "seeds", "x.y", "'../a'"]), TOML_VALUES), max_size=5).map(
        lambda pairs: "\n".join(f"{name} = {value}" for name, value in pairs)
    ),
    _texts("model", "=", "[", "]", '"', "\n", "[[a]]", "{", "}", "1979-05-27"),
    st.integers(1, 4000).map(lambda depth: "seed = " + "[" * depth),
).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60)  # fmt: skip
QUERIES = st.dictionaries(
    st.one_of(st.sampled_from([*url_params.EXPLORE.params, *FIELDS, url_params.CELLS]), st.text(max_size=10)),
    st.one_of(_texts("any", "..", ",", "~", ":", "1e-3", "adam", "256", "batch_size"), FILTERS, LAYERS),
    max_size=5,
)
_PLAIN = st.sampled_from(["", "0", "1", "1.0", "0.5", "1e-3", "nan", "inf"])
_CELLS = st.sampled_from([*[_PLAIN] * 60, st.sampled_from(["-1", "64", "1e300", "1e18", "adam"]),
                          st.sampled_from(_HOSTILE), st.floats().map(repr)]).flatmap(lambda cells: cells)  # fmt: skip
_COLUMNS = ["run", "epoch", "val_acc", "val_loss", "Val/Accuracy", "lr-Adam", "train_loss_step", "test_acc", "lr",
            "batch_size", "samples", "time_s", "Wall time", "accuracy", "val_accuracy", "seed", "x", "=1"]  # fmt: skip
CSV_TABLES = st.lists(st.sampled_from(_COLUMNS), min_size=1, max_size=8, unique=True).flatmap(
    lambda names: st.lists(st.lists(_CELLS, min_size=len(names), max_size=len(names)), max_size=8).map(
        lambda rows: "\n".join(",".join(row) for row in [["step", *names], *[["1", *row] for row in rows]])
    )
).map(lambda text: text.encode("utf-8", "surrogatepass")) | st.binary(max_size=60)  # fmt: skip
_EVENT_TAGS = ["epoch", "val/acc", "train_loss_step", "val_loss", "lr-Adam", "test_acc", "\x00", "a" * 300]
EVENT_FILES = st.one_of(
    st.lists(
        st.tuples(
            st.sampled_from([*[st.integers(0, 200)] * 30, st.integers(-(2**63), 2**63)]).flatmap(lambda steps: steps),
            st.sampled_from(_EVENT_TAGS),
            st.sampled_from([*[st.floats(0, 1, width=32)] * 30, st.floats(width=32)]).flatmap(lambda values: values),
            st.floats(),
        ),
        max_size=12,
    ).map(lambda events: b"\xff\xfe".join(_event(step, tag.encode(), *rest) for step, tag, *rest in events)),
    st.binary(max_size=80),
)
# Damage to a Parquet file: bytes at relative positions, the position of a cut, whether to cut.
DAMAGE = st.tuples(
    st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=6), st.floats(0, 1) | st.just(1.0), st.booleans()
)


def filter_expression(text: str) -> None:
    """Parse a filter expression and query the store with it."""
    grid_cells(_store(), ("batch_size", "learning_rate"), "val_acc", {}, text)


def layer_language(text: str) -> None:
    """Parse a network and count its parameters."""
    assert RunConfig(model=text).network.parameters > 0


def toml_grid(content: bytes) -> None:
    """Parse and expand a grid file."""
    expand_grid(read_grid(content, "grid"))


def url_query(query: dict[str, str]) -> None:
    """Parse the URL parameters on every page, and each field among them."""
    for page in (url_params.EXPLORE, url_params.COMPARE, url_params.OVERVIEW, url_params.DATA):
        page.write(page.read(query)[0])
    for name, text in query.items():
        parse_value(name, text)


def parquet_file(damage: tuple[list[tuple[float, int]], float, bool]) -> None:
    """Open a store over a damaged file of runs, and read all of it."""
    content = bytearray(_runs_file())
    for place, byte in damage[0]:
        content[min(len(content) - 1, int(place * len(content)))] = byte
    parquet_bytes(bytes(content[: int(damage[1] * len(content))] if damage[2] else content))


def parquet_bytes(content: bytes) -> None:
    """Open a store over a file of runs, and read all of it."""
    path = Path(_folder()) / "damaged.parquet"
    path.write_bytes(content)
    store = Store(Path(_folder()) / "store", path)
    try:
        ids = store.runs(columns=["run_id"])["run_id"].to_pylist()
        store.curves(ids[:3], ["val_acc"])
    finally:
        store.close()


def import_table(content: bytes) -> None:
    """Read a CSV file of another program."""
    path = Path(_folder()) / "metrics.csv"
    path.write_bytes(content)
    _refused_alone(read_table(path))


def import_events(content: bytes) -> None:
    """Read these bytes as an event file, and as the records of one with right checksums."""
    folder = Path(_folder()) / "events"
    for i, whole in enumerate((content, b"".join(map(_record, content.split(b"\xff\xfe"))))):
        own = folder / str(i)
        own.mkdir(parents=True, exist_ok=True)
        (own / "events.out.tfevents.1").write_bytes(whole)
    _refused_alone([partial(read_run, name, files) for name, files in find_runs(folder)[0].items()])


def _refused_alone(readers: list[Callable[[], ImportedRun]]) -> None:
    """Read and check each run; raise the first refusal if all are refused."""
    refusals: list[JscError] = []
    for reader in readers:
        try:
            run = reader()
        except JscError as error:
            refusals.append(error)
            continue
        steps = [point["step"] for point in run.points if point["step"] is not None]
        assert steps == sorted(steps)
        assert all(0 <= step < 2**63 for step in steps)
        for point in run.points:
            assert all(value is None or math.isfinite(value) for value in point.values())
            assert all(0 <= value <= 1 for name, value in point.items() if name.endswith("_acc") and value is not None)
        table_of(run)
    if refusals and len(refusals) == len(readers):
        raise refusals[0]


def _record(content: bytes) -> bytes:
    def masked(part: bytes) -> bytes:
        checksum = google_crc32c.value(part)
        return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    head = struct.pack("<Q", len(content))
    return head + masked(head) + content + masked(content)


def _event(step: int, tag: bytes, value: float, time_s: float) -> bytes:
    """Encode an event of one scalar as a protocol buffer; a negative or large step becomes any 64 bits."""

    def varint(number: int) -> bytes:
        number &= 2**64 - 1
        parts = bytearray()
        while number > 127:
            parts.append(number & 127 | 128)
            number >>= 7
        return bytes([*parts, number])

    scalar = b"\x0a" + varint(len(tag)) + tag + b"\x15" + struct.pack("<f", value)
    summary = b"\x0a" + varint(len(scalar)) + scalar
    return b"\x09" + struct.pack("<d", time_s) + b"\x10" + varint(step) + b"\x2a" + varint(len(summary)) + summary


PARSERS: dict[Callable[[Any], None], st.SearchStrategy[Any]] = {
    filter_expression: FILTERS,
    layer_language: LAYERS,
    toml_grid: GRIDS,
    url_query: QUERIES,
    parquet_file: DAMAGE,
    import_table: CSV_TABLES,
    import_events: EVENT_FILES,
}


def run(quick: bool) -> Report:
    """Try 14,000 (quick: 1,400) inputs, as many per parser; then as many that are guided by coverage."""
    result = {parser.__name__: try_inputs(parser, 200 if quick else 2000) for parser in PARSERS}
    notes = []
    if importlib.util.find_spec("atheris") is None:
        notes += ["Not run: coverage-guided inputs, because atheris is missing; pip install -r bench/requirements.txt"]
    else:
        result |= {f"{parser}, coverage-guided": try_guided_inputs(parser, 250 if quick else 2500) for parser in GUIDED}
    faults = [fault for one in result.values() for fault in one.faults]
    figures = {
        "inputs": float(sum(one.inputs for one in result.values())),
        "tracebacks": float(len(faults)),
        "writes": float(sum(len(one.writes) for one in result.values())),
        "slowest_s": max(one.slowest_s for one in result.values()),
    }
    bounds = {name: Bound(0, at_least=False) for name in ("tracebacks", "writes")}
    bounds["slowest_s"] = Bound(SLOWEST_S, at_least=False)
    rows = [
        {"parser": name, "inputs": one.inputs, "refused": one.refused, "slowest_s": one.slowest_s}
        for name, one in result.items()
    ]
    writes = [write for one in result.values() for write in one.writes]
    return Report("fuzz", figures, rows, bounds, [*notes, *faults[:5], *writes[:5]])


def try_guided_inputs(parser: str, inputs: int) -> Result:
    """Try coverage-guided inputs in a separate process: each is made from those that reached new code."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "found.json"
        command = [sys.executable, "-m", "bench.fuzz_guided", parser, str(inputs), folder]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode or not answer.is_file():
            raise RuntimeError(
                f"bench.fuzz_guided {parser} ended with {ended.returncode}: {ended.stderr.strip()[-2000:]}"
            )
        return Result(**json.loads(answer.read_text()))


def try_inputs(parser: Callable[[Any], None], inputs: int, start: int = 0) -> Result:
    """Try generated inputs; any exception other than JscError is a fault."""
    result = Result()
    prepare()

    @seed(start)
    @settings(max_examples=inputs, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(PARSERS[parser])
    def each(value: Any) -> None:
        attempt(parser, value, result)

    each()
    return result


def prepare() -> None:
    """Create the store and the file that parsers use, before audited calls."""
    _store(), _runs_file()


def attempt(parser: Callable[[Any], None], value: Any, result: Result) -> None:
    """Call the parser once and record the result."""
    result.inputs += 1
    # Processor time: other load on the machine is not a hang.
    began = time.thread_time()
    try:
        with warnings.catch_warnings(), _audited(result.writes, parser in _OWN_FOLDER):
            warnings.simplefilter("ignore")
            parser(value)
    except JscError as error:
        result.refused += 1
        if "\n" in str(error):
            result.faults.append(f"{parser.__name__}({value!r}): more than one line: {error}")
    except Exception:
        result.faults.append(f"{parser.__name__}({value!r})\n{traceback.format_exc()}")
    result.slowest_s = max(result.slowest_s, time.thread_time() - began)


# These parsers need a file.
_OWN_FOLDER = (parquet_file, parquet_bytes, import_table, import_events)
_AUDITED: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _AUDITED:
        return
    wrote = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    if wrote or event in ("os.remove", "os.rename", "os.mkdir", "os.system", "subprocess.Popen", "socket.connect"):
        _AUDITED[-1].append(f"{event} {arguments[:2]}")


@contextmanager
def _audited(writes: list[str], own_folder: bool) -> Iterator[None]:
    """Record files written, processes started and connections made, unless the parser itself needs a file."""
    if not own_folder:
        _install_audit_hook()
        _AUDITED.append(writes)
    try:
        yield
    finally:
        if not own_folder:
            _AUDITED.pop()


@lru_cache(maxsize=1)
def _install_audit_hook() -> None:
    sys.addaudithook(_audit)


@lru_cache(maxsize=1)
def _folder() -> str:
    holder = tempfile.TemporaryDirectory()
    _FOLDERS.append(holder)
    return holder.name


_FOLDERS: list[Any] = []


@lru_cache(maxsize=1)
def _store() -> Store:
    return Store(Path(_folder()) / "whole", paths.snapshot())


@lru_cache(maxsize=1)
def _runs_file() -> bytes:
    table = pq.read_table(paths.snapshot()).slice(0, 20)
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(part_schema().metadata), stream, compression="zstd")
    return stream.getvalue()


# Parsers of coverage-guided inputs, with the seed inputs.
GUIDED: dict[str, tuple[Callable[[Any], None], Callable[[], list[bytes]]]] = {
    "filter_expression": (filter_expression, lambda: [b"val_acc > 0.7 and (optimizer = 'sgd' or not silent)"]),
    "layer_language": (
        layer_language,
        lambda: [b"16-64b/tanhd0.1-5 bn=all act=relu", b"16-c8k3-p2-gap-5", b"jsc-tiny"],
    ),
    "toml_grid": (toml_grid, lambda: [b'model = ["jsc-tiny", "16-8-5"]\nbatch_size = [16, 32]\nseeds = 3\n']),
    "parquet_bytes": (parquet_bytes, lambda: [_runs_file()]),
    "import_table": (
        import_table,
        lambda: [b"run,step,epoch,val_acc,lr,batch_size\na,1,,0.5,1e-3,64\na,2,,nan,0.001,64.0\n"],
    ),
    "import_events": (
        import_events,
        lambda: [b"\xff\xfe".join(_event(step, b"val/acc", 0.5, 1e9 + step) for step in (1, 5, 3))],
    ),
}

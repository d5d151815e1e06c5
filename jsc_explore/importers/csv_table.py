"""Read runs from a CSV file: one row per point, with this project's column names or those of other programs.

Columns: ``run`` (the name; not needed for a single run), ``step`` or ``epoch`` or both, any recorded quantity, any
hyperparameter, ``test_acc`` and ``test_loss``. Other columns are kept as text if they are constant within each run.
Lightning's CSVLogger and Keras' CSVLogger are recognised by their columns.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from jsc_explore.errors import FieldError
from jsc_explore.files import error_reason
from jsc_explore.importers.checked_series import EPOCH, LoggedValue, checked_curve
from jsc_explore.importers.hparams import read_hparams
from jsc_explore.importers.imported_run import (
    MAX_NAME,
    MAX_OTHER,
    MAX_TEXT,
    ImportedRun,
    field_of,
    hyperparameters,
    parse_number,
)
from jsc_explore.importers.names import QUANTITIES, TESTS, listed, position_of, quantity_of
from jsc_explore.results import CURVE_PREFIX

MAX_FILE_MB, MAX_ROWS, MAX_COLUMNS, MAX_RUNS = 50, 200_000, 200, 500
RUN, STEP, VALUE = "run", "step", "value"
# As in results.parquet, this is the learning rate of a point; ``learning_rate`` is the hyperparameter.
CURVE_RATE = CURVE_PREFIX + "learning_rate"
# These columns hold times since 1970 rather than since the start.
_CLOCKS = ("wall time", "wall_time", "_timestamp")
_EMPTY = ("", "null", "none", "na", "n/a")
_GZIP = b"\x1f\x8b"

Row = tuple[int, dict[str, str]]


@dataclass(frozen=True)
class _Columns:
    """What the columns of a table mean: a column for each position and, by the user's ``mapping``, for quantities."""

    names: list[str]
    positions: dict[str, str]
    run: str | None
    quantities: list[str]
    mapping: dict[str, str]


def read_table(path: Path, mapping: Mapping[str, str] | None = None) -> list[Callable[[], ImportedRun]]:
    """Return one reader for each run of a CSV file, which may be gzip'ed; ``mapping`` names quantities by column.

    Raises FieldError, with line and column, if the file is no table; a reader raises it for its own run.
    """
    content = _content(path)
    digest = hashlib.sha256(content)
    if mapping:
        # Read by other names it is another run.
        digest.update(repr(sorted(mapping.items())).encode())
    names, rows = _rows(path, content)
    columns = _meaning(path, names, dict(mapping or {}))
    runs: dict[str, list[Row]] = {}
    stem = path.name.removesuffix(".gz").removesuffix(".csv")
    for line, row in rows:
        given = row[columns.run].strip() if columns.run else ""
        # An exported table has an apostrophe before what a spreadsheet would take for a formula.
        name = (re.sub(r"^'(?=[=+\-@])", "", given) or stem)[:MAX_NAME]
        runs.setdefault(name, []).append((line, row))
        if len(runs) > MAX_RUNS:
            _fail("file", path.name, f"has more than {MAX_RUNS} runs", "split it")
    if not runs:
        _fail("file", path.name, "has no row below its header", "give a file with at least one point")
    if not columns.run and _is_lightning(path, columns, runs[stem[:MAX_NAME]]):
        return [partial(_lightning, path, columns, runs[stem[:MAX_NAME]], digest)]
    return [partial(_run, path, name, columns, own, digest) for name, own in runs.items()]


def _meaning(path: Path, names: list[str], mapping: dict[str, str]) -> _Columns:
    lower = {name.lower(): name for name in names}
    positions: dict[str, str] = {}
    for name in names:
        if (position := position_of(name)) and name not in mapping:
            positions.setdefault(position, name)
    if missing := [name for name in mapping if name not in names]:
        _fail("map", listed(missing), "is no column", f"the columns are {listed(names)}")
    # TensorBoard's own download names the tag in the file name.
    tag = re.search(r"tag-(.+?)(?:\.csv|$)", path.name)
    if tag and VALUE in lower and lower[VALUE] not in mapping and (found := quantity_of(tag[1])):
        mapping[lower[VALUE]] = found[0]
    if STEP not in positions and EPOCH in positions:
        # Keras names the figures of the training by the metric alone, beside those of the validation.
        for name in names:
            if f"val_{name.lower()}" in lower and (found := quantity_of(f"train_{name}")):
                mapping.setdefault(name, found[0])
    if not {STEP, EPOCH} & set(positions):
        _fail("columns", ", ".join(names)[:80], "contain neither step nor epoch", "add one of them")
    quantities = [
        name for name in names
        if name in mapping or name.lower() == CURVE_RATE
        or ((found := quantity_of(name)) and not (found[0] == "learning_rate" and field_of(name)))
    ]  # fmt: skip
    rates = [name for name in names if field_of(name) == "learning_rate"]
    curves = [name for name in (*quantities, *rates) if (quantity_of(name) or ("",))[0] not in TESTS]
    if not curves:
        known = ", ".join(QUANTITIES)
        _fail("columns", ", ".join(names)[:80], "contain no quantity of a curve",
              f"add one of {known}, or name one: --map COLUMN=QUANTITY")  # fmt: skip
    return _Columns(names, positions, lower.get(RUN), quantities, mapping)


def _is_lightning(path: Path, columns: _Columns, rows: Sequence[Row]) -> bool:
    """Return whether a table counts steps and epochs from zero, as Lightning's CSVLogger does."""
    if STEP not in columns.positions:
        return False
    if any(quantity_of(name) and name.lower().endswith(("_step", "_epoch")) for name in columns.quantities):
        return True
    if any(name.startswith("lr-") for name in columns.names):
        return True
    # Epoch 0 at a later step is an epoch that is not over; epochs done would be a fraction there.
    epoch, step = columns.positions.get(EPOCH), columns.positions[STEP]
    epochs = {row[epoch].strip() for _, row in rows if row[epoch].strip()} if epoch else set()
    begun = any(epoch and row[epoch].strip() == "0" and row[step].strip() not in ("", "0") for _, row in rows)
    return begun and all(value.isdecimal() for value in epochs)


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            _fail("file", str(path), "is not a file", "give the path of a CSV file")
        if path.stat().st_size > MAX_FILE_MB * 1_000_000:
            _fail("file", path.name, f"is larger than {MAX_FILE_MB} MB", "split it by run")
        content = path.read_bytes()
        if not content.startswith(_GZIP):
            return content
        with gzip.open(io.BytesIO(content)) as file:
            content = file.read(MAX_FILE_MB * 1_000_000 + 1)
        if len(content) > MAX_FILE_MB * 1_000_000:
            _fail("file", path.name, f"is larger than {MAX_FILE_MB} MB", "split it by run")
        return content
    except (EOFError, zlib.error, gzip.BadGzipFile):
        _fail("file", path.name, "is truncated or damaged", "compress it again")
    except OSError as error:
        _fail("file", path.name, f"cannot be read ({error_reason(error)})", "check its permissions")


def _rows(path: Path, content: bytes) -> tuple[list[str], Iterator[Row]]:
    """Return the column names and the rows with their line numbers; the separator is a comma, semicolon or tab."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        _fail("file", path.name, "is not UTF-8 text", "save it as CSV in UTF-8")
    first = text.split("\n", 1)[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first.count), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        _fail("line 1", first[:80], f"is not a valid CSV line ({error})", "see docs/importing.md for the columns")
    if len(columns) > MAX_COLUMNS:
        _fail("columns", len(columns), f"are more than {MAX_COLUMNS}", "remove columns that are not hyperparameters")
    lower = [name.lower() for name in columns]
    duplicates = {name for name in columns if lower.count(name.lower()) > 1}
    if duplicates:
        _fail("column", sorted(duplicates)[0], "appears twice", "rename one of them")

    def rows() -> Iterator[Row]:
        try:
            for count, values in enumerate(reader):
                if count >= MAX_ROWS:
                    _fail("file", path.name, f"has more than {MAX_ROWS:,} rows", "split it by run")
                if not any(values):
                    continue
                if len(values) != len(columns):
                    rule = f"has {len(values)} values for {len(columns)} columns"
                    _fail(f"line {reader.line_num}", ",".join(values), rule, "correct the line")
                yield reader.line_num, dict(zip(columns, values, strict=True))
        except csv.Error as error:
            _fail(f"line {reader.line_num}", path.name, f"is not a valid CSV line ({error})", "correct the line")

    return columns, rows()


def _run(path: Path, name: str, columns: _Columns, rows: Sequence[Row], digest: Any) -> ImportedRun:
    fields, other, curves, notes = _constants(columns, rows)
    run_rows = _positions(columns, rows)
    series: dict[str, list[LoggedValue]] = {}
    for column in (*columns.quantities, *curves):
        # The names of tables are those of results.parquet.
        tag = "learning_rate" if column.lower() == CURVE_RATE else column
        for (line, row), (step, epoch, time_s) in zip(rows, run_rows, strict=True):
            if (value := _number(line, column, row[column])) is not None:
                series.setdefault(tag, []).append(LoggedValue(step, time_s, value, epoch, line))
    samples = next((column for column in columns.names if column.lower() == "samples"), None)
    if samples and series:
        for (line, row), (step, epoch, time_s) in zip(rows, run_rows, strict=True):
            if (value := _number(line, samples, row[samples])) is not None:
                series.setdefault("samples", []).append(LoggedValue(step, time_s, value, epoch, line))
    curve = checked_curve(name, series, mapping=columns.mapping, batch_size=fields.get("batch_size"), is_table=True)
    if not curve.points and curve.test_acc is None and curve.test_loss is None:
        _fail("run", name, "has no value of a curve", "give at least one point")
    own = hashlib.sha256(digest.digest() + name.encode()).hexdigest()
    return ImportedRun(
        name, "csv", path.name, own, fields, other, curve.points, curve.test_acc, curve.test_loss,
        [*notes, *curve.notes],
    )  # fmt: skip


def _constants(columns: _Columns, rows: Sequence[Row]) -> tuple[dict[str, Any], dict[str, str], list[str], list[str]]:
    """Return hyperparameters, other constant columns as text, columns of a changing learning rate, and notes."""
    fields: dict[str, Any] = {}
    other: dict[str, str] = {}
    curves: list[str] = []
    skipped: list[str] = []
    known = {*columns.positions.values(), *columns.quantities, columns.run}
    for column in columns.names:
        if column in known or column.lower() == "samples":
            continue
        given = {text: line for line, row in reversed(rows) if (text := row[column].strip())}
        if (name := field_of(column)) is None or position_of(column):
            if len({_comparable(text) for text in given}) > 1 or position_of(column):
                skipped.append(column)
            elif given and len(other) < MAX_OTHER:
                other[column[:MAX_NAME]] = min(given, key=lambda text: given[text])[:MAX_TEXT]
            continue
        values: dict[Any, int] = {}
        for text, line in sorted(given.items(), key=lambda one: one[1]):
            try:
                values.setdefault(parse_number(name, text), line)
            except FieldError as error:
                _fail(f"line {line}, column {column}", text, error.rule, error.remedy)
        if len(values) > 1 and name == "learning_rate":
            curves.append(column)
        elif len(values) > 1:
            line = list(values.values())[1]
            rule = "changes within a run, but a hyperparameter must not"
            _fail(f"line {line}, column {column}", dict(rows)[line][column], rule, "add a column run with names")
        elif values:
            value = next(iter(values))
            if fields.setdefault(name, value) != value:
                _fail(f"column {column}", value, f"differs from another column of {name}", "remove one of them")
    notes = [f"not read, because they change within the run and their meaning is not plain: {listed(skipped)} "
             "(--map COLUMN=QUANTITY)"] if skipped else []  # fmt: skip
    return fields, other, curves, notes


def _comparable(text: str) -> object:
    """Return a value that is equal for equal numbers: 1e-3 and 0.001."""
    try:
        return float(text)
    except ValueError:
        return text


def _positions(columns: _Columns, rows: Sequence[Row]) -> list[tuple[int | None, float | None, float | None]]:
    """Return step, epochs done and time of each row; Keras counts epochs from zero."""
    step_column, epoch_column, time_column = (columns.positions.get(name) for name in (STEP, EPOCH, "time_s"))
    found = []
    for line, row in rows:
        step = _step(line, step_column, row[step_column]) if step_column else None
        epoch = _number(line, epoch_column, row[epoch_column]) if epoch_column else None
        time_s = _number(line, time_column, row[time_column]) if time_column else None
        if step is None and (epoch is None or epoch != epoch):
            _fail(f"line {line}", "", "has neither step nor epoch", "give one of them in every row")
        found.append((step, None if epoch != epoch else epoch, None if time_s != time_s else time_s))
    if any(quantity.startswith("train_") and f"val_{name}".lower() in map(str.lower, columns.names)
           for name, quantity in columns.mapping.items()) and found[0][1] == 0:  # fmt: skip
        found = [(step, None if epoch is None else epoch + 1, time_s) for step, epoch, time_s in found]
    if time_column and time_column.lower() in _CLOCKS:
        start = min((time_s for _, _, time_s in found if time_s is not None), default=0.0)
        found = [(step, epoch, None if time_s is None else time_s - start) for step, epoch, time_s in found]
    return found


def _step(line: int, column: str, text: str) -> int | None:
    value = _number(line, column, text)
    if value is None or value != value:
        return None
    if abs(value) == float("inf") or value != int(value):
        _fail(f"line {line}, column {column}", text, "must be a whole number", "count whole steps")
    return int(value)


def _number(line: int, column: str, text: str) -> float | None:
    """Return a cell's number, which may not be finite; None if the cell is empty."""
    if text.strip().lower() in _EMPTY:
        return None
    try:
        return float(text)
    except ValueError:
        remedy = "use a decimal point: 0.713" if "," in text else "leave it empty where nothing was measured"
        _fail(f"line {line}, column {column}", text, "must be a number", remedy)


def _lightning(path: Path, columns: _Columns, rows: Sequence[Row], digest: Any) -> ImportedRun:
    """Read metrics.csv of Lightning's CSVLogger, whose steps and epochs count from zero, and hparams.yaml beside it."""
    series: dict[str, list[LoggedValue]] = {}
    step_column = columns.positions[STEP]
    epoch_column = columns.positions.get(EPOCH)
    notes: list[str] = []
    unplaced = 0
    for line, row in rows:
        step = _step(line, step_column, row[step_column])
        if step is None:
            unplaced += 1
            continue
        for column in columns.names:
            if column == step_column or not _is_number(column, columns):
                if column != step_column and row[column].strip():
                    series.setdefault(column, [])
                continue
            if (value := _number(line, column, row[column])) is not None:
                tag = EPOCH if column == epoch_column else column
                series.setdefault(tag, []).append(LoggedValue(step, None, value, None, line))
    if unplaced:
        notes.append(f"{unplaced} rows have no step and are left out")
    hparams = path.parent / "hparams.yaml"
    found, note = read_hparams(hparams, digest) if hparams.is_file() else ({}, "")
    notes += [note] if note else []
    fields, other, more = hyperparameters(found)
    name = (path.resolve().parent.name if path.stem == "metrics" else path.name.split(".")[0])[:MAX_NAME]
    curve = checked_curve(name, series, mapping=columns.mapping, batch_size=fields.get("batch_size"), is_table=True)
    if not curve.points:
        _fail("file", path.name, "has no row with a step and a value", "give a file with at least one point")
    return ImportedRun(
        name, "csv", path.name, digest.hexdigest(), fields, other, curve.points, curve.test_acc, curve.test_loss,
        [*notes, *more, *curve.notes],
    )  # fmt: skip


def _is_number(column: str, columns: _Columns) -> bool:
    return column in columns.mapping or column == columns.positions.get(EPOCH) or quantity_of(column) is not None


def _fail(field: str, value: object, rule: str, remedy: str) -> NoReturn:
    raise FieldError(field, value, rule, remedy)

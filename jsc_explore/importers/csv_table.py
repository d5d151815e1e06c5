"""Read runs from a CSV file: one row per point, with this project's column names or those of Lightning's CSVLogger.

Columns: ``run`` (the name; not needed for a single run), ``step`` or ``epoch`` or both, any recorded quantity, any
hyperparameter, ``test_acc`` and ``test_loss``. Other columns are kept as text if they are constant within each run.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jsc_explore.config import FIELDS, parse_value
from jsc_explore.errors import FieldError
from jsc_explore.files import error_reason
from jsc_explore.importers.hparams import read_hparams
from jsc_explore.importers.imported_run import (
    ALIASES,
    EPOCH,
    MAX_NAME,
    MAX_OTHER,
    MAX_TEXT,
    TAGS,
    TEST_TAGS,
    ImportedRun,
    LoggedValue,
    final_test_metrics,
    hyperparameters,
    points_from_series,
)
from jsc_explore.results import CURVE_PREFIX, INTEGER_QUANTITIES, POINT_FIELDS, Point

MAX_FILE_MB, MAX_ROWS, MAX_COLUMNS, MAX_RUNS = 50, 200_000, 200, 500
RUN = "run"
_POSITIONS = ("step", "epoch", "samples", "time_s")
# As in results.parquet, this is the learning rate of a point; ``learning_rate`` is the hyperparameter.
CURVE_RATE = CURVE_PREFIX + "learning_rate"
_QUANTITIES = {name: name for name in POINT_FIELDS if name not in (*_POSITIONS, "learning_rate")}
_QUANTITIES[CURVE_RATE] = "learning_rate"
_LIGHTNING = {
    tag for tags in (*TAGS.values(), *TEST_TAGS.values()) for tag in tags if tag.endswith(("_step", "_epoch"))
}
_EMPTY = ("", "nan", "null", "none", "na")

Row = tuple[int, dict[str, str]]


def read_table(path: Path) -> list[ImportedRun]:
    """Return the runs of a CSV file. Raises FieldError, with line and column, for anything that cannot be read."""
    content = _content(path)
    digest = hashlib.sha256(content)
    columns, rows = _rows(path, content)
    if RUN not in columns and "step" in columns and _LIGHTNING & set(columns):
        return [_lightning(path, columns, rows, digest)]
    if not {"step", "epoch"} & set(columns):
        _fail("columns", ", ".join(columns)[:80], "contain neither step nor epoch", "add one of them")
    if not set(_QUANTITIES) & set(columns):
        known = ", ".join(_QUANTITIES)
        _fail("columns", ", ".join(columns)[:80], "contain no quantity of a curve", f"add one of {known}")
    runs: dict[str, list[Row]] = {}
    for line, row in rows:
        name = (row.get(RUN, "").strip() or path.stem)[:MAX_NAME]
        runs.setdefault(name, []).append((line, row))
        if len(runs) > MAX_RUNS:
            _fail("file", path.name, f"has more than {MAX_RUNS} runs", "split it")
    if not runs:
        _fail("file", path.name, "has no row below its header", "give a file with at least one point")
    return [_run(path, name, columns, own, digest) for name, own in runs.items()]


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            _fail("file", str(path), "is not a file", "give the path of a CSV file")
        if path.stat().st_size > MAX_FILE_MB * 1_000_000:
            _fail("file", path.name, f"is larger than {MAX_FILE_MB} MB", "split it by run")
        return path.read_bytes()
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
    duplicates = {name for name in columns if columns.count(name) > 1}
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


def _run(path: Path, name: str, columns: Sequence[str], rows: Sequence[Row], digest: Any) -> ImportedRun:
    constant: dict[str, str] = {}
    notes: list[str] = []
    has_rate_curve = "learning_rate" in columns and len({row["learning_rate"] for _, row in rows}) > 1
    quantities = dict(_QUANTITIES) | ({"learning_rate": "learning_rate"} if has_rate_curve else {})
    numbers = [column for column in columns if column in _POSITIONS or column in quantities]
    for column in columns:
        if column in (*numbers, RUN, *TEST_TAGS):
            continue
        values = {row[column].strip() for _, row in rows}
        if len(values) > 1:
            if ALIASES.get(column, column) in FIELDS:
                line = next(line for line, row in rows if row[column].strip() != rows[0][1][column].strip())
                rule = "changes within a run, but a hyperparameter must not"
                _fail(f"line {line}, column {column}", dict(rows)[line][column], rule, "add a column run with names")
            notes.append(f"column {column} is skipped: it is not a known quantity and changes within the run")
        elif (value := values.pop()) and len(constant) < MAX_OTHER:
            constant[column[:MAX_NAME]] = value[:MAX_TEXT]
    fields = _fields(constant, rows[0][0])
    points = [_point(numbers, quantities, line, row) for line, row in rows]
    points.sort(key=lambda point: (point["step"] is None, point["step"] or 0, point["epoch"] or 0.0))
    tests = {test: _number(line, test, row[test]) for line, row in rows for test in TEST_TAGS if row.get(test)}
    other = {column: value for column, value in constant.items() if ALIASES.get(column, column) not in FIELDS}
    own = hashlib.sha256(digest.digest() + name.encode()).hexdigest()
    return ImportedRun(
        name, "csv", path.name, own, fields, other, points, tests.get("test_acc"), tests.get("test_loss"), notes
    )


def _fields(constant: Mapping[str, str], line: int) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for column, value in constant.items():
        name = ALIASES.get(column, column)
        if name in FIELDS:
            try:
                fields[name] = parse_value(name, value)
            except FieldError as error:
                _fail(f"line {line}, column {column}", value, error.rule, error.remedy)
    return fields


def _point(numbers: Sequence[str], quantities: Mapping[str, str], line: int, row: Mapping[str, str]) -> Point:
    point: Point = dict.fromkeys(POINT_FIELDS)
    for column in numbers:
        value = _number(line, column, row[column])
        name = quantities.get(column, column)
        if value is None:
            continue
        if column in _POSITIONS and value < 0:
            _fail(f"line {line}, column {column}", row[column], "must not be negative", "count from zero")
        if name in INTEGER_QUANTITIES:
            if value != int(value):
                _fail(f"line {line}, column {column}", row[column], "must be a whole number", "count whole steps")
            point[name] = int(value)
            continue
        point[name] = value
    if point["step"] is None and point["epoch"] is None:
        _fail(f"line {line}", "", "has neither step nor epoch", "give one of them in every row")
    return point


def _number(line: int, column: str, text: str) -> float | None:
    if text.strip().lower() in _EMPTY:
        return None
    try:
        value = float(text)
    except ValueError:
        remedy = "use a decimal point: 0.713" if "," in text else "leave it empty where nothing was measured"
        _fail(f"line {line}, column {column}", text, "must be a number", remedy)
    if not math.isfinite(value):
        return None
    is_share = column.endswith("_acc") or column.startswith("recall_")
    if is_share and not 0 <= value <= 1:
        _fail(f"line {line}, column {column}", text, "must be a share in [0, 1]", "write 0.713 for 71.3%")
    return value


def _lightning(path: Path, columns: Sequence[str], rows: Iterator[Row], digest: Any) -> ImportedRun:
    """Read metrics.csv of Lightning's CSVLogger, whose steps and epochs count from zero, and hparams.yaml beside it."""
    series: dict[str, list[LoggedValue]] = {}
    for line, row in rows:
        step = _number(line, "step", row["step"])
        if step is None:
            continue
        for column in columns:
            if column == "step" or column not in (EPOCH, *_LIGHTNING):
                continue
            value = _number(line, column, row[column])
            if value is not None:
                series.setdefault(column, []).append(LoggedValue(int(step), 0.0, value))
    hparams = path.parent / "hparams.yaml"
    found, note = read_hparams(hparams, digest) if hparams.is_file() else ({}, "")
    fields, other = hyperparameters(found)
    points, notes = points_from_series(series, fields.get("batch_size"))
    for point in points:
        # The file has no times.
        point["time_s"] = None
    if not points:
        _fail("file", path.name, "has no row with a step and a value", "give a file with at least one point")
    name = (path.resolve().parent.name if path.stem == "metrics" else path.stem)[:MAX_NAME]
    return ImportedRun(
        name, "csv", path.name, digest.hexdigest(), fields, other, points, *final_test_metrics(series),
        [*([note] if note else []), *notes],
    )  # fmt: skip


def _fail(field: str, value: object, rule: str, remedy: str) -> NoReturn:
    raise FieldError(field, value, rule, remedy)

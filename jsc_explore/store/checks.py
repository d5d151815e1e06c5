"""Check rows of results: the id follows from the content, the curve is complete, the values are possible.

Rows are checked as Arrow columns: a hundred thousand curves are never converted to Python objects.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, deserialize

from jsc_explore.config import FIELDS, RECIPE_VERSION, RunConfig
from jsc_explore.data.jets import CLASSES
from jsc_explore.errors import FieldError
from jsc_explore.results import CURVE_PREFIX, SIGNAL_EFFICIENCIES
from jsc_explore.store.parquet_size import decode_group, size_problem
from jsc_explore.store.schema import COLUMNS, CURVES, ROC, WEIGHTS, columns_to_read, schema_problem, with_columns

# Limits for files from other machines. The largest network that a config allows has about 10 MB of weights.
MAX_POINTS, MAX_WEIGHTS_BYTES, MAX_TEXT = 2_000_000, 256 << 20, 4000
_KNOWN = frozenset(column.name for column in (*COLUMNS, WEIGHTS))
_N = len(CLASSES)
_ROC_VALUES = _N * len(SIGNAL_EFFICIENCIES)
_SIZES = {"auc": _N, "rejection": _N, "confusion": _N * _N, "roc": _ROC_VALUES}
_IS_SHARE = re.compile(r"(^|_)(acc|auc|roc|share|recall_\w)$")
_ALLOWED_VALUES = {"status": ("done", "diverged"), "stop_reason": ("max_epochs", "early_stopping", "diverged")}
_REQUIRED = ("epochs_run", "steps", "train_time_s", "wall_time_s", "replicas", "device", "backend", "created_at")

Faults = dict[int, str]


def run_identity(config: Mapping[str, Any], digest: str, recipe_version: int) -> tuple[str, str]:
    """Return (run_id, config_id) of a stored config, for this data digest and recipe version, which may be an old one.

    Raises FieldError for a config that is not valid or not in its canonical form.
    """
    run = RunConfig.from_dict(config).canonical_form
    for name, value in run.to_dict().items():
        if value != config[name]:
            raise FieldError(name, config[name], f"is not in canonical form, which is {value!r}", "train the run again")
    return _hash(run, digest, recipe_version, with_seed=True), _hash(run, digest, recipe_version, with_seed=False)


def _hash(run: RunConfig, digest: str, recipe_version: int, *, with_seed: bool) -> str:
    text = run.canonical_json(digest, with_seed=with_seed)
    if recipe_version != RECIPE_VERSION:
        text = json.dumps({**json.loads(text), "recipe_version": recipe_version}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def row_faults(table: pa.Table) -> Faults:
    """Return row -> fault: an id that does not follow from the content, or curve lists of different lengths."""
    faults: Faults = {}
    rows = table.select(["run_id", "config_id", "data_digest", "recipe_version", *FIELDS]).to_pylist()
    for row_index, row in enumerate(rows):
        if fault := _identity_fault(row):
            faults[row_index] = fault
    lengths = [pc.fill_null(pc.list_value_length(_one_array(table[name])), -1) for name in CURVES]
    for name, length in zip(CURVES[1:], lengths[1:], strict=True):
        _mark(faults, pc.not_equal(lengths[0], length), f"{name} and {CURVES[0]} differ in length")
    _mark(faults, pc.less(lengths[0], 0), f"{CURVES[0]} is missing")
    return faults


def _identity_fault(row: Mapping[str, Any]) -> str | None:
    try:
        config = {name: row[name] for name in FIELDS}
        run_id, config_id = run_identity(config, row["data_digest"], row["recipe_version"])
    except (FieldError, TypeError) as error:
        return str(error)
    if run_id != row["run_id"]:
        return f"its config, data and recipe have the id {run_id[:12]}"
    return None if config_id == row["config_id"] else f"its config has the id {config_id[:12]}, not the stored one"


def external_faults(table: pa.Table) -> Faults:
    """Return row -> fault for rows from another machine: what ``row_faults`` checks, and ranges, sizes and weights."""
    faults = row_faults(table)
    for column in COLUMNS:
        values = _one_array(table[column.name])
        if pa.types.is_list(column.type):
            _check_list(faults, column.name, values)
        elif pa.types.is_string(column.type):
            _mark(faults, pc.greater(pc.utf8_length(values), MAX_TEXT), f"{column.name} is too long")
        elif column.name not in FIELDS and not pa.types.is_boolean(column.type):
            _mark(faults, _impossible(column.name, values), f"{column.name} is out of range")
    for name in _REQUIRED:
        _mark(faults, pc.is_null(table[name]), f"{name} is missing")
    for name, allowed in _ALLOWED_VALUES.items():
        known = pc.is_in(_one_array(table[name]), value_set=pa.array(allowed))
        _mark(faults, pc.invert(known), f"{name} is none of {', '.join(allowed)}")
    newer = pc.greater(table["recipe_version"], RECIPE_VERSION)
    _mark(faults, newer, f"its recipe version is above {RECIPE_VERSION}: update jsc-explore")
    _check_objects(faults, table)
    return dict(sorted(faults.items()))


def _check_list(faults: Faults, name: str, values: pa.ListArray) -> None:
    length = pc.list_value_length(values)
    if name in _SIZES:
        _mark(faults, pc.not_equal(length, _SIZES[name]), f"{name} must have {_SIZES[name]} values")
    _mark(
        faults,
        pc.greater(length, MAX_POINTS if name in CURVES else _ROC_VALUES if name == ROC.name else _N * _N),
        f"{name} is too long",
    )
    parents, flat = pc.list_parent_indices(values), pc.list_flatten(values)
    if pa.types.is_string(flat.type):
        bad = pc.invert(pc.is_in(flat, value_set=pa.array(CLASSES)))
    else:
        bad = _impossible(name.removeprefix(CURVE_PREFIX), flat)
    for row_index in pc.unique(pc.filter(parents, pc.fill_null(bad, False))).to_pylist():
        faults.setdefault(row_index, f"{name} is out of range")
    if name == f"{CURVE_PREFIX}step" and len(flat) > 1:
        falls = pc.and_(pc.less_equal(flat[1:], flat[:-1]), pc.equal(parents[1:], parents[:-1]))
        for row_index in pc.unique(pc.filter(parents[1:], pc.fill_null(falls, False))).to_pylist():
            faults.setdefault(row_index, f"{name} does not increase from point to point")


def _impossible(name: str, values: pa.Array) -> pa.Array:
    """Mark values below zero, not finite, or above one for a share; null means "not known" and is allowed."""
    beyond = pc.or_(pc.less(values, 0), pc.greater(values, 1 if _IS_SHARE.search(name) else 1e15))
    return pc.or_(beyond, pc.is_nan(values)) if pa.types.is_floating(values.type) else beyond


def _check_objects(faults: Faults, table: pa.Table) -> None:
    """Check what Arrow cannot: network size, epochs against the config, versions, safetensors."""
    names = ("model", "final_relu", "max_epochs", "epochs_run", "parameters", "versions", "data_digest")
    for row_index, row in enumerate(table.select(names).to_pylist()):
        if row_index not in faults and (fault := _object_fault(row)):
            faults[row_index] = fault
    if WEIGHTS.name in table.column_names:
        for row_index, weights in enumerate(table[WEIGHTS.name]):
            if row_index not in faults and not _are_weights(weights.as_buffer() if weights.is_valid else None):
                faults[row_index] = "its weights are not in the safetensors format"


def _object_fault(row: Mapping[str, Any]) -> str | None:
    wanted = RunConfig(model=row["model"], final_relu=row["final_relu"]).network.parameters
    if row["parameters"] != wanted:
        return f"parameters = {row['parameters']}, the network has {wanted}"
    if row["epochs_run"] > row["max_epochs"]:
        return f"epochs_run = {row['epochs_run']}, more than max_epochs"
    if not re.fullmatch(r"[0-9a-f]{8,64}", row["data_digest"]):
        return "data_digest is not a hexadecimal digest"
    try:
        versions = json.loads(row["versions"])
    except (ValueError, TypeError, RecursionError):
        versions = None
    is_plain = isinstance(versions, dict) and all(isinstance(value, str) for value in versions.values())
    return None if is_plain else "versions is not a JSON object of strings"


def _are_weights(content: pa.Buffer | None) -> bool:
    if content is None or content.size == 0:
        return True  # published runs have no weights
    if content.size > MAX_WEIGHTS_BYTES:
        return False
    try:
        deserialize(content.to_pybytes())  # type: ignore[no-untyped-call]
    except SafetensorError:
        return False
    return True


def file_problem(path: Path, rows: int | None = None) -> str | None:
    """Return why a Parquet file is not one of this project's, without reading its rows; None if it is."""
    try:
        with pq.ParquetFile(path) as file:
            if problem := schema_problem(file.schema_arrow):
                return problem
            meta = file.metadata
            if rows is not None and meta.num_rows != rows:
                return f"holds {meta.num_rows} runs, the catalogue says {rows}"
            return size_problem(meta, _KNOWN)
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        return f"cannot be read as Parquet ({first_line(error)})"


def read_row_groups(path: Path, *, with_weights: bool = True) -> Iterator[tuple[int, pa.Table | None, str]]:
    """Read a file by row group, verifying page checksums; yield number, rows and "", or number, None and the error.

    A row group that is too large (``parquet_size``) is not decoded. Only parts written by this project have page
    checksums; in other files a row group is valid if it decodes.
    """
    with pq.ParquetFile(path, page_checksum_verification=True) as file, path.open("rb") as raw:
        present = file.schema_arrow.names
        known = [column.name for column in COLUMNS]
        if with_weights and WEIGHTS.name in present:
            known.append(WEIGHTS.name)
        read = columns_to_read(known, present)
        for group in range(file.num_row_groups):
            try:
                table = with_columns(decode_group(file, raw, group, read), known)
                # Finds strings that are not UTF-8 and list offsets beyond the values before anything uses them.
                table.validate(full=True)
            except (OSError, ValueError, pa.ArrowException) as error:
                yield group, None, first_line(error)
            else:
                yield group, table, ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, at most 80 characters."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:80]


def _mark(faults: Faults, bad: pa.ChunkedArray | pa.Array, text: str) -> None:
    bad = _one_array(pc.fill_null(bad, False))
    for row_index in pc.indices_nonzero(bad).to_pylist():
        faults.setdefault(row_index, text)


def _one_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array, because Arrow's list functions count parents within each chunk."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def ids_of(table: pa.Table, rows: Sequence[int]) -> list[str]:
    """Return the run ids of these rows."""
    return [str(run_id) for run_id in table["run_id"].take(pa.array(rows, pa.int64())).to_pylist()]

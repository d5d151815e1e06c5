"""The schema of a part and of ``results.parquet``: one row per run, its curve as parallel lists.

With one row per run, tables of runs stay small and a reader loads only the curves it draws. Other tools unnest the
lists: DuckDB ``SELECT run_id, unnest(curve_epoch), unnest(curve_val_acc) FROM 'results.parquet'``, pandas and polars
``df.explode([...])``. ``python -m bench store`` compares it with one row per point.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from jsc_explore.config import FIELDS
from jsc_explore.data.jets import CLASSES
from jsc_explore.results import CURVE_PREFIX, INTEGER_QUANTITIES, POINT_FIELDS, Outcome, RunRecord

# Raise it when a column changes its meaning or is removed. A new column needs no new version if it is in ``OPTIONAL``.
SCHEMA_VERSION = 1
VERSION_KEY = b"jsc_explore.schema_version"
PROVENANCE_KEY = b"jsc_explore.provenance"

_ARROW = {"int": pa.int32(), "float": pa.float64(), "bool": pa.bool_(), "choice": pa.string(), "model": pa.string()}


@dataclass(frozen=True)
class Column:
    """One column: its Arrow type and its description, which docs/results.md repeats."""

    name: str
    type: pa.DataType
    doc: str


# Like a curve it is too long to be in memory for every run.
ROC = Column(
    "roc",
    pa.list_(pa.float32()),
    "background efficiencies at 50 signal efficiencies (0.02, 0.04, … 0.98, 0.99), class against rest, class after "
    "class in the order of auc; null where it is not known",
)


def _columns() -> tuple[Column, ...]:
    number, count, text = pa.float64(), pa.int64(), pa.string()
    per_class = pa.list_(number)
    return (
        Column("run_id", text, "identity of config, seed, data and recipe: 32 hex digits of a sha256"),
        Column("config_id", text, "the same without the seed: common to all seeds of a config"),
        Column("data_digest", text, "digest of the data set it was trained on"),
        Column("recipe_version", pa.int32(), "version of the training recipe"),
        *(Column(name, _ARROW[spec.kind], f"hyperparameter: {spec.help}") for name, spec in FIELDS.items()),
        Column("parameters", count, "trainable parameters of the network"),
        Column("status", text, "done, or diverged if a loss or a weight became infinite or NaN"),
        Column("stop_reason", text, "max_epochs, early_stopping or diverged"),
        Column("epochs_run", pa.int32(), "whole epochs trained"),
        Column("steps", count, "optimizer steps taken"),
        Column("diverged_step", count, "step of the first loss or weight that was not finite"),
        Column("best_epoch", pa.int32(), "epoch of the lowest validation loss"),
        *(
            Column(f"{part}_{metric}", number, f"{text} of the last epoch, {mode}")
            for part, mode in (
                ("train", "in training mode"),
                ("train_eval", "on training jets in evaluation mode, as many as the validation part has"),
                ("val", "in evaluation mode"),
            )
            for metric, text in (("loss", "cross-entropy"), ("acc", "accuracy"))
        ),
        Column("best_val_loss", number, "lowest validation loss over epochs"),
        Column("best_val_acc", number, "validation accuracy of that epoch"),
        Column("test_loss", number, "test cross-entropy of the last weights"),
        Column("test_acc", number, "test accuracy of the last weights"),
        Column("best_test_loss", number, "test cross-entropy of the weights of the best epoch"),
        Column("best_test_acc", number, "test accuracy of the weights of the best epoch"),
        Column("auc", per_class, f"area under the ROC curve, class against rest, in the order {', '.join(CLASSES)}"),
        Column("rejection", per_class, "1 / false positive rate at 50% signal efficiency, class against rest"),
        ROC,
        Column(
            "confusion",
            pa.list_(count),
            "25 counts of test jets at the best epoch, row by row: rows are true classes, columns predicted ones",
        ),
        Column(
            "silent_classes",
            pa.list_(text),
            "classes whose output, after the final ReLU, is zero for more than 99% of their own test jets",
        ),
        Column("zero_output_share", number, "share of the test jets whose five outputs are all zero"),
        *(Column(f"{part}_rows", count, f"jets in the {part} part") for part in ("train", "val", "test")),
        *_cost_columns(),
        Column("device", text, "processor and its number of cores, or the GPU, that it was trained on"),
        Column("backend", text, "backend that took the optimizer steps"),
        Column("versions", text, "JSON: versions of the software it was trained with"),
        Column("created_at", text, "UTC time at which it was stored, ISO 8601"),
        *(
            Column(CURVE_PREFIX + name, pa.list_(count if name in INTEGER_QUANTITIES else number), f"curve: {doc}")
            for name, doc in POINT_FIELDS.items()
        ),
    )


def _cost_columns() -> tuple[Column, ...]:
    number = pa.float64()
    return (
        Column(
            "train_time_s",
            number,
            "own seconds in optimizer steps; of a step that replicas take together, an equal share",
        ),
        Column(
            "wall_share_s",
            number,
            "own share of the wall time, evaluations included, compiling not: each second is divided among the "
            "replicas in training; null where it was not recorded",
        ),
        Column(
            "wall_time_s",
            number,
            "seconds from the start of the stack to the end of this run, other replicas and compiling included",
        ),
        Column("replicas", pa.int32(), "replicas in the stack, this run included"),
        Column("peak_memory_mb", number, "peak memory of the training process, on a GPU that of the device"),
    )


COLUMNS = _columns()
WEIGHTS = Column("weights", pa.binary(), "safetensors of the best epoch's weights; in parts only")
SCALARS = tuple(column.name for column in COLUMNS if not column.name.startswith(CURVE_PREFIX) and column != ROC)
CURVES = tuple(column.name for column in COLUMNS if column.name.startswith(CURVE_PREFIX))
# Columns that a file may lack because it was written before they were recorded: they read as null.
OPTIONAL = frozenset({
    "train_eval_loss", "train_eval_acc", "curve_train_eval_loss", "curve_train_eval_acc", "zero_output_share",
    "wall_share_s",
})  # fmt: skip
# The curve that gives the number of points of those that a file lacks.
_LENGTHS = f"{CURVE_PREFIX}step"
# The metrics of a run that charts can show, with their descriptions. The first is the default.
METRICS = {
    "val_acc": "validation accuracy, last epoch",
    "best_val_acc": "validation accuracy, best epoch",
    "test_acc": "test accuracy, last epoch",
    "best_test_acc": "test accuracy, best epoch",
    "val_loss": "validation loss, last epoch",
    "test_loss": "test loss, last epoch",
    "train_time_s": "training time (s), own seconds in optimizer steps",
}


def part_schema() -> pa.Schema:
    """Return the Arrow schema of a part, with the schema version in its metadata."""
    return pa.schema(
        [(column.name, column.type) for column in (*COLUMNS, WEIGHTS)], {VERSION_KEY: str(SCHEMA_VERSION).encode()}
    )


def to_table(record: RunRecord) -> pa.Table:
    """Return the one-row table of a run."""
    outcome = asdict(record.outcome)
    points = outcome.pop("points")
    row: dict[str, Any] = {
        "run_id": record.run_id,
        "config_id": record.config_id,
        "data_digest": record.data_digest,
        "recipe_version": record.recipe_version,
        "parameters": record.parameters,
        "created_at": record.created_at,
        **record.config,
        **outcome,
        "versions": json.dumps(record.outcome.versions, sort_keys=True),
        **{CURVE_PREFIX + name: [point.get(name) for point in points] for name in POINT_FIELDS},
    }
    return pa.Table.from_pylist([row], schema=part_schema())


def from_row(row: dict[str, Any]) -> RunRecord:
    """Return the record of a row, a mapping of all columns; weights may be missing."""
    curves = {name: row[CURVE_PREFIX + name] for name in POINT_FIELDS}
    points = [dict(zip(curves, values, strict=True)) for values in zip(*curves.values(), strict=True)]
    scalars = {name: row[name] for name in Outcome.__dataclass_fields__ if name in row}
    scalars |= {"points": points, "versions": json.loads(row["versions"]), "weights": row.get("weights") or b""}
    return RunRecord(
        run_id=row["run_id"],
        config_id=row["config_id"],
        data_digest=row["data_digest"],
        recipe_version=row["recipe_version"],
        config={name: row[name] for name in FIELDS},
        parameters=row["parameters"],
        outcome=Outcome(**scalars),
        created_at=row["created_at"],
    )


def columns_to_read(names: Sequence[str], present: Collection[str]) -> list[str]:
    """Return the columns to read from a file that has those ``present``, for ``with_columns`` to add the others."""
    found = [name for name in names if name in present]
    return found if len(found) == len(names) else list(dict.fromkeys([*found, _LENGTHS]))


def with_columns(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return these columns of a table; weights and ``OPTIONAL`` ones that it lacks are null, curves at each point."""
    types = {column.name: column.type for column in (*COLUMNS, WEIGHTS)}
    for name in {*OPTIONAL, WEIGHTS.name}.intersection(names).difference(table.column_names):
        values = pa.nulls(table.num_rows, types[name])
        if name in CURVES:
            steps = table[_LENGTHS].combine_chunks()
            values = pa.ListArray.from_arrays(steps.offsets, pa.nulls(len(steps.values), types[name].value_type))
        table = table.append_column(name, values)
    return table.select(names)


def schema_problem(schema: pa.Schema) -> str | None:
    """Return why a Parquet schema is not one of this project's; None if it is."""
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version is None:
        return "was not written by jsc-explore"
    if version != str(SCHEMA_VERSION).encode():
        return f"has schema version {version.decode(errors='replace')[:12]}, this program reads {SCHEMA_VERSION}"
    for column in COLUMNS:
        index = schema.get_field_index(column.name)
        if index < 0 and column.name in OPTIONAL:
            continue
        if index < 0:
            return f"lacks the column {column.name}"
        if not _compatible(schema.field(index).type, column.type):
            return f"has column {column.name} as {schema.field(index).type}, not {column.type}"
    return None


def _compatible(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_list(wanted):
        return bool(pa.types.is_list(found)) and _compatible(found.value_type, wanted.value_type)
    return bool(found == wanted)

"""Read scalars from TensorBoard event files, up to the first damaged record.

A record is a length, a checksum and a protocol buffer. Format: tensorflow/core/lib/io/record_writer.h and
tensorflow/core/util/event.proto, of which only the part for scalars is described here.
"""

from __future__ import annotations

import functools
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from jsc_explore.errors import FieldError
from jsc_explore.files import error_reason
from jsc_explore.importers.hparams import read_hparams
from jsc_explore.importers.imported_run import (
    MAX_POINTS,
    ImportedRun,
    LoggedValue,
    final_test_metrics,
    has_known_tags,
    hyperparameters,
    points_from_series,
)

MAX_FILE_MB, MAX_RECORD_MB, MAX_RUNS = 512, 64, 500
HPARAMS = "hparams.yaml"
_FILE_MARK = "tfevents"
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
# Message -> its fields: (name, number, protobuf type, repeated).
_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "Event": [("wall_time", 1, "double", False), ("step", 2, "int64", False), ("summary", 5, "Summary", False)],
    "Summary": [("value", 1, "Value", True)],
    "Value": [("tag", 1, "string", False), ("simple_value", 2, "float", False), ("tensor", 8, "Tensor", False)],
    "Tensor": [("dtype", 1, "int32", False), ("tensor_content", 4, "bytes", False), ("float_val", 5, "float", True),
               ("double_val", 6, "double", True)],
}  # fmt: skip
_FLOAT32, _FLOAT64 = 1, 2


def find_runs(directory: Path) -> dict[str, list[Path]]:
    """Return run name -> event files below a directory; the name is the folder's path relative to ``directory``.

    Symbolic links are not followed. Raises FieldError if there are no event files or more than 500 runs.
    """
    if not directory.is_dir():
        raise FieldError("directory", str(directory), "is not a directory", "give the one that holds lightning_logs")
    runs: dict[str, list[Path]] = {}
    top = directory.resolve()
    for folder, folders, names in os.walk(top):
        folders.sort()
        here = Path(folder)
        files = [here / name for name in sorted(names) if _FILE_MARK in name and not (here / name).is_symlink()]
        if files:
            runs[here.relative_to(top).as_posix() if here != top else top.name] = files
        if len(runs) > MAX_RUNS:
            remedy = "give one of its subdirectories"
            raise FieldError("directory", str(directory), f"has more than {MAX_RUNS} runs", remedy)
    if not runs:
        rule = "contains no event file (events.out.tfevents.*)"
        raise FieldError("directory", str(directory), rule, "give the one that holds lightning_logs")
    return runs


def read_run(name: str, files: list[Path]) -> ImportedRun:
    """Read the event files of one run and the hparams.yaml beside them.

    Raises FieldError if a file is too large or cannot be read, or if no tag is a quantity of a curve.
    """
    digest = hashlib.sha256()
    series: dict[str, list[LoggedValue]] = {}
    notes = [note for path in files if (note := _read_file(path, series, digest))]
    found: dict[str, Any] = {}
    hparams = files[0].parent / HPARAMS
    if hparams.is_file() and not hparams.is_symlink():
        found, note = read_hparams(hparams, digest)
        notes += [note] if note else []
    if not has_known_tags(series):
        listed = ", ".join(sorted(series)[:8]) or "none"
        raise FieldError("run", name, f"has no tag that a curve can show (its tags: {listed})" + "".join(
            f"; {note}" for note in notes), "see docs/importing.md for the tags that are read")  # fmt: skip
    fields, other = hyperparameters(found)
    points, more = points_from_series(series, fields.get("batch_size"))
    return ImportedRun(
        name, "tensorboard", files[0].name, digest.hexdigest(), fields, other, points,
        *final_test_metrics(series), notes + more,
    )  # fmt: skip


def _read_file(path: Path, series: dict[str, list[LoggedValue]], digest: Any) -> str:
    """Add a file's scalars to ``series``; return a message if it was not read to the end, otherwise ""."""
    event = _event_class()
    count = sum(map(len, series.values()))
    try:
        if path.stat().st_size > MAX_FILE_MB * 1_000_000:
            rule = f"is larger than {MAX_FILE_MB} MB"
            raise FieldError("file", path.name, rule, "give a run that logs scalars only")
        with path.open("rb") as file:
            for index, record in enumerate(_records(file, digest)):
                if isinstance(record, str):
                    return f"{path.name} {record}: read up to there, {index} records"
                try:
                    parsed = event.FromString(record)
                except Exception:  # the class of protobuf's DecodeError depends on its implementation
                    return f"{path.name} has no event at record {index + 1}: read up to there"
                for value in parsed.summary.value:
                    number = _scalar(value)
                    if number is not None:
                        logged = LoggedValue(parsed.step, parsed.wall_time, number)
                        series.setdefault(value.tag[:200], []).append(logged)
                        count += 1
                if count > MAX_POINTS:
                    return f"{path.name} has more than {MAX_POINTS:,} values: the rest is skipped"
    except OSError as error:
        rule = f"cannot be read ({error_reason(error)})"
        raise FieldError("file", path.name, rule, "check its permissions") from error
    return ""


def _records(file: BinaryIO, digest: Any) -> Iterator[bytes | str]:
    """Yield the content of each record; last, as str, what is wrong if the file is truncated or damaged."""
    import google_crc32c

    def masked(content: bytes) -> int:
        checksum = google_crc32c.value(content)
        return int((((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    while header := file.read(_HEADER.size):
        if len(header) < _HEADER.size:
            yield "is truncated"
            return
        length, checksum = _HEADER.unpack(header)
        if masked(header[:8]) != checksum:
            yield "is damaged"
            return
        if length > MAX_RECORD_MB * 1_000_000:
            yield f"has a record of more than {MAX_RECORD_MB} MB"
            return
        content, footer = file.read(length), file.read(_FOOTER.size)
        if len(content) < length or len(footer) < _FOOTER.size:
            yield "is truncated"
            return
        if masked(content) != _FOOTER.unpack(footer)[0]:
            yield "is damaged"
            return
        # An incomplete record is not in the digest: when the run has continued, it is read as another run.
        digest.update(header + content + footer)
        yield content


def _scalar(value: Any) -> float | None:
    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor"):
        return None
    tensor = value.tensor
    if tensor.dtype == _FLOAT32:
        values = tensor.float_val or (struct.unpack("<f", tensor.tensor_content) if len(tensor.tensor_content) == 4
                                      else ())  # fmt: skip
    elif tensor.dtype == _FLOAT64:
        values = tensor.double_val or (struct.unpack("<d", tensor.tensor_content) if len(tensor.tensor_content) == 8
                                       else ())  # fmt: skip
    else:
        return None
    return float(values[0]) if len(values) == 1 else None


@functools.cache
def _event_class() -> Any:
    """Return the protobuf class of an event, built from ``_MESSAGES`` in its own descriptor pool."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="jsc_explore", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind, repeated in fields:
            is_message = kind in _MESSAGES
            added = message.field.add(
                name=field, number=number, label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL,
                type=types.TYPE_MESSAGE if is_message else getattr(types, f"TYPE_{kind.upper()}"),
                type_name=f".jsc_explore.{kind}" if is_message else None,
            )  # fmt: skip
            if field == "simple_value":
                # Optional, so that a value of zero differs from a missing one.
                message.oneof_decl.add(name="_simple_value")
                added.proto3_optional, added.oneof_index = True, 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("jsc_explore.Event"))

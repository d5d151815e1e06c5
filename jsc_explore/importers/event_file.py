"""Read scalars and hyperparameters from one TensorBoard event file, up to the first damaged record.

A record is a length, a checksum and a protocol buffer. Formats: tensorflow/core/lib/io/record_writer.h,
tensorflow/core/util/event.proto and tensorboard/plugins/hparams/plugin_data.proto, of which only the part for scalars
and hyperparameters is described here.
"""

from __future__ import annotations

import functools
import gzip
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from jsc_explore.errors import FieldError
from jsc_explore.files import error_reason
from jsc_explore.importers.checked_series import LoggedValue
from jsc_explore.importers.imported_run import MAX_POINTS

MAX_FILE_MB, MAX_RECORD_MB = 512, 64
_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
# Message -> its fields: (name, number, protobuf type, repeated).
_MESSAGES: dict[str, list[tuple[str, int, str, bool]]] = {
    "Event": [("wall_time", 1, "double", False), ("step", 2, "int64", False), ("summary", 5, "Summary", False),
              ("session_log", 7, "SessionLog", False)],
    "SessionLog": [("status", 1, "int32", False)],
    "Summary": [("value", 1, "Value", True)],
    "Value": [("tag", 1, "string", False), ("simple_value", 2, "float", False), ("tensor", 8, "Tensor", False),
              ("metadata", 9, "Metadata", False)],
    "Metadata": [("plugin_data", 1, "Plugin", False)],
    "Plugin": [("plugin_name", 1, "string", False), ("content", 2, "bytes", False)],
    "Tensor": [("dtype", 1, "int32", False), ("shape", 2, "Shape", False), ("tensor_content", 4, "bytes", False),
               ("float_val", 5, "float", True), ("double_val", 6, "double", True), ("int_val", 7, "int32", True),
               ("int64_val", 10, "int64", True), ("bool_val", 11, "bool", True), ("half_val", 13, "int32", True),
               ("uint32_val", 16, "uint32", True), ("uint64_val", 17, "uint64", True)],
    "Shape": [("dim", 2, "Dimension", True)],
    "Dimension": [("size", 1, "int64", False)],
    "HParams": [("session", 3, "Session", False)],
    "Session": [("entry", 1, "Entry", True)],
    "Entry": [("name", 1, "string", False), ("value", 2, "Constant", False)],
    "Constant": [("number", 2, "double", False), ("text", 3, "string", False), ("truth", 4, "bool", False)],
}  # fmt: skip
# Fields whose zero differs from a missing value.
_OPTIONAL = ("simple_value", "number", "text", "truth")
# TensorFlow's number of a type -> its field and its type in tensor_content.
_TENSORS = {
    1: ("float_val", "<f4"), 2: ("double_val", "<f8"), 3: ("int_val", "<i4"), 4: ("int_val", "<u1"),
    5: ("int_val", "<i2"), 6: ("int_val", "<i1"), 9: ("int64_val", "<i8"), 10: ("bool_val", "?"),
    14: ("half_val", "<u2"), 17: ("int_val", "<u2"), 19: ("half_val", "<f2"), 22: ("uint32_val", "<u4"),
    23: ("uint64_val", "<u8"),
}  # fmt: skip
_HALF, _BFLOAT16 = 19, 14
_HPARAMS, _RESTARTED = "hparams", 1


@dataclass
class Events:
    """What the event files of one run hold. ``hparams`` has the hyperparameters of the HParams plugin by name."""

    series: dict[str, list[LoggedValue]] = field(default_factory=dict)
    hparams: dict[str, Any] = field(default_factory=dict)
    restarts: list[tuple[int, int]] = field(default_factory=list)
    not_scalar: set[str] = field(default_factory=set)
    count: int = 0
    order: int = 0


def read_events(path: Path, events: Events, digest: Any) -> str:
    """Add the content of an event file, which may be gzip'ed; return a message if it was not read to the end, or "".

    Raises FieldError if the file is too large or cannot be read.
    """
    event = _message("Event")
    try:
        if path.stat().st_size > MAX_FILE_MB * 1_000_000:
            rule = f"is larger than {MAX_FILE_MB} MB"
            raise FieldError("file", path.name, rule, "give a run that logs scalars only")
        with _open(path) as file:
            for index, record in enumerate(_records(file, digest)):
                if isinstance(record, str):
                    return f"{path.name} {record}: read up to there, {index} records"
                try:
                    parsed = event.FromString(record)
                except Exception:  # the class of protobuf's DecodeError depends on its implementation
                    return f"{path.name} has no event at record {index + 1}: read up to there"
                _add(parsed, events)
                if events.count > MAX_POINTS:
                    return f"{path.name} has more than {MAX_POINTS:,} values: the rest is left out"
    except (EOFError, zlib.error, gzip.BadGzipFile):
        return f"{path.name} is truncated or damaged: read up to there"
    except OSError as error:
        rule = f"cannot be read ({error_reason(error)})"
        raise FieldError("file", path.name, rule, "check its permissions") from error
    return ""


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if is_gzip else path.open("rb")  # type: ignore[return-value]


def _add(event: Any, events: Events) -> None:
    events.order += 1
    if event.session_log.status == _RESTARTED and event.step > 0:
        events.restarts.append((events.order, event.step))
    for value in event.summary.value:
        plugin = value.metadata.plugin_data
        if plugin.plugin_name == _HPARAMS:
            events.hparams |= _hparams(plugin.content)
            continue
        number = _scalar(value)
        tag = value.tag[:200]
        if number is None:
            if len(events.not_scalar) < 1000:
                events.not_scalar.add(tag)
            continue
        logged = LoggedValue(event.step, event.wall_time, number, order=events.order)
        events.series.setdefault(tag, []).append(logged)
        events.count += 1


def _hparams(content: bytes) -> dict[str, Any]:
    try:
        session = _message("HParams").FromString(content).session
    except Exception:  # as above
        return {}
    found: dict[str, Any] = {}
    for entry in list(session.entry)[:400]:
        if (kind := entry.value.ListFields()) and len(kind) == 1:
            found[entry.name[:100]] = kind[0][1]
    return found


def _records(file: BinaryIO, digest: Any) -> Iterator[bytes | str]:
    """Yield the content of each record; last, as str, what is wrong if the file is truncated or damaged."""
    import google_crc32c

    def masked(content: bytes) -> int:
        checksum = google_crc32c.value(content)
        return int((((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    total = 0
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
        total += length
        if total > MAX_FILE_MB * 1_000_000:
            yield f"has more than {MAX_FILE_MB} MB"
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
    tensor = value.tensor
    if not value.HasField("tensor") or tensor.dtype not in _TENSORS or any(one.size != 1 for one in tensor.shape.dim):
        return None
    name, form = _TENSORS[tensor.dtype]
    content = tensor.tensor_content
    if len(content) == np.dtype(form).itemsize:
        number = np.frombuffer(content, form)[0]
    elif len(values := getattr(tensor, name)) == 1:
        number = values[0]
        if tensor.dtype == _HALF:
            number = np.array(number & 0xFFFF, "<u2").view("<f2")[()]
    else:
        return None
    if tensor.dtype == _BFLOAT16:
        number = np.array((int(number) & 0xFFFF) << 16, "<u4").view("<f4")[()]
    return float(number)


@functools.cache
def _message(name: str) -> Any:
    """Return the protobuf class of a message, built from ``_MESSAGES`` in its own descriptor pool."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    types = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="jsc_explore", syntax="proto3")
    for title, fields in _MESSAGES.items():
        message = file.message_type.add(name=title)
        for part, number, kind, repeated in fields:
            is_message = kind in _MESSAGES
            added = message.field.add(
                name=part, number=number, label=types.LABEL_REPEATED if repeated else types.LABEL_OPTIONAL,
                type=types.TYPE_MESSAGE if is_message else getattr(types, f"TYPE_{kind.upper()}"),
                type_name=f".jsc_explore.{kind}" if is_message else None,
            )  # fmt: skip
            if part in _OPTIONAL:
                added.proto3_optional, added.oneof_index = True, len(message.oneof_decl)
                message.oneof_decl.add(name=f"_{part}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"jsc_explore.{name}"))

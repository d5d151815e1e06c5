"""Measure how much memory a row group of a Parquet file takes once decoded, before any of it is decoded.

A file of 59 kB can decode to gigabytes: run lengths and dictionaries repeat a value, and compression repeats bytes. The
footer says how many values a column chunk has, but a reader follows the headers of the pages, which may say otherwise.
So both are read. Format: Apache Parquet, parquet.thrift (PageHeader), in Thrift's compact protocol.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

MAX_ROWS = 10_000_000
# Memory of one row group once decoded. 2,048 runs of 1,000 epochs take 600 MB.
MAX_GROUP_BYTES = 1 << 30
# Memory of the rows that are decoded at once, where their texts may repeat a dictionary's longest entry.
MAX_BATCH_BYTES = 256 << 20
MAX_PAGES = 10_000
# Arrow's own writer has headers of about a hundred bytes; statistics of long texts make them longer.
_HEADER_BYTES, _MAX_HEADER_BYTES = 4 << 10, 1 << 20
_MAX_DEPTH = 8
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
# A list adds an offset per row, and Arrow decodes the levels of each value.
_LEVELS = 4
_DICTIONARY = 2
# Kind of a page (data, dictionary, data of version 2) -> the number of its own header, and of the encoding in there.
_HEADERS = {0: (5, 2), _DICTIONARY: (7, 2), 3: (8, 4)}

# Encodings that store each text in full; with others a page's texts may share their bytes.
_PLAIN, _DELTA_LENGTH = 0, 6


@dataclass(frozen=True)
class GroupSize:
    """Upper bounds for a row group: its bytes without repeated texts, and the bytes of texts that a row may repeat."""

    fixed: int
    texts_per_row: int


def size_problem(metadata: pq.FileMetaData, columns: Collection[str]) -> str | None:
    """Return why these columns of a file are too large to be decoded, by its footer alone; None if they are not."""
    groups = range(metadata.num_row_groups)
    if metadata.num_rows <= MAX_ROWS and all(
        _footer_bytes(metadata, group, columns) <= MAX_GROUP_BYTES for group in groups
    ):
        return None
    return f"is too large: at most {MAX_ROWS:,} runs, and {MAX_GROUP_BYTES >> 20:,} MiB a row group once decoded"


def decode_group(file: pq.ParquetFile, raw: BinaryIO, group: int, columns: Sequence[str]) -> pa.Table:
    """Measure these columns of a row group by its pages, then decode them and return the rows.

    ``raw`` is the same file. Raises ValueError if the row group takes over ``MAX_GROUP_BYTES``, before that is decoded.
    """
    too_large = ValueError(f"takes over {MAX_GROUP_BYTES >> 20:,} MiB once decoded: write fewer runs to a row group")
    size = measure_group(raw, file.metadata, group, columns)
    if size.fixed > MAX_GROUP_BYTES or size.texts_per_row > MAX_BATCH_BYTES:
        raise too_large
    rows = file.metadata.row_group(group).num_rows
    if rows * size.texts_per_row <= MAX_BATCH_BYTES:
        return file.read_row_group(group, columns=list(columns))
    decoded, batches = 0, []
    for batch in file.iter_batches(MAX_BATCH_BYTES // size.texts_per_row, row_groups=[group], columns=list(columns)):
        decoded += batch.nbytes
        if decoded > MAX_GROUP_BYTES:
            raise too_large
        batches.append(batch)
    return pa.Table.from_batches(batches)


def measure_group(file: BinaryIO, metadata: pq.FileMetaData, group: int, columns: Collection[str]) -> GroupSize:
    """Return the size of these columns by the headers of their pages. Raises ValueError if one is invalid."""
    fixed = texts = 0
    for chunk in _chunks(metadata, group, columns):
        is_text = chunk.physical_type not in _WIDTHS
        is_list = "." in chunk.path_in_schema
        text = 0
        for size, values, encoding in _pages(file, chunk):
            fixed += max(size, values * _width(chunk))
            if is_text and encoding not in (_PLAIN, _DELTA_LENGTH):
                text = max(text, size)
            if is_text and is_list:
                # A row may hold all values of a list.
                fixed += values * text
        texts += 0 if is_list else text
    return GroupSize(fixed, texts)


def _footer_bytes(metadata: pq.FileMetaData, group: int, columns: Collection[str]) -> int:
    chunks = _chunks(metadata, group, columns)
    return sum(max(0, chunk.total_uncompressed_size, chunk.num_values * _width(chunk)) for chunk in chunks)


def _chunks(metadata: pq.FileMetaData, group: int, columns: Collection[str]) -> Iterator[pq.ColumnChunkMetaData]:
    rows = metadata.row_group(group)
    for index in range(rows.num_columns):
        chunk = rows.column(index)
        if chunk.path_in_schema.partition(".")[0] in columns:
            yield chunk


def _width(chunk: pq.ColumnChunkMetaData) -> int:
    return _WIDTHS.get(chunk.physical_type, 0) + _LEVELS


def _pages(file: BinaryIO, chunk: pq.ColumnChunkMetaData) -> Iterator[tuple[int, int, int]]:
    """Yield the uncompressed bytes, the number of values and the encoding of each page; -1 for a dictionary."""
    at = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < (first := chunk.dictionary_page_offset) < at:
        at = first
    end = at + chunk.total_compressed_size
    for _ in range(MAX_PAGES):
        if at >= end:
            return
        header, length = _page_header(file, at)
        kind, size, stored = (_integer(header, number) for number in (1, 2, 3))
        if kind in _HEADERS:
            inside, encoding = _HEADERS[kind]
            if not isinstance(header.get(inside), dict):
                raise _invalid()
            values = _integer(header[inside], 1)
            yield size, values, -1 if kind == _DICTIONARY else _integer(header[inside], encoding)
        at += length + stored
    raise ValueError(f"a column has more than {MAX_PAGES:,} pages")


def _invalid() -> ValueError:
    return ValueError("a page has an invalid header")


def _integer(fields: Mapping[int, Any], number: int) -> int:
    value = fields.get(number)
    if not isinstance(value, int) or value < 0:
        raise _invalid()
    return value


def _page_header(file: BinaryIO, at: int) -> tuple[dict[int, Any], int]:
    for limit in (_HEADER_BYTES, _MAX_HEADER_BYTES):
        file.seek(at)
        data = file.read(limit)
        with suppress(IndexError):
            return _read_struct(data, 0, 0)
    raise _invalid()


def _read_struct(data: bytes, at: int, depth: int) -> tuple[dict[int, Any], int]:
    """Read a struct of the compact protocol; return its integers (i32) and structs by number, and the place after it.

    A field of another type is None, as Arrow skips it where it does not expect it.
    """
    fields: dict[int, Any] = {}
    number = 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _read_integer(data, at)
        kind = head & 15
        # Of a field that is there twice a reader may take either.
        if number in fields or depth > _MAX_DEPTH:
            raise _invalid()
        fields[number] = None
        if kind == 3:
            at += 1
        elif kind in (4, 5, 6):
            value, at = _read_integer(data, at)
            fields[number] = value if kind == 5 else None
        elif kind == 8:
            # The length of a text is not in zigzag form.
            length, at = _read_varint(data, at)
            at += length
        elif kind == 12:
            fields[number], at = _read_struct(data, at, depth + 1)
        elif kind not in (1, 2):  # true and false
            raise _invalid()
    return fields, at + 1


def _read_integer(data: bytes, at: int) -> tuple[int, int]:
    value, at = _read_varint(data, at)
    return value >> 1 ^ -(value & 1), at


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    raise _invalid()

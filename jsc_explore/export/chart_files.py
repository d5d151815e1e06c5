"""Figures as SVG, PNG and PDF, tables as CSV and Parquet, all in one ZIP; no network needed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from jsc_explore.charts.figure import Figure

ImageFormat = Literal["svg", "png", "pdf"]
IMAGE_FORMATS: tuple[ImageFormat, ...] = ("svg", "png", "pdf")
# Twice the pixels of a screen, for slides.
PNG_SCALE = 2.0


def render_image(figure: Figure, kind: ImageFormat) -> bytes:
    """Return a figure as an SVG, PNG or PDF file."""
    import vl_convert

    # The spec holds its data. A URL in it would be a mistake, and is not fetched.
    options: dict[str, Any] = {"allowed_base_urls": []}
    spec = figure.standalone_spec()
    if kind == "svg":
        return str(vl_convert.vegalite_to_svg(spec, **options)).encode()
    if kind == "png":
        return bytes(vl_convert.vegalite_to_png(spec, scale=PNG_SCALE, **options))
    return bytes(vl_convert.vegalite_to_pdf(spec, **options))


def table_bytes(table: pa.Table, kind: Literal["csv", "parquet"]) -> bytes:
    """Return a table as a CSV or Parquet file.

    In CSV, text that a spreadsheet would take for a formula (``=``, ``+``, ``-``, ``@``), a number excepted, begins
    with an apostrophe.
    """
    stream = io.BytesIO()
    if kind == "csv":
        for i, column in enumerate(table.schema):
            kind_of = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
            if pa.types.is_string(kind_of) or pa.types.is_large_string(kind_of):
                text = table[i].cast(pa.string())
                is_formula = pc.and_(
                    pc.match_substring_regex(text, r"^[=+\-@\t\r]"),
                    pc.invert(pc.match_substring_regex(text, r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$")),
                )
                table = table.set_column(
                    i, column.name, pc.if_else(is_formula, pc.binary_join_element_wise("'", text, ""), text)
                )
        pyarrow.csv.write_csv(table, stream)
    else:
        pq.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def zip_archive(
    figures: Mapping[str, Figure], tables: Mapping[str, pa.Table], texts: Mapping[str, str], folder: str
) -> bytes:
    """Return a ZIP of one folder: each figure in each format, each table as CSV and Parquet, texts by file name."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(f"{folder}/{name}", text)
        for name, figure in figures.items():
            for kind in IMAGE_FORMATS:
                archive.writestr(f"{folder}/{name}.{kind}", render_image(figure, kind))
        for name, table in tables.items():
            archive.writestr(f"{folder}/{name}.csv", table_bytes(table, "csv"))
            archive.writestr(f"{folder}/{name}.parquet", table_bytes(table, "parquet"))
    return stream.getvalue()

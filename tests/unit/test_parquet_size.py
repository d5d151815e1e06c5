"""Small files that decode to gigabytes are refused by what their footer and pages say, before they are decoded."""

import contextlib
import struct

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import record_of

from jsc_explore.config import RunConfig
from jsc_explore.paths import site_file
from jsc_explore.store import parquet_size
from jsc_explore.store.checks import file_problem, read_row_groups
from jsc_explore.store.parquet_size import MAX_GROUP_BYTES, decode_group, measure_group
from jsc_explore.store.parquet_writer import write_part
from jsc_explore.store.schema import part_schema, to_table

COLUMNS = part_schema().names


def write(path, values, **options):
    """Write a column of texts or of lists, as a file of its own."""
    pq.write_table(pa.table({"roc": values}), path, **{"compression": "zstd", **options})
    return path


def measure(path, names=("roc",)):
    with pq.ParquetFile(path) as file, path.open("rb") as raw:
        return measure_group(raw, file.metadata, 0, names)


def decode(path):
    with pq.ParquetFile(path) as file, path.open("rb") as raw:
        return decode_group(file, raw, 0, ["roc"])


def one_list(count, kind=np.float32):
    """Return a list of ``count`` zeros as the only row, which costs no more memory than its own bytes."""
    return pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.array(np.zeros(count, kind)))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_dictionary": False},
        {"data_page_version": "2.0"},
        {"column_encoding": {"roc.list.element": "BYTE_STREAM_SPLIT"}, "use_dictionary": False},
    ],
)
def test_the_size_by_the_pages_is_never_below_that_of_the_decoded_rows(tmp_path, options):
    path = write(tmp_path / "a.parquet", one_list(1_000_000), **options)
    size = measure(path)
    assert path.stat().st_size < 20_000
    assert 4_000_000 <= size.fixed < 12_000_000
    assert size.texts_per_row == 0


def test_published_runs_and_parts_are_measured_about_as_large_as_they_are(tmp_path):
    part = write_part(tmp_path, pa.concat_tables([to_table(record_of(RunConfig(seed=seed))) for seed in range(9)])).path
    for path in (part, site_file("results.parquet")):
        with pq.ParquetFile(path) as file:
            decoded = file.read_row_group(0).nbytes
        size = measure(path, COLUMNS)
        assert decoded / 2 < size.fixed < 20 * decoded
        assert file_problem(path) is None
        assert all(not why for _, _, why in read_row_groups(path))


def test_a_list_of_equal_values_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_size, "MAX_GROUP_BYTES", 10 << 20)
    path = write(tmp_path / "a.parquet", one_list(5_000_000))
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda *_, **__: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match="takes over 10 MiB once decoded"):
        decode(path)


def test_many_rows_that_repeat_one_long_text_are_decoded_in_batches_up_to_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_size, "MAX_GROUP_BYTES", 30 << 20)
    monkeypatch.setattr(parquet_size, "MAX_BATCH_BYTES", 4 << 20)
    text, most = "x" * (1 << 20), pa.total_allocated_bytes()
    assert decode(write(tmp_path / "a.parquet", pa.array([text] * 25).dictionary_encode())).num_rows == 25
    path = write(
        tmp_path / "b.parquet", pa.array([0] * 5000, pa.int32()).dictionary_encode().from_arrays([0] * 5000, [text])
    )
    assert path.stat().st_size < 5000
    with pytest.raises(ValueError, match="takes over 30 MiB once decoded"):
        decode(path)
    lists = pa.ListArray.from_arrays(
        pa.array([0, 5000], pa.int32()), pa.DictionaryArray.from_arrays([0] * 5000, [text])
    )
    with pytest.raises(ValueError, match="takes over 30 MiB once decoded"):
        decode(write(tmp_path / "c.parquet", lists))
    assert pa.total_allocated_bytes() - most < 60 << 20


def test_texts_that_share_their_beginnings_count_as_repeated(tmp_path):
    options = {"column_encoding": {"roc": "DELTA_BYTE_ARRAY"}, "use_dictionary": False}
    path = write(tmp_path / "a.parquet", pa.array(["x" * 100_000] * 100), **options)
    size = measure(path)
    assert size.texts_per_row * 100 >= 10_000_000


def lie(path, true, told):
    """Replace a number, as the footer holds it, by another of the same length."""

    def zigzag(number):
        number, out = number << 1, []
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        return bytes([*out, number])

    content = path.read_bytes()
    (length,) = struct.unpack("<I", content[-8:-4])
    footer = content[-8 - length : -8]
    assert zigzag(true) in footer
    assert len(zigzag(true)) == len(zigzag(told))
    path.write_bytes(content[: -8 - length] + footer.replace(zigzag(true), zigzag(told)) + content[-8:])


def test_a_footer_that_tells_too_few_values_or_bytes_changes_nothing(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet", one_list(5_000_000), use_dictionary=False)
    size = measure(path)
    lie(path, 5_000_000, 3_000_000)
    lie(path, pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size, 2_200_000)
    assert pq.read_metadata(path).row_group(0).column(0).num_values == 3_000_000
    assert measure(path) == size


@pytest.mark.parametrize("seed", range(20))
def test_whatever_bytes_are_in_the_pages_there_is_one_kind_of_error(tmp_path, seed):
    path, rng = write(tmp_path / "a.parquet", one_list(1000)), np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    with pq.ParquetFile(path) as file:
        for _ in range(50):
            bad = content.copy()
            for at in rng.integers(4, 60, 3):
                bad[at] = rng.integers(256)
            path.write_bytes(bad)
            with path.open("rb") as raw, contextlib.suppress(ValueError):
                measure_group(raw, file.metadata, 0, ["roc"])


def test_the_limit_lies_above_the_largest_row_group_of_published_runs():
    points, runs = 1010, 2048
    curves = sum(name.startswith("curve_") for name in COLUMNS)
    assert runs * points * curves * 12 < MAX_GROUP_BYTES

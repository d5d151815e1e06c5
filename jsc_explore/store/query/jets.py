"""Statistics of a source's jets, computed by DuckDB from its Parquet file; no jet is copied into Python."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from jsc_explore.data.jets import CLASSES, FEATURES
from jsc_explore.errors import DataError, FieldError

# Jets outside these quantiles count in the shares but get no bin: a few outliers would squeeze all others.
TAIL = 0.001
INTEGER_FEATURES = ("multiplicity",)
# Quantiles of a million jets take 0.6 s, of every twentieth 0.15 s; they only determine where an axis ends.
_SAMPLE = 50_000


@dataclass(frozen=True)
class Bins:
    """Equal bins of one feature between ``low`` and ``high``, which are natural logarithms where ``log``."""

    feature: str
    low: float
    high: float
    count: int
    log: bool = False

    def edge(self, index: int) -> float:
        """Return the lower edge of a bin in the feature's units; ``edge(count)`` is the upper edge of the last."""
        at = self.low + (self.high - self.low) * index / self.count
        return math.exp(at) if self.log else at

    @property
    def sql(self) -> str:
        """The SQL expression for the index of a jet's bin; NULL outside the bins."""
        value = f"CASE WHEN {self.feature} > 0 THEN ln({self.feature}::DOUBLE) END" if self.log else self.feature
        # Numbers are in parentheses because two minus signs would start a comment.
        index = f"floor((({value})::DOUBLE - ({self.low!r})) * ({self.count / (self.high - self.low)!r}))::INTEGER"
        return (
            f"CASE WHEN ({value}) BETWEEN ({self.low!r}) AND ({self.high!r}) THEN least({index}, {self.count - 1}) END"
        )


class JetFile:
    """The cached Parquet file of a source, for reading.

    Any thread may call; every method raises DataError if the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def summary(self, feature: str) -> pa.Table:
        """Return one row per class that occurs: ``label``, ``n``, and of the feature ``mean`` and ``sd``.

        Raises FieldError for an unknown feature.
        """
        _check(feature)
        value = f"{feature}::DOUBLE"
        return self._query(
            f"SELECT {_LABEL} AS label, count(*) AS n, avg({value}) AS mean, stddev_pop({value}) AS sd "
            "FROM jets GROUP BY jets.label ORDER BY jets.label"
        )

    def bins(self, features: Sequence[str], count: int, *, log: bool = False) -> list[Bins]:
        """Return equal bins of each feature, at most ``count``, between its 0.1% and 99.9% quantiles.

        With ``log`` they are equal in the logarithm of the positive values. Integer features get bins of equally many
        integers, with ``log`` too. Raises FieldError for an unknown feature, and with ``log`` for one without positive
        values.
        """
        for feature in features:
            _check(feature)
        wanted = ", ".join(
            f"quantile_cont({f}::DOUBLE, [{TAIL}, {1 - TAIL}])" + (f" FILTER ({f} > 0)" if log else "")
            for f in features
        )
        # Taking the first rows would be right only for shuffled files; a stride is right for any order.
        stride = f"file_row_number % greatest(1, (SELECT count(*) FROM jets) // {_SAMPLE}) = 0"
        found = self._query(f"SELECT {wanted} FROM jets WHERE {stride}").to_pylist()[0]
        return [_make_bins(feature, span, count, log) for feature, span in zip(features, found.values(), strict=True)]

    def histograms(self, bins: Sequence[Bins]) -> pa.Table:
        """Return one row per feature, class and bin, empty bins included.

        Columns ``feature``, ``label``, ``low``, ``high`` (edges), ``n`` and ``share``: of all jets of the class,
        including those outside the bins.
        """
        sql = " UNION ALL ".join(
            f"SELECT {position} AS position, label, {one.sql} AS bin, count(*) AS n FROM jets GROUP BY ALL"
            for position, one in enumerate(bins)
        )
        counts: dict[tuple[int, int, int | None], int] = {}
        totals: dict[tuple[int, int], int] = {}
        for row in self._query(sql).to_pylist():
            counts[row["position"], row["label"], row["bin"]] = row["n"]
            whole = (row["position"], row["label"])
            totals[whole] = totals.get(whole, 0) + row["n"]
        rows = [
            {"feature": one.feature, "label": CLASSES[label], "low": one.edge(k), "high": one.edge(k + 1), "n": n,
             "share": n / total}
            for (position, label), total in sorted(totals.items())
            for one in (bins[position],)
            for k in range(one.count)
            for n in (counts.get((position, label, k), 0),)
        ]  # fmt: skip
        return pa.Table.from_pylist(rows, schema=_HISTOGRAM)

    def correlations(self, label: str | None = None) -> pa.Table:
        """Return Pearson's r of each pair of features, over all jets or one class: columns ``x``, ``y``, ``r``.

        Computed from sums in one pass, six times as fast as 120 calls of DuckDB's ``corr``. For a constant feature r
        is NULL. Raises FieldError for an unknown class, DataError for one without jets.
        """
        if label is not None and label not in CLASSES:
            raise FieldError("class", label, f"must be one of {', '.join(CLASSES)}", "try 'g'")
        where = "" if label is None else f"WHERE label = {CLASSES.index(label)}"
        if not (one := self._query(f"SELECT {', '.join(FEATURES)} FROM jets {where} LIMIT 1").to_pylist()):
            raise DataError(f"{self.path}: holds no jets of class {label}; choose another class or source")
        # Centred on one jet of the file, because the squares of large means would cancel badly.
        centred = ", ".join(f"{f}::DOUBLE - ({value!r}) AS {f}" for f, value in one[0].items())
        singles = [f"sum({f})" for f in FEATURES]
        pairs = [f"sum({a} * {b})" for i, a in enumerate(FEATURES) for b in FEATURES[i:]]
        sql = f"SELECT count(*), {', '.join(singles + pairs)} FROM (SELECT {centred} FROM jets {where})"
        n, *sums = self._query(sql).to_pylist()[0].values()
        return pa.Table.from_pylist(_pearson(n, sums), schema=_CORRELATION)

    def _query(self, sql: str) -> pa.Table:
        path = str(self.path).replace("'", "''")
        # NOT MATERIALIZED: each SELECT reads only the columns that it needs.
        jets = f"WITH jets AS NOT MATERIALIZED (SELECT * FROM read_parquet('{path}', file_row_number = true)) "
        try:
            with _database().cursor() as cursor:
                return cursor.sql(jets + sql).to_arrow_table()
        except duckdb.Error as error:
            what = str(error).splitlines()[0]
            raise DataError(f"{self.path}: cannot be read as jets ({what}); fetch the source again") from error


@cache
def _database() -> duckdb.DuckDBPyConnection:
    # One connection for all files: opening one takes over 20 ms, a cursor almost nothing. It holds no table.
    return duckdb.connect(":memory:")


_LABEL = f"{list(CLASSES)!r}[jets.label + 1]"
_HISTOGRAM = pa.schema(
    [
        ("feature", pa.string()),
        ("label", pa.string()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("n", pa.int64()),
        ("share", pa.float64()),
    ]
)
_CORRELATION = pa.schema([("x", pa.string()), ("y", pa.string()), ("r", pa.float64())])


def _check(feature: str) -> None:
    if feature not in FEATURES:
        raise FieldError("feature", feature, f"must be one of {', '.join(FEATURES)}", "try 'mass_mmdt'")


def _make_bins(feature: str, span: Sequence[float] | None, count: int, log: bool) -> Bins:
    if span is None:
        raise FieldError("feature", feature, "has no positive values for a logarithmic axis", "use a linear one")
    low, high = span
    if feature in INTEGER_FEATURES:
        low, high = math.floor(low), math.ceil(high)
        width = -(-(high - low + 1) // count)
        number = -(-(high - low + 1) // width)
        return Bins(feature, low - 0.5, low - 0.5 + number * width, number)
    if log:
        low, high = math.log(low), math.log(high)
    if low == high:  # a constant feature still needs a bin of some width
        low, high = low - 0.5, high + 0.5
    return Bins(feature, low, high, count, log)


def _pearson(n: int, sums: Sequence[float]) -> list[dict[str, Any]]:
    means = [total / n for total in sums[: len(FEATURES)]]
    products = iter(sums[len(FEATURES) :])
    size = len(FEATURES)
    covariance = {(i, j): next(products) / n - means[i] * means[j] for i in range(size) for j in range(i, size)}
    rows = []
    for i, x in enumerate(FEATURES):
        for j, y in enumerate(FEATURES):
            spread = math.sqrt(max(0.0, covariance[i, i]) * max(0.0, covariance[j, j]))
            r = max(-1.0, min(1.0, covariance[min(i, j), max(i, j)] / spread)) if spread else None
            rows.append({"x": x, "y": y, "r": r})
    return rows

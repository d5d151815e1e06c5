"""The results store: immutable Parquet parts, a SQLite catalogue of them, DuckDB in memory for queries."""

from jsc_explore.store.schema import SCHEMA_VERSION
from jsc_explore.store.store import Store

__all__ = ["SCHEMA_VERSION", "Store"]

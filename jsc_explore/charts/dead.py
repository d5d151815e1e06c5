"""The mark of a dead class, at the end of the curve of each seed that has one."""

from __future__ import annotations

import itertools
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

# Marks nearer than this share of the axis are one.
APART = 0.05


def dead_marks(each: pa.Table, brief: bool) -> pa.Table:
    """Return a row a mark: its place, ``group``, the ``mark`` and, for a tooltip, ``name``.

    ``each`` has a row a point of every seed, ``dead`` naming its dead classes, which a ``brief`` mark leaves out. Marks
    of one group that would lie over each other are one.
    """
    dead = each.filter(pc.not_equal(each["dead"], ""))
    last: dict[str, dict[str, Any]] = {}
    rows = dead.select(["run_id", "x", "value", "group", "dash", "dead", "name", "seed"]).to_pylist()
    for row in rows:
        last[row["run_id"]] = row
    values = [row["value"] for row in rows]
    apart = APART * (max(values) - min(values)) if values else 0.0
    marks: list[dict[str, Any]] = []
    for row in sorted(last.values(), key=lambda row: (row["group"], row["value"])):
        words = f"{row['name']}, seed {row['seed']}: never predicts {', '.join(row['dead'].split())}"
        before = marks[-1] if marks else {}
        if before.get("group") == row["group"] and row["value"] - before["value"] < apart:
            # Letters over each other cannot be read: one mark stands for both.
            before["mark"] += "" if brief else "".join(c for c in row["dead"].split() if c not in before["mark"])
            before["name"] += f"; {words}"
            continue
        mark = "†" + ("" if brief else row["dead"].replace(" ", ""))
        marks.append({"x": row["x"], "value": row["value"], "group": row["group"], "mark": mark, "name": words})
    if not brief:
        # Of several groups the lower one stays where its line ends, the others make room for its letters.
        marks.sort(key=lambda mark: mark["value"])
        for below, above in itertools.pairwise(marks):
            above["value"] = max(above["value"], below["value"] + apart)
    return pa.Table.from_pylist(marks, schema=_MARKS)


_MARKS = pa.schema(
    [("x", pa.float64()), ("value", pa.float64())] + [(name, pa.string()) for name in ("group", "mark", "name")]
)

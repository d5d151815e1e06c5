"""Benchmark of predictions: how many held-out cells of the snapshot lie in their 80% band, by kind of cell."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Bound, Report
from jsc_explore import paths
from jsc_explore.analysis.prediction import BAND_LEVEL, predict
from jsc_explore.analysis.support import KINDS
from jsc_explore.config import FIELDS, RunConfig
from jsc_explore.store import Store
from jsc_explore.store.query.aggregates import prediction_cells

METRICS = ("val_acc", "val_loss")
VALIDATIONS = ("holdout", "train")
AXES = ("learning_rate", "batch_size")
FOLDS = 8
Row = dict[str, Any]


def run(quick: bool) -> Report:
    """Hold out single cells, rows and networks of the snapshot, and predict them from the rest."""
    inside: dict[tuple[str, str], list[bool]] = defaultdict(list)
    refused: dict[str, int] = defaultdict(int)
    seconds: list[float] = []
    metrics, validations = METRICS[: 1 if quick else None], VALIDATIONS[: 1 if quick else None]
    with tempfile.TemporaryDirectory() as name:
        store = Store(Path(name), paths.snapshot())
        for metric in metrics:
            for validation in validations:
                cells = prediction_cells(store, metric, {"validation": [validation]})
                for what, out in _held_out(cells, quick):
                    begin = time.process_time()
                    found = _predict(cells, out, metric)
                    seconds.append(time.process_time() - begin)
                    for row, prediction in found:
                        if prediction is None:
                            refused[what] += 1
                        else:
                            inside[what, prediction.kind].append(prediction.low <= row["metric"] <= prediction.high)
        store.close()
    by_kind = {kind: [one for (_, own), each in inside.items() if own == kind for one in each] for kind in KINDS}
    shares = {kind: float(np.mean(each)) for kind, each in by_kind.items() if each}
    figures = {f"{kind}_share_inside": share for kind, share in shares.items()}
    figures |= {f"{kind}_off_{BAND_LEVEL:.0%}": abs(share - BAND_LEVEL) for kind, share in shares.items()}
    figures["seconds_a_prediction"] = float(np.median(seconds))
    bounds = {key: Bound(0.05, at_least=False) for key in figures if "_off_" in key}
    rows: list[dict[str, Any]] = [
        {"held out": what, "cell": KINDS[kind], "predictions": len(each), "inside": f"{np.mean(each):.0%}"}
        for what in sorted({what for what, _ in inside})
        for kind in KINDS
        if (each := inside.get((what, kind)))
    ]
    rows += [{"held out": what, "cell": "not predicted", "predictions": n} for what, n in sorted(refused.items())]
    return Report("predictions", figures, rows, bounds, [
        "Shares of held-out cells whose measured median lies in the 80% band. What is held out enters neither fit nor "
        "calibration.",
        f"Metrics {', '.join(metrics)}; validation {', '.join(validations)}; {len(seconds)} groups held out. Seconds "
        "are of one processor, for all that is held out together.",
    ])  # fmt: skip


def _held_out(cells: list[Row], quick: bool) -> Iterator[tuple[str, list[Row]]]:
    """Yield what is held out together, with its name."""
    models = sorted({row["model"] for row in cells})
    for axis in AXES:
        for place, value in enumerate(sorted({row[axis] for row in cells})):
            row = [one for one in cells if one[axis] == value]
            yield "a row", row
            if not quick:
                yield "a row of one network", [one for one in row if one["model"] == models[place % len(models)]]
    for model in models:
        yield "a network", [one for one in cells if one["model"] == model]
    fold = np.random.default_rng(0).permutation(len(cells)) % FOLDS
    for k in range(2 if quick else FOLDS):
        yield "an eighth of the cells", [one for one, own in zip(cells, fold, strict=True) if own == k]


def _predict(cells: list[Row], out: list[Row], metric: str) -> list[tuple[Row, Any]]:
    gone = {id(row) for row in out}
    configs = [RunConfig.from_dict({name: row[name] for name in FIELDS if name != "seed"}) for row in out]
    rest = [row for row in cells if id(row) not in gone]
    # The measured median is that of the seeds without a silent class: as many as the prediction is for.
    return list(zip(out, predict(rest, configs, metric).predictions, strict=True))

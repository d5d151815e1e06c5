"""Statistics of the real jets of both public releases, shipped in reference.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from jsc_explore.data.jets import CLASSES, FEATURES, Features

LEVELS = 11
_FILE = Path(__file__).with_name("reference.json")


@dataclass(frozen=True, eq=False)
class Reference:
    """Statistics of the real jets; ``reference.json`` names their sources.

    Attributes
    ----------
    mean, scale: ``(16,) float64``, of OpenML's training part, in original units.
    quantiles: ``(16, 200) float64``, of the same jets, at ``probabilities`` ``(200,)``.
    level_edges: ``(16, 10) float64``, edges of the eleven levels of CERNBox's test part, in standardised units.
    level_counts: ``(5, 16, 11) int64``, jets of each class on each level.
    sources: release name -> its description.
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    probabilities: npt.NDArray[np.float64]
    quantiles: npt.NDArray[np.float64]
    level_edges: npt.NDArray[np.float64]
    level_counts: npt.NDArray[np.int64]
    sources: dict[str, str]


@cache
def reference() -> Reference:
    """Read the statistics from reference.json."""
    stored = json.loads(_FILE.read_text(encoding="utf-8"))
    assert tuple(stored["features"]) == FEATURES, "columns of reference.json"
    openml, cernbox = stored["openml"], stored["cernbox"]
    quantiles = np.array(openml["quantiles"])
    return Reference(
        mean=np.array(openml["mean"]),
        scale=np.array(openml["scale"]),
        probabilities=np.arange(1, quantiles.shape[1] + 1) / (quantiles.shape[1] + 1),
        quantiles=quantiles,
        level_edges=np.array(cernbox["level_edges"]),
        level_counts=np.array([cernbox["level_counts"][name] for name in CLASSES]),
        sources={"openml": openml["source"], "cernbox": cernbox["source"]},
    )


def quantise(features: Features) -> Features:
    """Convert features to CERNBox's eleven levels: ``(n, 16)``, values 0 to 10.

    The edges are in standardised units. The moments of the real jets are not known, so jets are standardised with
    their own: levels cannot show a shift or a scale factor that all classes of a feature have in common.
    """
    standardised = (features - features.mean(axis=0, dtype=np.float64)) / features.std(axis=0, dtype=np.float64)
    columns = [
        np.searchsorted(edges, column, side="right")
        for edges, column in zip(reference().level_edges, standardised.T, strict=True)
    ]
    return np.stack(columns, axis=1).astype(np.float32)

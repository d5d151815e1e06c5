"""Plots of a validation: each feature's distribution in the sample and in the reference."""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import numpy as np

from jsc_explore.charts.distributions import bin_edges, distribution_chart, distribution_rows
from jsc_explore.data import CLASSES, FEATURES, Jets
from jsc_explore.data.external import ExternalJets
from jsc_explore.data.reference import quantise, reference
from jsc_explore.validation.report import MAX_COMPARED, drawn
from jsc_explore.validation.two_sample import ALL

# Every fourth of 200 quantiles is a bin edge: fifty bins of equal content.
_STRIDE = 4


def feature_charts(
    jets: Jets, other: ExternalJets | None, source: str, against: str | None
) -> Iterator[tuple[str, alt.FacetChart]]:
    """Yield each feature's name and chart: per class against ``other``, or all jets against OpenML's quantiles."""
    if other is None:
        features = drawn((jets.features, jets.labels), MAX_COMPARED)[0]
        for column, name in enumerate(FEATURES):
            yield name, _quantile_chart(features[:, column], column, source)
        return
    mine = quantise(jets.features) if other.are_levels else jets.features
    features, labels = drawn((mine, jets.labels), MAX_COMPARED)
    others, truth = drawn((other.features, other.labels), MAX_COMPARED)
    who = (source, against if against and against != source else "reference")
    for column, name in enumerate(FEATURES):
        rows = []
        edges = bin_edges(features[:, column], others[:, column])
        for kind in (ALL, *CLASSES):
            for label, values, kinds in ((who[0], features, labels), (who[1], others, truth)):
                of_kind = values[:, column] if kind == ALL else values[kinds == CLASSES.index(kind), column]
                rows += distribution_rows(label, kind, np.histogram(of_kind, edges)[0], edges, len(of_kind))
        yield name, distribution_chart(rows, name, who)


def _quantile_chart(values: np.ndarray, column: int, source: str) -> alt.FacetChart:
    known, who = reference(), (source, "OpenML, 664,000 jets")
    quantiles = known.quantiles[column]
    # Of equal quantiles (an atom) the last has the probability that the distribution function reaches there.
    edges, first = np.unique(quantiles[::-1], return_index=True)
    edges, at = edges[::_STRIDE], known.probabilities[::-1][first][::_STRIDE]
    if np.array_equal(values, np.rint(values)):
        edges = edges + 0.5  # integers must lie inside a bin, not on its edge
    rows = distribution_rows(who[0], ALL, np.histogram(values, edges)[0], edges, len(values))
    rows += distribution_rows(who[1], ALL, np.diff(at), edges, 1)
    return distribution_chart(rows, FEATURES[column], who)

"""The pictures of a check: each feature's distribution, of the sample and of what it is compared with."""

from __future__ import annotations

from collections.abc import Iterator

import altair as alt
import numpy as np

from jsc_explore.charts.distributions import bin_edges, distribution_chart, distribution_rows
from jsc_explore.data import CLASSES, FEATURES, Jets
from jsc_explore.data.external import ExternalJets
from jsc_explore.data.reference import quantise, reference
from jsc_explore.validation.report import MOST_COMPARED, drawn
from jsc_explore.validation.two_sample import ALL

# Of 200 quantiles every fourth bounds a bin: fifty bins of equal content.
_EVERY = 4


def feature_charts(
    jets: Jets, other: ExternalJets | None, source: str, against: str | None
) -> Iterator[tuple[str, alt.FacetChart]]:
    """Yield each feature's name and picture: by class against the other jets, or all against OpenML's quantiles."""
    if other is None:
        features = drawn((jets.features, jets.labels), MOST_COMPARED)[0]
        for column, name in enumerate(FEATURES):
            yield name, _quantile_chart(features[:, column], column, source)
        return
    mine = quantise(jets.features) if other.are_levels else jets.features
    features, labels = drawn((mine, jets.labels), MOST_COMPARED)
    others, truth = drawn((other.features, other.labels), MOST_COMPARED)
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
    # Of equal quantiles, an atom, the last is the one whose probability the distribution function has there.
    edges, first = np.unique(quantiles[::-1], return_index=True)
    edges, at = edges[::_EVERY], known.probabilities[::-1][first][::_EVERY]
    if np.array_equal(values, np.rint(values)):
        edges = edges + 0.5  # a whole number lies within its bin, not on its edge
    rows = distribution_rows(who[0], ALL, np.histogram(values, edges)[0], edges, len(values))
    rows += distribution_rows(who[1], ALL, np.diff(at), edges, 1)
    return distribution_chart(rows, FEATURES[column], who)

"""How a predicted score is marked, so that nobody takes it for a measured one: ≈, its band, and no filled colour."""

from __future__ import annotations

import altair as alt
import pyarrow as pa

from jsc_explore.analysis.prediction import Prediction
from jsc_explore.charts.style import MUTED, Drawing, format_score

MARK = "≈"


def predicted_words(score: str, prediction: Prediction) -> tuple[str, str]:
    """Return the two lines of a missing cell: ``≈ 70.1%`` and its 80% band, ``68.0–72.1%``."""
    low, high = (format_score(score, end) for end in (prediction.low, prediction.high))
    for unit in ("%", " s"):
        if low.endswith(unit) and high.endswith(unit):
            low = low.removesuffix(unit)
    return f"{MARK} {format_score(score, prediction.mean)}", f"{low}–{high}"


def predicted_tooltip(score: str, prediction: Prediction) -> str:
    """Return the sentence for a tooltip."""
    first, second = predicted_words(score, prediction)
    return f"not trained; predicted {first}, 80% band {second}"


def predicted_band(score: str, prediction: Prediction, end: float, ground: str = "light") -> Drawing:
    """Return layers for a chart of curves: the band at the end of the curve to come, at x = ``end``, and its middle.

    They share the curve's scales: ``alt.layer(predicted_band(…), curves)`` keeps the band under the curve.
    """
    first, second = predicted_words(score, prediction)
    table = pa.Table.from_pylist(
        [{"x": end, "mean": prediction.mean, "low": prediction.low, "high": prediction.high,
          "words": f"{first}, 80% band {second}"}]
    )  # fmt: skip
    base = alt.Chart(table).encode(x="x:Q", tooltip=[alt.Tooltip("words:N", title="predicted")])
    band = base.mark_rule(strokeWidth=9, opacity=0.35, color=MUTED[ground]).encode(y=alt.Y("low:Q"), y2="high:Q")
    middle = base.mark_point(shape="diamond", filled=True, size=50, color=MUTED[ground]).encode(y=alt.Y("mean:Q"))
    return alt.layer(band, middle)

"""How a predicted score is written, so that nobody takes it for a measured one."""

from __future__ import annotations

from jsc_explore.analysis.prediction import Prediction
from jsc_explore.charts.style import format_score

MARK = "≈"


def predicted_words(score: str, prediction: Prediction) -> str:
    """Return a prediction with its band: ``predicted ≈70.1%, 80% band 68.0–72.1%``."""
    low, high = (format_score(score, end) for end in (prediction.low, prediction.high))
    for unit in ("%", " s"):
        if low.endswith(unit) and high.endswith(unit):
            low = low.removesuffix(unit)
    return f"predicted {MARK}{format_score(score, prediction.mean)}, 80% band {low}–{high}"

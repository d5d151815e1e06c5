"""The common style of all charts: colours and opacities, names of metrics and axes, formats of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import median
from typing import Any, Final

import altair as alt

from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import MIN_INTERVAL_SEEDS, median_spread

# Okabe and Ito, for colour-blind readers, https://jfly.uni-koeln.de/color/ (without black and yellow, which vanish on
# the dark and on the light theme).
CATEGORIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F6DB3", "#8C6D46")
# The first two in the shades that stand out on each theme: for a single line, and for A against B.
ACCENT = {"light": CATEGORIES[0], "dark": CATEGORIES[4]}
WARNING = {"light": CATEGORIES[1], "dark": CATEGORIES[5]}
SEQUENTIAL_SCHEME: Final = "viridis"
# For values that have an order: the part of viridis that is visible as a line on each theme.
_ORDERED_COLOURS = {
    "light": ("#440154", "#46327E", "#365C8D", "#277F8E", "#1FA187", "#4AC16D", "#8FBC2A", "#C9B21B"),
    "dark": ("#7A4E9E", "#5A6FB0", "#3E8FB0", "#2AA6A0", "#35B779", "#6DCD59", "#B4DE2C", "#FDE725"),
}
INK = {"light": "#31333F", "dark": "#FAFAFA"}
MUTED = {"light": "#6B6E7B", "dark": "#A3A8B4"}
# The page behind a chart, as Streamlit paints it.
BACKGROUND = {"light": "#FFFFFF", "dark": "#171614"}
# A band has the colour of its line (CATEGORIES; ACCENT and WARNING for A and B) at this opacity.
BAND_OPACITY = 0.18
BAND_OPACITY_CROWDED = 0.06  # more than three groups: many opaque bands over each other hide the lines
BAND_OPACITY_COMPARISON = 0.15
_MIN_CONTRAST = 4.5  # of text, WCAG 2 AA
FAINT = {"light": "#C9CBD3", "dark": "#4A4E5A"}

Chart = alt.LayerChart | alt.FacetChart
# SVG also for many marks: a screen reader finds axes and figures in it, but nothing on a canvas.
SVG_RENDERER: dict[str, Any] = {"embedOptions": {"renderer": "svg"}}

QUANTITIES = {
    "val_acc": "validation accuracy",
    "train_eval_acc": "training accuracy, evaluation mode",
    "train_acc": "training accuracy, training mode",
    "val_loss": "validation loss",
    "train_eval_loss": "training loss, evaluation mode",
    "train_loss": "training loss, training mode",
    "recall_g": "recall of gluons",
    "recall_q": "recall of light quarks",
    "recall_w": "recall of W",
    "recall_z": "recall of Z",
    "recall_t": "recall of top",
    "learning_rate": "learning rate",
}
X_AXES = {
    "epoch": "epoch",
    "step": "optimizer step",
    "samples": "training jets seen",
    "time_s": "own seconds in optimizer steps",
    "lr_sum": "sum of learning rates over steps",
}
# The metrics of the curves: one quantity, or training and validation together. Both are in evaluation mode: they differ
# in the jets alone, so that their difference is the overfitting.
CURVE_METRICS = QUANTITIES | {"acc": "accuracy, training and validation", "loss": "loss, training and validation"}
METRIC_PAIRS = {"acc": ("val_acc", "train_eval_acc"), "loss": ("val_loss", "train_eval_loss")}
BAND_KINDS = {
    "interval": f"95% interval of the median, or the range of fewer than {MIN_INTERVAL_SEEDS} seeds",
    "range": "range of the seeds",
    "none": "no band",
}
# The meaning of the sign, the same on every page: that of ``training.metrics.silent_classes``.
SILENT_SIGN = "†: seeds with a silent class, whose output is zero for more than 99% of its jets"
# Colour by the hyperparameters in which the selected cells differ, instead of by one hyperparameter.
BY_CELL = "cell"
# Scale of fonts and lines in presentation mode, readable from the last row.
PRESENTATION_SCALE = 1.45


def colours(count: int, ordered: bool, theme: str) -> list[str]:
    """Return ``count`` colours: evenly spaced in viridis for ordered values or many, else from ``CATEGORIES``."""
    if not ordered and count <= len(CATEGORIES):
        return list(CATEGORIES[:count])
    scale = _ORDERED_COLOURS[theme]
    places = [i * (len(scale) - 1) / max(1, count - 1) for i in range(count)]
    return [_mix(scale[int(place)], scale[min(int(place) + 1, len(scale) - 1)], place % 1) for place in places]


@lru_cache(maxsize=256)
def readable(colour: str, theme: str) -> str:
    """Return a colour for text: the same one, as near to the ink of the theme as a contrast of 4.5:1 asks for."""
    background = _luminance(BACKGROUND[theme])
    for share in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8):
        mixed = _mix(colour, INK[theme], share)
        low, high = sorted((_luminance(mixed), background))
        if (high + 0.05) / (low + 0.05) >= _MIN_CONTRAST:
            return mixed
    return INK[theme]


def _mix(colour: str, other: str, share: float) -> str:
    pairs = ((int(one[i : i + 2], 16) for one in (colour, other)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + share * (b - a)):02X}" for a, b in pairs)


def _luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def is_percentage(quantity: str) -> bool:
    """Return whether a quantity is displayed as a percentage."""
    return quantity == "acc" or quantity.endswith("_acc") or quantity.startswith("recall_")


def is_time(quantity: str) -> bool:
    """Return whether a quantity is a duration in seconds."""
    return quantity.endswith("time_s")


def times_text(machines: Mapping[str, Sequence[str]]) -> str:
    """Return what times are and which machines measured them, given the backends of each device."""
    text = "Times are a run's own seconds in its optimizer steps; of steps that replicas take together, an equal share."
    if machines:
        measured = "; ".join(f"{device} ({', '.join(backends)})" for device, backends in machines.items())
        text += f" Measured on {measured}."
    if len(machines) > 1:
        text += " Times of different machines cannot be compared: filter by `device = '…'`."
    return text


def format_metric(quantity: str, value: float | None) -> str:
    """Format a metric: 71.3%, 0.846, 12 s."""
    if value is None:
        return "–"
    if is_time(quantity):
        return f"{value:.3g} s"
    if is_percentage(quantity):
        return f"{100 * value:.1f}%"
    return f"{value:.3f}"


def format_seeds(quantity: str, values: Sequence[float]) -> str:
    """Format the median of the metrics of seeds, with what ``median_spread`` gives."""
    low, high = median_spread(values)
    return format_median(quantity, median(values), float(low), float(high), len(values))


def format_median(quantity: str, middle: float, low: float, high: float, n: int) -> str:
    """Format a median of ``n`` seeds with its spread, and say which it is: ``71.3% (95% interval 70.9% to 71.6%)``.

    A time has none: it differs by what else the machine did, not by the seed.
    """
    text = format_metric(quantity, middle)
    if n == 1 or is_time(quantity):
        return text
    return f"{text} ({spread_name(n)} {format_metric(quantity, low)} to {format_metric(quantity, high)})"


def spread_name(n: int) -> str:
    """Return what is shown with a median of ``n`` seeds."""
    return "95% interval" if n >= MIN_INTERVAL_SEEDS else "range"


def difference_scale(quantity: str) -> tuple[float, str]:
    """Return factor and unit in which differences of a metric are displayed: percentage points, seconds or none."""
    if is_percentage(quantity):
        return 100.0, " points"
    return 1.0, " s" if is_time(quantity) else ""


def number_axis(quantity: str, **options: Any) -> alt.Axis:
    """Return an axis with percentages where the quantity is one, and with small and large numbers as 1e-3."""
    if is_percentage(quantity):
        return alt.Axis(format=".0%", **options)
    if quantity in ("learning_rate", "samples", "step", "lr_sum"):
        label = LOG_LABEL if quantity in ("learning_rate", "lr_sum") else POWER_LABEL
        return alt.Axis(labelExpr=label, **options)
    return alt.Axis(**options)


def _power_label(smallest: float) -> str:
    return (
        f"datum.value == 0 ? '0' : (abs(datum.value) < {smallest:g} || abs(datum.value) >= 10000) "
        "? replace(replace(format(datum.value, '.2~e'), 'e+', 'e'), '−', '-') : format(datum.value, '~g')"
    )


# Vega expressions of axis labels: 1e-3 instead of 0.001, 1e5 instead of 100,000; other numbers unchanged. On a
# logarithmic axis all numbers below 1 are powers, as ``config.format_number`` writes them.
POWER_LABEL = _power_label(0.01)
LOG_LABEL = _power_label(1)


def silent_text(classes: Sequence[str], zero_output_share: float | None) -> str:
    """Name the silent classes of a run and the share of test jets whose outputs are all zero; None: not recorded."""
    share = "not recorded" if zero_output_share is None else f"{100 * zero_output_share:.1f}%"
    return f"silent: {', '.join(classes)}; test jets whose outputs are all zero: {share}"


PREDICTED_SIGN = "≈"


def band_text(metric: str, prediction: Prediction) -> str:
    """Format the band of a prediction: ``68.0–72.1%``."""
    low, high = (format_metric(metric, end) for end in (prediction.low, prediction.high))
    for unit in ("%", " s"):
        if low.endswith(unit) and high.endswith(unit):
            low = low.removesuffix(unit)
    return f"{low}–{high}"


def prediction_text(metric: str, prediction: Prediction) -> str:
    """Format a prediction with its band: ``predicted ≈70.1%, 80% band 68.0–72.1%``."""
    value = format_metric(metric, prediction.value)
    text = f"predicted {PREDICTED_SIGN}{value}, 80% band {band_text(metric, prediction)}"
    if not prediction.silent:
        return text
    share = f"{100 * prediction.silent:.0f}%"
    return f"{text}, for seeds without a silent class ({share} of those around it have one)"

"""The common style of all charts: colours and opacities, names of metrics and axes, formats of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, Final

import altair as alt

from jsc_explore.analysis.prediction import Prediction
from jsc_explore.analysis.statistics import median_interval
from jsc_explore.config import FIELDS, format_number

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
    "interval": "95% interval of the mean",
    "sd": "standard deviation",
    "range": "minimum to maximum over seeds",
    "none": "no band",
}
# Colour by the hyperparameters in which the selected cells differ, instead of by one hyperparameter.
BY_CELL = "cell"
# Scale of fonts and lines in presentation mode, readable from the last row.
PRESENTATION_SCALE = 1.45


def colours(count: int, ordered: bool, theme: str) -> list[str]:
    """Return ``count`` colours: evenly spaced in viridis for ordered values or many, else from ``CATEGORIES``."""
    if not ordered and count <= len(CATEGORIES):
        return list(CATEGORIES[:count])
    scale = _ORDERED_COLOURS[theme]
    indices = [round(i * (len(scale) - 1) / max(1, count - 1)) for i in range(count)]
    return [scale[index] for index in indices]


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


def format_metric(quantity: str, value: float | None, spread: float | None = None) -> str:
    """Format a metric, with the half-width of its interval if given: 71.3%, 71.3 ± 0.4%, 0.846, 12 s."""
    if value is None:
        return "–"
    if is_time(quantity):
        return f"{value:.3g} s"
    if is_percentage(quantity):
        return f"{100 * value:.1f}%" if spread is None else f"{100 * value:.1f} ± {100 * spread:.1f}%"
    return f"{value:.3f}" if spread is None else f"{value:.3f} ± {spread:.3f}"


def format_median(quantity: str, values: Sequence[float]) -> str:
    """Format the median of seeds, with its 95% interval where there are enough: 71.3% (70.9 to 71.6%)."""
    middle = format_metric(quantity, median(values))
    interval = None if is_time(quantity) else median_interval(values)
    if interval is None:
        return middle
    low, high = (format_metric(quantity, float(end)) for end in interval)
    return f"{middle} ({low} to {high})"


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
        return alt.Axis(labelExpr=POWER_LABEL, **options)
    return alt.Axis(**options)


_VALUE_LABELS = {value: label for spec in FIELDS.values() for value, label in spec.value_labels.items()}


def axis_value_text(value: Any) -> str:
    """Format an axis value of a grid."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return format_number(value) if isinstance(value, (int, float)) else _VALUE_LABELS.get(value, str(value))


# A Vega expression: 1e-3 instead of 0.001, 1e5 instead of 100,000; other numbers unchanged.
POWER_LABEL = (
    "datum.value == 0 ? '0' : (abs(datum.value) < 0.01 || abs(datum.value) >= 10000) "
    "? replace(replace(format(datum.value, '.2~e'), 'e+', 'e'), '−', '-') : format(datum.value, '~g')"
)


def silent_text(classes: Sequence[str], zero_output_share: float | None) -> str:
    """Name the silent classes of a run and the share of test jets whose outputs are all zero; None: not recorded."""
    share = "not recorded" if zero_output_share is None else f"{100 * zero_output_share:.1f}%"
    return f"never predicts {', '.join(classes)}; test jets whose outputs are all zero: {share}"


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
    mean = format_metric(metric, prediction.mean)
    text = f"predicted {PREDICTED_SIGN}{mean}, 80% band {band_text(metric, prediction)}"
    if not prediction.silent:
        return text
    share = f"{100 * prediction.silent:.0f}%"
    return f"{text}, for seeds that predict every class ({share} of those around it do not)"

"""The URL parameters of each page: their defaults, how they are read and written, and what is wrong with bad ones.

A page's state is a mapping: a parameter's name to its value, and for each filter ``filter_key`` to its value.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from jsc_explore.charts.style import BAND_KINDS, BY_CELL, CURVE_METRICS, QUANTITIES, X_AXES
from jsc_explore.config import DEFAULT_SEEDS, DEFAULTS, FIELDS, RunConfig, format_value, parse_value
from jsc_explore.data.glossary import CLASS_NAMES
from jsc_explore.data.jets import CLASSES, FEATURES
from jsc_explore.errors import FieldError
from jsc_explore.store.query.expression import parse_filter
from jsc_explore.store.schema import METRICS

CELLS = "cells"
NONE = "none"
ANY = "any"
ALL = "all"
# What a page chooses by itself.
AUTO = "auto"
CURVES, RESPONSE = "curves", "response"
MAX_SEEDS = 20
AXES = ("x", "y", "facet")
AXIS_FIELDS = tuple(name for name in FIELDS if name not in ("seed", "dataset"))


@dataclass(frozen=True)
class Param:
    """One URL parameter: its default, how it is read (FieldError if it is not valid) and written."""

    default: Any
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str


def _choice(name: str, default: str, options: Iterable[str], labels: Mapping[str, str] | None = None) -> Param:
    known = list(options)
    # People type the label that the page shows.
    by_label = {text.lower(): key for key, text in (labels or {}).items()}

    def read(text: str) -> str:
        value = text if text in known else by_label.get(text.lower(), text)
        if value not in known:
            raise FieldError(name, text, "must be one of " + ", ".join(known), f"try {default}")
        return value

    return Param(default, read)


def _switch(name: str, default: bool) -> Param:
    def read(text: str) -> bool:
        if text.lower() not in ("yes", "no", "true", "false"):
            raise FieldError(name, text, "must be yes or no", f"try {'yes' if default else 'no'}")
        return text.lower() in ("yes", "true")

    return Param(default, read, lambda value: "yes" if value else "no")


def _number(name: str, default: float, low: float, high: float, whole: bool = False) -> Param:
    def read(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise FieldError(name, text, f"must be a number in [{low:g}, {high:g}]", f"try {default:g}")
        return value

    return Param(default, read, lambda value: f"{value:g}")


def _read_filter(text: str) -> str:
    if text.strip():
        parse_filter(text)
    return text


def _read_range(text: str) -> tuple[float, float] | None:
    low, separator, high = text.partition("..")
    try:
        bounds = (float(low), float(high))
    except ValueError:
        bounds = (0.0, 0.0)
    if not separator or not bounds[0] < bounds[1] or not all(map(math.isfinite, bounds)):
        raise FieldError("zoom", text, "must be a range of the axis", "try 0.5..3")
    return bounds


def _read_names(text: str) -> list[str]:
    return [] if text == NONE else text.split("~")


_LABELS = {name: FIELDS[name].label for name in AXIS_FIELDS}
_OPTIONAL = (NONE, *AXIS_FIELDS)
_RESPONSE_FIELDS = {
    "against": _choice("against", AUTO, (AUTO, *AXIS_FIELDS), _LABELS),
    "lines": _choice("lines", AUTO, (AUTO, *_OPTIONAL), _LABELS),
}
_METRIC = _choice("metric", next(iter(METRICS)), METRICS, METRICS)
_FILTER = Param("", _read_filter)
_EXPLORE: dict[str, Param] = {
    "x": _choice("x", "batch_size", AXIS_FIELDS, _LABELS),
    "y": _choice("y", "learning_rate", AXIS_FIELDS, _LABELS),
    "facet": _choice("facet", NONE, _OPTIONAL, _LABELS),
    "metric": _METRIC,
    "filter": _FILTER,
    "panel": _choice("panel", CURVES, (CURVES, RESPONSE)),
    **_RESPONSE_FIELDS,
    "curve": _choice("curve", next(iter(CURVE_METRICS)), CURVE_METRICS, CURVE_METRICS),
    "curve_x": _choice("curve_x", "epoch", X_AXES, X_AXES),
    "x_scale": _choice("x_scale", AUTO, (AUTO, "linear", "log")),
    "log_y": _switch("log_y", False),
    "band": _choice("band", AUTO, (AUTO, *BAND_KINDS)),
    "seed_lines": _choice("seed_lines", AUTO, (AUTO, "yes", "no")),
    "context": _choice("context", AUTO, (AUTO, "yes", "no")),
    "colour": _choice("colour", BY_CELL, (BY_CELL, *AXIS_FIELDS), _LABELS),
    "dash": _choice("dash", NONE, _OPTIONAL, _LABELS),
    "curve_facet": _choice("curve_facet", NONE, _OPTIONAL, _LABELS),
    "smoothing": _number("smoothing", 0.0, 0.0, 0.99),
    "zoom": Param(None, _read_range, lambda bounds: f"{bounds[0]:.6g}..{bounds[1]:.6g}"),
    # None draws the first few, whatever their names.
    "imported": Param(None, _read_names, lambda names: "~".join(names) or NONE),
    "seeds": _number("seeds", DEFAULT_SEEDS, 1, MAX_SEEDS, whole=True),
    "train_on_click": _switch("train_on_click", True),
    "presentation": _switch("presentation", False),
}


def filter_param(name: str, axis: bool) -> Param:
    """Return how the filter of a field is written in a URL.

    A number's filter is a range ``(low, high)``, written 10 or 2..10; a name's is a list, written adam,sgd. None and
    the empty list let every value pass, written any. A field on an axis has no filter by default; another field is
    by default held at its default value.
    """
    spec = FIELDS[name]
    ranged = spec.kind in ("int", "float")
    nothing: Any = None if ranged else []
    default: Any = (DEFAULTS[name], DEFAULTS[name]) if ranged else [DEFAULTS[name]]

    def read(text: str) -> Any:
        if text == ANY:
            return nothing
        if not ranged:
            return [parse_value(name, part) for part in text.split(",")]
        low, separator, high = text.partition("..")
        ends = (parse_value(name, low), parse_value(name, high if separator else low))
        if ends[0] > ends[1]:
            raise FieldError(name, text, "must begin with its lower end", f"try {high}..{low}")
        return ends

    def write(value: Any) -> str:
        if not value:
            return ANY
        texts = list(dict.fromkeys(format_value(name, one) for one in value))
        return ("..".join if ranged else ",".join)(texts)

    return Param(nothing if axis else default, read, write)


def filter_key(name: str, axis: bool) -> str:
    """Return the key of a field's filter in a page's state; a field on an axis has another filter and default."""
    return f"{name}@axis" if axis else name


@dataclass(frozen=True)
class PageParams:
    """The URL parameters of one page: ``params`` by name, and a filter for each of ``filter_fields``.

    ``free_filters`` are all without a default, as on an axis. ``has_cells`` pages have x, y, facet and selected cells.
    """

    params: Mapping[str, Param]
    filter_fields: tuple[str, ...] = ()
    free_filters: bool = False
    has_cells: bool = False

    def read(self, query: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
        """Return the state that a query asks for, and one line for each parameter that is unknown or not valid.

        What the query does not name, or not validly, takes its default.
        """
        faults: list[str] = []

        def value(param: Param, text: str | None, instead: str = "the default is shown") -> Any:
            if text is None:
                return param.default
            try:
                return param.read(text)
            except FieldError as error:
                faults.append(f"{error} ({instead})")
                return param.default

        state = {name: value(param, query.get(name)) for name, param in self.params.items()}
        if self.has_cells and separate_axes(state):
            faults.append("two axes hold the same field (one of them is left out)")
        axes = self.axes(state)
        for name in self.filter_fields:
            # Both filters, for a field may become an axis or stop being one.
            state[filter_key(name, name not in axes)] = filter_param(name, name not in axes).default
            state[filter_key(name, name in axes)] = value(filter_param(name, name in axes), query.get(name))
        if self.has_cells:
            state[CELLS] = value(Param([], lambda text: read_cells(text, axes)), query.get(CELLS), "left out")
        known = {*self.params, *self.filter_fields, *([CELLS] if self.has_cells else [])}
        faults += [f"{_unknown(name, known)} (left out)" for name in query if name not in known]
        return state, faults

    def write(self, state: Mapping[str, Any]) -> dict[str, str]:
        """Return the query of a state: whatever is not at its default."""
        query = {n: param.write(state[n]) for n, param in self.params.items() if state[n] != param.default}
        axes = self.axes(state)
        for name in self.filter_fields:
            param, value = filter_param(name, name in axes), state[filter_key(name, name in axes)]
            if (value or None) != (param.default or None):
                query[name] = param.write(value)
        if self.has_cells and state[CELLS]:
            query[CELLS] = write_cells(state[CELLS], axes)
        return query

    def axes(self, state: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the fields whose filters are those of an axis."""
        return axes_of(state) if self.has_cells else self.filter_fields if self.free_filters else ()

    def reset_filters(self, state: MutableMapping[str, Any], fields: Iterable[str]) -> None:
        """Set the filters of fields that became an axis, or stopped being one, to their default in that role."""
        axes = self.axes(state)
        for name in fields:
            state[filter_key(name, name in axes)] = filter_param(name, name in axes).default


def separate_axes(state: dict[str, Any]) -> bool:
    """Change the y axis or the facet of a state where two axes hold the same field; return whether that was so."""
    before = (state["y"], state["facet"])
    if state["y"] == state["x"]:
        state["y"] = next(name for name in ("learning_rate", "batch_size") if name != state["x"])
    if state["facet"] in (state["x"], state["y"]):
        state["facet"] = NONE
    return before != (state["y"], state["facet"])


def axes_of(state: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the fields on the axes of a state: x, y and, if there is one, the facet."""
    return tuple(state[axis] for axis in AXES if state[axis] != NONE)


def read_cells(text: str, axes: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the places of selected cells, written ``16:1e-3~256:1e-3``; FieldError if one is not valid."""
    places = []
    for part in filter(None, text.split("~")):
        values = part.split(":")
        if len(values) != len(axes):
            raise FieldError(CELLS, part, f"must hold {len(axes)} values, one an axis", "separate them with colons")
        places.append(tuple(parse_value(name, value) for name, value in zip(axes, values, strict=True)))
    return places


def write_cells(places: Sequence[tuple[Any, ...]], axes: Sequence[str]) -> str:
    """Write the places of selected cells as ``read_cells`` reads them."""
    return "~".join(
        ":".join(format_value(name, value) for name, value in zip(axes, place, strict=True)) for place in places
    )


def _unknown(name: str, known: Iterable[str]) -> FieldError:
    near = difflib.get_close_matches(name, known, n=1)
    return FieldError("parameter", name, "is unknown", f"did you mean {near[0]}?" if near else "see docs/app.md")


def write_config(config: RunConfig) -> str:
    """Write a config by what differs from the defaults: ``batch_size:16~final_relu:no``, or ``default``."""
    values = config.to_dict()
    parts = [f"{n}:{format_value(n, values[n])}" for n in FIELDS if n != "seed" and values[n] != DEFAULTS[n]]
    return "~".join(parts) or _DEFAULT_CONFIG


def read_config(text: str) -> RunConfig:
    """Read what ``write_config`` wrote; FieldError naming the field, or the part, that is not valid."""
    values: dict[str, Any] = {}
    for part in text.split("~") if text != _DEFAULT_CONFIG else ():
        name, separator, value = part.partition(":")
        if not separator:
            raise FieldError("config", part, "must read field:value", "for example batch_size:64~learning_rate:1e-2")
        values[name] = parse_value(name, value)
    return RunConfig.from_dict(values)


_DEFAULT_CONFIG = "default"
# None: the page chooses.
_CONFIG = Param(None, read_config, write_config)
_FIELD = {name: Param(DEFAULTS[name], partial(parse_value, name)) for name in ("dataset", "validation")}
FILTERED = tuple(name for name in FIELDS if name not in ("dataset", "validation", "seed"))
EXPLORE = PageParams(_EXPLORE, tuple(name for name in FIELDS if name != "seed"), has_cells=True)
COMPARE = PageParams(
    {
        "metric": _METRIC,
        "curve": _choice("curve", next(iter(QUANTITIES)), QUANTITIES, QUANTITIES),
        "a": _CONFIG,
        "b": _CONFIG,
        "seed": Param(ALL, lambda text: text if text == ALL else parse_value("seed", text)),
    }
)
OVERVIEW = PageParams({"metric": _METRIC, **_FIELD, "filter": _FILTER, **_RESPONSE_FIELDS}, FILTERED, free_filters=True)
DATA = PageParams(
    {
        "dataset": _FIELD["dataset"],
        "jet": _choice("jet", "w", CLASSES, CLASS_NAMES),
        "mass": _choice("mass", "typical", ("light", "typical", "heavy")),
        "feature": _choice("feature", "mass_mmdt", FEATURES),
        "log_x": _switch("log_x", False),
        "log_y": _switch("log_y", False),
        "correlations": _choice("correlations", ALL, (ALL, *CLASSES), CLASS_NAMES),
    }
)

"""The words of an address: what each may say, how it is read and written, and what is said of what it may not.

A view's state is a mapping of these words, and of a key for every field's filter, to their values: a session's on the
page, a plain dictionary elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

from jsc_explore.charts.style import BANDS, COLOUR_BY, PROGRESS, SHOWN
from jsc_explore.config import DEFAULT_SEEDS, DEFAULTS, FIELDS, check_field, format_value, parse_value
from jsc_explore.errors import FieldError
from jsc_explore.store.query.expression import parse_filter
from jsc_explore.store.schema import METRICS

CELLS = "cells"
NONE = "none"
ANY = "any"
MAX_SEEDS = 20
AXES = ("x", "y", "facet")
AXIS_FIELDS = tuple(name for name in FIELDS if name not in ("seed", "dataset"))


@dataclass(frozen=True)
class Param:
    """One parameter of an address: its default, how it is read (FieldError if it cannot be) and written."""

    default: Any
    read: Callable[[str], Any]
    write: Callable[[Any], str] = str


def _choice(name: str, default: str, options: Iterable[str], labels: Mapping[str, str] | None = None) -> Param:
    known = list(options)
    # Addresses of earlier versions hold what a box shows; people type that, too.
    spoken = {text.lower(): key for key, text in (labels or {}).items()}

    def read(text: str) -> str:
        value = text if text in known else spoken.get(text.lower(), text)
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


def _read_where(text: str) -> str:
    if text.strip():
        parse_filter(text)
    return text


def _read_span(text: str) -> tuple[float, float] | None:
    low, separator, high = text.partition("..")
    try:
        span = (float(low), float(high))
    except ValueError:
        span = (0.0, 0.0)
    if not separator or not span[0] < span[1] or not all(map(math.isfinite, span)):
        raise FieldError("zoom", text, "must be a range of the axis", "try 0.5..3")
    return span


def _read_names(text: str) -> list[str]:
    return [] if text == NONE else text.split("~")


_LABELS = {name: FIELDS[name].label for name in AXIS_FIELDS}
_SPREAD = (NONE, *(name for name in AXIS_FIELDS))
PARAMS: dict[str, Param] = {
    "x": _choice("x", "batch_size", AXIS_FIELDS, _LABELS),
    "y": _choice("y", "learning_rate", AXIS_FIELDS, _LABELS),
    "facet": _choice("facet", NONE, _SPREAD, _LABELS),
    "metric": _choice("metric", next(iter(METRICS)), METRICS, METRICS),
    "filter": Param("", _read_where),
    "curve": _choice("curve", next(iter(SHOWN)), SHOWN, SHOWN),
    "curve_x": _choice("curve_x", "epoch", PROGRESS, PROGRESS),
    "x_scale": _choice("x_scale", "auto", ("auto", "linear", "log")),
    "log_y": _switch("log_y", False),
    "band": _choice("band", "interval", BANDS),
    "seed_lines": _switch("seed_lines", True),
    "colour": _choice("colour", COLOUR_BY, (COLOUR_BY, *AXIS_FIELDS), _LABELS),
    "dash": _choice("dash", NONE, _SPREAD, _LABELS),
    "curve_facet": _choice("curve_facet", NONE, _SPREAD, _LABELS),
    "smoothing": _number("smoothing", 0.0, 0.0, 0.99),
    "zoom": Param(None, _read_span, lambda span: f"{span[0]:.6g}..{span[1]:.6g}"),
    # None: the first few, whatever they are called.
    "imported": Param(None, _read_names, lambda names: "~".join(names) or NONE),
    "seeds": _number("seeds", DEFAULT_SEEDS, 1, MAX_SEEDS, whole=True),
    "train_on_click": _switch("train_on_click", True),
    "presentation": _switch("presentation", False),
}


def filter_param(name: str, axis: bool) -> Param:
    """Return how a field's filter stands in an address.

    A number's is a range ``(low, high)``, written 10 or 2..10; a name's a list, written adam,sgd. None and the empty
    list let everything pass: the default along an axis; elsewhere the default is the field's own, and they are written
    any.
    """
    spec = FIELDS[name]
    ranged = spec.kind in ("int", "float")
    nothing: Any = None if ranged else []
    alone: Any = (DEFAULTS[name], DEFAULTS[name]) if ranged else [DEFAULTS[name]]

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

    return Param(nothing if axis else alone, read, write)


def key_of(name: str, axis: bool) -> str:
    """Return where the session keeps a field's filter: along an axis it is another one, with another default."""
    return f"{name}@axis" if axis else name


def faults(query: Mapping[str, str]) -> list[str]:
    """Return one line for each parameter of an address that is unknown or holds no valid value."""
    return [f"In the address: {fault} ({instead})" for fault, instead in bad_words(query)]


def bad_words(query: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return what is wrong with an address, and for each what a page shows instead."""
    found = []
    axes = axes_of(query)
    for name, text in query.items():
        if name.startswith("embed"):
            continue
        try:
            if name == CELLS:
                read_cells(text, axes)
            elif name in PARAMS:
                PARAMS[name].read(text)
            else:
                check_field(name)
                filter_param(name, name in axes).read(text)
        except FieldError as error:
            found.append((str(error), "left out" if name == CELLS else "the default is shown"))
    if len(axes) > len(set(axes)):
        found.append(("two axes hold the same field", "one of them is left out"))
    return found


def axes_of(query: Mapping[str, str]) -> tuple[str, ...]:
    """Return the fields an address puts on the axes: across, up and, if there is one, the facet."""
    found = [_value(PARAMS[axis], query.get(axis)) for axis in AXES]
    return tuple(name for name in found if name != NONE)


def read_cells(text: str, axes: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the places an address marks as chosen, written ``16:1e-3~256:1e-3``."""
    places = []
    for part in filter(None, text.split("~")):
        values = part.split(":")
        if len(values) != len(axes):
            raise FieldError(CELLS, part, f"must hold {len(axes)} values, one an axis", "separate them with colons")
        places.append(tuple(parse_value(name, value) for name, value in zip(axes, values, strict=True)))
    return places


def write_cells(places: Sequence[tuple[Any, ...]], axes: Sequence[str]) -> str:
    """Write chosen places as ``read_cells`` reads them."""
    return "~".join(
        ":".join(format_value(name, value) for name, value in zip(axes, place, strict=True)) for place in places
    )


def state_of(query: Mapping[str, str]) -> dict[str, Any]:
    """Return the state that an address asks for; what it does not name, or not validly, takes its default."""
    state: dict[str, Any] = {}
    fill(state, query)
    return state


def fill(state: MutableMapping[Any, Any], query: Mapping[str, str]) -> None:
    """Give every key that the state lacks its value in the address: a new one, or a widget's that was not drawn."""
    for name, param in PARAMS.items():
        if name not in state:
            state[name] = _value(param, query.get(name))
    if state["y"] == state["x"]:
        state["y"] = next(name for name in ("learning_rate", "batch_size") if name != state["x"])
    if state["facet"] in (state["x"], state["y"]):
        state["facet"] = NONE
    axes, meant = tuple(state[axis] for axis in AXES if state[axis] != NONE), axes_of(query)
    for name in FIELDS:
        key = key_of(name, name in axes)
        if key not in state:
            text = query.get(name) if (name in axes) == (name in meant) else None
            state[key] = _value(filter_param(name, name in axes), text)
    if CELLS not in state:
        state[CELLS] = _value(Param([], lambda text: read_cells(text, axes)), query.get(CELLS))


def _value(param: Param, text: str | None) -> Any:
    if text is None:
        return param.default
    try:
        return param.read(text)
    except FieldError:
        # Said by `faults`.
        return param.default

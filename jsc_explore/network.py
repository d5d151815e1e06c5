"""The layer language: a network as one line of text, checked and counted without building it.

A specification is a dash-separated list of nodes. ``16b-64b-32-32-32-5`` means: 16 inputs through batch norm, a linear
layer to 64 with batch norm, three plain linear layers, a linear layer to the 5 classes.

=============  ==========================================================================================
node           meaning
=============  ==========================================================================================
``64``         linear layer to 64 outputs, then the activation (first node: the 16 inputs as they are)
``64b``        the same with batch norm before the activation (first node: batch norm and activation)
``64/tanh``    another activation than ReLU: relu, gelu, silu, tanh, leaky, linear
``64d0.5``     dropout of 0.5 after the activation; suffixes combine in this order: ``64b/gelud0.1``
``c8k3``       Conv1d to 8 channels, kernel 3, same padding; ``c8k3s2`` stride 2; suffixes as above
``r8k3``       residual block: conv, batch norm, activation, conv, batch norm, plus the input, activation
``p2``         max pooling over 2 positions
``gap``        average over all positions
=============  ==========================================================================================

Options for all nodes may follow after a blank: ``16-64-32-5 bn=all act=tanh dropout=0.1``. Whether a ReLU follows the
last layer is the hyperparameter ``final_relu``, not part of the specification.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Literal

from jsc_explore.errors import FieldError

INPUTS = 16
OUTPUTS = 5
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "leaky", "linear")

# The networks of the lab; tests check their parameter counts. The reports give only the count (3,285) of their one
# convolutional network: the layout of jsc-conv is our choice with the same count.
NAMED = {
    "jsc-tiny": "16b-5",
    "jsc-toy": "16b-8b-8b-5b",
    "jsc-s": "16b-64b-32-32-32-5b",
    "jsc-trt": "16b-32b-48bd0.5-16b-5b",
    "jsc-three-linear": "16b-16-16-5",
    "jsc-conv": "16-c16k5-r16k5-gap-24-5",
}

MAX_TEXT = 400
# Decimals of a dropout rate; the smallest that is not 0 is 0.000001.
_RATE_DIGITS = 6
MAX_NODES = 64
MAX_WIDTH = 4096
MAX_PARAMETERS = 5_000_000
# Activations of one jet in all layers together; a replica keeps them for each jet of a batch.
MAX_ACTIVATIONS = 50_000

Kind = Literal["batchnorm", "activation", "linear", "conv1d", "residual", "dropout", "maxpool", "avgpool", "flatten"]
Shape = tuple[int, ...]

_LINEAR = re.compile(r"(?P<width>\d+)(?P<bn>b)?(?:/(?P<act>[a-z]+?))?(?:d(?P<drop>\d*\.?\d+(?:e-?\d+)?))?")
_CONV = re.compile(
    r"(?P<type>[cr])(?P<width>\d+)k(?P<kernel>\d+)(?:s(?P<stride>\d+))?"
    r"(?P<bn>b)?(?:/(?P<act>[a-z]+?))?(?:d(?P<drop>\d*\.?\d+(?:e-?\d+)?))?"
)
_SPACED_DASH = re.compile(r"\s*-\s*")
# The dash of an exponent, as in 32d1e-5, ends no node.
_NODE_END = re.compile(r"(?<!\de)-")
_POOL = re.compile(r"p(?P<size>\d+)")


@dataclass(frozen=True)
class Layer:
    """One layer of a network, with its input and output shapes (without the batch axis).

    ``shape_in`` and ``shape_out`` are ``(features,)`` or ``(channels, positions)``; ``size`` is a kernel or pool width,
    ``stride`` a convolution's stride, ``rate`` a dropout probability, ``name`` an activation.
    """

    kind: Kind
    shape_in: Shape
    shape_out: Shape
    parameters: int = 0
    name: str = ""
    size: int = 0
    stride: int = 1
    rate: float = 0.0


@dataclass(frozen=True)
class Network:
    """A validated network: its canonical specification, its layers in order and its count of trainable parameters."""

    spec: str
    layers: tuple[Layer, ...]
    parameters: int


@dataclass(frozen=True)
class _Options:
    batch_norm: bool = False
    activation: str = "relu"
    dropout: float = 0.0


def canonical(model: str) -> str:
    """Return the canonical specification of ``model``, which run ids use; a name and its layers give the same.

    Raises FieldError if the specification is invalid.
    """
    return parse(model).spec


@lru_cache(maxsize=1024)
def display_name(model: str) -> str:
    """Return the lab's name of a network if it has one, else its canonical specification."""
    spec = canonical(model)
    return next((name for name, text in NAMED.items() if text == spec), spec)


@lru_cache(maxsize=1024)
def parse(model: str, final_relu: bool = True) -> Network:
    """Parse a lab name or a specification; return the network, validated for shapes and size.

    Blanks around a dash do not count: ``16 - 64 - 5`` is ``16-64-5``.
    Raises FieldError (field ``model``) naming the invalid node and the rule.
    """
    text = _SPACED_DASH.sub("-", model.strip().lower())
    text = NAMED.get(text, text)
    if not text or len(text) > MAX_TEXT:
        raise _error(model, f"must be 1 to {MAX_TEXT} characters long")
    body, *option_texts = text.split()
    if similar := difflib.get_close_matches(body, NAMED, n=1, cutoff=0.75):
        raise _error(model, "is not a network of the lab", f"did you mean {similar[0]}?")
    options = _read_options(model, option_texts)
    nodes = _NODE_END.split(body)
    if not 2 <= len(nodes) <= MAX_NODES:
        raise _error(model, f"must have 2 to {MAX_NODES} nodes, it has {len(nodes)}")
    builder = _Builder(model, options)
    for position, node in enumerate(nodes):
        builder.add(node, first=position == 0, last=position == len(nodes) - 1)
    if final_relu:
        builder.activation("relu")
    return builder.finish()


def activations(network: Network) -> int:
    """Return the number of activations of one jet, all layers together."""
    return sum(prod(layer.shape_out) for layer in network.layers)


def _read_options(model: str, texts: list[str]) -> _Options:
    values: dict[str, str] = {}
    for text in texts:
        key, _, value = text.partition("=")
        if key not in ("bn", "act", "dropout") or not value:
            raise _error(model, f"option {text!r} is unknown", "options are bn=all, bn=none, act=NAME, dropout=RATE")
        values[key] = value
    if values.get("bn", "none") not in ("all", "none"):
        raise _error(model, f"option bn={values['bn']} is unknown", "write bn=all or bn=none")
    activation = values.get("act", "relu")
    _check_activation(model, activation, "act")
    return _Options(values.get("bn") == "all", activation, _rate(model, values.get("dropout"), "dropout"))


class _Builder:
    """Appends layers and tracks the shape of one jet through them."""

    def __init__(self, model: str, options: _Options) -> None:
        self.model, self.options = model, options
        self.shape: Shape = (INPUTS,)
        self.layers: list[Layer] = []
        self.nodes: list[str] = []

    def add(self, node: str, *, first: bool, last: bool) -> None:
        where = f"node {len(self.nodes) + 1} ({node!r})"
        if match := _LINEAR.fullmatch(node):
            self._linear(match, where, first=first, last=last)
        elif first:
            raise _error(self.model, f"{where} must be the {INPUTS} inputs, e.g. '16' or '16b'")
        elif last:
            raise _error(self.model, f"{where} must be a linear layer to the {OUTPUTS} classes, e.g. '5'")
        elif match := _CONV.fullmatch(node):
            self._conv(match, where)
        elif match := _POOL.fullmatch(node):
            self._pool(int(match["size"]), where)
        elif node == "gap":
            self._positions(where)
            if self.shape[1] == 1:
                raise _error(self.model, f"{where} averages over 1 position", "leave it out")
            self._append("avgpool", (self.shape[0],), size=self.shape[1])
            self.nodes.append("gap")
        else:
            raise _error(self.model, f"{where} is not a layer", "write e.g. '64', '64b', 'c8k3', 'r8k3', 'p2' or 'gap'")

    def finish(self) -> Network:
        parameters = sum(layer.parameters for layer in self.layers)
        if parameters > MAX_PARAMETERS:
            raise _error(
                self.model, f"has {parameters:,} parameters, the limit is {MAX_PARAMETERS:,}", "use narrower layers"
            )
        network = Network("-".join(self.nodes), tuple(self.layers), parameters)
        if activations(network) > MAX_ACTIVATIONS:
            raise _error(
                self.model,
                f"has {activations(network):,} activations per jet, the limit is {MAX_ACTIVATIONS:,}",
                "use fewer channels or layers, or a stride",
            )
        return network

    def activation(self, name: str) -> None:
        if name != "linear":
            self._append("activation", self.shape, name=name)

    def _linear(self, match: re.Match[str], where: str, *, first: bool, last: bool) -> None:
        width = self._width(match["width"], where)
        batch_norm, activation, dropout = self._suffixes(match, where)
        if first:
            if width != INPUTS:
                raise _error(self.model, f"{where} must be {INPUTS}, the number of features")
            # Without batch norm the inputs stay unchanged: a ReLU would set half of them to zero.
            if not batch_norm and match["act"] is None:
                activation = "linear"
        else:
            if last and width != OUTPUTS:
                raise _error(self.model, f"{where} must be {OUTPUTS}, the number of classes")
            if len(self.shape) == 2:
                self._append("flatten", (prod(self.shape),))
            self._append("linear", (width,), parameters=self.shape[0] * width + width)
        if last:
            if match["act"] is not None or match["drop"] is not None:
                raise _error(
                    self.model,
                    f"{where} is the last layer and takes no activation or dropout",
                    "set final_relu for a ReLU after it",
                )
            activation, dropout = "linear", 0.0
        self._tail(batch_norm, activation, dropout)
        self.nodes.append(
            f"{width}"
            + _suffix(batch_norm, activation, dropout, plain="linear" if (first and not batch_norm) or last else "relu")
        )

    def _conv(self, match: re.Match[str], where: str) -> None:
        channels, kernel, stride = (self._width(match["width"], where), int(match["kernel"]), int(match["stride"] or 1))
        if len(self.shape) == 1:
            self.shape = (1, self.shape[0])
        incoming, positions = self.shape
        if kernel % 2 == 0 or not 1 <= kernel <= 15:
            raise _error(self.model, f"{where} has kernel {kernel}, it must be odd and at most 15")
        if not 1 <= stride <= positions:
            raise _error(self.model, f"{where} has stride {stride}, it must lie in [1, {positions}]")
        batch_norm, activation, dropout = self._suffixes(match, where)
        if match["type"] == "r":
            if stride > 1 or match["bn"]:
                raise _error(
                    self.model,
                    f"{where} is a residual block, which has its own batch norm and no stride",
                    f"write r{channels}k{kernel}",
                )
            count = kernel * incoming * channels + channels + kernel * channels**2 + channels + 4 * channels
            if incoming != channels:
                count += incoming * channels + channels
            self._append("residual", (channels, positions), parameters=count, name=activation, size=kernel)
            self._tail(False, "linear", dropout)
            self.nodes.append(f"r{channels}k{kernel}" + _suffix(False, activation, dropout))
            return
        out = (positions - 1) // stride + 1
        self._append(
            "conv1d", (channels, out), parameters=kernel * incoming * channels + channels, size=kernel, stride=stride
        )
        self._tail(batch_norm, activation, dropout)
        self.nodes.append(
            f"c{channels}k{kernel}" + (f"s{stride}" if stride > 1 else "") + _suffix(batch_norm, activation, dropout)
        )

    def _pool(self, size: int, where: str) -> None:
        self._positions(where)
        channels, positions = self.shape
        if not 2 <= size <= positions:
            raise _error(
                self.model, f"{where} pools over {size} of {positions} positions", f"it must lie in [2, {positions}]"
            )
        self._append("maxpool", (channels, positions // size), size=size)
        self.nodes.append(f"p{size}")

    def _positions(self, where: str) -> None:
        if len(self.shape) == 1:
            raise _error(self.model, f"{where} needs positions to pool over", "put a convolution before it")

    def _suffixes(self, match: re.Match[str], where: str) -> tuple[bool, str, float]:
        activation = match["act"] or self.options.activation
        _check_activation(self.model, activation, where)
        dropout = self.options.dropout if match["drop"] is None else _rate(self.model, match["drop"], where)
        return bool(match["bn"]) or self.options.batch_norm, activation, dropout

    def _tail(self, batch_norm: bool, activation: str, dropout: float) -> None:
        if batch_norm:
            self._append("batchnorm", self.shape, parameters=2 * self.shape[0])
        self.activation(activation)
        if dropout:
            self._append("dropout", self.shape, rate=dropout)

    def _append(
        self,
        kind: Kind,
        shape_out: Shape,
        *,
        parameters: int = 0,
        name: str = "",
        size: int = 0,
        stride: int = 1,
        rate: float = 0.0,
    ) -> None:
        self.layers.append(Layer(kind, self.shape, shape_out, parameters, name, size, stride, rate))
        self.shape = shape_out

    def _width(self, text: str, where: str) -> int:
        if len(text) > 6 or not 1 <= int(text) <= MAX_WIDTH:
            raise _error(self.model, f"{where} has width {text[:12]}, it must lie in [1, {MAX_WIDTH}]")
        return int(text)


def _suffix(batch_norm: bool, activation: str, dropout: float, plain: str = "relu") -> str:
    return (
        ("b" if batch_norm else "")
        + (f"/{activation}" if activation != plain else "")
        + (f"d{dropout:.{_RATE_DIGITS}f}".rstrip("0") if dropout else "")
    )


def _check_activation(model: str, name: str, where: str) -> None:
    if name not in ACTIVATIONS:
        raise _error(model, f"{where} has the unknown activation {name!r}", "write one of " + ", ".join(ACTIVATIONS))


def _rate(model: str, text: str | None, where: str) -> float:
    if text is None:
        return 0.0
    try:
        rate = round(float(text), _RATE_DIGITS)
    except ValueError:
        rate = -1.0
    if not 0 <= rate < 1:
        raise _error(model, f"{where} has dropout {text}, it must lie in [0, {1 - 10**-_RATE_DIGITS}]")
    return rate


def _error(
    model: str, rule: str, remedy: str = "see the layer language, e.g. '16-64-32-32-5' or 'jsc-tiny'"
) -> FieldError:
    return FieldError("model", model, rule, remedy)

"""A network as a row of blocks: one block a layer, its height by the logarithm of its outputs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import altair as alt
import pyarrow as pa

from jsc_explore.charts.figure import Figure, build_spec, chart_from, font_config
from jsc_explore.charts.style import CATEGORIES, INK, MUTED
from jsc_explore.network import INPUTS, Layer, Network

TABLE = "layers"
_KINDS = ("inputs", "linear", "convolution", "batch norm", "activation", "other")
_KIND_COLOURS = ["#8A8D99", *CATEGORIES[:4], CATEGORIES[6]]
_KIND_OF = {
    "linear": "linear",
    "conv1d": "convolution",
    "residual": "convolution",
    "batchnorm": "batch norm",
    "activation": "activation",
}


def layer_table(network: Network) -> pa.Table:
    """Return one row a layer, the inputs first: position, half height, kind, text, shape, parameters."""
    rows = [_row(0, "inputs", "features", (INPUTS,), 0)]
    for position, layer in enumerate(network.layers, 1):
        rows.append(
            _row(position, _KIND_OF.get(layer.kind, "other"), _layer_text(layer), layer.shape_out, layer.parameters)
        )
    return pa.Table.from_pylist(rows)


def _row(position: int, kind: str, text: str, shape: tuple[int, ...], parameters: int) -> dict[str, Any]:
    half = 0.18 + 0.82 * math.log2(1 + math.prod(shape)) / 12
    return {
        "from": position + 0.12,
        "to": position + 0.88,
        "middle": position + 0.5,
        "low": -half,
        "high": half,
        "kind": kind,
        "text": text,
        "shape": "×".join(map(str, shape)),
        "parameters": parameters,
    }


def _layer_text(layer: Layer) -> str:
    if layer.kind == "activation":
        return layer.name
    if layer.kind == "dropout":
        return f"dropout {layer.rate:g}"
    short = {"batchnorm": "norm", "conv1d": f"conv k{layer.size}", "residual": f"residual k{layer.size}"}
    return short.get(layer.kind, layer.kind)


# ---- drawing


def network_figure(network: Network, theme: str = "light", size: float = 1.0) -> Figure:
    """Draw the layers of a network from left to right."""
    table = layer_table(network)
    alt_text = f"Network {network.spec} with {network.parameters:,} parameters: {', '.join(table['text'].to_pylist())}"
    return Figure(_spec(table.num_rows, theme, size), {TABLE: table}, alt_text)


@lru_cache(maxsize=64)
def _spec(count: int, theme: str, size: float) -> dict[str, Any]:
    x_scale = alt.Scale(domain=[0, max(count, 8)], nice=False)
    y_scale = alt.Scale(domain=[-1.5, 1.5], nice=False)
    blocks = (
        chart_from(TABLE).mark_rect(cornerRadius=3)
        .encode(
            x=alt.X("from:Q", scale=x_scale, axis=None), x2="to:Q",
            y=alt.Y("low:Q", scale=y_scale, axis=None), y2="high:Q",
            color=alt.Color("kind:N", scale=alt.Scale(domain=list(_KINDS), range=_KIND_COLOURS), legend=None),
            tooltip=[alt.Tooltip("text:N", title="layer"), alt.Tooltip("shape:N", title="out"),
                     alt.Tooltip("parameters:Q", title="parameters", format=",")],
        )
    )  # fmt: skip
    # Names of many layers are vertical: side by side they would overlap.
    angle = 0 if count <= 9 else -90
    labels = chart_from(TABLE).encode(x="middle:Q")
    names = labels.mark_text(
        fontSize=11 * size, color=INK[theme], angle=angle % 360, align="center" if not angle else "right"
    ).encode(y=alt.value(118 * size), text="text:N")
    shapes = labels.mark_text(fontSize=11 * size, color=MUTED[theme]).encode(y=alt.value(8 * size), text="shape:N")
    height = (130 if not angle else 170) * size
    return build_spec(alt.layer(blocks, names, shapes).properties(height=height)) | {
        "config": font_config(size, theme) | {"view": {"stroke": None}}
    }

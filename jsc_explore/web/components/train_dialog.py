"""The dialog that trains any config: a widget for each hyperparameter, a drawing of the network, the expected time."""

from __future__ import annotations

from typing import Any

import streamlit as st

from jsc_explore import data
from jsc_explore.charts.network import network_figure
from jsc_explore.config import DEFAULTS, FIELDS, RunConfig, format_value, parse_value
from jsc_explore.errors import DataError, FieldError
from jsc_explore.store.query.grid import stored_seeds
from jsc_explore.view_model.slice import Slice
from jsc_explore.view_model.tables import command
from jsc_explore.view_model.url_params import CELLS, MAX_SEEDS, NONE, axes_of, filter_key
from jsc_explore.web.components import cell_details, permissions
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import dialogs, presentation, services
from jsc_explore.web.state.url import EXPLORE

_FIRST = ("batch_size", "learning_rate", "max_epochs", "optimizer", "final_relu", "validation")


@st.dialog("Train a configuration", width="large", on_dismiss=dialogs.close)
def dialog(slice: Slice, start: RunConfig | None = None) -> None:
    """Draw the dialog with the values of ``start``, by default the base of the slice."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    start = start or slice.base
    _draw_field("model", start, values, faults)
    network = st.empty()
    columns = st.columns(3)
    for i, name in enumerate(_FIRST):
        with columns[i % 3]:
            _draw_field(name, start, values, faults)
    with st.expander("More hyperparameters"):
        columns = st.columns(3)
        rest = [name for name in FIELDS if name not in (*_FIRST, "model", "seed")]
        for i, name in enumerate(rest):
            with columns[i % 3]:
                _draw_field(name, start, values, faults)
    left, right = st.columns(2)
    count = left.slider("Number of seeds", 1, MAX_SEEDS, slice.seeds, key="form seeds")
    first = right.number_input("First seed", 0, FIELDS["seed"].high, 0, key="form seed", help=FIELDS["seed"].help)
    if faults:
        for line in faults:
            st.error(plain(line))
        st.button("Train", disabled=True, type="primary")
        return
    config = RunConfig(**values)
    with network.container():
        theme = st.context.theme.type or "light"
        figure = network_figure(config.network, theme, presentation.text_scale())
        st.markdown(f"**{config.network.parameters:,} parameters** in {len(config.network.layers)} layers")
        st.vega_lite_chart(figure.arrow_spec(), key="network", alt=figure.alt_text)
    _draw_train_button(config, [config.with_(seed=int(first) + i) for i in range(count)])


def _draw_field(name: str, start: RunConfig, values: dict[str, Any], faults: list[str]) -> None:
    """Draw one field's widget; add its value to ``values``, or a message to ``faults`` if it is invalid."""
    spec, current = FIELDS[name], getattr(start, name)
    key, text = f"form {name}", spec.help[0].upper() + spec.help[1:]
    if spec.kind == "bool":
        values[name] = st.toggle(spec.label, value=current, key=key, help=text)
        return
    free = spec.kind != "choice"
    options = [format_value(name, value) for value in dict.fromkeys([*spec.default_values, DEFAULTS[name], current])]
    typed = st.selectbox(
        spec.label, options, index=options.index(format_value(name, current)), key=key, accept_new_options=free,
        format_func=lambda option: spec.value_labels.get(option, option),
        help=text + ("; type any other value" if free else ""),
    )  # fmt: skip
    try:
        values[name] = parse_value(name, typed or "")
    except FieldError as error:
        faults.append(str(error))


def _draw_train_button(config: RunConfig, runs: list[RunConfig]) -> None:
    """Draw how many runs are stored, how long the others take, and the button that trains them."""
    store = services.store()
    try:
        config_id = config.config_id(data.digest(config.dataset))
    except DataError as error:
        st.info(plain(error))
        return
    stored = set(stored_seeds(store, [config_id]).get(config_id, []))
    missing = [run for run in runs if run.seed not in stored]
    known = f"{len(runs) - len(missing)} of {len(runs)} seeds are in the store. " if len(missing) < len(runs) else ""
    st.caption(
        f"{known}To train: {len(missing)} run{'s' if len(missing) != 1 else ''}, {cell_details.time_text(missing)}."
        if missing
        else f"{known}Nothing to train."
    )
    st.code(command(config, [run.seed for run in runs]), language="shell", wrap_lines=True)
    verb = f"Train {len(missing)} seed{'s' if len(missing) != 1 else ''}" if missing else "Show"
    refusal = permissions.refusal() if missing else ""
    if st.button(verb, type="primary", key="form train", disabled=bool(refusal), help=refusal or None):
        permissions.train(missing)
        _show(config)
        dialogs.close()
        st.rerun()


def _show(config: RunConfig) -> None:
    """Show a config on the page: set the filters to its values and select its cell.

    The axes stay. A network that the page does not show yet stands beside the others, in a grid of its own.
    """
    shown = EXPLORE["model"] if "model" not in axes_of(EXPLORE) else []
    beside = EXPLORE["facet"] == NONE and bool(shown) and config.model not in shown
    if beside:
        EXPLORE["facet"] = "model"
    axes = axes_of(EXPLORE)
    fields = (name for name in FIELDS if name not in (*axes, "seed"))
    values = {name: getattr(config, name) for name in fields}
    ranged = {
        name: (value, value) if FIELDS[name].kind in ("int", "float") else [value] for name, value in values.items()
    }
    EXPLORE.update({**ranged, "filter": "", CELLS: [tuple(getattr(config, name) for name in axes)]})
    for name in axes:
        EXPLORE.params.reset_filters(EXPLORE, [name])
    if beside:
        EXPLORE[filter_key("model", axis=True)] = [*shown, config.model]

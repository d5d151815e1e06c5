"""The Data page: what a jet is, the sixteen features by class, their correlations, and the provenance of the jets."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pyarrow as pa
import streamlit as st

from jsc_explore import data
from jsc_explore.charts import features as charts
from jsc_explore.charts.jets import constituent_table, jet_chart, mass_chart
from jsc_explore.charts.style import Chart
from jsc_explore.data.examples import ExampleJet, example_jets, example_recipe
from jsc_explore.data.glossary import CLASS_DESCRIPTIONS, CLASS_NAMES, NOTES, PAPERS, SYMBOLS
from jsc_explore.errors import JscError
from jsc_explore.store.query.jets import TAIL, JetFile
from jsc_explore.view_model.url_params import ALL
from jsc_explore.web.components import data_validation, export_dialog, provenance
from jsc_explore.web.plain_text import plain
from jsc_explore.web.state import chart_registry, dialogs, presentation
from jsc_explore.web.state.url import DATA

OVERVIEW_KEY = "overview"
OVERVIEW_BINS, HISTOGRAM_BINS = 40, 80
_DEFAULT = "mass_mmdt"
_QUANTILES = {"light": "lower-quartile", "typical": "median", "heavy": "upper-quartile"}
_JET_TEXT = f"""
When protons collide at the LHC, quarks and gluons fly out. They cannot be observed alone: each turns at once into a
narrow spray of dozens of particles, a **jet**. Heavier particles (W and Z bosons and the top quark) decay to quarks
first; if they are fast enough, all of these end in one jet. Which of the five started the jet must be inferred from the
pattern of the spray. That is what the networks here learn.

The particles' energies and directions give the jet a **mass**. For a W it should be 80 GeV, but soft particles from
elsewhere in the collision, and radiation at wide angles, add to it. **Grooming**
([modified mass drop]({PAPERS["mmdt"].url})) undoes the joining of particles into a jet, last step first, and drops the
softer piece until both pieces carry at least a tenth of the momentum. The *groomed* mass is that of the rest.
"""


def page() -> None:
    """Draw the page."""
    DATA.restore()
    presentation.apply_style()
    title, choice, buttons = st.columns([6, 2, 1], vertical_alignment="bottom")
    name = DATA.widget(choice.selectbox, "dataset", "Data", list(data.names()), help="Which jets are shown")
    DATA.write()
    try:
        path, manifest = data.locate(name)
        summary = _summary(str(path), manifest.digest, _DEFAULT)
    except JscError as error:
        title.markdown(f"##### The jets of *{name}* are not on this machine")
        st.info(plain(error), icon=":material/download:")
        _jet(None, "")
        return
    counts = _counts_text(summary)
    title.markdown(f"##### {counts}")
    with buttons:
        dialogs.button("export", "Export", ":material/download:", "Charts and tables as files", stretch=True)
    chart_registry.begin(f"jets of {name}, {manifest.digest}")
    _jet(str(path), manifest.digest)
    st.divider()
    _features(str(path), manifest.digest)
    st.divider()
    left, right = st.columns(2, gap="large")
    with left, st.container(key="correlation_panel"):
        _correlations(str(path), manifest.digest)
    with right, st.container(key="provenance_panel"):
        provenance.show(name, path, manifest)
    st.divider()
    with st.container(key="validation_panel"):
        data_validation.show(name, manifest.digest)
    text = f"{counts}. Jets: {name}, digest {manifest.digest}."
    dialogs.draw({"export": lambda: export_dialog.charts_dialog(DATA, text, name, chart_registry.tables(), [])})


def _counts_text(summary: pa.Table) -> str:
    counts = summary["n"].to_pylist()
    low, high = min(counts), max(counts)
    each = f"{low:,} of each" if low == high else f"{low:,} to {high:,} of each"
    return f"{sum(counts):,} jets of {len(counts)} kinds, {each}; {len(data.FEATURES)} features a jet"


# ---- a jet


@st.fragment
def _jet(path: str | None, digest: str) -> None:
    left, right = st.columns([5, 9], gap="large")
    with right, st.container(key="jet_charts_panel"):
        drawing, masses = st.columns([4, 5], gap="medium")
        caption = st.container()
    with left, st.container(key="jet_text_panel"):
        st.markdown("###### What a jet is")
        st.markdown(_JET_TEXT)
    with drawing, st.container(key="jet_panel"):
        label = DATA.widget(
            st.segmented_control, "jet", "Jet of", list(CLASS_NAMES), required=True,
            format_func=lambda name: CLASS_NAMES[name], label_visibility="collapsed",
        )  # fmt: skip
        below = st.container()
    with masses, st.container(key="mass_panel"):
        examples = example_jets()[label]
        quantile = DATA.widget(
            st.segmented_control, "mass", "Its mass", list(examples), required=True,
            format_func=lambda name: f"{name} jet", label_visibility="collapsed",
        )  # fmt: skip
        DATA.write()
        jet = examples[quantile]
        if path is not None:
            table = _histogram(path, digest, (_DEFAULT,), HISTOGRAM_BINS, False)
            alt_text = f"Groomed masses of {CLASS_NAMES[label]} jets, and the two masses of the drawn jet"
            make = partial(mass_chart, table, label, jet)
            chart_registry.register("masses", make, f"{alt_text}, {quantile}", table)
            st.altair_chart(make(_theme()), key="mass_chart", alt=alt_text)
    caption.caption(_caption(label, quantile, jet))
    alt_text = f"Constituents of a {CLASS_NAMES[label]} jet around its axis"
    table = constituent_table(jet)
    make = partial(jet_chart, table, label)
    chart_registry.register("jet", make, f"{alt_text}, {quantile}", table)
    below.altair_chart(make(_theme()), width="content", key="jet_chart", alt=alt_text)


def _caption(label: str, quantile: str, jet: ExampleJet) -> str:
    total = len(jet.constituents)
    removed = total - jet.kept
    share = sum(row[0] for row in jet.constituents if not row[3]) / sum(row[0] for row in jet.constituents)
    grooming = (
        f"Grooming removed {removed} of its {total} particles with {100 * share:.1f}% of the momentum; its mass fell "
        f"from {jet.mass_gev:.1f} to {jet.mass_mmdt_gev:.1f} GeV."
        if removed
        else f"Grooming removed none of its {total} particles: the mass stays {jet.mass_gev:.1f} GeV."
    )
    recipe = example_recipe()
    origin = (
        f"Of the first {recipe['of']} simulated {CLASS_NAMES[label]} jets it has the {_QUANTILES[quantile]} groomed "
        f"mass (preset {recipe['preset']}, seed {recipe['seed']})."
    )
    return (
        f"{CLASS_DESCRIPTIONS[label]} This one has {jet.pt_gev:,.0f} GeV of transverse momentum. {grooming} Area: "
        f"momentum of a particle; dashed circle: the cone, R = 0.4. {origin} The ungroomed mass is not a feature."
    )


# ---- the features


@st.fragment
def _features(path: str, digest: str) -> None:
    left, right = st.columns(2, gap="large")
    feature = DATA["feature"]
    with left, st.container(key="overview_panel"):
        st.markdown("###### The sixteen features, by class")
        alt_text = "Distribution of each of the sixteen features by class"
        table = _overview(path, digest)
        make = partial(charts.overview_chart, table, feature)
        chart_registry.register("features", make, f"{alt_text}, {feature} marked", table)
        st.altair_chart(
            make(_theme()), key=OVERVIEW_KEY, on_select=_clicked, selection_mode=charts.SELECTION, alt=alt_text
        )
        st.caption(
            "Click a feature to enlarge it. Names are without _mmdt, which stands for the groomed jet; only zlogz and "
            "multiplicity describe the jet before grooming."
        )
    with right, st.container(key="histogram_panel"):
        _histogram_panel(path, digest)


def _clicked() -> None:
    selected = st.session_state[OVERVIEW_KEY].selection.get(charts.SELECTION, [])
    if selected:
        DATA.change("feature", selected[0]["feature"])


def _histogram_panel(path: str, digest: str) -> None:
    first, second, third = st.columns([4, 2, 2], vertical_alignment="bottom")
    feature = DATA.widget(first.selectbox, "feature", "Feature", list(data.FEATURES), label_visibility="collapsed")
    is_negative = feature == "zlogz"
    log_x = DATA.widget(second.toggle, "log_x", "Log x", disabled=is_negative) and not is_negative
    log_y = DATA.widget(third.toggle, "log_y", "Log y")
    DATA.write()
    try:
        table = charts.histogram_table(_histogram(path, digest, (feature,), HISTOGRAM_BINS, log_x), log_y=log_y)
    except JscError as error:
        st.error(plain(error))
        return
    alt_text = f"Distribution of {feature} by class"

    def make(theme: str) -> Chart:
        return charts.histogram_chart(table, feature, log_x=log_x, log_y=log_y, theme=theme)

    chart_registry.register(
        "feature", make, f"{alt_text}, {'log' if log_x else 'linear'} x, {'log' if log_y else 'linear'} y", table
    )
    st.altair_chart(make(_theme()), key="histogram", alt=alt_text)
    st.markdown(_explanation(feature))
    st.latex(NOTES[feature].formula)
    st.markdown(_moments(feature, _summary(path, digest, feature)))
    st.caption(f"The outermost {100 * TAIL:.1f}% of jets on either side are counted, not drawn. Click a class in the "
               "legend to highlight it.")  # fmt: skip
    with st.popover("Symbols", type="tertiary"):
        st.markdown(SYMBOLS)


def _explanation(feature: str) -> str:
    note = NOTES[feature]
    paper = PAPERS[note.paper]
    return f"**{feature}**: {note.text} {note.remark} [{paper.title}]({paper.url})"


def _moments(feature: str, summary: pa.Table) -> str:
    rows = summary.to_pylist()
    unit = f" ({NOTES[feature].unit})" if NOTES[feature].unit else ""
    lines = [
        f"| {feature}{unit} | {' | '.join(CLASS_NAMES[row['label']] for row in rows)} |",
        "|:--" + "|--:" * len(rows) + "|",
        "| mean | " + " | ".join(f"{row['mean']:.3g}" for row in rows) + " |",
        "| spread (sd) | " + " | ".join(f"{row['sd']:.3g}" for row in rows) + " |",
    ]
    return "\n".join(lines)


# ---- correlations


@st.fragment
def _correlations(path: str, digest: str) -> None:
    st.markdown("###### Correlations of the features")
    label = DATA.widget(
        st.segmented_control, "correlations", "Of", [ALL, *CLASS_NAMES], required=True, label_visibility="collapsed",
        format_func=lambda name: CLASS_NAMES.get(name, "all classes"),
    )  # fmt: skip
    DATA.write()
    table = _correlation(path, digest, None if label == ALL else label)
    alt_text = f"Correlation of each pair of features, {CLASS_NAMES.get(label, 'all classes')}"
    chart_registry.register("correlations", partial(charts.correlation_chart, table), alt_text, table)
    st.altair_chart(charts.correlation_chart(table, _theme()), key="correlation", alt=alt_text)
    r = {(row["x"], row["y"]): row["r"] for row in table.to_pylist()}
    r_equal = r["d2_b1_mmdt", "d2_a1_b1_mmdt"]
    st.caption(
        "Pearson's r; hover for the value. d2_b1 and d2_a1_b1 are the same quantity under two names"
        + (f": r = {r_equal:.4g}." if r_equal is not None else ".")
    )


def _theme() -> str:
    return st.context.theme.type or "light"


# ---- queries, cached for each set of jets, which its digest identifies


@st.cache_data(show_spinner=False, max_entries=128)
def _summary(path: str, digest: str, feature: str) -> pa.Table:
    return JetFile(Path(path)).summary(feature)


@st.cache_data(show_spinner=False, max_entries=128)
def _histogram(path: str, digest: str, features: tuple[str, ...], bins: int, log: bool) -> pa.Table:
    jets = JetFile(Path(path))
    return jets.histograms(jets.bins(features, bins, log=log))


@st.cache_data(show_spinner=False, max_entries=16)
def _overview(path: str, digest: str) -> pa.Table:
    return charts.overview_table(_histogram(path, digest, data.FEATURES, OVERVIEW_BINS, False))


@st.cache_data(show_spinner=False, max_entries=32)
def _correlation(path: str, digest: str, label: str | None) -> pa.Table:
    return JetFile(Path(path)).correlations(label)

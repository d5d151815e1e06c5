"""The classes on the Compare page: confusion matrices, ROC curves and the areas under them."""

from __future__ import annotations

from functools import partial
from typing import Any

import streamlit as st

from jsc_explore.analysis.classes import confusion_shares, per_class, roc_medians
from jsc_explore.charts import compare as charts
from jsc_explore.charts import roc
from jsc_explore.charts.style import BAND_KINDS
from jsc_explore.data.glossary import CLASS_NAMES
from jsc_explore.data.jets import CLASSES
from jsc_explore.view_model.url_params import ALL
from jsc_explore.web.state import chart_registry, services
from jsc_explore.web.state.url import COMPARE

Runs = dict[str, list[dict[str, Any]]]


def confusions(runs: Runs) -> None:
    """Draw the confusion matrices of A and B, of all seeds or of one, and their difference."""
    st.markdown("##### Confusion matrix", help="On the test jets, with the weights of the best epoch")
    seeds = sorted({row["seed"] for side in runs.values() for row in side})
    silent = {row["seed"] for side in runs.values() for row in side if row["silent_classes"]}
    labels = {ALL: "all seeds"} | {seed: f"seed {seed}{' †' if seed in silent else ''}" for seed in seeds[:20]}
    if COMPARE["seed"] not in labels:
        COMPARE["seed"] = ALL
    selected = COMPARE.widget(
        st.segmented_control, "seed", "Of", list(labels), required=True, label_visibility="collapsed",
        format_func=labels.get,
    )  # fmt: skip
    COMPARE.write()
    shares = {
        side: confusion_shares([row["confusion"] for row in runs[side] if selected in (ALL, row["seed"])])
        for side in charts.SIDES
    }
    a, b = shares["A"], shares["B"]
    matrices = [("A", a, False), ("B", b, False), ("B − A, in points", None if a is None or b is None else b - a, True)]
    for column, (title, values, difference) in zip(st.columns(3, gap="medium"), matrices, strict=True):
        with column, st.container(key=f"third-{title[:1]}{difference:d}"):
            if values is None:
                st.caption(f"{title}: no confusion matrix of {labels[selected]}.")
                continue
            name = f"confusion_{'difference' if difference else title}"
            make = partial(charts.confusion_chart, values, title, difference=difference)
            chart_registry.draw(name, make, f"Confusion matrix, {title}, {labels[selected]}", name)


def separation(runs: Runs) -> None:
    """Draw the ROC curve of each class with its rejection at 50% signal efficiency, and the areas under the curves."""
    st.markdown(
        "##### ROC curves, one class against the rest", help="On the test jets, with the weights of the best epoch"
    )
    halves = [{**row, "side": side} for side in charts.SIDES for row in per_class(runs[side], "rejection")]
    medians, note = _roc(runs)
    tables = roc.roc_tables(medians, halves)
    y_range = roc.rejection_range(*tables)
    for column, name in zip(st.columns(len(CLASSES)), CLASSES, strict=True):
        with column, st.container(key=f"fifth-roc-{name}"):
            make = partial(roc.roc_chart, *tables, name, y_range)
            alt_text = f"Background rejection of A and B against signal efficiency, {CLASS_NAMES[name]}"
            chart_registry.draw(f"roc_{name}", make, alt_text, f"roc-{name}")
    st.caption(
        ":blue[**A**] and :orange[**B**]: background rejection (1 / false positive rate) against signal efficiency "
        f"(the share of the class that is kept); median over all seeds. Band and bar: {BAND_KINDS['interval']}. "
        f"The mark is at 50%.{note}"
    )
    with st.container(key="third-auc"):
        rows = [{**row, "side": side} for side in charts.SIDES for row in per_class(runs[side], "auc")]
        chart_registry.draw("auc", partial(charts.auc_chart, rows), "Area under the ROC curve per class", "class-auc")


def _roc(runs: Runs) -> tuple[list[dict[str, Any]], str]:
    """Return the median curves of both sides, and a note about runs without one."""
    store = services.store()
    rows: list[dict[str, Any]] = []
    notes = []
    for side in charts.SIDES:
        done = [run["run_id"] for run in runs[side] if run["auc"]]
        curves = _roc_curves(store.version, done)
        rows += [{**row, "side": side} for row in roc_medians(curves)]
        if missing_seeds := len(done) - len(curves):
            notes.append(f"{missing_seeds} of {len(done)} of {side}" if curves else f"{len(done)} of {side}")
    if not notes:
        return rows, ""
    return rows, f" Some runs have no stored ROC curve ({'; '.join(notes)}): for them only the mark at 50% is known."


@st.cache_data(show_spinner=False, max_entries=32)
def _roc_curves(version: int, run_ids: list[str]) -> list[list[float | None]]:
    curves: list[list[float | None]] = services.store().roc_curves(run_ids)["roc"].to_pylist()
    return curves

"""Data validation on the Data page: how far the jets are from those of the release that they stand in for."""

from __future__ import annotations

import streamlit as st

from jsc_explore import data
from jsc_explore.data.glossary import CLASS_NAMES
from jsc_explore.errors import JscError
from jsc_explore.validation.report import Report, check_sample, class_distances, feature_distances, preset_of
from jsc_explore.web.plain_text import plain

Rows = list[list[str]]


def show(name: str, digest: str) -> None:
    """Draw the verdict with all bounds, and a row per class and per feature with the worst marked."""
    st.markdown("###### Data validation")
    try:
        report = _report(name, digest)
    except JscError as error:
        st.info(plain(error))
        return
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(verdict_text(report))
        if report.criteria:
            st.markdown(criteria_table(report))
        st.markdown(class_table(report))
        st.caption(_caption(report))
    right.markdown(feature_table(report))


def verdict_text(report: Report) -> str:
    """Return which of our bounds the jets meet, in one sentence."""
    if report.passed is None:
        return "**No verdict**: none of our bounds applies to these jets."
    if report.passed:
        return "**Within our bounds**, which does not mean: like real jets in everything."
    broken = [one.description for one in report.criteria if one.passed is False]
    return f"**Outside our bounds**: {'; '.join(broken)}."


def criteria_table(report: Report) -> str:
    """Return a row per bound: the figure, its value, the bound, and whether the value is within it."""
    rows = []
    for one in report.criteria:
        worst = f" ({plain(one.worst)})" if one.worst else ""
        error = f" ± {one.error:.3f}" if one.error is not None else ""
        within = {True: "within", False: "**outside**", None: "too few jets"}[one.passed]
        sign = {"<=": "≤", ">=": "≥"}[one.relation]
        rows.append([f"{one.description}{worst}", f"{one.value:.3f}{error}", f"{sign} {one.bound:g}", within])
    return _table(["figure", "value", "our bound", "verdict"], rows)


def class_table(report: Report) -> str:
    """Return a row per class: its distance over all features, its worst feature, and the AUC if it is known."""
    means = class_distances(report)
    rows = []
    for name in data.CLASSES:
        distances = {row["feature"]: row["total_variation"] for row in report.levels if row["class"] == name}
        rows.append([CLASS_NAMES[name], _figure(means, name), _largest(distances)])
    header = ["class", "total variation, mean", "worst feature"]
    if report.discriminator is not None:
        auc = dict(zip(data.CLASSES, report.discriminator.auc, strict=True))
        header.append("AUC")
        rows = [[*row, _figure(auc, name)] for row, name in zip(rows, data.CLASSES, strict=True)]
    return _table(header, rows)


def feature_table(report: Report) -> str:
    """Return a row per feature: its distance over all classes, its worst class, and the distance to OpenML's jets."""
    means = feature_distances(report)
    ks = {row["feature"]: row["ks"] for row in report.quantiles}
    rows = []
    for name in data.FEATURES:
        of_feature = [row for row in report.levels if row["feature"] == name]
        distances = {CLASS_NAMES[row["class"]]: row["total_variation"] for row in of_feature}
        rows.append([plain(name), _figure(means, name), _largest(distances), _figure(ks, name)])
    return _table(["feature", "total variation, mean", "worst class", "KS to OpenML"], rows)


def _figure(values: dict[str, float], name: str) -> str:
    """Return a figure of a column, marked if it is the column's worst."""
    is_worst = values[name] == max(values.values())
    return f"**{values[name]:.3f} (worst)**" if is_worst else f"{values[name]:.3f}"


def _largest(values: dict[str, float]) -> str:
    name = max(values, key=lambda one: values[one])
    return f"{plain(name)} {values[name]:.3f}"


def _table(header: list[str], rows: Rows) -> str:
    lines = [header, [":--"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _caption(report: Report) -> str:
    recorded = (
        f" AUC: how well gradient boosting tells these jets from {plain(report.against)}, class by class; 0.5 means "
        "not at all. It was recorded when these jets were made, because the real jets cannot be shipped."
        if report.is_recorded
        else ""
    )
    other = "" if report.preset == "openml" else ", which is another release than these jets stand in for: not judged"
    return (
        "Total variation: the largest difference that a cut on one feature can make between these jets and CERNBox's, "
        "as a share of the jets of a class; 0 means equal. KS: the same for a cut on one side, all classes together, "
        f"against OpenML's jets{other}.{recorded} The bounds are this project's own; docs/data.md gives the reasons."
    )


@st.cache_data(show_spinner="Comparing the jets with the real ones", max_entries=8)
def _report(name: str, digest: str) -> Report:
    return check_sample(data.load(name), preset_of(name))

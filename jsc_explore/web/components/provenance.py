"""Provenance on the Data page: the splits, source, recipe, licence and digest of the jets."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from jsc_explore import data
from jsc_explore.config import display_value
from jsc_explore.data.cache import Manifest
from jsc_explore.data.glossary import PAPERS
from jsc_explore.data.sources import find_source
from jsc_explore.errors import JscError
from jsc_explore.web.plain_text import plain


def show(name: str, path: Path, manifest: Manifest) -> None:
    """Draw splits, source, recipe, licence and digest of a data set."""
    st.markdown("###### How the jets are split")
    st.markdown(splits_table(manifest.rows - manifest.duplicates))
    st.caption(
        "As in the lab, validation can use **the training jets** themselves (in evaluation mode): then it cannot show "
        "overfitting. The other choice holds out a tenth of the jets, which is not trained on. Both test on the same "
        f"fifth, drawn with seed 42. {_duplicates_text(manifest.duplicates)}; features are standardised with the mean "
        "and standard deviation of the training jets."
    )
    st.markdown("###### Where the jets come from")
    st.markdown("\n".join(f"- {line}" for line in _lines(name, path, manifest)))
    st.caption("Digest: the SHA-256 of all values. It is part of the id of every run that is trained on these jets.")
    st.code(manifest.digest, language=None, wrap_lines=True)


def splits_table(distinct: int) -> str:
    """Return the sizes of the parts for each kind of validation, as a Markdown table."""
    lines = ["| validate on | training | validation | test |", "|:--|--:|--:|--:|"]
    for validation in data.VALIDATIONS:
        size = data.part_sizes(distinct, validation)
        held_out = "the same jets" if validation == "train" else f"{size['val']:,}"
        label = display_value("validation", validation)
        lines.append(f"| {label} | {size['train']:,} | {held_out} | {size['test']:,} |")
    return "\n".join(lines)


def _duplicates_text(duplicates: int) -> str:
    return f"{duplicates:,} duplicate rows are dropped first" if duplicates else "No row is a duplicate"


def _lines(name: str, path: Path, manifest: Manifest) -> list[str]:
    source = find_source(name)
    lines = [f"**{plain(source.title)}**"]
    try:
        made = data.recipe(name)
    except JscError as error:
        made = {}
        lines.append(f":red[{plain(error)}]")
    if made:
        versions = ", ".join(f"{k.removeprefix('version.')} {v}" for k, v in made.items() if k.startswith("version."))
        lines += [
            f"Made by `jsc-explore data simulate`: [Pythia 8]({PAPERS['pythia'].url}), proton on proton at 13 TeV; a "
            f"parametrised detector ([{PAPERS['coleman'].title}]({PAPERS['coleman'].url})); [anti-kT]"
            f"({PAPERS['anti-kt'].url}) jets, R = 0.4, near 1 TeV; the features of [{PAPERS['duarte'].title}]"
            f"({PAPERS['duarte'].url})",
            f"Preset {made['preset']}, seed {made['seed']}, recipe {made['recipe']}, {made['blocks']} blocks, features "
            f"rounded to {made['mantissa_bits']} binary digits",
            f"With {plain(versions)}",
        ]
    if url := source.url or manifest.url:
        lines.append(f"Source: {plain(url)}")
    lines.append(f"Licence: {plain(manifest.licence or source.licence)}")
    lines.append(f"File: {plain(path.name)}, {path.stat().st_size / 1e6:.1f} MB, of {manifest.created[:10]}")
    return lines

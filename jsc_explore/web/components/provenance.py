"""Where the jets come from and how they are split: the part of the Data page that a paper would cite."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from jsc_explore import data
from jsc_explore.data.cache import Manifest
from jsc_explore.data.glossary import PAPERS
from jsc_explore.data.sources import find_source
from jsc_explore.errors import JscError


def show(name: str, path: Path, manifest: Manifest) -> None:
    """Draw splits, source, recipe, licence and digest of a source."""
    st.markdown("###### How they are split")
    st.markdown(splits_table(manifest.rows - manifest.duplicates))
    st.caption(
        "*train*, the lab's own way: validation **is** the training part, in evaluation mode, so it cannot show "
        "overfitting. *holdout* keeps a tenth aside, which is not trained on. Both test on the same fifth, drawn with "
        f"seed 42; {_dropped(manifest.duplicates)}, features are standardised with the training part's mean and spread."
    )
    st.markdown("###### Where they come from")
    st.markdown("\n".join(f"- {line}" for line in _lines(name, path, manifest)))
    st.caption("Digest: the sha256 of all values; part of the identity of every run trained on these jets.")
    st.code(manifest.digest, language=None, wrap_lines=True)


def splits_table(distinct: int) -> str:
    """Return the sizes of the parts under each validation, as Markdown."""
    lines = ["| validation | training | validation | test |", "|:--|--:|--:|--:|"]
    for validation in data.VALIDATIONS:
        size = data.part_sizes(distinct, validation)
        held_out = "the same jets" if validation == "train" else f"{size['val']:,}"
        lines.append(f"| {validation} | {size['train']:,} | {held_out} | {size['test']:,} |")
    return "\n".join(lines)


def _dropped(duplicates: int) -> str:
    return f"{duplicates:,} repeated rows are dropped first" if duplicates else "no row repeats another"


def _lines(name: str, path: Path, manifest: Manifest) -> list[str]:
    source = find_source(name)
    lines = [f"**{source.title}**"]
    try:
        made = data.recipe(name)
    except JscError as error:
        made = {}
        lines.append(f":red[{error}]")
    if made:
        versions = ", ".join(f"{k.removeprefix('version.')} {v}" for k, v in made.items() if k.startswith("version."))
        lines += [
            f"Made by `jsc-explore data simulate`: [Pythia 8]({PAPERS['pythia'].url}), proton on proton at 13 TeV; a "
            f"parametrised detector ([{PAPERS['coleman'].title}]({PAPERS['coleman'].url})); [anti-kT]"
            f"({PAPERS['anti-kt'].url}) jets, R = 0.4, near 1 TeV; the features of [{PAPERS['duarte'].title}]"
            f"({PAPERS['duarte'].url})",
            f"Preset {made['preset']}, seed {made['seed']}, recipe {made['recipe']}, {made['blocks']} blocks, features "
            f"rounded to {made['mantissa_bits']} binary digits",
            f"With {versions}",
        ]
    if url := source.url or manifest.url:
        lines.append(f"Source: <{url}>")
    lines.append(f"Licence: {manifest.licence or source.licence}")
    lines.append(f"File: {path.name}, {path.stat().st_size / 1e6:.1f} MB, of {manifest.created[:10]}")
    return lines

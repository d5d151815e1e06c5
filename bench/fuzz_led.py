"""Inputs led by coverage: ``python -m bench.fuzz_led DOOR INPUTS FOLDER`` leaves ``found.json`` in the folder."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["jsc_explore"]):
    from bench import fuzz

# A filter, a network and a grid are short; a file of twenty runs is not.
_MAX_BYTES = 1 << 17


def main() -> None:
    """Knock at one door; libFuzzer ends the process itself after the last input."""
    name, inputs, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    door, seeds = fuzz.LED[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, content in enumerate(seeds()):
        (corpus / str(i)).write_bytes(content)
    found = fuzz.Found()
    fuzz.prepare()

    def each(content: bytes) -> None:
        value: Any = content if name in ("toml_grid", "parquet_bytes") else content.decode("utf-8", "surrogateescape")
        fuzz.attempt(door, value, found)
        if found.inputs >= inputs:
            (folder / "found.json").write_text(json.dumps(asdict(found)))

    # A little more than asked for: its first inputs are the seeds, tried before they are counted.
    settings = [
        f"-runs={inputs + 100}",
        f"-max_len={_MAX_BYTES}",
        "-seed=1",
        "-verbosity=0",
        f"-artifact_prefix={folder}/",
    ]
    atheris.Setup([sys.argv[0], *settings, str(corpus)], each)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

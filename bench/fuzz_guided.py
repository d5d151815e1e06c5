"""Coverage-guided inputs: ``python -m bench.fuzz_guided PARSER INPUTS FOLDER`` writes ``found.json`` to the folder."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["jsc_explore"]):
    from bench import fuzz

# Enough for a Parquet file of twenty runs.
_MAX_BYTES = 1 << 17


def main() -> None:
    """Try one parser; libFuzzer ends the process itself after the last input."""
    name, inputs, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    parser, seeds = fuzz.GUIDED[name]
    corpus = folder / "corpus"
    corpus.mkdir()
    for i, content in enumerate(seeds()):
        (corpus / str(i)).write_bytes(content)
    result = fuzz.Result()
    fuzz.prepare()

    def each(content: bytes) -> None:
        value: Any = (
            content
            if name in ("toml_grid", "parquet_bytes", "import_table", "import_events")
            else content.decode("utf-8", "surrogateescape")
        )
        fuzz.attempt(parser, value, result)
        if result.inputs >= inputs:
            (folder / "found.json").write_text(json.dumps(asdict(result)))

    # A few more than requested: libFuzzer first tries the seed inputs.
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

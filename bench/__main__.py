"""``python -m bench NAME [--quick] [--json FILE] [--write]``; the name ``all`` runs every benchmark."""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Mapping
from pathlib import Path

from bench.frame import format_figure

# Each is a module of this package with a function run(quick: bool) -> Report.
NAMES = (
    "app", "store", "training", "proof", "stack", "gpu", "faults", "load", "fuzz", "estimates", "predictions",
    "statistics", "attack",
)  # fmt: skip
ROOT = Path(__file__).parent.parent
TABLES, SUMMARY = ROOT / "docs" / "benchmarks.md", ROOT / "README.md"


def main() -> None:
    """Run the benchmarks and print their reports."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="smaller sizes or fewer of them; at most a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures as JSON")
    parser.add_argument(
        "--write", action="store_true", help="write the tables into docs/benchmarks.md and the README's figures"
    )
    options = parser.parse_args()
    names = NAMES if options.name == "all" else (options.name,)
    for name in names:
        report = importlib.import_module(f"bench.{name}").run(options.quick)
        print(report.show(), flush=True)
        if options.json:
            several = len(names) > 1
            report.write(options.json.with_stem(f"{options.json.stem}-{name}") if several else options.json)
        if options.write and report.figures:
            write_tables(TABLES, name, report.markdown())
            write_figures(SUMMARY, name, report.figures)


def write_tables(path: Path, name: str, text: str) -> None:
    """Replace the text between the markers of this benchmark; a file without them does not change."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(f"<!-- bench {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of bench {name} -->")
    if begin and end:
        path.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")


def write_figures(path: Path, name: str, figures: Mapping[str, float]) -> None:
    """Replace each figure in a table row that ends in a link to this benchmark: ``| 1.47 | [`key`](…#name) |``."""

    def renew(match: re.Match[str]) -> str:
        value = figures.get(match["key"])
        return match[0] if value is None else f"| {format_figure(value)} {match['source']}"

    pattern = rf"\| (?P<value>[\d.,]+) (?P<source>\| \[`(?P<key>\w+)`\]\(docs/benchmarks\.md#{name}\))"
    path.write_text(re.sub(pattern, renew, path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()

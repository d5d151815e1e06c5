"""``python -m bench NAME [--quick] [--json FILE]``; the name ``all`` runs every measurement."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

# Each is a module of this package with a function run(quick: bool) -> Report.
NAMES = ("store",)


def main() -> None:
    """Run the measurements and print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="smaller sizes; ends within 50 s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    options = parser.parse_args()
    names = NAMES if options.name == "all" else (options.name,)
    for name in names:
        report = importlib.import_module(f"bench.{name}").run(options.quick)
        print(report.show(), flush=True)
        if options.json:
            several = len(names) > 1
            report.write(options.json.with_stem(f"{options.json.stem}-{name}") if several else options.json)


if __name__ == "__main__":
    main()

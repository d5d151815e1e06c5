"""``python -m bench NAME [--quick] [--json FILE] [--readme]``; the name ``all`` runs every measurement."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

# Each is a module of this package with a function run(quick: bool) -> Report.
NAMES = ("app", "store", "training", "proof", "stack", "gpu", "faults", "load", "fuzz", "estimates")


README = Path(__file__).parent.parent / "README.md"


def main() -> None:
    """Run the measurements and print what was seen."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="smaller sizes or fewer of them; about a minute")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    parser.add_argument(
        "--readme", action="store_true", help="put the report's tables into README.md, between its markers"
    )
    options = parser.parse_args()
    names = NAMES if options.name == "all" else (options.name,)
    for name in names:
        report = importlib.import_module(f"bench.{name}").run(options.quick)
        print(report.show(), flush=True)
        if options.json:
            several = len(names) > 1
            report.write(options.json.with_stem(f"{options.json.stem}-{name}") if several else options.json)
        if options.readme:
            _put(README, name, report.markdown())


def _put(path: Path, name: str, text: str) -> None:
    """Replace what lies between the markers of this measurement; a file without them stays as it is."""
    before, begin, rest = path.read_text(encoding="utf-8").partition(f"<!-- bench {name} -->\n")
    _, end, after = rest.partition(f"<!-- end of bench {name} -->")
    if begin and end:
        path.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()

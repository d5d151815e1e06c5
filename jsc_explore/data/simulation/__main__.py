"""`python -m jsc_explore.data.simulation`: simulate a sample into a directory of blocks."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jsc_explore.data.simulation.detector import PRESETS
from jsc_explore.data.simulation.production import simulate
from jsc_explore.errors import FieldError, JscError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m jsc_explore.data.simulation", description=simulate.__doc__
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--jets", type=int, required=True)
    parser.add_argument("--preset", choices=sorted(PRESETS), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--share", default="1/1", metavar="K/N", help="make every N-th block, from the K-th on"
    )
    options = parser.parse_args(arguments)
    try:
        paths = simulate(
            options.jets,
            options.preset,
            options.seed,
            options.workers,
            options.out,
            share=_share(options.share),
        )
    except JscError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(f"{len(paths)} blocks in {options.out}")
    return 0


def _share(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise FieldError("share", text, "must be k/n with 1 <= k <= n", "try 1/2 here and 2/2 there")
    return int(part), int(parts)


if __name__ == "__main__":
    sys.exit(main())

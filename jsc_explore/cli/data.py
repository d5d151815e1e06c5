"""Commands ``data``: fetch, simulate and validate jets."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from jsc_explore import data
from jsc_explore.cli import validate
from jsc_explore.cli.options import add_command
from jsc_explore.data.simulation.detector import PRESETS
from jsc_explore.errors import FieldError


def add_commands(commands: Any) -> None:
    """Add ``data`` with its actions."""
    group = add_command(commands, "data", None, "Fetch, simulate and validate jets.")
    actions = group.add_subparsers(required=True, metavar="ACTION")
    source = add_command(actions, "fetch", fetch)
    source.add_argument("source", metavar="SOURCE", help=", ".join(data.names()))
    source.add_argument("--force", action="store_true", help="download again")

    jets = add_command(actions, "simulate", simulate)
    jets.add_argument("--jets", metavar="N", default="250000", help="jets, equally many per class (default 250000)")
    jets.add_argument("--preset", default="cernbox", help=f"{' or '.join(sorted(PRESETS))} (default cernbox)")
    jets.add_argument("--seed", metavar="S", default="2018", help="seed of the simulation (default 2018)")
    jets.add_argument(
        "--workers", metavar="W", default=str(os.cpu_count() or 1), help="processes (default: one per core)"
    )
    jets.add_argument("--out", type=Path, metavar="DIR", help="directory of the blocks (default: in the cache)")
    jets.add_argument("--share", default="1/1", metavar="K/N", help="simulate every N-th block, starting with the K-th")
    jets.add_argument("--name", metavar="NAME", help="combine the blocks into a data set of your own, simulated-NAME")
    jets.add_argument(
        "--assemble", type=Path, metavar="DIR", help="combine the blocks into a sample like the shipped one"
    )
    validate.add_commands(actions)

    few = add_command(actions, "example-jets", example_jets)
    few.add_argument("--preset", default="cernbox", help=f"{' or '.join(sorted(PRESETS))} (default cernbox)")
    few.add_argument("--seed", metavar="S", default="2018", help="seed of the simulation (default 2018)")
    few.add_argument("--out", type=Path, metavar="FILE", default=Path("example-jets.json"), help="default %(default)s")


def fetch(options: argparse.Namespace) -> int:
    """Download a data source into the cache."""
    print(data.fetch(options.source, force=options.force))
    return 0


def simulate(options: argparse.Namespace) -> int:
    """Simulate jets block by block; repeat an interrupted command to continue it."""
    from jsc_explore.data.simulation import simulate as run

    jets, seed, workers = (_whole(options, name) for name in ("jets", "seed", "workers"))
    folder = options.out or data.cache_dir() / "simulation" / options.preset
    share = _share(options.share)
    if options.name is not None:
        return _sample(options, jets, seed, workers, folder)
    blocks = run(jets, options.preset, seed, workers, folder, share=share)
    print(f"{len(blocks)} blocks in {folder}")
    if options.assemble is not None:
        from jsc_explore.data.simulation.assembly import assemble

        print(assemble(blocks, options.assemble))
    return 0


def _sample(options: argparse.Namespace, jets: int, seed: int, workers: int, folder: Path) -> int:
    from jsc_explore.data.simulation.sample import make_sample

    if options.share != "1/1":
        remedy = "simulate the shares without --name, copy them into one directory, then run once with --name"
        raise FieldError("share", options.share, "cannot be combined with --name", remedy)
    if options.assemble is not None:
        raise FieldError("assemble", str(options.assemble), "cannot be combined with --name", "keep one of the two")

    path = make_sample(options.name, jets, options.preset, seed, workers, folder, log=partial(print, file=sys.stderr))
    print(f"simulated-{options.name}: {data.size(f'simulated-{options.name}'):,} jets in {path}")
    return 0


def example_jets(options: argparse.Namespace) -> int:
    """Simulate the example jets of the Data page, with all constituents."""
    from jsc_explore.data.simulation.examples import write_examples

    print(write_examples(options.out, options.preset, _whole(options, "seed")))
    return 0


def _whole(options: argparse.Namespace, name: str) -> int:
    text = getattr(options, name)
    try:
        return int(text)
    except ValueError:
        raise FieldError(name, text, "must be a whole number", "try 250000" if name == "jets" else "try 1") from None


def _share(text: str) -> tuple[int, int]:
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal()):
        raise FieldError("share", text, "must be k/n with 1 <= k <= n", "try 1/2 here and 2/2 there")
    return int(part), int(parts)

"""The command line's entry point. Data go to stdout, progress and errors to stderr; bad input exits with 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from jsc_explore import __version__
from jsc_explore.cli import app, data, export, importing, runs, store, train
from jsc_explore.cli.options import Parser
from jsc_explore.errors import JscError


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; exit 0 on success, 1 when a training failed or a fault was found, 2 for bad input."""
    if arguments is None:
        # Processes that this one starts import nothing from the current directory, which may be anybody's.
        os.environ["PYTHONSAFEPATH"] = "1"
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
        sys.stdout.flush()
    except JscError as error:
        print(f"jsc-explore: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except BrokenPipeError:
        # The reader of the output (head, less) has ended: discard the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        print("\njsc-explore: interrupted; requested runs stay queued for the next engine", file=sys.stderr)
        code = 130
    sys.exit(code)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="jsc-explore", description="Explore how hyperparameters shape the training of jet classifiers."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (app, train, runs, store, data, export, importing):
        module.add_commands(commands)
    return parser

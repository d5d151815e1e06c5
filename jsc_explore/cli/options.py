"""Parts that the commands share: the parser, options made from the hyperparameters, argument types, the store."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from jsc_explore import paths
from jsc_explore.config import DEFAULTS, FIELDS, format_value, parse_value
from jsc_explore.store import Store


class Parser(argparse.ArgumentParser):
    """An argument parser that reports bad input in one line, like the rest of the program."""

    def error(self, message: str) -> Any:
        """Print the message to stderr and exit with 2."""
        print(f"jsc-explore: {message}; see `{self.prog} --help`", file=sys.stderr)
        raise SystemExit(2)


def add_command(
    commands: Any, name: str, function: Callable[[argparse.Namespace], int] | None, text: str = ""
) -> argparse.ArgumentParser:
    """Add a command to a subparser group; its help is ``text`` or the first line of the function's docstring.

    Without a function it is a group of further commands.
    """
    text = text or ((function and function.__doc__) or "").splitlines()[0]
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text.rstrip("."), description=text)
    if function is not None:
        parser.set_defaults(command=function)
        parser.add_argument(
            "--store", type=Path, default=paths.default_store(), metavar="DIR", help="the store (default: %(default)s)"
        )
    return parser


def add_field_options(
    parser: argparse.ArgumentParser, names: Iterable[str] = FIELDS, *, with_defaults: bool = False
) -> None:
    """Add an option for each of these hyperparameters."""
    for name, spec in ((name, FIELDS[name]) for name in names):
        text = spec.help.replace("%", "%%") + (f"; one of {spec.choices_text}" if spec.choices else "")
        default = f" (default {format_value(name, DEFAULTS[name])})" if with_defaults else ""
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="VALUE", help=text + default)


def field_values(options: argparse.Namespace) -> Mapping[str, Any]:
    """Return the hyperparameters given as options, parsed; FieldError for an invalid value."""
    texts = {name: getattr(options, name, None) for name in FIELDS}
    return {name: parse_value(name, text) for name, text in texts.items() if text is not None}


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON lines")


def print_json(rows: Iterable[Any]) -> None:
    """Print each row as one line of JSON."""
    for row in rows:
        print(json.dumps(row))


def positive(text: str) -> int:
    """Parse a whole number in [1, 1000], as an argument type."""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number in [1, 1000]")
    return int(text)


def open_store(options: argparse.Namespace) -> Store:
    """Open the store with the published runs; print unreadable files to stderr."""
    store = Store(options.store, paths.snapshot())
    for problem in store.problems:
        print(f"jsc-explore: {problem}", file=sys.stderr)
    return store

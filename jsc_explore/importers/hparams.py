"""Read hyperparameters from Lightning's hparams.yaml as plain values, without creating the objects its tags name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from jsc_explore.files import error_reason

MAX_BYTES, MAX_DEPTH, MAX_VALUES = 1_000_000, 4, 400


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """A safe loader that returns an unknown tag as text instead of refusing the whole file."""


def _as_text(loader: Any, suffix: str, node: yaml.Node) -> str:
    name = suffix.rsplit(":", 1)[-1]
    if isinstance(node, yaml.ScalarNode):
        return f"{node.value or name}"
    return name


_PlainLoader.add_multi_constructor("", _as_text)
_PlainLoader.add_multi_constructor("!", _as_text)
_PlainLoader.add_multi_constructor("tag:", _as_text)


def read_hparams(path: Path, digest: Any = None) -> tuple[dict[str, Any], str]:
    """Return name -> value, nested names joined by dots, and a message on what could not be read, or "".

    Objects and functions that a tag names are never created: their names become text. ``digest`` gets the content.
    """
    try:
        content = path.read_bytes()[: MAX_BYTES + 1]
        if digest is not None:
            digest.update(content)
        if len(content) > MAX_BYTES:
            return {}, f"{path.name} is larger than 1 MB and is not read"
        loaded = yaml.load(content.decode("utf-8"), _PlainLoader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        return {}, f"{path.name} cannot be read ({str(error).splitlines()[0][:80]})"
    except OSError as error:
        return {}, f"{path.name} cannot be read ({error_reason(error)})"
    if loaded is None:
        return {}, ""
    if not isinstance(loaded, dict):
        return {}, f"{path.name} does not contain names with values"
    found: dict[str, Any] = {}
    for name, value in _flatten(loaded, "", 0):
        # A file whose aliases refer to each other would expand without end.
        if len(found) == MAX_VALUES:
            return found, f"{path.name} has more than {MAX_VALUES} values: the rest is skipped"
        found[name] = value
    return found, ""


def _flatten(values: dict[Any, Any], prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        name = f"{prefix}{str(key)[:100]}"
        if isinstance(value, dict) and depth < MAX_DEPTH:
            yield from _flatten(value, f"{name}.", depth + 1)
        elif isinstance(value, (list, tuple, set)):
            parts = [str(one)[:60] for one in list(value)[:20] if not isinstance(one, (list, dict, tuple, set))]
            yield name, ", ".join(parts)
        elif not isinstance(value, dict):
            yield name, value

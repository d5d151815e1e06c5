"""A simulated sample of one's own: what is missing is simulated, what comes with the project is not done again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsc_explore.config import FIELDS
from jsc_explore.data.cache import read_recipe
from jsc_explore.data.datasets import locked
from jsc_explore.data.simulation.assembly import Part, assemble, split_into_blocks
from jsc_explore.data.simulation.blocks import Block, unwritable
from jsc_explore.data.simulation.detector import PRESETS
from jsc_explore.data.simulation.events import RECIPE_VERSION
from jsc_explore.data.simulation.extra import versions
from jsc_explore.data.simulation.production import plan, simulate
from jsc_explore.data.sources import SHIPPED, is_user_sample
from jsc_explore.errors import FieldError
from jsc_explore.paths import cache_dir


def make_sample(
    name: str,
    jets: int,
    preset: str,
    seed: int,
    workers: int,
    blocks: Path,
    *,
    cache: Path | None = None,
    log: Callable[[str], object] = lambda line: None,
) -> Path:
    """Simulate what is missing in the folder ``blocks`` and put the sample into the cache as ``simulated-name``.

    Where preset, seed, recipe and versions are those of the sample that comes with the project, its blocks are taken
    from there. The same call always makes the same jets, with whatever blocks at hand. ``tell`` is told what is done.
    Raises FieldError for a name that cannot be, or that a sample of other jets has; DataError as ``simulate``.
    """
    folder, source = cache or cache_dir(), f"simulated-{name}"
    check_name(name, preset, seed, folder)
    wanted = plan(jets, preset, seed)
    parts = _shipped(wanted, log)
    files = simulate(jets, preset, seed, workers, blocks, without=list(parts)) if len(parts) < len(wanted) else []
    try:
        with locked(folder, source):
            return assemble(files, folder, source, list(parts.values()))
    except OSError as error:
        raise unwritable(folder, error) from error


def check_name(name: str, preset: str, seed: int, folder: Path) -> None:
    """Refuse a name for a sample of this preset and seed that cannot be one, or would be confused with another's."""
    source = f"simulated-{name}"
    if not is_user_sample(source):
        raise FieldError("name", name, f"must give {FIELDS['dataset'].pattern_help}", "try 1M")
    for other in PRESETS:
        if other in name and other != preset:
            raise FieldError("name", name, f"names another preset than {preset}", f"add --preset {other}")
    recipe = read_recipe(folder, source)
    if recipe and (recipe["preset"], recipe["seed"]) != (preset, str(seed)):
        rule = f"is a sample of preset {recipe['preset']}, seed {recipe['seed']}, already"
        raise FieldError("name", name, rule, "choose another name")


def _shipped(wanted: list[Block], log: Callable[[str], object]) -> dict[Block, Part]:
    """Return those of the wanted blocks that come with the project and may stand beside blocks simulated now."""
    recipe = read_recipe(SHIPPED, "simulated")
    first = wanted[0]
    said = (recipe.get("preset"), recipe.get("seed"), recipe.get("recipe"))
    if said != (first.preset, str(first.seed), str(RECIPE_VERSION)):
        return {}
    there = split_into_blocks(SHIPPED, "simulated")
    found = {block: there[block] for block in wanted if block in there}
    if len(found) < len(wanted) and (differing := _other_versions(recipe)):
        log(f"simulating every block: those of the project were made with {differing}")
        return {}
    if found:
        log(f"{len(found)} of {len(wanted)} blocks come with the project")
    return found


def _other_versions(recipe: dict[str, Any]) -> str:
    mine = versions()
    theirs = {key.removeprefix("version."): value for key, value in recipe.items() if key.startswith("version.")}
    return ", ".join(f"{name} {value}" for name, value in theirs.items() if mine.get(name) != value)

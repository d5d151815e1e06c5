"""Make a user's simulated sample: reuse the blocks shipped with jsc-explore, simulate the missing ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from jsc_explore.config import FIELDS
from jsc_explore.data.cache import read_recipe
from jsc_explore.data.datasets import locked
from jsc_explore.data.simulation.assembly import BlockJets, assemble, split_into_blocks
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
    """Simulate the blocks missing in the folder ``blocks`` and write the sample ``simulated-name`` to the cache.

    If preset, seed, recipe and versions are those of the sample shipped with jsc-explore, its blocks are reused. The
    same call always gives the same jets, whichever blocks exist. ``log`` gets progress messages. Raises FieldError for
    a name that is invalid or belongs to a sample with other settings; DataError as ``simulate`` does.
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
    """Raise FieldError if the name is invalid or belongs to a sample of another preset or seed."""
    source = f"simulated-{name}"
    if not is_user_sample(source):
        raise FieldError("name", name, f"must give {FIELDS['dataset'].pattern_help}", "try 1M")
    for other in PRESETS:
        if other in name and other != preset:
            raise FieldError(
                "name", name, f"contains the name of another preset than {preset}", f"add --preset {other}"
            )
    recipe = read_recipe(folder, source)
    if recipe and (recipe["preset"], recipe["seed"]) != (preset, str(seed)):
        rule = f"is already a sample of preset {recipe['preset']}, seed {recipe['seed']}"
        raise FieldError("name", name, rule, "choose another name")


def _shipped(wanted: list[Block], log: Callable[[str], object]) -> dict[Block, BlockJets]:
    """Return the wanted blocks that are shipped with jsc-explore, if they can be combined with newly simulated ones."""
    recipe = read_recipe(SHIPPED, "simulated")
    first = wanted[0]
    settings = (recipe.get("preset"), recipe.get("seed"), recipe.get("recipe"))
    if settings != (first.preset, str(first.seed), str(RECIPE_VERSION)):
        return {}
    shipped = split_into_blocks(SHIPPED, "simulated")
    found = {block: shipped[block] for block in wanted if block in shipped}
    if len(found) < len(wanted) and (differing := _other_versions(recipe)):
        log(f"simulating all blocks: those shipped with jsc-explore were made with {differing}")
        return {}
    if found:
        log(f"{len(found)} of {len(wanted)} blocks are shipped with jsc-explore")
    return found


def _other_versions(recipe: dict[str, Any]) -> str:
    mine = versions()
    theirs = {key.removeprefix("version."): value for key, value in recipe.items() if key.startswith("version.")}
    return ", ".join(f"{name} {value}" for name, value in theirs.items() if mine.get(name) != value)
